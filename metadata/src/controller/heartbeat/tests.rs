//! Unfencing, fencing and controlled shutdown of brokers.

use super::*;
use crate::controller::testing::{Testbed, directory, registration, uuid};

#[test]
fn a_broker_is_unfenced_once_it_has_read_its_own_registration() {
    let mut testbed = Testbed::with_brokers([]);
    testbed.register(registration(1));
    let epoch = testbed.controller.image().brokers.get(1).unwrap().epoch;
    let wants_fence = testbed.heartbeat(1, |heartbeat| heartbeat.want_fence = true);
    assert!(wants_fence.is_fenced && wants_fence.is_caught_up);
    let behind = testbed.heartbeat(1, |heartbeat| heartbeat.current_metadata_offset = epoch - 1);
    assert!(behind.is_fenced && !behind.is_caught_up);
    let caught_up = testbed.heartbeat(1, |heartbeat| heartbeat.current_metadata_offset = epoch);
    assert!(!caught_up.is_fenced && caught_up.is_caught_up && !caught_up.should_shut_down);
    assert!(testbed.controller.image().brokers.is_active(1));
    let before = testbed.log.len();
    testbed.heartbeat(1, |_| {});
    assert_eq!(testbed.log.len(), before, "nothing new, no record");
}

#[test]
fn a_heartbeat_of_another_life_is_refused() {
    let mut testbed = Testbed::with_brokers([1]);
    let stale = testbed.heartbeat(1, |heartbeat| heartbeat.broker_epoch += 1);
    assert_eq!(stale.error_code, ErrorCode::StaleBrokerEpoch.code());
    let unknown = testbed.heartbeat(1, |heartbeat| heartbeat.broker_id = 9);
    assert_eq!(unknown.error_code, ErrorCode::StaleBrokerEpoch.code());
}

#[test]
fn fencing_takes_a_broker_out_of_isrs_and_unfencing_elects_it_where_nobody_leads() {
    let mut testbed = Testbed::with_brokers([1, 2]);
    testbed.create("both", &[&[1, 2]], &[]);
    testbed.create("one", &[&[1]], &[]);
    testbed.fence(1);
    assert!(!testbed.controller.image().brokers.is_alive(1));
    assert_eq!(
        (testbed.partition("both", 0).leader, &*testbed.partition("both", 0).isr),
        (Some(2), &[2][..])
    );
    let alone = testbed.partition("one", 0);
    assert_eq!((alone.leader, &*alone.isr, &*alone.elr), (None, &[][..], &[1][..]));
    assert_eq!((&*alone.last_known_elr, alone.leader_epoch), (&[1][..], 1));
    testbed.heartbeat(1, |_| {});
    let back = testbed.partition("one", 0);
    assert_eq!((back.leader, &*back.isr, &*back.elr), (Some(1), &[1][..], &[][..]));
    assert_eq!(&*testbed.partition("both", 0).isr, &[2], "it must catch up first");
}

#[test]
fn a_broker_without_leaderships_stops_at_once() {
    let mut testbed = Testbed::with_brokers([1]);
    let answer = testbed.heartbeat(1, |heartbeat| heartbeat.want_shut_down = true);
    assert!(answer.should_shut_down && answer.is_fenced);
    let again = testbed.heartbeat(1, |heartbeat| heartbeat.want_shut_down = true);
    assert!(again.should_shut_down, "a fenced broker may always stop");
}

#[test]
fn a_late_heartbeat_does_not_unfence_a_broker_that_may_have_ended() {
    let mut testbed = Testbed::with_brokers([1]);
    testbed.heartbeat(1, |heartbeat| heartbeat.want_shut_down = true);
    let late = testbed.heartbeat(1, |_| {});
    assert!(late.is_fenced && !late.should_shut_down);
    assert!(!testbed.controller.image().brokers.is_alive(1));
    let mut next = registration(1);
    next.incarnation_id = uuid(77);
    testbed.register(next);
    assert!(!testbed.heartbeat(1, |_| {}).is_fenced, "the next process is another");
}

#[test]
fn a_leader_hands_over_and_stops_when_the_others_have_seen_it() {
    let mut testbed = Testbed::with_brokers([1, 2]);
    testbed.create("t", &[&[1, 2]], &[]);
    let answer = testbed.heartbeat(1, |heartbeat| heartbeat.want_shut_down = true);
    assert!(!answer.should_shut_down && !answer.is_fenced);
    assert!(testbed.controller.image().brokers.get(1).unwrap().in_controlled_shutdown);
    assert_eq!(testbed.partition("t", 0).leader, Some(2));
    let shutdown_offset = testbed.next_offset() - 1;
    testbed.heartbeat(2, |heartbeat| heartbeat.current_metadata_offset = shutdown_offset - 1);
    let waiting = testbed.heartbeat(1, |heartbeat| heartbeat.want_shut_down = true);
    assert!(!waiting.should_shut_down);
    testbed.heartbeat(2, |heartbeat| heartbeat.current_metadata_offset = shutdown_offset);
    let granted = testbed.heartbeat(1, |heartbeat| heartbeat.want_shut_down = true);
    assert!(granted.should_shut_down);
}

#[test]
fn the_only_leader_of_a_partition_stays_until_it_can_hand_over() {
    let mut testbed = Testbed::with_brokers([1]);
    testbed.create("t", &[&[1]], &[]);
    let answer = testbed.heartbeat(1, |heartbeat| heartbeat.want_shut_down = true);
    assert!(!answer.should_shut_down, "first the leadership is given up");
    assert_eq!(testbed.partition("t", 0).leader, None);
    let answer = testbed.heartbeat(1, |heartbeat| heartbeat.want_shut_down = true);
    assert!(answer.should_shut_down, "no other broker has to see it");
}

#[test]
fn failed_directories_move_leaderships_and_shrink_the_registration() {
    let mut testbed = Testbed::with_brokers([2]);
    let mut request = registration(1);
    request.log_dirs = vec![directory(1), uuid(50)];
    testbed.register(request);
    testbed.heartbeat(1, |_| {});
    testbed.create("t", &[&[1, 2]], &[]);
    let topic_id = testbed.controller.image().topics.by_name("t").unwrap().id;
    testbed.assign_directory(1, topic_id, 0, directory(1));
    testbed.heartbeat(1, |heartbeat| heartbeat.offline_log_dirs = vec![directory(1)]);
    assert_eq!(testbed.partition("t", 0).leader, Some(2));
    assert_eq!(testbed.controller.image().brokers.get(1).unwrap().directories, [uuid(50)]);
    let before = testbed.log.len();
    testbed.heartbeat(1, |heartbeat| heartbeat.offline_log_dirs = vec![directory(1)]);
    assert_eq!(testbed.log.len(), before, "known already");
}

#[test]
fn cordoned_directories_are_recorded_when_they_change() {
    let mut testbed = Testbed::with_brokers([1]);
    testbed.heartbeat(1, |heartbeat| heartbeat.cordoned_log_dirs = Some(Vec::new()));
    let before = testbed.log.len();
    testbed.heartbeat(1, |heartbeat| heartbeat.cordoned_log_dirs = Some(Vec::new()));
    assert_eq!(testbed.log.len(), before);
    testbed.heartbeat(1, |heartbeat| heartbeat.cordoned_log_dirs = Some(vec![directory(1)]));
    assert!(!testbed.controller.image().brokers.get(1).unwrap().has_uncordoned_dirs());
}
