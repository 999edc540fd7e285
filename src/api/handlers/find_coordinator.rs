//! FindCoordinator (key 10): the broker that coordinates a group.
//!
//! The first request for a group creates `__consumer_offsets`. Transactions and share groups are not served: clients
//! get COORDINATOR_NOT_AVAILABLE for their coordinators.

use bytestring::ByteString;
use klamm_metadata::image::ClusterImage;
use klamm_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use klamm_protocol::messages::find_coordinator_response::{Coordinator, FindCoordinatorResponse};
use klamm_protocol::{ErrorCode, Uuid};
use tracing::warn;

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;
use crate::cluster::internal_topics::CONSUMER_OFFSETS;
use crate::coordinator::partition_of;

/// The first version with several keys (KIP-699).
const FIRST_WITH_KEYS: i16 = 4;
/// The first version that may request the coordinator of a share group (KIP-932).
const FIRST_WITH_SHARE: i16 = 6;
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

message_replies!(FindCoordinatorResponse);

pub(crate) async fn handle(
    context: RequestContext,
    body: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let keys =
        if context.version() < FIRST_WITH_KEYS { vec![body.key] } else { body.coordinator_keys };
    let coordinators = find(&context, context.version(), body.key_type, keys).await;
    lower(coordinators, context.version())
}

async fn find(
    context: &RequestContext,
    version: i16,
    key_type: i8,
    keys: Vec<ByteString>,
) -> Vec<Coordinator> {
    match key_type {
        GROUP => find_groups(context, keys).await,
        TRANSACTION => refuse(keys, |_| ErrorCode::CoordinatorNotAvailable),
        SHARE => refuse(keys, |key| match share_partition_key(key) {
            Some(_) if version >= FIRST_WITH_SHARE => ErrorCode::CoordinatorNotAvailable,
            _ => ErrorCode::InvalidRequest,
        }),
        unknown => {
            let message = format!("Unknown coordinator type {unknown}");
            let mut refused = refuse(keys, |_| ErrorCode::InvalidRequest);
            for coordinator in &mut refused {
                coordinator.error_message = Some(message.clone().into());
            }
            refused
        }
    }
}

async fn find_groups(context: &RequestContext, keys: Vec<ByteString>) -> Vec<Coordinator> {
    if keys.is_empty() {
        return Vec::new();
    }
    if let Err(error) = context.services.auto_topics.ensure_internal_topic(CONSUMER_OFFSETS).await {
        warn!("{CONSUMER_OFFSETS} cannot be created, so groups have no coordinator: {error}");
    }
    let image = context.services.metadata_cache.image();
    keys.into_iter()
        .map(|key| {
            coordinator(&image, context.listener(), &key)
                .unwrap_or_else(|| refused(key, ErrorCode::CoordinatorNotAvailable))
        })
        .collect()
}

/// The leader of the group's partition, if clients of this listener can reach it.
fn coordinator(image: &ClusterImage, listener: &str, key: &ByteString) -> Option<Coordinator> {
    let index = partition_of(image, key)?;
    let leader = image.topics.by_name(CONSUMER_OFFSETS)?.partition(index)?.leader?;
    let broker = image.brokers.get(leader).filter(|broker| !broker.fenced)?;
    let endpoint = broker.listeners.get(listener)?;
    Some(Coordinator {
        key: key.clone(),
        node_id: leader,
        host: endpoint.host.clone(),
        port: i32::from(endpoint.port),
        ..Default::default()
    })
}

fn refuse(keys: Vec<ByteString>, error: impl Fn(&str) -> ErrorCode) -> Vec<Coordinator> {
    let refuse = |key: ByteString| {
        let error = error(&key);
        refused(key, error)
    };
    keys.into_iter().map(refuse).collect()
}

fn refused(key: ByteString, error: ErrorCode) -> Coordinator {
    Coordinator { key, node_id: -1, port: -1, error_code: error.code(), ..Default::default() }
}

/// Parses `group:topic id:partition`; a group id may have colons itself.
fn share_partition_key(key: &str) -> Option<(&str, Uuid, i32)> {
    let (rest, partition) = key.rsplit_once(':')?;
    let (group, topic_id) = rest.rsplit_once(':')?;
    if group.trim().is_empty() {
        return None;
    }
    Some((group, topic_id.parse().ok()?, partition.parse().ok()?))
}

/// Before version 4 the answer has one coordinator, always with an error message.
fn lower(coordinators: Vec<Coordinator>, version: i16) -> FindCoordinatorResponse {
    if version >= FIRST_WITH_KEYS {
        return FindCoordinatorResponse { coordinators, ..Default::default() };
    }
    let [only] = <[Coordinator; 1]>::try_from(coordinators).expect("one key has one coordinator");
    let text = only.error_message.filter(|message| !message.is_empty()).unwrap_or_else(|| {
        ErrorCode::from_code(only.error_code).expect("a code of ours").message().into()
    });
    FindCoordinatorResponse {
        error_code: only.error_code,
        error_message: Some(text),
        node_id: only.node_id,
        host: only.host,
        port: only.port,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Message;

    use super::*;

    #[test]
    fn every_answer_fits_every_version() {
        for version in FindCoordinatorResponse::VERSIONS {
            let refusals = refuse(vec!["g".into()], |_| ErrorCode::CoordinatorNotAvailable);
            let lowered = lower(refusals, version);
            assert!(lowered.encoded(version).is_ok(), "{version}");
            assert_eq!(lowered.error_message.is_some_and(|text| !text.is_empty()), version < 4);
        }
    }

    #[test]
    fn keys_of_share_partitions_are_taken_apart_from_their_end() {
        let id = "AAAAAAAAAAAAAAAAAAAAAQ";
        let key = format!("a:b:{id}:7");
        assert_eq!(share_partition_key(&key), Some(("a:b", Uuid::METADATA_TOPIC, 7)));
        let malformed = ["nocolons", "g:7", &format!(" :{id}:7"), "g:id:7", &format!("g:{id}:x")];
        for key in malformed {
            assert_eq!(share_partition_key(key), None, "{key}");
        }
    }
}
