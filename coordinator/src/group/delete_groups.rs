//! DeleteGroups. (Kafka: `GroupCoordinatorShard.deleteGroups`)

use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::delete_groups_response::DeletableGroupResult;

use super::classic::state::State;
use super::offsets::Offsets;
use super::record::GroupRecord;
use super::shard::GroupShard;
use crate::group::response::Response;
use crate::runtime::{Effects, RequestToken};

impl GroupShard {
    /// Deletes groups without members, and their offsets. The handler sends each partition its own
    /// groups, each of them once.
    pub fn on_delete_groups(
        &self,
        token: RequestToken,
        group_ids: &[ByteString],
        effects: &mut Effects<Self>,
    ) {
        let mut results = Vec::with_capacity(group_ids.len());
        for group_id in group_ids {
            let refusal = self.check_deletable(group_id).err();
            if refusal.is_none() {
                effects.records.extend(offset_tombstones(&self.offsets, group_id));
                effects.write(GroupRecord::group_tombstone(group_id));
            }
            let error_code = refusal.unwrap_or(ErrorCode::None).code();
            results.push(DeletableGroupResult { group_id: group_id.clone(), error_code });
        }
        effects.reply_when_committed(token, Response::DeleteGroups(results));
    }

    fn check_deletable(&self, group_id: &str) -> Result<(), ErrorCode> {
        if self.is_not_run(group_id) {
            // This coordinator does not know whether the group has members.
            return Err(ErrorCode::NonEmptyGroup);
        }
        let group = self.classic_group(group_id).ok_or(ErrorCode::GroupIdNotFound)?;
        if group.state() == State::Empty { Ok(()) } else { Err(ErrorCode::NonEmptyGroup) }
    }
}

/// One tombstone for each partition with a committed or a pending offset.
fn offset_tombstones(offsets: &Offsets, group_id: &ByteString) -> Vec<GroupRecord> {
    let mut records = Vec::new();
    for (topic, partitions) in offsets.of_group(group_id).into_iter().flatten() {
        let tombstone = |partition| GroupRecord::offset_tombstone(group_id, topic, partition);
        records.extend(partitions.keys().copied().map(tombstone));
    }
    for (topic, partitions) in offsets.pending_of_group(group_id).into_iter().flatten() {
        let only_pending = partitions
            .keys()
            .filter(|partition| offsets.committed(group_id, topic, **partition).is_none());
        let tombstone = |partition| GroupRecord::offset_tombstone(group_id, topic, partition);
        records.extend(only_pending.copied().map(tombstone));
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::harness::{GROUP, Harness, committing};

    fn delete(harness: &mut Harness, group_ids: &[&'static str]) -> Vec<ErrorCode> {
        let group_ids: Vec<_> = group_ids.iter().map(|id| ByteString::from_static(id)).collect();
        let token = harness.send(|shard, token, effects| {
            shard.on_delete_groups(token, &group_ids, effects);
        });
        let Response::DeleteGroups(results) = harness.answer(token) else { panic!() };
        results.iter().map(|result| ErrorCode::from_code(result.error_code).unwrap()).collect()
    }

    #[test]
    fn a_group_without_members_goes_with_its_offsets() {
        let mut harness = Harness::new();
        harness.commit_offset(&committing(5));
        let errors = delete(&mut harness, &[GROUP, "other"]);
        assert_eq!(errors, [ErrorCode::None, ErrorCode::GroupIdNotFound]);
        assert_eq!(harness.committed_offset(), -1);
        assert_eq!(harness.state_name(), "Dead");
        assert!(harness.log[1..].iter().all(|record| record.value.is_none()));
        assert_eq!(harness.log.len(), 3);
        assert_eq!(harness.restart().state_name(), "Dead");
    }

    #[test]
    fn a_group_with_members_stays() {
        let mut harness = Harness::new();
        harness.stable(1);
        assert_eq!(delete(&mut harness, &[GROUP]), [ErrorCode::NonEmptyGroup]);
        assert_eq!(harness.state_name(), "Stable");
    }

    #[test]
    fn if_the_log_refuses_nothing_is_deleted() {
        let mut harness = Harness::new();
        harness.commit_offset(&committing(5));
        harness.next_append_error = Some(ErrorCode::RecordListTooLarge);
        assert_eq!(delete(&mut harness, &[GROUP]), [ErrorCode::UnknownServerError]);
        assert_eq!(harness.committed_offset(), 5);
    }
}
