//! One replica on this broker, for its users: append, read, wait for an offset, follow.
//!
//! The holder of the lock of [`Partition`] owns the log and this broker's role. No holder keeps the lock across an
//! await. Only a holder that has announced it keeps the lock across a sync ([`lock`]). Everything read-only goes
//! through a [`LogView`].

mod append;
mod damage;
mod flushing;
mod follow;
mod future;
mod lacking;
mod lock;
mod preferred_replica;
mod read;
mod role;

pub(crate) use append::{AppendFailure, AppendOptions, Appended};
pub(crate) use damage::{Damage, serve_intact};
use flushing::Flushing;
pub(crate) use follow::{Cut, Progress};
pub(crate) use future::{FutureReplica, MoveError};
pub(crate) use klamm_replication::partition::{Awaited, ListIsolation, Reader};
use lacking::Lacking;
use lock::Locked;
pub(crate) use read::{ReadOptions, ReadOutcome};
pub(crate) use role::BrokerStatuses;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytestring::ByteString;
use klamm_log::config::LogConfig;
use klamm_log::error::LogError;
use klamm_log::log::{Derived, Log};
use klamm_log::log_reader::LogView;
use klamm_protocol::compression::Codec;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset, PartitionIndex, TopicIdPartition};
use klamm_protocol::{ErrorCode, Uuid};
use klamm_replication::partition::{LeaderConfig, LeaderState, LogEnds, Replica};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::delayed::{CountdownTicket, FetchWaiter, WaitingFetch};
use super::flusher::Flusher;
use super::held_back::{HeldBack, HeldBackReport};
use super::throttle::ThrottledReplicas;
use crate::clock;

/// The topic's configuration, as far as it concerns this partition.
#[derive(Debug, Clone)]
pub(crate) struct PartitionConfig {
    pub(crate) log: LogConfig,
    /// `compression.type` with its level; `None` keeps the producer's.
    pub(crate) compression: Option<Codec>,
    /// `min.insync.replicas`
    pub(crate) min_insync_replicas: usize,
    /// `replica.lag.time.max.ms` of the broker
    pub(crate) replica_lag_time_max_ms: i64,
    /// `failover.follower.silence.ms` of the broker
    pub(crate) follower_silence_ms: i64,
    /// `compressed.record.validation=full`
    pub(crate) validate_compressed: bool,
    /// `leader.replication.throttled.replicas`
    pub(crate) leader_throttled: ThrottledReplicas,
    /// `follower.replication.throttled.replicas`
    pub(crate) follower_throttled: ThrottledReplicas,
}

impl PartitionConfig {
    /// Whether an append counts only after a sync: with Klamm's `flush.before.ack`, or with Kafka's `flush.messages=1`.
    fn flushes_before_ack(&self) -> bool {
        self.log.flush_before_ack || self.log.flush_messages <= 1
    }

    fn leader_config(&self, broker_id: BrokerId) -> LeaderConfig {
        LeaderConfig {
            broker_id,
            min_insync_replicas: self.min_insync_replicas,
            replica_lag_time_max_ms: self.replica_lag_time_max_ms,
            follower_silence_ms: self.follower_silence_ms,
            flush_before_ack: self.flushes_before_ack(),
        }
    }
}

/// What a partition knows of its broker.
#[derive(Debug, Clone)]
pub(crate) struct PartitionHost {
    pub(crate) broker_id: BrokerId,
    pub(crate) held_back: Arc<HeldBack>,
}

/// What the lock of a partition guards. The release of the lock performs the effects of the replica: see [`lock`].
#[derive(Debug)]
struct State {
    /// `None` once the log has been closed or deleted.
    log: Option<Log>,
    replica: Replica<CountdownTicket, WaitingFetch>,
}

impl State {
    /// The log, if this broker leads.
    fn led_log(&self) -> Result<&Log, ErrorCode> {
        match &self.log {
            Some(log) if self.replica.is_leader() => Ok(log),
            _ => Err(ErrorCode::NotLeaderOrFollower),
        }
    }
}

fn log_ends(log: &Log) -> LogEnds {
    LogEnds { log_end_offset: log.log_end(), flushed_offset: log.flushed_offset() }
}

/// A replica on this broker.
#[derive(Debug)]
pub(crate) struct Partition {
    topic: ByteString,
    topic_id: Uuid,
    index: PartitionIndex,
    broker_id: BrokerId,
    config: RwLock<Arc<PartitionConfig>>,
    state: Mutex<State>,
    /// How many threads hold `state`, or wait for it, to keep it while the disk works.
    disk_holders: AtomicUsize,
    /// The future log in another log directory, which will replace the log (KIP-113). Locked before `state`, never
    /// after it.
    future: Mutex<Option<FutureReplica>>,
    pub(crate) flushing: Flushing,
    /// Whether this broker leads, for readers that do not take the lock.
    leads: AtomicBool,
    offline: AtomicBool,
    lacking: Lacking,
    damage: Damage,
    high_watermark: watch::Sender<Offset>,
    held_back: HeldBackReport,
    /// Cancelled when the node must stop.
    node_failed: CancellationToken,
}

impl Partition {
    pub(crate) fn new(
        (topic, topic_id, index): (ByteString, Uuid, PartitionIndex),
        host: PartitionHost,
        config: PartitionConfig,
        log: Log,
        flusher: Arc<Flusher>,
    ) -> Arc<Self> {
        let high_watermark = watch::Sender::new(log.high_watermark());
        let state = State { replica: Replica::new(log.high_watermark()), log: Some(log) };
        Arc::new(Self {
            topic,
            topic_id,
            index,
            broker_id: host.broker_id,
            config: RwLock::new(Arc::new(config)),
            state: Mutex::new(state),
            disk_holders: AtomicUsize::new(0),
            future: Mutex::new(None),
            node_failed: flusher.node_failed().clone(),
            flushing: Flushing::new(flusher),
            leads: AtomicBool::new(false),
            offline: AtomicBool::new(false),
            lacking: Lacking::default(),
            damage: Damage::none(),
            high_watermark,
            held_back: HeldBackReport::to(host.held_back),
        })
    }

    pub(crate) fn topic(&self) -> &ByteString {
        &self.topic
    }

    pub(crate) fn index(&self) -> PartitionIndex {
        self.index
    }

    pub(crate) fn key(&self) -> TopicIdPartition {
        TopicIdPartition::new(self.topic_id, self.index)
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.leads.load(Ordering::Acquire)
    }

    /// Whether this broker leads and the partition has other replicas.
    pub(crate) fn has_followers(&self) -> bool {
        self.lock().replica.leader().is_some_and(|leader| leader.followers().next().is_some())
    }

    /// Whether a follower has fetched from this leader at or after a time of the steady clock.
    pub(crate) fn hears_followers_since(&self, since_ms: i64) -> bool {
        let state = self.lock();
        state.replica.leader().is_some_and(|leader| {
            leader.followers().any(|(_, follower)| follower.last_fetch_ms() >= since_ms)
        })
    }

    /// Whether the leader throttles fetches of this partition by followers that are not in the ISR (KIP-73).
    pub(crate) fn is_leader_throttled(&self) -> bool {
        self.config().leader_throttled.contains(self.index, self.broker_id)
    }

    /// Whether this follower throttles its fetches of this partition while it is not in the ISR (KIP-73).
    pub(crate) fn is_follower_throttled(&self) -> bool {
        self.config().follower_throttled.contains(self.index, self.broker_id)
    }

    /// Whether a replica is in the ISR that this leader knows.
    pub(crate) fn is_in_sync(&self, replica: BrokerId) -> bool {
        self.lock().replica.leader().is_some_and(|leader| leader.isr().isr().contains(&replica))
    }

    /// Whether the replica's log directory has failed, or its damaged records are being repaired.
    pub(crate) fn is_offline(&self) -> bool {
        self.offline.load(Ordering::Acquire)
    }

    pub(crate) fn config(&self) -> Arc<PartitionConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the configuration. It takes effect with the next append, read or check.
    pub(crate) fn set_config(self: &Arc<Self>, config: PartitionConfig) {
        let leader_config = config.leader_config(self.broker_id);
        let log_config = config.log.clone();
        self.with_future(|future| future.log.set_config(log_config.clone()));
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        let mut state = self.lock();
        if let Some(log) = &mut state.log {
            log.set_config(log_config);
        }
        state.replica.on_config(leader_config, clock::now_ms());
    }

    /// The log as it is now; `None` when it has been closed.
    pub(crate) fn view(&self) -> Option<LogView> {
        self.lock().log.as_ref().map(Log::view)
    }

    /// The size of the log in bytes; `None` when it has been closed.
    pub(crate) fn size(&self) -> Option<u64> {
        self.lock().log.as_ref().map(Log::size)
    }

    /// The high watermark, if this broker leads.
    pub(crate) fn committed_as_leader(&self) -> Option<Offset> {
        self.lock().replica.leader().map(LeaderState::high_watermark)
    }

    /// Compares the leader epoch of a request, if it has one, with the current one, and returns the current one. The
    /// comparison comes before the check of the role: a follower too detects that the request has an older or newer
    /// epoch.
    pub(crate) fn check_epoch(
        &self,
        requested: Option<LeaderEpoch>,
        leader_only: bool,
    ) -> Result<LeaderEpoch, ErrorCode> {
        self.lock().replica.check_epoch(requested, leader_only)
    }

    /// Runs `change` on the log under the partition's lock, and wakes the waiting fetches.
    pub(crate) fn with_log<R>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Log) -> R,
    ) -> Result<R, ErrorCode> {
        Self::change_log(self.lock(), change)
    }

    /// As [`Self::with_log`], for a change that waits for the disk: call it on a thread that may block.
    pub(crate) fn with_log_on_disk<R>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Log) -> R,
    ) -> Result<R, ErrorCode> {
        Self::change_log(self.lock_for_disk(), change)
    }

    fn change_log<R>(
        mut state: Locked<'_, State>,
        change: impl FnOnce(&mut Log) -> R,
    ) -> Result<R, ErrorCode> {
        let log = state.log.as_mut().ok_or(ErrorCode::NotLeaderOrFollower)?;
        let result = change(log);
        state.replica.wake_fetches();
        Ok(result)
    }

    /// DeleteRecords: waits until the log start of every live replica is at `offset` or above. Returns the low
    /// watermark, which is the smallest log start.
    pub(crate) async fn deleted_everywhere(&self, offset: Offset) -> Result<Offset, ErrorCode> {
        let waiter = FetchWaiter::new();
        loop {
            {
                if self.is_offline() {
                    return Err(ErrorCode::KafkaStorageError);
                }
                let mut state = self.lock();
                let log_start = state.led_log()?.log_start();
                let low_watermark = state.replica.low_watermark(log_start)?;
                if low_watermark >= offset {
                    return Ok(low_watermark);
                }
                state.replica.await_deletion(WaitingFetch::of(&waiter));
            }
            waiter.moved().await;
        }
    }

    /// If this leader has no followers, waits until the records appended so far are synced and so committed.
    ///
    /// With `flush.before.ack`, the response to acks=1 is sent before the sync. Without this wait, a consumer could
    /// then see an end offset below a record that was just acknowledged; in Kafka that happens only with followers.
    pub(crate) async fn synced(&self) {
        let end = {
            let state = self.lock();
            let leader = state.replica.leader();
            let alone = leader.is_some_and(|leader| leader.followers().next().is_none());
            match &state.log {
                Some(log) if alone && log.high_watermark() < log.log_end() => log.log_end(),
                _ => return,
            }
        };
        let mut high_watermark = self.watch_high_watermark();
        // Fails only when the partition is dropped.
        drop(high_watermark.wait_for(|committed| *committed >= end).await);
    }

    /// The high watermark, as a watch.
    pub(crate) fn watch_high_watermark(&self) -> watch::Receiver<Offset> {
        let watched = self.high_watermark.subscribe();
        self.announce(self.view().map(|view| view.high_watermark()));
        watched
    }

    /// Sends the high watermark to the watchers. Two threads may do that at once, so it never goes down.
    fn announce(&self, moved: Option<Offset>) {
        let Some(high_watermark) = moved else { return };
        // Most partitions have no watcher: skip the lock of the watch.
        if self.high_watermark.receiver_count() > 0 {
            self.high_watermark.send_if_modified(|known| {
                let is_news = *known < high_watermark;
                *known = high_watermark.max(*known);
                is_news
            });
        }
    }

    /// Queues a sync of the log, unless one is queued already.
    pub(crate) fn request_flush(self: &Arc<Self>) {
        self.flushing.request(self);
    }

    /// Queues a sync if the log has unsynced records and its last sync is longer ago than `flush.ms`
    /// (`LogManager.flushDirtyLogs`).
    pub(crate) fn flush_if_overdue(self: &Arc<Self>, now_ms: i64) {
        if self.flushing.age_ms(now_ms) < self.config().log.flush_ms {
            return;
        }
        let log_waits = |log: &Log| log.log_end() > log.flushed_offset();
        let waits = self.lock().log.as_ref().is_some_and(log_waits);
        if waits {
            self.request_flush();
        }
    }

    /// Syncs the log, on the flusher's thread. After an error that passes, the caller tries again. The records may
    /// already be durable then, and only the files derived from them are missing ([`Derived`]).
    pub(crate) fn flush(&self) -> Result<(), LogError> {
        self.flushing.on_begun();
        let ticket = match &mut self.lock().log {
            Some(log) => log.flush_ticket()?,
            None => None,
        };
        let Some(ticket) = ticket else { return Ok(()) };
        let done = ticket.run();
        if done.is_err() && !self.lock().log.as_ref().is_some_and(|log| log.has_given(&ticket)) {
            // The log has been replaced by its future log, or closed.
            return Ok(());
        }
        let derived = done?;
        self.flushing.on_done(clock::now_ms());
        let mut state = self.lock();
        let Some(log) = &mut state.log else { return Ok(()) };
        log.on_flushed(&ticket, &derived);
        let flushed = log.flushed_offset();
        state.replica.on_flushed(flushed, clock::now_ms());
        drop(state);
        match derived {
            Derived::Complete => Ok(()),
            Derived::Waiting(lacking) => Err(lacking),
        }
    }

    /// The log directory has failed: marks the replica offline and releases all waiting requests.
    pub(crate) fn fail(&self) {
        self.offline.store(true, Ordering::Release);
        self.lock().replica.give_up_waiting();
    }

    /// Ends the replica and returns its log, which the caller closes or deletes.
    ///
    /// # Panics
    /// After a panic under the lock.
    pub(crate) fn stop(&self) -> Option<Log> {
        let mut state = self.lock();
        state.replica.stop();
        state.log.take()
    }
}
