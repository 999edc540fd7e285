//! The runtime of a coordinator on one partition of an internal topic, from loading to unloading.
//!
//! It is generic over the [`Shard`], which decides, and over the waiter, through which the driver answers a request.
//! The runtime appends the records of a decision, applies them, holds replies until the records are committed, runs
//! timers, and fails writes that are overdue. It does no IO: the [`Driver`] appends and replies. (Kafka:
//! `CoordinatorRuntime` and its `CoordinatorContext`)
//!
//! How a driver runs it:
//! 1. [`ShardLoader`] replays every record of the partition; its [`ActiveShard`] goes to
//!    [`CoordinatorRuntime::on_loaded`]. The first `on_committed` follows: until the committed end has reached the log
//!    end of the load, reads are not answered.
//! 2. The driver passes events as they come: requests, the committed end whenever it moves, ticks when
//!    [`CoordinatorRuntime::next_deadline_ms`] has come.
//! 3. [`CoordinatorRuntime::unload`] answers every request that still waits.
//!
//! Invariants: every waiter is answered exactly once; the records of an event are appended, or refused, before the next
//! event is decided.

mod active;
mod effects;
mod loader;
mod record;
mod shard;
#[cfg(test)]
mod tests;
mod timers;
mod write_failure;
mod writes;

use std::fmt;

use klamm_protocol::ErrorCode;
use klamm_protocol::ids::Offset;
use klamm_protocol::time::Now;

pub use self::active::ActiveShard;
pub use self::effects::{Effects, Reply, RequestToken};
pub use self::loader::ShardLoader;
pub use self::record::{EncodedRecord, Replayed};
pub use self::shard::Shard;
pub use self::timers::Timers;
pub use self::write_failure::WriteFailure;

/// The IO that the runtime does through its driver.
pub trait Driver<S: Shard, W> {
    /// Appends the records to the partition as one batch: all of them, in order, or none. Returns
    /// the offset of the first one.
    ///
    /// # Errors The log has refused them.
    fn append(&mut self, records: &[EncodedRecord]) -> Result<Offset, ErrorCode>;

    /// Sends the answer to a request.
    fn reply(&mut self, waiter: W, response: S::Response);
}

/// The coordinator of one partition. `W` is the waiter of a request.
#[derive(Debug)]
pub struct CoordinatorRuntime<S: Shard, W> {
    state: State<S, W>,
}

#[derive(Debug)]
enum State<S: Shard, W> {
    /// Events for which no client waits are kept until the shard is loaded.
    Loading {
        deferred: Vec<Deferred<S>>,
    },
    Active(Box<ActiveShard<S, W>>),
    /// Another broker leads the partition, or it cannot be served.
    Ended,
}

/// An event of a shard for which no client waits.
type Event<S> = dyn FnOnce(&mut S, &mut Effects<S>) + Send;

/// An event that came while the partition was loading.
struct Deferred<S: Shard>(Box<Event<S>>);

impl<S: Shard> fmt::Debug for Deferred<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Deferred")
    }
}

impl<S: Shard, W> CoordinatorRuntime<S, W> {
    /// A coordinator whose partition is being loaded.
    #[must_use]
    pub fn loading() -> Self {
        Self { state: State::Loading { deferred: Vec::new() } }
    }

    /// A coordinator that answers every request with NOT_COORDINATOR.
    #[must_use]
    pub fn ended() -> Self {
        Self { state: State::Ended }
    }

    /// Whether the shard is loaded and serves requests.
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(self.state, State::Active(_))
    }

    fn active(&mut self) -> Result<&mut ActiveShard<S, W>, ErrorCode> {
        match &mut self.state {
            State::Loading { .. } => Err(ErrorCode::CoordinatorLoadInProgress),
            State::Active(active) => Ok(active),
            State::Ended => Err(ErrorCode::NotCoordinator),
        }
    }

    /// Runs the event of a request at once. The reply may come with a later event.
    ///
    /// # Errors COORDINATOR_LOAD_IN_PROGRESS or NOT_COORDINATOR: the request was not processed.
    pub fn send_request(
        &mut self,
        waiter: W,
        event: impl FnOnce(&mut S, RequestToken, &mut Effects<S>),
        now: Now,
        driver: &mut impl Driver<S, W>,
    ) -> Result<(), ErrorCode> {
        self.active()?.on_request(waiter, event, now, driver);
        Ok(())
    }

    /// Runs an event whose answer needs no wait.
    ///
    /// # Errors
    /// As [`Self::send_request`].
    pub fn call<R>(
        &mut self,
        event: impl FnOnce(&mut S, &mut Effects<S>) -> R,
        now: Now,
        driver: &mut impl Driver<S, W>,
    ) -> Result<R, ErrorCode> {
        Ok(self.active()?.on_event(event, now, driver))
    }

    /// Runs an event for which no client waits; one that comes while loading runs afterwards.
    pub fn notify(
        &mut self,
        event: impl FnOnce(&mut S, &mut Effects<S>) + Send + 'static,
        now: Now,
        driver: &mut impl Driver<S, W>,
    ) {
        match &mut self.state {
            State::Loading { deferred } => deferred.push(Deferred(Box::new(event))),
            State::Active(active) => active.on_event(event, now, driver),
            State::Ended => {}
        }
    }

    /// The partition is loaded. Ignored if the coordinator has ended meanwhile.
    pub fn on_loaded(
        &mut self,
        active: ActiveShard<S, W>,
        now: Now,
        driver: &mut impl Driver<S, W>,
    ) {
        let State::Loading { deferred } = &mut self.state else { return };
        let deferred = std::mem::take(deferred);
        let mut active = Box::new(active);
        for Deferred(event) in deferred {
            active.on_event(event, now, driver);
        }
        self.state = State::Active(active);
    }

    /// The partition's log is committed below `committed_end`.
    pub fn on_committed(
        &mut self,
        committed_end: Offset,
        now: Now,
        driver: &mut impl Driver<S, W>,
    ) {
        if let State::Active(active) = &mut self.state {
            active.on_committed(committed_end, now, driver);
        }
    }

    /// When [`Self::on_tick`] is due, in milliseconds of the steady clock. May lie in the past.
    #[must_use]
    pub fn next_deadline_ms(&self) -> Option<i64> {
        match &self.state {
            State::Active(active) => active.next_deadline_ms(),
            State::Loading { .. } | State::Ended => None,
        }
    }

    /// Runs due timers. One call ends with the first records to append, so that the records of one event are one batch;
    /// [`Self::next_deadline_ms`] then asks for another call at once.
    pub fn on_tick(&mut self, now: Now, driver: &mut impl Driver<S, W>) {
        if let State::Active(active) = &mut self.state {
            active.on_tick(now, driver);
        }
    }

    /// Ends the coordinator: requests that still wait are answered with NOT_COORDINATOR.
    pub fn unload(&mut self, reply: impl FnMut(W, S::Response)) {
        if let State::Active(active) = std::mem::replace(&mut self.state, State::Ended) {
            active.on_unloaded(reply);
        }
    }
}

#[cfg(test)]
impl<S: Shard, W> CoordinatorRuntime<S, W> {
    /// The active shard.
    pub(crate) fn shard(&self) -> &S {
        let State::Active(active) = &self.state else { panic!("the coordinator is not active") };
        active.shard()
    }

    /// The active shard, for tests that change it.
    pub(crate) fn shard_mut(&mut self) -> &mut S {
        self.active().expect("the coordinator is active").shard_mut()
    }

    /// The timers of the active shard.
    pub(crate) fn timers(&self) -> &Timers<S::Timer> {
        let State::Active(active) = &self.state else { panic!("the coordinator is not active") };
        active.timers()
    }
}
