//! What was acknowledged to a producer survives.

use std::collections::BTreeSet;

use klamm_testbed::{Broker, Setup};

use crate::load::{Load, partition};

const BATCHES_OF_ACKNOWLEDGEMENTS: usize = 1_000;

/// Runs a load while the node is ended and started three times, and returns the values that were stored.
#[track_caller]
fn survive(mut broker: Broker, idempotent: bool, end: fn(&mut Broker)) -> Vec<String> {
    let load = Load::start(&broker, idempotent);
    for _ in 0..3 {
        load.until_acknowledged(BATCHES_OF_ACKNOWLEDGEMENTS);
        end(&mut broker);
        broker.start_again();
    }
    load.until_acknowledged(BATCHES_OF_ACKNOWLEDGEMENTS);
    load.finish(&broker)
}

fn stop(broker: &mut Broker) {
    broker.stop();
}

/// The idempotent producer's promise: every value once, in the order of sending.
#[track_caller]
fn assert_once_and_in_order(values: &[String]) {
    for (n, value) in values.iter().enumerate() {
        assert_eq!(*value, n.to_string());
    }
}

#[test]
fn an_idempotent_producer_loses_and_repeats_nothing_over_kills() {
    assert_once_and_in_order(&survive(Broker::start(), true, Broker::kill));
}

#[test]
fn an_idempotent_producer_loses_and_repeats_nothing_over_restarts() {
    assert_once_and_in_order(&survive(Broker::start(), true, stop));
}

#[test]
fn a_plain_producer_loses_nothing_over_kills_while_segments_roll() {
    let broker = Setup::under_test().set("log.roll.ms", "200").start();
    let values = survive(broker, false, Broker::kill);
    let distinct: BTreeSet<usize> = values.iter().map(|value| value.parse().unwrap()).collect();
    assert_eq!(distinct.last(), Some(&(distinct.len() - 1)), "no value is missing");
}

#[test]
fn a_new_producer_after_a_kill_is_not_taken_for_an_old_one() {
    let mut broker = Broker::start();
    for _ in 0..2 {
        let load = Load::start(&broker, true);
        load.until_acknowledged(100);
        let topic = load.topic().to_owned();
        let before = load.finish(&broker);
        broker.kill();
        broker.start_again();
        let values = partition(&broker, &topic);
        assert_eq!(values, before);
        assert_once_and_in_order(&values);
    }
}

#[test]
fn topics_and_configs_acknowledged_before_a_kill_are_there_after_it() {
    let mut broker = Broker::start();
    let topics: Vec<String> =
        (0..5).map(|_| broker.create_topic("kept", "--partitions 3")).collect();
    let gone = broker.create_topic("gone", "");
    broker.tool(&format!("kafka-topics --delete --topic {gone}")).ok();
    let alter = format!(
        "kafka-configs --alter --entity-type topics --entity-name {} --add-config retention.ms=77",
        topics[0]
    );
    broker.tool(&alter).ok();
    broker.kill();
    broker.start_again();
    let listed = broker.tool("kafka-topics --list").ok();
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    assert_eq!(listed, topics);
    let described = broker.tool(&format!("kafka-topics --describe --topic {}", topics[0])).ok();
    assert!(described.contains("PartitionCount: 3"), "{described}");
    assert!(described.contains("retention.ms=77"), "{described}");
}
