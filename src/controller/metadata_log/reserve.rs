//! What the metadata log goes on with when its disk is full (`failover.metadata.reserve.bytes`).

use tracing::{debug, warn};

use super::{MetadataLog, MetadataLogError};

/// How often an attempt is made to take the reserve. A directory that was full is in use again half a second after there
/// is room.
const RESERVE_INTERVAL_MS: i64 = 250;

impl MetadataLog {
    /// Gives up the reserve if that helps against the failure. Returns whether the caller can try again at once.
    pub(in crate::controller) fn makes_room(&mut self, lacking: &MetadataLogError) -> bool {
        if !lacking.is_full() {
            return false;
        }
        match self.reserve.give_up() {
            Ok(false) => false,
            Ok(true) => {
                warn!(
                    "the disk of {} is full, the metadata log uses its reserve",
                    self.dir.display()
                );
                true
            }
            Err(failure) => {
                warn!("the reserve of the metadata log cannot be used: {failure}");
                false
            }
        }
    }

    /// Takes the reserve if there is room and the last attempt was long enough ago.
    pub(in crate::controller) fn hold_reserve(&mut self, now_ms: i64) {
        if now_ms < self.next_reserve_ms {
            return;
        }
        self.next_reserve_ms = now_ms.saturating_add(RESERVE_INTERVAL_MS);
        if let Err(failure) = self.reserve.hold() {
            debug!("the metadata log has no reserve for now: {failure}");
        }
    }
}
