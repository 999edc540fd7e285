//! OffsetDelete. (Kafka: `OffsetMetadataManager.deleteOffsets`)

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::offset_delete_request::{
    OffsetDeleteRequest, OffsetDeleteRequestTopic,
};
use klamm_protocol::messages::offset_delete_response::{
    OffsetDeleteResponse, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};

use crate::group::classic::ClassicGroup;
use crate::group::classic::state::State;
use crate::group::record::GroupRecord;
use crate::group::response::Response;
use crate::group::shard::GroupShard;
use crate::runtime::{Effects, RequestToken};

impl GroupShard {
    /// Deletes committed offsets of topics that no member subscribes to, pending transactional ones included. The
    /// handler answers unknown topics and partitions.
    pub fn on_offset_delete(
        &self,
        token: RequestToken,
        request: &OffsetDeleteRequest,
        effects: &mut Effects<Self>,
    ) {
        let mut response = OffsetDeleteResponse::default();
        match self.group_for_offset_delete(request) {
            Err(error) => response.error_code = error.code(),
            Ok(group) => {
                for topic in &request.topics {
                    let is_read = group.is_subscribed_to(&topic.name);
                    response.topics.push(topic_answer(topic, is_read));
                    if !is_read {
                        effects.records.extend(self.delete_records(request, topic));
                    }
                }
            }
        }
        effects.reply_when_committed(token, Response::OffsetDelete(response));
    }

    fn group_for_offset_delete(
        &self,
        request: &OffsetDeleteRequest,
    ) -> Result<&ClassicGroup, ErrorCode> {
        if request.group_id.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        if self.is_not_run(&request.group_id) {
            // It may have members, whose subscriptions are unknown here.
            return Err(ErrorCode::NonEmptyGroup);
        }
        let group = self.classic_group(&request.group_id).ok_or(ErrorCode::GroupIdNotFound)?;
        if group.state() != State::Empty && !group.uses_consumer_protocol() {
            return Err(ErrorCode::NonEmptyGroup);
        }
        Ok(group)
    }

    fn delete_records(
        &self,
        request: &OffsetDeleteRequest,
        topic: &OffsetDeleteRequestTopic,
    ) -> Vec<GroupRecord> {
        let offsets = &self.offsets;
        let partitions = topic.partitions.iter().map(|partition| partition.partition_index);
        let stored = partitions.filter(|partition| {
            offsets.committed(&request.group_id, &topic.name, *partition).is_some()
                || offsets.is_pending(&request.group_id, &topic.name, *partition)
        });
        stored
            .map(|partition| {
                GroupRecord::offset_tombstone(&request.group_id, &topic.name, partition)
            })
            .collect()
    }
}

fn topic_answer(topic: &OffsetDeleteRequestTopic, is_read: bool) -> OffsetDeleteResponseTopic {
    let error = if is_read { ErrorCode::GroupSubscribedToTopic } else { ErrorCode::None };
    let partitions = topic.partitions.iter().map(|partition| OffsetDeleteResponsePartition {
        partition_index: partition.partition_index,
        error_code: error.code(),
    });
    OffsetDeleteResponseTopic { name: topic.name.clone(), partitions: partitions.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::harness::{GROUP, Harness, TOPIC, committing, joining, protocol};
    use klamm_protocol::messages::join_group_request::JoinGroupRequest;
    use klamm_protocol::messages::offset_delete_request::OffsetDeleteRequestPartition;

    fn request(group: &'static str, topic: &'static str) -> OffsetDeleteRequest {
        OffsetDeleteRequest {
            group_id: group.into(),
            topics: vec![OffsetDeleteRequestTopic {
                name: topic.into(),
                partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
            }],
        }
    }

    /// The error of the response, and that of the partition if there is one.
    fn delete(harness: &mut Harness, request: &OffsetDeleteRequest) -> (i16, Option<i16>) {
        let token = harness.send(|shard, token, effects| {
            shard.on_offset_delete(token, request, effects);
        });
        let Response::OffsetDelete(response) = harness.answer(token) else { panic!() };
        let partition = response.topics.first().map(|topic| topic.partitions[0].error_code);
        (response.error_code, partition)
    }

    #[test]
    fn offsets_of_an_empty_group_can_be_deleted() {
        let mut harness = Harness::new();
        harness.commit_offset(&committing(5));
        assert_eq!(delete(&mut harness, &request(GROUP, TOPIC)), (0, Some(0)));
        assert_eq!(harness.committed_offset(), -1);
        assert_eq!(harness.log.last().unwrap().value, None);
        // Deleting a missing offset is no error, and writes no record.
        let written = harness.log.len();
        assert_eq!(delete(&mut harness, &request(GROUP, TOPIC)), (0, Some(0)));
        assert_eq!(harness.log.len(), written);
    }

    #[test]
    fn groups_that_cannot_be_looked_into_are_refused() {
        let mut harness = Harness::new();
        let invalid = ErrorCode::InvalidGroupId.code();
        assert_eq!(delete(&mut harness, &request("", TOPIC)), (invalid, None));
        let not_found = ErrorCode::GroupIdNotFound.code();
        assert_eq!(delete(&mut harness, &request(GROUP, TOPIC)), (not_found, None));
        let connect = JoinGroupRequest { protocol_type: "connect".into(), ..joining("") };
        harness.join(3, connect);
        harness.advance(3_000);
        let non_empty = ErrorCode::NonEmptyGroup.code();
        assert_eq!(delete(&mut harness, &request(GROUP, TOPIC)), (non_empty, None));
    }

    #[test]
    fn topics_that_a_member_reads_keep_their_offsets() {
        let mut harness = Harness::new();
        harness.commit_offset(&committing(5));
        let subscription = "\0\0\0\0\0\x01\0\x01t\0\0\0\0";
        let subscribed =
            JoinGroupRequest { protocols: vec![protocol("range", subscription)], ..joining("") };
        harness.join(3, subscribed);
        harness.advance(3_000);
        let subscribed = ErrorCode::GroupSubscribedToTopic.code();
        assert_eq!(delete(&mut harness, &request(GROUP, "t")), (0, Some(subscribed)));
        assert_eq!(delete(&mut harness, &request(GROUP, TOPIC)), (0, Some(0)));
        assert_eq!(harness.committed_offset(), -1);
    }

    #[test]
    fn a_consumer_group_with_unreadable_subscriptions_may_read_everything() {
        let mut harness = Harness::new();
        harness.stable(1);
        let subscribed = ErrorCode::GroupSubscribedToTopic.code();
        assert_eq!(delete(&mut harness, &request(GROUP, TOPIC)), (0, Some(subscribed)));
    }
}
