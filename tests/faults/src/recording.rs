//! The history of a load while it is being written: shared by whoever sends and whoever wants to know how far it is.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::history::{Acknowledged, RecordId};

#[derive(Debug)]
pub(crate) struct Recording {
    begin: Instant,
    written: Mutex<Written>,
}

/// What producers know.
#[derive(Debug, Clone, Default)]
pub(crate) struct Written {
    pub(crate) sent: BTreeMap<i32, u64>,
    pub(crate) acknowledged: Vec<Acknowledged>,
    /// How many of each partition's records were acknowledged.
    pub(crate) counts: BTreeMap<i32, u64>,
    pub(crate) failed: Vec<(RecordId, String)>,
}

impl Recording {
    pub(crate) fn begin() -> Self {
        Self { begin: Instant::now(), written: Mutex::default() }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    pub(crate) fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next record of a partition, counted as sent.
    pub(crate) fn next(&self, partition: i32) -> RecordId {
        let mut written = self.written();
        let sent = written.sent.entry(partition).or_default();
        let id = RecordId { partition, number: *sent };
        *sent += 1;
        id
    }

    /// `None` as offset: the client did not learn it.
    pub(crate) fn acknowledge(&self, id: RecordId, offset: Option<i64>) {
        let mut written = self.written();
        // Taken under the lock: the times of a history ascend.
        let at = self.begin.elapsed();
        written.acknowledged.push(Acknowledged { id, offset, at });
        *written.counts.entry(id.partition).or_default() += 1;
    }

    pub(crate) fn fail(&self, id: RecordId, why: String) {
        self.written().failed.push((id, why));
    }
}
