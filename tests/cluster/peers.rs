//! Klamm among Apache Kafka's brokers and the other way round: they take partitions over from one another, follow and lead, and
//! hold the same bytes.

use std::fmt::Write as _;
use std::time::Duration;

use klamm_faults::Scene;
use klamm_testbed::Flavour::{self, Kafka};
use klamm_testbed::{Cluster, ClusterSetup, Directory, Roles, until_true};

use crate::logs::assert_equal_replicas;
use crate::stage::{LOAD, alone};

const LIMIT: Duration = Duration::from_secs(60);
const OFFSETS_PARTITIONS: i32 = 6;

/// Moves every partition of a topic to `replicas`, with `kafka-reassign-partitions`, and has the first of them lead.
#[track_caller]
fn reassign(cluster: &Cluster, topic: &str, partitions: i32, replicas: &[i32]) {
    let mut moves = String::new();
    for partition in 0..partitions {
        let comma = if partition == 0 { "" } else { "," };
        write!(
            moves,
            r#"{comma}{{"topic":"{topic}","partition":{partition},"replicas":{replicas:?}}}"#
        )
        .unwrap();
    }
    let home = Directory::new("reassignment");
    let plan = home.path().join("plan.json");
    std::fs::write(&plan, format!(r#"{{"version":1,"partitions":[{moves}]}}"#)).unwrap();
    let line = format!("kafka-reassign-partitions --reassignment-json-file {}", plan.display());
    cluster.tool(&format!("{line} --execute")).ok();
    until_true("the partitions to have moved", LIMIT, || {
        let partitions = cluster.partitions_of(topic).unwrap_or_default();
        partitions.iter().all(|partition| partition.replicas == replicas && partition.is_whole())
    });
    // The tool succeeds also where the first replica leads already.
    cluster.tool("kafka-leader-election --election-type preferred --all-topic-partitions").ok();
    until_true("the first replica to lead", LIMIT, || {
        let partitions = cluster.partitions_of(topic).unwrap_or_default();
        partitions.iter().all(|partition| partition.leader == replicas[0])
    });
}

/// Ends a load whose history must be perfect and whose replicas must be equal.
#[track_caller]
pub(crate) fn finish(scene: Scene) {
    let topic = scene.topic().to_owned();
    let mut cluster = scene.finish_without_anomaly();
    cluster.until_whole();
    cluster.kill_all();
    assert_equal_replicas(&cluster, &topic, LOAD.partitions);
    assert_equal_replicas(&cluster, "__consumer_offsets", OFFSETS_PARTITIONS);
}

/// A broker of one program joins a cluster of the other under load, follows, leads, and hands everything back.
#[track_caller]
fn join_and_take_over(of: Flavour, joiner: Flavour) {
    let _machine = alone();
    let cluster = ClusterSetup::of(&[of, of]).set("offsets.topic.replication.factor", "2").start();
    let mut scene = Scene::begin(cluster, &[1, 2], LOAD);
    scene.cluster_mut().join(3, joiner, Roles::Broker);
    let topic = scene.topic().to_owned();
    for replicas in [[1, 3], [3, 1], [3, 2], [2, 3]] {
        reassign(scene.cluster(), &topic, LOAD.partitions, &replicas);
        scene.until_steady();
    }
    finish(scene);
}

#[test]
fn klamm_joins_kafka_follows_leads_and_holds_the_same_bytes() {
    join_and_take_over(Kafka, Flavour::under_test());
}

#[test]
fn kafka_joins_klamm_follows_leads_and_holds_the_same_bytes() {
    join_and_take_over(Flavour::under_test(), Kafka);
}
