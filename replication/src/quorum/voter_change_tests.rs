//! Voters that are added, removed and updated: the leader's decisions, and a follower's requests.

use super::message::*;
use super::*;
use klamm_protocol::{ErrorCode, Uuid};

const LISTENER: &str = "CONTROLLER";

fn key(id: BrokerId) -> ReplicaKey {
    ReplicaKey::new(id, Uuid::from_bytes([u8::try_from(id).unwrap(); 16]))
}

fn address(id: BrokerId) -> Address {
    Address { host: "localhost".into(), port: u16::try_from(id).unwrap() }
}

fn endpoints(id: BrokerId) -> Endpoints {
    Endpoints::single(LISTENER.into(), address(id))
}

fn voter(id: BrokerId) -> Voter {
    Voter {
        key: key(id),
        endpoints: endpoints(id),
        supported_kraft_version: KRaftVersionRange::SUPPORTED,
    }
}

fn config() -> QuorumConfig {
    QuorumConfig {
        local_endpoints: endpoints(1),
        bootstrap_servers: vec![address(2), address(3)],
        ..QuorumConfig::with_defaults(key(1), LISTENER.into(), "cluster".into())
    }
}

fn dynamic(voters: &[BrokerId]) -> Membership {
    let mut membership = Membership::new(VoterSet::default());
    let bootstrap = Membership::BOOTSTRAP_OFFSET;
    membership.apply(bootstrap, ControlChange::KRaftVersion(1));
    let voters = VoterSet::new(voters.iter().map(|&id| voter(id)));
    membership.apply(bootstrap, ControlChange::Voters(voters));
    membership
}

fn static_voters(ids: &[BrokerId]) -> Membership {
    let addresses = ids.iter().map(|&id| (id, address(id)));
    Membership::new(VoterSet::from_static(&LISTENER.into(), addresses))
}

fn start(config: QuorumConfig, membership: Membership, election: Election) -> Quorum {
    let voters = membership.voters.latest();
    let stored = StoredElection::new(election, *membership.kraft_version.latest(), voters);
    let boot = Boot { election: Some(stored), log: LogPosition::default(), membership };
    Quorum::start(config, boot, 0).0
}

/// Node 1 as the leader of epoch 5 among these voters. All records are flushed; with other voters none is committed.
fn leader(membership: Membership) -> Quorum {
    let election = Election { voted: Some(key(1)), ..Election::unknown_leader(5) };
    let mut quorum = start(config(), membership, election);
    let leader = quorum.leader_info();
    let vote = VoteResponse { error: ErrorCode::None, leader, vote_granted: true };
    for id in in_flight(&quorum) {
        quorum.on_response(0, id, Response::Vote(vote.clone()));
    }
    assert!(quorum.is_leader());
    for id in in_flight(&quorum) {
        quorum.on_response(0, id, Response::Failed(ErrorCode::BrokerNotAvailable));
    }
    flush(&mut quorum, 0);
    quorum
}

/// The same with the voters of kraft.version 1 and all records committed.
fn committed_leader(voters: &[BrokerId]) -> Quorum {
    let mut quorum = leader(dynamic(voters));
    for &id in voters.iter().filter(|id| **id != 1) {
        fetch(&mut quorum, id, 0);
    }
    assert_eq!(quorum.high_watermark(), Some(quorum.log().end_offset));
    quorum
}

fn in_flight(quorum: &Quorum) -> Vec<CorrelationId> {
    let all = (0..1_000).map(CorrelationId);
    all.filter(|id| quorum.requests.clone().answered(*id).is_some()).collect()
}

fn flush(quorum: &mut Quorum, now_ms: i64) -> Vec<Effect> {
    match quorum.flush_in_flight {
        Some(ticket) => quorum.on_flushed(now_ms, ticket),
        None => Vec::new(),
    }
}

fn request(quorum: &mut Quorum, now_ms: i64, request: Request) -> Vec<Effect> {
    quorum.on_request(now_ms, RequestId(7), Inbound { cluster_id: None, request })
}

/// A fetch from the end of the log, which acknowledges all of it.
fn fetch(quorum: &mut Quorum, id: BrokerId, now_ms: i64) -> Vec<Effect> {
    let fetch = FetchRequest {
        replica: key(id),
        current_leader_epoch: quorum.epoch(),
        fetch_offset: quorum.log().end_offset,
        last_fetched_epoch: quorum.log().last_epoch(),
        high_watermark: None,
        max_wait_ms: 0,
        max_bytes: 1024,
    };
    request(quorum, now_ms, Request::Fetch(fetch))
}

fn add(id: BrokerId) -> AddVoterRequest {
    AddVoterRequest {
        timeout_ms: 9_000,
        voter: key(id),
        endpoints: endpoints(id),
        ack_when_committed: true,
    }
}

fn remove(id: BrokerId) -> Request {
    Request::RemoveVoter(RemoveVoterRequest { voter: key(id) })
}

/// The answer to AddVoter or RemoveVoter, if it has come.
fn answer(effects: &[Effect]) -> Option<(ErrorCode, String)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Reply { reply: Reply::AddVoter(answer) | Reply::RemoveVoter(answer), .. } => {
            Some((answer.error, answer.message.clone().unwrap_or_default()))
        }
        _ => None,
    })
}

fn done() -> Option<(ErrorCode, String)> {
    Some((ErrorCode::None, String::new()))
}

/// The leader sends ApiVersions to node `id`, which answers with this range.
fn add_until_answered(quorum: &mut Quorum, id: BrokerId, range: (i16, i16)) -> Vec<Effect> {
    let effects = request(quorum, 10, Request::AddVoter(add(id)));
    let asked = effects.iter().find_map(|effect| match effect {
        Effect::Send { correlation_id, to, request: Request::ApiVersions } if to.id == id => {
            Some(*correlation_id)
        }
        _ => None,
    });
    let (min, max) = range;
    let kraft_version = Some(KRaftVersionRange { min, max });
    let versions = ApiVersionsResponse { error: ErrorCode::None, kraft_version };
    quorum.on_response(20, asked.expect("it is asked"), Response::ApiVersions(versions))
}

fn voter_ids(quorum: &Quorum) -> Vec<BrokerId> {
    quorum.membership().voters.latest().ids().collect()
}

fn appended_membership(effects: &[Effect]) -> Option<&MembershipBatch> {
    effects.iter().find_map(|effect| match effect {
        Effect::Append { batch: AppendBatch::Membership(batch), .. } => Some(batch),
        _ => None,
    })
}

#[test]
fn an_observer_that_has_caught_up_is_added_and_the_new_majority_commits_it() {
    let mut quorum = committed_leader(&[1]);
    fetch(&mut quorum, 2, 5);
    let before = quorum.high_watermark();
    let effects = add_until_answered(&mut quorum, 2, (0, 1));
    assert_eq!(appended_membership(&effects).unwrap().voters.as_ref().unwrap().len(), 2);
    assert_eq!((voter_ids(&quorum), answer(&effects)), (vec![1, 2], None));
    let effects = flush(&mut quorum, 25);
    assert_eq!((quorum.high_watermark(), answer(&effects)), (before, None));
    let effects = fetch(&mut quorum, 2, 30);
    assert_eq!(answer(&effects), done());
    assert_eq!(quorum.high_watermark(), Some(quorum.log().end_offset));
}

#[test]
fn whoever_does_not_wait_for_the_commit_is_answered_at_the_append_and_once() {
    let mut quorum = committed_leader(&[1]);
    fetch(&mut quorum, 2, 5);
    let no_wait = AddVoterRequest { ack_when_committed: false, ..add(2) };
    request(&mut quorum, 10, Request::AddVoter(no_wait));
    let kraft_version = Some(KRaftVersionRange::SUPPORTED);
    let versions = ApiVersionsResponse { error: ErrorCode::None, kraft_version };
    let asked = in_flight(&quorum)[0];
    let effects = quorum.on_response(20, asked, Response::ApiVersions(versions));
    assert_eq!(answer(&effects), done());
    let busy = request(&mut quorum, 25, remove(2));
    assert_eq!(answer(&busy).unwrap().0, ErrorCode::RequestTimedOut);
    flush(&mut quorum, 26);
    assert_eq!(answer(&fetch(&mut quorum, 2, 30)), None);
    assert_eq!(quorum.high_watermark(), Some(quorum.log().end_offset));
}

#[test]
fn a_new_voter_that_lags_or_cannot_run_the_version_or_does_not_answer_is_not_added() {
    let mut quorum = committed_leader(&[1]);
    let (error, message) = answer(&add_until_answered(&mut quorum, 2, (0, 1))).unwrap();
    assert_eq!(error, ErrorCode::RequestTimedOut);
    assert!(message.ends_with("since it is lagging behind"), "{message}");

    fetch(&mut quorum, 2, 15);
    let (error, message) = answer(&add_until_answered(&mut quorum, 2, (0, 0))).unwrap();
    assert_eq!(error, ErrorCode::InvalidRequest);
    assert!(message.contains("the kraft.version range (min: 0, max: 0 doesn't"), "{message}");

    request(&mut quorum, 30, Request::AddVoter(add(2)));
    let failed = Response::Failed(ErrorCode::BrokerNotAvailable);
    let asked = in_flight(&quorum)[0];
    let (error, message) = answer(&quorum.on_response(31, asked, failed)).unwrap();
    assert_eq!(error, ErrorCode::RequestTimedOut);
    assert!(message.ends_with("an error BROKER_NOT_AVAILABLE"), "{message}");
    let (_, message) = answer(&request(&mut quorum, 32, Request::AddVoter(add(2)))).unwrap();
    assert!(message.ends_with("is not ready to receive requests"), "{message}");

    request(&mut quorum, 100, Request::AddVoter(add(2)));
    assert_eq!(quorum.next_deadline_ms(), 2_100);
    let effects = quorum.on_tick(2_100);
    assert_eq!(
        answer(&effects),
        Some((ErrorCode::RequestTimedOut, "The request timed out.".into()))
    );
    assert_eq!(voter_ids(&quorum), [1]);
}

#[test]
fn a_change_is_refused_before_it_does_anything_for_the_reasons_that_kafka_gives() {
    let invalid = AddVoterRequest { voter: ReplicaKey { id: 2, directory_id: None }, ..add(2) };
    let nowhere = AddVoterRequest { endpoints: Endpoints::default(), ..add(2) };
    let add = |id| Request::AddVoter(add(id));
    type Case = (Quorum, Request, ErrorCode, &'static str);
    let follower = || start(config(), dynamic(&[1, 2, 3]), Election::elected(5, 2));
    let mut uncommitted = leader(dynamic(&[1, 2, 3]));
    fetch(&mut uncommitted, 2, 0);
    request(&mut uncommitted, 0, remove(3));
    uncommitted.on_tick(2_000);
    let cases: [Case; 11] = [
        (follower(), add(4), ErrorCode::NotLeaderOrFollower, ""),
        (follower(), remove(3), ErrorCode::NotLeaderOrFollower, ""),
        (
            committed_leader(&[1]),
            Request::AddVoter(invalid),
            ErrorCode::InvalidRequest,
            "Add voter request didn't include a valid voter",
        ),
        (
            committed_leader(&[1]),
            Request::AddVoter(nowhere),
            ErrorCode::InvalidRequest,
            "Add voter request didn't include the endpoint (Endpoints(endpoints={})) for the default listener ListenerName(CONTROLLER)",
        ),
        (
            leader(dynamic(&[1, 2, 3])),
            add(4),
            ErrorCode::RequestTimedOut,
            "Request timed out waiting for leader to establish HWM and fence previous voter changes",
        ),
        (
            leader(static_voters(&[1])),
            remove(1),
            ErrorCode::UnsupportedVersion,
            "Cluster doesn't support removing voter because the kraft.version feature is 0",
        ),
        (
            uncommitted,
            add(4),
            ErrorCode::RequestTimedOut,
            "Request timed out waiting for voters to commit the latest voter change at Optional[3] with HWM 3",
        ),
        (
            committed_leader(&[1, 2, 3]),
            add(3),
            ErrorCode::DuplicateVoter,
            "The voter id for ReplicaKey(id=3, directoryId=AwMDAwMDAwMDAwMDAwMDAw) is already part of the set of voters [ReplicaKey(id=1, directoryId=AQEBAQEBAQEBAQEBAQEBAQ), ReplicaKey(id=2, directoryId=AgICAgICAgICAgICAgICAg), ReplicaKey(id=3, directoryId=AwMDAwMDAwMDAwMDAwMDAw)].",
        ),
        (
            committed_leader(&[1]),
            remove(2),
            ErrorCode::VoterNotFound,
            "Cannot remove voter ReplicaKey(id=2, directoryId=AgICAgICAgICAgICAgICAg) from the set of voters [ReplicaKey(id=1, directoryId=AQEBAQEBAQEBAQEBAQEBAQ)]",
        ),
        (
            committed_leader(&[1]),
            remove(1),
            ErrorCode::VoterNotFound,
            "Cannot remove voter ReplicaKey(id=1, directoryId=AQEBAQEBAQEBAQEBAQEBAQ) from the set of voters [ReplicaKey(id=1, directoryId=AQEBAQEBAQEBAQEBAQEBAQ)]",
        ),
        (
            committed_leader(&[1]),
            Request::RemoveVoter(RemoveVoterRequest {
                voter: ReplicaKey { id: 1, directory_id: None },
            }),
            ErrorCode::InvalidRequest,
            "Remove voter request didn't include a valid voter",
        ),
    ];
    for (mut quorum, change, error, message) in cases {
        let voters = voter_ids(&quorum);
        let effects = request(&mut quorum, 0, change);
        assert_eq!(answer(&effects), Some((error, message.to_owned())));
        assert_eq!(voter_ids(&quorum), voters);
        assert_eq!(appended_membership(&effects), None);
    }
}

#[test]
fn a_request_from_another_cluster_is_told_so_in_its_own_form() {
    let mut quorum = committed_leader(&[1]);
    let foreign = Inbound { cluster_id: Some("other".into()), request: remove(1) };
    let effects = quorum.on_request(0, RequestId(7), foreign);
    let message = "The given id \"other\" doesn't match the cluster id \"cluster\"";
    assert_eq!(answer(&effects), Some((ErrorCode::InconsistentClusterId, message.into())));
}

#[test]
fn a_leader_that_is_removed_counts_the_others_only_and_resigns_once_that_is_committed() {
    let mut quorum = committed_leader(&[1, 2, 3]);
    request(&mut quorum, 10, remove(1));
    assert_eq!((voter_ids(&quorum), quorum.is_leader()), (vec![2, 3], true));
    let before = quorum.high_watermark();
    flush(&mut quorum, 11);
    fetch(&mut quorum, 2, 12);
    assert_eq!(quorum.high_watermark(), before, "one of two is no majority, whoever leads");
    let description = quorum.describe(13).unwrap();
    assert_eq!(description.voters.len(), 2);
    assert_eq!(description.observers[0].key, key(1));
    assert_eq!(description.observers[0].last_fetch_ms, Some(13));
    let effects = fetch(&mut quorum, 3, 14);
    assert_eq!(answer(&effects), done());
    assert!(effects.contains(&Effect::Resigned { epoch: quorum.epoch() }));
    assert_eq!(quorum.role(), RoleName::Resigned);
    let told = effects.iter().filter(|effect| {
        matches!(effect, Effect::Send { request: Request::EndQuorumEpoch(_), .. })
    });
    assert_eq!(told.count(), 2);
    for _ in 0..100 {
        quorum.on_tick(quorum.next_deadline_ms());
        assert!(!matches!(quorum.role(), RoleName::Prospective | RoleName::Candidate));
    }
}

#[test]
fn a_removed_leader_resigns_even_if_nobody_waits_for_the_removal_any_more() {
    let mut quorum = committed_leader(&[1, 2]);
    request(&mut quorum, 10, remove(1));
    quorum.on_tick(1_000);
    fetch_at(&mut quorum, 2, 1_500, 3);
    let effects = quorum.on_tick(2_010);
    assert_eq!(answer(&effects).unwrap().0, ErrorCode::RequestTimedOut);
    assert!(quorum.is_leader());
    fetch(&mut quorum, 2, 2_020);
    assert_eq!(quorum.role(), RoleName::Resigned);
}

/// A fetch that acknowledges only the records below `offset`.
fn fetch_at(quorum: &mut Quorum, id: BrokerId, now_ms: i64, offset: Offset) {
    let fetch = FetchRequest {
        replica: key(id),
        current_leader_epoch: quorum.epoch(),
        fetch_offset: offset,
        last_fetched_epoch: quorum.epoch(),
        high_watermark: None,
        max_wait_ms: 0,
        max_bytes: 1024,
    };
    request(quorum, now_ms, Request::Fetch(fetch));
}

#[test]
fn the_loss_of_leadership_ends_a_change() {
    let mut quorum = committed_leader(&[1, 2, 3]);
    request(&mut quorum, 10, remove(3));
    let epoch = quorum.epoch();
    let (error, message) = answer(&quorum.resign(20, epoch)).unwrap();
    assert_eq!(error, ErrorCode::NotLeaderOrFollower);
    assert!(message.starts_with("For requests intended only for the leader"), "{message}");
}

#[test]
fn the_only_voter_that_gets_a_second_one_is_given_time_to_hear_from_it() {
    let mut quorum = committed_leader(&[1]);
    quorum.on_tick(100_000);
    fetch(&mut quorum, 2, 100_000);
    request(&mut quorum, 110_000, Request::AddVoter(add(2)));
    let kraft_version = Some(KRaftVersionRange::SUPPORTED);
    let versions = ApiVersionsResponse { error: ErrorCode::None, kraft_version };
    let asked = in_flight(&quorum)[0];
    quorum.on_response(110_000, asked, Response::ApiVersions(versions));
    assert_eq!(voter_ids(&quorum), [1, 2]);
    quorum.on_tick(112_999);
    assert!(quorum.is_leader());
    quorum.on_tick(113_000);
    assert_eq!(quorum.role(), RoleName::Resigned);
}

fn update(quorum: &Quorum, voter: Voter) -> Request {
    Request::UpdateVoter(UpdateVoterRequest {
        leader_epoch: quorum.epoch(),
        voter: voter.key,
        endpoints: voter.endpoints,
        supported_kraft_version: voter.supported_kraft_version,
    })
}

fn update_error(quorum: &mut Quorum, update: Request) -> (ErrorCode, bool) {
    let effects = request(quorum, 10, update);
    let error = effects.iter().find_map(|effect| match effect {
        Effect::Reply { reply: Reply::UpdateVoter(answer), .. } => Some(answer.error),
        _ => None,
    });
    (error.expect("an answer"), appended_membership(&effects).is_some())
}

#[test]
fn a_voter_that_has_moved_is_written_down_and_a_stranger_is_not() {
    let moved = Voter { endpoints: Endpoints::single(LISTENER.into(), address(99)), ..voter(2) };
    let mut quorum = committed_leader(&[1, 2, 3]);
    let request = update(&quorum, moved.clone());
    assert_eq!(update_error(&mut quorum, request.clone()), (ErrorCode::None, true));
    assert_eq!(quorum.membership().voters.latest().get(2), Some(&moved));
    assert_eq!(update_error(&mut quorum, request), (ErrorCode::RequestTimedOut, false));

    let elsewhere = ReplicaKey::new(2, Uuid::from_bytes([77; 16]));
    let old = KRaftVersionRange { min: 0, max: 0 };
    let inverted = KRaftVersionRange { min: 1, max: 0 };
    let refused = [
        (voter(4), ErrorCode::VoterNotFound),
        (Voter { key: elsewhere, ..voter(2) }, ErrorCode::VoterNotFound),
        (Voter { supported_kraft_version: old, ..voter(2) }, ErrorCode::InvalidRequest),
        (Voter { supported_kraft_version: inverted, ..voter(2) }, ErrorCode::InvalidRequest),
        (Voter { endpoints: Endpoints::default(), ..voter(2) }, ErrorCode::InvalidRequest),
        (voter(1), ErrorCode::InvalidRequest),
    ];
    for (voter, error) in refused {
        let mut quorum = committed_leader(&[1, 2, 3]);
        let request = update(&quorum, voter);
        assert_eq!(update_error(&mut quorum, request), (error, false));
    }
    let mut follower = start(config(), dynamic(&[1, 2, 3]), Election::elected(5, 2));
    let request = update(&follower, voter(3));
    assert_eq!(update_error(&mut follower, request), (ErrorCode::NotLeaderOrFollower, false));
}

#[test]
fn kraft_version_is_upgraded_once_every_voter_has_said_that_it_can() {
    let mut quorum = leader(static_voters(&[1, 2, 3]));
    let epoch = quorum.epoch();
    let early = update(&quorum, voter(2));
    assert_eq!(update_error(&mut quorum, early), (ErrorCode::RequestTimedOut, false));
    fetch(&mut quorum, 2, 0);
    let upgrade = |quorum: &mut Quorum, validate_only| {
        quorum.upgrade_kraft_version(20, epoch, 1, validate_only)
    };
    for id in [2, 3] {
        let too_early = Err(KRaftUpgradeError::Unsupported { to: 1 });
        assert_eq!(upgrade(&mut quorum, false), too_early);
        let request = update(&quorum, voter(id));
        assert_eq!(update_error(&mut quorum, request), (ErrorCode::None, false));
    }
    let stale = quorum.upgrade_kraft_version(20, epoch - 1, 1, false).unwrap_err();
    assert_eq!(stale.code(), ErrorCode::NotController);
    assert_eq!(appended_membership(&upgrade(&mut quorum, true).unwrap()), None);
    let effects = upgrade(&mut quorum, false).unwrap();
    let batch = appended_membership(&effects).unwrap();
    assert_eq!(batch.kraft_version, Some(1));
    assert_eq!(batch.voters, Some(VoterSet::new([1, 2, 3].map(voter))));
    assert_eq!(*quorum.membership().kraft_version.latest(), 1);
    assert_eq!(appended_membership(&upgrade(&mut quorum, false).unwrap()), None);
    let down = quorum.upgrade_kraft_version(20, epoch, 0, false).unwrap_err();
    assert_eq!(down.code(), ErrorCode::InvalidUpdateVersion);
    flush(&mut quorum, 30);
    fetch(&mut quorum, 3, 31);
    assert_eq!(quorum.high_watermark(), Some(quorum.log().end_offset));
}

fn follower(config: QuorumConfig, membership: Membership) -> Quorum {
    start(config, membership, Election::elected(5, 2))
}

/// Answers the follower's fetch, empty.
fn answer_fetch(quorum: &mut Quorum, now_ms: i64) -> Vec<Effect> {
    let response = FetchResponse {
        error: ErrorCode::None,
        leader: quorum.leader_info(),
        high_watermark: None,
        log_start_offset: 0,
        body: FetchBody::Records(Vec::new()),
    };
    let id = in_flight(quorum)[0];
    quorum.on_response(now_ms, id, Response::Fetch(response))
}

fn sent(effects: &[Effect]) -> Vec<&Request> {
    let requests = effects.iter().map(|effect| match effect {
        Effect::Send { request, .. } => Some(request),
        _ => None,
    });
    requests.flatten().collect()
}

#[test]
fn before_kraft_version_1_every_new_leader_is_told_where_the_voter_is() {
    let mut quorum = follower(config(), static_voters(&[1, 2, 3]));
    let effects = answer_fetch(&mut quorum, 1_999);
    assert!(matches!(sent(&effects)[..], [Request::Fetch(_)]));
    let effects = answer_fetch(&mut quorum, 2_000);
    assert_eq!(sent(&effects), [&update(&quorum, voter(1))]);
    let told = QuorumEpochResponse { error: ErrorCode::None, leader: quorum.leader_info() };
    let id = in_flight(&quorum)[0];
    let effects = quorum.on_response(2_001, id, Response::UpdateVoter(told));
    assert!(matches!(sent(&effects)[..], [Request::Fetch(_)]));
    let effects = answer_fetch(&mut quorum, 3_900);
    assert!(matches!(sent(&effects)[..], [Request::Fetch(_)]));
    let effects = answer_fetch(&mut quorum, 4_500);
    assert!(matches!(sent(&effects)[..], [Request::Fetch(_)]), "once is enough");
}

#[test]
fn from_kraft_version_1_on_only_what_is_out_of_date_is_told_until_it_is_not() {
    let mut current = follower(config(), dynamic(&[1, 2, 3]));
    assert!(matches!(sent(&answer_fetch(&mut current, 2_000))[..], [Request::Fetch(_)]));
    let moved = QuorumConfig { local_endpoints: endpoints(99), ..config() };
    let mut quorum = follower(moved, dynamic(&[1, 2, 3]));
    let effects = answer_fetch(&mut quorum, 2_000);
    assert!(matches!(sent(&effects)[..], [Request::UpdateVoter(_)]));
    let refused =
        QuorumEpochResponse { error: ErrorCode::RequestTimedOut, leader: quorum.leader_info() };
    let id = in_flight(&quorum)[0];
    let effects = quorum.on_response(2_001, id, Response::UpdateVoter(refused));
    assert!(matches!(sent(&effects)[..], [Request::Fetch(_)]), "it fetches meanwhile");
}

#[test]
fn an_observer_joins_by_itself_if_it_is_allowed_to_and_takes_its_former_self_out_first() {
    let joins = || QuorumConfig { auto_join: true, ..config() };
    let mut quorum = follower(joins(), dynamic(&[2, 3]));
    let effects = answer_fetch(&mut quorum, 2_000);
    let expected = AddVoterRequest { timeout_ms: 2_000, ack_when_committed: false, ..add(1) };
    assert_eq!(sent(&effects), [&Request::AddVoter(expected)]);
    let lagging = VoterChangeResponse { error: ErrorCode::RequestTimedOut, message: None };
    let id = in_flight(&quorum)[0];
    let effects = quorum.on_response(2_100, id, Response::AddVoter(lagging));
    assert!(matches!(sent(&effects)[..], [Request::Fetch(_)]));
    assert!(matches!(sent(&answer_fetch(&mut quorum, 4_099))[..], [Request::Fetch(_)]));
    assert!(matches!(sent(&answer_fetch(&mut quorum, 4_100))[..], [Request::AddVoter(_)]));

    let wiped = ReplicaKey::new(1, Uuid::from_bytes([77; 16]));
    let mut quorum = follower(QuorumConfig { local: wiped, ..joins() }, dynamic(&[1, 2, 3]));
    let effects = answer_fetch(&mut quorum, 2_000);
    assert_eq!(sent(&effects), [&remove(1)]);

    for idle in [
        follower(config(), dynamic(&[2, 3])),
        follower(QuorumConfig { can_become_voter: false, ..joins() }, dynamic(&[2, 3])),
        follower(joins(), static_voters(&[2, 3])),
    ] {
        let mut idle = idle;
        assert!(matches!(sent(&answer_fetch(&mut idle, 2_000))[..], [Request::Fetch(_)]));
    }
}

#[test]
fn an_observer_that_becomes_a_voter_syncs_before_it_fetches_on_and_may_then_campaign() {
    let never_a_voter = QuorumConfig { can_become_voter: false, ..config() };
    let mut quorum = follower(never_a_voter, dynamic(&[2, 3]));
    let batch = FetchedBatch {
        base_offset: 0,
        next_offset: 1,
        epoch: 5,
        changes: vec![(0, ControlChange::Voters(VoterSet::new([1, 2, 3].map(voter))))],
        bytes: bytes::Bytes::new(),
    };
    let response = FetchResponse {
        error: ErrorCode::None,
        leader: quorum.leader_info(),
        high_watermark: None,
        log_start_offset: 0,
        body: FetchBody::Records(vec![batch]),
    };
    let id = in_flight(&quorum)[0];
    let effects = quorum.on_response(100, id, Response::Fetch(response));
    assert!(sent(&effects).is_empty());
    let effects = flush(&mut quorum, 101);
    assert!(matches!(sent(&effects)[..], [Request::Fetch(_)]));
    quorum.on_tick(2_100);
    assert_eq!(quorum.role(), RoleName::Prospective);
}

#[test]
fn a_vote_for_oneself_from_before_the_loss_of_the_voter_set_makes_no_candidate() {
    let election = Election { voted: Some(key(1)), ..Election::unknown_leader(5) };
    let mut quorum = start(config(), dynamic(&[2, 3]), election);
    assert_eq!(quorum.role(), RoleName::Unattached);
    quorum.on_tick(100_000);
    assert_eq!(quorum.election().voted, Some(key(1)));
}

/// Node 1 with a log of one record, `voters` at offset 0.
fn with_voters_record(former: &[BrokerId], voters: &[BrokerId], election: Election) -> Quorum {
    let mut membership = dynamic(former);
    let voters = VoterSet::new(voters.iter().map(|&id| voter(id)));
    membership.apply(0, ControlChange::Voters(voters));
    let mut log = LogPosition { end_offset: 1, flushed_offset: 1, ..LogPosition::default() };
    log.epochs.assign(5, 0);
    let stored = StoredElection::new(election, 1, membership.voters.latest());
    let boot = Boot { election: Some(stored), log, membership };
    Quorum::start(config(), boot, 0).0
}

#[test]
fn a_leader_whose_own_removal_is_not_committed_campaigns_to_commit_it() {
    let mut quorum = with_voters_record(&[1, 2], &[2], Election::unknown_leader(6));
    let deadline_ms = quorum.role.next_deadline_ms(true);
    quorum.on_tick(deadline_ms);
    assert_eq!(quorum.role(), RoleName::Prospective);
    for _ in 0..2 {
        let leader = quorum.leader_info();
        let vote = VoteResponse { error: ErrorCode::None, leader, vote_granted: true };
        let asked = in_flight(&quorum)[0];
        quorum.on_response(deadline_ms, asked, Response::Vote(vote));
    }
    assert!(quorum.is_leader());
    flush(&mut quorum, deadline_ms);
    assert_eq!(quorum.high_watermark(), None, "it does not count itself");
    let effects = fetch(&mut quorum, 2, deadline_ms);
    assert_eq!(quorum.role(), RoleName::Resigned);
    assert_eq!(quorum.high_watermark(), Some(2));
    assert!(!effects.contains(&Effect::BecameLeader { epoch: quorum.epoch() }));
}

#[test]
fn a_voter_that_knows_its_removal_to_be_committed_campaigns_no_more() {
    let mut quorum = with_voters_record(&[1, 2, 3], &[2, 3], Election::elected(6, 2));
    assert_eq!(quorum.next_deadline_ms(), 2_000);
    let response = FetchResponse {
        error: ErrorCode::None,
        leader: quorum.leader_info(),
        high_watermark: Some(1),
        log_start_offset: 0,
        body: FetchBody::Records(Vec::new()),
    };
    let asked = in_flight(&quorum)[0];
    quorum.on_response(100, asked, Response::Fetch(response));
    quorum.on_tick(100_000);
    assert_eq!(quorum.role(), RoleName::Observer);
}

#[test]
fn what_a_snapshot_says_of_the_voters_is_committed() {
    let mut membership = static_voters(&[1, 2]);
    membership.apply(9, ControlChange::KRaftVersion(1));
    membership.apply(9, ControlChange::Voters(VoterSet::new([2, 3].map(voter))));
    let mut log = LogPosition::default();
    log.start_at_snapshot(OffsetAndEpoch::new(10, 5));
    let boot = Boot { election: None, log, membership };
    let mut quorum = Quorum::start(config(), boot, 0).0;
    quorum.on_tick(100_000);
    assert_eq!(quorum.role(), RoleName::Unattached);
}

#[test]
fn an_observer_that_hears_nothing_of_its_leader_gives_pre_votes_for_it_may_be_a_voter() {
    let mut quorum = follower(config(), dynamic(&[2, 3]));
    answer_fetch(&mut quorum, 100);
    let pre_vote = VoteRequest {
        replica: key(3),
        replica_epoch: 5,
        voter: Some(key(1)),
        log_end: OffsetAndEpoch::new(0, 0),
        pre_vote: true,
    };
    let mut granted = |now_ms| {
        let effects = request(&mut quorum, now_ms, Request::Vote(pre_vote.clone()));
        effects.into_iter().find_map(|effect| match effect {
            Effect::Reply { reply: Reply::Vote(vote), .. } => Some(vote.vote_granted),
            _ => None,
        })
    };
    assert_eq!(granted(2_099), Some(false));
    assert_eq!(granted(2_100), Some(true));
}
