//! The listeners of a node, their advertised endpoints and security protocols: `listeners`, `advertised.listeners`,
//! `listener.security.protocol.map`, `inter.broker.listener.name`, `controller.listener.names`, with the cross checks
//! of Kafka's `KafkaConfig`.
//!
//! Invariant: names are upper case here, as Kafka normalises them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use klamm_metadata::config_def::BrokerConfigs;

use super::roles::ProcessRoles;

/// The security protocol of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecurityProtocol {
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

impl SecurityProtocol {
    /// Kafka's id, as in broker registrations.
    pub fn id(self) -> i16 {
        match self {
            Self::Plaintext => 0,
            Self::Ssl => 1,
            Self::SaslPlaintext => 2,
            Self::SaslSsl => 3,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Ssl => "SSL",
            Self::SaslPlaintext => "SASL_PLAINTEXT",
            Self::SaslSsl => "SASL_SSL",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Plaintext, Self::Ssl, Self::SaslPlaintext, Self::SaslSsl]
            .into_iter()
            .find(|protocol| protocol.name().eq_ignore_ascii_case(name))
    }
}

/// One entry of `listeners` or `advertised.listeners`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The listener's name, upper case.
    pub listener: String,
    pub security_protocol: SecurityProtocol,
    /// `None` is every address of the machine.
    pub host: Option<String>,
    /// 0 lets the system choose.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.as_deref().unwrap_or("");
        if host.contains(':') {
            write!(f, "{}://[{host}]:{}", self.listener, self.port)
        } else {
            write!(f, "{}://{host}:{}", self.listener, self.port)
        }
    }
}

/// All listeners of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenersConfig {
    /// The listeners for clients and brokers.
    pub broker: Vec<Endpoint>,
    /// The listeners for controllers, and for brokers that look for the active one.
    pub controller: Vec<Endpoint>,
    /// The endpoints advertised to clients. Port 0 means the port that was bound.
    pub advertised_broker: Vec<Endpoint>,
    /// The endpoints of this controller advertised to other nodes.
    pub advertised_controller: Vec<Endpoint>,
    /// The broker listener that brokers use among themselves.
    pub inter_broker_listener_name: String,
    /// In the order of preference.
    pub controller_listener_names: Vec<String>,
}

/// Why the listeners are invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListenerError {
    #[error("'{entry}' is no listener; write NAME://host:port, as in PLAINTEXT://localhost:9092")]
    Unparsable { entry: String },
    #[error("'{entry}' has no port between 0 and 65535")]
    Port { entry: String },
    #[error(
        "listener {listener} has no security protocol; add {listener}:PLAINTEXT to listener.security.protocol.map"
    )]
    NoSecurityProtocol { listener: String },
    #[error(
        "'{entry}' in listener.security.protocol.map is not NAME:PROTOCOL with PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"
    )]
    BadSecurityProtocol { entry: String },
    #[error(
        "listener {listener} asks for {}, and this version of Klamm serves PLAINTEXT only; map {listener} to PLAINTEXT in listener.security.protocol.map or take it out of listeners",
        protocol.name()
    )]
    UnsupportedProtocol { listener: String, protocol: SecurityProtocol },
    #[error("two entries are called {listener}; each listener needs a name of its own")]
    DuplicateName { listener: String },
    #[error(
        "port {port} is used by {first} and {second}; two listeners share a port only when one has an IPv4 and the other an IPv6 address"
    )]
    DuplicatePort { port: u16, first: String, second: String },
    #[error("set only one of inter.broker.listener.name and security.inter.broker.protocol")]
    TwoInterBrokerKeys,
    #[error(
        "inter.broker.listener.name is {name}, which advertised.listeners does not have; it has {available}"
    )]
    InterBrokerNotAdvertised { name: String, available: String },
    #[error("advertised.listeners has {name}, which listeners does not have; it has {available}")]
    AdvertisedNotListening { name: String, available: String },
    #[error(
        "advertised.listeners must not be 0.0.0.0: clients cannot connect to it; name the host"
    )]
    AdvertisedWildcard,
    #[error(
        "every listener is a controller listener; a broker needs one that controller.listener.names does not name"
    )]
    NoBrokerListener,
    #[error(
        "controller.listener.names has {name}, which listeners does not have; add {name}://localhost:9093 to listeners"
    )]
    ControllerNotListening { name: String },
}

impl ListenerError {
    /// The keys of the error, to name their origins.
    pub fn keys(&self) -> &'static [&'static str] {
        match self {
            Self::Unparsable { .. } | Self::Port { .. } | Self::DuplicateName { .. } => {
                &["listeners", "advertised.listeners"]
            }
            Self::DuplicatePort { .. } => &["listeners"],
            Self::NoSecurityProtocol { .. } | Self::BadSecurityProtocol { .. } => {
                &["listeners", "listener.security.protocol.map"]
            }
            Self::UnsupportedProtocol { .. } => {
                &["listeners", "controller.listener.names", "listener.security.protocol.map"]
            }
            Self::TwoInterBrokerKeys => {
                &["inter.broker.listener.name", "security.inter.broker.protocol"]
            }
            Self::InterBrokerNotAdvertised { .. } => {
                &["inter.broker.listener.name", "advertised.listeners", "listeners"]
            }
            Self::AdvertisedNotListening { .. } => &["advertised.listeners", "listeners"],
            Self::AdvertisedWildcard => &["advertised.listeners"],
            Self::NoBrokerListener | Self::ControllerNotListening { .. } => {
                &["controller.listener.names", "listeners"]
            }
        }
    }
}

impl ListenersConfig {
    /// Parses and checks the listeners of a node with these roles.
    pub fn new(configs: &BrokerConfigs, roles: ProcessRoles) -> Result<Self, ListenerError> {
        let controller_listener_names: Vec<String> = configs
            .list("controller.listener.names")
            .unwrap_or_default()
            .iter()
            .map(|name| name.to_uppercase())
            .collect();
        let map = security_protocol_map(configs, &controller_listener_names)?;
        let listeners = endpoints(&configs.list("listeners").unwrap_or_default(), &map)?;
        check_ports(&listeners)?;
        let is_controller =
            |endpoint: &Endpoint| controller_listener_names.contains(&endpoint.listener);
        let (controller, broker): (Vec<_>, Vec<_>) = listeners.into_iter().partition(is_controller);
        let advertised = configs
            .list("advertised.listeners")
            .map(|entries| endpoints(&entries, &map))
            .transpose()?;
        let (advertised_controller, advertised_broker) = match advertised {
            Some(entries) => {
                let (controllers, brokers) = entries.into_iter().partition(is_controller);
                (advertise_controllers(controllers, &controller), brokers)
            }
            None => (advertise_controllers(Vec::new(), &controller), broker.clone()),
        };
        let config = Self {
            broker,
            controller,
            advertised_broker,
            advertised_controller,
            inter_broker_listener_name: inter_broker_listener_name(configs)?,
            controller_listener_names,
        };
        config.check_protocols(&map)?;
        config.check(roles)?;
        Ok(config)
    }

    /// Refuses listeners with TLS or SASL, also those of remote controllers: a broker must not send clear text to them.
    fn check_protocols(&self, map: &SecurityProtocolMap) -> Result<(), ListenerError> {
        let endpoints = self.broker.iter().chain(&self.controller).chain(&self.advertised_broker);
        let own = endpoints.map(|endpoint| (&endpoint.listener, endpoint.security_protocol));
        let of_controllers =
            self.controller_listener_names.iter().filter_map(|name| Some((name, *map.get(name)?)));
        let protected = own
            .chain(of_controllers)
            .find(|(_, protocol)| *protocol != SecurityProtocol::Plaintext);
        let Some((listener, protocol)) = protected else { return Ok(()) };
        Err(ListenerError::UnsupportedProtocol { listener: listener.clone(), protocol })
    }

    fn check(&self, roles: ProcessRoles) -> Result<(), ListenerError> {
        if roles.broker {
            self.check_broker()?;
        }
        if roles.controller {
            self.check_controller()?;
        }
        let is_wildcard = |endpoint: &Endpoint| endpoint.host.as_deref() == Some("0.0.0.0");
        if self.advertised_broker.iter().any(is_wildcard) {
            return Err(ListenerError::AdvertisedWildcard);
        }
        Ok(())
    }

    fn check_broker(&self) -> Result<(), ListenerError> {
        if self.advertised_broker.is_empty() {
            return Err(ListenerError::NoBrokerListener);
        }
        let advertises = |name: &str| self.advertised_broker.iter().any(|e| e.listener == name);
        if !advertises(&self.inter_broker_listener_name) {
            return Err(ListenerError::InterBrokerNotAdvertised {
                name: self.inter_broker_listener_name.clone(),
                available: names(&self.advertised_broker),
            });
        }
        let is_missing =
            |e: &&Endpoint| self.broker.iter().all(|bound| bound.listener != e.listener);
        if let Some(endpoint) = self.advertised_broker.iter().find(is_missing) {
            return Err(ListenerError::AdvertisedNotListening {
                name: endpoint.listener.clone(),
                available: names(&self.broker),
            });
        }
        Ok(())
    }

    fn check_controller(&self) -> Result<(), ListenerError> {
        let is_missing =
            |name: &&String| self.controller.iter().all(|bound| bound.listener != **name);
        match self.controller_listener_names.iter().find(is_missing) {
            Some(name) => Err(ListenerError::ControllerNotListening { name: name.clone() }),
            None => Ok(()),
        }
    }
}

fn names(endpoints: &[Endpoint]) -> String {
    endpoints.iter().map(|endpoint| endpoint.listener.as_str()).collect::<Vec<_>>().join(", ")
}

type SecurityProtocolMap = BTreeMap<String, SecurityProtocol>;

/// The security protocols by listener name. As in Kafka, if the map is not configured and no listener is named after
/// SSL or SASL, controller listeners are PLAINTEXT.
fn security_protocol_map(
    configs: &BrokerConfigs,
    controller_listener_names: &[String],
) -> Result<SecurityProtocolMap, ListenerError> {
    let text = configs.string("listener.security.protocol.map").unwrap_or_default();
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let mut map =
        entries.map(security_protocol_entry).collect::<Result<SecurityProtocolMap, _>>()?;
    let is_default = !configs.originals().contains_key("listener.security.protocol.map");
    let is_secured = |name: &str| matches!(name, "SSL" | "SASL_SSL" | "SASL_PLAINTEXT");
    let listeners = configs.list("listeners").unwrap_or_default();
    let speaks_of_security = controller_listener_names.iter().any(|name| is_secured(name))
        || listeners.iter().any(|entry| {
            entry.split_once(':').is_some_and(|(name, _)| is_secured(&name.to_uppercase()))
        });
    if is_default && !speaks_of_security {
        for name in controller_listener_names {
            map.insert(name.clone(), SecurityProtocol::Plaintext);
        }
    }
    Ok(map)
}

fn security_protocol_entry(entry: &str) -> Result<(String, SecurityProtocol), ListenerError> {
    // Kafka splits at the last colon.
    let pair = entry.rsplit_once(':').and_then(|(name, protocol)| {
        Some((name.trim().to_uppercase(), SecurityProtocol::from_name(protocol.trim())?))
    });
    pair.ok_or_else(|| ListenerError::BadSecurityProtocol { entry: entry.to_owned() })
}

fn endpoints(
    entries: &[String],
    map: &SecurityProtocolMap,
) -> Result<Vec<Endpoint>, ListenerError> {
    let endpoints =
        entries.iter().map(|entry| endpoint(entry, map)).collect::<Result<Vec<_>, _>>()?;
    let mut seen = BTreeSet::new();
    match endpoints.iter().find(|endpoint| !seen.insert(endpoint.listener.as_str())) {
        Some(twice) => Err(ListenerError::DuplicateName { listener: twice.listener.clone() }),
        None => Ok(endpoints),
    }
}

fn endpoint(entry: &str, map: &SecurityProtocolMap) -> Result<Endpoint, ListenerError> {
    let unparsable = || ListenerError::Unparsable { entry: entry.to_owned() };
    let (name, address) = entry.rsplit_once("://").ok_or_else(unparsable)?;
    let (host, port) = address.rsplit_once(':').ok_or_else(unparsable)?;
    let host = host.strip_prefix('[').unwrap_or(host);
    let host = host.strip_suffix(']').unwrap_or(host);
    let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '%' | '.' | '_' | ':');
    if name.is_empty() || !host.chars().all(is_host) {
        return Err(unparsable());
    }
    let port = port.parse().map_err(|_| ListenerError::Port { entry: entry.to_owned() })?;
    let listener = name.to_uppercase();
    let security_protocol = *map
        .get(&listener)
        .ok_or_else(|| ListenerError::NoSecurityProtocol { listener: listener.clone() })?;
    let host = (!host.is_empty()).then(|| host.to_owned());
    Ok(Endpoint { listener, security_protocol, host, port })
}

fn check_ports(listeners: &[Endpoint]) -> Result<(), ListenerError> {
    for (position, first) in listeners.iter().enumerate() {
        for second in &listeners[position + 1..] {
            if first.port == second.port && first.port != 0 && !are_of_both_families(first, second)
            {
                return Err(ListenerError::DuplicatePort {
                    port: first.port,
                    first: first.to_string(),
                    second: second.to_string(),
                });
            }
        }
    }
    Ok(())
}

fn are_of_both_families(first: &Endpoint, second: &Endpoint) -> bool {
    let address = |endpoint: &Endpoint| endpoint.host.as_deref()?.parse::<IpAddr>().ok();
    match (address(first), address(second)) {
        (Some(first), Some(second)) => first.is_ipv4() != second.is_ipv4(),
        _ => false,
    }
}

/// A controller listener without an advertised endpoint is advertised with its bound one.
fn advertise_controllers(advertised: Vec<Endpoint>, bound: &[Endpoint]) -> Vec<Endpoint> {
    let find = |endpoint: &Endpoint| {
        let own = advertised.iter().find(|other| other.listener == endpoint.listener);
        let mut found = own.unwrap_or(endpoint).clone();
        // The wildcard address cannot be advertised; the machine's host name replaces it later.
        found.host = found.host.filter(|host| host != "0.0.0.0");
        found
    };
    bound.iter().map(find).collect()
}

fn inter_broker_listener_name(configs: &BrokerConfigs) -> Result<String, ListenerError> {
    match configs.string("inter.broker.listener.name") {
        Some(_) if configs.originals().contains_key("security.inter.broker.protocol") => {
            Err(ListenerError::TwoInterBrokerKeys)
        }
        Some(name) => Ok(name.to_uppercase()),
        None => Ok(configs.string("security.inter.broker.protocol").unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMBINED: ProcessRoles = ProcessRoles { broker: true, controller: true };

    fn listeners(pairs: &[(&str, &str)]) -> Result<ListenersConfig, ListenerError> {
        let mut statics: BTreeMap<_, _> =
            pairs.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
        statics.entry("controller.listener.names".into()).or_insert_with(|| "CONTROLLER".into());
        ListenersConfig::new(&BrokerConfigs::new(statics).unwrap(), COMBINED)
    }

    fn refusal(pairs: &[(&str, &str)]) -> String {
        listeners(pairs).unwrap_err().to_string()
    }

    fn texts(endpoints: &[Endpoint]) -> Vec<String> {
        endpoints.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn listeners_are_told_apart_by_the_controllers_names() {
        let config =
            listeners(&[("listeners", "PLAINTEXT://:9092,controller://localhost:9093")]).unwrap();
        assert_eq!(texts(&config.broker), ["PLAINTEXT://:9092"]);
        assert_eq!(texts(&config.controller), ["CONTROLLER://localhost:9093"]);
        assert_eq!(texts(&config.advertised_broker), ["PLAINTEXT://:9092"]);
        assert_eq!(config.inter_broker_listener_name, "PLAINTEXT");
    }

    #[test]
    fn clients_are_told_the_advertised_names() {
        let config = listeners(&[
            ("listeners", "INTERNAL://:19092,EXTERNAL://[::1]:9092,CONTROLLER://0.0.0.0:9093"),
            ("advertised.listeners", "INTERNAL://broker:19092,EXTERNAL://localhost:9092"),
            (
                "listener.security.protocol.map",
                "INTERNAL:PLAINTEXT, EXTERNAL:plaintext,CONTROLLER:PLAINTEXT",
            ),
            ("inter.broker.listener.name", "internal"),
        ])
        .unwrap();
        assert_eq!(
            texts(&config.advertised_broker),
            ["INTERNAL://broker:19092", "EXTERNAL://localhost:9092"]
        );
        assert_eq!(texts(&config.broker)[1], "EXTERNAL://[::1]:9092");
        assert_eq!(config.advertised_controller[0].host, None);
        assert_eq!(config.inter_broker_listener_name, "INTERNAL");
    }

    #[test]
    fn a_listener_that_asks_for_tls_is_refused_for_now() {
        assert_eq!(
            listeners(&[("listeners", "SSL://:9092,CONTROLLER://:9093")]).unwrap_err(),
            ListenerError::NoSecurityProtocol { listener: "CONTROLLER".into() }
        );
        assert!(
            refusal(&[
                ("listeners", "PLAINTEXT://:9092,E://:9094,CONTROLLER://:9093"),
                (
                    "listener.security.protocol.map",
                    "E:SASL_SSL,PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"
                ),
            ])
            .starts_with("listener E asks for SASL_SSL, and this version of Klamm")
        );
    }

    #[test]
    fn controllers_elsewhere_that_ask_for_protection_are_not_spoken_to_in_clear_text() {
        let statics = [
            ("listeners", "PLAINTEXT://:9092"),
            ("controller.listener.names", "C"),
            ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,C:SASL_SSL,UNUSED:SSL"),
        ];
        let statics = statics.map(|(key, value)| (key.into(), value.into()));
        let configs = BrokerConfigs::new(BTreeMap::from(statics)).unwrap();
        let refused =
            ListenersConfig::new(&configs, ProcessRoles { broker: true, controller: false });
        let (listener, protocol) = ("C".to_owned(), SecurityProtocol::SaslSsl);
        let refusal = ListenerError::UnsupportedProtocol { listener, protocol };
        assert!(refusal.keys().contains(&"controller.listener.names"));
        assert_eq!(refused.unwrap_err(), refusal);
    }

    #[test]
    fn names_and_ports_are_used_once() {
        assert_eq!(
            refusal(&[("listeners", "PLAINTEXT://:1,PLAINTEXT://:2,CONTROLLER://:3")]),
            "two entries are called PLAINTEXT; each listener needs a name of its own"
        );
        assert!(
            refusal(&[("listeners", "PLAINTEXT://:9092,CONTROLLER://localhost:9092")])
                .starts_with("port 9092 is used by PLAINTEXT://:9092 and CONTROLLER")
        );
        assert!(
            listeners(&[("listeners", "PLAINTEXT://127.0.0.1:9092,CONTROLLER://[::1]:9092")])
                .is_ok()
        );
        assert!(listeners(&[("listeners", "PLAINTEXT://:0,CONTROLLER://:0")]).is_ok());
    }

    #[test]
    fn what_is_advertised_is_listened_on_and_reachable() {
        let with = |advertised| {
            refusal(&[
                ("listeners", "PLAINTEXT://:9092,CONTROLLER://:9093"),
                ("advertised.listeners", advertised),
                (
                    "listener.security.protocol.map",
                    "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,OTHER:PLAINTEXT",
                ),
            ])
        };
        assert!(with("PLAINTEXT://0.0.0.0:9092").starts_with("advertised.listeners must not be"));
        assert_eq!(
            with("PLAINTEXT://a:1,OTHER://a:2"),
            "advertised.listeners has OTHER, which listeners does not have; it has PLAINTEXT"
        );
        assert_eq!(
            with("OTHER://a:2"),
            "inter.broker.listener.name is PLAINTEXT, which advertised.listeners does not have; it has OTHER"
        );
    }

    #[test]
    fn a_combined_node_listens_as_broker_and_as_controller() {
        assert!(
            refusal(&[("listeners", "PLAINTEXT://:9092")])
                .starts_with("controller.listener.names has CONTROLLER, which listeners")
        );
        assert!(refusal(&[("listeners", "CONTROLLER://:9092")]).starts_with("every listener is a"));
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        assert!(refusal(&[("listeners", "localhost:9092")]).contains("PLAINTEXT://localhost:9092"));
        assert!(refusal(&[("listeners", "PLAINTEXT://a b:1")]).contains("is no listener"));
        assert!(refusal(&[("listeners", "PLAINTEXT://:70000")]).contains("has no port"));
        assert!(
            refusal(&[("listeners", "P://:1"), ("listener.security.protocol.map", "P:TLS")])
                .starts_with("'P:TLS' in listener.security.protocol.map")
        );
        assert_eq!(
            listeners(&[
                ("listeners", "PLAINTEXT://:1,CONTROLLER://:2"),
                ("inter.broker.listener.name", "PLAINTEXT"),
                ("security.inter.broker.protocol", "PLAINTEXT"),
            ])
            .unwrap_err(),
            ListenerError::TwoInterBrokerKeys
        );
    }
}
