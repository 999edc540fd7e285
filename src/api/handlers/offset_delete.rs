//! OffsetDelete (key 47): removes committed offsets of topics that a group does not read.

use bytestring::ByteString;
use indexmap::IndexMap;
use klamm_metadata::image::ClusterImage;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::offset_delete_request::{
    OffsetDeleteRequest, OffsetDeleteRequestTopic,
};
use klamm_protocol::messages::offset_delete_response::{
    OffsetDeleteResponse, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;

message_replies!(OffsetDeleteResponse);

pub(crate) async fn handle(
    context: RequestContext,
    mut body: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let image = context.services.metadata_cache.image();
    let unknown = take_unknown(&image, &mut body.topics);
    let pending = context.services.groups.send_member_request(
        &image,
        &body.group_id,
        |shard, token, effects| {
            shard.on_offset_delete(token, &body, effects);
        },
    );
    let response = pending.answer().await.unwrap_or_else(|error| OffsetDeleteResponse {
        error_code: error.code(),
        ..Default::default()
    });
    merge(response, unknown)
}

/// Removes topics and partitions that do not exist from the request; returns their answers.
fn take_unknown(
    image: &ClusterImage,
    topics: &mut Vec<OffsetDeleteRequestTopic>,
) -> Vec<OffsetDeleteResponseTopic> {
    let mut unknown = Vec::new();
    for topic in topics.iter_mut() {
        let found = image.topics.by_name(&topic.name);
        let exists = |index| found.is_some_and(|found| found.partition(index).is_some());
        let missing = topic.partitions.iter().filter(|p| !exists(p.partition_index));
        let missing: Vec<_> = missing
            .map(|partition| OffsetDeleteResponsePartition {
                partition_index: partition.partition_index,
                error_code: ErrorCode::UnknownTopicOrPartition.code(),
            })
            .collect();
        if found.is_none() || !missing.is_empty() {
            unknown
                .push(OffsetDeleteResponseTopic { name: topic.name.clone(), partitions: missing });
        }
        topic.partitions.retain(|partition| exists(partition.partition_index));
    }
    topics.retain(|topic| !topic.partitions.is_empty());
    unknown
}

/// If the whole request has an error, the answer has no partitions.
fn merge(
    mut response: OffsetDeleteResponse,
    unknown: Vec<OffsetDeleteResponseTopic>,
) -> OffsetDeleteResponse {
    if response.error_code != 0 {
        response.topics.clear();
        return response;
    }
    let mut topics: IndexMap<ByteString, Vec<OffsetDeleteResponsePartition>> = IndexMap::new();
    for topic in response.topics.into_iter().chain(unknown) {
        topics.entry(topic.name).or_default().extend(topic.partitions);
    }
    let topics =
        topics.into_iter().map(|(name, partitions)| OffsetDeleteResponseTopic { name, partitions });
    response.topics = topics.collect();
    response
}

#[cfg(test)]
mod tests {
    use klamm_protocol::messages::offset_delete_request::OffsetDeleteRequestPartition;

    use super::*;

    #[test]
    fn what_does_not_exist_is_answered_beside_what_does() {
        let topic = |name: &'static str| OffsetDeleteRequestTopic {
            name: name.into(),
            partitions: vec![OffsetDeleteRequestPartition { partition_index: 3 }],
        };
        let mut topics = vec![topic("nowhere")];
        let unknown = take_unknown(&ClusterImage::default(), &mut topics);
        assert!(topics.is_empty());
        let merged = merge(OffsetDeleteResponse::default(), unknown.clone());
        assert_eq!(merged.topics, unknown);
        assert_eq!(unknown[0].partitions[0].partition_index, 3);
        assert_eq!(unknown[0].partitions[0].error_code, ErrorCode::UnknownTopicOrPartition.code());
    }

    #[test]
    fn an_error_of_the_whole_stands_alone() {
        let error_code = ErrorCode::NonEmptyGroup.code();
        let failed = OffsetDeleteResponse { error_code, ..Default::default() };
        let merged = merge(failed, vec![OffsetDeleteResponseTopic::default()]);
        assert!(merged.topics.is_empty());
    }
}
