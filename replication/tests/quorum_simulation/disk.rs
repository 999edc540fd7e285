//! A node's disk: the log, `quorum-state`, a snapshot. What was not synced may be lost in a crash.

use crate::random::Random;
use bytes::Bytes;
use klamm_protocol::ids::{LeaderEpoch, Offset};
use klamm_replication::quorum::message::FetchedBatch;
use klamm_replication::quorum::{
    Boot, ControlChange, FlushTicket, LogPosition, Membership, StoredElection,
};
use klamm_replication::{EpochHistory, EpochStart, OffsetAndEpoch};

/// What a snapshot consists of on the wire: its content is the committed prefix itself.
pub(crate) const SNAPSHOT_BYTES: i64 = 10;

#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) id: OffsetAndEpoch,
    pub(crate) membership: Membership,
}

#[derive(Debug, Clone)]
struct Log {
    start: Offset,
    batches: Vec<FetchedBatch>,
}

impl Log {
    fn end(&self) -> Offset {
        self.batches.last().map_or(self.start, |batch| batch.next_offset)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Disk {
    log: Log,
    /// The log as the last sync left it.
    synced: Log,
    truncations: u64,
    /// How often the log had been cut at the last sync.
    synced_truncations: u64,
    stored: Option<StoredElection>,
    stored_before: Option<StoredElection>,
    pub(crate) snapshot: Option<Snapshot>,
    /// The high watermark that the node has noted.
    pub(crate) committed: Offset,
    initial: Membership,
}

impl Disk {
    pub(crate) fn new(initial: Membership) -> Self {
        let log = Log { start: 0, batches: Vec::new() };
        Self {
            synced: log.clone(),
            log,
            truncations: 0,
            synced_truncations: 0,
            stored: None,
            stored_before: None,
            snapshot: None,
            committed: 0,
            initial,
        }
    }

    pub(crate) fn end(&self) -> Offset {
        self.log.end()
    }

    pub(crate) fn start(&self) -> Offset {
        self.log.start
    }

    pub(crate) fn persist(&mut self, stored: StoredElection) {
        self.stored_before = self.stored.replace(stored);
    }

    /// A disk that lied about the last sync of `quorum-state`.
    pub(crate) fn lose_last_vote(&mut self) {
        self.stored = self.stored_before.clone();
    }

    pub(crate) fn append(&mut self, batch: FetchedBatch) {
        assert_eq!(batch.base_offset, self.end(), "appended at the end");
        self.log.batches.push(batch);
    }

    pub(crate) fn truncate(&mut self, end: Offset) {
        self.log.batches.retain(|batch| batch.next_offset <= end);
        assert_eq!(self.end(), end, "cut between batches");
        self.truncations += 1;
    }

    pub(crate) fn ticket_dates_from(&self) -> u64 {
        self.truncations
    }

    /// Everything below the ticket's end is on disk, if the log has not been cut since.
    pub(crate) fn sync(&mut self, ticket: FlushTicket, dates_from: u64) {
        if dates_from != self.truncations {
            return;
        }
        if self.synced_truncations != self.truncations {
            self.synced = Log { start: self.log.start, batches: Vec::new() };
            self.synced_truncations = self.truncations;
        }
        let synced = self.synced.batches.len();
        let reached = |batch: &&FetchedBatch| batch.next_offset <= ticket.end_offset;
        self.synced.batches.extend(self.log.batches[synced..].iter().take_while(reached).cloned());
    }

    pub(crate) fn take_snapshot(&mut self, snapshot: Snapshot) {
        let start = snapshot.id.offset;
        for log in [&mut self.log, &mut self.synced] {
            log.batches.retain(|batch| batch.base_offset >= start);
            log.start = start;
        }
        self.snapshot = Some(snapshot);
    }

    pub(crate) fn start_at(&mut self, snapshot: Snapshot) {
        self.log = Log { start: snapshot.id.offset, batches: Vec::new() };
        self.truncations += 1;
        self.synced = self.log.clone();
        self.synced_truncations = self.truncations;
        self.snapshot = Some(snapshot);
    }

    /// The power fails: of what was not synced some prefix may be there, or none of it.
    pub(crate) fn crash(&mut self, random: &mut Random) {
        let untouched = self.synced.batches.iter().all(|batch| self.log.batches.contains(batch));
        if untouched && random.chance(50) {
            let synced = self.synced.batches.len();
            let extra = u64::try_from(self.log.batches.len() - synced).expect("a length");
            let kept = synced + usize::try_from(random.below(extra + 1)).expect("a length");
            self.log.batches.truncate(kept);
        } else {
            self.log = self.synced.clone();
        }
        self.synced = self.log.clone();
        self.synced_truncations = self.truncations;
    }

    /// The epoch and value of the record at `offset`; None outside the log.
    pub(crate) fn record(&self, offset: Offset) -> Option<(LeaderEpoch, Bytes)> {
        record_of(&self.log, offset)
    }

    /// Whether the record is there, synced.
    pub(crate) fn holds_durably(&self, offset: Offset, record: &(LeaderEpoch, Bytes)) -> bool {
        offset < self.log.start || record_of(&self.synced, offset).as_ref() == Some(record)
    }

    /// Some batches from `offset` on.
    pub(crate) fn read(&self, offset: Offset, max_batches: usize) -> Vec<FetchedBatch> {
        let index = self.log.batches.partition_point(|batch| batch.base_offset < offset);
        self.log.batches[index..].iter().take(max_batches).cloned().collect()
    }

    /// An end of a batch at or below `offset`, for a snapshot.
    pub(crate) fn boundary_below(&self, offset: Offset) -> Option<OffsetAndEpoch> {
        let below = |batch: &&FetchedBatch| batch.next_offset <= offset;
        let batch = self.log.batches.iter().rfind(below)?;
        Some(OffsetAndEpoch::new(batch.next_offset, batch.epoch))
    }

    pub(crate) fn boot(&self) -> Boot {
        let mut membership =
            self.snapshot.as_ref().map_or(&self.initial, |snapshot| &snapshot.membership).clone();
        for (offset, change) in self.log.batches.iter().flat_map(|batch| &batch.changes) {
            membership.apply(*offset, ControlChange::clone(change));
        }
        let starts = self.log.batches.iter();
        let starts =
            starts.map(|batch| EpochStart { epoch: batch.epoch, start_offset: batch.base_offset });
        let snapshot = self.snapshot.as_ref().map(|snapshot| snapshot.id);
        Boot {
            election: self.stored.clone(),
            log: LogPosition {
                start_offset: self.log.start,
                end_offset: self.end(),
                flushed_offset: self.synced.end().min(self.end()),
                committed_offset: self.committed,
                epochs: EpochHistory::from_entries(starts),
                earliest_snapshot: snapshot,
                latest_snapshot: snapshot,
                truncations: 0,
            },
            membership,
        }
    }
}

fn record_of(log: &Log, offset: Offset) -> Option<(LeaderEpoch, Bytes)> {
    let index = log.batches.partition_point(|batch| batch.next_offset <= offset);
    let batch = log.batches.get(index).filter(|batch| batch.base_offset <= offset)?;
    Some((batch.epoch, batch.bytes.clone()))
}
