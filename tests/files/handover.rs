//! A directory that changes hands: the broker under test, Apache Kafka, and back, after clean stops and after kills.

use klamm_testbed::{Broker, Flavour, Setup, unique};
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};

/// What a directory holds, as clients see it.
struct Contents {
    topic: String,
    group: String,
    records: Vec<String>,
}

impl Contents {
    fn new(broker: &Broker) -> Self {
        let topic = broker.create_topic("handed", "--config retention.ms=86400001");
        let contents = Self { topic, group: unique("handed"), records: Vec::new() };
        broker
            .tool("kafka-configs --alter --entity-type brokers --entity-default --add-config log.cleaner.threads=2")
            .ok();
        contents
    }

    /// Adds records, reads one of them in the group, and checks that the broker numbers them on.
    #[track_caller]
    fn grow(&mut self, broker: &Broker) {
        let at = self.records.len();
        let added: Vec<String> = (at..at + 5).map(|n| format!("record {n:04}")).collect();
        broker.produce_lines(&self.topic, &added);
        self.records.extend(added);
        let read = self.read_in_group(broker, 1);
        assert_eq!(read, [self.records[at / 5].as_str()], "the group continues where it was");
    }

    fn read_in_group(&self, broker: &Broker, count: usize) -> Vec<String> {
        let Self { topic, group, .. } = self;
        let line = format!(
            "kafka-console-consumer --topic {topic} --group {group} --max-messages {count} \
             --timeout-ms 30000 --command-property auto.offset.reset=earliest"
        );
        broker.tool(&line).ok().lines().map(str::to_owned).collect()
    }

    #[track_caller]
    fn check(&self, broker: &Broker) {
        let Self { topic, group, records } = self;
        assert_eq!(broker.consume_lines(topic, records.len()), *records);
        let end = broker.tool(&format!("kafka-get-offsets --topic {topic}")).ok();
        assert_eq!(end, format!("{topic}:0:{}\n", records.len()));
        let described =
            broker.tool(&format!("kafka-consumer-groups --describe --group {group}")).ok();
        let committed = records.len() / 5;
        let row = described.lines().find(|line| line.starts_with(group)).unwrap();
        assert_eq!(
            row.split_whitespace().nth(3),
            Some(committed.to_string().as_str()),
            "{described}"
        );
        let configs = broker
            .tool(&format!("kafka-configs --describe --entity-type topics --entity-name {topic}"));
        let configs = configs.ok();
        assert!(configs.contains("retention.ms=86400001"), "{configs}");
        let configs =
            broker.tool("kafka-configs --describe --entity-type brokers --entity-default").ok();
        assert!(configs.contains("log.cleaner.threads=2"), "{configs}");
    }
}

fn cluster_id(broker: &Broker) -> String {
    broker.tool("kafka-cluster cluster-id").ok()
}

fn topic_id(broker: &Broker, topic: &str) -> String {
    let described = broker.tool(&format!("kafka-topics --describe --topic {topic}")).ok();
    described.split("TopicId: ").nth(1).unwrap().split('\t').next().unwrap().to_owned()
}

/// Stops or kills the node before each of the given programs takes over, and checks that nothing is lost on the way.
#[track_caller]
fn hand_over(first: Setup, rest: [Flavour; 2], end: fn(&mut Broker)) {
    let mut broker = first.start();
    let mut contents = Contents::new(&broker);
    contents.grow(&broker);
    let identity = (cluster_id(&broker), topic_id(&broker, &contents.topic));
    for flavour in rest {
        end(&mut broker);
        broker.start_as(flavour);
        contents.check(&broker);
        contents.grow(&broker);
        let added = broker.create_topic("added", "");
        broker.produce_lines(&added, &["x"]);
        assert_eq!((cluster_id(&broker), topic_id(&broker, &contents.topic)), identity);
    }
    contents.check(&broker);
}

fn stop(broker: &mut Broker) {
    let status = broker.stop();
    assert!(status.success() || status.code() == Some(143), "{status}");
}

#[test]
fn kafka_takes_over_and_gives_back_after_clean_stops() {
    hand_over(Setup::under_test(), [Flavour::Kafka, Flavour::under_test()], stop);
}

#[test]
fn kafka_takes_over_and_gives_back_after_kills() {
    hand_over(Setup::under_test(), [Flavour::Kafka, Flavour::under_test()], Broker::kill);
}

#[test]
fn a_directory_that_kafka_began_is_carried_on() {
    hand_over(Setup::kafka(), [Flavour::under_test(), Flavour::Kafka], stop);
}

#[test]
fn a_directory_that_kafka_began_with_a_dynamic_quorum_is_carried_on() {
    hand_over(Setup::kafka().with_dynamic_quorum(), [Flavour::under_test(), Flavour::Kafka], stop);
}

#[tokio::test]
async fn a_producer_that_outlives_the_change_stores_every_record_once_and_in_order() {
    let mut broker = Setup::under_test().start();
    let topic = broker.create_topic("sequence", "");
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.bootstrap()).set("enable.idempotence", "true");
    let producer: FutureProducer = config.create().unwrap();
    let values: Vec<String> = (0..200).map(|n| format!("value {n:03}")).collect();
    let send = |value: &String| {
        let record = FutureRecord::<[u8], [u8]>::to(&topic).payload(value.as_bytes());
        producer.send_result(record).map_err(|(error, _)| error).unwrap()
    };
    let mut offsets = Vec::new();
    for value in &values[..100] {
        offsets.push(send(value).await.unwrap().unwrap().offset);
    }
    stop(&mut broker);
    let waiting: Vec<_> = values[100..].iter().map(send).collect();
    broker.start_as(Flavour::Kafka);
    for delivery in waiting {
        offsets.push(delivery.await.unwrap().unwrap().offset);
    }
    assert_eq!(offsets, (0..200).collect::<Vec<i64>>());
    assert_eq!(broker.consume_lines(&topic, values.len()), values);
}
