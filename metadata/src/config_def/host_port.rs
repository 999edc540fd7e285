//! Parses `host:port` and `id@host:port` in configuration values, as Kafka's `Utils.getHost`, `Utils.getPort` and
//! `QuorumConfig` do.

use super::value::ConfigValueError;

/// A host and a port as configured. The host is not resolved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

/// Why a `host:port` text is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostPortError {
    Host,
    Port,
}

impl HostPort {
    /// Parses `host:port` and `[ipv6]:port`, with or without a `scheme://` before it.
    pub fn parse(text: &str) -> Result<Self, HostPortError> {
        let address = match text.split_once("://") {
            Some((scheme, rest)) if scheme.chars().all(is_scheme) => rest,
            _ => text,
        };
        let (host, port) = address.rsplit_once(':').ok_or(HostPortError::Host)?;
        let host = host.strip_prefix('[').unwrap_or(host);
        let host = host.strip_suffix(']').unwrap_or(host);
        if !host.chars().all(is_host) || !port.chars().all(|c| c.is_ascii_digit()) {
            return Err(HostPortError::Host);
        }
        let port = port.parse().map_err(|_| HostPortError::Port)?;
        Ok(Self { host: host.to_owned(), port })
    }
}

fn is_scheme(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '%' | '.' | '_')
}

fn is_host(c: char) -> bool {
    is_scheme(c) || c == ':'
}

/// Parses the entries of `controller.quorum.voters`. A node that is named twice keeps its last
/// address, as in Kafka.
pub fn parse_voters(
    name: &str,
    entries: &[String],
) -> Result<std::collections::BTreeMap<i32, HostPort>, ConfigValueError> {
    entries.iter().map(|entry| parse_voter(name, entry)).collect()
}

fn parse_voter(name: &str, entry: &str) -> Result<(i32, HostPort), ConfigValueError> {
    let (id, address) = match entry.split_once('@') {
        Some((id, address)) if !address.is_empty() && !address.contains('@') => (id, address),
        _ => return Err(ConfigValueError::VoterForm { name: name.to_owned() }),
    };
    let id = id.parse().map_err(|_| ConfigValueError::VoterId { text: id.to_owned() })?;
    let address = HostPort::parse(address).map_err(|error| ConfigValueError::VoterAddress {
        name: name.to_owned(),
        part: part(error),
        entry: entry.to_owned(),
    })?;
    Ok((id, address))
}

/// Parses the entries of `controller.quorum.bootstrap.servers`.
pub fn parse_bootstrap_servers(
    name: &str,
    entries: &[String],
) -> Result<Vec<HostPort>, ConfigValueError> {
    let parse = |entry: &String| {
        HostPort::parse(entry).map_err(|error| ConfigValueError::BootstrapServer {
            name: name.to_owned(),
            part: part(error),
            entry: entry.clone(),
        })
    };
    entries.iter().map(parse).collect()
}

fn part(error: HostPortError) -> &'static str {
    match error {
        HostPortError::Host => "name",
        HostPortError::Port => "port",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host_port(host: &str, port: u16) -> HostPort {
        HostPort { host: host.to_owned(), port }
    }

    #[test]
    fn hosts_may_be_names_addresses_and_bracketed_ipv6() {
        assert_eq!(HostPort::parse("a.example:9093"), Ok(host_port("a.example", 9093)));
        assert_eq!(HostPort::parse("[::1]:1"), Ok(host_port("::1", 1)));
        assert_eq!(HostPort::parse("CONTROLLER://b:2"), Ok(host_port("b", 2)));
        assert_eq!(HostPort::parse(":2"), Ok(host_port("", 2)));
    }

    #[test]
    fn what_is_no_address_is_refused_without_panic() {
        assert_eq!(HostPort::parse("localhost"), Err(HostPortError::Host));
        assert_eq!(HostPort::parse("a b:1"), Err(HostPortError::Host));
        assert_eq!(HostPort::parse("a:b"), Err(HostPortError::Host));
        assert_eq!(HostPort::parse("a:99999"), Err(HostPortError::Port));
        assert_eq!(HostPort::parse(""), Err(HostPortError::Host));
    }

    #[test]
    fn voters_are_keyed_by_their_id() {
        let entries = ["1@a:9093".to_owned(), "2@b:9094".to_owned()];
        let voters = parse_voters("controller.quorum.voters", &entries).unwrap();
        assert_eq!(voters[&2], host_port("b", 9094));
    }

    #[test]
    fn a_voter_without_an_id_is_refused_in_kafkas_words() {
        let error = |entry: &str| {
            parse_voters("controller.quorum.voters", &[entry.to_owned()]).unwrap_err().to_string()
        };
        assert_eq!(
            error("a:9093"),
            "Invalid configuration value for controller.quorum.voters. Each entry should be in the form `{id}@{host}:{port}`."
        );
        assert_eq!(error("x@a:9093"), "Failed to parse voter ID as an integer from x");
        assert_eq!(
            error("1@a"),
            "Failed to parse host name from entry 1@a for the configuration controller.quorum.voters. Each entry should be in the form `{id}@{host}:{port}`."
        );
    }
}
