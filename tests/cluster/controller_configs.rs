//! Controllers have a dynamic configuration as well: they apply it, and tell it on their own listeners.

use std::io::Read as _;
use std::net::TcpStream;
use std::time::Duration;

use klamm_testbed::{Cluster, ClusterSetup, Flavour, Roles, Tool, tool, until_true};

use crate::failover::stop;
use crate::stage::alone;

const LIMIT: Duration = Duration::from_secs(60);
const CONTROLLER: i32 = 1;
const BROKER: i32 = 2;
/// More than a controller has from its peers, and than a tool needs.
const CONNECTIONS_PER_IP: usize = 40;

fn controller_and_broker() -> Cluster {
    let flavour = Flavour::under_test();
    ClusterSetup::empty()
        .node(CONTROLLER, flavour, Roles::Controller)
        .node(BROKER, flavour, Roles::Broker)
        .start()
}

/// `kafka-configs` pointed at the controller listener of a node.
fn configs(cluster: &Cluster, id: i32, line: &str) -> Tool {
    let controller = cluster.node(id).controller().expect("it is a controller");
    tool(&format!("kafka-configs --bootstrap-controller {controller} {line}"))
}

/// What a controller says of its own configuration.
fn described(cluster: &Cluster, id: i32) -> String {
    configs(cluster, id, &format!("--entity-type brokers --entity-name {id} --describe")).ok()
}

#[test]
fn a_controller_describes_its_dynamic_configuration_with_its_sources() {
    let _machine = alone();
    let mut cluster = controller_and_broker();
    let own = "--entity-type brokers --entity-name 1 --alter --add-config max.connections=4000";
    configs(&cluster, CONTROLLER, own).ok();
    let of_all = "--entity-type brokers --entity-default --alter --add-config max.connections=5000";
    configs(&cluster, CONTROLLER, of_all).ok();
    let line = "max.connections=4000 sensitive=false synonyms={DYNAMIC_BROKER_CONFIG:max.connections=4000, \
                DYNAMIC_DEFAULT_BROKER_CONFIG:max.connections=5000, \
                DEFAULT_CONFIG:max.connections=2147483647}";
    until_true("both values", LIMIT, || described(&cluster, CONTROLLER).contains(line));
    let line = "max.connections=5000 sensitive=false \
                synonyms={DYNAMIC_DEFAULT_BROKER_CONFIG:max.connections=5000}";
    let of_all = "--entity-type brokers --entity-default --describe";
    let by_controller = configs(&cluster, CONTROLLER, of_all).ok();
    assert!(by_controller.contains(line), "{by_controller}");
    until_true("the broker's word", LIMIT, || {
        cluster.tool(&format!("kafka-configs {of_all}")).ok().contains(line)
    });

    // It has them again in its next life.
    stop(&mut cluster, CONTROLLER);
    cluster.start_again(CONTROLLER);
    until_true("the values again", LIMIT, || {
        described(&cluster, CONTROLLER).contains("max.connections=4000")
    });
    let own = "--entity-type brokers --entity-name 1 --alter --delete-config max.connections";
    configs(&cluster, CONTROLLER, own).ok();
    until_true("one value less", LIMIT, || {
        !described(&cluster, CONTROLLER).contains("DYNAMIC_BROKER_CONFIG")
    });
}

/// How many of the connections the other side has closed.
fn closed(connections: &mut [TcpStream]) -> usize {
    let is_closed =
        |connection: &mut TcpStream| connection.read(&mut [0]).is_ok_and(|read| read == 0);
    connections.iter_mut().filter_map(|connection| is_closed(connection).then_some(())).count()
}

#[test]
fn a_limit_of_connections_takes_effect_on_a_controller() {
    let _machine = alone();
    let cluster = controller_and_broker();
    let address = cluster.node(CONTROLLER).controller().unwrap();
    let refused = || {
        let connect = |_| {
            let connection = TcpStream::connect(address).unwrap();
            connection.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            connection
        };
        let mut connections: Vec<_> = (0..2 * CONNECTIONS_PER_IP).map(connect).collect();
        closed(&mut connections)
    };
    assert_eq!(refused(), 0, "there is no limit yet");
    let limit = format!("--add-config max.connections.per.ip={CONNECTIONS_PER_IP}");
    configs(
        &cluster,
        CONTROLLER,
        &format!("--entity-type brokers --entity-name 1 --alter {limit}"),
    )
    .ok();
    until_true("the limit", LIMIT, || refused() >= CONNECTIONS_PER_IP);
}

#[test]
fn a_controller_has_log_levels_of_its_own() {
    let _machine = alone();
    let cluster = controller_and_broker();
    let levels = |change: &str| {
        let line = format!("--entity-type broker-loggers --entity-name 1 {change}");
        configs(&cluster, CONTROLLER, &line).ok()
    };
    assert!(!levels("--describe").contains("root=ERROR"));
    levels("--alter --add-config root=ERROR");
    let described = levels("--describe");
    assert!(described.contains("root=ERROR"), "{described}");
}

#[test]
fn a_combined_node_has_its_configuration_before_its_broker_has_joined() {
    let _machine = alone();
    // Until the cluster misses its former life, which it does late, a broker that comes back cannot register.
    let mut cluster = ClusterSetup::under_test()
        .set("broker.session.timeout.ms", "60000")
        .set("failover.broker.silence.ms", "60000")
        .set("failover.broker.grace.ms", "60000")
        .start();
    let active = cluster.controller();
    let id = cluster.ids().into_iter().find(|id| *id != active).unwrap();
    let change = format!(
        "kafka-configs --entity-type brokers --entity-name {id} --alter \
         --add-config max.connections=4000"
    );
    cluster.tool(&change).ok();
    cluster.kill(id);
    cluster.spawn(id);
    until_true("the controller's word", LIMIT, || {
        let described = format!("--entity-type brokers --entity-name {id} --describe");
        let described = configs(&cluster, id, &described).run();
        described.stdout.contains("DYNAMIC_BROKER_CONFIG:max.connections=4000")
    });
    if Flavour::under_test() == Flavour::Klamm {
        let log = cluster.node(id).broker().log();
        assert_eq!(
            log.matches("is registered with epoch").count(),
            1,
            "only its former life: {log}"
        );
    }
}
