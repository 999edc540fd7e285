//! A voter that has lost its log, and one whose leader's log lacks committed records.

use super::message::{
    FetchBody, FetchResponse, FetchedBatch, Inbound, Reply, Request, Response, VoteRequest,
};
use super::*;
use crate::{EpochHistory, EpochStart};
use bytes::Bytes;
use klamm_protocol::{ErrorCode, Uuid};

const LISTENER: ByteString = ByteString::from_static("CONTROLLER");
/// This node's epoch, which node 2 leads.
const EPOCH: LeaderEpoch = 5;
const LOG_END: Offset = 10;

fn address(id: BrokerId) -> Address {
    Address { host: format!("node{id}").into(), port: 9093 }
}

fn key(id: BrokerId) -> ReplicaKey {
    ReplicaKey::new(id, Uuid::from_bytes([id.to_be_bytes()[3]; 16]))
}

fn log(end_offset: Offset) -> LogPosition {
    let epochs = (end_offset > 0).then_some(EpochStart { epoch: 3, start_offset: 0 });
    LogPosition {
        end_offset,
        flushed_offset: end_offset,
        epochs: EpochHistory::from_entries(epochs),
        ..LogPosition::default()
    }
}

/// Node 1 of three.
fn started(election: Election, log: LogPosition, must_catch_up: bool) -> Quorum {
    started_among([1, 2, 3].as_slice(), election, log, must_catch_up)
}

fn started_among(
    voters: &[BrokerId],
    election: Election,
    log: LogPosition,
    must_catch_up: bool,
) -> Quorum {
    let voters = voters.iter().map(|id| (*id, address(*id)));
    let voters = VoterSet::from_static(&LISTENER, voters);
    let boot = Boot {
        election: Some(StoredElection::new(election, 0, &voters)),
        log,
        membership: Membership::new(voters),
    };
    let config = QuorumConfig {
        local_endpoints: Endpoints::single(LISTENER, address(1)),
        bootstrap_servers: vec![address(2), address(3)],
        must_catch_up,
        ..QuorumConfig::with_defaults(key(1), LISTENER, "cluster".into())
    };
    Quorum::start(config, boot, 0).0
}

fn follower(log: LogPosition) -> Quorum {
    started(Election::elected(EPOCH, 2), log, false)
}

/// Answers the request in flight.
fn fetched(
    quorum: &mut Quorum,
    now_ms: i64,
    body: FetchBody,
    high_watermark: Offset,
) -> Vec<Effect> {
    let response = FetchResponse {
        error: ErrorCode::None,
        leader: quorum.leader_info(),
        high_watermark: Some(high_watermark),
        log_start_offset: 0,
        body,
    };
    let in_flight = |id: &CorrelationId| quorum.requests.clone().answered(*id).is_some();
    let correlation_id = (0..1_000).map(CorrelationId).find(in_flight).expect("one in flight");
    quorum.on_response(now_ms, correlation_id, Response::Fetch(response))
}

fn refusal(effects: &[Effect]) -> Option<&Anomaly> {
    effects.iter().find_map(|effect| match effect {
        Effect::Anomaly(anomaly) => Some(anomaly),
        _ => None,
    })
}

fn grants(quorum: &mut Quorum, pre_vote: bool) -> bool {
    let vote = VoteRequest {
        replica: key(3),
        replica_epoch: quorum.epoch() + 1,
        voter: None,
        log_end: OffsetAndEpoch::new(LOG_END, EPOCH),
        pre_vote,
    };
    let inbound = Inbound { cluster_id: None, request: Request::Vote(vote) };
    let effects = quorum.on_request(0, RequestId(1), inbound);
    let reply = effects.iter().find_map(|effect| match effect {
        Effect::Reply { reply: Reply::Vote(vote), .. } => Some(vote.vote_granted),
        _ => None,
    });
    reply.expect("an answer")
}

#[test]
fn what_was_committed_in_the_life_before_is_not_cut() {
    // The other voters have started with empty logs: there the epoch of this node's records ends at offset 0.
    let anew = FetchBody::Diverging(OffsetAndEpoch::new(0, 3));
    for (committed_offset, cut) in [(0, true), (1, false), (LOG_END, false)] {
        let mut quorum = follower(LogPosition { committed_offset, ..log(LOG_END) });
        let effects = fetched(&mut quorum, 1, anew.clone(), 2);
        assert_eq!(effects.contains(&Effect::Truncate { end_offset: 0 }), cut);
        let below = Anomaly::TruncationBelowHighWatermark {
            end_offset: 0,
            high_watermark: committed_offset,
        };
        assert_eq!(refusal(&effects), (!cut).then_some(&below), "{committed_offset}");
        assert_eq!(quorum.log().end_offset, if cut { 0 } else { LOG_END });
    }
}

#[test]
fn what_is_in_a_snapshot_is_committed_also_without_a_note() {
    let snapshot = Some(OffsetAndEpoch::new(8, 3));
    let position =
        LogPosition { earliest_snapshot: snapshot, latest_snapshot: snapshot, ..log(LOG_END) };
    let diverging = |offset| FetchBody::Diverging(OffsetAndEpoch::new(offset, 3));
    let mut quorum = follower(position.clone());
    let effects = fetched(&mut quorum, 1, diverging(7), 7);
    let below = Anomaly::TruncationBelowHighWatermark { end_offset: 7, high_watermark: 8 };
    assert_eq!(refusal(&effects), Some(&below));
    let mut quorum = follower(position);
    assert_eq!(refusal(&fetched(&mut quorum, 1, diverging(8), 8)), None);
    assert_eq!(quorum.log().end_offset, 8);
}

#[test]
fn a_snapshot_that_ends_before_what_is_committed_is_refused() {
    let mut quorum = follower(LogPosition { committed_offset: 9, ..log(LOG_END) });
    let effects = fetched(&mut quorum, 1, FetchBody::Snapshot(OffsetAndEpoch::new(8, 4)), 12);
    let below = Anomaly::TruncationBelowHighWatermark { end_offset: 8, high_watermark: 9 };
    assert_eq!(refusal(&effects), Some(&below));
}

#[test]
fn a_note_that_is_ahead_of_what_the_power_failure_left_does_not_forbid_what_is_behind_it() {
    let mut quorum = follower(LogPosition { committed_offset: 99, ..log(LOG_END) });
    let batch = FetchedBatch {
        base_offset: LOG_END,
        next_offset: LOG_END + 2,
        epoch: EPOCH,
        changes: Vec::new(),
        bytes: Bytes::new(),
    };
    let effects = fetched(&mut quorum, 1, FetchBody::Records(vec![batch]), LOG_END);
    assert_eq!(refusal(&effects), None);
    assert_eq!(quorum.log().end_offset, LOG_END + 2);
}

#[test]
fn a_leader_that_contradicts_itself_is_not_fetched_from_for_a_second() {
    let mut quorum = follower(log(LOG_END));
    let effects =
        fetched(&mut quorum, 100, FetchBody::Snapshot(OffsetAndEpoch::new(20, EPOCH + 1)), 0);
    assert!(refusal(&effects).is_some());
    let asks = |effects: Vec<Effect>| {
        effects.iter().any(|effect| matches!(effect, Effect::Send { to, .. } if to.id == 2))
    };
    assert!(!asks(quorum.on_tick(1_099)));
    assert!(asks(quorum.on_tick(1_100)));
}

#[test]
fn a_voter_that_has_lost_its_log_does_not_vote_before_it_has_caught_up() {
    let nobody = Election::unknown_leader(EPOCH);
    for pre_vote in [true, false] {
        assert!(grants(&mut started(nobody, log(0), false), pre_vote));
        let mut lost = started(nobody, log(0), true);
        assert!(lost.must_catch_up());
        assert!(!grants(&mut lost, pre_vote));
        lost.on_tick(1_000_000);
        assert_eq!(lost.role(), RoleName::Unattached, "it does not campaign either");
    }
    let mut lost = started(Election::elected(EPOCH, 2), log(0), true);
    let records = |base_offset, next_offset| {
        let bytes = Bytes::new();
        let changes = Vec::new();
        FetchBody::Records(vec![FetchedBatch {
            base_offset,
            next_offset,
            epoch: 3,
            changes,
            bytes,
        }])
    };
    fetched(&mut lost, 1, records(0, 4), LOG_END);
    assert!(lost.must_catch_up());
    let ticket = lost.log().flush_ticket();
    lost.on_flushed(2, ticket);
    fetched(&mut lost, 3, records(4, LOG_END), LOG_END);
    assert!(!lost.must_catch_up());
    lost.on_tick(1_000_000);
    assert_eq!(lost.role(), RoleName::Prospective);
}

#[test]
fn the_only_voter_has_nobody_to_catch_up_with() {
    let alone = started_among(&[1], Election::NEVER, log(0), true);
    assert!(alone.is_leader() && !alone.must_catch_up());
}
