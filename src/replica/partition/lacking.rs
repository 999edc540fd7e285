//! A lack of space or descriptors that this partition meets: said once, and once that it is over.
//!
//! While it lasts, nobody else is judged by what this replica cannot do: followers that cannot be served do not lag.

use std::sync::atomic::{AtomicBool, Ordering};

use klamm_log::error::{LogError, Severity};
use klamm_log::log::Log;
use tracing::{error, info, warn};

use super::Partition;

/// What was tried with the log.
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

/// What has failed for lack of something when it was tried last.
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
    /// The storage has failed here. Says how far that reaches, and acts on it.
    pub(super) fn on_storage_error(&self, attempt: Attempt, failure: &LogError) -> Severity {
        let (topic, index, done) = (&self.topic, self.index, attempt.name());
        let severity = failure.severity();
        match severity {
            Severity::Passes => {
                if !self.lacking.of(attempt).swap(true, Ordering::AcqRel) {
                    warn!(%topic, partition = index, "{topic}-{index} cannot be {done} for now: {failure}");
                }
            }
            Severity::Directory => {
                error!(%topic, partition = index, "{topic}-{index} cannot be {done}: {failure}");
                // It may be a log that was read that is offline, and this one in another directory by now.
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

    /// Nothing was lacking this time.
    pub(super) fn on_room(&self, attempt: Attempt) {
        let lacking = self.lacking.of(attempt);
        if lacking.load(Ordering::Relaxed) && lacking.swap(false, Ordering::AcqRel) {
            info!(topic = %self.topic, partition = self.index, "{}-{} is {} again: there is room", self.topic, self.index, attempt.name());
        }
    }

    /// Whether followers that do not come forward have only themselves to blame.
    pub(super) fn can_serve_followers(&self) -> bool {
        !self.is_offline() && !self.lacking.of(Attempt::Read).load(Ordering::Acquire)
    }

    /// Notes that a flush waits for room; false if that was known.
    pub(crate) fn begin_waiting(&self) -> bool {
        !self.flush_waits.swap(true, Ordering::AcqRel)
    }

    /// The flush is tried again.
    pub(crate) fn end_waiting(&self) {
        self.flush_waits.store(false, Ordering::Release);
    }
}
