//! The decisions of an event: records, replies and timers. The runtime carries them out.

use klamm_protocol::time::Now;

use super::shard::Shard;
use super::timers::Timers;

/// Identifies a request whose reply may come with a later event. The runtime never reuses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestToken(pub u64);

/// The answer to one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply<R> {
    pub token: RequestToken,
    pub response: R,
}

/// The time of an event, the timers of the shard, and what the event has decided so far.
///
/// The records of one event are one batch: all of them are appended, in order, or none.
#[derive(Debug)]
pub struct Effects<S: Shard> {
    pub(crate) now: Now,
    pub(crate) timers: Timers<S::Timer>,
    pub(crate) records: Vec<S::Record>,
    pub(super) replies: Vec<Reply<S::Response>>,
    /// Replies that wait until the event's records are committed.
    pub(super) held: Vec<Reply<S::Response>>,
    /// Replies that wait until everything written so far is committed, because they show its result.
    pub(super) reads: Vec<Reply<S::Response>>,
    /// The shard's action after the records are committed.
    pub(super) on_commit: Option<S::OnCommit>,
}

impl<S: Shard> Effects<S> {
    pub(super) fn new(now: Now) -> Self {
        Self {
            now,
            timers: Timers::default(),
            records: Vec::new(),
            replies: Vec::new(),
            held: Vec::new(),
            reads: Vec::new(),
            on_commit: None,
        }
    }

    /// Begins the next event.
    pub(super) fn begin(&mut self, now: Now) {
        assert!(
            self.is_carried_out(),
            "the effects of an event are carried out before the next one"
        );
        self.now = now;
    }

    /// Whether nothing is left to append or to send.
    pub(super) fn is_carried_out(&self) -> bool {
        self.records.is_empty()
            && self.replies.is_empty()
            && self.held.is_empty()
            && self.reads.is_empty()
            && self.on_commit.is_none()
    }

    /// Replies now.
    pub(crate) fn reply(&mut self, token: RequestToken, response: S::Response) {
        self.replies.push(Reply { token, response });
    }

    /// Replies when the records of this event are committed, or now if it has none.
    pub(crate) fn reply_when_committed(&mut self, token: RequestToken, response: S::Response) {
        self.held.push(Reply { token, response });
    }

    /// Replies when all that the event has seen is committed, so that a reply never shows what
    /// could be undone.
    pub(crate) fn reply_to_read(&mut self, token: RequestToken, response: S::Response) {
        self.reads.push(Reply { token, response });
    }

    /// Writes a record.
    pub(crate) fn write(&mut self, record: S::Record) {
        self.records.push(record);
    }

    /// Sets the action when the event's records are committed, or are not.
    pub(crate) fn on_commit(&mut self, on_commit: S::OnCommit) {
        assert!(self.on_commit.is_none(), "the records of one event are one write");
        self.on_commit = Some(on_commit);
    }

    /// Sets a timer that is due after `delay_ms`. Moves it if it is set already.
    pub(crate) fn schedule(&mut self, timer: S::Timer, delay_ms: i64) {
        self.timers.schedule(timer, self.now.steady_ms.saturating_add(delay_ms));
    }

    /// Cancels a timer, if it is set.
    pub(crate) fn cancel(&mut self, timer: &S::Timer) {
        self.timers.cancel(timer);
    }
}
