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
