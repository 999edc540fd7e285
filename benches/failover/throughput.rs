//! What a cluster takes in when acks=all means on disk.

use std::time::Duration;

use klamm_testbed::{ClusterSetup, Flavour};

use crate::report::Column;

const LIMIT: Duration = Duration::from_secs(600);
const RECORDS: u32 = 100_000;

pub(crate) fn measure(flavour: Flavour, column: &mut Column) {
    let setup = ClusterSetup::of(&[flavour; 3]);
    let setup = match flavour {
        Flavour::Klamm => setup,
        // Kafka syncs before it acknowledges only if it is told so.
        Flavour::Kafka => setup.set("log.flush.interval.messages", "1"),
    };
    let cluster = setup.start();
    let replicas = |first: usize| -> Vec<i32> {
        let mut replicas = vec![1, 2, 3];
        replicas.rotate_left(first % 3);
        replicas
    };
    let assignment: Vec<Vec<i32>> = (0..12).map(replicas).collect();
    let topic = cluster.create_topic("synced", &assignment, &[("min.insync.replicas", "2")]);
    let said = cluster
        .tool(&format!(
            "kafka-producer-perf-test --topic {topic} --num-records {RECORDS} --record-size 1000 \
             --throughput -1 --command-property acks=all"
        ))
        .limit(LIMIT)
        .ok();
    let figure = said.lines().rev().find(|line| line.contains("records/sec"));
    let figure = figure.and_then(|line| line.split(", ").nth(1)).unwrap_or(&said).to_owned();
    column.add("1 KB records with acks=all, synced before they are acknowledged", figure);
}
