//! The performance tests, and the verifiable producer and consumer.

use std::time::Duration;

use klamm_testbed::{Broker, unique};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn what_the_producer_perf_test_sent_the_consumer_perf_test_reads() {
    let broker = Broker::shared();
    let topic = broker.create_topic("perf", "--partitions 3");
    let sent = broker
        .tool(&format!(
            "kafka-producer-perf-test --topic {topic} --num-records 20000 --record-size 200 --throughput -1"
        ))
        .ok();
    assert!(sent.contains("20000 records sent"), "{sent}");
    let read = broker
        .tool(&format!(
            "kafka-consumer-perf-test --topic {topic} --num-records 20000 --timeout 30000"
        ))
        .ok();
    assert!(!read.contains("WARNING"), "{read}");
    let last = read.lines().last().unwrap();
    let cells: Vec<&str> = last.split(", ").collect();
    assert_eq!(cells[4], "20000", "data.consumed.in.nMsg: {read}");
}

#[test]
fn what_the_verifiable_producer_got_acknowledged_the_verifiable_consumer_sees() {
    let broker = Broker::shared();
    let topic = broker.create_topic("verifiable", "");
    let sent = broker
        .tool(&format!("kafka-verifiable-producer --topic {topic} --max-messages 500 --acks -1"))
        .start_in_own_jvm()
        .wait(LIMIT)
        .ok();
    assert_eq!(sent.matches(r#""name":"producer_send_success""#).count(), 500, "{sent}");
    assert!(sent.contains(r#""sent":500,"acked":500"#), "{sent}");
    assert!(sent.contains(r#""offset":499"#), "{sent}");

    let group = unique("verifiable");
    let seen = broker
        .tool(&format!(
            "kafka-verifiable-consumer --topic {topic} --group-id {group} --max-messages 500 \
             --reset-policy earliest --verbose"
        ))
        .start_in_own_jvm()
        .wait(LIMIT)
        .ok();
    assert_eq!(seen.matches(r#""name":"record_data""#).count(), 500, "{seen}");
    assert!(seen.contains(r#""name":"partitions_assigned""#), "{seen}");
    assert!(seen.contains(r#""name":"offsets_committed""#), "{seen}");
    let described = broker.tool(&format!("kafka-consumer-groups --describe --group {group}")).ok();
    let row = crate::table::columns(&described, &["CURRENT-OFFSET", "LOG-END-OFFSET", "LAG"]);
    assert_eq!(row, [["500", "500", "0"]]);
}
