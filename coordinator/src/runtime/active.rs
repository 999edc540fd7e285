//! A loaded shard: from an event to its records in the log and its replies.
//!
//! Records change the durable state when they are appended, so the next decision sees them; replies about them wait
//! until they are committed.

use std::collections::BTreeMap;

use klamm_protocol::ErrorCode;
use klamm_protocol::ids::Offset;
use klamm_protocol::time::Now;

use super::Driver;
use super::effects::{Effects, Reply, RequestToken};
use super::record::EncodedRecord;
use super::shard::Shard;
#[cfg(test)]
use super::timers::Timers;
use super::write_failure::WriteFailure;
use super::writes::{Write, Writes};

/// A shard, its writes, its timers, and the requests that wait for a reply.
#[derive(Debug)]
pub struct ActiveShard<S: Shard, W> {
    shard: S,
    effects: Effects<S>,
    writes: Writes<S>,
    waiting: BTreeMap<RequestToken, W>,
    next_token: u64,
}

impl<S: Shard, W> ActiveShard<S, W> {
    pub(super) fn new(mut shard: S, log_end: Offset, now: Now) -> Self {
        let mut effects = Effects::new(now);
        shard.on_loaded(&mut effects);
        assert!(effects.is_carried_out(), "loading writes nothing and replies to nobody");
        let deadline_ms = now.steady_ms.saturating_add(shard.commit_timeout_ms());
        Self {
            shard,
            effects,
            writes: Writes::after_loading(log_end, deadline_ms),
            waiting: BTreeMap::new(),
            next_token: 0,
        }
    }

    pub(super) fn on_request(
        &mut self,
        waiter: W,
        event: impl FnOnce(&mut S, RequestToken, &mut Effects<S>),
        now: Now,
        driver: &mut impl Driver<S, W>,
    ) {
        let token = RequestToken(self.next_token);
        self.next_token += 1;
        self.waiting.insert(token, waiter);
        self.on_event(|shard, effects| event(shard, token, effects), now, driver);
    }

    pub(super) fn on_event<R>(
        &mut self,
        event: impl FnOnce(&mut S, &mut Effects<S>) -> R,
        now: Now,
        driver: &mut impl Driver<S, W>,
    ) -> R {
        self.effects.begin(now);
        let result = event(&mut self.shard, &mut self.effects);
        self.perform(driver);
        result
    }

    pub(super) fn on_committed(
        &mut self,
        committed_end: Offset,
        now: Now,
        driver: &mut impl Driver<S, W>,
    ) {
        self.effects.begin(now);
        self.writes.on_committed(committed_end);
        while let Some(write) = self.writes.pop_committed() {
            self.effects.replies.extend(write.held);
            if let Some(on_commit) = write.on_commit {
                self.shard.on_committed(on_commit, &mut self.effects);
            }
        }
        self.perform(driver);
    }

    pub(super) fn next_deadline_ms(&self) -> Option<i64> {
        let due = [self.effects.timers.next_deadline_ms(), self.writes.next_deadline_ms()];
        due.into_iter().flatten().min()
    }

    pub(super) fn on_tick(&mut self, now: Now, driver: &mut impl Driver<S, W>) {
        self.effects.begin(now);
        while let Some(write) = self.writes.pop_overdue(now.steady_ms) {
            self.fail(write, WriteFailure::CommitTimeout);
        }
        while self.effects.records.is_empty()
            && let Some(timer) = self.effects.timers.pop_due(now.steady_ms)
        {
            self.shard.on_timer(timer, &mut self.effects);
        }
        self.perform(driver);
    }

    /// Refuses all waiting requests.
    pub(super) fn on_unloaded(mut self, mut reply: impl FnMut(W, S::Response)) {
        for write in self.writes.take_all() {
            refuse_held(&mut self.effects, write.held, WriteFailure::Unloaded);
        }
        self.shard.on_unloaded(&mut self.effects);
        for Reply { token, response } in self.effects.replies.drain(..) {
            reply(take_waiter(&mut self.waiting, token), response);
        }
        assert!(self.waiting.is_empty(), "every request is answered, at the latest by unloading");
    }

    /// Appends the decided records and sends the replies. If the log refuses them, the shard decides again
    /// (`on_write_failed`).
    fn perform(&mut self, driver: &mut impl Driver<S, W>) {
        loop {
            self.answer_reads();
            let records = std::mem::take(&mut self.effects.records);
            if records.is_empty() {
                assert!(self.effects.on_commit.is_none(), "only records are committed");
                self.effects.replies.append(&mut self.effects.held);
                break;
            }
            let held = std::mem::take(&mut self.effects.held);
            let write = Write { held, on_commit: self.effects.on_commit.take() };
            match append::<S, W>(&records, driver) {
                Ok(base_offset) => {
                    self.on_appended(base_offset, &records, write);
                    break;
                }
                Err(error) => self.fail(write, WriteFailure::NotAppended(error)),
            }
        }
        for Reply { token, response } in self.effects.replies.drain(..) {
            driver.reply(take_waiter(&mut self.waiting, token), response);
        }
    }

    fn on_appended(&mut self, base_offset: Offset, records: &[S::Record], write: Write<S>) {
        let now = self.effects.now;
        let mut offset = base_offset;
        for record in records {
            self.shard.apply(offset, record, now);
            offset += 1;
        }
        let deadline_ms = now.steady_ms.saturating_add(self.shard.commit_timeout_ms());
        self.writes.push(offset, deadline_ms, write);
    }

    fn fail(&mut self, write: Write<S>, failure: WriteFailure) {
        if let Some(on_commit) = write.on_commit {
            self.shard.on_write_failed(on_commit, failure, &mut self.effects);
        }
        refuse_held(&mut self.effects, write.held, failure);
    }

    /// Answers reads when all that they saw is committed.
    fn answer_reads(&mut self) {
        for Reply { token, response } in self.effects.reads.drain(..) {
            if let Some(last) = self.writes.last_uncommitted() {
                last.held.push(Reply { token, response });
            } else if self.writes.has_uncommitted_overdue() {
                let response = S::refuse(response, WriteFailure::CommitTimeout);
                self.effects.replies.push(Reply { token, response });
            } else {
                self.effects.replies.push(Reply { token, response });
            }
        }
    }
}

#[cfg(test)]
impl<S: Shard, W> ActiveShard<S, W> {
    pub(super) fn shard(&self) -> &S {
        &self.shard
    }

    pub(super) fn shard_mut(&mut self) -> &mut S {
        &mut self.shard
    }

    pub(super) fn timers(&self) -> &Timers<S::Timer> {
        &self.effects.timers
    }
}

fn append<S: Shard, W>(
    records: &[S::Record],
    driver: &mut impl Driver<S, W>,
) -> Result<Offset, ErrorCode> {
    let encoded: Result<Vec<EncodedRecord>, _> = records.iter().map(S::encode).collect();
    driver.append(&encoded.map_err(|_| ErrorCode::UnknownServerError)?)
}

fn refuse_held<S: Shard>(
    effects: &mut Effects<S>,
    held: Vec<Reply<S::Response>>,
    failure: WriteFailure,
) {
    let refused = held
        .into_iter()
        .map(|Reply { token, response }| Reply { token, response: S::refuse(response, failure) });
    effects.replies.extend(refused);
}

fn take_waiter<W>(waiting: &mut BTreeMap<RequestToken, W>, token: RequestToken) -> W {
    waiting.remove(&token).expect("every request is answered once")
}
