//! `host:port` addresses and bootstrap lists.

use super::error::ClientError;
use super::limits::BOOTSTRAP_MAX;
use std::fmt;

/// A broker's address as given; resolved at each connection attempt, so that a changed DNS entry is followed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

impl HostPort {
    /// Reads `host:port`, `host` (port 9092), `[v6]:port`, with or without a `PLAINTEXT://` in front.
    pub fn parse(text: &str) -> Result<HostPort, ClientError> {
        let bad = |reason: &str| ClientError::BadAddress { text: text.to_owned(), reason: reason.to_owned() };
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("plaintext") => rest,
            Some((scheme, _)) => return Err(bad(&format!("only PLAINTEXT listeners are supported, not {scheme}"))),
            None => text,
        };
        let (host, port) = match rest.strip_prefix('[') {
            Some(v6) => {
                let (host, after) = v6.split_once(']').ok_or_else(|| bad("a '[' without its ']'"))?;
                (host, after.strip_prefix(':').unwrap_or(if after.is_empty() { "9092" } else { "" }))
            }
            None => match rest.rsplit_once(':') {
                Some((host, _)) if host.contains(':') => return Err(bad("an IPv6 address needs brackets: [::1]:9092")),
                Some((host, port)) => (host, port),
                None => (rest, "9092"),
            },
        };
        if host.is_empty() {
            return Err(bad("the host is missing"));
        }
        match port.parse::<u16>() {
            Ok(port) if port > 0 => Ok(HostPort { host: host.to_owned(), port }),
            _ => Err(bad("the port must be a number from 1 to 65535")),
        }
    }

    /// Reads a comma-separated list, as `bootstrap.servers` has it.
    pub fn parse_list(text: &str) -> Result<Vec<HostPort>, ClientError> {
        let list: Vec<HostPort> = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(HostPort::parse)
            .collect::<Result<_, _>>()?;
        let bad = |reason: String| ClientError::BadAddress { text: text.to_owned(), reason };
        match list.len() {
            0 => Err(bad("no address at all".to_owned())),
            n if n > BOOTSTRAP_MAX => Err(bad(format!("{n} addresses; {BOOTSTRAP_MAX} are enough for any cluster"))),
            _ => Ok(list),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let show = |text: &str| HostPort::parse(text).map(|a| a.to_string()).map_err(|e| e.to_string());
        assert_eq!(show("localhost").as_deref(), Ok("localhost:9092"));
        assert_eq!(show("PLAINTEXT://kafka-1:19092").as_deref(), Ok("kafka-1:19092"));
        assert_eq!(show("[::1]:9093").as_deref(), Ok("[::1]:9093"));
        assert_eq!(show("[::1]").as_deref(), Ok("[::1]:9092"));
        for wrong in ["", ":9092", "a:b", "a:0", "a:70000", "::1", "[::1", "SSL://a:9093", "[::1]x"] {
            assert!(show(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn bootstrap_list_ignores_spaces_and_empty_parts() {
        let list = HostPort::parse_list("a:1, b:2,,").expect("a valid list");
        assert_eq!(list.iter().map(HostPort::to_string).collect::<Vec<_>>(), ["a:1", "b:2"]);
        assert!(HostPort::parse_list(" , ").is_err());
    }
}
