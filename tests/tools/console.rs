//! kafka-console-producer and kafka-console-consumer.

use klamm_testbed::{Broker, unique};

#[test]
fn keys_values_and_headers_come_back_as_they_were_sent() {
    let broker = Broker::shared();
    let topic = broker.create_topic("records", "");
    broker
        .tool(&format!(
            "kafka-console-producer --topic {topic} --reader-property parse.key=true \
             --reader-property parse.headers=true --reader-property key.separator=: \
             --reader-property null.marker=NULL"
        ))
        .stdin("a:1,a:2\tk1:one\nb:x\tNULL:two\nc:y\tk3:NULL\nd:z\tk4:späte Grüße 🦀\n")
        .ok();
    let consumed = broker
        .tool(&format!(
            "kafka-console-consumer --topic {topic} --from-beginning --max-messages 4 \
             --formatter-property print.key=true --formatter-property print.headers=true \
             --formatter-property print.offset=true --formatter-property print.partition=true \
             --formatter-property null.literal=NULL --timeout-ms 30000"
        ))
        .ok();
    assert_eq!(
        consumed,
        "Partition:0\tOffset:0\ta:1,a:2\tk1\tone\n\
         Partition:0\tOffset:1\tb:x\tNULL\ttwo\n\
         Partition:0\tOffset:2\tc:y\tk3\tNULL\n\
         Partition:0\tOffset:3\td:z\tk4\tspäte Grüße 🦀\n"
    );
}

#[test]
fn records_with_the_same_key_go_to_the_same_partition_and_keep_their_order() {
    let broker = Broker::shared();
    let topic = broker.create_topic("keyed", "--partitions 4");
    let input: String = (0..60).map(|n| format!("k{}:{n}\n", n % 6)).collect();
    broker
        .tool(&format!(
            "kafka-console-producer --topic {topic} --reader-property parse.key=true \
             --reader-property key.separator=:"
        ))
        .stdin(input)
        .ok();
    let consumed = broker
        .tool(&format!(
            "kafka-console-consumer --topic {topic} --from-beginning --max-messages 60 --timeout-ms 30000 \
             --formatter-property print.key=true --formatter-property print.partition=true"
        ))
        .ok();
    let records: Vec<Vec<&str>> = consumed.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(records.len(), 60);
    for key in ["k0", "k1", "k2", "k3", "k4", "k5"] {
        let of_key: Vec<_> = records.iter().filter(|record| record[1] == key).collect();
        assert!(of_key.iter().all(|record| record[0] == of_key[0][0]), "{key}: {of_key:?}");
        let values: Vec<usize> = of_key.iter().map(|record| record[2].parse().unwrap()).collect();
        let sent: Vec<usize> = (0..60).filter(|n| format!("k{}", n % 6) == key).collect();
        assert_eq!(values, sent);
    }
}

#[test]
fn a_group_continues_where_it_stopped() {
    let broker = Broker::shared();
    let topic = broker.create_topic("continued", "");
    let group = unique("continuing");
    let consume = |count: usize| {
        broker
            .tool(&format!(
                "kafka-console-consumer --topic {topic} --group {group} --max-messages {count} \
                 --timeout-ms 30000 --command-property auto.offset.reset=earliest"
            ))
            .ok()
    };
    broker.produce_lines(&topic, &["a", "b", "c"]);
    assert_eq!(consume(2), "a\nb\n");
    broker.produce_lines(&topic, &["d"]);
    assert_eq!(consume(2), "c\nd\n");
}

#[test]
fn a_consumer_reads_from_a_partition_and_offset() {
    let broker = Broker::shared();
    let topic = broker.create_topic("seek", "");
    broker.produce_lines(&topic, &["a", "b", "c", "d"]);
    let consume = |offset: &str, count: usize| {
        broker
            .tool(&format!(
                "kafka-console-consumer --topic {topic} --partition 0 --offset {offset} \
                 --max-messages {count} --timeout-ms 30000"
            ))
            .ok()
    };
    assert_eq!(consume("2", 2), "c\nd\n");
    assert_eq!(consume("earliest", 1), "a\n");
}

#[test]
fn a_topic_springs_up_when_something_is_produced_to_it() {
    let broker = Broker::shared();
    let topic = unique("sprung");
    broker.tool(&format!("kafka-console-producer --topic {topic}")).stdin("first\n").ok();
    assert_eq!(broker.consume_lines(&topic, 1), ["first"]);
}

#[test]
fn every_codec_and_every_acks_setting_keeps_the_records() {
    let broker = Broker::shared();
    let line = "x".repeat(2_000);
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        for acks in ["0", "1", "all"] {
            let topic = broker.create_topic("codec", "");
            broker
                .tool(&format!(
                    "kafka-console-producer --topic {topic} --compression-codec {codec} \
                     --command-property acks={acks} --command-property enable.idempotence=false"
                ))
                .stdin(format!("{line}\n{line}\n"))
                .ok();
            let consumed = broker.consume_lines(&topic, 2);
            assert_eq!(consumed, [line.as_str(), &line], "{codec} acks={acks}");
        }
    }
}

#[test]
fn a_record_above_the_limit_is_refused_and_named() {
    let broker = Broker::shared();
    let topic = broker.create_topic("limited", "--config max.message.bytes=1000");
    let output = broker
        .tool(&format!("kafka-console-producer --topic {topic} --sync"))
        .stdin("y".repeat(2_000) + "\n")
        .run();
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(said.contains("RecordTooLargeException"), "{output}");
    let offsets = broker.tool(&format!("kafka-get-offsets --topic {topic}")).ok();
    assert_eq!(offsets, format!("{topic}:0:0\n"));
}

#[test]
fn a_topic_with_log_append_time_is_stamped_by_the_broker() {
    let broker = Broker::shared();
    let topic = broker.create_topic("stamped", "--config message.timestamp.type=LogAppendTime");
    broker.produce_lines(&topic, &["one"]);
    let consumed = broker
        .tool(&format!(
            "kafka-console-consumer --topic {topic} --from-beginning --max-messages 1 --timeout-ms 30000 \
             --formatter-property print.timestamp=true"
        ))
        .ok();
    assert!(consumed.starts_with("LogAppendTime:"), "{consumed}");
}
