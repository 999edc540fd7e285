//! The decisions whose records are not committed yet, in the order of the decisions (Kafka: `DeferredEventQueue`, the
//! controller's purgatory).
//!
//! Bound: the decisions that are made while the high watermark does not move. Check-quorum ends that time: a leader
//! without a majority resigns.

use std::collections::VecDeque;

use klamm_protocol::ids::Offset;

use super::HeldUntil;

/// A decision that waits for its commit.
#[derive(Debug)]
pub(super) struct DeferredEvent<C> {
    /// The decision is committed when the high watermark has reached this offset.
    offset: Offset,
    pub(super) held_until: HeldUntil,
    pub(super) completion: C,
}

/// Invariant: offsets never go back from one event to the next.
#[derive(Debug)]
pub(super) struct DeferredEventQueue<C>(VecDeque<DeferredEvent<C>>);

impl<C> Default for DeferredEventQueue<C> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<C> DeferredEventQueue<C> {
    /// Adds a decision that is committed when the high watermark reaches `offset`.
    pub(super) fn add(&mut self, offset: Offset, held_until: HeldUntil, completion: C) {
        let last = self.0.back().map_or(offset, |last| last.offset);
        assert!(last <= offset, "a decision at offset {offset} follows one at offset {last}");
        self.0.push_back(DeferredEvent { offset, held_until, completion });
    }

    /// Takes out the first decision if all its records are below `high_watermark`.
    pub(super) fn pop_committed(&mut self, high_watermark: Offset) -> Option<DeferredEvent<C>> {
        self.0.pop_front_if(|event| event.offset <= high_watermark)
    }

    /// Takes out the completions of all decisions, in order.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = C> {
        self.0.drain(..).map(|event| event.completion)
    }
}
