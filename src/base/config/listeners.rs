//! Listeners: what each shard binds and what clients are told.
//!
//! Shard `s` adds `s` to the port of `listeners` and of `advertised.listeners`; `shard.advertised.listeners` names the
//! address of single shards (NAT, NodePort). Names and protocols are as in Kafka; only PLAINTEXT is built.

use super::error::ConfigError;
use super::settings::Settings;
use std::collections::BTreeMap;

/// `NAME://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// In capitals, as Kafka normalises it.
    pub name: String,
    /// None: every address of the machine, IPv6 and IPv4 by one socket. IPv6 without brackets.
    pub host: Option<String>,
    /// 0 lets the kernel choose.
    pub port: u16,
}

/// All listeners of a node, for any of its shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listeners {
    bound: Vec<Endpoint>,
    advertised: Vec<Endpoint>,
    by_shard: BTreeMap<u16, Vec<Endpoint>>,
}

type Refused = (String, ConfigError);

impl Listeners {
    /// From the settings; each refusal with the name of the setting that is at fault.
    pub(super) fn from_settings(settings: &Settings) -> Result<Listeners, Refused> {
        let protocols = parse_protocols(settings.text("listener.security.protocol.map").unwrap_or(""))?;
        let bound = parse_endpoints("listeners", settings.text("listeners").unwrap_or(""), &protocols)?;
        if bound.is_empty() {
            return refuse("listeners", "", "at least one listener is needed");
        }
        let advertised = match settings.text("advertised.listeners") {
            Some(text) => parse_endpoints("advertised.listeners", text, &protocols)?,
            None => Vec::new(),
        };
        for endpoint in &advertised {
            check_advertised("advertised.listeners", endpoint, &bound)?;
        }
        let by_shard = parse_by_shard(settings.value("shard.advertised.listeners").as_list(), &protocols, &bound)?;
        let listeners = Listeners { bound, advertised, by_shard };
        if let Some(name) = settings.text("inter.broker.listener.name")
            && !listeners.bound.iter().any(|endpoint| endpoint.name == name.to_uppercase())
        {
            return refuse("inter.broker.listener.name", name, "no listener of listeners has this name");
        }
        listeners.check_shards(1).map_err(|error| ("listeners".to_owned(), error))?;
        Ok(listeners)
    }

    /// Whether every shard has ports of its own. To be asked once the number of shards is known.
    pub fn check_shards(&self, shards: u16) -> Result<(), ConfigError> {
        let last = shards.saturating_sub(1);
        let refused =
            |endpoint: &Endpoint, reason: String| Err(ConfigError::invalid("listeners", endpoint.to_string(), reason));
        for (at, one) in self.bound.iter().enumerate() {
            if one.port == 0 {
                continue;
            }
            if one.port.checked_add(last).is_none() {
                return refused(
                    one,
                    format!("{shards} shards need ports up to {}", u32::from(one.port) + u32::from(last)),
                );
            }
            for other in self.bound[at + 1..].iter().filter(|other| other.port != 0) {
                if one.port.abs_diff(other.port) < shards && one.shares_address_with(other) {
                    let end = one.port + last;
                    return refused(one, format!("its ports {}-{end} overlap those of {other}", one.port));
                }
            }
        }
        if let Some(beyond) = self.by_shard.keys().find(|shard| **shard >= shards && shards > 1) {
            return Err(ConfigError::invalid(
                "shard.advertised.listeners",
                beyond.to_string(),
                format!("there are only shards 0 to {last}"),
            ));
        }
        match self.advertised.iter().find(|endpoint| endpoint.port.checked_add(last).is_none()) {
            Some(endpoint) => Err(ConfigError::invalid(
                "advertised.listeners",
                endpoint.to_string(),
                format!("{shards} shards need ports up to {}", u32::from(endpoint.port) + u32::from(last)),
            )),
            None => Ok(()),
        }
    }

    /// What this shard binds, in the order of `listeners`.
    pub fn bound_by(&self, shard: u16) -> impl Iterator<Item = Endpoint> {
        self.bound.iter().map(move |endpoint| endpoint.of_shard(shard))
    }

    /// What clients of this listener are told about this shard. None where nothing is configured: then it is the
    /// local address of the very connection that asks, and the shard's port.
    pub fn advertised_by(&self, name: &str, shard: u16) -> Option<Endpoint> {
        let named = |endpoint: &&Endpoint| endpoint.name == name;
        if let Some(endpoint) = self.by_shard.get(&shard).and_then(|own| own.iter().find(named)) {
            return Some(endpoint.clone());
        }
        if let Some(endpoint) = self.advertised.iter().find(named) {
            return Some(endpoint.of_shard(shard));
        }
        // Kafka tells clients the host of `listeners` itself where that names one.
        let bound = self.bound.iter().find(named)?;
        let tellable = bound.host.as_deref().is_some_and(|host| !is_wildcard(host)) && bound.port != 0;
        tellable.then(|| bound.of_shard(shard))
    }
}

impl Endpoint {
    fn of_shard(&self, shard: u16) -> Endpoint {
        let port = if self.port == 0 { 0 } else { self.port.saturating_add(shard) };
        Endpoint { port, ..self.clone() }
    }

    fn shares_address_with(&self, other: &Endpoint) -> bool {
        let (Some(one), Some(two)) = (&self.host, &other.host) else { return true };
        if is_wildcard(one) || is_wildcard(two) {
            return true;
        }
        one == two
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.host {
            Some(host) if host.contains(':') => write!(f, "{}://[{host}]:{}", self.name, self.port),
            Some(host) => write!(f, "{}://{host}:{}", self.name, self.port),
            None => write!(f, "{}://:{}", self.name, self.port),
        }
    }
}

fn is_wildcard(host: &str) -> bool {
    host == "0.0.0.0" || host == "::"
}

fn refuse<T>(name: &str, value: impl Into<String>, reason: impl Into<String>) -> Result<T, Refused> {
    Err((name.to_owned(), ConfigError::invalid(name, value, reason)))
}

/// `NAME:PROTOCOL,…`.
fn parse_protocols(text: &str) -> Result<BTreeMap<String, String>, Refused> {
    let name = "listener.security.protocol.map";
    let mut protocols = BTreeMap::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let Some((listener, protocol)) = pair.split_once(':') else {
            return refuse(name, pair, "must be NAME:PROTOCOL");
        };
        let protocol = protocol.trim().to_uppercase();
        if !["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"].contains(&protocol.as_str()) {
            return refuse(name, pair, "the protocol must be PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL");
        }
        protocols.insert(listener.trim().to_uppercase(), protocol);
    }
    Ok(protocols)
}

/// `NAME://host:port,…`, each name once, each with a protocol that is built.
fn parse_endpoints(setting: &str, text: &str, protocols: &BTreeMap<String, String>) -> Result<Vec<Endpoint>, Refused> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let endpoint = parse_endpoint(setting, part, protocols)?;
        if endpoints.iter().any(|earlier| earlier.name == endpoint.name) {
            return refuse(setting, text, format!("the listener {} stands twice", endpoint.name));
        }
        endpoints.push(endpoint);
    }
    Ok(endpoints)
}

fn parse_endpoint(setting: &str, part: &str, protocols: &BTreeMap<String, String>) -> Result<Endpoint, Refused> {
    const FORM: &str = "must be NAME://host:port, with an IPv6 host in brackets";
    let Some((name, address)) = part.split_once("://") else { return refuse(setting, part, FORM) };
    let Some((host, port)) = address.rsplit_once(':') else { return refuse(setting, part, FORM) };
    let name = name.to_uppercase();
    let Ok(port) = port.parse::<u16>() else { return refuse(setting, part, "the port must be 0 to 65535") };
    let host = match host.strip_prefix('[') {
        Some(rest) => match rest.strip_suffix(']').filter(|host| host.parse::<std::net::Ipv6Addr>().is_ok()) {
            Some(host) => host,
            None => return refuse(setting, part, FORM),
        },
        None => host,
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-%._:".contains(c);
    if !host.chars().all(allowed) || (host.contains(':') && !part.contains('[')) {
        return refuse(setting, part, FORM);
    }
    match protocols.get(&name).map(String::as_str) {
        Some("PLAINTEXT") => {}
        Some(protocol) => {
            let reason = format!("{protocol} is not built yet, only PLAINTEXT");
            let (name, value) = (setting.to_owned(), part.to_owned());
            return Err((name.clone(), ConfigError::NotBuilt { name, value, reason }));
        }
        None => {
            return refuse(setting, part, format!("listener.security.protocol.map has no protocol for {name}"));
        }
    }
    Ok(Endpoint { name, host: (!host.is_empty()).then(|| host.to_owned()), port })
}

/// `SHARD=NAME://host:port` each.
fn parse_by_shard(
    elements: &[String],
    protocols: &BTreeMap<String, String>,
    bound: &[Endpoint],
) -> Result<BTreeMap<u16, Vec<Endpoint>>, Refused> {
    let setting = "shard.advertised.listeners";
    let mut by_shard: BTreeMap<u16, Vec<Endpoint>> = BTreeMap::new();
    for element in elements {
        let parsed = element.split_once('=').and_then(|(shard, rest)| Some((shard.trim().parse::<u16>().ok()?, rest)));
        let Some((shard, rest)) = parsed else {
            return refuse(setting, element, "must be SHARD=NAME://host:port, with shards counted from 0");
        };
        let endpoint = parse_endpoint(setting, rest.trim(), protocols)?;
        check_advertised(setting, &endpoint, bound)?;
        let own = by_shard.entry(shard).or_default();
        if own.iter().any(|earlier| earlier.name == endpoint.name) {
            return refuse(setting, element, format!("shard {shard} has {} twice", endpoint.name));
        }
        own.push(endpoint);
    }
    Ok(by_shard)
}

fn check_advertised(setting: &str, endpoint: &Endpoint, bound: &[Endpoint]) -> Result<(), Refused> {
    if !bound.iter().any(|listener| listener.name == endpoint.name) {
        return refuse(setting, endpoint.to_string(), format!("listeners has no {}", endpoint.name));
    }
    match endpoint.host.as_deref() {
        None => refuse(setting, endpoint.to_string(), "needs a host that clients can reach"),
        Some(host) if is_wildcard(host) => {
            refuse(setting, endpoint.to_string(), format!("{host} is no address that clients can reach"))
        }
        Some(_) if endpoint.port == 0 => refuse(setting, endpoint.to_string(), "needs a port that clients can reach"),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listeners(pairs: &[(&str, &str)]) -> Result<Listeners, String> {
        let texts = pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let settings = Settings::from_statics(texts).expect("the types are right");
        Listeners::from_settings(&settings).map_err(|(name, error)| {
            assert!(pairs.iter().any(|(given, _)| *given == name), "{name} was not given");
            error.to_string()
        })
    }

    fn bound(listeners: &Listeners, shard: u16) -> Vec<String> {
        listeners.bound_by(shard).map(|endpoint| endpoint.to_string()).collect()
    }

    fn advertised(listeners: &Listeners, name: &str, shard: u16) -> Option<String> {
        listeners.advertised_by(name, shard).map(|endpoint| endpoint.to_string())
    }

    #[test]
    fn each_shard_has_the_next_port() {
        let plain = listeners(&[]).expect("the default");
        assert_eq!(bound(&plain, 0), ["PLAINTEXT://:9092"]);
        assert_eq!(bound(&plain, 3), ["PLAINTEXT://:9095"]);
        assert_eq!(advertised(&plain, "PLAINTEXT", 0), None, "the address of the connection is told");
        let six = listeners(&[("listeners", "plaintext://[::1]:9092")]).expect("IPv6");
        assert_eq!(six.bound_by(1).next().and_then(|endpoint| endpoint.host).as_deref(), Some("::1"));
        assert_eq!(advertised(&six, "PLAINTEXT", 1).as_deref(), Some("PLAINTEXT://[::1]:9093"));
        let any = listeners(&[("listeners", "PLAINTEXT://0.0.0.0:0")]).expect("a port of the kernel's choice");
        assert_eq!((bound(&any, 5), advertised(&any, "PLAINTEXT", 5)), (vec!["PLAINTEXT://0.0.0.0:0".into()], None));
    }

    #[test]
    fn what_is_told_is_the_most_particular() {
        let told = listeners(&[
            ("listeners", "IN://:9092,OUT://:9192"),
            ("listener.security.protocol.map", "in:PLAINTEXT, OUT:PLAINTEXT"),
            ("advertised.listeners", "OUT://example.org:30000"),
            ("shard.advertised.listeners", "1=OUT://10.0.0.1:31207, 2=IN://10.0.0.2:7"),
            ("inter.broker.listener.name", "in"),
        ])
        .expect("sound");
        assert_eq!(advertised(&told, "OUT", 0).as_deref(), Some("OUT://example.org:30000"));
        assert_eq!(advertised(&told, "OUT", 1).as_deref(), Some("OUT://10.0.0.1:31207"));
        assert_eq!(advertised(&told, "OUT", 2).as_deref(), Some("OUT://example.org:30002"));
        assert_eq!(advertised(&told, "IN", 2).as_deref(), Some("IN://10.0.0.2:7"));
        assert_eq!(advertised(&told, "IN", 1), None);
        assert!(told.check_shards(2).expect_err("shard 2 is named").to_string().contains("only shards 0 to 1"));
        told.check_shards(3).expect("three shards");
    }

    #[test]
    fn ranges_of_ports_must_not_overlap_or_end() {
        let map = ("listener.security.protocol.map", "A:PLAINTEXT,B:PLAINTEXT");
        let near = listeners(&[("listeners", "A://:9092,B://:9095"), map]).expect("apart by three");
        near.check_shards(3).expect("9092-9094 and 9095-9097");
        let text = near.check_shards(4).expect_err("both have 9095").to_string();
        assert!(text.contains("its ports 9092-9095 overlap those of B://:9095"), "{text}");
        let apart = listeners(&[("listeners", "A://10.0.0.1:9092,B://10.0.0.2:9092"), map]).expect("two addresses");
        apart.check_shards(100).expect("each address has its own ports");
        let last = listeners(&[("listeners", "PLAINTEXT://:65535")]).expect("one shard fits");
        last.check_shards(1).expect("one shard fits");
        assert!(last.check_shards(2).expect_err("no port is left").to_string().contains("need ports up to 65536"));
        assert!(listeners(&[("listeners", "A://:9092,B://:9092"), map]).is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "9092",
            "PLAINTEXT://",
            "PLAINTEXT://:x",
            "PLAINTEXT://:65536",
            "PLAINTEXT://::1:9092",
            "PLAINTEXT://[::1:9092",
            "PLAINTEXT://[nonsense]:9092",
            "PLAINTEXT://a b:9092",
            "MINE://:9092",
            "SSL://:9092",
            "PLAINTEXT://:1,PLAINTEXT://:2",
        ] {
            assert!(listeners(&[("listeners", text)]).is_err(), "{text}");
        }
        for text in ["PLAINTEXT://:9092", "PLAINTEXT://0.0.0.0:9092", "PLAINTEXT://a:0", "OTHER://a:9092"] {
            assert!(listeners(&[("advertised.listeners", text)]).is_err(), "{text}");
        }
        for text in ["PLAINTEXT://a:1", "x=PLAINTEXT://a:1", "0=PLAINTEXT://:1", "0=PLAINTEXT://a:1,0=PLAINTEXT://b:1"]
        {
            assert!(listeners(&[("shard.advertised.listeners", text)]).is_err(), "{text}");
        }
        assert!(listeners(&[("listener.security.protocol.map", "PLAINTEXT:TELEPATHY")]).is_err());
        assert!(listeners(&[("inter.broker.listener.name", "NONE")]).is_err());
    }
}
