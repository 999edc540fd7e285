//! One of three voters, event by event: the rules of each role, and every transition.

use super::message::*;
use super::*;
use crate::{EpochHistory, EpochStart};
use bytes::Bytes;
use klamm_protocol::{ErrorCode, Uuid};

const LISTENER: &str = "CONTROLLER";
/// The epoch of the log's last record, and the end of the log.
const LOG_EPOCH: LeaderEpoch = 3;
const LOG_END: Offset = 10;
/// The epoch of the node at the start.
const EPOCH: LeaderEpoch = 5;

fn key(id: BrokerId) -> ReplicaKey {
    ReplicaKey::new(id, Uuid::from_bytes([u8::try_from(id).unwrap(); 16]))
}

fn address(id: BrokerId) -> Address {
    Address { host: "localhost".into(), port: u16::try_from(id).unwrap() }
}

fn endpoints(id: BrokerId) -> Endpoints {
    Endpoints::single(LISTENER.into(), address(id))
}

fn config() -> QuorumConfig {
    QuorumConfig {
        local_endpoints: endpoints(1),
        bootstrap_servers: vec![address(2), address(3)],
        ..QuorumConfig::with_defaults(key(1), LISTENER.into(), "cluster".into())
    }
}

fn start(election: Election) -> Quorum {
    start_with(election, [1, 2, 3])
}

fn start_with(election: Election, voters: [BrokerId; 3]) -> Quorum {
    let static_voters = VoterSet::from_static(&LISTENER.into(), voters.map(|id| (id, address(id))));
    let boot = Boot {
        election: Some(StoredElection::new(election, 0, &static_voters)),
        log: LogPosition {
            end_offset: LOG_END,
            flushed_offset: LOG_END,
            epochs: EpochHistory::from_entries([EpochStart { epoch: LOG_EPOCH, start_offset: 0 }]),
            ..LogPosition::default()
        },
        membership: Membership::new(static_voters),
    };
    Quorum::start(config(), boot, 0).0
}

fn unattached() -> Quorum {
    start(Election::unknown_leader(EPOCH))
}

fn unattached_voted(candidate: BrokerId) -> Quorum {
    start(Election { voted: Some(key(candidate)), ..Election::unknown_leader(EPOCH) })
}

fn follower() -> Quorum {
    start(Election::elected(EPOCH, 2))
}

fn resigned() -> Quorum {
    start(Election::elected(EPOCH, 1))
}

fn prospective() -> Quorum {
    let mut quorum = unattached();
    tick(&mut quorum);
    quorum
}

fn candidate() -> Quorum {
    start(Election { voted: Some(key(1)), ..Election::unknown_leader(EPOCH) })
}

fn leader() -> Quorum {
    let mut quorum = candidate();
    let effects = quorum.on_tick(0);
    assert_eq!(effects, []);
    answer_votes(&mut quorum, 0, true, 1);
    assert_eq!(quorum.role(), RoleName::Leader);
    quorum
}

/// Lets time pass until the next deadline; requests in flight fail meanwhile.
fn tick(quorum: &mut Quorum) -> Vec<Effect> {
    let role = quorum.role();
    let mut effects = Vec::new();
    for _ in 0..1_000 {
        let deadline_ms = quorum.next_deadline_ms();
        effects = quorum.on_tick(deadline_ms);
        if quorum.role() != role {
            return effects;
        }
    }
    effects
}

fn deadline(quorum: &Quorum) -> i64 {
    quorum.role.next_deadline_ms(true)
}

/// Answers `count` of the vote requests in flight, in the order of the voters.
fn answer_votes(quorum: &mut Quorum, now_ms: i64, granted: bool, count: usize) -> Vec<Effect> {
    let leader =
        LeaderInfo { epoch: quorum.epoch(), leader_id: None, endpoints: Endpoints::default() };
    let response = VoteResponse { error: ErrorCode::None, leader, vote_granted: granted };
    let mut effects = Vec::new();
    for correlation_id in in_flight(quorum).into_iter().take(count) {
        effects = quorum.on_response(now_ms, correlation_id, Response::Vote(response.clone()));
    }
    effects
}

fn in_flight(quorum: &Quorum) -> Vec<CorrelationId> {
    (0..10_000)
        .map(CorrelationId)
        .filter(|id| quorum.requests.clone().answered(*id).is_some())
        .collect()
}

fn ask(quorum: &mut Quorum, request: Request) -> (Reply, Vec<Effect>) {
    let inbound = Inbound { cluster_id: Some("cluster".into()), request };
    let effects = quorum.on_request(0, RequestId(7), inbound);
    let reply = effects.iter().find_map(|effect| match effect {
        Effect::Reply { reply, .. } => Some(reply.clone()),
        _ => None,
    });
    (reply.expect("an answer"), effects)
}

fn vote_request(epoch: LeaderEpoch, log_end: OffsetAndEpoch, pre_vote: bool) -> VoteRequest {
    let voter = Some(key(1));
    VoteRequest { replica: key(3), replica_epoch: epoch, voter, log_end, pre_vote }
}

fn vote(quorum: &mut Quorum, request: VoteRequest) -> (VoteResponse, Vec<Effect>) {
    match ask(quorum, Request::Vote(request)) {
        (Reply::Vote(response), effects) => (response, effects),
        other => panic!("{other:?}"),
    }
}

fn persisted(effects: &[Effect]) -> Option<usize> {
    effects.iter().position(|effect| matches!(effect, Effect::PersistElection(_)))
}

const UP_TO_DATE: OffsetAndEpoch = OffsetAndEpoch::new(LOG_END, LOG_EPOCH);
const SHORTER: OffsetAndEpoch = OffsetAndEpoch::new(LOG_END - 1, LOG_EPOCH);
const LATER_EPOCH: OffsetAndEpoch = OffsetAndEpoch::new(0, LOG_EPOCH + 1);

#[test]
fn a_vote_in_the_same_epoch_follows_the_rules_of_the_role() {
    let mut fetched = follower();
    fetch_response(&mut fetched, FetchBody::Records(Vec::new()), None);
    type Case = (&'static str, fn() -> Quorum, [bool; 4]);
    // Granted: pre-vote up to date, pre-vote behind, vote up to date, vote behind.
    let cases: [Case; 8] = [
        ("unattached", unattached, [true, false, true, false]),
        ("voted for the candidate", || unattached_voted(3), [true, false, true, true]),
        ("voted for another", || unattached_voted(2), [true, false, false, false]),
        ("prospective", prospective, [true, false, true, false]),
        ("candidate", candidate, [true, false, false, false]),
        ("leader", leader, [false, false, false, false]),
        ("resigned", resigned, [true, false, false, false]),
        ("follower", follower, [true, false, false, false]),
    ];
    for (name, role, expected) in cases {
        let requests = [(true, UP_TO_DATE), (true, SHORTER), (false, UP_TO_DATE), (false, SHORTER)];
        for ((pre_vote, log_end), granted) in requests.into_iter().zip(expected) {
            let mut quorum = role();
            let before = *quorum.election();
            let epoch = quorum.epoch();
            let (response, effects) = vote(&mut quorum, vote_request(epoch, log_end, pre_vote));
            assert_eq!(
                (response.error, response.vote_granted),
                (ErrorCode::None, granted),
                "{name} {pre_vote} {log_end:?}"
            );
            if pre_vote || !granted {
                assert_eq!((persisted(&effects), *quorum.election()), (None, before), "{name}");
            }
        }
    }
    let (response, _) = vote(&mut fetched, vote_request(EPOCH, UP_TO_DATE, true));
    assert!(!response.vote_granted, "a follower that reaches its leader stands by it");
}

#[test]
fn a_vote_is_on_disk_before_it_is_told_and_given_once() {
    let mut quorum = unattached();
    let (response, effects) = vote(&mut quorum, vote_request(EPOCH, UP_TO_DATE, false));
    assert!(response.vote_granted);
    let told = effects.iter().position(|effect| matches!(effect, Effect::Reply { .. }));
    assert!(persisted(&effects) < told && persisted(&effects).is_some());
    assert_eq!(quorum.election().voted, Some(key(3)));
    let other = VoteRequest { replica: key(2), ..vote_request(EPOCH, LATER_EPOCH, false) };
    assert!(!vote(&mut quorum, other).0.vote_granted);
    assert!(vote(&mut quorum, vote_request(EPOCH, UP_TO_DATE, false)).0.vote_granted);
}

#[test]
fn a_later_epoch_moves_every_role_to_unattached_and_then_votes() {
    let roles: [fn() -> Quorum; 6] =
        [unattached, prospective, candidate, leader, resigned, follower];
    for role in roles {
        let mut quorum = role();
        let was_leader = quorum.is_leader();
        let log_end = quorum.log_end();
        let (response, effects) = vote(&mut quorum, vote_request(EPOCH + 1, log_end, false));
        assert!(response.vote_granted);
        assert_eq!(response.leader.epoch, EPOCH + 1);
        assert_eq!(quorum.role(), RoleName::Unattached);
        let resigned = effects.contains(&Effect::Resigned { epoch: EPOCH });
        assert_eq!(resigned, was_leader);

        let mut quorum = role();
        let (response, _) = vote(&mut quorum, vote_request(EPOCH + 1, SHORTER, false));
        assert!(!response.vote_granted);
        assert_eq!((quorum.role(), quorum.epoch()), (RoleName::Unattached, EPOCH + 1));
    }
}

#[test]
fn a_log_is_up_to_date_by_epoch_first() {
    let longer_but_older = OffsetAndEpoch::new(LOG_END + 90, LOG_EPOCH - 1);
    for (log_end, granted) in [(LATER_EPOCH, true), (longer_but_older, false), (UP_TO_DATE, true)] {
        let (response, _) = vote(&mut unattached(), vote_request(EPOCH, log_end, false));
        assert_eq!(response.vote_granted, granted, "{log_end:?}");
    }
}

#[test]
fn a_vote_for_another_replica_is_refused_and_a_stranger_may_be_voted_for() {
    // R20, KIP-853: the voter set of the candidate may be newer than this node's.
    let wrong = VoteRequest {
        voter: Some(ReplicaKey::new(1, Uuid::from_bytes([99; 16]))),
        ..vote_request(EPOCH, UP_TO_DATE, false)
    };
    assert_eq!(vote(&mut unattached(), wrong).0.error, ErrorCode::InvalidVoterKey);
    let wrong = VoteRequest { voter: Some(key(2)), ..vote_request(EPOCH, UP_TO_DATE, false) };
    assert_eq!(vote(&mut unattached(), wrong).0.error, ErrorCode::InvalidVoterKey);
    let old = VoteRequest { voter: None, ..vote_request(EPOCH, UP_TO_DATE, false) };
    assert!(vote(&mut unattached(), old).0.vote_granted);
    let stranger = VoteRequest { replica: key(9), ..vote_request(EPOCH, UP_TO_DATE, false) };
    assert!(vote(&mut unattached(), stranger).0.vote_granted);
    let oneself = VoteRequest { replica: key(1), ..vote_request(EPOCH, UP_TO_DATE, false) };
    assert!(!vote(&mut unattached(), oneself).0.vote_granted);
    let negative = VoteRequest {
        replica: ReplicaKey { id: -1, directory_id: None },
        ..vote_request(EPOCH, UP_TO_DATE, false)
    };
    assert_eq!(vote(&mut unattached(), negative).0.error, ErrorCode::InvalidRequest);
}

#[test]
fn an_election_goes_from_pre_vote_to_vote_to_leadership() {
    let mut quorum = unattached();
    let timeout_ms = deadline(&quorum);
    assert!((1_000..2_000).contains(&timeout_ms));
    let effects = tick(&mut quorum);
    assert_eq!((quorum.role(), quorum.epoch()), (RoleName::Prospective, EPOCH));
    assert_eq!(persisted(&effects), None, "a pre-vote leaves no trace");
    let effects = answer_votes(&mut quorum, timeout_ms, true, 1);
    assert_eq!((quorum.role(), quorum.epoch()), (RoleName::Candidate, EPOCH + 1));
    let asked = effects.iter().position(|effect| matches!(effect, Effect::Send { .. }));
    assert!(persisted(&effects).is_some() && persisted(&effects) < asked);
    let effects = answer_votes(&mut quorum, timeout_ms, true, 1);
    assert_eq!(quorum.role(), RoleName::Leader);
    let announcements = effects.iter().filter(|effect| {
        matches!(effect, Effect::Send { request: Request::BeginQuorumEpoch(_), .. })
    });
    assert_eq!(announcements.count(), 2);
    assert!(effects.iter().any(|effect| matches!(
        effect,
        Effect::Append { base_offset: LOG_END, batch: AppendBatch::EpochStart(_), .. }
    )));
    assert!(!effects.contains(&Effect::BecameLeader { epoch: EPOCH + 1 }));
}

#[test]
fn a_lost_pre_vote_costs_no_epoch() {
    let mut quorum = prospective();
    answer_votes(&mut quorum, 2_000, false, 2);
    assert_eq!((quorum.role(), quorum.epoch()), (RoleName::Unattached, EPOCH));

    let mut quorum = follower();
    let effects = tick(&mut quorum);
    assert_eq!(quorum.role(), RoleName::Prospective);
    assert_eq!(persisted(&effects), None);
    assert_eq!(quorum.leader_id(), Some(2));
    let now_ms = deadline(&quorum) - 1;
    answer_votes(&mut quorum, now_ms, false, 2);
    assert_eq!((quorum.role(), quorum.leader_id()), (RoleName::Follower, Some(2)));
}

#[test]
fn a_voter_that_knows_no_pre_votes_is_asked_for_a_vote() {
    let mut quorum = prospective();
    let correlation_id = in_flight(&quorum)[0];
    let failed = Response::Failed(ErrorCode::UnsupportedVersion);
    quorum.on_response(2_000, correlation_id, failed);
    assert_eq!((quorum.role(), quorum.epoch()), (RoleName::Candidate, EPOCH + 1));
}

#[test]
fn a_candidate_that_wins_nothing_goes_back_to_asking() {
    let mut quorum = candidate();
    tick(&mut quorum);
    assert_eq!((quorum.role(), quorum.epoch()), (RoleName::Prospective, EPOCH));
    assert_eq!(quorum.election().voted, Some(key(1)));
}

#[test]
fn a_resigned_leader_tells_the_voters_and_leaves_its_epoch_for_good() {
    let mut quorum = resigned();
    assert_eq!(in_flight(&quorum).len(), 2);
    let leader = quorum.leader_info();
    let acknowledged = QuorumEpochResponse { error: ErrorCode::None, leader };
    for correlation_id in in_flight(&quorum) {
        quorum.on_response(10, correlation_id, Response::EndQuorumEpoch(acknowledged.clone()));
    }
    assert!(in_flight(&quorum).is_empty());
    let effects = tick(&mut quorum);
    assert_eq!((quorum.role(), quorum.epoch()), (RoleName::Prospective, EPOCH + 1));
    assert!(persisted(&effects).is_some());
}

#[test]
fn a_leader_that_no_majority_fetches_from_resigns() {
    let mut quorum = leader();
    let fetch_timeout_ms = i64::from(config().fetch_timeout_ms);
    let check_quorum_ms = fetch_timeout_ms * 3 / 2;
    assert_eq!(fetch_from(&mut quorum, 2, 100, LOG_END, LOG_EPOCH).error, ErrorCode::None);
    quorum.on_tick(100 + check_quorum_ms - 1);
    assert!(quorum.is_leader());
    let effects = quorum.on_tick(100 + check_quorum_ms);
    assert!(effects.contains(&Effect::Resigned { epoch: EPOCH }));
    assert_eq!(quorum.role(), RoleName::Resigned);
    let ends = effects.iter().filter_map(|effect| match effect {
        Effect::Send { request: Request::EndQuorumEpoch(end), .. } => Some(end),
        _ => None,
    });
    for end in ends {
        let candidates: Vec<_> = end.preferred_candidates.iter().map(|key| key.id).collect();
        assert_eq!(candidates, [2, 3]);
    }
}

#[test]
fn leadership_may_run_out_between_two_batches_of_one_decision() {
    let mut quorum = leader();
    let late = 100 + i64::from(config().fetch_timeout_ms) * 3 / 2;
    assert_eq!(fetch_from(&mut quorum, 2, 100, LOG_END, LOG_EPOCH).error, ErrorCode::None);
    let effects = quorum.append(late, EPOCH, 1, Bytes::from_static(b"a")).unwrap();
    assert!(effects.contains(&Effect::Resigned { epoch: EPOCH }));
    let refused = quorum.append(late, EPOCH, 1, Bytes::from_static(b"b"));
    assert_eq!(refused, Err(NotLeader { requested: EPOCH, current: EPOCH }));
}

/// The leader's answer to a fetch that does not wait.
fn fetch_from(
    quorum: &mut Quorum,
    id: BrokerId,
    now_ms: i64,
    fetch_offset: Offset,
    last_fetched_epoch: LeaderEpoch,
) -> FetchReply {
    let fetch = FetchRequest {
        replica: key(id),
        current_leader_epoch: quorum.epoch(),
        fetch_offset,
        last_fetched_epoch,
        high_watermark: None,
        max_wait_ms: 0,
        max_bytes: 1024,
    };
    let inbound = Inbound { cluster_id: None, request: Request::Fetch(fetch) };
    let effects = quorum.on_request(now_ms, RequestId(1), inbound);
    let reply = effects.into_iter().find_map(|effect| match effect {
        Effect::Reply { reply: Reply::Fetch(reply), .. } => Some(reply),
        _ => None,
    });
    reply.expect("an answer at once")
}

#[test]
fn a_majority_of_fetches_commits_and_starts_the_controller() {
    let mut quorum = leader();
    assert_eq!(quorum.high_watermark(), None);
    let reply = fetch_from(&mut quorum, 2, 0, LOG_END, LOG_EPOCH);
    assert_eq!(reply.body, FetchReplyBody::Records { offset: LOG_END, max_bytes: 1024 });
    assert_eq!(reply.high_watermark, None);
    assert_eq!(fetch_from(&mut quorum, 2, 0, LOG_END + 1, EPOCH).high_watermark, None);
    let reply = fetch_from(&mut quorum, 3, 0, LOG_END + 1, EPOCH);
    assert_eq!(reply.high_watermark, Some(LOG_END + 1));
    assert_eq!(quorum.high_watermark(), Some(LOG_END + 1));
}

#[test]
fn a_diverging_fetch_is_told_where_and_acknowledges_nothing() {
    let mut quorum = leader();
    let reply = fetch_from(&mut quorum, 2, 0, LOG_END + 5, LOG_EPOCH);
    let end = OffsetAndEpoch::new(LOG_END, LOG_EPOCH);
    assert_eq!(reply.body, FetchReplyBody::Diverging(end));
    let reply = fetch_from(&mut quorum, 3, 0, LOG_END + 5, LOG_EPOCH + 1);
    assert_eq!(reply.body, FetchReplyBody::Diverging(end));
    assert_eq!(quorum.high_watermark(), None);
    assert!(quorum.describe(0).unwrap().voters[1].end_offset.is_none());
}

fn begin(leader_id: BrokerId, leader_epoch: LeaderEpoch) -> Request {
    Request::BeginQuorumEpoch(BeginQuorumEpochRequest {
        leader_id,
        leader_epoch,
        voter: Some(key(1)),
        leader_endpoints: endpoints(leader_id),
    })
}

fn begin_error(quorum: &mut Quorum, leader_id: BrokerId, epoch: LeaderEpoch) -> ErrorCode {
    match ask(quorum, begin(leader_id, epoch)).0 {
        Reply::BeginQuorumEpoch(response) => response.error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_leader_that_announces_itself_is_followed() {
    let roles: [fn() -> Quorum; 6] =
        [unattached, prospective, candidate, leader, resigned, follower];
    for role in roles {
        let mut quorum = role();
        assert_eq!(begin_error(&mut quorum, 3, EPOCH - 1), ErrorCode::FencedLeaderEpoch);
        assert_eq!(begin_error(&mut quorum, 3, EPOCH + 1), ErrorCode::None);
        assert_eq!((quorum.role(), quorum.leader_id()), (RoleName::Follower, Some(3)));
        assert_eq!(quorum.epoch(), EPOCH + 1);
    }
    for role in [unattached, prospective, candidate] {
        let mut quorum: Quorum = role();
        let voted = quorum.election().voted;
        assert_eq!(begin_error(&mut quorum, 3, EPOCH), ErrorCode::None);
        assert_eq!((quorum.role(), quorum.election().voted), (RoleName::Follower, voted));
    }
}

#[test]
fn a_second_leader_in_an_epoch_is_refused_and_changes_nothing() {
    for role in [follower, leader, resigned] {
        let mut quorum: Quorum = role();
        let before = (quorum.role(), *quorum.election());
        let (reply, effects) = ask(&mut quorum, begin(3, EPOCH));
        assert!(matches!(reply, Reply::BeginQuorumEpoch(response)
            if response.error == ErrorCode::InvalidRequest));
        assert!(effects.iter().any(|effect| matches!(
            effect,
            Effect::Anomaly(Anomaly::ConflictingLeader { epoch: EPOCH, claimed: 3, .. })
        )));
        assert_eq!((quorum.role(), *quorum.election()), before);
    }
    let mut quorum = unattached();
    assert_eq!(begin_error(&mut quorum, 1, EPOCH + 3), ErrorCode::InvalidRequest);
    assert_eq!(quorum.epoch(), EPOCH);
}

#[test]
fn the_next_in_line_campaigns_at_once_when_its_leader_resigns_and_the_others_later() {
    let end = |preferred_candidates| {
        Request::EndQuorumEpoch(EndQuorumEpochRequest {
            leader_id: 2,
            leader_epoch: EPOCH,
            preferred_candidates,
            leader_endpoints: endpoints(2),
        })
    };
    let mut first = follower();
    ask(&mut first, end(vec![key(1), key(3)]));
    assert_eq!(first.role(), RoleName::Prospective);
    let mut second = follower();
    ask(&mut second, end(vec![key(3), key(1)]));
    assert_eq!((second.role(), deadline(&second)), (RoleName::Follower, 500));
    let mut unnamed = follower();
    ask(&mut unnamed, end(vec![key(3)]));
    assert_eq!(deadline(&unnamed), 1_000);
}

fn fetch_response(
    quorum: &mut Quorum,
    body: FetchBody,
    high_watermark: Option<Offset>,
) -> Vec<Effect> {
    let response = FetchResponse {
        error: ErrorCode::None,
        leader: quorum.leader_info(),
        high_watermark,
        log_start_offset: 0,
        body,
    };
    let correlation_id = in_flight(quorum)[0];
    quorum.on_response(100, correlation_id, Response::Fetch(response))
}

fn batch(base_offset: Offset, next_offset: Offset, epoch: LeaderEpoch) -> FetchedBatch {
    FetchedBatch { base_offset, next_offset, epoch, changes: Vec::new(), bytes: Bytes::new() }
}

fn sends_fetch(effects: &[Effect]) -> bool {
    let is_fetch =
        |effect: &Effect| matches!(effect, Effect::Send { request: Request::Fetch(_), .. });
    effects.iter().any(is_fetch)
}

#[test]
fn a_voter_syncs_what_it_has_fetched_before_it_acknowledges_it_by_fetching_on() {
    let mut quorum = follower();
    let records = FetchBody::Records(vec![batch(LOG_END, LOG_END + 2, EPOCH)]);
    let effects = fetch_response(&mut quorum, records, Some(LOG_END + 1));
    assert!(!sends_fetch(&effects));
    assert!(effects.contains(&Effect::CommitTo { high_watermark: LOG_END + 1 }));
    let ticket = effects.iter().find_map(|effect| match effect {
        Effect::Flush(ticket) => Some(*ticket),
        _ => None,
    });
    assert!(sends_fetch(&quorum.on_flushed(101, ticket.unwrap())));
}

#[test]
fn the_high_watermark_of_a_follower_stays_within_its_log() {
    let mut quorum = follower();
    fetch_response(&mut quorum, FetchBody::Records(Vec::new()), Some(LOG_END + 100));
    assert_eq!(quorum.high_watermark(), Some(LOG_END));
}

#[test]
fn batches_that_do_not_continue_the_log_are_not_appended() {
    let wrong = [
        batch(LOG_END + 1, LOG_END + 2, EPOCH),
        batch(LOG_END - 1, LOG_END + 2, EPOCH),
        batch(LOG_END, LOG_END, EPOCH),
        batch(LOG_END, LOG_END + 1, EPOCH + 1),
        batch(LOG_END, LOG_END + 1, LOG_EPOCH - 1),
    ];
    for batch in wrong {
        let mut quorum = follower();
        let effects = fetch_response(&mut quorum, FetchBody::Records(vec![batch.clone()]), None);
        assert!(
            matches!(effects[0], Effect::Anomaly(Anomaly::UnexpectedBatch { .. })),
            "{batch:?}"
        );
        assert_eq!(quorum.log().end_offset, LOG_END);
    }
}

#[test]
fn divergence_cuts_the_log_and_never_below_the_high_watermark() {
    let mut quorum = follower();
    let diverging = FetchBody::Diverging(OffsetAndEpoch::new(6, LOG_EPOCH));
    let effects = fetch_response(&mut quorum, diverging.clone(), None);
    assert!(effects.contains(&Effect::Truncate { end_offset: 6 }));
    assert_eq!(quorum.log().end_offset, 6);

    let mut quorum = follower();
    fetch_response(&mut quorum, FetchBody::Records(Vec::new()), Some(8));
    let effects = fetch_response(&mut quorum, diverging, None);
    let below = Anomaly::TruncationBelowHighWatermark { end_offset: 6, high_watermark: 8 };
    assert!(effects.contains(&Effect::Anomaly(below)));
    assert_eq!(quorum.log().end_offset, LOG_END);
}

#[test]
fn a_snapshot_is_fetched_in_pieces_and_replaces_the_log() {
    let mut quorum = follower();
    let id = OffsetAndEpoch::new(50, 4);
    let effects = fetch_response(&mut quorum, FetchBody::Snapshot(id), None);
    assert!(effects.iter().any(|effect| matches!(effect,
        Effect::Send { request: Request::FetchSnapshot(fetch), .. } if fetch.position == 0)));
    let piece = |quorum: &mut Quorum, position, bytes: &'static [u8]| {
        let response = FetchSnapshotResponse {
            error: ErrorCode::None,
            leader: quorum.leader_info(),
            snapshot_id: id,
            size: 5,
            position,
            bytes: Bytes::from_static(bytes),
        };
        let correlation_id = in_flight(quorum)[0];
        quorum.on_response(100, correlation_id, Response::FetchSnapshot(response))
    };
    let effects = piece(&mut quorum, 0, b"abc");
    assert!(effects.contains(&Effect::WriteSnapshotChunk {
        snapshot_id: id,
        position: 0,
        bytes: Bytes::from_static(b"abc")
    }));
    let effects = piece(&mut quorum, 3, b"de");
    assert_eq!(effects.last(), Some(&Effect::LoadSnapshot { snapshot_id: id }));
    let membership = quorum.membership().clone();
    let effects = quorum.on_snapshot_loaded(101, id, membership);
    assert!(sends_fetch(&effects));
    assert_eq!((quorum.log().end(), quorum.log().start_offset), (id, 50));
    assert_eq!(quorum.high_watermark(), Some(50));
}

#[test]
fn a_wrong_snapshot_piece_is_not_written() {
    let id = OffsetAndEpoch::new(50, 4);
    for (snapshot_id, position, bytes) in [
        (OffsetAndEpoch::new(51, 4), 0, &b"abc"[..]),
        (id, 1, b"abc"),
        (id, 0, b""),
        (id, 0, b"abcdef"),
    ] {
        let mut quorum = follower();
        fetch_response(&mut quorum, FetchBody::Snapshot(id), None);
        let response = FetchSnapshotResponse {
            error: ErrorCode::None,
            leader: quorum.leader_info(),
            snapshot_id,
            size: 5,
            position,
            bytes: Bytes::from_static(bytes),
        };
        let correlation_id = in_flight(&quorum)[0];
        let effects = quorum.on_response(100, correlation_id, Response::FetchSnapshot(response));
        assert!(matches!(effects[0], Effect::Anomaly(Anomaly::UnexpectedSnapshotChunk { .. })));
    }
}

#[test]
fn who_leads_is_learnt_from_any_answer() {
    let leads = |epoch, leader_id| LeaderInfo { epoch, leader_id, endpoints: Endpoints::default() };
    let cases = [
        (ErrorCode::FencedLeaderEpoch, leads(EPOCH + 1, Some(3)), RoleName::Follower, EPOCH + 1),
        (ErrorCode::NotLeaderOrFollower, leads(EPOCH, Some(3)), RoleName::Follower, EPOCH),
        (ErrorCode::FencedLeaderEpoch, leads(EPOCH + 2, None), RoleName::Unattached, EPOCH + 2),
        (ErrorCode::UnknownLeaderEpoch, leads(EPOCH - 1, Some(3)), RoleName::Unattached, EPOCH),
        (ErrorCode::NotLeaderOrFollower, leads(EPOCH, None), RoleName::Unattached, EPOCH),
    ];
    for (error, leader, role, epoch) in cases {
        let mut quorum = unattached();
        let response = FetchResponse {
            error,
            leader: leader.clone(),
            high_watermark: None,
            log_start_offset: 0,
            body: FetchBody::Records(Vec::new()),
        };
        let correlation_id = in_flight(&quorum)[0];
        quorum.on_response(1, correlation_id, Response::Fetch(response));
        assert_eq!((quorum.role(), quorum.epoch()), (role, epoch), "{error:?} {leader:?}");
    }
}

#[test]
fn late_answers_change_nothing() {
    let mut quorum = prospective();
    let late = in_flight(&quorum);
    answer_votes(&mut quorum, 2_000, false, 2);
    assert_eq!(quorum.role(), RoleName::Unattached);
    let leader =
        LeaderInfo { epoch: EPOCH + 9, leader_id: Some(3), endpoints: Endpoints::default() };
    let response = VoteResponse { error: ErrorCode::None, leader, vote_granted: true };
    for correlation_id in late {
        quorum.on_response(2_001, correlation_id, Response::Vote(response.clone()));
    }
    assert_eq!((quorum.role(), quorum.epoch()), (RoleName::Unattached, EPOCH));
}

#[test]
fn an_observer_never_campaigns_and_asks_in_turn_who_leads() {
    let mut quorum = start_with(Election::unknown_leader(EPOCH), [2, 3, 4]);
    let mut asked = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let effects = quorum.on_tick(quorum.next_deadline_ms());
        asked.extend(effects.into_iter().filter_map(|effect| match effect {
            Effect::Send { to, request: Request::Fetch(_), .. } => Some(to.address.port),
            _ => None,
        }));
    }
    assert_eq!((quorum.role(), quorum.epoch()), (RoleName::Unattached, EPOCH));
    assert_eq!(asked.len(), 2);
}

#[test]
fn a_follower_whose_leader_is_silent_asks_another_and_then_campaigns() {
    let mut quorum = follower();
    let correlation_id = in_flight(&quorum)[0];
    let failed = Response::Failed(ErrorCode::BrokerNotAvailable);
    let effects = quorum.on_response(1, correlation_id, failed);
    let asked = effects.iter().find_map(|effect| match effect {
        Effect::Send { to, .. } => Some(to.id),
        _ => None,
    });
    assert!(asked.unwrap() <= -2);
    tick(&mut quorum);
    assert_eq!(quorum.role(), RoleName::Prospective);
}

fn transition_panics(quorum: Quorum, transition: fn(&mut Quorum)) -> bool {
    let mut quorum = quorum;
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| transition(&mut quorum))).is_err()
}

#[test]
fn illegal_transitions_are_broken_invariants() {
    type Transition = fn(&mut Quorum);
    let candidate_now: Transition = |quorum| quorum.become_candidate(0);
    let leader_now: Transition = |quorum| quorum.become_leader(0);
    let prospective_now: Transition = |quorum| quorum.become_prospective(0);
    let resigned_now: Transition = |quorum| quorum.become_resigned(0);
    let same_epoch: Transition = |quorum| quorum.become_unattached(0, EPOCH, None);
    let earlier: Transition = |quorum| quorum.become_unattached(0, EPOCH - 1, None);
    let follow_earlier: Transition = |quorum| quorum.become_follower(0, EPOCH - 1, 2, endpoints(2));
    let follow_self: Transition = |quorum| quorum.become_follower(0, EPOCH + 1, 1, endpoints(1));
    let follow_nowhere: Transition =
        |quorum| quorum.become_follower(0, EPOCH + 1, 2, Endpoints::default());
    let follow_same_epoch: Transition = |quorum| quorum.become_follower(0, EPOCH, 2, endpoints(2));
    let all: [fn() -> Quorum; 6] = [unattached, prospective, candidate, leader, resigned, follower];
    type Illegal<'a> = (Transition, &'a [fn() -> Quorum]);
    let illegal: [Illegal<'_>; 10] = [
        (candidate_now, &[unattached, candidate, leader, resigned, follower]),
        (leader_now, &[unattached, prospective, candidate, leader, resigned, follower]),
        (prospective_now, &[prospective, leader]),
        (resigned_now, &[unattached, prospective, candidate, resigned, follower]),
        (same_epoch, &[unattached, candidate, leader, resigned, follower]),
        (earlier, &all),
        (follow_earlier, &all),
        (follow_self, &all),
        (follow_nowhere, &all),
        (follow_same_epoch, &[leader]),
    ];
    for (index, (transition, roles)) in illegal.into_iter().enumerate() {
        for role in roles {
            let quorum = role();
            let name = quorum.role();
            assert!(transition_panics(quorum, transition), "transition {index} from {name}");
        }
    }
    let observer = start_with(Election::unknown_leader(EPOCH), [2, 3, 4]);
    assert!(transition_panics(observer, prospective_now));
}

#[test]
fn a_follower_campaigns_soon_when_the_process_of_its_leader_is_gone() {
    let mut quorum = follower();
    let patient = deadline(&quorum);
    quorum.on_process_gone(0, 3);
    assert_eq!(deadline(&quorum), patient);
    quorum.on_process_gone(0, 2);
    let soon = deadline(&quorum);
    assert!(soon < patient / 10, "{soon}");
    // A second report does not move the deadline.
    quorum.on_process_gone(20, 2);
    assert_eq!(deadline(&quorum), soon);
    quorum.on_tick(soon);
    assert_eq!(quorum.role(), RoleName::Prospective);
}

#[test]
fn voters_that_lose_their_leader_at_once_campaign_one_after_the_other() {
    let due = |voters: [BrokerId; 3]| {
        let mut quorum = start_with(Election::elected(EPOCH, 2), voters);
        quorum.on_process_gone(0, 2);
        deadline(&quorum)
    };
    // This node is voter 1: the first of the others in one set, the second in the other.
    assert!(due([0, 1, 2]) > due([1, 2, 3]));
}

#[test]
fn a_leader_that_fell_silent_is_remembered_until_another_is_followed() {
    let mut quorum = follower();
    assert_eq!(quorum.lost_leader(), None);
    quorum.on_process_gone(0, 2);
    tick(&mut quorum);
    assert_eq!((quorum.role(), quorum.lost_leader()), (RoleName::Prospective, Some(2)));
    let request = Request::BeginQuorumEpoch(BeginQuorumEpochRequest {
        leader_id: 3,
        leader_epoch: EPOCH + 1,
        voter: None,
        leader_endpoints: endpoints(3),
    });
    quorum.on_request(100, RequestId(1), Inbound { cluster_id: None, request });
    assert_eq!((quorum.role(), quorum.lost_leader()), (RoleName::Follower, None));
}
