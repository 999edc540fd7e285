//! Reassignments under a throttle (KIP-73): replicas that are behind wait, the others feel nothing.

use std::time::{Duration, Instant};

use klamm_testbed::{Cluster, ClusterSetup, Directory, until_true};

use crate::stage::alone;

const LIMIT: Duration = Duration::from_secs(60);
const RECORDS: u32 = 6000;
const RECORD_BYTES: u32 = 1000;

fn produce(cluster: &Cluster, topic: &str, records: u32) {
    let produced = cluster
        .tool(&format!(
            "kafka-producer-perf-test --topic {topic} --num-records {records} \
             --record-size {RECORD_BYTES} --throughput -1 --command-property acks=all"
        ))
        .ok();
    assert!(produced.contains(&format!("{records} records sent")), "{produced}");
}

/// Begins to move the only partition of a topic.
fn execute(cluster: &Cluster, topic: &str, replicas: &str, throttle: u32) {
    let home = Directory::new("throttle");
    let plan = home.path().join("plan.json");
    let partition = format!(r#"{{"topic":"{topic}","partition":0,"replicas":[{replicas}]}}"#);
    std::fs::write(&plan, format!(r#"{{"version":1,"partitions":[{partition}]}}"#)).unwrap();
    let line = format!("kafka-reassign-partitions --execute --throttle {throttle}");
    let line = format!("{line} --reassignment-json-file {}", plan.display());
    let said = cluster.tool(&line).ok();
    assert!(said.contains("Successfully started partition reassignment"), "{said}");
}

fn is_moved(cluster: &Cluster, topic: &str, replicas: &[i32]) -> bool {
    let partitions = cluster.partitions_of(topic).unwrap_or_default();
    partitions.iter().all(|partition| partition.replicas == replicas && partition.is_whole())
}

#[test]
fn a_throttled_reassignment_takes_as_long_as_its_rate_allows_and_slows_nobody_in_sync() {
    let _machine = alone();
    let cluster = ClusterSetup::under_test().start();
    let moving = cluster.create_topic("moving", &[vec![1, 2]], &[]);
    let settled = cluster.create_topic("settled", &[vec![1, 2, 3]], &[]);
    produce(&cluster, &moving, RECORDS);

    let begin = Instant::now();
    execute(&cluster, &moving, "1,3", 1_000_000);
    until_true("the first move", LIMIT, || is_moved(&cluster, &moving, &[1, 3]));
    let took = begin.elapsed();
    // The last fetch and the second that has just begun are not waited for.
    assert!(took >= Duration::from_secs(3), "6 MB at 1 MB/s took {took:?}");

    // At this rate it would take ten minutes.
    execute(&cluster, &moving, "1,2", 10_000);
    for topic in [&settled, &moving] {
        let begin = Instant::now();
        produce(&cluster, topic, 500);
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(20), "replicas in sync take {took:?}");
    }
    assert!(!is_moved(&cluster, &moving, &[1, 2]), "10 kB/s are exceeded");
    let rates = "leader.replication.throttled.rate,follower.replication.throttled.rate";
    for id in cluster.ids() {
        let line = "kafka-configs --alter --entity-type brokers --delete-config";
        cluster.tool(&format!("{line} {rates} --entity-name {id}")).ok();
    }
    until_true("the rest", Duration::from_secs(20), || is_moved(&cluster, &moving, &[1, 2]));
}
