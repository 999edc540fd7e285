//! kcat (librdkafka): -L, -P, -C, -G and -Q.

use klamm_testbed::{Broker, Program, require, tool, unique};

fn kcat(broker: &Broker, line: &str) -> Program {
    require("kcat", "kcat");
    Program::new("kcat").args(["-b", broker.bootstrap()]).args(line.split_whitespace())
}

#[test]
fn metadata_lists_the_broker_and_the_topic_with_its_partitions() {
    let broker = Broker::shared();
    let topic = broker.create_topic("kcat-metadata", "--partitions 2");
    let listed = kcat(broker, &format!("-L -t {topic}")).run().ok();
    for line in [
        format!("  broker 1 at {} (controller)", broker.bootstrap()),
        format!("  topic \"{topic}\" with 2 partitions:"),
        "    partition 0, leader 1, replicas: 1, isrs: 1".to_owned(),
        "    partition 1, leader 1, replicas: 1, isrs: 1".to_owned(),
    ] {
        assert!(listed.lines().any(|listed| listed == line), "{line}\n{listed}");
    }
}

#[test]
fn every_codec_is_stored_as_sent_and_read_back() {
    let broker = Broker::shared();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = broker.create_topic("kcat-codec", "");
        let lines: Vec<String> =
            (0..200).map(|n| format!("k{n}:{}", format!("value {n} ").repeat(20))).collect();
        let input = lines.join("\n") + "\n";
        kcat(broker, &format!("-P -t {topic} -K: -z {codec} -X linger.ms=200"))
            .stdin(input.clone())
            .run()
            .ok();
        let read = kcat(broker, &format!("-C -t {topic} -K: -o beginning -e -q")).run().ok();
        assert_eq!(read, input, "{codec}");

        let segment = broker.data().join(format!("{topic}-0/00000000000000000000.log"));
        let dumped = tool("kafka-dump-log --files").arg(segment.display().to_string()).ok();
        assert!(dumped.contains(&format!("compresscodec: {codec} ")), "{dumped}");
    }
}

#[test]
fn headers_offsets_and_null_values_are_kept() {
    let broker = Broker::shared();
    let topic = broker.create_topic("kcat-headers", "");
    kcat(broker, &format!("-P -t {topic} -Z -K: -H a=1 -H a=2"))
        .stdin("k:v\nnothing:\n")
        .run()
        .ok();
    let read =
        kcat(broker, &format!("-C -t {topic} -o beginning -e -q -f %o|%k|%s|%S|%h;")).run().ok();
    assert_eq!(read, "0|k|v|1|a=1,a=2;1|nothing||-1|a=1,a=2;");
}

#[test]
fn a_group_of_kcat_commits_and_continues() {
    let broker = Broker::shared();
    let topic = broker.create_topic("kcat-group", "");
    let group = unique("kcat-group");
    let read = |count: usize| {
        kcat(broker, &format!("-G {group} -q -c {count} -X auto.offset.reset=earliest {topic}"))
            .run()
            .ok()
    };
    kcat(broker, &format!("-P -t {topic}")).stdin("a\nb\nc\n").run().ok();
    assert_eq!(read(2), "a\nb\n");
    assert_eq!(read(1), "c\n");
}

#[test]
fn offsets_are_queried_by_time() {
    let broker = Broker::shared();
    let topic = broker.create_topic("kcat-query", "");
    kcat(broker, &format!("-P -t {topic}")).stdin("a\nb\n").run().ok();
    let ask = |time: &str| kcat(broker, &format!("-Q -t {topic}:0:{time}")).run().ok();
    assert_eq!(ask("1"), format!("{topic} [0] offset 0\n"));
    assert_eq!(ask("-1"), format!("{topic} [0] offset 2\n"));
    assert_eq!(ask("-2"), format!("{topic} [0] offset 0\n"));
}

#[test]
fn an_idempotent_and_an_unacknowledged_producer_both_get_through() {
    let broker = Broker::shared();
    for settings in ["-X enable.idempotence=true", "-X acks=0", "-X acks=1", "-X acks=all"] {
        let topic = broker.create_topic("kcat-acks", "");
        kcat(broker, &format!("-P -t {topic} {settings}")).stdin("a\nb\n").run().ok();
        let read = kcat(broker, &format!("-C -t {topic} -o beginning -c 2 -q")).run().ok();
        assert_eq!(read, "a\nb\n", "{settings}");
    }
}
