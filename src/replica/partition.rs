//! One partition as its users see it: append, read, wait, follow.
//!
//! The log and this broker's role have one owner, the holder of the lock of [`Partition`]. The lock is never held across
//! an await, and across a sync only by a holder who announces it ([`lock`]). Everything read-only goes through a [`LogView`].

mod append;
mod damage;
mod follow;
mod future;
mod lacking;
mod lock;
mod preferred_replica;
mod read;
mod role;

pub(crate) use append::{AppendFailure, AppendOptions, Appended};
pub(crate) use follow::{Cut, Progress};
pub(crate) use future::{FutureReplica, MoveError};
pub(crate) use klamm_replication::partition::{Awaited, ListIsolation, Reader};
use lacking::Lacking;
use lock::Locked;
pub(crate) use read::{ReadOptions, ReadOutcome};
pub(crate) use role::BrokerStatuses;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytestring::ByteString;
use klamm_log::config::LogConfig;
use klamm_log::error::LogError;
use klamm_log::log::{Derived, Log};
use klamm_log::log_reader::LogView;
use klamm_protocol::compression::Codec;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset, PartitionIndex};
use klamm_protocol::{ErrorCode, Uuid};
use klamm_replication::partition::{LeaderConfig, LeaderState, LogEnds, Replica};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::delayed::{CountdownTicket, FetchWaiter, WaitingFetch};
use super::flusher::Flusher;
use super::throttle::ThrottledReplicas;
use crate::clock;

/// What the topic's configuration asks of this partition.
#[derive(Debug, Clone)]
pub(crate) struct PartitionConfig {
    pub(crate) log: LogConfig,
    /// `compression.type` with its level; `None` keeps the producer's.
    pub(crate) compression: Option<Codec>,
    /// `min.insync.replicas`
    pub(crate) min_insync_replicas: usize,
    /// `replica.lag.time.max.ms` of the broker
    pub(crate) replica_lag_time_max_ms: i64,
    /// `compressed.record.validation=full`
    pub(crate) validate_compressed: bool,
    /// `leader.replication.throttled.replicas`
    pub(crate) leader_throttled: ThrottledReplicas,
    /// `follower.replication.throttled.replicas`
    pub(crate) follower_throttled: ThrottledReplicas,
}

impl PartitionConfig {
    /// Whether an append has to be synced before it counts: asked for by name, or by Kafka's own
    /// `flush.messages=1`.
    fn flushes_before_ack(&self) -> bool {
        self.log.flush_before_ack || self.log.flush_messages <= 1
    }

    fn leader_config(&self, broker_id: BrokerId) -> LeaderConfig {
        LeaderConfig {
            broker_id,
            min_insync_replicas: self.min_insync_replicas,
            replica_lag_time_max_ms: self.replica_lag_time_max_ms,
            flush_before_ack: self.flushes_before_ack(),
        }
    }
}

/// What the lock of a partition guards. Whoever unlocks it carries out what the replica asks for: see [`lock`].
#[derive(Debug)]
struct State {
    /// `None` once the log has been closed or deleted.
    log: Option<Log>,
    replica: Replica<CountdownTicket, WaitingFetch>,
}

impl State {
    /// The log of a leader.
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
    /// Who holds `state`, or waits for it, to keep it for as long as the disk takes.
    disk_holders: AtomicUsize,
    /// The copy in another log directory that is to take the log's place. Locked before `state`, never after.
    future: Mutex<Option<FutureReplica>>,
    /// That of the log's directory.
    flusher: RwLock<Arc<Flusher>>,
    flush_queued: AtomicBool,
    /// When the log was last synced, or opened.
    last_flush_ms: AtomicI64,
    /// Whether the replica leads, for those who do not lock it.
    leads: AtomicBool,
    offline: AtomicBool,
    lacking: Lacking,
    /// The flusher waits for room to flush the log.
    flush_waits: AtomicBool,
    /// Where the lowest damaged segment begins.
    damaged: AtomicI64,
    high_watermark: watch::Sender<Offset>,
    /// Cancelled when the node cannot go on.
    node_failed: CancellationToken,
}

impl Partition {
    pub(crate) fn new(
        (topic, topic_id, index): (ByteString, Uuid, PartitionIndex),
        broker_id: BrokerId,
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
            broker_id,
            config: RwLock::new(Arc::new(config)),
            state: Mutex::new(state),
            disk_holders: AtomicUsize::new(0),
            future: Mutex::new(None),
            node_failed: flusher.node_failed().clone(),
            flusher: RwLock::new(flusher),
            flush_queued: AtomicBool::new(false),
            last_flush_ms: AtomicI64::new(clock::now_ms()),
            leads: AtomicBool::new(false),
            offline: AtomicBool::new(false),
            lacking: Lacking::default(),
            flush_waits: AtomicBool::new(false),
            damaged: AtomicI64::new(damage::INTACT),
            high_watermark,
        })
    }

    pub(crate) fn topic(&self) -> &ByteString {
        &self.topic
    }

    pub(crate) fn topic_id(&self) -> Uuid {
        self.topic_id
    }

    pub(crate) fn index(&self) -> PartitionIndex {
        self.index
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.leads.load(Ordering::Acquire)
    }

    /// Whether an acknowledgement takes more than this broker.
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

    /// Whether what this broker sends of it to replicas that are behind is throttled.
    pub(crate) fn is_leader_throttled(&self) -> bool {
        self.config().leader_throttled.contains(self.index, self.broker_id)
    }

    /// Whether what this broker fetches of it while it is behind is throttled.
    pub(crate) fn is_follower_throttled(&self) -> bool {
        self.config().follower_throttled.contains(self.index, self.broker_id)
    }

    /// Whether a replica is in sync, as the leader here knows.
    pub(crate) fn is_in_sync(&self, replica: BrokerId) -> bool {
        self.lock().replica.leader().is_some_and(|leader| leader.isr().isr().contains(&replica))
    }

    /// Its log directory has failed, or this replica waits to be fetched again.
    pub(crate) fn is_offline(&self) -> bool {
        self.offline.load(Ordering::Acquire)
    }

    pub(crate) fn config(&self) -> Arc<PartitionConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes effect with the next append, read or check.
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

    /// Bytes of records; `None` when the log has been closed.
    pub(crate) fn size(&self) -> Option<u64> {
        self.lock().log.as_ref().map(Log::size)
    }

    /// The high watermark, as long as this broker leads.
    pub(crate) fn committed_as_leader(&self) -> Option<Offset> {
        self.lock().replica.leader().map(LeaderState::high_watermark)
    }

    /// The leader's epoch, after comparing it with the one that a request names (-1 for none). The comparison comes
    /// first: a follower can tell as well that the request is older or newer than what it knows.
    pub(crate) fn check_epoch(
        &self,
        requested: LeaderEpoch,
        leader_only: bool,
    ) -> Result<LeaderEpoch, ErrorCode> {
        self.lock().replica.check_epoch(requested, leader_only)
    }

    /// Does something with the log under the partition's lock; what moves in it wakes who waits.
    pub(crate) fn with_log<R>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Log) -> R,
    ) -> Result<R, ErrorCode> {
        Self::change_log(self.lock(), change)
    }

    /// As [`Self::with_log`], for changes that wait for the disk: on a thread that may block.
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

    /// Waits until every live replica's log begins at `offset` or later; returns where the one does that begins first.
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

    /// Waits until what has been appended so far is committed, where that takes no more than a sync: where there is no
    /// other replica.
    ///
    /// With `flush.before.ack`, acks=1 is answered before the sync. Consumers would then be told of an end before what
    /// was just acknowledged, which happens in Kafka only with followers.
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
        // Ends early only with the partition.
        drop(high_watermark.wait_for(|committed| *committed >= end).await);
    }

    /// The high watermark, to be watched.
    pub(crate) fn watch_high_watermark(&self) -> watch::Receiver<Offset> {
        let watched = self.high_watermark.subscribe();
        self.announce(self.view().map(|view| view.high_watermark()));
        watched
    }

    /// Tells the watchers. Two announcements may overtake each other: the higher one stands.
    fn announce(&self, moved: Option<Offset>) {
        let Some(high_watermark) = moved else { return };
        // Most partitions have no watcher: nothing is locked for them.
        if self.high_watermark.receiver_count() > 0 {
            self.high_watermark.send_if_modified(|known| {
                let is_news = *known < high_watermark;
                *known = high_watermark.max(*known);
                is_news
            });
        }
    }

    /// Has the log synced soon. Asking while a request is queued costs nothing.
    pub(crate) fn request_flush(self: &Arc<Self>) {
        if !self.flush_queued.swap(true, Ordering::AcqRel) {
            let flusher = Arc::clone(&self.flusher.read().unwrap_or_else(PoisonError::into_inner));
            flusher.request(Arc::clone(self));
        }
    }

    /// Has the log synced when something waits for that for longer than `flush.ms`
    /// (`LogManager.flushDirtyLogs`).
    pub(crate) fn flush_if_overdue(self: &Arc<Self>, now_ms: i64) {
        let waited_ms = now_ms.saturating_sub(self.last_flush_ms.load(Ordering::Relaxed));
        if waited_ms < self.config().log.flush_ms {
            return;
        }
        let log_waits = |log: &Log| log.log_end() > log.flushed_offset();
        let waits = self.lock().log.as_ref().is_some_and(log_waits);
        if waits {
            self.request_flush();
        }
    }

    /// Syncs the log; on the flusher's thread. After an error that passes it is to be tried again, though what was
    /// appended may be durable: then it is what is derived from that which has to wait.
    pub(crate) fn flush(&self) -> Result<(), LogError> {
        // From here on an append asks for another flush.
        self.flush_queued.store(false, Ordering::Release);
        let ticket = match &mut self.lock().log {
            Some(log) => log.flush_ticket()?,
            None => None,
        };
        let Some(ticket) = ticket else { return Ok(()) };
        let done = ticket.run();
        if done.is_err() && !self.lock().log.as_ref().is_some_and(|log| log.has_given(&ticket)) {
            // The log has moved to another directory meanwhile, or is closed.
            return Ok(());
        }
        let derived = done?;
        self.last_flush_ms.store(clock::now_ms(), Ordering::Relaxed);
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

    /// The log directory has failed: nobody is kept waiting for it.
    pub(crate) fn fail(&self) {
        self.offline.store(true, Ordering::Release);
        self.lock().replica.give_up_waiting();
    }

    /// Gives the partition up: its log is returned to be closed or deleted.
    ///
    /// # Panics
    /// After a panic under the lock.
    pub(crate) fn stop(&self) -> Option<Log> {
        let mut state = self.lock();
        state.replica.stop();
        state.log.take()
    }
}
