//! Klamm's own defaults, for keys without a default in Kafka or with one that does not fit an unconfigured node.

use super::settings::Settings;

/// The default data directory: in the working directory of the process, never in `/tmp`.
pub const LOG_DIR: &str = "./klamm-data";

const CONTROLLER_LISTENER: &str = "CONTROLLER";
const FIRST_CONTROLLER_PORT: u32 = 9093;

/// The given sources of a configuration, on which defaults depend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Given {
    pub file: bool,
    pub environment: bool,
}

impl Given {
    /// Neither file nor environment is given: a first trial on one machine.
    fn is_nothing(self) -> bool {
        !self.file && !self.environment
    }
}

/// Adds the defaults of missing keys.
pub fn add_defaults(settings: &mut Settings, given: Given) {
    settings.add_default("process.roles", "broker,controller", "one combined node");
    if !settings.contains("broker.id") {
        settings.add_default("node.id", "1", "one node, id 1");
    }
    if !settings.contains("log.dir") && !settings.contains("log.dirs") {
        settings.add_default("log.dirs", LOG_DIR, "data beside the working directory");
    }
    if given.is_nothing() {
        let reason = "nothing is configured, so nobody waits for more members";
        settings.add_default("group.initial.rebalance.delay.ms", "0", reason);
    }
    add_listeners(settings, given);
}

fn add_listeners(settings: &mut Settings, given: Given) {
    if !settings.contains("listeners") {
        let (value, reason) = match settings.value("advertised.listeners") {
            Some(advertised) => (bound_everywhere(advertised), "every address, advertised ports"),
            None if given.is_nothing() => {
                ("PLAINTEXT://localhost:9092".to_owned(), "this machine only")
            }
            None => ("PLAINTEXT://:9092".to_owned(), "every address"),
        };
        settings.add_default("listeners", value, reason);
    }
    if !settings.contains("controller.listener.names") && is_controller(settings) {
        add_controller_listener(settings);
    }
}

fn is_controller(settings: &Settings) -> bool {
    let roles = settings.value("process.roles").unwrap_or_default();
    roles.split(',').any(|role| role.trim() == "controller")
}

/// A controller without other nodes listens on this machine only.
fn add_controller_listener(settings: &mut Settings) {
    let reason = "the controller of a single node";
    settings.add_default("controller.listener.names", CONTROLLER_LISTENER, reason);
    let listeners = settings.value("listeners").unwrap_or_default().to_owned();
    let prefix = format!("{CONTROLLER_LISTENER}://");
    if listeners.split(',').any(|entry| entry.trim().to_uppercase().starts_with(&prefix)) {
        return;
    }
    let port = free_port(&listeners);
    settings.amend("listeners", format!("{listeners},{prefix}localhost:{port}"));
    if let Some(map) = settings.value("listener.security.protocol.map") {
        let map = format!("{map},{CONTROLLER_LISTENER}:PLAINTEXT");
        settings.amend("listener.security.protocol.map", map);
    }
}

/// The first port from Kafka's usual one on that no listener has; 0 (any port) if a listener has port 0.
fn free_port(listeners: &str) -> u32 {
    let ports: Vec<u32> = listeners
        .split(',')
        .filter_map(|entry| entry.rsplit_once(':')?.1.trim().parse().ok())
        .collect();
    if ports.contains(&0) {
        return 0;
    }
    let candidates = FIRST_CONTROLLER_PORT..;
    candidates.into_iter().find(|port| !ports.contains(port)).unwrap_or(FIRST_CONTROLLER_PORT)
}

/// Listens on every address at the advertised ports, as the apache/kafka image does.
fn bound_everywhere(advertised: &str) -> String {
    let bound = |entry: &str| match (entry.split_once("://"), entry.rsplit_once(':')) {
        (Some((name, _)), Some((_, port))) => format!("{}://:{port}", name.trim()),
        _ => entry.to_owned(),
    };
    advertised.split(',').map(bound).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Given = Given { file: false, environment: false };
    const FILE: Given = Given { file: true, environment: false };

    fn with(given: Given, pairs: &[(&str, &str)]) -> Settings {
        let mut settings = Settings::default();
        let pairs: Vec<_> =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        settings.add_flags(&pairs);
        add_defaults(&mut settings, given);
        settings
    }

    fn listeners(given: Given, pairs: &[(&str, &str)]) -> String {
        with(given, pairs).value("listeners").unwrap().to_owned()
    }

    #[test]
    fn without_any_configuration_one_node_serves_this_machine() {
        let settings = with(NOTHING, &[]);
        let values: Vec<_> =
            settings.iter().map(|(key, setting)| format!("{key}={}", setting.value)).collect();
        assert_eq!(
            values,
            [
                "controller.listener.names=CONTROLLER",
                "group.initial.rebalance.delay.ms=0",
                "listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093",
                "log.dirs=./klamm-data",
                "node.id=1",
                "process.roles=broker,controller",
            ]
        );
    }

    #[test]
    fn with_a_file_kafkas_own_defaults_hold() {
        let settings = with(FILE, &[("broker.id", "5"), ("log.dir", "/data")]);
        assert_eq!(settings.value("group.initial.rebalance.delay.ms"), None);
        assert_eq!(settings.value("node.id"), None);
        assert_eq!(settings.value("log.dirs"), None);
        assert_eq!(
            settings.value("listeners"),
            Some("PLAINTEXT://:9092,CONTROLLER://localhost:9093")
        );
    }

    #[test]
    fn listeners_follow_what_is_advertised() {
        assert_eq!(
            listeners(FILE, &[("advertised.listeners", "PLAINTEXT://broker.example:29092")]),
            "PLAINTEXT://:29092,CONTROLLER://localhost:9093"
        );
    }

    #[test]
    fn the_controllers_port_is_one_that_is_free() {
        assert_eq!(
            listeners(FILE, &[("listeners", "PLAINTEXT://:9093")]),
            "PLAINTEXT://:9093,CONTROLLER://localhost:9094"
        );
        assert_eq!(
            listeners(NOTHING, &[("listeners", "PLAINTEXT://localhost:0")]),
            "PLAINTEXT://localhost:0,CONTROLLER://localhost:0"
        );
        assert_eq!(
            listeners(FILE, &[("listeners", "PLAINTEXT://:1,controller://:2")]),
            "PLAINTEXT://:1,controller://:2"
        );
    }

    #[test]
    fn controller_listeners_that_are_named_are_left_alone() {
        let pairs = [("listeners", "PLAINTEXT://:1"), ("controller.listener.names", "C")];
        assert_eq!(listeners(FILE, &pairs), "PLAINTEXT://:1");
    }

    #[test]
    fn a_security_map_of_ones_own_gets_the_controller_too() {
        let map = with(FILE, &[("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT")]);
        assert_eq!(
            map.value("listener.security.protocol.map"),
            Some("PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT")
        );
    }
}
