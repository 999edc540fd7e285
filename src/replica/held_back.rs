//! Partitions whose high watermark waits for a follower: the leaders on this broker look for the silent ones among them.
//!
//! A partition reports itself when its lock is released. So only partitions with records that wait are looked at, and
//! none on an idle broker.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_protocol::ids::TopicIdPartition;
use klamm_replication::partition::SILENCE_CHECKS;
use tokio::sync::Notify;
use tracing::warn;

use super::replica_manager::ReplicaManager;
use crate::clock;

/// The partitions to look at next, each once.
#[derive(Debug, Default)]
pub(crate) struct HeldBack {
    waiting: Mutex<Vec<TopicIdPartition>>,
    news: Notify,
}

impl HeldBack {
    fn lock(&self) -> MutexGuard<'_, Vec<TopicIdPartition>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A follower holds back the high watermark of this partition, which is not waiting here yet.
    fn add(&self, partition: TopicIdPartition) {
        let mut waiting = self.lock();
        waiting.push(partition);
        if waiting.len() == 1 {
            self.news.notify_one();
        }
    }

    async fn next(&self) -> Vec<TopicIdPartition> {
        loop {
            let waiting = std::mem::take(&mut *self.lock());
            if !waiting.is_empty() {
                return waiting;
            }
            self.news.notified().await;
        }
    }
}

/// One partition's part in it.
#[derive(Debug)]
pub(crate) struct HeldBackReport {
    held_back: Arc<HeldBack>,
    is_reported: AtomicBool,
}

impl HeldBackReport {
    pub(super) fn to(held_back: Arc<HeldBack>) -> Self {
        Self { held_back, is_reported: AtomicBool::new(false) }
    }

    /// A follower holds back the high watermark of this partition. Reports that, unless it is reported already.
    pub(super) fn report(&self, partition: TopicIdPartition) {
        if !self.is_reported() && !self.is_reported.swap(true, Ordering::AcqRel) {
            self.held_back.add(partition);
        }
    }

    pub(super) fn is_reported(&self) -> bool {
        self.is_reported.load(Ordering::Relaxed)
    }

    /// The partition is about to be looked at; it reports itself again if it has to.
    pub(super) fn on_checked(&self) {
        self.is_reported.store(false, Ordering::Release);
    }
}

/// Checks the partitions in intervals, for as long as it is polled. The interval is a pause, so that a process that was
/// paused itself does not check many times at once.
pub(super) async fn run(replicas: Arc<ReplicaManager>) {
    let silence_ms = replicas.config.replication.follower_silence_ms;
    let interval = Duration::from_millis(silence_ms.unsigned_abs()) / SILENCE_CHECKS;
    loop {
        let waiting = replicas.log_manager.held_back.next().await;
        tokio::time::sleep(interval).await;
        let now_ms = clock::now_ms();
        let is_confirmed = replicas.session.is_confirmed();
        for TopicIdPartition { topic_id, partition: index } in waiting {
            let Some(partition) = replicas.partitions.get(topic_id, index) else { continue };
            let Some(proposal) = partition.check_silence(is_confirmed, now_ms) else { continue };
            let topic = partition.topic();
            warn!(
                %topic, partition = index,
                "{topic}-{index}: followers get no further while records wait for them, the ISR change {:?} is sent to \
                 the controller", proposal.change
            );
            replicas.propose(&partition, proposal);
        }
    }
}
