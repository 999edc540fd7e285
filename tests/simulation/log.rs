//! A log on a node's disk, as batches in memory: what is written, and what of it a crash would leave.
//!
//! A crash keeps everything synced. Of what was not synced it keeps some whole batches from the front: a
//! torn one fails its checksum and is cut by recovery. A cut that was not synced may come undone.

use crate::random::Random;
use klamm_protocol::ids::Offset;
use std::rc::Rc;

/// What a batch covers.
pub(crate) trait Extent {
    fn base_offset(&self) -> Offset;
    /// The offset after its last record.
    fn next_offset(&self) -> Offset;
}

/// What a sync that begins now will have made durable when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SyncMark {
    end_offset: Offset,
    truncations: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Log<B> {
    start: Offset,
    batches: Vec<Rc<B>>,
    /// How many batches are durable.
    synced: usize,
    /// Durable batches behind those, which have been cut off since the last sync.
    undead: Vec<Rc<B>>,
    truncations: u64,
}

impl<B> Default for Log<B> {
    fn default() -> Self {
        Self { start: 0, batches: Vec::new(), synced: 0, undead: Vec::new(), truncations: 0 }
    }
}

impl<B: Extent> Log<B> {
    pub(crate) fn start(&self) -> Offset {
        self.start
    }

    pub(crate) fn end(&self) -> Offset {
        self.batches.last().map_or(self.start, |batch| batch.next_offset())
    }

    /// The end of what is durable.
    pub(crate) fn synced_end(&self) -> Offset {
        let last = self.synced.checked_sub(1).map(|index| &self.batches[index]);
        last.map_or(self.start, |batch| batch.next_offset())
    }

    pub(crate) fn batches(&self) -> &[Rc<B>] {
        &self.batches
    }

    pub(crate) fn append(&mut self, batch: Rc<B>) {
        assert_eq!(batch.base_offset(), self.end(), "appended at the end");
        self.batches.push(batch);
    }

    pub(crate) fn truncate(&mut self, end_offset: Offset) {
        let kept = self.batches.partition_point(|batch| batch.next_offset() <= end_offset);
        if kept < self.synced {
            let mut cut: Vec<Rc<B>> = self.batches[kept..self.synced].to_vec();
            cut.append(&mut self.undead);
            self.undead = cut;
            self.synced = kept;
        }
        self.batches.truncate(kept);
        assert_eq!(self.end(), end_offset.max(self.start), "cut between batches");
        self.truncations += 1;
    }

    /// Everything is gone, and the log goes on at `start`. Durable when this returns.
    pub(crate) fn start_at(&mut self, start: Offset) {
        *self = Self { start, truncations: self.truncations + 1, ..Self::default() };
    }

    /// Deletes whole batches below `start`.
    pub(crate) fn delete_below(&mut self, start: Offset) {
        let deleted = self.batches.partition_point(|batch| batch.next_offset() <= start);
        self.batches.drain(..deleted);
        self.synced = self.synced.saturating_sub(deleted);
        self.start = self.start.max(start);
    }

    pub(crate) fn sync_mark(&self) -> SyncMark {
        SyncMark { end_offset: self.end(), truncations: self.truncations }
    }

    /// A sync that began at `mark` has ended.
    pub(crate) fn on_synced(&mut self, mark: SyncMark) {
        if mark.truncations != self.truncations {
            return;
        }
        let reached = |batch: &Rc<B>| batch.next_offset() <= mark.end_offset;
        self.synced = self.synced.max(self.batches.partition_point(reached));
        self.undead.clear();
    }

    pub(crate) fn sync(&mut self) {
        self.on_synced(self.sync_mark());
    }

    /// The power fails. What recovery finds it syncs before anything is served.
    pub(crate) fn crash(&mut self, random: &mut Random) {
        if self.undead.is_empty() || random.chance(50) {
            let written = u64::try_from(self.batches.len() - self.synced).expect("a length");
            let kept = usize::try_from(random.below(written + 1)).expect("a length");
            self.batches.truncate(self.synced + kept);
        } else {
            self.batches.truncate(self.synced);
            self.batches.append(&mut self.undead);
        }
        self.undead.clear();
        self.synced = self.batches.len();
        self.truncations += 1;
    }

    /// The batch that holds `offset`.
    pub(crate) fn find(&self, offset: Offset) -> Option<&Rc<B>> {
        let index = self.batches.partition_point(|batch| batch.next_offset() <= offset);
        self.batches.get(index).filter(|batch| batch.base_offset() <= offset)
    }

    /// The batch that holds `offset`, if it is durable.
    pub(crate) fn find_synced(&self, offset: Offset) -> Option<&Rc<B>> {
        let synced = &self.batches[..self.synced];
        let index = synced.partition_point(|batch| batch.next_offset() <= offset);
        synced.get(index).filter(|batch| batch.base_offset() <= offset)
    }

    /// The batches from `offset` on that end at or below `end_offset`, at most so many.
    pub(crate) fn read(&self, offset: Offset, end_offset: Offset, max: usize) -> Vec<Rc<B>> {
        let first = self.batches.partition_point(|batch| batch.next_offset() <= offset);
        let below = |batch: &&Rc<B>| batch.next_offset() <= end_offset;
        self.batches[first..].iter().take(max).take_while(below).map(Rc::clone).collect()
    }
}
