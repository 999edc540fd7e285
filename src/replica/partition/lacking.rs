//! Lack of space or file descriptors for this partition. It is logged once when it begins and once when it is over.
//!
//! While reads fail for that reason, no follower is removed from the ISR: it cannot fetch because of this leader.

use std::sync::atomic::{AtomicBool, Ordering};

use klamm_log::error::{LogError, Severity};
use klamm_log::log::Log;
use tracing::{error, info, warn};

use super::Partition;

/// An operation on the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    Write,
    Read,
}

impl Attempt {
    fn name(self) -> &'static str {
        match self {
            Self::Write => "written",
            Self::Read => "read",
        }
    }
}

/// The operations whose last attempt failed because a resource was lacking.
#[derive(Debug, Default)]
pub(super) struct Lacking {
    write: AtomicBool,
    read: AtomicBool,
}

impl Lacking {
    fn of(&self, attempt: Attempt) -> &AtomicBool {
        match attempt {
            Attempt::Write => &self.write,
            Attempt::Read => &self.read,
        }
    }
}

impl Partition {
    /// Logs a failure of the storage, and takes the partition offline if its log directory has failed. Returns how far
    /// the failure reaches.
    pub(super) fn on_storage_error(&self, attempt: Attempt, failure: &LogError) -> Severity {
        let (topic, index, done) = (&self.topic, self.index, attempt.name());
        let severity = failure.severity();
        if attempt == Attempt::Write && failure.is_full() {
            self.flushing.on_full();
        }
        match severity {
            Severity::Passes => {
                if !self.lacking.of(attempt).swap(true, Ordering::AcqRel) {
                    warn!(%topic, partition = index, "{topic}-{index} cannot be {done} for now: {failure}");
                }
            }
            Severity::Directory => {
                error!(%topic, partition = index, "{topic}-{index} cannot be {done}: {failure}");
                // A read may have used an old log, in a directory that has failed; the current log may be in another
                // directory.
                if self.lock().log.as_ref().is_some_and(Log::is_offline) {
                    self.offline.store(true, Ordering::Release);
                }
            }
            Severity::Partition | Severity::Node => {
                error!(%topic, partition = index, "{topic}-{index} cannot be {done}: {failure}");
            }
        }
        severity
    }

    /// The operation succeeded, so it no longer lacks a resource.
    pub(super) fn on_room(&self, attempt: Attempt) {
        let lacking = self.lacking.of(attempt);
        if lacking.load(Ordering::Relaxed) && lacking.swap(false, Ordering::AcqRel) {
            let (topic, index, done) = (&self.topic, self.index, attempt.name());
            info!(%topic, partition = index, "{topic}-{index} is {done} again: there is room");
        }
    }

    /// Whether this leader can read for its followers, so that a follower that falls behind is itself the cause.
    pub(super) fn can_serve_followers(&self) -> bool {
        !self.is_offline() && !self.lacking.of(Attempt::Read).load(Ordering::Acquire)
    }
}
