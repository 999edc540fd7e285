//! kafka-metadata-shell on the metadata log and its snapshots.

use std::path::Path;
use std::time::Duration;

use klamm_testbed::{Broker, Directory, Setup, tool, until, within};

const LIMIT: Duration = Duration::from_secs(60);

/// Runs a command of the shell until its output has all of `lines`.
///
/// The shell does not wait for the end of the file that it loads before it runs a command (its `waitUntilCaughtUp` is content with
/// the first batch), so that the first answer may be short.
#[track_caller]
fn shell_finds(file: &Path, command: &str, lines: &[String]) {
    let line = format!("kafka-metadata-shell --snapshot {} {command}", file.display());
    let mut said = String::new();
    let found = within(LIMIT, || {
        said = tool(&line).start_in_own_jvm().wait(LIMIT).ok();
        lines.iter().all(|expected| said.lines().any(|line| line == expected))
    });
    assert!(found, "{command} does not show {lines:?} but\n{said}");
}

#[test]
fn the_metadata_log_is_walked_like_a_file_system() {
    let mut broker = Broker::start();
    let topic = broker.create_topic("walked", "--partitions 2 --config retention.ms=4242");
    broker.stop();
    let log = broker.data().join("__cluster_metadata-0/00000000000000000000.log");
    let paths = [
        format!("/image/topics/byName/{topic}/1"),
        "/image/cluster/brokers/1".to_owned(),
        "/image/features/metadataVersion".to_owned(),
        format!("/image/configs/TOPIC:{topic}/retention.ms"),
    ];
    shell_finds(&log, "find /image", &paths);
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
    shell_finds(&copy, "ls /image/topics/byName", &[topic]);
}
