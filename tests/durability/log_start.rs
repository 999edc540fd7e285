//! What DeleteRecords has deleted stays deleted.

use std::fs;
use std::time::Duration;

use klamm_testbed::{Broker, until};

/// Far below `log.flush.start.offset.checkpoint.interval.ms`, after which it is written anyway.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn deleted_records_do_not_come_back_after_a_kill() {
    let mut broker = Broker::start();
    let topic = broker.create_topic("deleted", "--partitions 1");
    let lines: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    broker.produce_lines(&topic, &lines);
    let offsets = broker.data().with_file_name("offsets.json");
    let json = format!(
        r#"{{"partitions": [{{"topic": "{topic}", "partition": 0, "offset": 4}}], "version": 1}}"#
    );
    fs::write(&offsets, json).unwrap();
    broker.tool(&format!("kafka-delete-records --offset-json-file {}", offsets.display())).ok();
    let checkpoint = broker.data().join("log-start-offset-checkpoint");
    until("the log start in its checkpoint", SOON, || {
        let written = fs::read_to_string(&checkpoint).unwrap_or_default();
        written.contains(&format!("{topic} 0 4")).then_some(())
    });
    broker.kill();
    broker.start_again();
    assert_eq!(broker.consume_lines(&topic, 6), lines[4..]);
}
