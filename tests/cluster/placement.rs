//! Where new replicas go while a broker is down, on its way down, or has cordoned its log directories.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use klamm_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use klamm_protocol::messages::create_topics_response::CreateTopicsResponse;
use klamm_testbed::{Cluster, ClusterSetup, Flavour, Roles, ask, tool, unique, until_true};

use crate::failover::stop;
use crate::stage::alone;

const LIMIT: Duration = Duration::from_secs(60);
const CREATE_TOPICS_VERSION: i16 = 7;
const INVALID_REPLICATION_FACTOR: i16 = 38;

/// Asks a broker for a topic of three replicas and returns the error's code.
fn create(address: &str, topic: &str) -> io::Result<i16> {
    let topic = CreatableTopic {
        name: topic.into(),
        num_partitions: 1,
        replication_factor: 3,
        ..Default::default()
    };
    let request =
        CreateTopicsRequest { topics: vec![topic], timeout_ms: 10_000, validate_only: false };
    let answer: CreateTopicsResponse = ask(address, &request, CREATE_TOPICS_VERSION)?;
    Ok(answer.topics[0].error_code)
}

/// Three nodes and the id of one that is not the active controller. Each leads something, so that each has something
/// to hand over before it stops.
fn three_leaders() -> (Cluster, i32) {
    let cluster = ClusterSetup::under_test().start();
    cluster.create_topic("led", &[vec![1, 2, 3], vec![2, 3, 1], vec![3, 1, 2]], &[]);
    let controller = cluster.controller();
    let victim = cluster.ids().into_iter().find(|id| *id != controller).unwrap();
    (cluster, victim)
}

/// A topic of three replicas, the first group of the cluster, and the topic of its offsets are made and used while one
/// of three brokers is down.
fn use_without(cluster: &mut Cluster, absent: i32) {
    until_true("the broker to be missed", LIMIT, || {
        cluster.unfenced().is_ok_and(|unfenced| !unfenced.contains(&absent))
    });
    let topic = unique("meanwhile");
    let create = format!("--create --topic {topic} --partitions 2 --replication-factor 3");
    cluster.tool(&format!("kafka-topics {create}")).ok();
    cluster
        .tool(&format!("kafka-console-producer --topic {topic} --command-property acks=all"))
        .stdin("one\ntwo\n")
        .ok();
    let read = cluster
        .tool(&format!(
            "kafka-console-consumer --topic {topic} --group {topic} --timeout-ms 30000 \
             --command-property auto.offset.reset=earliest --max-messages 2"
        ))
        .ok();
    let mut lines: Vec<&str> = read.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["one", "two"]);
    for topic in [&topic, "__consumer_offsets"] {
        let partitions = cluster.partitions_of(topic).unwrap();
        assert!(!partitions.is_empty(), "{topic} is there");
        for partition in partitions {
            assert_eq!(partition.replicas.len(), 3, "{partition:?}");
            assert_eq!(partition.replicas[2], absent, "{partition:?}");
            assert!(!partition.isr.contains(&absent), "{partition:?}");
            assert_eq!(partition.leader, partition.replicas[0], "{partition:?}");
        }
    }
    cluster.start_again(absent);
    cluster.until_whole();
}

#[test]
fn topics_and_groups_are_made_while_a_broker_is_down_for_maintenance() {
    let _machine = alone();
    let (mut cluster, victim) = three_leaders();
    stop(&mut cluster, victim);
    use_without(&mut cluster, victim);
}

#[test]
fn topics_and_groups_are_made_while_a_broker_is_lost() {
    let _machine = alone();
    let (mut cluster, victim) = three_leaders();
    cluster.kill(victim);
    use_without(&mut cluster, victim);
}

#[test]
fn topics_are_made_without_a_gap_while_a_broker_stops() {
    let _machine = alone();
    let (mut cluster, victim) = three_leaders();
    let other = cluster.ids().into_iter().find(|id| *id != victim).unwrap();
    let address = cluster.node(other).client().unwrap().to_owned();
    let stopped = AtomicBool::new(false);
    let codes = thread::scope(|scope| {
        let creation = scope.spawn(|| {
            let mut codes = Vec::new();
            // The last one is asked for when the node is gone.
            while !stopped.load(Ordering::Acquire) || codes.len() < 20 {
                codes.push(create(&address, &unique("gapless")).unwrap());
            }
            codes
        });
        stop(&mut cluster, victim);
        stopped.store(true, Ordering::Release);
        creation.join().unwrap()
    });
    // Kafka refuses for as long as a broker is on its way down.
    let may_refuse = Flavour::under_test() == Flavour::Kafka;
    let is_fine = |code: &i16| *code == 0 || may_refuse && *code == INVALID_REPLICATION_FACTOR;
    assert!(codes.iter().all(is_fine), "{codes:?}");
    cluster.start_again(victim);
    cluster.until_whole();
}

/// Alters `cordoned.log.dirs` of a broker while it runs.
fn cordon(cluster: &Cluster, id: i32, change: &str) {
    cluster
        .tool(&format!("kafka-configs --entity-type brokers --entity-name {id} --alter {change}"))
        .ok();
}

/// Waits until topics of three replicas can be made, or no longer can.
#[track_caller]
fn until_placed(cluster: &Cluster, can_be: bool) {
    let expected = if can_be { 0 } else { INVALID_REPLICATION_FACTOR };
    let address = cluster.node(1).client().unwrap();
    until_true(&format!("topics to end with {expected}"), LIMIT, || {
        create(address, &unique("t")).is_ok_and(|code| code == expected)
    });
}

/// Broker 3 of three cordons some or all of its two directories, and stops and starts between.
fn cordon_and_uncordon(cluster: &mut Cluster) {
    let (first, second) = {
        let broker = cluster.node(3).broker();
        (broker.data().display().to_string(), broker.second_data().display().to_string())
    };
    cordon(cluster, 3, &format!("--add-config cordoned.log.dirs=[{first},{second}]"));
    until_placed(cluster, false);
    cordon(cluster, 3, &format!("--add-config cordoned.log.dirs={second}"));
    until_placed(cluster, true);
    cordon(cluster, 3, "--add-config cordoned.log.dirs=*");
    until_placed(cluster, false);

    // It says so again in its next life.
    stop(cluster, 3);
    until_placed(cluster, false);
    cluster.start_again(3);
    let code = create(cluster.node(1).client().unwrap(), &unique("t")).unwrap();
    assert_eq!(code, INVALID_REPLICATION_FACTOR);
}

#[test]
fn a_broker_gets_no_replicas_while_all_its_directories_are_cordoned() {
    let _machine = alone();
    let mut cluster = ClusterSetup::under_test().with_second_directories().start();
    cordon_and_uncordon(&mut cluster);
    // Whoever is the controller.
    let controller = cluster.controller();
    cluster.kill(controller);
    until_true("another controller", LIMIT, || {
        cluster.quorum().is_ok_and(|quorum| quorum.leader != controller)
    });
    cluster.start_again(controller);
    until_placed(&cluster, false);
    cordon(&cluster, 3, "--delete-config cordoned.log.dirs");
    until_placed(&cluster, true);

    // Only the broker knows its directories: a controller does not add any by itself.
    let controller = cluster.node(cluster.controller()).controller().unwrap();
    let refused = tool(&format!(
        "kafka-configs --bootstrap-controller {controller} --entity-type brokers --entity-name 3 --alter \
         --add-config cordoned.log.dirs=*"
    ))
    .run();
    assert_ne!(refused.status, 0, "{refused}");
    assert!(refused.stderr.contains("must be a subset of the current"), "{refused}");
}

/// One controller and three brokers.
fn under_controller(controller: Flavour, broker: Flavour) -> Cluster {
    let setup = ClusterSetup::empty().node(9, controller, Roles::Controller);
    let setup = (1..=3).fold(setup, |setup, id| setup.node(id, broker, Roles::Broker));
    setup.with_second_directories().start()
}

#[test]
fn cordoned_directories_are_known_to_a_controller_of_the_other_program() {
    let _machine = alone();
    for (controller, broker) in [(Flavour::Kafka, Flavour::Klamm), (Flavour::Klamm, Flavour::Kafka)]
    {
        let mut cluster = under_controller(controller, broker);
        cordon_and_uncordon(&mut cluster);
        cordon(&cluster, 3, "--delete-config cordoned.log.dirs");
        until_placed(&cluster, true);
    }
}
