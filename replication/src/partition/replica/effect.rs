//! The effects that the shell carries out after events, one by one.

use super::{Announced, Replica};
use crate::partition::delayed::FetchWaiter;
use klamm_protocol::ids::Offset;

/// An action of the shell for the replica.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the replica relies on its effects being carried out"]
pub enum Effect<P, F> {
    /// The high watermark has moved here. The shell passes it to the log, to its watchers, and to waiting fetches of
    /// followers ([`Replica::waiting_followers`]), which have no new records but may carry it.
    SetHighWatermark(Offset),
    /// A waiter for an offset is released and checks whether the offset was reached.
    Finish(P),
    /// A fetch reads again, or DeleteRecords checks again.
    Wake(F),
}

impl<P, F: FetchWaiter> Replica<P, F> {
    /// The next effect. The shell polls until there is none before it releases the replica's lock; several events may
    /// come before.
    #[must_use = "the replica relies on its effects being carried out"]
    pub fn poll_effect(&mut self) -> Option<Effect<P, F>> {
        if let Some(high_watermark) = self.moved_high_watermark() {
            return Some(Effect::SetHighWatermark(high_watermark));
        }
        if let Some(waiter) = self.produces.pop_released().or_else(|| self.flushes.pop_released()) {
            return Some(Effect::Finish(waiter));
        }
        let fetch = self.consumers.pop_released();
        let fetch = fetch.or_else(|| self.followers.pop_released());
        if let Some(fetch) = fetch.or_else(|| self.deletions.pop_released()) {
            return Some(Effect::Wake(fetch));
        }
        assert!(
            self.is_leader() || self.produces.is_empty(),
            "only a leader has produces to answer"
        );
        None
    }

    /// The waiting fetches of followers.
    pub fn waiting_followers(&self) -> impl Iterator<Item = &F> {
        self.followers.iter()
    }

    /// The high watermark, if the shell does not have it yet. Produces and consumers wait for it.
    fn moved_high_watermark(&mut self) -> Option<Offset> {
        let high_watermark = self.role.high_watermark();
        let led_epoch = self.leader().map(|leader| leader.leader_epoch());
        let before =
            std::mem::replace(&mut self.announced, Announced { high_watermark, led_epoch });
        if high_watermark == before.high_watermark {
            return None;
        }
        assert!(
            high_watermark > before.high_watermark
                || led_epoch.is_none()
                || led_epoch != before.led_epoch,
            "the high watermark of a leader never falls within an epoch: {before:?}, {high_watermark}"
        );
        self.produces.release_to(high_watermark);
        self.consumers.release_all();
        Some(high_watermark)
    }
}
