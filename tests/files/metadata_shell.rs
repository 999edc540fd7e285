//! kafka-metadata-shell on the metadata log and its snapshots.

use std::path::Path;
use std::time::Duration;

use klamm_testbed::{Broker, Directory, Setup, tool, until};

const LIMIT: Duration = Duration::from_secs(60);

/// The shell ends before its output is complete when another program runs it, hence the JVM of its own.
fn shell(file: &Path, command: &str) -> String {
    let line = format!("kafka-metadata-shell --snapshot {} {command}", file.display());
    tool(&line).start_in_own_jvm().wait(LIMIT).ok()
}

#[test]
fn the_metadata_log_is_walked_like_a_file_system() {
    let mut broker = Broker::start();
    let topic = broker.create_topic("walked", "--partitions 2 --config retention.ms=4242");
    broker.stop();
    let log = broker.data().join("__cluster_metadata-0/00000000000000000000.log");
    let found = shell(&log, "find /image");
    for path in [
        format!("/image/topics/byName/{topic}/1"),
        "/image/cluster/brokers/1".to_owned(),
        "/image/features/metadataVersion".to_owned(),
        format!("/image/configs/TOPIC:{topic}/retention.ms"),
    ] {
        assert!(found.lines().any(|line| line == path), "{path} is missing in\n{found}");
    }
}

#[test]
fn a_snapshot_of_the_metadata_holds_the_topics() {
    let broker =
        Setup::under_test().set("metadata.log.max.record.bytes.between.snapshots", "1").start();
    let topic = broker.create_topic("snapshot", "");
    let metadata = broker.data().join("__cluster_metadata-0");
    let snapshot = until("a snapshot that holds the topic", LIMIT, || {
        let names = std::fs::read_dir(&metadata).unwrap().map(|entry| entry.unwrap().path());
        let newest =
            names.filter(|path| path.extension().is_some_and(|kind| kind == "checkpoint")).max()?;
        let bytes = std::fs::read(&newest).unwrap();
        bytes.windows(topic.len()).any(|window| window == topic.as_bytes()).then_some(newest)
    });
    // The shell refuses a directory that a node is using.
    let elsewhere = Directory::new("snapshot");
    let copy = elsewhere.path().join(snapshot.file_name().unwrap());
    std::fs::copy(&snapshot, &copy).unwrap();
    let found = shell(&copy, "ls /image/topics/byName");
    assert!(found.lines().any(|line| line == topic), "{found}");
}
