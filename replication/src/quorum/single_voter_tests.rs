//! One voter: from an empty directory to committed records, and over restarts.

use super::message::{
    FetchReply, FetchReplyBody, FetchRequest, Inbound, Reply, Request, VoteRequest,
};
use super::*;
use crate::{EpochHistory, EpochStart};
use bytes::Bytes;
use klamm_protocol::{ErrorCode, Uuid};

const LISTENER: &str = "CONTROLLER";

fn local() -> ReplicaKey {
    ReplicaKey::new(1, Uuid::from_bytes([7; 16]))
}

fn config() -> QuorumConfig {
    let endpoints = Endpoints::single(LISTENER.into(), address());
    let config = QuorumConfig::with_defaults(local(), LISTENER.into(), "cluster".into());
    QuorumConfig { local_endpoints: endpoints, ..config }
}

fn address() -> Address {
    Address { host: "localhost".into(), port: 9093 }
}

fn one_voter() -> Membership {
    Membership::new(VoterSet::from_static(&LISTENER.into(), [(1, address())]))
}

fn empty_boot() -> Boot {
    Boot { election: None, log: LogPosition::default(), membership: one_voter() }
}

/// The tickets among the effects; each is one sync of the log.
fn tickets(effects: &[Effect]) -> Vec<FlushTicket> {
    let ticket = |effect: &Effect| match effect {
        Effect::Flush(ticket) => Some(*ticket),
        _ => None,
    };
    effects.iter().filter_map(ticket).collect()
}

fn stored(election: Election) -> StoredElection {
    StoredElection { election, format: StoredFormat::V0 { voter_ids: vec![1] } }
}

fn log_with(epoch: LeaderEpoch, end_offset: Offset) -> LogPosition {
    LogPosition {
        end_offset,
        flushed_offset: end_offset,
        epochs: EpochHistory::from_entries([EpochStart { epoch, start_offset: 0 }]),
        ..LogPosition::default()
    }
}

fn leader() -> Quorum {
    let (mut quorum, effects) = Quorum::start(config(), empty_boot(), 0);
    quorum.on_flushed(0, tickets(&effects)[0]);
    quorum
}

#[test]
fn an_empty_node_leads_epoch_1_at_once_and_its_election_is_on_disk_before_anything_is_appended() {
    let (quorum, effects) = Quorum::start(config(), empty_boot(), 0);
    assert!(quorum.is_leader());
    assert_eq!((quorum.epoch(), quorum.high_watermark()), (1, None));
    let voted = Election { voted: Some(local()), ..Election::unknown_leader(1) };
    let expected_batch = EpochStartBatch {
        leader_id: 1,
        voter_ids: vec![1],
        granting_voter_ids: vec![1],
        timestamp_ms: 0,
        membership: None,
    };
    let ticket = tickets(&effects)[0];
    assert_eq!(
        effects,
        [
            Effect::LeaderChanged { epoch: 0, leader_id: None },
            Effect::PersistElection(stored(voted)),
            Effect::LeaderChanged { epoch: 1, leader_id: None },
            Effect::PersistElection(stored(Election::elected(1, 1))),
            Effect::LeaderChanged { epoch: 1, leader_id: Some(1) },
            Effect::Append {
                base_offset: 0,
                epoch: 1,
                batch: AppendBatch::EpochStart(expected_batch)
            },
            Effect::Flush(ticket),
        ]
    );
}

#[test]
fn nothing_is_committed_before_it_is_flushed_and_the_controller_starts_when_its_epoch_is() {
    let (mut quorum, effects) = Quorum::start(config(), empty_boot(), 0);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::CommitTo { .. })));
    let effects = quorum.on_flushed(1, tickets(&effects)[0]);
    assert_eq!(
        effects,
        [Effect::CommitTo { high_watermark: 1 }, Effect::BecameLeader { epoch: 1 }]
    );
}

#[test]
fn appends_during_a_flush_share_the_next_one() {
    let mut quorum = leader();
    let first = quorum.append(2, 1, 2, Bytes::from_static(b"a")).unwrap();
    let ticket = tickets(&first)[0];
    let second = quorum.append(2, 1, 1, Bytes::from_static(b"b")).unwrap();
    assert_eq!(
        second,
        [Effect::Append {
            base_offset: 3,
            epoch: 1,
            batch: AppendBatch::Records(Bytes::from_static(b"b"))
        }]
    );
    let third = quorum.append(2, 1, 1, Bytes::from_static(b"c")).unwrap();
    assert!(tickets(&third).is_empty());
    let flushed = quorum.on_flushed(3, ticket);
    assert_eq!(flushed[0], Effect::CommitTo { high_watermark: 3 });
    let group = tickets(&flushed)[0];
    assert_eq!(quorum.on_flushed(4, group), [Effect::CommitTo { high_watermark: 5 }]);
}

#[test]
fn an_append_for_another_epoch_is_refused() {
    let mut quorum = leader();
    let error = quorum.append(0, 2, 1, Bytes::new()).unwrap_err();
    assert_eq!(error, NotLeader { requested: 2, current: 1 });
    assert_eq!(error.code(), ErrorCode::NotController);
}

#[test]
fn a_restart_leads_a_new_epoch_and_never_the_old_one_again() {
    let boot = Boot {
        election: Some(stored(Election::elected(1, 1))),
        log: log_with(1, 5),
        membership: one_voter(),
    };
    let (quorum, effects) = Quorum::start(config(), boot, 0);
    assert!(quorum.is_leader());
    assert_eq!(quorum.epoch(), 2);
    let appended = effects.iter().find_map(|effect| match effect {
        Effect::Append { base_offset, epoch, .. } => Some((*base_offset, *epoch)),
        _ => None,
    });
    assert_eq!(appended, Some((5, 2)));
}

#[test]
fn a_node_that_had_voted_for_itself_but_not_led_completes_that_election() {
    let voted = Election { voted: Some(local()), ..Election::unknown_leader(4) };
    let boot = Boot { election: Some(stored(voted)), log: log_with(3, 5), membership: one_voter() };
    let (quorum, _) = Quorum::start(config(), boot, 0);
    assert_eq!((quorum.is_leader(), quorum.epoch()), (true, 4));
}

#[test]
fn a_log_that_is_ahead_of_the_file_sets_the_epoch() {
    let boot = Boot {
        election: Some(stored(Election::elected(1, 1))),
        log: log_with(7, 5),
        membership: one_voter(),
    };
    let (quorum, _) = Quorum::start(config(), boot, 0);
    assert_eq!((quorum.is_leader(), quorum.epoch()), (true, 8));
}

#[test]
fn a_recovered_log_that_is_not_synced_counts_only_after_a_flush() {
    let log = LogPosition { flushed_offset: 0, ..log_with(1, 5) };
    let boot =
        Boot { election: Some(stored(Election::elected(1, 1))), log, membership: one_voter() };
    let (mut quorum, effects) = Quorum::start(config(), boot, 0);
    let committed = quorum.on_flushed(0, tickets(&effects)[0]);
    assert_eq!(committed[0], Effect::CommitTo { high_watermark: 6 });
}

#[test]
fn at_kraft_version_1_the_first_leader_writes_the_voters_of_the_bootstrap_snapshot_down() {
    let voters = VoterSet::new([Voter {
        key: local(),
        endpoints: Endpoints::single(LISTENER.into(), address()),
        supported_kraft_version: KRaftVersionRange { min: 0, max: 1 },
    }]);
    let mut membership = Membership::new(VoterSet::default());
    membership.apply(Membership::BOOTSTRAP_OFFSET, ControlChange::KRaftVersion(1));
    membership.apply(Membership::BOOTSTRAP_OFFSET, ControlChange::Voters(voters.clone()));
    let boot = Boot { election: None, log: LogPosition::default(), membership };
    let (quorum, effects) = Quorum::start(config(), boot.clone(), 0);
    let batch = effects.iter().find_map(|effect| match effect {
        Effect::Append { batch: AppendBatch::EpochStart(batch), .. } => Some(batch.clone()),
        _ => None,
    });
    assert_eq!(batch.unwrap().membership, Some((1, voters)));
    assert_eq!(quorum.log().end_offset, 3);
    assert_eq!(quorum.membership().voters.latest_offset(), Some(2));

    // The next leader finds them in the log and does not repeat them.
    let boot =
        Boot { election: None, log: log_with(1, 3), membership: quorum.membership().clone() };
    let (quorum, _) = Quorum::start(config(), boot, 0);
    assert_eq!(quorum.log().end_offset, 4);
}

#[test]
fn a_directory_that_was_replaced_is_no_voter_and_never_campaigns() {
    let voters = VoterSet::new([Voter {
        key: ReplicaKey::new(1, Uuid::from_bytes([8; 16])),
        endpoints: Endpoints::single(LISTENER.into(), address()),
        supported_kraft_version: KRaftVersionRange { min: 0, max: 1 },
    }]);
    let mut membership = Membership::new(VoterSet::default());
    membership.apply(Membership::BOOTSTRAP_OFFSET, ControlChange::Voters(voters));
    let boot = Boot { election: None, log: LogPosition::default(), membership };
    let (mut quorum, _) = Quorum::start(config(), boot, 0);
    quorum.on_tick(1_000_000);
    assert_eq!((quorum.role(), quorum.epoch()), (RoleName::Unattached, 0));
}

#[test]
fn the_only_voter_needs_no_timer_and_no_peer() {
    let mut quorum = leader();
    assert_eq!(quorum.next_deadline_ms(), i64::MAX);
    assert_eq!(quorum.on_tick(1_000_000), []);
    assert!(quorum.is_leader());
}

#[test]
fn a_resigned_leader_stops_at_once_and_leads_again_in_a_later_epoch() {
    let mut quorum = leader();
    let effects = quorum.resign(10, 1);
    assert!(effects.contains(&Effect::Resigned { epoch: 1 }));
    assert!(quorum.append(10, 1, 1, Bytes::new()).is_err());
    quorum.on_tick(quorum.next_deadline_ms());
    assert_eq!((quorum.is_leader(), quorum.epoch()), (true, 3));
}

fn inbound(request: Request) -> Inbound {
    Inbound { cluster_id: Some("cluster".into()), request }
}

fn fetch(fetch_offset: Offset, known: Offset) -> Inbound {
    inbound(Request::Fetch(FetchRequest {
        replica: ReplicaKey { id: 5, directory_id: None },
        current_leader_epoch: 1,
        fetch_offset,
        last_fetched_epoch: 1.min(i32::try_from(fetch_offset).unwrap()),
        high_watermark: Some(known),
        max_wait_ms: 500,
        max_bytes: 1024,
    }))
}

fn fetch_reply(effects: &[Effect]) -> Option<FetchReply> {
    effects.iter().find_map(|effect| match effect {
        Effect::Reply { reply: Reply::Fetch(reply), .. } => Some(reply.clone()),
        _ => None,
    })
}

#[test]
fn an_observers_fetch_waits_for_records_and_for_the_high_watermark() {
    let mut quorum = leader();
    assert_eq!(fetch_reply(&quorum.on_request(5, RequestId(1), fetch(1, 1))), None);
    let appended = quorum.append(6, 1, 1, Bytes::from_static(b"a")).unwrap();
    let reply = fetch_reply(&appended).unwrap();
    assert_eq!(reply.body, FetchReplyBody::Records { offset: 1, max_bytes: 1024 });
    assert_eq!(reply.high_watermark, Some(1));

    assert_eq!(fetch_reply(&quorum.on_request(7, RequestId(2), fetch(2, 1))), None);
    let flushed = quorum.on_flushed(8, tickets(&appended)[0]);
    let reply = fetch_reply(&flushed).unwrap();
    assert_eq!((reply.body, reply.high_watermark), (FetchReplyBody::Empty, Some(2)));

    assert_eq!(fetch_reply(&quorum.on_request(9, RequestId(3), fetch(2, 2))), None);
    assert_eq!(quorum.next_deadline_ms(), 509);
    assert!(fetch_reply(&quorum.on_tick(509)).is_some());
}

#[test]
fn hostile_requests_are_refused_and_change_nothing() {
    let mut quorum = leader();
    let vote = |replica_epoch, last_epoch, offset, pre_vote| VoteRequest {
        replica: ReplicaKey { id: 2, directory_id: None },
        replica_epoch,
        voter: None,
        log_end: OffsetAndEpoch::new(offset, last_epoch),
        pre_vote,
    };
    for (vote, expected) in [
        (vote(2, 2, 0, false), ErrorCode::InvalidRequest),
        (vote(2, 3, 0, true), ErrorCode::InvalidRequest),
        (vote(2, -1, 0, false), ErrorCode::InvalidRequest),
        (vote(2, 1, -1, false), ErrorCode::InvalidRequest),
        (vote(0, 0, 0, true), ErrorCode::FencedLeaderEpoch),
    ] {
        let effects = quorum.on_request(0, RequestId(1), inbound(Request::Vote(vote.clone())));
        let [Effect::Reply { reply: Reply::Vote(reply), .. }] = &effects[..] else {
            panic!("{effects:?}")
        };
        assert_eq!((reply.error, reply.vote_granted), (expected, false), "{vote:?}");
    }
    let foreign =
        Inbound { cluster_id: Some("other".into()), request: Request::Vote(vote(9, 1, 9, false)) };
    assert_eq!(
        quorum.on_request(0, RequestId(2), foreign),
        [Effect::Reply {
            request_id: RequestId(2),
            reply: Reply::Refused(ErrorCode::InconsistentClusterId)
        }]
    );
    for (epoch, offset, last, expected) in [
        (1, -1, 0, ErrorCode::InvalidRequest),
        (1, 0, -1, ErrorCode::InvalidRequest),
        (1, 0, 2, ErrorCode::InvalidRequest),
        (0, 0, 0, ErrorCode::FencedLeaderEpoch),
        (2, 0, 0, ErrorCode::UnknownLeaderEpoch),
    ] {
        let request = FetchRequest {
            replica: ReplicaKey { id: 5, directory_id: None },
            current_leader_epoch: epoch,
            fetch_offset: offset,
            last_fetched_epoch: last,
            high_watermark: None,
            max_wait_ms: 500,
            max_bytes: 1024,
        };
        let effects = quorum.on_request(0, RequestId(3), inbound(Request::Fetch(request)));
        assert_eq!(fetch_reply(&effects).unwrap().error, expected);
    }
    assert_eq!((quorum.is_leader(), quorum.epoch()), (true, 1));
}

#[test]
fn the_description_has_the_leader_caught_up_and_lists_observers() {
    let mut quorum = leader();
    quorum.on_request(40, RequestId(1), fetch(1, 0));
    let described = quorum.describe(50).unwrap();
    assert_eq!((described.leader_id, described.leader_epoch), (1, 1));
    assert_eq!(described.high_watermark, Some(1));
    assert_eq!(described.voters.len(), 1);
    // At kraft.version 0 voters have no directory ids, and Apache Kafka's answer has none.
    assert_eq!(described.voters[0].key, ReplicaKey { directory_id: None, ..local() });
    assert_eq!(described.voters[0].last_caught_up_ms, Some(50));
    assert_eq!(described.observers[0].end_offset, Some(1));
    assert_eq!(described.observers[0].last_caught_up_ms, Some(40));
}
