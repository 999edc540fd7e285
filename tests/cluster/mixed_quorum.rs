//! Quorums of Klamm and Apache Kafka: either program leads, the other follows, and their metadata logs are equal.

use std::collections::BTreeSet;
use std::time::Duration;

use klamm_testbed::Flavour::{self, Kafka};
use klamm_testbed::{Cluster, ClusterSetup, Roles, until, until_true, within};

use crate::logs::{end_with_equal_metadata_logs, files, metadata_log};
use crate::stage::alone;

const LIMIT: Duration = Duration::from_secs(60);
/// Chance decides who leads next: after so many elections among three, both programs have led in all likelihood.
const MAX_ROUNDS: usize = 12;
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

/// Kills one leader after another until both programs have led, and comes back with what was written meanwhile.
#[track_caller]
fn survive_with(flavours: [Flavour; 3]) {
    let _machine = alone();
    let mut cluster = ClusterSetup::of(&flavours).start();
    let wanted: BTreeSet<bool> = flavours.iter().map(|flavour| *flavour == Kafka).collect();
    let mut led = BTreeSet::new();
    let mut topics = Vec::new();
    for _ in 0..MAX_ROUNDS {
        let leader = cluster.controller();
        topics.push(write(&cluster, &cluster.ids()));
        led.insert(is_of(&cluster, leader, Kafka));
        if led == wanted {
            break;
        }
        cluster.kill(leader);
        until_true("another active controller", LIMIT, || {
            cluster.quorum().is_ok_and(|quorum| quorum.leader != leader)
        });
        let awake: Vec<i32> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
        topics.push(write(&cluster, &awake));
        cluster.start_again(leader);
    }
    assert_eq!(led, wanted, "who has led (true is Kafka)");
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
