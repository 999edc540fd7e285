//! What the shell is to carry out after events, one by one.

use super::{Replica, Told};
use crate::partition::delayed::FetchWaiter;
use klamm_protocol::ids::Offset;

/// Something that the shell does for the replica.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the replica relies on its effects being carried out"]
pub enum Effect<P, F> {
    /// The high watermark is here now. The log is told, whoever watches it, and the fetches of followers that wait
    /// ([`Replica::waiting_followers`]): there is nothing to read for them, but to hear of.
    SetHighWatermark(Offset),
    /// Who waited for an offset looks whether it has been reached.
    Finish(P),
    /// A fetch reads again, or DeleteRecords looks again.
    Wake(F),
}

impl<P, F: FetchWaiter> Replica<P, F> {
    /// The next effect. The shell asks until there is none, before it lets anybody else see the replica; several events
    /// may come before.
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

    /// The followers' fetches that wait.
    pub fn waiting_followers(&self) -> impl Iterator<Item = &F> {
        self.followers.iter()
    }

    /// The high watermark if the shell does not know it yet. It is what produces and consumers wait for.
    fn moved_high_watermark(&mut self) -> Option<Offset> {
        let high_watermark = self.role.high_watermark();
        let led_epoch = self.leader().map(|leader| leader.leader_epoch());
        let before = std::mem::replace(&mut self.told, Told { high_watermark, led_epoch });
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
