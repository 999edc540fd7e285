//! kafka-dump-log on segments, indexes, producer snapshots, the metadata log and the offsets topic.

use std::path::{Path, PathBuf};

use klamm_testbed::{Broker, tool, unique};

const RECORDS: usize = 3_000;

/// The files of a directory whose names end so, in order.
fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.to_string_lossy().ends_with(ending));
    files.sort();
    files
}

/// Dumps one file; any complaint fails, save for the one that the tool has about every segment but the first.
#[track_caller]
fn dump(file: &Path, options: &str) -> String {
    let output =
        tool(&format!("kafka-dump-log {options} --files")).arg(file.display().to_string()).run();
    let harmless = ["Non-consecutive offsets in ", "  -1 is followed by "];
    let complaint = |line: &&str| !harmless.iter().any(|start| line.starts_with(start));
    assert_eq!(output.stderr.lines().find(complaint), None, "{output}");
    let dumped = output.ok();
    assert!(!dumped.contains("invalid bytes"), "{}: {dumped}", file.display());
    dumped
}

/// The number behind each `field: ` in a dump.
fn numbers(dumped: &str, field: &str) -> Vec<i64> {
    let number = |text: &str| text.split([' ', '\n']).next().unwrap().parse().unwrap();
    dumped.split(field).skip(1).map(number).collect()
}

/// A stopped broker with a topic of three segments, filled by an idempotent producer.
fn stopped_with_segments() -> (Broker, PathBuf) {
    let mut broker = Broker::start();
    let topic = broker.create_topic("dumped", "--config segment.bytes=1048576");
    broker
        .tool(&format!(
            "kafka-producer-perf-test --topic {topic} --num-records {RECORDS} --record-size 1000 \
             --throughput -1 --command-property batch.size=16000 enable.idempotence=true"
        ))
        .ok();
    broker.stop();
    let directory = broker.data().join(format!("{topic}-0"));
    (broker, directory)
}

#[test]
fn segments_hold_every_record_in_order_and_their_indexes_match() {
    let (_broker, directory) = stopped_with_segments();
    let segments = files(&directory, ".log");
    assert_eq!(segments.len(), 3, "{segments:?}");
    let dumped: String = segments.iter().map(|segment| dump(segment, "--deep-iteration")).collect();
    let expected: Vec<i64> = (0..3_000).collect();
    assert_eq!(numbers(&dumped, "| offset: "), expected);
    assert_eq!(numbers(&dumped, "baseOffset: ").len(), dumped.matches("isvalid: true").count());

    let indexes = [files(&directory, ".index"), files(&directory, ".timeindex")].concat();
    assert_eq!(indexes.len(), 6, "{indexes:?}");
    for index in indexes {
        assert!(dump(&index, "--index-sanity-check").contains("passed sanity check."));
        dump(&index, "--verify-index-only");
        let entries = dump(&index, "").lines().filter(|line| line.contains("offset: ")).count();
        assert!(entries > 1, "{} has {entries} entries", index.display());
    }
}

#[test]
fn producer_snapshots_tell_where_the_producer_stands() {
    let (_broker, directory) = stopped_with_segments();
    let snapshots = files(&directory, ".snapshot");
    assert_eq!(snapshots.len(), 3, "one for each roll, one for the end: {snapshots:?}");
    let last = dump(snapshots.last().unwrap(), "");
    assert!(last.contains("lastSequence: 2999 lastOffset: 2999 "), "{last}");
    assert!(
        last.contains("producerEpoch: 0 ")
            && last.contains("currentTxnFirstOffset: OptionalLong.empty"),
        "{last}"
    );
}

#[test]
fn records_of_every_codec_are_read_inside_their_batches() {
    let mut broker = Broker::start();
    let topic = broker.create_topic("codecs", "");
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    for codec in codecs {
        broker
            .tool(&format!("kafka-console-producer --topic {topic} --compression-codec {codec}"))
            .stdin(format!("{codec}-1\n{codec}-2\n"))
            .ok();
    }
    broker.stop();
    let segment = broker.data().join(format!("{topic}-0/00000000000000000000.log"));
    let dumped = dump(&segment, "--deep-iteration --print-data-log");
    let payloads: Vec<&str> = dumped
        .lines()
        .filter_map(|line| {
            line.strip_prefix("| ")?.split_once("payload: ").map(|(_, payload)| payload)
        })
        .collect();
    let sent: Vec<String> =
        codecs.iter().flat_map(|codec| [1, 2].map(|n| format!("{codec}-{n}"))).collect();
    assert_eq!(payloads, sent);
    for codec in codecs {
        assert!(dumped.contains(&format!("compresscodec: {codec} ")), "{dumped}");
    }
}

#[test]
fn the_metadata_log_is_made_of_records_that_kafka_knows() {
    let mut broker = Broker::start();
    let topic = broker.create_topic("recorded", "--partitions 2 --config retention.ms=4242");
    broker.stop();
    let metadata = broker.data().join("__cluster_metadata-0");
    let dumped: String = files(&metadata, ".log")
        .iter()
        .map(|file| dump(file, "--cluster-metadata-decoder"))
        .collect();
    for expected in [
        r#"LeaderChange: {"version":"#,
        r#""type":"FEATURE_LEVEL_RECORD","version":0,"data":{"name":"metadata.version","featureLevel":30}"#,
        r#""type":"REGISTER_BROKER_RECORD""#,
        r#""type":"PARTITION_RECORD""#,
        &format!(r#""type":"TOPIC_RECORD","version":0,"data":{{"name":"{topic}","#),
        &format!(
            r#""type":"CONFIG_RECORD","version":0,"data":{{"resourceType":2,"resourceName":"{topic}","name":"retention.ms","value":"4242"}}"#
        ),
    ] {
        assert!(dumped.contains(expected), "{expected} is missing in\n{dumped}");
    }
    let bootstrap = dump(&broker.data().join("bootstrap.checkpoint"), "--cluster-metadata-decoder");
    assert!(bootstrap.contains("KRaft bootstrap snapshot"), "{bootstrap}");
    assert!(bootstrap.contains("metadata.version"), "{bootstrap}");
}

#[test]
fn the_offsets_topic_holds_groups_and_commits_that_kafka_knows() {
    let mut broker = Broker::start();
    let topic = broker.create_topic("committed", "");
    let group = unique("dumped-group");
    broker.produce_lines(&topic, &["a", "b", "c"]);
    broker
        .tool(&format!(
            "kafka-console-consumer --topic {topic} --group {group} --from-beginning --max-messages 2 \
             --timeout-ms 30000"
        ))
        .ok();
    broker.stop();
    let dumped: String = (0..4)
        .flat_map(|n| files(&broker.data().join(format!("__consumer_offsets-{n}")), ".log"))
        .map(|file| dump(&file, "--offsets-decoder"))
        .collect();
    let commit = dumped
        .lines()
        .rfind(|line| line.contains("offset_commit") || line.contains(r#""topic":""#));
    let commit = commit.unwrap_or_else(|| panic!("no commit in\n{dumped}"));
    for expected in [&group, &topic, r#""offset":2"#] {
        assert!(commit.contains(expected), "{expected} is missing in {commit}");
    }
    let joined = dumped.lines().find(|line| line.contains(r#""protocolType":"consumer""#));
    let joined = joined.unwrap_or_else(|| panic!("no member in\n{dumped}"));
    assert!(joined.contains(&group) && joined.contains(r#""clientHost":"/127.0.0.1""#), "{joined}");
}
