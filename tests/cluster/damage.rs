//! A byte of a closed segment that the disk has damaged: never served, and repaired from a peer before long.

use std::fmt::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::Duration;

use klamm_testbed::{Cluster, ClusterSetup, Flavour, until_true};

use crate::logs::{batches, files};
use crate::stage::alone;

const LIMIT: Duration = Duration::from_secs(60);
const RECORDS: u32 = 5000;
const VALUE_BYTES: usize = 1000;

fn lines() -> String {
    let mut lines = String::new();
    for number in 0..RECORDS {
        writeln!(lines, "{number:0VALUE_BYTES$}").unwrap();
    }
    lines
}

/// What a consumer reads that begins at the beginning.
fn consumed(cluster: &Cluster, topic: &str) -> String {
    let line = "kafka-console-consumer --from-beginning --timeout-ms 30000";
    cluster.tool(&format!("{line} --max-messages {RECORDS} --topic {topic}")).ok()
}

fn partition_of(cluster: &Cluster, topic: &str, id: i32) -> PathBuf {
    cluster.node(id).broker().data().join(format!("{topic}-0"))
}

/// Flips one byte in the middle of a closed segment.
fn damage(cluster: &Cluster, topic: &str, id: i32, segment: usize) {
    let segments = files(&partition_of(cluster, topic, id), "log");
    assert!(segment + 1 < segments.len(), "{} is not closed yet", segments[segment].display());
    let file = std::fs::File::options().read(true).write(true).open(&segments[segment]).unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
}

#[test]
fn a_flipped_byte_is_never_served_and_repaired_within_a_minute() {
    if Flavour::under_test() == Flavour::Kafka {
        // Nothing of the kind is promised there.
        return;
    }
    let _machine = alone();
    let cluster = ClusterSetup::under_test().start();
    let configs = [("segment.bytes", "1048576"), ("min.insync.replicas", "2")];
    let topic = cluster.create_topic("damaged", &[vec![1, 2, 3]], &configs);
    let written = lines();
    let produce = format!("kafka-console-producer --topic {topic} --command-property acks=all");
    cluster.tool(&produce).stdin(written.clone()).ok();
    let intact = batches(&partition_of(&cluster, &topic, 1));
    until_true("equal replicas", LIMIT, || {
        cluster.ids().iter().all(|id| batches(&partition_of(&cluster, &topic, *id)) == intact)
    });

    // Nobody reads the follower; of the leader, a consumer reads everything at once.
    for (victim, segment) in [(2, 1), (1, 0)] {
        damage(&cluster, &topic, victim, segment);
        assert_ne!(batches(&partition_of(&cluster, &topic, victim)), intact);
        if victim == 1 {
            assert_eq!(consumed(&cluster, &topic), written);
        }
        until_true("a repaired replica", LIMIT, || {
            batches(&partition_of(&cluster, &topic, victim)) == intact
        });
        cluster.until_whole();
        assert_eq!(consumed(&cluster, &topic), written);
    }
}
