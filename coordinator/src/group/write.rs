//! From a decision to its commit: the records that were asked for, and who waits for them.
//!
//! Records change the durable state when they are appended, so the next decision sees them; what a
//! client is told about them waits for the commit.

use klamm_protocol::time::Now;
use std::collections::VecDeque;

use klamm_protocol::ErrorCode;
use klamm_protocol::ids::Offset;

use super::classic::ClassicGroup;
use super::draft::{AfterWrite, Draft};
use super::record::GroupRecord;
use super::shard::GroupShard;
use crate::outcome::{Outcome, Record, Reply, WriteFailure};

/// Replies and group changes that wait for a write.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    held: Vec<Reply>,
    after: Option<AfterWrite>,
}

impl Waiting {
    /// The waiting replies, refused.
    pub(crate) fn into_refusals(self, failure: WriteFailure) -> impl Iterator<Item = Reply> {
        self.held
            .into_iter()
            .map(move |reply| Reply { response: reply.response.failed(failure), ..reply })
    }
}

/// Records handed to the driver that it has not reported on yet.
#[derive(Debug)]
struct Unappended {
    records: Vec<GroupRecord>,
    waiting: Waiting,
}

/// Records in the log that are not known to be committed.
#[derive(Debug)]
struct Uncommitted {
    /// The offset after its last record.
    end_offset: Offset,
    deadline_ms: i64,
    waiting: Waiting,
}

/// The writes of a shard, in log order.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    unappended: Option<Unappended>,
    uncommitted: VecDeque<Uncommitted>,
    committed_end: Offset,
    /// End of the last write that nobody waits for any more because it took too long.
    overdue_end: Offset,
}

impl Writes {
    /// The writes of a shard that was just loaded: what lies in the log is not known to be committed.
    pub(crate) fn after_loading(log_end: Offset, deadline_ms: i64) -> Self {
        let waiting = Waiting::default();
        let loaded = Uncommitted { end_offset: log_end, deadline_ms, waiting };
        let uncommitted = (log_end > 0).then_some(loaded).into_iter().collect();
        Self { uncommitted, ..Self::default() }
    }

    pub(crate) fn next_deadline_ms(&self) -> Option<i64> {
        self.uncommitted.front().map(|write| write.deadline_ms)
    }

    /// Everything that waits, for unloading.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = Waiting> {
        let unappended = self.unappended.take().map(|write| write.waiting);
        let uncommitted = std::mem::take(&mut self.uncommitted);
        unappended.into_iter().chain(uncommitted.into_iter().map(|write| write.waiting))
    }
}

impl GroupShard {
    /// Turns what was decided into what the driver has to do.
    pub(crate) fn finish(&mut self, mut draft: Draft, now: Now) -> Outcome {
        assert!(
            self.writes.unappended.is_none(),
            "the driver reports on an append before the next event"
        );
        for read in std::mem::take(&mut draft.reads) {
            let mut answered = self.reply_to_read(read);
            draft.replies.append(&mut answered.replies);
        }
        if draft.records.is_empty() {
            draft.replies.append(&mut draft.held);
            return Outcome { records: Vec::new(), replies: draft.replies };
        }
        let encoded: Result<Vec<Record>, _> =
            draft.records.iter().map(GroupRecord::encode).collect();
        let waiting = Waiting { held: draft.held, after: draft.after };
        self.writes.unappended = Some(Unappended { records: draft.records, waiting });
        match encoded {
            Ok(records) => Outcome { records, replies: draft.replies },
            Err(_) => {
                let mut failed = self.on_append_failed(ErrorCode::UnknownServerError, now);
                failed.replies.splice(..0, draft.replies);
                failed
            }
        }
    }

    /// The last outcome's records lie in the log from `base_offset` on.
    ///
    /// # Panics
    /// If the last outcome had no records.
    pub fn on_appended(&mut self, base_offset: Offset, now: Now) {
        let write = self.writes.unappended.take().expect("an outcome's records were appended");
        let mut offset = base_offset;
        for record in &write.records {
            self.stored.apply_appended(offset, record);
            self.follow(record, now.wall_ms);
            offset += 1;
        }
        self.writes.uncommitted.push_back(Uncommitted {
            end_offset: offset,
            deadline_ms: now.steady_ms.saturating_add(self.config.offset_commit_timeout_ms),
            waiting: write.waiting,
        });
    }

    /// What a record in the log means for the groups in memory: a deleted group is gone, and who
    /// commits offsets without being a member makes a group.
    fn follow(&mut self, record: &GroupRecord, wall_ms: i64) {
        match record {
            GroupRecord::GroupMetadata { group_id, value: None } => {
                self.groups.remove(group_id);
            }
            GroupRecord::OffsetCommit { key, value: Some(_) } => {
                let is_known = self.groups.contains_key(&key.group)
                    || self.stored.other_groups.contains_key(&key.group);
                if !is_known {
                    let group = ClassicGroup::new(&key.group, wall_ms);
                    self.groups.insert(group.group_id.clone(), group);
                }
            }
            GroupRecord::GroupMetadata { value: Some(_), .. }
            | GroupRecord::OffsetCommit { value: None, .. } => {}
        }
    }

    /// The log refused the last outcome's records: nothing of them is there.
    ///
    /// # Panics
    /// If the last outcome had no records.
    pub fn on_append_failed(&mut self, error: ErrorCode, now: Now) -> Outcome {
        let write = self.writes.unappended.take().expect("an outcome's records were refused");
        let failure = WriteFailure::append(error);
        let mut draft = Draft::default();
        match &write.waiting.after {
            Some(AfterWrite::GroupCreated { group_id }) => {
                self.forget_group(group_id, failure, &mut draft, now);
            }
            Some(AfterWrite::CleanedUp) => self.cleanup.abandon(),
            _ => {}
        }
        self.fail(write.waiting, failure, &mut draft, now);
        self.finish(draft, now)
    }

    /// The partition's log is committed below `committed_end`: answers what waited for that.
    pub fn on_committed(&mut self, committed_end: Offset, now: Now) -> Outcome {
        let mut draft = Draft::default();
        self.writes.committed_end = self.writes.committed_end.max(committed_end);
        while let Some(write) =
            self.writes.uncommitted.pop_front_if(|write| write.end_offset <= committed_end)
        {
            draft.replies.extend(write.waiting.held);
            match write.waiting.after {
                None | Some(AfterWrite::GroupCreated { .. } | AfterWrite::CleanedUp) => {}
                Some(AfterWrite::AssignmentStored { group_id, generation_id, assignments }) => {
                    if let Some(mut turn) = self.turn(&group_id, &mut draft, now) {
                        turn.on_assignment_stored(generation_id, assignments);
                    }
                }
                Some(AfterWrite::StaticMemberReplaced(replacement)) => {
                    if let Some(mut turn) = self.turn(&replacement.group_id, &mut draft, now) {
                        turn.on_replacement_stored(&replacement);
                    }
                }
            }
        }
        self.finish(draft, now)
    }

    /// Gives up waiting for writes that were not committed in time. They stay in the log and may
    /// still be committed; their clients have to ask again.
    pub(crate) fn fail_overdue_writes(&mut self, draft: &mut Draft, now: Now) {
        while let Some(write) =
            self.writes.uncommitted.pop_front_if(|write| write.deadline_ms <= now.steady_ms)
        {
            self.writes.overdue_end = write.end_offset;
            self.fail(write.waiting, WriteFailure::commit_timeout(), draft, now);
        }
    }

    fn fail(&mut self, waiting: Waiting, failure: WriteFailure, draft: &mut Draft, now: Now) {
        match &waiting.after {
            // Overdue, the record may still come to be; and the group does not depend on it.
            None | Some(AfterWrite::GroupCreated { .. } | AfterWrite::CleanedUp) => {}
            Some(AfterWrite::AssignmentStored { group_id, generation_id, .. }) => {
                if let Some(mut turn) = self.turn(group_id, draft, now) {
                    turn.on_assignment_failed(*generation_id, failure);
                }
            }
            Some(AfterWrite::StaticMemberReplaced(replacement)) => {
                if let Some(mut turn) = self.turn(&replacement.group_id, draft, now) {
                    turn.on_replacement_failed(replacement, failure);
                }
            }
        }
        draft.replies.extend(waiting.into_refusals(failure));
    }

    /// Takes back a group whose first record was refused, with the member that founded it.
    fn forget_group(&mut self, group_id: &str, failure: WriteFailure, draft: &mut Draft, now: Now) {
        if let Some(mut turn) = self.turn(group_id, draft, now) {
            turn.cancel_join();
            for member_id in turn.group.member_ids() {
                turn.cancel_session(&member_id);
                if let Some(token) = turn.group.take_awaiting_join(&member_id) {
                    turn.draft.refuse_join(token, member_id, failure.code());
                }
            }
        }
        self.groups.remove(group_id);
    }

    /// Answers a read when all that it saw is committed, so that it never shows what could be undone.
    pub(crate) fn reply_to_read(&mut self, reply: Reply) -> Outcome {
        let mut outcome = Outcome::default();
        if let Some(last) = self.writes.uncommitted.back_mut() {
            last.waiting.held.push(reply);
        } else if self.writes.overdue_end > self.writes.committed_end {
            let failure = WriteFailure::commit_timeout();
            let response = reply.response.failed(failure);
            outcome.replies.push(Reply { response, ..reply });
        } else {
            outcome.replies.push(reply);
        }
        outcome
    }
}
