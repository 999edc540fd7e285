//! Loading: applies each record of the log to the groups and offsets of a shard.

use bytes::Bytes;
use bytestring::ByteString;
use klamm_protocol::ids::{Offset, ProducerId};

use super::{Existence, GroupRecord, ReadRecord, ReplayError, read};
use crate::group::classic::ClassicGroup;
use crate::group::detach::detach;
use crate::group::kind::{Group, GroupType};
use crate::group::shard::GroupShard;
use crate::runtime::Replayed;

impl GroupShard {
    /// Applies a record at `record_offset` of the log; `producer_id` has written it in a transaction.
    ///
    /// # Errors
    /// As [`read`].
    pub(crate) fn replay_record(
        &mut self,
        record_offset: Offset,
        producer_id: Option<ProducerId>,
        key: Bytes,
        value: Option<Bytes>,
    ) -> Result<Replayed, ReplayError> {
        match read(key, value)? {
            ReadRecord::Group(GroupRecord::OffsetCommit { key, value }) => {
                self.offsets.replay(record_offset, producer_id, &key, value.as_ref());
                Ok(Replayed::Applied)
            }
            ReadRecord::Group(GroupRecord::GroupMetadata { group_id, value }) => {
                match value {
                    Some(value) => {
                        self.insert_classic(ClassicGroup::from_stored(&group_id, &value));
                    }
                    None if self.is_not_run(&group_id) => {}
                    None => drop(self.groups.remove(&group_id)),
                }
                Ok(Replayed::Applied)
            }
            ReadRecord::OtherGroup { record_type, group_type, group_id, says } => {
                self.replay_other_group(&group_id, group_type, says);
                Ok(Replayed::NotRun { record_type })
            }
            ReadRecord::Unknown { record_type } => Ok(Replayed::UnknownType { record_type }),
        }
    }

    fn replay_other_group(
        &mut self,
        group_id: &ByteString,
        group_type: GroupType,
        says: Existence,
    ) {
        match says {
            Existence::Exists => {
                self.groups.insert(detach(group_id), Group::NotRun(group_type));
            }
            Existence::Deleted if self.is_not_run(group_id) => drop(self.groups.remove(group_id)),
            Existence::Deleted | Existence::Nothing => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::ErrorCode;
    use klamm_protocol::messages::heartbeat_request::HeartbeatRequest;
    use klamm_protocol::messages::join_group_response::JoinGroupResponse;

    use super::*;
    use crate::group::config::GroupConfig;
    use crate::group::harness::{GROUP, Harness, committing, joining};
    use crate::runtime::{EncodedRecord, Shard};

    fn consumer_group(group: &str, exists: bool) -> EncodedRecord {
        let mut key = vec![0, 3, 0, u8::try_from(group.len()).unwrap()];
        key.extend_from_slice(group.as_bytes());
        EncodedRecord {
            key: key.into(),
            value: exists.then(|| Bytes::from_static(b"\0\0\0\0\0\x05")),
        }
    }

    /// A loaded shard in whose log [`GROUP`] is a consumer group with a committed offset.
    fn with_consumer_group() -> Harness {
        let mut harness = Harness::new();
        harness.commit_offset(&committing(5));
        let mut log = harness.log.clone();
        log.push(consumer_group(GROUP, true));
        Harness::loaded(harness.config.clone(), log, harness.now_ms)
    }

    fn replayed(records: &[EncodedRecord]) -> GroupShard {
        let mut shard = GroupShard::new(GroupConfig::default());
        for (offset, record) in (0..).zip(records) {
            shard.replay(offset, None, record.key.clone(), record.value.clone()).unwrap();
        }
        shard
    }

    #[test]
    fn a_group_of_another_type_keeps_its_id_and_its_offsets() {
        let mut harness = with_consumer_group();
        assert_eq!(harness.committed_offset(), 5);
        let join = harness.join(9, joining(""));
        let JoinGroupResponse { error_code, .. } = harness.join_answer(join);
        assert_eq!(error_code, ErrorCode::InconsistentGroupProtocol.code());
        let request = HeartbeatRequest { group_id: GROUP.into(), ..Default::default() };
        let heartbeat = harness.call(|shard, effects| shard.on_heartbeat(&request, effects));
        assert_eq!(heartbeat, ErrorCode::UnknownMemberId);
        assert_eq!(harness.leave(&"m".into()), ErrorCode::UnknownMemberId);
        assert_eq!(harness.commit_offset(&committing(6)), ErrorCode::UnknownMemberId);
        assert_eq!(harness.state_name(), "Dead");
        let described = harness.describe(true);
        assert_eq!(described.error_message.as_deref(), Some("Group g is not a classic group."));
        harness.advance(harness.config.offsets_retention_ms * 2);
        assert_eq!(harness.committed_offset(), 5);
        assert_eq!(harness.log.len(), 2);
    }

    #[test]
    fn a_group_of_another_type_is_not_deleted() {
        let mut harness = with_consumer_group();
        let appended = harness.log.len();
        harness.send(|shard, token, effects| {
            shard.on_delete_groups(token, &[GROUP.into()], effects);
        });
        assert_eq!(harness.log.len(), appended);
        let request = klamm_protocol::messages::offset_delete_request::OffsetDeleteRequest {
            group_id: GROUP.into(),
            ..Default::default()
        };
        harness.send(|shard, token, effects| shard.on_offset_delete(token, &request, effects));
        assert_eq!(harness.log.len(), appended);
        assert!(harness.waiting().is_empty());
    }

    #[test]
    fn a_group_can_change_its_type() {
        let classic = {
            let mut harness = Harness::new();
            harness.stable(1);
            harness.log.pop().unwrap()
        };
        let replay = |records: &[EncodedRecord]| {
            let shard = replayed(records);
            let not_run = shard.groups.keys().filter(|group_id| shard.is_not_run(group_id)).count();
            (shard.classic_groups().count(), not_run)
        };
        let (new, gone) = (consumer_group(GROUP, true), consumer_group(GROUP, false));
        assert_eq!(replay(&[classic.clone(), new.clone()]), (0, 1));
        assert_eq!(replay(&[new.clone(), gone.clone(), classic.clone()]), (1, 0));
        assert_eq!(replay(&[new.clone(), classic]), (1, 0));
        assert_eq!(replay(&[new, gone]), (0, 0));
    }

    #[test]
    fn replaying_says_what_it_passed_over() {
        let mut shard = GroupShard::new(GroupConfig::default());
        let mut replay = |key: &'static [u8]| shard.replay(0, None, Bytes::from_static(key), None);
        let detail = replay(b"\0\x08\0\x01g\0\x01m").unwrap();
        assert_eq!(detail, Replayed::NotRun { record_type: 8 });
        assert_eq!(replay(b"\0\x63").unwrap(), Replayed::UnknownType { record_type: 99 });
        assert!(replay(b"\0\x02").is_err());
    }

    #[test]
    fn stored_state_does_not_keep_the_block_alive_that_it_was_read_from() {
        let mut harness = Harness::new();
        harness.commit_offset(&committing(5));
        harness.stable(2);
        // All records are in one block, as read from a segment.
        let mut shard = GroupShard::new(GroupConfig::default());
        let mut block = Vec::new();
        for record in &harness.log {
            block.extend_from_slice(&record.key);
            block.extend_from_slice(record.value.as_ref().unwrap());
        }
        let block = Bytes::from(block);
        let mut at = 0;
        for (offset, record) in (0..).zip(&harness.log) {
            let key = block.slice(at..at + record.key.len());
            at += record.key.len();
            let value = block.slice(at..at + record.value.as_ref().unwrap().len());
            at += value.len();
            shard.replay(offset, None, key, Some(value)).unwrap();
        }
        assert!(block.is_unique());
        assert_eq!(shard.offsets, harness.shard().offsets);
        assert_eq!(shard.groups, replayed(&harness.log).groups);
    }
}
