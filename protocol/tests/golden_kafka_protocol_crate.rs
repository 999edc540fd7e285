//! A second opinion on the golden messages: the `kafka-protocol` crate reads and writes them too.
//!
//! It shows that the frames are what others than Kafka itself understand by them. Where that crate is
//! behind Kafka 4.3.1 or deviates from it, it is listed here, and the list is checked both ways.

#[path = "data/golden_fixture.rs"]
#[allow(dead_code, reason = "shared by tests that each use a part of it")]
mod fixture;

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use fixture::Fixture;
use kafka_protocol::messages::{self, ApiKey, RequestKind, ResponseKind};
use kafka_protocol::protocol::{Decodable, Encodable};
use klamm_protocol::ApiMessage;

/// Reads and writes the frame with the crate. The error says what it does not understand.
type Rewrite = Box<dyn Fn(Bytes, i16) -> Result<Bytes, String>>;

fn finish(left: Bytes, written: Result<Bytes, String>) -> Result<Bytes, String> {
    if left.is_empty() { written } else { Err(format!("{} bytes left", left.len())) }
}

fn request(key: i16) -> Option<Rewrite> {
    let key = ApiKey::try_from(key).ok()?;
    Some(Box::new(move |mut bytes, version| {
        let request = RequestKind::decode(key, &mut bytes, version).map_err(reason)?;
        let mut out = BytesMut::new();
        let written = request.encode(&mut out, version).map_err(reason);
        finish(bytes, written.map(|()| out.freeze()))
    }))
}

fn response(key: i16) -> Option<Rewrite> {
    let key = ApiKey::try_from(key).ok()?;
    Some(Box::new(move |mut bytes, version| {
        let response = ResponseKind::decode(key, &mut bytes, version).map_err(reason)?;
        let mut out = BytesMut::new();
        let written = response.encode(&mut out, version).map_err(reason);
        finish(bytes, written.map(|()| out.freeze()))
    }))
}

fn message<M: Decodable + Encodable>() -> Rewrite {
    Box::new(|mut bytes, version| {
        let message = M::decode(&mut bytes, version).map_err(reason)?;
        let mut out = BytesMut::new();
        let written = message.encode(&mut out, version).map_err(reason);
        finish(bytes, written.map(|()| out.freeze()))
    })
}

fn reason(error: impl std::fmt::Display) -> String {
    format!("{error:#}")
}

/// Everything that the crate has a message of the same name for.
fn rewrites() -> BTreeMap<&'static str, Rewrite> {
    let mut all: BTreeMap<&'static str, Rewrite> = BTreeMap::new();
    macro_rules! add {
        (request, $module:ident, $message:ident) => {
            let key = klamm_protocol::messages::$module::$message::API_KEY;
            all.extend(request(key).map(|rewrite| (stringify!($message), rewrite)));
        };
        (response, $module:ident, $message:ident) => {
            let key = klamm_protocol::messages::$module::$message::API_KEY;
            all.extend(response(key).map(|rewrite| (stringify!($message), rewrite)));
        };
        // The crate has no list of its other messages.
        ($kind:ident, $module:ident, $message:ident) => {};
    }
    klamm_protocol::for_each_message!(add);
    macro_rules! others {
        ($($message:ident)*) => { $(
            all.insert(stringify!($message), message::<messages::$message>());
        )* };
    }
    others! {
        RequestHeader ResponseHeader ConsumerProtocolAssignment ConsumerProtocolSubscription
        DefaultPrincipalData KRaftVersionRecord LeaderChangeMessage SnapshotFooterRecord
        SnapshotHeaderRecord VotersRecord
    }
    all
}

/// Versions of Kafka 4.3.1 that the crate does not know: it was generated from the schemas of an
/// older Kafka.
const BEHIND: &[(&str, i16)] = &[
    ("AddRaftVoterRequest", 1),
    ("AddRaftVoterResponse", 1),
    ("BrokerHeartbeatRequest", 2),
    ("BrokerHeartbeatResponse", 2),
    ("DescribeLogDirsRequest", 5),
    ("DescribeLogDirsResponse", 5),
    ("DescribeShareGroupOffsetsRequest", 1),
    ("DescribeShareGroupOffsetsResponse", 1),
    ("InitProducerIdRequest", 6),
    ("ListOffsetsRequest", 11),
    ("ListOffsetsResponse", 11),
    ("OffsetCommitRequest", 10),
    ("OffsetFetchRequest", 10),
    ("ReadShareGroupStateSummaryRequest", 1),
    ("ReadShareGroupStateSummaryResponse", 1),
    ("ShareAcknowledgeRequest", 2),
    ("ShareAcknowledgeResponse", 2),
    ("ShareFetchRequest", 2),
    ("ShareFetchResponse", 2),
    ("WriteShareGroupStateRequest", 1),
    ("WriteShareGroupStateResponse", 1),
    ("WriteTxnMarkersRequest", 2),
    ("WriteTxnMarkersResponse", 2),
];

/// Messages with a field called `Version`: the crate's decoders take its value for the version that
/// the structs below it are in.
const MISTAKEN: &[(&str, i16)] =
    &[("LeaderChangeMessage", 0), ("LeaderChangeMessage", 1), ("VotersRecord", 0)];

/// Requests and responses that came after the crate (KIP-1071).
const MISSING: &[&str] = &[
    "StreamsGroupDescribeRequest",
    "StreamsGroupDescribeResponse",
    "StreamsGroupHeartbeatRequest",
    "StreamsGroupHeartbeatResponse",
];

/// What the crate makes of the golden frames: versions with a frame that it refuses, by its reason.
fn refusals(fixture: &Fixture) -> BTreeMap<(&str, i16), String> {
    let rewrites = rewrites();
    let mut refusals = BTreeMap::new();
    for (name, golden) in &fixture.messages {
        let Some(rewrite) = rewrites.get(name.as_str()) else { continue };
        for (version, frame) in &golden.frames {
            match rewrite(frame.clone(), *version) {
                Ok(bytes) => assert_eq!(bytes, *frame, "{name} v{version}"),
                Err(error) => drop(refusals.insert((name.as_str(), *version), error)),
            }
        }
    }
    refusals
}

#[test]
fn the_kafka_protocol_crate_writes_every_golden_frame_as_it_was_but_for_versions_it_lacks() {
    let fixture = Fixture::load();
    let refusals = refusals(&fixture);
    let mut expected: Vec<_> = BEHIND.iter().chain(MISTAKEN).copied().collect();
    expected.sort_unstable();
    assert_eq!(refusals.keys().copied().collect::<Vec<_>>(), expected, "{refusals:?}");
    for ((name, version), why) in refusals {
        assert!(why.contains("version not supported"), "{name} v{version}: {why}");
    }
}

#[test]
fn the_kafka_protocol_crate_has_all_requests_and_responses_but_those_listed() {
    let rewrites = rewrites();
    let fixture = Fixture::load();
    let wire = |name: &&str| name.ends_with("Request") || name.ends_with("Response");
    let names = fixture.messages.keys().map(String::as_str).filter(wire);
    let missing: Vec<_> = names.filter(|name| !rewrites.contains_key(name)).collect();
    assert_eq!(missing, MISSING);
}
