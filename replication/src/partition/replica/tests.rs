//! A replica's role, its high watermark and the waiters for it.

use super::*;
use crate::partition::fetch_check::FetchPosition;
use crate::partition::follower::{FetchedPartition, Follow};
use crate::{EpochHistory, OffsetAndEpoch};

/// A waiting fetch, by number; negative ones have ended.
#[derive(Debug, PartialEq, Eq)]
struct Fetch(i32);

impl FetchWaiter for Fetch {
    fn is_over(&self) -> bool {
        self.0 < 0
    }
}

type TestReplica = Replica<&'static str, Fetch>;

const CONSUMER: Reader = Reader::Consumer { read_committed: false, from_followers: false };
const FOLLOWER: Reader = Reader::Follower { id: 2, broker_epoch: None };

fn registration(leader_epoch: LeaderEpoch) -> Registration {
    Registration {
        leader_epoch,
        partition_epoch: leader_epoch,
        replicas: vec![1, 2],
        isr: vec![1, 2],
    }
}

fn config() -> LeaderConfig {
    LeaderConfig {
        broker_id: 1,
        min_insync_replicas: 1,
        replica_lag_time_max_ms: 1000,
        follower_silence_ms: 1000,
        flush_before_ack: true,
    }
}

fn ends(end: Offset) -> LogEnds {
    LogEnds { log_end_offset: end, flushed_offset: end }
}

fn status() -> BrokerStatus {
    BrokerStatus { broker_epoch: 7, fenced: false, in_controlled_shutdown: false }
}

fn lead(replica: &mut TestReplica, epoch: LeaderEpoch, end: Offset) -> Option<Offset> {
    let statuses = [(2, status())].into();
    replica.lead(config(), &registration(epoch), ends(end), &statuses, 0)
}

/// A leader of epoch 5 with so many records, none committed, and no pending effect.
fn leader(end: Offset) -> TestReplica {
    let mut replica = TestReplica::new(0);
    assert_eq!(lead(&mut replica, 5, end), Some(end));
    assert_eq!(effects(&mut replica), []);
    replica
}

fn effects(replica: &mut TestReplica) -> Vec<Effect<&'static str, Fetch>> {
    std::iter::from_fn(|| replica.poll_effect()).collect()
}

fn fetch(reader: Reader, fetch_offset: Offset) -> PartitionFetch {
    PartitionFetch {
        reader,
        current_leader_epoch: None,
        fetch_offset,
        last_fetched_epoch: None,
        log_start_offset: 0,
        now_ms: 0,
    }
}

const LOG: FetchedLog = FetchedLog { log_start_offset: 0, epoch_end: None };

fn read(
    replica: &mut TestReplica,
    fetch: PartitionFetch,
    waiter: Option<i32>,
) -> Result<(FetchPosition, Option<IsrProposal>), ErrorCode> {
    replica.on_fetch(&fetch, LOG, waiter.map(Fetch))
}

fn awaited(required_offset: Offset) -> Awaited {
    Awaited { required_offset, epoch: Some(5) }
}

#[test]
fn a_high_watermark_that_moves_is_told_with_everyone_who_waited_for_it() {
    let mut replica = leader(0);
    replica.on_appended(3, 0);
    replica.await_committed(3, "produce");
    assert!(read(&mut replica, fetch(CONSUMER, 0), Some(1)).is_ok());
    assert_eq!(effects(&mut replica), []);
    replica.on_flushed(3, 0);
    assert_eq!(effects(&mut replica), [], "the follower lacks the records");
    assert!(read(&mut replica, fetch(FOLLOWER, 3), Some(2)).is_ok());
    let expected = [Effect::SetHighWatermark(3), Effect::Finish("produce"), Effect::Wake(Fetch(1))];
    assert_eq!(effects(&mut replica), expected);
    assert!(replica.waiting_followers().eq(&[Fetch(2)]), "there is nothing to read for it");
    assert_eq!(replica.acknowledged(&awaited(3), Some(5)), Ok(true));
}

#[test]
fn a_produce_that_waits_for_what_is_committed_already_is_released_at_once() {
    let mut replica = leader(0);
    replica.on_appended(3, 0);
    replica.on_flushed(3, 0);
    assert!(read(&mut replica, fetch(FOLLOWER, 3), None).is_ok());
    assert_eq!(effects(&mut replica), [Effect::SetHighWatermark(3)]);
    replica.await_committed(2, "late");
    assert_eq!(effects(&mut replica), [Effect::Finish("late")]);
}

#[test]
fn an_append_wakes_the_fetches_of_followers_only() {
    let mut replica = leader(0);
    assert!(read(&mut replica, fetch(CONSUMER, 0), Some(1)).is_ok());
    assert!(read(&mut replica, fetch(FOLLOWER, 0), Some(2)).is_ok());
    replica.on_appended(1, 0);
    assert_eq!(effects(&mut replica), [Effect::Wake(Fetch(2))]);
}

#[test]
fn what_waits_is_released_with_the_role_and_never_acknowledged() {
    let mut replica = leader(0);
    replica.on_appended(3, 0);
    replica.await_committed(3, "produce");
    replica.await_flushed(3, "flush");
    replica.await_deletion(Fetch(3));
    assert!(read(&mut replica, fetch(CONSUMER, 0), Some(1)).is_ok());
    assert!(read(&mut replica, fetch(FOLLOWER, 0), Some(2)).is_ok());
    assert!(replica.follow(Some(2), &registration(6)));
    let finished = [Effect::Finish("produce"), Effect::Finish("flush")];
    let woken = [1, 2, 3].map(|fetch| Effect::Wake(Fetch(fetch)));
    assert_eq!(effects(&mut replica), finished.into_iter().chain(woken).collect::<Vec<_>>());
    let refused = Err(ErrorCode::NotLeaderOrFollower);
    assert_eq!(replica.acknowledged(&awaited(3), Some(5)), refused);
    // It leads again, and another record has the same offset.
    assert_eq!(lead(&mut replica, 7, 3), Some(3));
    assert_eq!(replica.acknowledged(&awaited(3), Some(6)), refused);
    replica.stop();
    assert_eq!(replica.acknowledged(&awaited(3), None), refused);
    assert_eq!(replica.check_append(false), Err(AppendRefused::NotLeader));
}

#[test]
#[should_panic(expected = "only a leader acknowledges")]
fn a_replica_without_a_role_takes_no_produce_that_waits() {
    TestReplica::new(0).await_committed(1, "produce");
}

#[test]
fn only_leaders_answer_and_consumers_may_be_sent_to_followers() {
    let mut replica = TestReplica::new(0);
    let near = Reader::Consumer { read_committed: false, from_followers: true };
    let refused = Err(ErrorCode::NotLeaderOrFollower);
    assert_eq!(read(&mut replica, fetch(near, 0), None), refused);
    replica.follow(Some(2), &registration(5));
    assert_eq!(read(&mut replica, fetch(near, 0), None), Ok((FetchPosition::Valid, None)));
    for reader in [CONSUMER, FOLLOWER, Reader::Debugger] {
        assert_eq!(read(&mut replica, fetch(reader, 0), None), refused, "{reader:?}");
    }
    let older = PartitionFetch { current_leader_epoch: Some(4), ..fetch(near, 0) };
    assert_eq!(read(&mut replica, older, None), Err(ErrorCode::FencedLeaderEpoch));
}

#[test]
fn a_replica_that_the_leader_does_not_know_is_refused() {
    let mut replica = leader(0);
    let stranger = Reader::Follower { id: 9, broker_epoch: None };
    let nameless = fetch(stranger, 0);
    assert_eq!(read(&mut replica, nameless, None), Err(ErrorCode::NotLeaderOrFollower));
    let named = PartitionFetch { current_leader_epoch: Some(5), ..nameless };
    assert_eq!(read(&mut replica, named, None), Err(ErrorCode::UnknownLeaderEpoch));
}

#[test]
fn a_fetch_that_diverges_or_is_outside_the_log_is_not_counted() {
    let mut replica = leader(10);
    let log = FetchedLog { log_start_offset: 4, epoch_end: Some(OffsetAndEpoch::new(6, 3)) };
    let diverging = PartitionFetch { last_fetched_epoch: Some(4), ..fetch(FOLLOWER, 10) };
    let (position, _) = replica.on_fetch(&diverging, log, None).unwrap();
    assert_eq!(position, FetchPosition::Diverging(OffsetAndEpoch::new(6, 3)));
    for outside in [3, 11] {
        let answer = replica.on_fetch(&fetch(FOLLOWER, outside), log, None);
        assert_eq!(answer, Err(ErrorCode::OffsetOutOfRange), "{outside}");
    }
    assert_eq!((replica.high_watermark(), effects(&mut replica)), (0, vec![]));
}

#[test]
fn a_consumer_is_told_of_no_end_before_the_epoch_has_committed_something() {
    let mut replica = leader(10);
    let ends = VisibleEnds { high_watermark: 0, last_stable_offset: 0, log_end_offset: 10 };
    let latest = replica.latest_offset(ListIsolation::ReadUncommitted, ends);
    assert_eq!(latest, Err(ErrorCode::OffsetNotAvailable));
    assert_eq!(replica.latest_offset(ListIsolation::None, ends), Ok((10, 5)));
    assert!(read(&mut replica, fetch(FOLLOWER, 10), None).is_ok());
    let ends = VisibleEnds { high_watermark: 10, last_stable_offset: 8, log_end_offset: 10 };
    assert_eq!(replica.latest_offset(ListIsolation::ReadUncommitted, ends), Ok((10, 5)));
    assert_eq!(replica.latest_offset(ListIsolation::ReadCommitted, ends), Ok((8, 5)));
}

#[test]
fn records_are_deleted_when_the_log_of_every_live_replica_begins_further_on() {
    let mut replica = leader(10);
    replica.await_deletion(Fetch(1));
    assert!(read(&mut replica, fetch(FOLLOWER, 10), None).is_ok());
    assert_eq!(replica.low_watermark(6), Ok(0));
    let moved = PartitionFetch { log_start_offset: 6, ..fetch(FOLLOWER, 10) };
    replica.await_deletion(Fetch(2));
    assert!(read(&mut replica, moved, None).is_ok());
    assert_eq!(replica.low_watermark(6), Ok(6));
    let woken = effects(&mut replica);
    assert!(woken.ends_with(&[Effect::Wake(Fetch(1)), Effect::Wake(Fetch(2))]), "{woken:?}");
}

fn answer(number: u64, high_watermark: Offset) -> FetchedPartition {
    FetchedPartition {
        error: ErrorCode::None,
        number,
        current_leader_epoch: 5,
        fetch_offset: 10,
        diverging: None,
        high_watermark,
        log_start_offset: 9,
    }
}

#[test]
fn a_follower_fetches_what_it_has_on_disk_and_from_somebody() {
    let mut replica = TestReplica::new(0);
    let epochs = EpochHistory::default();
    replica.follow(None, &registration(4));
    assert_eq!(replica.next_fetch(ends(10), true, &epochs), None);
    replica.follow(Some(2), &registration(5));
    let unflushed = LogEnds { flushed_offset: 9, ..ends(10) };
    assert_eq!(replica.next_fetch(unflushed, true, &epochs), None);
    assert!(replica.next_fetch(unflushed, false, &epochs).is_some());
    assert!(replica.next_fetch(ends(10), true, &epochs).is_some());
}

#[test]
fn a_follower_keeps_its_high_watermark_across_roles_and_loses_it_with_its_log() {
    let mut replica = TestReplica::new(3);
    replica.follow(Some(2), &registration(5));
    let fetch = replica.next_fetch(ends(10), true, &EpochHistory::default()).unwrap();
    let answer = answer(fetch.number, 8);
    let follow = replica.on_fetched(&answer, &EpochHistory::default(), 10);
    assert_eq!(follow, Some(Follow::Append { log_start_offset: 9 }));
    assert_eq!(replica.on_replicated(&answer, 12), 8, "not beyond what is committed");
    assert_eq!(effects(&mut replica), [Effect::SetHighWatermark(8)]);
    assert!(replica.may_cut(5) && !replica.may_cut(4));
    replica.on_cut(0, 6);
    assert_eq!(effects(&mut replica), [Effect::SetHighWatermark(6)]);
    assert_eq!(lead(&mut replica, 6, 6), Some(6));
    assert_eq!(replica.high_watermark(), 6);
    replica.stop();
    assert_eq!((replica.high_watermark(), effects(&mut replica)), (6, vec![]));
}

#[test]
fn an_answer_that_was_under_way_when_the_log_was_repaired_is_ignored() {
    let mut replica = TestReplica::new(0);
    replica.follow(Some(2), &registration(5));
    let fetch = replica.next_fetch(ends(10), true, &EpochHistory::default()).unwrap();
    assert!(!replica.on_repaired(4));
    assert!(replica.on_repaired(5));
    let answer = answer(fetch.number, 8);
    let follow = replica.on_fetched(&answer, &EpochHistory::default(), 10);
    assert_eq!(follow, Some(Follow::Ignore));
}

#[test]
fn produces_that_wait_for_a_silent_follower_are_given_up_when_the_controller_is_silent_too() {
    let mut replica = leader(3);
    replica.on_appended(4, 0);
    replica.on_flushed(4, 0);
    replica.await_committed(4, "produce");
    for _ in 0..20 {
        assert_eq!(replica.on_silence_check(true, 0), None, "two replicas have no majority of one");
        assert_eq!(effects(&mut replica), []);
    }
    assert!(replica.is_stalled(0));
    assert_eq!(replica.on_silence_check(false, 0), None);
    assert_eq!(effects(&mut replica), [Effect::Finish("produce")]);
    assert_eq!(replica.acknowledged(&Awaited { required_offset: 4, epoch: None }, None), Ok(false));
}
