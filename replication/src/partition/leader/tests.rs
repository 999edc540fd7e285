//! The leader's results for appends, flushes, fetches, proposals and metadata.

use super::*;

const LAG_MS: i64 = 30_000;
const SILENCE_MS: i64 = 1_000;

fn config() -> LeaderConfig {
    LeaderConfig {
        broker_id: 1,
        min_insync_replicas: 1,
        replica_lag_time_max_ms: LAG_MS,
        follower_silence_ms: SILENCE_MS,
        flush_before_ack: true,
    }
}

fn registration(replicas: &[BrokerId], isr: &[BrokerId]) -> Registration {
    Registration {
        leader_epoch: 5,
        partition_epoch: 7,
        replicas: replicas.to_vec(),
        isr: isr.to_vec(),
    }
}

fn ends(log_end_offset: Offset, flushed_offset: Offset) -> LogEnds {
    LogEnds { log_end_offset, flushed_offset }
}

fn statuses() -> BTreeMap<BrokerId, BrokerStatus> {
    let unfenced =
        |broker_epoch| BrokerStatus { broker_epoch, fenced: false, in_controlled_shutdown: false };
    BTreeMap::from([(2, unfenced(20)), (3, unfenced(30)), (4, unfenced(40))])
}

fn leader_of(replicas: &[BrokerId], isr: &[BrokerId], end: Offset) -> LeaderState {
    let registration = registration(replicas, isr);
    LeaderState::new(config(), &registration, ends(end, end), 0, &statuses(), 0)
}

fn fetch(follower: BrokerId, fetch_offset: Offset) -> FollowerFetch {
    FollowerFetch {
        follower,
        broker_epoch: Some(i64::from(follower) * 10),
        current_leader_epoch: Some(5),
        fetch_offset,
        log_start_offset: 0,
        now_ms: 1000,
    }
}

fn high_watermark(leader: &mut LeaderState, fetch: FollowerFetch) -> Option<Offset> {
    leader.on_follower_fetch(fetch).unwrap().high_watermark
}

#[test]
fn a_single_replica_commits_what_it_has_flushed() {
    let mut leader = leader_of(&[1], &[1], 0);
    assert_eq!(leader.on_appended(3, 0), None);
    assert_eq!(leader.acks_state(3), AcksState::Waiting);
    assert_eq!(leader.on_flushed(2, 0), Some(2));
    assert_eq!(leader.on_flushed(3, 0), Some(3));
    assert_eq!(leader.acks_state(3), AcksState::Replicated);
}

#[test]
fn without_flush_before_ack_a_single_replica_commits_what_it_has_appended() {
    let unflushed = LeaderConfig { flush_before_ack: false, ..config() };
    let registration = registration(&[1], &[1]);
    let mut leader = LeaderState::new(unflushed, &registration, ends(4, 0), 0, &statuses(), 0);
    assert_eq!(leader.high_watermark(), 4);
    assert_eq!(leader.on_appended(6, 0), Some(6));
    assert_eq!(leader.on_config(config(), 0), None);
    assert_eq!(leader.on_appended(9, 0), None);
    assert_eq!(leader.on_flushed(8, 0), Some(8));
    assert_eq!(leader.on_config(unflushed, 0), Some(9));
}

#[test]
fn an_elected_single_replica_has_committed_its_log_at_once() {
    let leader = leader_of(&[1], &[1], 8);
    assert_eq!((leader.high_watermark(), leader.epoch_start_offset()), (8, 8));
    assert_eq!(leader.check_offsets_available(), Ok(()));
}

#[test]
fn a_checkpointed_high_watermark_beyond_the_log_is_cut_to_what_is_on_disk() {
    let registration = registration(&[1], &[1]);
    let leader = LeaderState::new(config(), &registration, ends(9, 6), 20, &statuses(), 0);
    assert_eq!(leader.high_watermark(), 6);
}

#[test]
fn high_watermark_waits_for_the_slowest_in_sync_follower() {
    let mut leader = leader_of(&[1, 2, 3], &[1, 2, 3], 10);
    assert_eq!(high_watermark(&mut leader, fetch(2, 10)), None);
    assert_eq!(high_watermark(&mut leader, fetch(3, 7)), Some(7));
    assert_eq!(leader.on_follower_fetch(fetch(3, 11)), Err(ErrorCode::OffsetOutOfRange));
    assert_eq!(high_watermark(&mut leader, fetch(3, 10)), Some(10));
}

#[test]
fn the_leaders_own_unflushed_records_are_not_committed_by_its_followers() {
    let mut leader = leader_of(&[1, 2], &[1, 2], 0);
    leader.on_appended(5, 0);
    assert_eq!(high_watermark(&mut leader, fetch(2, 5)), None);
    assert_eq!(leader.on_flushed(4, 0), Some(4));
}

#[test]
fn a_follower_outside_the_isr_that_lags_is_not_waited_for() {
    let mut leader = leader_of(&[1, 2, 3], &[1, 2], 10);
    let late = FollowerFetch { now_ms: LAG_MS + 1, ..fetch(2, 10) };
    assert_eq!(high_watermark(&mut leader, late), Some(10));
}

#[test]
fn a_follower_that_the_controller_has_taken_out_is_not_waited_for_until_it_fetches_again() {
    let mut leader = leader_of(&[1, 2, 3], &[1, 2, 3], 10);
    leader.on_follower_fetch(fetch(2, 10)).unwrap();
    assert_eq!(high_watermark(&mut leader, fetch(3, 10)), Some(10));
    let without = Registration { partition_epoch: 9, ..registration(&[1, 2, 3], &[1, 3]) };
    leader.on_registration(&without, &statuses(), 1000);
    let now_ms = LAG_MS + 500;
    leader.on_appended(12, now_ms);
    leader.on_flushed(12, now_ms);
    let other = FollowerFetch { now_ms, ..fetch(3, 12) };
    assert_eq!(high_watermark(&mut leader, other), Some(12));
    leader.on_follower_fetch(fetch(2, 12)).unwrap();
    assert!(leader.isr().pending().is_some(), "it may join again");
}

#[test]
fn a_caught_up_follower_that_may_join_is_waited_for() {
    let mut leader = leader_of(&[1, 2, 3], &[1, 2], 10);
    leader.on_follower_fetch(fetch(3, 10)).unwrap();
    let rejected = leader.isr().pending().unwrap().clone();
    leader.on_proposal_answered(&rejected, Err(ErrorCode::OperationNotAttempted), 1000);
    leader.on_appended(12, 1000);
    leader.on_flushed(12, 1000);
    assert_eq!(high_watermark(&mut leader, fetch(2, 12)), Some(10));
    let fenced = BrokerStatus { fenced: true, ..statuses()[&3] };
    leader.on_broker_status(3, Some(fenced));
    assert_eq!(high_watermark(&mut leader, fetch(2, 12)), Some(12));
}

#[test]
fn the_high_watermark_stands_still_below_min_insync_replicas() {
    let strict = LeaderConfig { min_insync_replicas: 2, ..config() };
    let alone = registration(&[1, 2, 3], &[1]);
    let mut leader = LeaderState::new(strict, &alone, ends(5, 5), 0, &statuses(), 0);
    assert_eq!(leader.on_flushed(5, LAG_MS + 1), None);
    let error = leader.check_min_isr().unwrap_err();
    assert_eq!((error.code(), error.required), (ErrorCode::NotEnoughReplicas, 2));
    assert!(leader.is_under_min_isr());
}

#[test]
fn min_insync_replicas_never_asks_for_more_than_there_are_replicas() {
    let strict = LeaderConfig { min_insync_replicas: 3, ..config() };
    let registration = registration(&[1], &[1]);
    let leader = LeaderState::new(strict, &registration, ends(5, 5), 0, &statuses(), 0);
    assert_eq!(leader.check_min_isr(), Ok(()));
    assert_eq!(leader.acks_state(5), AcksState::Replicated);
}

#[test]
fn an_append_that_outlives_its_isr_is_told_so() {
    let strict = LeaderConfig { min_insync_replicas: 2, ..config() };
    let both = registration(&[1, 2], &[1, 2]);
    let mut leader = LeaderState::new(strict, &both, ends(5, 5), 0, &statuses(), 0);
    assert_eq!(high_watermark(&mut leader, fetch(2, 5)), Some(5));
    let alone = Registration { partition_epoch: 8, ..registration(&[1, 2], &[1]) };
    leader.on_registration(&alone, &statuses(), 0);
    assert_eq!(leader.acks_state(5), AcksState::NotEnoughReplicas);
    assert_eq!(leader.acks_state(6), AcksState::Waiting);
}

#[test]
fn a_pending_expansion_holds_the_high_watermark_back() {
    // R7: the controller may have committed the expansion already.
    let mut leader = leader_of(&[1, 2], &[1], 10);
    let proposal = leader.on_follower_fetch(fetch(2, 10)).unwrap().proposal.unwrap();
    assert_eq!(proposal.new_isr, [(1, None), (2, Some(20))]);
    assert_eq!((proposal.leader_epoch, proposal.partition_epoch), (5, 7));
    leader.on_appended(12, LAG_MS * 2);
    assert_eq!(leader.on_flushed(12, LAG_MS * 2), None);
    assert_eq!(leader.high_watermark(), 10);
    let committed = CommittedIsr { leader_epoch: 5, partition_epoch: 8, isr: [1, 2].into() };
    let (outcome, moved) = leader.on_proposal_answered(&proposal, Ok(committed), LAG_MS * 2);
    assert_eq!((outcome, moved), (ProposalOutcome::Committed, None));
    assert_eq!(high_watermark(&mut leader, fetch(2, 12)), Some(12));
}

#[test]
fn a_pending_shrink_takes_effect_only_when_committed() {
    let mut leader = leader_of(&[1, 2], &[1, 2], 10);
    assert_eq!(leader.on_isr_check(LAG_MS), None);
    let proposal = leader.on_isr_check(LAG_MS + 1).unwrap();
    assert_eq!(proposal.change, IsrChange::Shrink([2].into()));
    assert_eq!(leader.on_isr_check(LAG_MS + 1), None);
    assert_eq!(leader.high_watermark(), 0);
    let committed = CommittedIsr { leader_epoch: 5, partition_epoch: 8, isr: [1].into() };
    let (outcome, moved) = leader.on_proposal_answered(&proposal, Ok(committed), LAG_MS + 1);
    assert_eq!((outcome, moved), (ProposalOutcome::Committed, Some(10)));
    assert_eq!(leader.partition_epoch(), 8);
}

#[test]
fn a_follower_joins_only_from_the_start_of_the_epoch_on() {
    let mut leader = leader_of(&[1, 2], &[1], 10);
    let below = leader.on_follower_fetch(fetch(2, 9)).unwrap();
    assert_eq!(below.proposal, None);
    let reached = leader.on_follower_fetch(fetch(2, 10)).unwrap();
    assert!(reached.proposal.is_some());
}

#[test]
fn a_follower_that_is_fenced_leaving_or_another_incarnation_is_not_proposed() {
    // R5 and R6.
    let unfit = [
        BrokerStatus { fenced: true, ..statuses()[&2] },
        BrokerStatus { in_controlled_shutdown: true, ..statuses()[&2] },
        BrokerStatus { broker_epoch: 19, ..statuses()[&2] },
    ];
    for status in unfit.map(Some).into_iter().chain([None]) {
        let mut leader = leader_of(&[1, 2], &[1], 10);
        leader.on_broker_status(2, status);
        assert_eq!(leader.on_follower_fetch(fetch(2, 10)).unwrap().proposal, None, "{status:?}");
    }
    let mut leader = leader_of(&[1, 2], &[1], 10);
    let nameless = FollowerFetch { broker_epoch: None, ..fetch(2, 10) };
    assert!(leader.on_follower_fetch(nameless).unwrap().proposal.is_some());
}

#[test]
fn fetches_of_the_wrong_epoch_replica_or_incarnation_are_refused_and_not_counted() {
    let mut leader = leader_of(&[1, 2], &[1, 2], 10);
    let cases = [
        (
            FollowerFetch { current_leader_epoch: Some(4), ..fetch(2, 10) },
            ErrorCode::FencedLeaderEpoch,
        ),
        (
            FollowerFetch { current_leader_epoch: Some(6), ..fetch(2, 10) },
            ErrorCode::UnknownLeaderEpoch,
        ),
        (fetch(9, 10), ErrorCode::UnknownLeaderEpoch),
        (
            FollowerFetch { current_leader_epoch: None, ..fetch(9, 10) },
            ErrorCode::NotLeaderOrFollower,
        ),
        (FollowerFetch { broker_epoch: Some(19), ..fetch(2, 10) }, ErrorCode::NotLeaderOrFollower),
    ];
    for (fetch, expected) in cases {
        assert_eq!(leader.on_follower_fetch(fetch), Err(expected), "{fetch:?}");
    }
    assert_eq!(leader.high_watermark(), 0);
}

#[test]
fn a_new_epoch_of_the_same_leader_starts_at_the_log_end_and_keeps_the_high_watermark() {
    let mut leader = leader_of(&[1, 2], &[1, 2], 10);
    high_watermark(&mut leader, fetch(2, 8));
    let newer =
        Registration { leader_epoch: 6, partition_epoch: 8, ..registration(&[1, 2], &[1, 2]) };
    assert_eq!(leader.on_registration(&newer, &statuses(), 0), Some(10));
    assert_eq!(leader.high_watermark(), 8);
    assert_eq!(leader.check_offsets_available(), Err(ErrorCode::OffsetNotAvailable));
    let next = FollowerFetch { current_leader_epoch: Some(6), ..fetch(2, 10) };
    assert_eq!(high_watermark(&mut leader, next), Some(10));
    assert_eq!(leader.check_offsets_available(), Ok(()));
}

#[test]
fn after_a_missed_epoch_a_follower_counts_only_from_its_next_fetch_on() {
    let mut leader = leader_of(&[1, 2], &[1, 2], 10);
    high_watermark(&mut leader, fetch(2, 8));
    leader.on_appended(12, 0);
    leader.on_flushed(12, 0);
    assert_eq!(high_watermark(&mut leader, fetch(2, 10)), Some(10));
    // This broker never got epoch 6, in which the follower may have truncated its log to 8.
    let newer =
        Registration { leader_epoch: 7, partition_epoch: 9, ..registration(&[1, 2], &[1, 2]) };
    leader.on_registration(&newer, &statuses(), 0);
    leader.on_appended(13, 0);
    assert_eq!(leader.on_flushed(13, 0), None);
    let (_, follower) = leader.followers().next().unwrap();
    assert_eq!(follower.log_end_offset, None);
    let next = FollowerFetch { current_leader_epoch: Some(7), ..fetch(2, 12) };
    assert_eq!(high_watermark(&mut leader, next), Some(12));
}

#[test]
fn an_older_registration_than_the_controllers_answer_is_passed_over() {
    // R4: the answer to AlterPartition overtakes the metadata.
    let mut leader = leader_of(&[1, 2], &[1], 10);
    let proposal = leader.on_follower_fetch(fetch(2, 10)).unwrap().proposal.unwrap();
    let committed = CommittedIsr { leader_epoch: 5, partition_epoch: 8, isr: [1, 2].into() };
    leader.on_proposal_answered(&proposal, Ok(committed), 0);
    assert_eq!(leader.on_registration(&registration(&[1, 2], &[1]), &statuses(), 0), None);
    assert_eq!(leader.isr().isr().len(), 2);
}

#[test]
fn metadata_that_repeat_an_answer_do_not_forget_the_next_proposal() {
    // Found by the cluster simulation: the high watermark passed a replica that was joining.
    let mut leader = leader_of(&[1, 2, 3], &[1], 10);
    let first = leader.on_follower_fetch(fetch(2, 10)).unwrap().proposal.unwrap();
    let committed = CommittedIsr { leader_epoch: 5, partition_epoch: 8, isr: [1, 2].into() };
    leader.on_proposal_answered(&first, Ok(committed), 0);
    let second = leader.on_follower_fetch(fetch(3, 10)).unwrap().proposal.unwrap();
    let repeated = Registration { partition_epoch: 8, ..registration(&[1, 2, 3], &[1, 2]) };
    assert_eq!(leader.on_registration(&repeated, &statuses(), 0), None);
    assert_eq!(leader.isr().pending(), Some(&second));
    assert!(leader.isr().is_in_maximal_isr(3));
}

#[test]
fn an_answer_of_another_epoch_does_not_change_the_isr() {
    let mut leader = leader_of(&[1, 2], &[1], 10);
    let proposal = leader.on_follower_fetch(fetch(2, 10)).unwrap().proposal.unwrap();
    let stale = CommittedIsr { leader_epoch: 4, partition_epoch: 8, isr: [1, 2].into() };
    let (outcome, _) = leader.on_proposal_answered(&proposal, Ok(stale), 0);
    assert_eq!(outcome, ProposalOutcome::AwaitMetadata);
    assert_eq!((leader.isr().isr().len(), leader.isr().maximal_len()), (1, 2));
}

#[test]
fn a_removed_replica_is_forgotten_and_the_low_watermark_is_that_of_live_replicas() {
    let mut leader = leader_of(&[1, 2, 3], &[1, 2, 3], 10);
    leader.on_follower_fetch(FollowerFetch { log_start_offset: 4, ..fetch(2, 10) }).unwrap();
    leader.on_follower_fetch(FollowerFetch { log_start_offset: 2, ..fetch(3, 10) }).unwrap();
    assert_eq!(leader.low_watermark(6), 2);
    let fewer = Registration { partition_epoch: 8, ..registration(&[1, 2], &[1, 2]) };
    leader.on_registration(&fewer, &statuses(), 0);
    assert_eq!(leader.low_watermark(6), 4);
    leader.on_broker_status(2, None);
    assert_eq!(leader.low_watermark(6), 6);
}

/// Broker 1 leads; 2 and 3 are in sync at offsets 10 and 8, 4 is not in sync.
fn leader_with_readers() -> LeaderState {
    let mut leader = leader_of(&[1, 2, 3, 4], &[1, 2, 3], 10);
    for (follower, fetch_offset) in [(2, 10), (3, 8), (4, 9)] {
        leader.on_follower_fetch(fetch(follower, fetch_offset)).unwrap();
    }
    leader
}

#[test]
fn the_near_replica_that_has_come_furthest_is_preferred() {
    let leader = leader_with_readers();
    let preferred =
        |offset, near: &dyn Fn(BrokerId) -> bool| leader.preferred_read_replica(offset, near);
    assert_eq!(preferred(5, &|_| true), Some(2));
    assert_eq!(preferred(5, &|id| id != 2), Some(3));
    assert_eq!(preferred(9, &|id| id != 2), None, "3 does not hold the offset, 4 lags");
    assert_eq!(preferred(5, &|_| false), None);
}

#[test]
fn a_fenced_replica_is_not_preferred() {
    let mut leader = leader_with_readers();
    let fenced = BrokerStatus { fenced: true, ..statuses()[&2] };
    leader.on_broker_status(2, Some(fenced));
    assert_eq!(leader.preferred_read_replica(5, |_| true), Some(3));
}

/// A leader of three replicas that all have `end` records, with one more record that nobody has fetched.
fn leader_with_news(isr: &[BrokerId], end: Offset) -> LeaderState {
    let mut leader = leader_of(&[1, 2, 3], isr, end);
    for follower in [2, 3] {
        leader.on_follower_fetch(fetch(follower, end)).unwrap();
    }
    leader.on_appended(end + 1, 1000);
    leader.on_flushed(end + 1, 1000);
    leader
}

/// The first proposal within this many checks, and how many there were before it.
fn first_proposal(leader: &mut LeaderState, checks: i64) -> Option<(i64, IsrProposal)> {
    (0..checks).find_map(|check| Some((check, leader.on_silence_check(1000)?)))
}

#[test]
fn a_follower_that_is_silent_while_a_record_waits_for_it_leaves_the_isr_within_a_second() {
    let mut leader = leader_with_news(&[1, 2, 3], 5);
    assert!(leader.is_held_back());
    leader.on_follower_fetch(fetch(2, 6)).unwrap();
    let (checks, proposal) = first_proposal(&mut leader, 100).unwrap();
    assert_eq!(checks, i64::from(SILENCE_CHECKS));
    assert_eq!(proposal.change, IsrChange::Shrink([3].into()));
    assert_eq!(leader.high_watermark(), 5, "what is not decided does not count");
    let committed = CommittedIsr { leader_epoch: 5, partition_epoch: 8, isr: [1, 2].into() };
    let answered = leader.on_proposal_answered(&proposal, Ok(committed), 2200);
    assert_eq!(answered, (ProposalOutcome::Committed, Some(6)));
    assert!(!leader.is_held_back());
}

#[test]
fn a_follower_that_gets_further_is_not_silent_however_far_behind_it_is() {
    let mut leader = leader_with_news(&[1, 2, 3], 5);
    leader.on_follower_fetch(fetch(2, 6)).unwrap();
    for end in 7..100 {
        leader.on_appended(end + 100, 1000);
        leader.on_flushed(end + 100, 1000);
        leader.on_follower_fetch(fetch(2, end)).unwrap();
        leader.on_follower_fetch(fetch(3, end - 1)).unwrap();
        assert_eq!(first_proposal(&mut leader, 9), None);
    }
}

#[test]
fn a_follower_that_fetches_the_same_offset_again_and_again_is_silent() {
    let mut leader = leader_with_news(&[1, 2, 3], 5);
    leader.on_follower_fetch(fetch(2, 6)).unwrap();
    let proposed = (0..100).find_map(|_| {
        leader.on_follower_fetch(fetch(3, 5)).unwrap();
        leader.on_silence_check(1000)
    });
    assert_eq!(proposed.unwrap().change, IsrChange::Shrink([3].into()));
}

#[test]
fn a_follower_is_not_blamed_while_nothing_waits_for_it() {
    let mut leader = leader_of(&[1, 2, 3], &[1, 2, 3], 5);
    for follower in [2, 3] {
        leader.on_follower_fetch(fetch(follower, 5)).unwrap();
    }
    assert!(!leader.is_held_back());
    // Nor for what the leader itself has not synced yet.
    leader.on_appended(6, 1000);
    assert!(!leader.is_held_back());
    assert_eq!(first_proposal(&mut leader, 100), None);
}

#[test]
fn silence_costs_neither_a_majority_nor_min_insync_replicas() {
    let mut both_silent = leader_with_news(&[1, 2, 3], 5);
    assert_eq!(first_proposal(&mut both_silent, 100), None);
    let mut two_in_sync = leader_with_news(&[1, 2], 5);
    assert_eq!(first_proposal(&mut two_in_sync, 100), None);
    let mut all_needed = leader_with_news(&[1, 2, 3], 5);
    all_needed.on_config(LeaderConfig { min_insync_replicas: 3, ..config() }, 1000);
    all_needed.on_follower_fetch(fetch(2, 6)).unwrap();
    assert_eq!(first_proposal(&mut all_needed, 100), None);
}

#[test]
fn a_follower_that_was_about_to_join_and_is_silent_holds_back_nothing_for_long() {
    let mut leader = leader_of(&[1, 2, 3], &[1, 2], 5);
    leader.on_follower_fetch(fetch(2, 5)).unwrap();
    let proposal = leader.on_follower_fetch(fetch(3, 5)).unwrap().proposal.unwrap();
    let refused = Err(ErrorCode::IneligibleReplica);
    assert_eq!(leader.on_proposal_answered(&proposal, refused, 1000).0, ProposalOutcome::Rejected);
    leader.on_appended(6, 1000);
    leader.on_flushed(6, 1000);
    leader.on_follower_fetch(fetch(2, 6)).unwrap();
    assert_eq!(leader.high_watermark(), 5);
    assert_eq!(first_proposal(&mut leader, 12), None);
    assert_eq!(leader.high_watermark(), 6);
}

/// Removes follower 3 for its silence at this time, and lets it catch up; returns whether it may join at once.
fn rejoins_after_silence(leader: &mut LeaderState, partition_epoch: i32, now_ms: i64) -> bool {
    let end = leader.ends.log_end_offset + 1;
    leader.on_appended(end, now_ms);
    leader.on_flushed(end, now_ms);
    leader.on_follower_fetch(FollowerFetch { now_ms, ..fetch(2, end) }).unwrap();
    let proposed = (0..100).find_map(|_| leader.on_silence_check(now_ms)).unwrap();
    let committed = CommittedIsr { leader_epoch: 5, partition_epoch, isr: [1, 2].into() };
    leader.on_proposal_answered(&proposed, Ok(committed), now_ms);
    leader.on_follower_fetch(FollowerFetch { now_ms, ..fetch(3, end) }).unwrap().proposal.is_some()
}

#[test]
fn a_follower_that_is_silent_again_is_on_probation_unless_the_isr_needs_it() {
    let mut leader = leader_with_news(&[1, 2, 3], 5);
    assert!(rejoins_after_silence(&mut leader, 8, 10_000), "the first time is forgiven");
    let joined = CommittedIsr { leader_epoch: 5, partition_epoch: 9, isr: [1, 2, 3].into() };
    let proposal = leader.isr.pending().unwrap().clone();
    leader.on_proposal_answered(&proposal, Ok(joined), 10_000);
    assert!(!rejoins_after_silence(&mut leader, 10, 20_000));
    // It does not hold back the high watermark either.
    let end = leader.ends.log_end_offset + 1;
    leader.on_appended(end, 20_000);
    leader.on_flushed(end, 20_000);
    leader.on_follower_fetch(FollowerFetch { now_ms: 20_000, ..fetch(2, end) }).unwrap();
    assert_eq!(leader.high_watermark(), end);
    let mut alone = leader.clone();
    let shrunk = Registration { partition_epoch: 11, ..registration(&[1, 2, 3], &[1]) };
    alone.on_registration(&shrunk, &statuses(), 20_000);
    let needed = alone.on_follower_fetch(FollowerFetch { now_ms: 20_001, ..fetch(3, end) });
    assert!(needed.unwrap().proposal.is_some(), "a majority is worth more than a probation");
    let over = leader.on_follower_fetch(FollowerFetch { now_ms: 22_000, ..fetch(3, end) });
    assert!(over.unwrap().proposal.is_some(), "the probation is over");
}
