//! The appended writes of a shard that are not known to be committed, and the replies that wait for them.

use std::collections::VecDeque;

use klamm_protocol::ids::Offset;

use super::effects::Reply;
use super::shard::Shard;

/// The replies and the action that wait for the records of one event.
#[derive(Debug)]
pub(super) struct Write<S: Shard> {
    pub(super) held: Vec<Reply<S::Response>>,
    pub(super) on_commit: Option<S::OnCommit>,
}

#[derive(Debug)]
struct Uncommitted<S: Shard> {
    /// The offset after the last record.
    end_offset: Offset,
    deadline_ms: i64,
    write: Write<S>,
}

/// The uncommitted writes, in log order.
#[derive(Debug)]
pub(super) struct Writes<S: Shard> {
    uncommitted: VecDeque<Uncommitted<S>>,
    committed_end: Offset,
    /// The end offset of the last write that failed because it was overdue.
    overdue_end: Offset,
}

impl<S: Shard> Writes<S> {
    /// The writes of a shard that was just loaded: the records in the log are not known to be committed.
    pub(super) fn after_loading(log_end: Offset, deadline_ms: i64) -> Self {
        let mut writes = Self { uncommitted: VecDeque::new(), committed_end: 0, overdue_end: 0 };
        if log_end > 0 {
            writes.push(log_end, deadline_ms, Write { held: Vec::new(), on_commit: None });
        }
        writes
    }

    pub(super) fn push(&mut self, end_offset: Offset, deadline_ms: i64, write: Write<S>) {
        let last_end = self.uncommitted.back().map_or(0, |last| last.end_offset);
        assert!(end_offset > last_end, "what is appended comes after what is there");
        self.uncommitted.push_back(Uncommitted { end_offset, deadline_ms, write });
    }

    /// The log is committed below this offset. The committed end never retreats.
    pub(super) fn on_committed(&mut self, committed_end: Offset) {
        self.committed_end = self.committed_end.max(committed_end);
    }

    pub(super) fn pop_committed(&mut self) -> Option<Write<S>> {
        let committed_end = self.committed_end;
        let write = self.uncommitted.pop_front_if(|write| write.end_offset <= committed_end)?;
        Some(write.write)
    }

    /// Removes the earliest write if it is overdue.
    pub(super) fn pop_overdue(&mut self, now_ms: i64) -> Option<Write<S>> {
        let write = self.uncommitted.pop_front_if(|write| write.deadline_ms <= now_ms)?;
        self.overdue_end = write.end_offset;
        Some(write.write)
    }

    /// Removes and returns all writes.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Write<S>> {
        std::mem::take(&mut self.uncommitted).into_iter().map(|write| write.write)
    }

    /// The last write that is not committed yet.
    pub(super) fn last_uncommitted(&mut self) -> Option<&mut Write<S>> {
        self.uncommitted.back_mut().map(|last| &mut last.write)
    }

    /// Whether an overdue write is still not committed: its result must not be shown.
    pub(super) fn has_uncommitted_overdue(&self) -> bool {
        self.overdue_end > self.committed_end
    }

    pub(super) fn next_deadline_ms(&self) -> Option<i64> {
        self.uncommitted.front().map(|write| write.deadline_ms)
    }
}
