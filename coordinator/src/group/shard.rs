//! The groups of one partition of `__consumer_offsets`: their state, timers, loading and unloading.

use std::collections::BTreeMap;

use bytes::Bytes;
use bytestring::ByteString;
use klamm_protocol::EncodeError;
use klamm_protocol::ids::{Offset, ProducerId};
use klamm_protocol::time::Now;

use super::classic::ClassicGroup;
use super::classic::context::GroupContext;
use super::config::GroupConfig;
use super::kind::Group;
use super::offsets::Offsets;
use super::offsets::expiry::Cleanup;
use super::on_commit::OnCommit;
use super::record::{GroupRecord, ReplayError};
use super::response::Response;
use crate::runtime::{Effects, EncodedRecord, Replayed, Shard, WriteFailure};

/// A timer of a group shard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// The session of a member, or of an assigned member id whose client has not joined yet.
    Session { group_id: ByteString, member_id: ByteString },
    /// The end of a group's join phase, or of one round of its initial delay.
    Join { group_id: ByteString },
    /// The end of the wait for the members' SyncGroup requests.
    Sync { group_id: ByteString },
    /// The next slice of the deletion of offsets and groups.
    Cleanup,
}

/// A group coordinator for one partition. [`crate::runtime`] runs it.
#[derive(Debug)]
pub struct GroupShard {
    pub(crate) config: GroupConfig,
    /// The groups of every kind; classic ones with their current members.
    pub(crate) groups: BTreeMap<ByteString, Group>,
    /// The offsets of groups of all kinds.
    pub(crate) offsets: Offsets,
    pub(crate) cleanup: Cleanup,
}

impl GroupShard {
    /// A classic group, if it exists.
    pub(crate) fn classic_group(&self, group_id: &str) -> Option<&ClassicGroup> {
        self.groups.get(group_id)?.as_classic()
    }

    /// The classic groups, by their ids.
    pub(crate) fn classic_groups(&self) -> impl Iterator<Item = &ClassicGroup> {
        self.groups.values().filter_map(Group::as_classic)
    }

    /// A classic group with the settings and effects for its decisions, if the group exists.
    pub(crate) fn classic_context<'a>(
        &'a mut self,
        group_id: &str,
        effects: &'a mut Effects<Self>,
    ) -> Option<GroupContext<'a>> {
        let group = self.groups.get_mut(group_id)?.as_classic_mut()?;
        Some(GroupContext { group, config: &self.config, effects })
    }

    /// Whether the id belongs to a group of a type that Klamm does not run.
    pub(crate) fn is_not_run(&self, group_id: &str) -> bool {
        matches!(self.groups.get(group_id), Some(Group::NotRun(_)))
    }

    pub(crate) fn insert_classic(&mut self, group: ClassicGroup) {
        self.groups.insert(group.group_id.clone(), Group::Classic(Box::new(group)));
    }

    /// Adds a simple group, for offsets that are committed without members.
    fn add_simple_group(&mut self, group_id: &ByteString, wall_ms: i64) {
        if !self.groups.contains_key(group_id) {
            self.insert_classic(ClassicGroup::new(group_id, wall_ms));
        }
    }
}

impl Shard for GroupShard {
    type Config = GroupConfig;
    type Record = GroupRecord;
    type Response = Response;
    type OnCommit = OnCommit;
    type Timer = Timer;
    type ReplayError = ReplayError;

    fn new(config: GroupConfig) -> Self {
        Self {
            config,
            groups: BTreeMap::new(),
            offsets: Offsets::default(),
            cleanup: Cleanup::default(),
        }
    }

    fn commit_timeout_ms(&self) -> i64 {
        self.config.offset_commit_timeout_ms
    }

    fn encode(record: &GroupRecord) -> Result<EncodedRecord, EncodeError> {
        record.encode()
    }

    fn replay(
        &mut self,
        offset: Offset,
        producer_id: Option<ProducerId>,
        key: Bytes,
        value: Option<Bytes>,
    ) -> Result<Replayed, ReplayError> {
        self.replay_record(offset, producer_id, key, value)
    }

    fn replay_end_transaction(&mut self, producer_id: ProducerId, committed: bool) {
        self.offsets.replay_txn_marker(producer_id, committed);
    }

    /// The shard is active: starts the sessions of all members.
    fn on_loaded(&mut self, effects: &mut Effects<Self>) {
        let with_offsets: Vec<ByteString> = self.offsets.group_ids().into_iter().cloned().collect();
        for group_id in with_offsets {
            self.add_simple_group(&group_id, effects.now.wall_ms);
        }
        self.schedule_next_check(effects);
        for group in self.groups.values_mut().filter_map(Group::as_classic_mut) {
            GroupContext { group, config: &self.config, effects }.on_loaded();
        }
    }

    /// Applies an appended record to the state in memory: stores committed offsets, removes a deleted group, and
    /// creates a simple group for a commit without a group.
    fn apply(&mut self, offset: Offset, record: &GroupRecord, now: Now) {
        match record {
            GroupRecord::OffsetCommit { key, value } => {
                self.offsets.replay(offset, None, key, value.as_ref());
                if value.is_some() {
                    self.add_simple_group(&key.group, now.wall_ms);
                }
            }
            GroupRecord::GroupMetadata { group_id, value: None } => {
                self.groups.remove(group_id);
            }
            GroupRecord::GroupMetadata { group_id, value: Some(_) } => {
                let is_known = self.classic_group(group_id).is_some();
                assert!(is_known, "a record of a group is written by the group in memory");
            }
        }
    }

    fn on_committed(&mut self, on_commit: OnCommit, effects: &mut Effects<Self>) {
        match on_commit {
            OnCommit::GroupCreated { .. } | OnCommit::CleanedUp => {}
            OnCommit::AssignmentStored { group_id, generation_id, assignments } => {
                if let Some(mut group) = self.classic_context(&group_id, effects) {
                    group.on_assignment_stored(generation_id, assignments);
                }
            }
            OnCommit::StaticMemberReplaced(replacement) => {
                if let Some(mut group) = self.classic_context(&replacement.group_id, effects) {
                    group.on_replacement_stored(&replacement);
                }
            }
        }
    }

    fn on_write_failed(
        &mut self,
        on_commit: OnCommit,
        failure: WriteFailure,
        effects: &mut Effects<Self>,
    ) {
        let is_in_the_log = failure == WriteFailure::CommitTimeout;
        match on_commit {
            // The record may still be committed, and the group does not depend on it.
            OnCommit::GroupCreated { .. } | OnCommit::CleanedUp if is_in_the_log => {}
            OnCommit::GroupCreated { group_id } => self.forget_group(&group_id, failure, effects),
            OnCommit::CleanedUp => self.abandon_cleanup(effects),
            OnCommit::AssignmentStored { group_id, generation_id, .. } => {
                if let Some(mut group) = self.classic_context(&group_id, effects) {
                    group.on_assignment_failed(generation_id, failure);
                }
            }
            OnCommit::StaticMemberReplaced(replacement) => {
                if let Some(mut group) = self.classic_context(&replacement.group_id, effects) {
                    group.on_replacement_failed(&replacement, failure);
                }
            }
        }
    }

    fn refuse(response: Response, failure: WriteFailure) -> Response {
        response.refused(failure)
    }

    /// Timers of a deleted group may still fire.
    fn on_timer(&mut self, timer: Timer, effects: &mut Effects<Self>) {
        match timer {
            Timer::Session { group_id, member_id } => {
                if let Some(mut group) = self.classic_context(&group_id, effects) {
                    group.on_session_timer(&member_id);
                }
            }
            Timer::Join { group_id } => {
                if let Some(mut group) = self.classic_context(&group_id, effects) {
                    group.on_join_timer();
                }
            }
            Timer::Sync { group_id } => {
                if let Some(mut group) = self.classic_context(&group_id, effects) {
                    group.on_sync_timer();
                }
            }
            Timer::Cleanup => self.clean_up(effects),
        }
    }

    fn on_unloaded(&mut self, effects: &mut Effects<Self>) {
        for group in self.groups.values_mut().filter_map(Group::as_classic_mut) {
            GroupContext { group, config: &self.config, effects }.on_unloaded();
        }
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::ErrorCode;

    use crate::group::config::GroupConfig;
    use crate::group::harness::{Harness, SESSION_MS, committing, fetch_one, joining};
    use crate::group::response::Response;

    #[test]
    fn unloading_answers_all_that_wait() {
        let mut harness = Harness::new();
        let members = harness.joined(2);
        let sync = harness.sync(1, &members[1], &[]);
        harness.holds_commits = true;
        let mut to_other = committing(5);
        to_other.group_id = "other".into();
        let commit = harness.commit_request(&to_other);
        let fetch = harness.fetch(&fetch_one(), false);
        let mut to_third = joining("");
        to_third.group_id = "third".into();
        let join = harness.join(3, to_third);
        harness.fail_over();
        let not_coordinator = ErrorCode::NotCoordinator;
        assert_eq!(harness.sync_answer(sync).error_code, not_coordinator.code());
        assert_eq!(harness.commit_error(commit), not_coordinator);
        assert_eq!(harness.join_answer(join).error_code, not_coordinator.code());
        let Response::OffsetFetch(fetched) = harness.answer(fetch) else { panic!() };
        assert_eq!(fetched.error_code, not_coordinator.code());
    }

    #[test]
    fn a_stable_group_goes_on_after_a_restart_with_all_it_had() {
        let mut harness = Harness::new();
        let members = harness.stable(2);
        let before = harness.describe(false);
        let mut harness = harness.restart();
        assert_eq!(harness.describe(false), before);
        for member in &members {
            assert_eq!(harness.heartbeat(1, member), ErrorCode::None);
        }
        let leader = harness.group().leader_id.clone();
        assert_eq!(leader.as_ref(), Some(&members[0]));
        // Sessions start again with the load.
        harness.advance(i64::from(SESSION_MS) - 1);
        assert_eq!(harness.state_name(), "Stable");
        harness.advance(1);
        assert_eq!(harness.state_name(), "Empty");
    }

    #[test]
    fn an_idle_shard_wakes_up_for_the_next_check_only() {
        let config = GroupConfig::default();
        let harness = Harness::new();
        let due = harness.now_ms + config.offsets_retention_check_interval_ms;
        assert_eq!(harness.next_deadline_ms(), due);
    }
}
