//! Apache Kafka's tools on a cluster: the quorum, its voters, elections, reassignments, assignments, brokers that leave.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use klamm_protocol::messages::describe_cluster_request::DescribeClusterRequest;
use klamm_protocol::messages::describe_cluster_response::DescribeClusterResponse;
use klamm_testbed::{
    Cluster, ClusterSetup, Directory, Flavour, Node, PartitionState, Roles, ask, tool, until,
    until_true,
};

use crate::stage::alone;

const LIMIT: Duration = Duration::from_secs(60);

/// The value behind `name:` in a list of them.
#[track_caller]
fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).trim()
}

fn leaders(cluster: &Cluster, topic: &str) -> Vec<i32> {
    let partitions = cluster.partitions_of(topic).unwrap_or_default();
    partitions.iter().map(|partition| partition.leader).collect()
}

#[track_caller]
fn until_led_by(cluster: &Cluster, topic: &str, expected: &[i32]) {
    until_true(&format!("leaders {expected:?}"), LIMIT, || leaders(cluster, topic) == expected);
}

/// The metadata log directory's id, from `meta.properties`.
fn directory_id(node: &Node) -> String {
    let properties = std::fs::read_to_string(node.broker().data().join("meta.properties")).unwrap();
    let id = properties.lines().find_map(|line| line.strip_prefix("directory.id="));
    id.expect("a formatted directory has an id").to_owned()
}

#[test]
fn the_quorum_of_three_is_described_with_one_leader_and_followers_that_keep_up() {
    let _machine = alone();
    let cluster = ClusterSetup::under_test().start();
    cluster.create_topic("quorum", &[vec![1, 2, 3]], &[]);
    let status = cluster.tool("kafka-metadata-quorum describe --status").ok();
    assert_eq!(field(&status, "LeaderId"), cluster.controller().to_string());
    for id in 1..=3 {
        assert!(field(&status, "CurrentVoters").contains(&format!(r#""id": {id}"#)), "{status}");
    }
    assert_eq!(field(&status, "CurrentObservers"), "[]");
    // A follower may be one idle beat of the log behind at any moment.
    let replication = until("followers that keep up", LIMIT, || {
        let text = cluster.tool("kafka-metadata-quorum describe --replication").ok();
        let lags = crate::table::columns(&text, &["Lag"]);
        lags.iter().all(|lag| lag[0] == "0" || lag[0] == "1").then_some(text)
    });
    let statuses = crate::table::columns(&replication, &["NodeId", "Status"]);
    assert_eq!(statuses.len(), 3, "{replication}");
    let led = statuses.iter().filter(|row| row[1] == "Leader").count();
    let followed = statuses.iter().filter(|row| row[1] == "Follower").count();
    assert_eq!((led, followed), (1, 2), "{replication}");
}

#[test]
fn a_quorum_of_configured_voters_becomes_one_that_can_change() {
    let _machine = alone();
    let mut cluster = ClusterSetup::under_test().start();
    // Once every voter has told the leader what it supports.
    until_true("the upgrade", LIMIT, || {
        cluster.tool("kafka-features upgrade --feature kraft.version=1").run().status == 0
    });
    let id = cluster.controller();
    let voter = directory_id(cluster.node(id));
    cluster
        .tool(&format!(
            "kafka-metadata-quorum remove-controller --controller-id {id} --controller-directory-id {voter}"
        ))
        .ok();
    until_true("a quorum of the others", LIMIT, || {
        cluster.quorum().is_ok_and(|quorum| !quorum.voters.contains(&id) && quorum.leader != id)
    });
    // What its configuration says about voters no longer counts.
    crate::failover::stop(&mut cluster, id);
    cluster.start_again(id);
    assert_eq!(cluster.quorum().unwrap().voters.len(), 2);
}

#[test]
fn controllers_are_added_to_a_quorum_of_one_and_removed_again() {
    let _machine = alone();
    let mut cluster = ClusterSetup::under_test().with_standalone_quorum().start();
    let voters = |cluster: &Cluster| cluster.quorum().map(|quorum| quorum.voters);
    assert_eq!(voters(&cluster).unwrap(), BTreeSet::from([1]));
    for id in [2, 3] {
        let properties = cluster.node(id).broker().properties();
        let config = format!("--command-config {}", properties.display());
        let added = cluster.tool(&format!("kafka-metadata-quorum {config} add-controller")).ok();
        assert!(added.contains(&format!("Added controller {id}")), "{added}");
    }
    until_true("three voters", LIMIT, || {
        voters(&cluster).is_ok_and(|voters| voters == BTreeSet::from([1, 2, 3]))
    });

    // Three voters stand the loss of one: without the additions this would be the end.
    let first = cluster.controller();
    cluster.kill(first);
    let next = until("another active controller", LIMIT, || {
        let leader = cluster.quorum().ok()?.leader;
        (leader != first).then_some(leader)
    });
    cluster.start_again(first);

    let id = directory_id(cluster.node(next));
    let removed = cluster
        .tool(&format!(
            "kafka-metadata-quorum remove-controller --controller-id {next} \
             --controller-directory-id {id}"
        ))
        .ok();
    assert!(removed.contains("Removed"), "{removed}");
    let left: BTreeSet<i32> = [1, 2, 3].into_iter().filter(|id| *id != next).collect();
    until_true("two voters", LIMIT, || voters(&cluster).is_ok_and(|voters| voters == left));
    // The removed leader has stepped down, and what remains decides.
    cluster.create_topic("after-removal", &[vec![1, 2, 3]], &[]);
    assert_ne!(cluster.controller(), next);
}

#[test]
fn preferred_leaders_are_elected_again_after_a_restart() {
    let _machine = alone();
    let mut cluster =
        ClusterSetup::under_test().set("auto.leader.rebalance.enable", "false").start();
    let assignment = [vec![1, 2, 3], vec![2, 3, 1], vec![3, 1, 2]];
    let topic = cluster.create_topic("preferred", &assignment, &[]);
    cluster.kill(2);
    until_true("another leader", LIMIT, || {
        leaders(&cluster, &topic).get(1).is_some_and(|leader| [1, 3].contains(leader))
    });
    cluster.start_again(2);
    cluster.until_whole();
    assert_ne!(leaders(&cluster, &topic), [1, 2, 3], "nobody has asked for an election yet");
    let said = cluster
        .tool(&format!(
            "kafka-leader-election --election-type preferred --topic {topic} --partition 1"
        ))
        .ok();
    assert!(said.contains(&format!("for partitions {topic}-1")), "{said}");
    until_led_by(&cluster, &topic, &[1, 2, 3]);
}

#[test]
fn an_unclean_election_happens_when_the_operator_asks_and_not_before() {
    let _machine = alone();
    let mut cluster = ClusterSetup::under_test().start();
    let replicas: Vec<i32> =
        cluster.ids().into_iter().filter(|id| *id != cluster.controller()).collect();
    let [first, last] = replicas[..] else { panic!("there are three nodes") };
    let topic = cluster.create_topic(
        "unclean",
        std::slice::from_ref(&replicas),
        &[("min.insync.replicas", "1")],
    );
    cluster.kill(first);
    until_led_by(&cluster, &topic, &[last]);
    // Frozen first: the node that comes back has nobody to fetch from, and stays out of the ISR.
    cluster.pause(last);
    cluster.spawn(first);
    until_led_by(&cluster, &topic, &[-1]);
    until_true("the first replica", LIMIT, || {
        cluster.unfenced().is_ok_and(|unfenced| unfenced.contains(&first))
    });
    assert_eq!(leaders(&cluster, &topic), [-1], "nobody has asked for an election yet");
    cluster
        .tool(&format!(
            "kafka-leader-election --election-type unclean --topic {topic} --partition 0"
        ))
        .ok();
    until_led_by(&cluster, &topic, &[first]);
}

#[test]
fn a_partition_is_reassigned_under_a_throttle_that_is_removed_afterwards() {
    let _machine = alone();
    let cluster = ClusterSetup::under_test().start();
    let topic = cluster.create_topic("moving", &[vec![1, 2]], &[]);
    let produced = cluster
        .tool(&format!(
            "kafka-producer-perf-test --topic {topic} --num-records 2000 --record-size 1000 \
             --throughput -1"
        ))
        .ok();
    assert!(produced.contains("2000 records sent"), "{produced}");
    let home = Directory::new("reassignment");
    let plan = home.path().join("plan.json");
    let text = format!(
        r#"{{"version":1,"partitions":[{{"topic":"{topic}","partition":0,"replicas":[3,2]}}]}}"#
    );
    std::fs::write(&plan, text).unwrap();
    let reassign = |action: &str| {
        let line = format!("kafka-reassign-partitions --reassignment-json-file {}", plan.display());
        cluster.tool(&format!("{line} {action}")).ok()
    };
    let started = reassign("--execute --throttle 1000000");
    assert!(started.contains("Successfully started partition reassignment"), "{started}");
    assert!(
        started.contains("The inter-broker throttle limit was set to 1000000 B/s"),
        "{started}"
    );
    let verified = until("the end of the reassignment", LIMIT, || {
        let said = reassign("--verify");
        said.contains("is completed").then_some(said)
    });
    assert!(verified.contains("Clearing topic-level throttles on topic"), "{verified}");
    let described = cluster.partitions_of(&topic).unwrap();
    assert_eq!(described[0].replicas, [3, 2]);
    assert!(described[0].is_whole(), "{described:?}");
    let left = cluster.tool(&format!("kafka-configs --describe --topic {topic}")).ok();
    assert!(!left.contains("throttled"), "{left}");
}

#[test]
fn a_topic_gets_the_replicas_that_it_was_created_with() {
    let _machine = alone();
    let cluster = ClusterSetup::under_test().start();
    let created = cluster
        .tool("kafka-topics --create --topic placed --replica-assignment 3:1,2:3,1:2:3")
        .run();
    assert!(created.clone().failure().contains("different replication factor"), "{created}");
    cluster.tool("kafka-topics --create --topic placed --replica-assignment 3:1,2:3").ok();
    until_true("the topic", LIMIT, || {
        let partitions = cluster.partitions_of("placed").unwrap_or_default();
        partitions.len() == 2 && partitions.iter().all(PartitionState::is_whole)
    });
    let described = cluster.tool("kafka-topics --describe --topic placed").ok();
    assert!(described.contains("ReplicationFactor: 2"), "{described}");
    for (partition, replicas) in [(0, "3,1"), (1, "2,3")] {
        let leader = &replicas[..1];
        let row = format!(
            "Partition: {partition}\tLeader: {leader}\tReplicas: {replicas}\tIsr: {replicas}"
        );
        assert!(described.contains(&row), "{row}\n{described}");
    }
}

#[test]
fn a_broker_that_is_gone_for_good_is_unregistered() {
    let _machine = alone();
    let mut cluster = ClusterSetup::under_test().start();
    cluster.join(4, Flavour::under_test(), Roles::Broker);
    let list = "kafka-cluster list-endpoints --include-fenced-brokers";
    let state = |cluster: &Cluster| {
        let listed = cluster.tool(list).ok();
        let rows = crate::table::columns(&listed, &["ID", "STATE"]);
        rows.into_iter().find(|row| row[0] == "4").map(|row| row[1].clone())
    };
    assert_eq!(state(&cluster).as_deref(), Some("unfenced"));
    cluster.stop(4);
    until_true("node 4 to be fenced", LIMIT, || state(&cluster).as_deref() == Some("fenced"));
    let said = cluster.tool("kafka-cluster unregister --id 4").ok();
    assert!(said.contains("Broker 4 is no longer registered."), "{said}");
    until_true("node 4 to be forgotten", LIMIT, || state(&cluster).is_none());
}

#[test]
fn verifiable_clients_see_nothing_of_a_rolling_restart() {
    let _machine = alone();
    let mut cluster = ClusterSetup::under_test().start();
    let assignment = [vec![1, 2, 3], vec![2, 3, 1], vec![3, 1, 2]];
    let topic = cluster.create_topic("rolling", &assignment, &[]);
    // The tool's own default is not to retry at all: every change of a leader would be an error.
    let home = Directory::new("retries");
    let config = home.path().join("producer.properties");
    std::fs::write(&config, "retries=2147483647\n").unwrap();
    let producer = cluster
        .tool(&format!("kafka-verifiable-producer --topic {topic} --acks -1 --throughput 200"))
        .arg("--command-config")
        .arg(config.display().to_string())
        .start_in_own_jvm();
    let consumer = cluster
        .tool(&format!(
            "kafka-verifiable-consumer --topic {topic} --group-id rolling \
             --reset-policy earliest --verbose"
        ))
        .start_in_own_jvm();
    consumer.until_prints(r#""name":"record_data""#, LIMIT);
    for id in cluster.ids() {
        crate::failover::stop(&mut cluster, id);
        cluster.start_again(id);
        cluster.until_whole();
    }
    // Not after its end has begun: what it sends then may find its producer closed.
    let so_far = producer.stdout();
    let failed: Vec<&str> =
        so_far.lines().filter(|line| line.contains("producer_send_error")).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    producer.terminate();
    let sent = producer.wait(LIMIT).stdout;
    let acknowledged = values(&sent, "producer_send_success");
    assert!(acknowledged.len() > 200, "{sent}");
    until_true("everything to be consumed", LIMIT, || {
        values(&consumer.stdout(), "record_data").is_superset(&acknowledged)
    });
    consumer.terminate();
    let seen = consumer.wait(LIMIT).stdout;
    let mut unknown = String::new();
    for value in values(&seen, "record_data").difference(&acknowledged) {
        write!(unknown, "{value} ").unwrap();
    }
    assert_eq!(unknown, "", "values that nobody was told to be stored");
}

/// The `value` of every event with this name, in lines of JSON without nesting.
fn values(lines: &str, name: &str) -> BTreeSet<String> {
    let wanted = format!(r#""name":"{name}""#);
    let events = lines.lines().filter(|line| line.contains(&wanted));
    let value = |line: &str| {
        let (_, rest) = line.split_once(r#""value":""#)?;
        Some(rest.split_once('"')?.0.to_owned())
    };
    events.filter_map(value).collect()
}

#[test]
fn the_wrong_kind_of_listener_says_which_kind_it_is() {
    let _machine = alone();
    let cluster = ClusterSetup::of(&[Flavour::under_test()]).start();
    let node = cluster.node(1);
    let (broker, controller) = (node.client().unwrap(), node.controller().unwrap());
    let describe = |address: &str, endpoint_type: i8, version: i16| {
        let request = DescribeClusterRequest { endpoint_type, ..Default::default() };
        let answer: DescribeClusterResponse = ask(address, &request, version).unwrap();
        (answer.error_code, answer.error_message.unwrap_or_default().to_string())
    };
    let mismatch = |is: &str, wanted: &str| {
        format!(
            "The request was sent to an endpoint of type {is}, but we wanted an endpoint of type {wanted}"
        )
    };
    // INVALID_REQUEST, MISMATCHED_ENDPOINT_TYPE, UNSUPPORTED_ENDPOINT_TYPE
    assert_eq!(describe(controller, 1, 0), (42, mismatch("CONTROLLER", "BROKER")));
    for version in [1, 2] {
        assert_eq!(describe(broker, 2, version), (114, mismatch("BROKER", "CONTROLLER")));
        assert_eq!(describe(controller, 1, version), (114, mismatch("CONTROLLER", "BROKER")));
        for address in [broker, controller] {
            for unknown in [0, 3, -1] {
                let refused = (115, format!("Unsupported endpoint type {unknown}"));
                assert_eq!(describe(address, unknown, version), refused);
            }
        }
        assert_eq!(describe(broker, 1, version), (0, String::new()));
        assert_eq!(describe(controller, 2, version), (0, String::new()));
    }
    let refused = tool(&format!("kafka-cluster cluster-id --bootstrap-controller {broker}")).run();
    let text = mismatch("BROKER", "CONTROLLER");
    assert!(refused.stderr.contains(&text) || refused.stdout.contains(&text), "{refused}");
}
