//! The driver of one partition's coordinator: loads it, passes events to its runtime, appends records and replies.
//!
//! Decisions are made by the runtime and the shard (`klamm_coordinator::runtime`).
//!
//! Invariants: an event is decided and its records are appended under one lock, so that the log has them in the order
//! of the decisions; the lock is never held across an await; once ended, nothing is appended. Every waiting request
//! occupies its connection, which bounds their number.

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use klamm_coordinator::runtime::{
    CoordinatorRuntime, Driver, Effects, EncodedRecord, RequestToken, Shard, ShardLoader,
};
use klamm_protocol::ErrorCode;
use klamm_protocol::batch_builder::{BatchBuilder, BuildError};
use klamm_protocol::compression::Compression;
use klamm_protocol::ids::Offset;
use klamm_protocol::time::Now;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::loader;
use crate::clock;
use crate::replica::partition::{AppendOptions, Partition};

/// The pause before loading is retried after a lack of space, memory or descriptors.
const LOAD_RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The settings of a coordinator.
#[derive(Debug, Clone)]
pub(super) struct Settings<C> {
    pub(super) shard: C,
    /// The compression of written records, such as `offsets.topic.compression.codec`.
    pub(super) compression: Compression,
    /// The bytes of one read while loading, such as `offsets.load.buffer.size`.
    pub(super) load_buffer_bytes: u64,
}

/// The channel on which a connection waits for the answer.
type Waiter<S> = oneshot::Sender<<S as Shard>::Response>;
type Runtime<S> = CoordinatorRuntime<S, Waiter<S>>;

/// A coordinator: it exists while this broker leads its partition.
#[derive(Debug)]
pub(super) struct Coordinator<S: Shard> {
    partition: Arc<Partition>,
    settings: Settings<S::Config>,
    state: Mutex<State<S>>,
    /// The next deadline is earlier than the one that the driving task waits for.
    rearm: Notify,
    ended: CancellationToken,
}

#[derive(Debug)]
struct State<S: Shard> {
    runtime: Runtime<S>,
    /// The deadline that the driving task waits for.
    armed_ms: i64,
}

/// The result of an attempt to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loading {
    /// Loaded, or ended.
    Over,
    /// Loading failed for lack of space, memory or descriptors, and is retried.
    Later,
}

/// The partition and the connections during one event.
struct Io<'a, S: Shard> {
    coordinator: &'a Coordinator<S>,
    wall_ms: i64,
}

impl<S: Shard> Driver<S, Waiter<S>> for Io<'_, S> {
    fn append(&mut self, records: &[EncodedRecord]) -> Result<Offset, ErrorCode> {
        self.coordinator.append(records, self.wall_ms)
    }

    fn reply(&mut self, waiter: Waiter<S>, response: S::Response) {
        // A client that has gone away needs no answer.
        drop(waiter.send(response));
    }
}

impl<S: Shard> Coordinator<S> {
    /// Starts a coordinator, which loads in the background. This broker leads the partition.
    pub(super) fn start(
        partition: Arc<Partition>,
        settings: Settings<S::Config>,
        runtime: &Handle,
    ) -> Arc<Self> {
        let coordinator = Arc::new(Self::new(partition, settings));
        runtime.spawn(Arc::clone(&coordinator).run());
        coordinator
    }

    fn new(partition: Arc<Partition>, settings: Settings<S::Config>) -> Self {
        Self {
            partition,
            settings,
            state: Mutex::new(State { runtime: Runtime::loading(), armed_ms: i64::MAX }),
            rearm: Notify::new(),
            ended: CancellationToken::new(),
        }
    }

    /// After a panic the shard may be inconsistent: the coordinator ends.
    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(|poisoned| {
            error!("{}: the coordinator panicked and has ended", self.name());
            let mut state = poisoned.into_inner();
            state.runtime = Runtime::ended();
            self.state.clear_poison();
            state
        })
    }

    fn name(&self) -> String {
        format!("{}-{}", self.partition.topic(), self.partition.index())
    }

    fn with_runtime<R>(&self, event: impl FnOnce(&mut Runtime<S>, Now, &mut Io<'_, S>) -> R) -> R {
        let mut state = self.lock();
        let now = clock::now();
        let mut io = Io { coordinator: self, wall_ms: now.wall_ms };
        let result = event(&mut state.runtime, now, &mut io);
        if state.runtime.next_deadline_ms().is_some_and(|due_ms| due_ms < state.armed_ms) {
            self.rearm.notify_one();
        }
        result
    }

    /// Runs the event of a request now. The answer may come later.
    pub(super) fn send_request(
        &self,
        event: impl FnOnce(&mut S, RequestToken, &mut Effects<S>),
    ) -> Result<oneshot::Receiver<S::Response>, ErrorCode> {
        let (waiter, answered) = oneshot::channel();
        self.with_runtime(|runtime, now, io| runtime.send_request(waiter, event, now, io))?;
        Ok(answered)
    }

    /// Runs an event whose answer needs no wait.
    pub(super) fn call<R>(
        &self,
        event: impl FnOnce(&mut S, &mut Effects<S>) -> R,
    ) -> Result<R, ErrorCode> {
        self.with_runtime(|runtime, now, io| runtime.call(event, now, io))
    }

    /// Runs an event for which no client waits; one that comes while loading runs afterwards.
    pub(super) fn notify(&self, event: impl FnOnce(&mut S, &mut Effects<S>) + Send + 'static) {
        self.with_runtime(|runtime, now, io| runtime.notify(event, now, io));
    }

    /// Ends the coordinator. Waiting requests are answered with NOT_COORDINATOR.
    pub(super) fn end(&self) {
        self.ended.cancel();
        self.lock().runtime.unload(|waiter, response| drop(waiter.send(response)));
    }

    async fn run(self: Arc<Self>) {
        loop {
            let loading = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || loading.load()).await {
                Ok(Loading::Over) => break,
                Ok(Loading::Later) => {
                    let pause = tokio::time::sleep(LOAD_RETRY_PAUSE);
                    if self.ended.run_until_cancelled(pause).await.is_none() {
                        return;
                    }
                }
                Err(_) => {
                    error!("{}: loading panicked, the partition is not served", self.name());
                    self.end();
                    return;
                }
            }
        }
        let stop = self.ended.clone();
        stop.run_until_cancelled(self.drive()).await;
    }

    fn load(&self) -> Loading {
        let begun = Instant::now();
        let Some(view) = self.partition.view() else {
            self.end();
            return Loading::Over;
        };
        let loader = ShardLoader::new(self.settings.shard.clone());
        let buffer_bytes = self.settings.load_buffer_bytes;
        match loader::load(loader, &view, buffer_bytes, || self.ended.is_cancelled()) {
            Ok(Some(loader)) => self.on_loaded(loader, view.log_end(), begun),
            Ok(None) => {}
            Err(failure) if failure.passes() => {
                warn!("{} {failure}; it is loaded when there is room", self.name());
                return Loading::Later;
            }
            Err(failure) => {
                error!("{} {failure}; it is not served", self.name());
                self.end();
            }
        }
        Loading::Over
    }

    fn on_loaded(&self, loader: ShardLoader<S>, log_end: Offset, begun: Instant) {
        let (records, unknown) = (loader.records(), loader.unknown_records());
        let active = loader.into_active(log_end, clock::now());
        self.with_runtime(|runtime, now, io| runtime.on_loaded(active, now, io));
        if records > 0 {
            let took_ms = begun.elapsed().as_millis();
            info!("{}: coordinator loaded from {records} records in {took_ms} ms", self.name());
        }
        if unknown > 0 {
            warn!("{}: {unknown} records of unknown types are ignored", self.name());
        }
    }

    /// Passes ticks and high watermarks to the runtime, until it has ended.
    async fn drive(&self) {
        let mut high_watermark = self.partition.watch_high_watermark();
        self.on_high_watermark();
        while let Some(wait) = self.arm() {
            tokio::select! {
                changed = high_watermark.changed() => {
                    assert!(changed.is_ok(), "the partition of a coordinator is held by it");
                    self.on_high_watermark();
                }
                () = tokio::time::sleep(wait) => {
                    self.with_runtime(|runtime, now, io| runtime.on_tick(now, io));
                }
                () = self.rearm.notified() => {}
            }
        }
    }

    /// How long until the next deadline; `None` when the coordinator has ended.
    fn arm(&self) -> Option<Duration> {
        let mut state = self.lock();
        if !state.runtime.is_active() {
            return None;
        }
        state.armed_ms = state.runtime.next_deadline_ms().unwrap_or(i64::MAX);
        let wait_ms = state.armed_ms.saturating_sub(clock::now_ms());
        Some(Duration::from_millis(u64::try_from(wait_ms).unwrap_or_default()))
    }

    /// The high watermark has moved. The value comes from the partition, because the watch may carry an
    /// older one. After another broker has become leader, what is committed there may differ from what
    /// was appended here: then nothing is reported.
    fn on_high_watermark(&self) {
        let Some(committed_end) = self.partition.committed_as_leader() else { return };
        self.with_runtime(|runtime, now, io| runtime.on_committed(committed_end, now, io));
    }

    fn append(&self, records: &[EncodedRecord], wall_ms: i64) -> Result<Offset, ErrorCode> {
        let batch = batch(records, self.settings.compression, wall_ms)
            .map_err(|_| ErrorCode::RecordListTooLarge)?;
        let appended = self.partition.append(batch, &AppendOptions::coordinator(), wall_ms);
        appended.map(|appended| appended.base_offset).map_err(|failure| {
            let (name, code) = (self.name(), failure.code);
            warn!("{name}: {} records were not appended: {code}", records.len());
            code
        })
    }
}

fn batch(
    records: &[EncodedRecord],
    compression: Compression,
    wall_ms: i64,
) -> Result<bytes::Bytes, BuildError> {
    let mut builder = BatchBuilder::new(0).compression(compression);
    for record in records {
        builder.append(wall_ms, Some(&record.key), record.value.as_deref(), &[])?;
    }
    Ok(builder.build()?.bytes)
}
