//! What a group committed survives, and its members carry on.

use std::time::Duration;

use klamm_testbed::{Broker, Setup, unique, until};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaErrorCode;

use crate::load::{LIMIT, Load};

const POLL: Duration = Duration::from_millis(20);
const READ_BETWEEN_KILLS: i64 = 300;

/// A node that soon notices a member's death, or the tests would wait for that most of the time.
fn start() -> Broker {
    Setup::under_test().set("group.min.session.timeout.ms", "1000").start()
}

fn member(broker: &Broker, group: &str, topic: &str) -> BaseConsumer {
    let member: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("session.timeout.ms", "2000")
        .set("heartbeat.interval.ms", "200")
        .set("reconnect.backoff.max.ms", "100")
        .create()
        .unwrap();
    member.subscribe(&[topic]).unwrap();
    member
}

/// Whether a client that loses its broker for a while reports this and goes on.
fn passes(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure};
    matches!(error, KafkaError::MessageConsumption(AllBrokersDown | BrokerTransportFailure))
}

/// The offset of the next record, however long the broker is away in between.
#[track_caller]
fn next_offset(member: &BaseConsumer) -> i64 {
    until("the next record", LIMIT, || match member.poll(POLL)? {
        Ok(message) => Some(message.offset()),
        Err(error) if passes(&error) => None,
        Err(error) => panic!("{error}"),
    })
}

#[test]
fn a_member_reads_on_without_gap_or_repetition_while_the_broker_is_killed() {
    let mut broker = start();
    let load = Load::start(&broker, true);
    let group = unique("reading");
    let reader = member(&broker, &group, load.topic());
    let mut expected = 0;
    for _ in 0..3 {
        let goal = expected + READ_BETWEEN_KILLS;
        while expected < goal {
            assert_eq!(next_offset(&reader), expected);
            expected += 1;
        }
        reader.commit_consumer_state(CommitMode::Sync).unwrap();
        broker.kill();
        broker.start_again();
    }
    assert_eq!(next_offset(&reader), expected);
    load.finish(&broker);
}

#[test]
fn offsets_committed_before_a_kill_are_where_a_new_member_starts() {
    let mut broker = start();
    let load = Load::start(&broker, true);
    let group = unique("committing");
    for round in 0..3 {
        let reader = member(&broker, &group, load.topic());
        let first = next_offset(&reader);
        assert_eq!(first, round * READ_BETWEEN_KILLS);
        for offset in first + 1..first + READ_BETWEEN_KILLS {
            assert_eq!(next_offset(&reader), offset);
        }
        reader.commit_consumer_state(CommitMode::Sync).unwrap();
        broker.kill();
        drop(reader);
        broker.start_again();
    }
    let mut asked = TopicPartitionList::new();
    asked.add_partition(load.topic(), 0);
    let committed = member(&broker, &group, load.topic()).committed_offsets(asked, LIMIT).unwrap();
    let offset = committed.find_partition(load.topic(), 0).unwrap().offset();
    assert_eq!(offset.to_raw(), Some(3 * READ_BETWEEN_KILLS));
    load.finish(&broker);
}
