//! Quorums of Klamm and Apache Kafka: either program leads, the other follows, and their metadata logs are equal.

use std::time::Duration;

use klamm_testbed::Flavour::{self, Kafka};
use klamm_testbed::{Cluster, ClusterSetup, Roles, until, until_true, within};

use crate::logs::{end_with_equal_metadata_logs, files, metadata_log};
use crate::stage::alone;

const LIMIT: Duration = Duration::from_secs(60);
/// Two heartbeats of a broker of Apache Kafka, and less than half its session.
const TWO_HEARTBEATS: Duration = Duration::from_secs(4);

fn is_of(cluster: &Cluster, id: i32, flavour: Flavour) -> bool {
    cluster.node(id).flavour() == flavour
}

/// Writes metadata by way of the active controller: a topic on every awake node.
#[track_caller]
fn write(cluster: &Cluster, awake: &[i32]) -> String {
    let assignment: Vec<Vec<i32>> = awake.iter().map(|id| vec![*id]).collect();
    cluster.create_topic("written", &assignment, &[("min.insync.replicas", "1")])
}

/// Kills the leader when only `successor` can lead next: the third voter lacks what was committed last. Returns what was
/// written.
#[track_caller]
fn hand_over(cluster: &mut Cluster, successor: i32) -> [String; 3] {
    let leader = cluster.controller();
    let third = cluster.ids().into_iter().find(|id| ![leader, successor].contains(id));
    let third = third.expect("there are three");
    cluster.pause(third);
    // Its fetch was under way: the answer has the first of these, and nothing has the second.
    let first = write(cluster, &[leader, successor]);
    let second = write(cluster, &[leader, successor]);
    cluster.kill(leader);
    cluster.resume(third);
    until_true("the only possible leader", LIMIT, || {
        cluster.quorum().is_ok_and(|quorum| quorum.leader == successor)
    });
    let after = write(cluster, &[successor, third]);
    cluster.start_again(leader);
    [first, second, after]
}

/// A node of the other program leads, and then one of the first again; each comes back with what was written meanwhile.
#[track_caller]
fn survive_with(flavours: [Flavour; 3]) {
    let _machine = alone();
    let mut cluster = ClusterSetup::of(&flavours).start();
    let mut topics = vec![write(&cluster, &cluster.ids())];
    for _ in 0..2 {
        let leader = cluster.controller();
        let led_by_kafka = is_of(&cluster, leader, Kafka);
        let successor =
            cluster.ids().into_iter().find(|id| is_of(&cluster, *id, Kafka) != led_by_kafka);
        topics.extend(hand_over(&mut cluster, successor.expect("both programs vote")));
    }
    cluster.until_whole();
    for topic in topics {
        assert_ne!(cluster.partitions_of(&topic).unwrap(), [], "{topic} is known");
    }
    end_with_equal_metadata_logs(cluster);
}

#[test]
fn two_klamms_and_a_kafka_lead_in_turn_with_equal_metadata_logs() {
    let ours = Flavour::under_test();
    survive_with([ours, ours, Kafka]);
}

#[test]
fn a_klamm_and_two_kafkas_lead_in_turn_with_equal_metadata_logs() {
    survive_with([Flavour::under_test(), Kafka, Kafka]);
}

/// A cluster of one program makes a snapshot, and a broker of the other begins with it.
#[track_caller]
fn begin_with_a_snapshot(of: Flavour, reader: Flavour) {
    let _machine = alone();
    let mut cluster = ClusterSetup::of(&[of])
        .set("metadata.log.max.record.bytes.between.snapshots", "1000")
        .start();
    let topic = write(&cluster, &[1]);
    let log = metadata_log(cluster.node(1));
    // The one of offset 0 is the formatter's, where there is one.
    let snapshot = until("a snapshot", LIMIT, || {
        files(&log, "checkpoint")
            .into_iter()
            .find(|path| !path.ends_with("00000000000000000000-0000000000.checkpoint"))
    });
    let made = std::fs::read(&snapshot).unwrap();
    cluster.join(2, reader, Roles::Broker);
    let topics = cluster.partitions_of(&topic).unwrap();
    assert_eq!(topics.len(), 1);
    let loaded = files(&metadata_log(cluster.node(2)), "checkpoint");
    let loaded = loaded.first().expect("an empty follower is given a snapshot");
    let name = loaded.file_name().unwrap();
    let original = std::fs::read(log.join(name)).unwrap_or(made);
    assert!(std::fs::read(loaded).unwrap() == original, "{loaded:?} differs");
    end_with_equal_metadata_logs(cluster);
}

#[test]
fn kafka_begins_with_a_snapshot_of_klamm() {
    begin_with_a_snapshot(Flavour::under_test(), Kafka);
}

#[test]
fn klamm_begins_with_a_snapshot_of_kafka() {
    begin_with_a_snapshot(Kafka, Flavour::under_test());
}

/// A tool that has just seen the broker would be told that there is none of its id.
#[test]
fn a_broker_of_kafka_stays_unfenced_under_a_controller_of_klamm() {
    let _machine = alone();
    let mut cluster = ClusterSetup::of(&[Flavour::under_test()]).start();
    cluster.join(2, Kafka, Roles::Broker);
    let is_fenced = || cluster.unfenced().is_ok_and(|unfenced| !unfenced.contains(&2));
    assert!(!within(TWO_HEARTBEATS, is_fenced), "it was fenced before its second heartbeat");
}
