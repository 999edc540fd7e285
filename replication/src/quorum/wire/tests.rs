//! Every message is encoded and decoded, at every version that the quorum uses.

use super::super::EpochStartBatch;
use super::super::message::*;
use super::super::voters::{Address, Endpoints, KRaftVersionRange, ReplicaKey};
use super::*;
use crate::OffsetAndEpoch;
use bytes::Bytes;
use klamm_protocol::{Decoder, ErrorCode, Message, Uuid};

const LISTENER: ByteString = ByteString::from_static("CONTROLLER");

fn key(id: BrokerId) -> ReplicaKey {
    ReplicaKey::new(id, Uuid::from_bytes([u8::try_from(id).unwrap(); 16]))
}

fn endpoints() -> Endpoints {
    Endpoints::single(LISTENER, Address { host: "localhost".into(), port: 9093 })
}

fn leader() -> LeaderInfo {
    LeaderInfo { epoch: 5, leader_id: Some(2), endpoints: endpoints() }
}

fn nobody() -> LeaderInfo {
    LeaderInfo { epoch: 5, leader_id: None, endpoints: Endpoints::default() }
}

fn over_the_wire<M: Message>(message: &M, version: i16) -> M {
    let mut decoder = Decoder::new(message.encoded(version).unwrap());
    M::decode(&mut decoder, version).unwrap()
}

fn received(message: RequestMessage, version: i16) -> Request {
    let inbound = match message {
        RequestMessage::Vote(message) => vote_request(over_the_wire(&message, version)),
        RequestMessage::BeginQuorumEpoch(message) => {
            begin_quorum_epoch_request(over_the_wire(&message, version))
        }
        RequestMessage::EndQuorumEpoch(message) => {
            end_quorum_epoch_request(over_the_wire(&message, version))
        }
        RequestMessage::Fetch(message) => fetch_request(over_the_wire(&message, version)),
        RequestMessage::FetchSnapshot(message) => {
            fetch_snapshot_request(over_the_wire(&message, version))
        }
        RequestMessage::AddRaftVoter(message) => {
            Ok(add_raft_voter_request(over_the_wire(&message, version)))
        }
        RequestMessage::RemoveRaftVoter(message) => {
            Ok(remove_raft_voter_request(over_the_wire(&message, version)))
        }
        RequestMessage::UpdateRaftVoter(message) => {
            Ok(update_raft_voter_request(over_the_wire(&message, version)))
        }
        RequestMessage::ApiVersions => panic!("the shell's own"),
    };
    let inbound = inbound.unwrap();
    assert_eq!(inbound.cluster_id, Some("cluster".into()));
    inbound.request
}

fn there(request: Request, version: i16) -> Request {
    received(request_message(request, &"cluster".into()), version)
}

fn vote(pre_vote: bool) -> VoteRequest {
    VoteRequest {
        replica: key(1),
        replica_epoch: 5,
        voter: Some(key(2)),
        log_end: OffsetAndEpoch::new(10, 4),
        pre_vote,
    }
}

fn add_voter(ack_when_committed: bool) -> AddVoterRequest {
    AddVoterRequest { timeout_ms: 2_000, voter: key(2), endpoints: endpoints(), ack_when_committed }
}

#[test]
fn requests_arrive_as_they_were_sent() {
    let fetch = FetchRequest {
        replica: key(1),
        current_leader_epoch: 5,
        fetch_offset: 10,
        last_fetched_epoch: 4,
        high_watermark: Some(9),
        max_wait_ms: 500,
        max_bytes: 1024,
    };
    let begin = BeginQuorumEpochRequest {
        leader_id: 1,
        leader_epoch: 5,
        voter: Some(key(2)),
        leader_endpoints: endpoints(),
    };
    let end = EndQuorumEpochRequest {
        leader_id: 1,
        leader_epoch: 5,
        preferred_candidates: vec![key(3), key(2)],
        leader_endpoints: endpoints(),
    };
    let snapshot = FetchSnapshotRequest {
        replica: key(1),
        current_leader_epoch: 5,
        snapshot_id: OffsetAndEpoch::new(10, 4),
        position: 7,
        max_bytes: 1024,
    };
    let add = add_voter(true);
    let no_wait = add_voter(false);
    let remove = RemoveVoterRequest { voter: key(2) };
    let update = UpdateVoterRequest {
        leader_epoch: 5,
        voter: key(2),
        endpoints: endpoints(),
        supported_kraft_version: KRaftVersionRange { min: 0, max: 1 },
    };
    let cases = [
        (Request::AddVoter(add), 0),
        (Request::AddVoter(no_wait), 1),
        (Request::RemoveVoter(remove), 0),
        (Request::UpdateVoter(update), 0),
        (Request::Vote(vote(true)), 2),
        (Request::Vote(vote(false)), 1),
        (Request::BeginQuorumEpoch(begin), 1),
        (Request::EndQuorumEpoch(end), 1),
        (Request::Fetch(fetch), 18),
        (Request::FetchSnapshot(snapshot), 1),
    ];
    for (request, version) in cases {
        assert_eq!(there(request.clone(), version), request, "{version}");
    }
}

#[test]
fn older_versions_say_less() {
    let without_ids = ReplicaKey { id: 1, directory_id: None };
    let old = VoteRequest { replica: without_ids, voter: None, ..vote(false) };
    assert_eq!(there(Request::Vote(vote(false)), 0), Request::Vote(old));
    let RequestMessage::Vote(pre_vote) =
        request_message(Request::Vote(vote(true)), &"cluster".into())
    else {
        panic!("not a vote")
    };
    assert!(pre_vote.encoded(1).is_err(), "a pre-vote must not become a vote");
    let RequestMessage::AddRaftVoter(no_wait) =
        request_message(Request::AddVoter(add_voter(false)), &"cluster".into())
    else {
        panic!("not an AddRaftVoter")
    };
    assert!(no_wait.encoded(0).is_err(), "it would be answered too late");
    let end = EndQuorumEpochRequest {
        leader_id: 1,
        leader_epoch: 5,
        preferred_candidates: vec![key(3)],
        leader_endpoints: endpoints(),
    };
    let by_id = vec![ReplicaKey { id: 3, directory_id: None }];
    let Request::EndQuorumEpoch(old) = there(Request::EndQuorumEpoch(end), 0) else {
        panic!("not an EndQuorumEpoch")
    };
    assert_eq!(old.preferred_candidates, by_id);
    assert!(old.leader_endpoints.is_empty());
}

#[test]
fn answers_arrive_as_they_were_given_and_old_ones_do_not_say_where_the_leader_is() {
    for leader in [leader(), nobody()] {
        for version in 0..=2 {
            let expected = match version {
                0 => LeaderInfo { endpoints: Endpoints::default(), ..leader.clone() },
                _ => leader.clone(),
            };
            let answer = VoteResponse {
                error: ErrorCode::InvalidVoterKey,
                leader: leader.clone(),
                vote_granted: true,
            };
            let message = over_the_wire(&vote_response(&answer, version, &LISTENER), version);
            let received = read_vote_response(message, &LISTENER);
            assert_eq!(received, Response::Vote(VoteResponse { leader: expected, ..answer }));
        }
        for version in 0..=1 {
            let expected = match version {
                0 => LeaderInfo { endpoints: Endpoints::default(), ..leader.clone() },
                _ => leader.clone(),
            };
            let answer =
                QuorumEpochResponse { error: ErrorCode::FencedLeaderEpoch, leader: leader.clone() };
            let begin = begin_quorum_epoch_response(&answer, version, &LISTENER);
            let begin = read_begin_quorum_epoch_response(over_the_wire(&begin, version), &LISTENER);
            let end = end_quorum_epoch_response(&answer, version, &LISTENER);
            let end = read_end_quorum_epoch_response(over_the_wire(&end, version), &LISTENER);
            let expected = QuorumEpochResponse { leader: expected, ..answer };
            assert_eq!(begin, Response::BeginQuorumEpoch(expected.clone()));
            assert_eq!(end, Response::EndQuorumEpoch(expected));
        }
    }
}

#[test]
fn answers_about_the_voter_set_arrive_as_they_were_given() {
    let message = Some("no such voter".to_owned());
    let answer = VoterChangeResponse { error: ErrorCode::VoterNotFound, message };
    for version in 0..=1 {
        let add = over_the_wire(&add_raft_voter_response(&answer), version);
        assert_eq!(read_add_raft_voter_response(add), Response::AddVoter(answer.clone()));
    }
    let remove = over_the_wire(&remove_raft_voter_response(&answer), 0);
    assert_eq!(read_remove_raft_voter_response(remove), Response::RemoveVoter(answer));
    for leader in [leader(), nobody()] {
        let answer = QuorumEpochResponse { error: ErrorCode::FencedLeaderEpoch, leader };
        let update = over_the_wire(&update_raft_voter_response(&answer, &LISTENER), 0);
        let read = read_update_raft_voter_response(update, &LISTENER);
        assert_eq!(read, Response::UpdateVoter(answer));
    }
}

#[test]
fn what_a_new_voter_supports_is_the_range_of_kraft_version() {
    use klamm_protocol::messages::api_versions_response::{
        ApiVersionsResponse as Message, SupportedFeatureKey,
    };
    let feature = |name: &'static str, min_version, max_version| SupportedFeatureKey {
        name: name.into(),
        min_version,
        max_version,
    };
    let supported_features =
        vec![feature("metadata.version", 7, 30), feature("kraft.version", 0, 1)];
    let message = Message { supported_features, ..Message::default() };
    let range = |message| match read_api_versions_response(&over_the_wire(message, 4)) {
        Response::ApiVersions(answer) => (answer.error, answer.kraft_version),
        other => panic!("{other:?}"),
    };
    let supported = Some(KRaftVersionRange { min: 0, max: 1 });
    assert_eq!(range(&message), (ErrorCode::None, supported));
    assert_eq!(range(&Message::default()), (ErrorCode::None, None));
}

fn fetch_reply(body: FetchReplyBody) -> FetchReply {
    FetchReply {
        error: ErrorCode::None,
        leader: leader(),
        high_watermark: Some(9),
        log_start_offset: 3,
        body,
    }
}

fn fetched(reply: &FetchReply, records: Bytes, version: i16) -> Response {
    let message = fetch_response(reply, records, version, &LISTENER);
    read_fetch_response(over_the_wire(&message, version), &LISTENER)
}

#[test]
fn a_fetch_answers_with_records_a_divergence_or_a_snapshot() {
    let start = EpochStartBatch {
        leader_id: 2,
        voter_ids: vec![2],
        granting_voter_ids: vec![2],
        timestamp_ms: 0,
        membership: None,
    };
    let records = start.encode(10, 5).unwrap().bytes;
    let end = OffsetAndEpoch::new(10, 4);
    for version in [17, 18] {
        let body = FetchReplyBody::Records { offset: 10, max_bytes: 1024 };
        let Response::Fetch(answer) = fetched(&fetch_reply(body), records.clone(), version) else {
            panic!("no answer")
        };
        assert_eq!((answer.error, answer.leader), (ErrorCode::None, leader()));
        assert_eq!((answer.high_watermark, answer.log_start_offset), (Some(9), 3));
        let FetchBody::Records(batches) = answer.body else { panic!("no records") };
        assert_eq!((batches.len(), &batches[0].bytes), (1, &records));
        assert_eq!((batches[0].base_offset, batches[0].next_offset, batches[0].epoch), (10, 11, 5));

        for (body, expected) in [
            (FetchReplyBody::Diverging(end), FetchBody::Diverging(end)),
            (FetchReplyBody::Snapshot(end), FetchBody::Snapshot(end)),
            (FetchReplyBody::Empty, FetchBody::Records(Vec::new())),
        ] {
            let Response::Fetch(answer) = fetched(&fetch_reply(body), Bytes::new(), version) else {
                panic!("no answer")
            };
            assert_eq!(answer.body, expected);
        }
    }
    let unknown = FetchReply { high_watermark: None, ..fetch_reply(FetchReplyBody::Empty) };
    assert!(matches!(fetched(&unknown, Bytes::new(), 17),
        Response::Fetch(answer) if answer.high_watermark.is_none()));
    let mut damaged = records.to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let body = FetchReplyBody::Records { offset: 10, max_bytes: 1024 };
    assert_eq!(
        fetched(&fetch_reply(body), Bytes::from(damaged), 17),
        Response::Failed(ErrorCode::CorruptMessage)
    );
}

#[test]
fn a_snapshot_piece_arrives_or_says_why_not() {
    let reply = FetchSnapshotReply {
        error: ErrorCode::None,
        leader: leader(),
        snapshot_id: OffsetAndEpoch::new(10, 4),
        position: 3,
        max_bytes: 1024,
    };
    let answer = |reply: &FetchSnapshotReply, piece| {
        let message = fetch_snapshot_response(reply, piece, 1, &LISTENER);
        match read_fetch_snapshot_response(over_the_wire(&message, 1), &LISTENER) {
            Response::FetchSnapshot(answer) => answer,
            other => panic!("{other:?}"),
        }
    };
    let piece = SnapshotPiece { size: 9, bytes: Bytes::from_static(b"abc") };
    let given = answer(&reply, Ok(piece.clone()));
    assert_eq!((given.error, given.leader), (ErrorCode::None, leader()));
    assert_eq!((given.snapshot_id, given.size), (reply.snapshot_id, 9));
    assert_eq!((given.position, given.bytes), (3, piece.bytes.clone()));
    let missing = answer(&reply, Err(ErrorCode::SnapshotNotFound));
    assert_eq!((missing.error, missing.size), (ErrorCode::SnapshotNotFound, 0));
    let refused = FetchSnapshotReply { error: ErrorCode::FencedLeaderEpoch, ..reply };
    assert_eq!(answer(&refused, Ok(piece)).error, ErrorCode::FencedLeaderEpoch);
}

#[test]
fn requests_that_are_not_about_the_metadata_log_are_refused() {
    let RequestMessage::Vote(good) = request_message(Request::Vote(vote(false)), &"c".into())
    else {
        panic!("not a vote")
    };
    let mut empty = good.clone();
    empty.topics.clear();
    let mut two = good.clone();
    two.topics.push(good.topics[0].clone());
    let mut other_topic = good.clone();
    other_topic.topics[0].topic_name = "orders".into();
    let mut other_partition = good.clone();
    other_partition.topics[0].partitions[0].partition_index = 1;
    let mut no_partition = good;
    no_partition.topics[0].partitions.clear();
    for bad in [empty, two, other_topic, other_partition, no_partition] {
        assert_eq!(vote_request(bad), Err(ErrorCode::InvalidRequest));
    }
}

#[test]
fn a_top_level_error_and_an_empty_answer_are_failures() {
    use klamm_protocol::messages::vote_response::VoteResponse as Message;
    let error_code = ErrorCode::ClusterAuthorizationFailed.code();
    let refused = Message { error_code, ..Message::default() };
    assert_eq!(
        read_vote_response(refused, &LISTENER),
        Response::Failed(ErrorCode::ClusterAuthorizationFailed)
    );
    assert_eq!(
        read_vote_response(Message::default(), &LISTENER),
        Response::Failed(ErrorCode::UnknownTopicOrPartition)
    );
}
