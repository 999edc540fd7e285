//! The periodic tasks.

use super::*;
use crate::controller::testing::Testbed;

/// Runs all due tasks; returns the types of the records.
fn tick(testbed: &mut Testbed) -> Vec<i16> {
    let before = testbed.log.len();
    while let Some(outcome) = testbed.controller.on_tick(testbed.now_ms) {
        testbed.apply(outcome);
    }
    testbed.log[before..].iter().map(MetadataRecord::api_key).collect()
}

#[test]
fn an_idle_controller_writes_a_no_op_record_every_half_second() {
    let mut testbed = Testbed::new(&[]);
    assert_eq!(testbed.controller.next_tick_ms(), Some(1_500));
    testbed.now_ms = 1_499;
    assert_eq!(tick(&mut testbed), []);
    testbed.now_ms = 1_500;
    assert_eq!(tick(&mut testbed), [20]);
    assert_eq!(testbed.controller.next_tick_ms(), Some(2_000));
    testbed.controller.on_resigned();
    assert_eq!((testbed.controller.next_tick_ms(), tick(&mut testbed)), (None, Vec::new()));
}

#[test]
fn a_broker_that_says_nothing_is_fenced_after_its_session() {
    let mut testbed = Testbed::with_brokers([1, 2]);
    testbed.create("t", &[&[1, 2]], &[]);
    testbed.now_ms += 5_000;
    testbed.heartbeat(2, |_| {});
    testbed.now_ms += 3_999;
    tick(&mut testbed);
    assert!(testbed.controller.image().brokers.is_alive(1));
    testbed.now_ms += 1;
    tick(&mut testbed);
    assert!(!testbed.controller.image().brokers.is_alive(1));
    assert!(testbed.controller.image().brokers.is_alive(2));
    assert_eq!(testbed.partition("t", 0).leader, Some(2));
    assert_eq!(tick(&mut testbed), [], "once");
}

/// An Apache Kafka broker sends heartbeats every 10 ms while it starts, at once when it is ready, and every two seconds
/// from then on.
#[test]
fn a_broker_that_was_quick_while_it_started_is_not_fenced_before_its_next_heartbeat() {
    let mut testbed = Testbed::with_brokers([1, 2]);
    for _ in 0..10 {
        testbed.now_ms += 10;
        testbed.heartbeat(1, |request| request.want_fence = true);
    }
    assert!(!testbed.controller.image().brokers.is_alive(1));
    testbed.now_ms += 10;
    testbed.heartbeat(1, |_| {});
    for pause_ms in [1_200, 800, 9_000 - 1] {
        testbed.now_ms += pause_ms;
        tick(&mut testbed);
        assert!(testbed.controller.image().brokers.is_alive(1), "{pause_ms}");
        if pause_ms == 800 {
            testbed.heartbeat(1, |_| {});
        }
    }
}

#[test]
fn the_broker_on_the_node_that_led_before_is_fenced_unless_it_is_heard_from_soon() {
    for is_heard_from in [false, true] {
        let mut testbed = Testbed::with_brokers([1, 2]);
        testbed.create("t", &[&[1, 2]], &[]);
        testbed.controller.on_node_lost(1, testbed.now_ms);
        // A lost node that is not a broker is ignored.
        testbed.controller.on_node_lost(77, testbed.now_ms);
        testbed.now_ms += 99;
        tick(&mut testbed);
        assert!(testbed.controller.image().brokers.is_alive(1));
        if is_heard_from {
            testbed.heartbeat(1, |_| {});
        }
        testbed.now_ms += 1;
        tick(&mut testbed);
        assert_eq!(testbed.controller.image().brokers.is_alive(1), is_heard_from);
    }
}

#[test]
fn leaders_go_back_to_their_preferred_brokers() {
    let mut testbed = Testbed::with_brokers([1, 2]);
    testbed.create("t", &[&[1, 2]], &[]);
    testbed.fence(1);
    testbed.heartbeat(1, |_| {});
    // The follower has caught up.
    let topic = testbed.controller.image().topics.by_name("t").unwrap();
    let partition = topic.partition(0).unwrap();
    let record = testbed.controller.changed_by_request(topic, 0, partition, |change| {
        change.isr = vec![1, 2];
    });
    testbed.apply(Outcome::spread(record.into_iter().collect(), ()));
    assert_eq!(testbed.partition("t", 0).leader, Some(2));
    testbed.now_ms += 300_000;
    for id in [1, 2] {
        testbed.heartbeat(id, |_| {});
    }
    tick(&mut testbed);
    assert_eq!(testbed.partition("t", 0).leader, Some(1));
}

#[test]
fn a_leaderless_partition_gets_an_unclean_leader_where_that_is_allowed() {
    let mut testbed = Testbed::new(&[]);
    [1, 2].into_iter().for_each(|id| testbed.add_broker(id));
    for topic in ["keep", "lose"] {
        testbed.create(topic, &[&[1, 2]], &[]);
    }
    testbed.fence(2);
    testbed.fence(1);
    testbed.heartbeat(2, |_| {});
    assert_eq!(testbed.partition("lose", 0).leader, None);
    testbed.set_config("lose", "unclean.leader.election.enable", "true");
    testbed.now_ms += 300_000;
    testbed.heartbeat(2, |_| {});
    tick(&mut testbed);
    assert_eq!(
        (testbed.partition("lose", 0).leader, testbed.partition("keep", 0).leader),
        (Some(2), None)
    );
}
