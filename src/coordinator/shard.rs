//! The driver of one partition's group coordinator: loads it, tells it of events, performs what it
//! decides.
//!
//! Invariants: an event is decided and its records are appended under one lock, so that the log has
//! them in the order of the decisions; the lock is never held across an await; once ended, nothing is
//! appended. Every request that waits has a connection of its own, which bounds their number.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use klamm_coordinator::group::{DeletedTopic, GroupLoader, GroupShard};
use klamm_coordinator::outcome::{Outcome, Record, Reply, RequestToken, Response};
use klamm_protocol::ErrorCode;
use klamm_protocol::batch_builder::{BatchBuilder, BuildError};
use klamm_protocol::compression::Compression;
use klamm_protocol::ids::Offset;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::Settings;
use super::loader::{self, Loaded};
use crate::clock;
use crate::partition::handle::{AppendOptions, Partition};

/// A coordinator, from when its partition is led here until it no longer is.
#[derive(Debug)]
pub(super) struct Coordinator {
    partition: Arc<Partition>,
    settings: Settings,
    state: Mutex<State>,
    /// A deadline has come nearer than the one that is being waited for.
    rearm: Notify,
    ended: CancellationToken,
}

#[derive(Debug)]
enum State {
    /// Topics that are deleted meanwhile are remembered.
    Loading { deleted: Vec<DeletedTopic> },
    Active(Box<Running>),
    /// The partition moved, or cannot be used.
    Ended,
}

/// A shard and who waits for it.
#[derive(Debug)]
struct Running {
    shard: GroupShard,
    waiting: BTreeMap<RequestToken, oneshot::Sender<Response>>,
    next_token: u64,
    /// What the driving task waits for.
    armed_ms: i64,
}

impl Coordinator {
    /// Begins to load, in the background. This broker leads the partition.
    pub(super) fn start(
        partition: Arc<Partition>,
        settings: Settings,
        runtime: &Handle,
    ) -> Arc<Self> {
        let coordinator = Arc::new(Self {
            partition,
            settings,
            state: Mutex::new(State::Loading { deleted: Vec::new() }),
            rearm: Notify::new(),
            ended: CancellationToken::new(),
        });
        runtime.spawn(Arc::clone(&coordinator).run());
        coordinator
    }

    /// A panic leaves a shard that nobody may trust: the partition is no longer served.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| {
            error!("{}: the coordinator panicked and has ended", self.name());
            let mut state = poisoned.into_inner();
            *state = State::Ended;
            self.state.clear_poison();
            state
        })
    }

    fn name(&self) -> String {
        format!("{}-{}", self.partition.topic(), self.partition.index())
    }

    /// Has a request decided on, now.
    pub(super) fn ask(
        &self,
        event: impl FnOnce(&mut GroupShard, RequestToken, i64) -> Outcome,
    ) -> Result<oneshot::Receiver<Response>, ErrorCode> {
        let now_ms = clock::now_ms();
        let (answer, answered) = oneshot::channel();
        self.with_running(|running| {
            let token = running.wait_with(answer);
            let outcome = event(&mut running.shard, token, now_ms);
            running.perform(self, outcome, now_ms);
        })?;
        Ok(answered)
    }

    /// Has something answered that needs no record.
    pub(super) fn look<R>(
        &self,
        event: impl FnOnce(&mut GroupShard, i64) -> R,
    ) -> Result<R, ErrorCode> {
        self.with_running(|running| event(&mut running.shard, clock::now_ms()))
    }

    fn with_running<R>(&self, act: impl FnOnce(&mut Running) -> R) -> Result<R, ErrorCode> {
        match &mut *self.lock() {
            State::Loading { .. } => Err(ErrorCode::CoordinatorLoadInProgress),
            State::Ended => Err(ErrorCode::NotCoordinator),
            State::Active(running) => {
                let result = act(running);
                if running.shard.next_deadline_ms() < running.armed_ms {
                    self.rearm.notify_one();
                }
                Ok(result)
            }
        }
    }

    /// Deletes the offsets of topics that are no more.
    pub(super) fn on_topics_deleted(&self, topics: &[DeletedTopic]) {
        if let State::Loading { deleted } = &mut *self.lock() {
            deleted.extend_from_slice(topics);
            return;
        }
        let now_ms = clock::now_ms();
        let forgotten = self.with_running(|running| {
            let outcome = running.shard.on_topics_deleted(topics, now_ms);
            running.perform(self, outcome, now_ms);
        });
        // Ended meanwhile: another broker does it.
        drop(forgotten);
    }

    /// Stops coordinating. Whoever waits is sent to look for the next coordinator.
    pub(super) fn end(&self) {
        self.ended.cancel();
        let state = std::mem::replace(&mut *self.lock(), State::Ended);
        if let State::Active(running) = state {
            let Running { shard, mut waiting, .. } = *running;
            send(&mut waiting, shard.on_unloaded());
        }
    }

    async fn run(self: Arc<Self>) {
        let loading = Arc::clone(&self);
        if tokio::task::spawn_blocking(move || loading.load()).await.is_err() {
            error!("{}: loading panicked, its groups are not served", self.name());
            self.end();
        }
        let stop = self.ended.clone();
        stop.run_until_cancelled(self.drive()).await;
    }

    fn load(&self) {
        let begun = Instant::now();
        let Some(view) = self.partition.view() else { return self.end() };
        let (log_end, buffer) = (view.log_end(), self.settings.load_buffer_bytes);
        match loader::load(&view, buffer, || self.ended.is_cancelled()) {
            Ok(Some(Loaded { loader, records, unknown })) => {
                self.activate(loader, log_end);
                if records > 0 {
                    let took_ms = begun.elapsed().as_millis();
                    info!("{}: groups loaded from {records} records in {took_ms} ms", self.name());
                }
                if unknown > 0 {
                    warn!("{}: {unknown} records of unknown types are left alone", self.name());
                }
            }
            Ok(None) => {}
            Err(failure) => {
                error!("{} {failure}; its groups are not served", self.name());
                self.end();
            }
        }
    }

    fn activate(&self, loader: GroupLoader, log_end: Offset) {
        let now_ms = clock::now_ms();
        let shard = loader.on_loaded(self.settings.group.clone(), log_end, now_ms);
        let mut running = Box::new(Running {
            shard,
            waiting: BTreeMap::new(),
            next_token: 0,
            armed_ms: i64::MAX,
        });
        let mut state = self.lock();
        if let State::Loading { deleted } = &*state {
            let outcome = running.shard.on_topics_deleted(deleted, now_ms);
            running.perform(self, outcome, now_ms);
            *state = State::Active(running);
        }
    }

    /// Tells the shard of time and of commits, until it is ended.
    async fn drive(&self) {
        let mut moved = self.partition.watch_high_watermark();
        self.on_moved();
        while let Some(wait) = self.arm() {
            tokio::select! {
                changed = moved.changed() => {
                    assert!(changed.is_ok(), "the partition of a coordinator is held by it");
                    self.on_moved();
                }
                () = tokio::time::sleep(wait) => self.on_tick(),
                () = self.rearm.notified() => {}
            }
        }
    }

    /// How long until the next deadline; `None` when there is nothing to wait for any more.
    fn arm(&self) -> Option<Duration> {
        let armed = self.with_running(|running| {
            running.armed_ms = running.shard.next_deadline_ms();
            running.armed_ms.saturating_sub(clock::now_ms())
        });
        armed.ok().map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or_default()))
    }

    /// The high watermark has moved. The partition is asked where to: what the watch carries may be
    /// older than what is committed by now.
    fn on_moved(&self) {
        let Some(view) = self.partition.view() else { return };
        self.event(|shard, now_ms| shard.on_committed(view.high_watermark(), now_ms));
    }

    fn on_tick(&self) {
        self.event(|shard, now_ms| {
            if shard.next_deadline_ms() <= now_ms { shard.on_tick(now_ms) } else { Outcome::default() }
        });
    }

    fn event(&self, event: impl FnOnce(&mut GroupShard, i64) -> Outcome) {
        let now_ms = clock::now_ms();
        let done = self.with_running(|running| {
            let outcome = event(&mut running.shard, now_ms);
            running.perform(self, outcome, now_ms);
        });
        // Ended meanwhile: then time and commits mean nothing to it.
        drop(done);
    }

    fn append(&self, records: &[Record], now_ms: i64) -> Result<Offset, ErrorCode> {
        let batch = batch(records, self.settings.compression, now_ms)
            .map_err(|_| ErrorCode::RecordListTooLarge)?;
        let appended = self.partition.append(batch, &AppendOptions::coordinator(), now_ms);
        appended.map(|appended| appended.base_offset).map_err(|failure| {
            let (name, code) = (self.name(), failure.code);
            warn!("{name}: {} records were not appended: {code}", records.len());
            code
        })
    }
}

fn batch(
    records: &[Record],
    compression: Compression,
    now_ms: i64,
) -> Result<bytes::Bytes, BuildError> {
    let mut builder = BatchBuilder::new(0).compression(compression);
    for record in records {
        builder.append(now_ms, Some(&record.key), record.value.as_deref(), &[])?;
    }
    Ok(builder.build()?.bytes)
}

impl Running {
    fn wait_with(&mut self, answer: oneshot::Sender<Response>) -> RequestToken {
        let token = RequestToken(self.next_token);
        self.next_token += 1;
        self.waiting.insert(token, answer);
        token
    }

    /// Appends what has been decided, tells the shard how that went, and sends the replies.
    fn perform(&mut self, coordinator: &Coordinator, decided: Outcome, now_ms: i64) {
        let mut outcome = decided;
        loop {
            let replies = std::mem::take(&mut outcome.replies);
            send(&mut self.waiting, replies);
            if outcome.records.is_empty() {
                return;
            }
            match coordinator.append(&outcome.records, now_ms) {
                Ok(base_offset) => return self.shard.on_appended(base_offset, now_ms),
                Err(code) => outcome = self.shard.on_append_failed(code, now_ms),
            }
        }
    }
}

fn send(waiting: &mut BTreeMap<RequestToken, oneshot::Sender<Response>>, replies: Vec<Reply>) {
    for reply in replies {
        let answer = waiting.remove(&reply.token).expect("every request is answered once");
        // A client that has gone away needs no answer.
        drop(answer.send(reply.response));
    }
}
