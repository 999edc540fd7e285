//! What the metadata thread does when space, descriptors or memory are lacking: it waits and tries the same operation
//! again.
//!
//! That is safe: a vote, an acknowledgement or a commit leaves this node only after the write that it depends on.
//! Meanwhile this node looks frozen to the others. If it leads, they elect another leader.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use tracing::{error, info};

use super::metadata_log::MetadataLogError;

/// The pause before the next attempt.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Shared by the metadata thread and the handle that stops it.
#[derive(Debug, Default)]
pub(crate) struct Room {
    stopping: Mutex<bool>,
    news: Condvar,
}

impl Room {
    /// Ends all waiting: from now on a lack of resources is a failure.
    pub(super) fn stop(&self) {
        *self.stopping.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.news.notify_all();
    }

    /// Whether the thread must end.
    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `attempt` until it succeeds or fails for another reason than a lack of resources.
    pub(super) fn wait_for<T>(
        &self,
        mut attempt: impl FnMut() -> Result<T, MetadataLogError>,
    ) -> Result<T, MetadataLogError> {
        let mut waited = false;
        loop {
            match attempt() {
                Err(lacking) if lacking.passes() => {
                    if !std::mem::replace(&mut waited, true) {
                        error!("the metadata log waits for room, and this node with it: {lacking}");
                    }
                    if self.pause() {
                        return Err(lacking);
                    }
                }
                outcome => {
                    if waited && outcome.is_ok() {
                        info!("the metadata log has room again");
                    }
                    return outcome;
                }
            }
        }
    }

    /// Pauses before the next attempt. Returns true when the thread must end.
    fn pause(&self) -> bool {
        let stopping = self.stopping.lock().unwrap_or_else(PoisonError::into_inner);
        if *stopping {
            return true;
        }
        let waited = self.news.wait_timeout(stopping, RETRY_PAUSE);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use klamm_log::disk::{DiskError, Operation};

    use super::*;

    fn failure(errno: i32) -> MetadataLogError {
        let source = std::io::Error::from_raw_os_error(errno);
        DiskError::during(Operation::Write, Path::new("/d"))(source).into()
    }

    #[test]
    fn what_lacks_space_is_tried_until_there_is_some_and_other_failures_are_not() {
        let mut tries = 0;
        let written = Room::default().wait_for(|| {
            tries += 1;
            if tries < 3 { Err(failure(28)) } else { Ok(tries) }
        });
        assert_eq!(written.unwrap(), 3);
        let failed = Room::default().wait_for(|| -> Result<(), _> { Err(failure(5)) });
        assert!(!failed.unwrap_err().passes());
    }

    #[test]
    fn a_node_that_stops_does_not_wait_for_space() {
        let room = Arc::new(Room::default());
        let waiting = Arc::clone(&room);
        let thread =
            std::thread::spawn(move || waiting.wait_for(|| -> Result<(), _> { Err(failure(28)) }));
        room.stop();
        assert!(thread.join().unwrap().unwrap_err().passes());
    }
}
