//! OffsetCommit. (Kafka: `OffsetMetadataManager.commitOffset`, `ClassicGroup.validateOffsetCommit`)

use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{none_if_minus_one, none_if_negative, or_minus_one};
use klamm_protocol::messages::offset_commit_key::OffsetCommitKey;
use klamm_protocol::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use klamm_protocol::messages::offset_commit_response::{
    OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use klamm_protocol::messages::offset_commit_value::OffsetCommitValue;

use crate::group::classic::ClassicGroup;
use crate::group::classic::state::State;
use crate::group::record::GroupRecord;
use crate::group::response::Response;
use crate::group::shard::GroupShard;
use crate::runtime::{Effects, RequestToken};

impl GroupShard {
    /// Commits offsets, by a member of the group or, while the group has no members, by any client.
    ///
    /// Every topic of the request needs its name *and* its id: the handler resolves one from the other and answers
    /// unknown topics and partitions itself. A member of a group that does not exist gets GROUP_ID_NOT_FOUND if
    /// `reports_missing`, otherwise ILLEGAL_GENERATION.
    pub fn on_offset_commit(
        &mut self,
        token: RequestToken,
        request: &OffsetCommitRequest,
        reports_missing: bool,
        effects: &mut Effects<Self>,
    ) {
        let refusal = self.check_commit(request, reports_missing).err();
        if refusal.is_none() {
            self.extend_session(request, effects);
        }
        let topics = request.topics.iter().map(|topic| OffsetCommitResponseTopic {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partitions: topic
                .partitions
                .iter()
                .map(|partition| OffsetCommitResponsePartition {
                    partition_index: partition.partition_index,
                    error_code: refusal.unwrap_or_else(|| self.check_metadata(partition)).code(),
                })
                .collect(),
        });
        let response = OffsetCommitResponse { topics: topics.collect(), ..Default::default() };
        if refusal.is_none() {
            effects.records = self.commit_records(request, effects.now.wall_ms);
        }
        effects.reply_when_committed(token, Response::OffsetCommit(response));
    }

    fn check_commit(
        &self,
        request: &OffsetCommitRequest,
        reports_missing: bool,
    ) -> Result<(), ErrorCode> {
        let generation_id = none_if_negative(request.generation_id_or_member_epoch);
        if self.is_not_run(&request.group_id) {
            // The members of a group of another type are unknown here, so every member id is.
            return Err(ErrorCode::UnknownMemberId);
        }
        match self.classic_group(&request.group_id) {
            Some(group) => group.check_commit(
                &request.member_id,
                request.group_instance_id.as_ref(),
                generation_id,
            ),
            None if generation_id.is_none() => Ok(()),
            None if reports_missing => Err(ErrorCode::GroupIdNotFound),
            None => Err(ErrorCode::IllegalGeneration),
        }
    }

    /// A commit extends the member's session too.
    fn extend_session(&mut self, request: &OffsetCommitRequest, effects: &mut Effects<Self>) {
        if let Some(mut context) = self.classic_context(&request.group_id, effects)
            && matches!(context.group.state(), State::Stable | State::PreparingRebalance)
        {
            context.restart_session(&request.member_id);
        }
    }

    fn check_metadata(&self, partition: &OffsetCommitRequestPartition) -> ErrorCode {
        let metadata = partition.committed_metadata.as_deref().unwrap_or_default();
        // A string has no more UTF-16 units than bytes.
        let limit = self.config.offset_metadata_max_size;
        if metadata.len() > limit && metadata.encode_utf16().count() > limit {
            ErrorCode::OffsetMetadataTooLarge
        } else {
            ErrorCode::None
        }
    }

    fn commit_records(&self, request: &OffsetCommitRequest, wall_ms: i64) -> Vec<GroupRecord> {
        let mut records = Vec::new();
        for topic in &request.topics {
            for partition in &topic.partitions {
                if self.check_metadata(partition) == ErrorCode::None {
                    records.push(commit_record(request, topic, partition, wall_ms));
                }
            }
        }
        records
    }
}

fn commit_record(
    request: &OffsetCommitRequest,
    topic: &OffsetCommitRequestTopic,
    partition: &OffsetCommitRequestPartition,
    wall_ms: i64,
) -> GroupRecord {
    // Without a retention time of its own, that of offsets.retention.minutes counts.
    let retention_ms = none_if_minus_one(request.retention_time_ms);
    let expire_timestamp_ms = retention_ms.map(|ms| wall_ms.saturating_add(ms));
    let key = OffsetCommitKey {
        group: request.group_id.clone(),
        topic: topic.name.clone(),
        partition: partition.partition_index,
    };
    let value = OffsetCommitValue {
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch,
        metadata: partition.committed_metadata.clone().unwrap_or_default(),
        commit_timestamp: wall_ms,
        expire_timestamp: or_minus_one(expire_timestamp_ms),
        topic_id: topic.topic_id,
    };
    GroupRecord::OffsetCommit { key, value: Some(value) }
}

impl ClassicGroup {
    /// Checks who may commit: while the group is empty, any client without a generation; otherwise the members of the
    /// current generation, except between JoinGroup and SyncGroup.
    fn check_commit(
        &self,
        member_id: &str,
        instance_id: Option<&ByteString>,
        generation_id: Option<i32>,
    ) -> Result<(), ErrorCode> {
        let is_empty = self.state() == State::Empty;
        if generation_id.is_none() && is_empty {
            return Ok(());
        }
        let claims_membership =
            generation_id.is_some() || !member_id.is_empty() || instance_id.is_some();
        if !claims_membership {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.validate_member(member_id, instance_id)?;
        if generation_id != Some(self.generation_id) {
            return Err(ErrorCode::IllegalGeneration);
        }
        if self.state() == State::CompletingRebalance {
            return Err(ErrorCode::RebalanceInProgress);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::harness::{
        GROUP, Harness, SESSION_MS, TOPIC, committing, committing_as, joining,
    };

    #[test]
    fn anybody_may_commit_to_a_group_without_members() {
        let mut harness = Harness::new();
        assert_eq!(harness.commit_offset(&committing(5)), ErrorCode::None);
        assert_eq!(harness.committed_offset(), 5);
        assert_eq!(harness.state_name(), "Empty");
        // Negative offsets are not checked, as in Kafka.
        assert_eq!(harness.commit_offset(&committing(-5)), ErrorCode::None);
        assert_eq!(harness.committed_offset(), -5);
    }

    #[test]
    fn a_group_with_an_empty_id_can_hold_offsets() {
        let mut harness = Harness::new();
        let request = OffsetCommitRequest { group_id: "".into(), ..committing(5) };
        assert_eq!(harness.commit_offset(&request), ErrorCode::None);
    }

    #[test]
    fn a_generation_of_an_unknown_group_is_refused_in_words_that_the_client_knows() {
        let mut harness = Harness::new();
        let request = committing_as(&"m".into(), 1, 5);
        for (reports_missing, expected) in
            [(false, ErrorCode::IllegalGeneration), (true, ErrorCode::GroupIdNotFound)]
        {
            let token = harness.send(|shard, token, effects| {
                shard.on_offset_commit(token, &request, reports_missing, effects);
            });
            assert_eq!(harness.commit_error(token), expected);
        }
        assert_eq!(harness.log.len(), 0);
        assert_eq!(harness.state_name(), "Dead");
    }

    #[test]
    fn a_group_with_members_takes_commits_of_its_generation_only() {
        let mut harness = Harness::new();
        let members = harness.stable(1);
        let member = &members[0];
        let nobody = "nobody".into();
        let fenced = OffsetCommitRequest {
            group_instance_id: Some("i".into()),
            ..committing_as(member, 1, 5)
        };
        let cases = [
            (committing_as(member, 1, 5), ErrorCode::None),
            (committing_as(member, 2, 5), ErrorCode::IllegalGeneration),
            (committing_as(member, -1, 5), ErrorCode::IllegalGeneration),
            (committing_as(&nobody, 1, 5), ErrorCode::UnknownMemberId),
            (committing(5), ErrorCode::UnknownMemberId),
            (fenced, ErrorCode::UnknownMemberId),
        ];
        for (request, expected) in cases {
            assert_eq!(harness.commit_offset(&request), expected, "{request:?}");
        }
    }

    #[test]
    fn between_join_and_sync_a_commit_has_to_wait() {
        let mut harness = Harness::new();
        let members = harness.joined(1);
        let error = harness.commit_offset(&committing_as(&members[0], 1, 5));
        assert_eq!(error, ErrorCode::RebalanceInProgress);
    }

    #[test]
    fn while_a_rebalance_is_prepared_members_may_still_commit() {
        let mut harness = Harness::new();
        let members = harness.stable(2);
        harness.join(3, joining(&members[0]));
        let error = harness.commit_offset(&committing_as(&members[1], 1, 5));
        assert_eq!(error, ErrorCode::None);
    }

    #[test]
    fn a_commit_keeps_the_members_session_alive() {
        let mut harness = Harness::new();
        let members = harness.stable(1);
        for offset in 0..3 {
            harness.advance(i64::from(SESSION_MS) - 1);
            harness.commit_offset(&committing_as(&members[0], 1, offset));
        }
        assert_eq!(harness.state_name(), "Stable");
    }

    #[test]
    fn metadata_is_limited_per_partition_in_utf16_units() {
        let mut harness = Harness::new();
        let mut request = committing(5);
        let partition = request.topics[0].partitions[0].clone();
        for (partition_index, metadata) in
            [(0, "x".repeat(4_097)), (1, "x".repeat(4_096)), (2, "\u{e9}".repeat(4_096))]
        {
            request.topics[0].partitions.push(OffsetCommitRequestPartition {
                partition_index,
                committed_metadata: Some(metadata.into()),
                ..partition.clone()
            });
        }
        request.topics[0].partitions.remove(0);
        let token = harness.commit_request(&request);
        let Response::OffsetCommit(response) = harness.answer(token) else { panic!() };
        let errors: Vec<_> =
            response.topics[0].partitions.iter().map(|partition| partition.error_code).collect();
        assert_eq!(errors, [ErrorCode::OffsetMetadataTooLarge.code(), 0, 0]);
        assert_eq!(harness.log.len(), 2);
    }

    #[test]
    fn a_commit_that_is_refused_as_a_whole_makes_no_group() {
        let mut harness = Harness::new();
        let mut request = committing(5);
        request.topics[0].partitions[0].committed_metadata = Some("x".repeat(4_097).into());
        assert_eq!(harness.commit_offset(&request), ErrorCode::OffsetMetadataTooLarge);
        assert_eq!((harness.log.len(), harness.shard().groups.len()), (0, 0));
    }

    #[test]
    fn what_a_commit_says_is_stored() {
        let mut harness = Harness::new();
        let mut request = OffsetCommitRequest { retention_time_ms: 60, ..committing(5) };
        request.topics[0].partitions[0].committed_metadata = None;
        harness.commit_offset(&request);
        let stored = harness.shard().offsets.committed(GROUP, TOPIC, 0).unwrap();
        assert_eq!(stored.expire_timestamp_ms, Some(harness.now_ms + 60));
        assert_eq!((stored.commit_timestamp_ms, &*stored.metadata), (harness.now_ms, ""));
        harness.commit_offset(&committing(6));
        let stored = harness.shard().offsets.committed(GROUP, TOPIC, 0).unwrap();
        assert_eq!((stored.expire_timestamp_ms, &*stored.metadata), (None, "meta"));
        assert_eq!((stored.record_offset, stored.leader_epoch), (1, None));
        assert_eq!(stored.topic_id, crate::group::harness::topic_id());
    }

    #[test]
    fn a_commit_is_answered_when_it_is_committed_or_when_that_takes_too_long() {
        let mut harness = Harness::new();
        harness.holds_commits = true;
        let first = harness.commit_request(&committing(5));
        assert!(harness.is_waiting(first));
        harness.commit();
        assert_eq!(harness.commit_error(first), ErrorCode::None);
        let second = harness.commit_request(&committing(6));
        harness.advance(5_000);
        assert_eq!(harness.commit_error(second), ErrorCode::CoordinatorNotAvailable);
    }

    #[test]
    fn an_append_that_fails_commits_nothing() {
        let cases = [
            (ErrorCode::NotLeaderOrFollower, ErrorCode::NotCoordinator),
            (ErrorCode::KafkaStorageError, ErrorCode::NotCoordinator),
            (ErrorCode::NotEnoughReplicas, ErrorCode::CoordinatorNotAvailable),
            (ErrorCode::RecordListTooLarge, ErrorCode::UnknownServerError),
            (ErrorCode::PolicyViolation, ErrorCode::PolicyViolation),
        ];
        for (error, expected) in cases {
            let mut harness = Harness::new();
            harness.next_append_error = Some(error);
            assert_eq!(harness.commit_offset(&committing(5)), expected);
            assert_eq!(harness.committed_offset(), -1);
            assert_eq!(harness.state_name(), "Dead");
        }
    }

    #[test]
    fn a_name_that_no_record_can_hold_is_an_error_of_that_request() {
        let mut harness = Harness::new();
        let request = OffsetCommitRequest { group_id: "g".repeat(40_000).into(), ..committing(5) };
        assert_eq!(harness.commit_offset(&request), ErrorCode::UnknownServerError);
        assert_eq!(harness.commit_offset(&committing(5)), ErrorCode::None);
    }
}
