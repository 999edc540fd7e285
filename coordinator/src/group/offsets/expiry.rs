//! Expires offsets after their retention, and deletes groups without members and offsets.
//!
//! Every `offsets.retention.check.interval.ms` all groups are checked, in slices that make one bounded batch each.
//! Groups of other types are never changed. (Kafka: `cleanupGroupMetadata`,
//! `OffsetMetadataManager.cleanupExpiredOffsets`, `ClassicGroup.offsetExpirationCondition`)

use std::collections::VecDeque;

use bytestring::ByteString;

use super::topic_deletion::DeletedTopic;
use crate::group::classic::ClassicGroup;
use crate::group::classic::state::State;
use crate::group::offsets::CommittedOffset;
use crate::group::on_commit::OnCommit;
use crate::group::record::GroupRecord;
use crate::group::shard::{GroupShard, Timer};
use crate::runtime::Effects;

/// The maximum size of the tombstones of one slice, well below the maximum batch size of the log.
const MAX_SLICE_BYTES: usize = 256 * 1024;
/// The maximum number of groups that one slice checks.
const MAX_SLICE_GROUPS: usize = 1_000;
/// The size of a tombstone in a batch without its group and topic.
const TOMBSTONE_OVERHEAD_BYTES: usize = 32;

/// The pause before the next slice, so that a long check never delays other events.
const SLICE_PAUSE_MS: i64 = 1;

/// The groups and topics that are still to be checked, and the time of the next check.
#[derive(Debug, Default)]
pub(crate) struct Cleanup {
    next_check_ms: i64,
    expiring: VecDeque<ByteString>,
    /// Groups with offsets of a deleted topic.
    pub(crate) topic_deletions: VecDeque<(ByteString, DeletedTopic)>,
}

impl Cleanup {
    fn is_done(&self) -> bool {
        self.expiring.is_empty() && self.topic_deletions.is_empty()
    }
}

/// The tombstones of one slice.
#[derive(Debug, Default)]
pub(crate) struct Slice {
    records: Vec<GroupRecord>,
    bytes: usize,
}

impl Slice {
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= MAX_SLICE_BYTES
    }

    pub(crate) fn delete_offset(&mut self, group: &ByteString, topic: &ByteString, partition: i32) {
        self.bytes += group.len() + topic.len() + TOMBSTONE_OVERHEAD_BYTES;
        self.records.push(GroupRecord::offset_tombstone(group, topic, partition));
    }

    fn delete_group(&mut self, group: &ByteString) {
        self.bytes += group.len() + TOMBSTONE_OVERHEAD_BYTES;
        self.records.push(GroupRecord::group_tombstone(group));
    }
}

impl GroupShard {
    pub(crate) fn schedule_next_check(&mut self, effects: &mut Effects<Self>) {
        let interval_ms = self.config.offsets_retention_check_interval_ms;
        self.cleanup.next_check_ms = effects.now.steady_ms.saturating_add(interval_ms);
        self.schedule_cleanup(effects);
    }

    fn schedule_cleanup(&self, effects: &mut Effects<Self>) {
        let due_ms = if self.cleanup.is_done() {
            self.cleanup.next_check_ms
        } else {
            effects.now.steady_ms.saturating_add(SLICE_PAUSE_MS)
        };
        effects.timers.schedule(Timer::Cleanup, due_ms);
    }

    /// Writes the tombstones of the next slice.
    pub(crate) fn clean_up(&mut self, effects: &mut Effects<Self>) {
        if effects.now.steady_ms >= self.cleanup.next_check_ms {
            self.schedule_next_check(effects);
            self.cleanup.expiring =
                self.classic_groups().map(|group| group.group_id.clone()).collect();
        }
        let mut slice = Slice::default();
        self.delete_offsets_of_deleted_topics(&mut slice);
        self.expire_offsets(&mut slice, effects.now.retention_ms);
        if !slice.records.is_empty() {
            effects.records.extend(slice.records);
            effects.on_commit(OnCommit::CleanedUp);
        }
        self.schedule_cleanup(effects);
    }

    /// The log refuses tombstones now: the rest waits for the next check.
    pub(crate) fn abandon_cleanup(&mut self, effects: &mut Effects<Self>) {
        self.cleanup.expiring.clear();
        self.cleanup.topic_deletions.clear();
        self.schedule_cleanup(effects);
    }

    fn expire_offsets(&mut self, slice: &mut Slice, now_ms: i64) {
        for _ in 0..MAX_SLICE_GROUPS {
            if slice.is_full() {
                return;
            }
            let Some(group_id) = self.cleanup.expiring.pop_front() else { return };
            let Some(group) = self.classic_group(&group_id) else { continue };
            let is_done = self.expire_group(group, slice, now_ms);
            if !is_done {
                self.cleanup.expiring.push_front(group_id);
            }
        }
    }

    /// Adds a group's expired offsets to the slice; `false` if the slice was full before the last of them.
    fn expire_group(&self, group: &ClassicGroup, slice: &mut Slice, now_ms: i64) -> bool {
        let Some(age) = group.expiry() else { return true };
        let group_id = &group.group_id;
        let mut keeps_offsets = self.offsets.pending_of_group(group_id).is_some();
        for (topic, partitions) in self.offsets.of_group(group_id).into_iter().flatten() {
            let is_read = group.is_subscribed_to(topic);
            for (partition, offset) in partitions {
                if slice.is_full() {
                    return false;
                }
                let is_expired = !is_read
                    && age.has_expired(offset, now_ms, self.config.offsets_retention_ms)
                    && !self.offsets.is_pending(group_id, topic, *partition);
                if is_expired {
                    slice.delete_offset(group_id, topic, *partition);
                } else {
                    keeps_offsets = true;
                }
            }
        }
        let is_in_use = group.state() != State::Empty || group.has_pending_members();
        if !keeps_offsets && !is_in_use {
            slice.delete_group(group_id);
        }
        true
    }
}

/// The start of the retention of a group's offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expiry {
    /// The time at which the group became empty.
    Since(i64),
    /// Each offset's own commit.
    SinceCommit,
}

impl Expiry {
    fn has_expired(self, offset: &CommittedOffset, now_ms: i64, retention_ms: i64) -> bool {
        if let Some(expire_timestamp_ms) = offset.expire_timestamp_ms {
            return now_ms >= expire_timestamp_ms;
        }
        let since_ms = match self {
            Self::Since(since_ms) => since_ms,
            Self::SinceCommit => offset.commit_timestamp_ms,
        };
        now_ms.saturating_sub(since_ms) >= retention_ms
    }
}

impl ClassicGroup {
    /// `None` while the group's offsets do not expire.
    fn expiry(&self) -> Option<Expiry> {
        if self.protocol_type.is_none() {
            return Some(Expiry::SinceCommit);
        }
        match self.state() {
            State::Empty => {
                Some(self.state_timestamp_ms().map_or(Expiry::SinceCommit, Expiry::Since))
            }
            State::Stable if self.uses_consumer_protocol() && self.subscribed_topics.is_some() => {
                Some(Expiry::SinceCommit)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::config::GroupConfig;
    use crate::group::harness::{
        GROUP, Harness, TOPIC, committing, committing_as, joining, protocol,
    };
    use klamm_protocol::ErrorCode;
    use klamm_protocol::messages::join_group_request::JoinGroupRequest;
    use klamm_protocol::messages::offset_commit_request::OffsetCommitRequest;

    const RETENTION_MS: i64 = 100_000;

    fn harness() -> Harness {
        Harness::with_config(GroupConfig {
            offsets_retention_ms: RETENTION_MS,
            offsets_retention_check_interval_ms: 1_000,
            ..GroupConfig::default()
        })
    }

    /// Lets `by_ms` pass with the member alive.
    fn live(harness: &mut Harness, member: &ByteString, by_ms: i64) {
        for _ in 0..by_ms / 5_000 {
            harness.advance(5_000);
            let generation = harness.generation();
            assert_eq!(harness.heartbeat(generation, member), ErrorCode::None);
        }
    }

    #[test]
    fn offsets_without_a_group_expire_after_their_commit_and_take_the_group_with_them() {
        let mut harness = harness();
        harness.commit_offset(&committing(5));
        harness.advance(RETENTION_MS - 1_000);
        assert_eq!(harness.committed_offset(), 5);
        harness.advance(1_000);
        assert_eq!(harness.committed_offset(), -1);
        assert_eq!(harness.state_name(), "Dead");
        assert_eq!(harness.log.len(), 3, "an offset, its tombstone and the group's");
    }

    #[test]
    fn a_clock_that_was_behind_and_is_set_right_takes_no_offset_that_is_committed_afterwards() {
        let mut harness = harness();
        harness.wall_ahead_ms = -10 * RETENTION_MS;
        harness.believed_ms = harness.wall_ahead_ms;
        harness.advance(5_000);
        (harness.wall_ahead_ms, harness.believed_ms) = (0, 0);
        harness.commit_offset(&committing(5));
        // In a new process the steady clock starts at the wall clock.
        let mut harness = harness.restart();
        harness.advance(RETENTION_MS - 1_000);
        assert_eq!(harness.committed_offset(), 5);
        harness.advance(1_000);
        assert_eq!(harness.committed_offset(), -1);
    }

    #[test]
    fn days_that_the_clock_skips_expire_nothing_until_they_are_believed() {
        for retention_time_ms in [-1, RETENTION_MS] {
            let mut harness = harness();
            harness.commit_offset(&OffsetCommitRequest { retention_time_ms, ..committing(5) });
            harness.wall_ahead_ms = 10 * RETENTION_MS;
            harness.advance(10_000);
            assert_eq!(harness.committed_offset(), 5);
            harness.believed_ms = harness.wall_ahead_ms;
            harness.advance(1_000);
            assert_eq!(harness.committed_offset(), -1);
        }
    }

    #[test]
    fn a_clock_that_is_set_back_expires_nothing_and_stops_no_timer() {
        let mut harness = harness();
        let members = harness.stable(1);
        harness.commit_offset(&committing_as(&members[0], 1, 5));
        (harness.wall_ahead_ms, harness.believed_ms) = (-10 * RETENTION_MS, -10 * RETENTION_MS);
        harness.advance(11_000);
        assert_eq!(harness.state_name(), "Empty", "the session has ended by the steady clock");
        let mut harness = harness.restart();
        harness.advance(RETENTION_MS - 11_000);
        assert_eq!(harness.committed_offset(), 5);
        harness.advance(11_000);
        assert_eq!(harness.committed_offset(), -1);
    }

    #[test]
    fn an_expiry_that_the_client_chose_counts_alone() {
        let mut harness = harness();
        harness.commit_offset(&OffsetCommitRequest { retention_time_ms: 5_000, ..committing(5) });
        harness.advance(4_000);
        assert_eq!(harness.committed_offset(), 5);
        harness.advance(1_000);
        assert_eq!(harness.committed_offset(), -1);
    }

    #[test]
    fn a_group_that_lost_its_members_keeps_its_offsets_from_that_moment_on() {
        let mut harness = harness();
        let members = harness.stable(1);
        harness.commit_offset(&committing_as(&members[0], 1, 5));
        live(&mut harness, &members[0], RETENTION_MS * 2);
        assert_eq!(harness.committed_offset(), 5);
        harness.leave(&members[0]);
        harness.advance(RETENTION_MS - 1_000);
        assert_eq!(harness.committed_offset(), 5);
        let mut harness = harness.restart();
        assert_eq!(harness.committed_offset(), 5);
        harness.advance(2_000);
        assert_eq!(harness.committed_offset(), -1);
        assert_eq!(harness.state_name(), "Dead");
    }

    #[test]
    fn a_living_consumer_group_loses_only_what_it_no_longer_reads() {
        let mut harness = harness();
        let reads_t = protocol("range", "\0\0\0\0\0\x01\0\x01t\0\0\0\0");
        let token = harness.join(3, JoinGroupRequest { protocols: vec![reads_t], ..joining("") });
        harness.advance(3_000);
        let member = harness.join_answer(token).member_id;
        harness.sync(1, &member, &[]);
        let mut request = committing_as(&member, 1, 5);
        let mut read = request.topics[0].clone();
        read.name = "t".into();
        request.topics.push(read);
        harness.commit_offset(&request);
        live(&mut harness, &member, RETENTION_MS + 5_000);
        let offsets = &harness.shard().offsets;
        assert!(offsets.committed(GROUP, TOPIC, 0).is_none());
        assert!(offsets.committed(GROUP, "t", 0).is_some());
        assert_eq!(harness.state_name(), "Stable");
    }

    #[test]
    fn groups_of_other_protocols_keep_their_offsets_while_they_live() {
        let mut harness = harness();
        let connect = JoinGroupRequest { protocol_type: "connect".into(), ..joining("") };
        let token = harness.join(3, connect);
        harness.advance(3_000);
        let member = harness.join_answer(token).member_id;
        harness.sync(1, &member, &[]);
        harness.commit_offset(&committing_as(&member, 1, 5));
        live(&mut harness, &member, RETENTION_MS + 5_000);
        assert_eq!(harness.committed_offset(), 5);
    }

    #[test]
    fn an_empty_group_without_offsets_goes_but_not_while_somebody_is_about_to_join() {
        let mut harness = harness();
        let token = harness.join(4, joining(""));
        harness.advance(5_000);
        assert_eq!(harness.state_name(), "Empty");
        let member_id = harness.join_answer(token).member_id;
        harness.leave(&member_id);
        harness.advance(1_000);
        assert_eq!(harness.state_name(), "Dead");
    }

    #[test]
    fn many_offsets_expire_in_batches_of_bounded_size() {
        let mut harness = harness();
        let mut request = committing(5);
        let partition = request.topics[0].partitions[0].clone();
        let partitions = (0..20_000).map(|partition_index| {
            klamm_protocol::messages::offset_commit_request::OffsetCommitRequestPartition {
                partition_index,
                ..partition.clone()
            }
        });
        request.topics[0].partitions = partitions.collect();
        harness.commit_offset(&request);
        harness.now_ms += RETENTION_MS;
        let mut batches = 0;
        while harness.state_name() != "Dead" {
            let written = harness.log.len();
            harness.now_ms = harness.now_ms.max(harness.next_deadline_ms());
            harness.tick();
            let tombstones = &harness.log[written..];
            let bytes: usize = tombstones.iter().map(|record| record.key.len()).sum();
            assert!(bytes <= MAX_SLICE_BYTES && !tombstones.is_empty());
            batches += 1;
        }
        assert!(batches > 1);
        assert!(harness.next_deadline_ms() > harness.now_ms);
    }

    #[test]
    fn if_the_log_refuses_the_tombstones_the_next_check_tries_again() {
        let mut harness = harness();
        harness.commit_offset(&committing(5));
        harness.next_append_error = Some(ErrorCode::KafkaStorageError);
        harness.advance(RETENTION_MS);
        assert_eq!(harness.committed_offset(), 5);
        harness.advance(1_000);
        assert_eq!(harness.committed_offset(), -1);
    }
}
