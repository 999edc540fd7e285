//! kafka-get-offsets, kafka-delete-records and kafka-log-dirs.

use klamm_testbed::{Broker, Directory};

#[test]
fn offsets_are_found_by_position_and_by_time() {
    let broker = Broker::shared();
    let topic = broker.create_topic("timed", "--partitions 2");
    broker
        .tool(&format!(
            "kafka-console-producer --topic {topic} --reader-property parse.key=true \
             --reader-property key.separator=:"
        ))
        .stdin("same:a\nsame:b\nsame:c\n")
        .ok();
    let ask = |time: &str| {
        let line = format!("kafka-get-offsets --topic {topic} {time}");
        let mut lines: Vec<String> = broker.tool(&line).ok().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let latest = ask("");
    let mut ends: Vec<&str> = latest.iter().map(|line| line.rsplit(':').next().unwrap()).collect();
    ends.sort_unstable();
    assert_eq!(ends, ["0", "3"], "one key goes to one partition: {latest:?}");
    assert_eq!(ask("--time latest"), latest);
    assert_eq!(ask("--time -1"), latest);
    assert_eq!(ask("--time earliest"), [format!("{topic}:0:0"), format!("{topic}:1:0")]);
    assert_eq!(ask("--time 1"), {
        let first = latest.iter().find(|line| line.ends_with(":3")).unwrap();
        [format!("{}:0", first.trim_end_matches(":3"))]
    });
    assert_eq!(ask("--time max-timestamp").len(), 1, "an empty partition has no timestamps");
    let last = latest.len() - 1;
    assert_eq!(ask(&format!("--time latest --partitions {last}")), latest[last..]);
}

#[test]
fn deleted_records_are_no_longer_read() {
    let broker = Broker::shared();
    let topic = broker.create_topic("trimmed", "");
    broker.produce_lines(&topic, &["a", "b", "c", "d"]);
    let directory = Directory::new("delete-records");
    let file = directory.path().join("offsets.json");
    let delete = |offset: i64| {
        let text = format!(
            r#"{{"partitions": [{{"topic": "{topic}", "partition": 0, "offset": {offset}}}], "version": 1}}"#
        );
        std::fs::write(&file, text).unwrap();
        let line = format!("kafka-delete-records --offset-json-file {}", file.display());
        broker.tool(&line).run()
    };
    let deleted = delete(3).ok();
    assert!(deleted.contains(&format!("partition: {topic}-0\tlow_watermark: 3")), "{deleted}");
    let earliest = broker.tool(&format!("kafka-get-offsets --topic {topic} --time earliest")).ok();
    assert_eq!(earliest, format!("{topic}:0:3\n"));
    assert_eq!(broker.consume_lines(&topic, 1), ["d"]);

    let beyond = delete(9);
    assert!(beyond.stdout.contains("OffsetOutOfRangeException"), "{beyond}");
    let all = delete(-1).ok();
    assert!(all.contains("low_watermark: 4"), "{all}");
}

#[test]
fn log_directories_tell_the_size_of_every_partition() {
    let broker = Broker::shared();
    let topic = broker.create_topic("sized", "--partitions 2");
    let ask = || broker.tool(&format!("kafka-log-dirs --describe --topic-list {topic}")).ok();
    let before = ask();
    let size_zero = |partition: u32| {
        format!(r#"{{"partition":"{topic}-{partition}","size":0,"offsetLag":0,"isFuture":false}}"#)
    };
    assert!(before.contains(&size_zero(0)) && before.contains(&size_zero(1)), "{before}");
    assert!(before.contains(&format!(r#""logDir":"{}""#, broker.data().display())), "{before}");
    assert!(before.contains(r#""broker":1"#) && before.contains(r#""error":null"#), "{before}");

    broker.produce_lines(&topic, &["a"]);
    let after = ask();
    let grown = [0, 1].map(|partition| !after.contains(&size_zero(partition)));
    assert_eq!(grown.iter().filter(|&&grown| grown).count(), 1, "{after}");
}
