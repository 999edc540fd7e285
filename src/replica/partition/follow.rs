//! How a replica follows the leader of its partition: what it fetches, and how a fetch response changes its log.
//!
//! The leader's batches are appended byte for byte. What the role decides is done under the same lock, except
//! truncation: it syncs, so the fetcher runs it on a thread that may block.

use std::sync::Arc;

use bytes::Bytes;
use klamm_log::error::{AppendError, LogError, Severity};
use klamm_log::leader_epoch_cache::LeaderEpochCache;
use klamm_log::log::Log;
use klamm_protocol::ids::{LeaderEpoch, Offset};
use klamm_replication::partition::{FetchedPartition, Follow, NextFetch};
use klamm_replication::{EpochHistory, EpochStart};
use tracing::{error, warn};

use super::lacking::Attempt;
use super::lock::Locked;
use super::{Partition, State, log_ends};
use crate::clock;
use crate::replica::delayed::Countdown;

/// How a follower's log is truncated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Removes everything at or above the offset.
    To(Offset),
    /// Removes everything; the next record gets the offset.
    FullyAndStartAt(Offset),
}

impl Cut {
    /// The largest possible log end offset after the truncation.
    pub(crate) fn end(self) -> Offset {
        let (Self::To(offset) | Self::FullyAndStartAt(offset)) = self;
        offset
    }
}

/// What the fetcher does after a fetch response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Fetches again.
    Again,
    /// Truncates the log, then fetches again.
    Cut(Cut),
    /// Asks the leader for its log start and log end offset (ListOffsets).
    FindLeaderRange,
    /// Fetches again after a pause.
    BackOff,
    /// Stops fetching until the metadata changes or an operator acts.
    Stuck,
}

impl Partition {
    /// The next fetch and this replica's log start offset; `None` while there is nothing to fetch.
    pub(crate) fn next_fetch(&self) -> Option<(NextFetch, Offset)> {
        if self.is_offline() {
            return None;
        }
        let flushes = self.config().flushes_before_ack();
        let mut state = self.lock();
        let State { log: Some(log), replica } = &mut *state else { return None };
        // The log is the first to notice that its directory has failed; `offline` is set later.
        if log.is_offline() || self.flushing.is_full() {
            return None;
        }
        let latest = log.leader_epochs().latest();
        let latest = latest.map(|at| EpochStart { epoch: at.epoch, start_offset: at.offset });
        let latest = EpochHistory::from_entries(latest);
        let next = replica.next_fetch(log_ends(log), flushes, &latest)?;
        Some((next, log.log_start()))
    }

    /// If the next fetch must follow a sync, queues the sync and adds it to the countdown.
    pub(crate) fn sync_before_fetch(self: &Arc<Self>, countdown: &Arc<Countdown>) {
        if self.is_offline() || !self.config().flushes_before_ack() {
            return;
        }
        let mut state = self.lock();
        let Some(log) = &state.log else { return };
        let end = log.log_end();
        if log.flushed_offset() < end {
            state.replica.await_flushed(end, countdown.ticket());
            drop(state);
            self.request_flush();
        }
    }

    /// Applies a fetch response of the leader to the log.
    pub(crate) fn on_fetched(
        self: &Arc<Self>,
        answer: &FetchedPartition,
        records: Bytes,
    ) -> Progress {
        let bytes = records.len();
        self.lock_to_append(
            // An empty log may start anew at the base offset of the leader's first batch. Only the log parses the
            // batches, so this assumes timestamps up to now.
            |log| {
                bytes > 0
                    && (log.log_start() == log.log_end()
                        || log.may_sync_to_roll(bytes, clock::wall_ms(), clock::now_ms()))
            },
            |state| self.apply_fetched(state, answer, records),
        )
    }

    fn apply_fetched(
        self: &Arc<Self>,
        mut state: Locked<'_, State>,
        answer: &FetchedPartition,
        records: Bytes,
    ) -> Progress {
        let State { log: Some(log), replica } = &mut *state else { return Progress::Stuck };
        let epochs = match answer.diverging {
            Some(_) => history(log.leader_epochs()),
            None => EpochHistory::default(),
        };
        match replica.on_fetched(answer, &epochs, log.log_end()) {
            Some(Follow::Append { .. }) => self.replicate(state, answer, records),
            Some(follow) => progress(follow),
            None => Progress::Stuck,
        }
    }

    /// Appends the leader's batches byte for byte.
    fn replicate(
        self: &Arc<Self>,
        mut state: Locked<'_, State>,
        answer: &FetchedPartition,
        records: Bytes,
    ) -> Progress {
        let State { log: Some(log), replica } = &mut *state else { return Progress::Stuck };
        if self.flushing.is_full() {
            return Progress::BackOff;
        }
        let segments = log.segment_count();
        if !records.is_empty()
            && let Err(failure) =
                log.append_as_follower(records, answer.current_leader_epoch, clock::now_ms())
        {
            drop(state);
            return self.append_failed(&failure);
        }
        self.on_room(Attempt::Write);
        let rolled = log.segment_count() != segments;
        let log_start = replica.on_replicated(answer, log.log_end());
        state.settle();
        if let Some(log) = &mut state.log {
            self.raise_log_start(log, log_start);
        }
        drop(state);
        if rolled {
            self.request_flush();
        }
        Progress::Again
    }

    /// The leader's log start has moved up, by retention or DeleteRecords: deletes the same records here.
    fn raise_log_start(&self, log: &mut Log, start: Offset) {
        if start > log.log_start()
            && let Err(failure) = log.delete_records(start)
        {
            let (topic, index) = (&self.topic, self.index);
            error!(
                %topic, partition = index,
                "{topic}-{index}: cannot raise the log start offset to {start}: {failure}"
            );
        }
    }

    fn append_failed(&self, failure: &AppendError) -> Progress {
        let AppendError::Storage(storage) = failure else {
            let (topic, index) = (&self.topic, self.index);
            error!(
                %topic, partition = index,
                "{topic}-{index} cannot append what the leader sent: {failure}"
            );
            // The batch may have been damaged on the way: fetch it again.
            let may_pass = matches!(failure, AppendError::CorruptBatch { .. });
            return if may_pass { Progress::BackOff } else { Progress::Stuck };
        };
        match self.on_storage_error(Attempt::Write, storage) {
            Severity::Passes => Progress::BackOff,
            Severity::Directory => {
                self.fail();
                Progress::Stuck
            }
            Severity::Partition | Severity::Node => Progress::Stuck,
        }
    }

    /// The leader has answered with its log start and log end offset.
    pub(crate) fn on_leader_range(
        &self,
        epoch: LeaderEpoch,
        (leader_start, leader_end): (Offset, Offset),
    ) -> Progress {
        let mut state = self.lock();
        let State { log: Some(log), replica } = &mut *state else { return Progress::Stuck };
        match replica.on_leader_range(epoch, (leader_start, leader_end), log.log_end()) {
            Some(follow) => progress(follow),
            None => Progress::Stuck,
        }
    }

    /// Truncates the log, if this broker still follows in that epoch. Blocks for the disk.
    ///
    /// The recovery point on disk must not be above the new end: see [`crate::replica::log_manager::LogManager::cut`].
    pub(crate) fn cut(&self, epoch: LeaderEpoch, cut: Cut) -> Result<(), LogError> {
        let now_ms = clock::now_ms();
        let mut state = self.lock_for_disk();
        let State { log: Some(log), replica } = &mut *state else { return Ok(()) };
        if !replica.may_cut(epoch) {
            return Ok(());
        }
        let (end, flushed) = (log.log_end(), log.flushed_offset());
        if cut.end() < end {
            let (topic, index, to) = (&self.topic, self.index, cut.end());
            warn!(
                %topic, partition = index,
                "{topic}-{index} follows in leader epoch {epoch}: truncating its log from offset {end} \
                 ({flushed} synced) to {to}"
            );
        }
        let done = match cut {
            Cut::To(offset) => log.truncate_to(offset, now_ms).map(drop),
            Cut::FullyAndStartAt(offset) => log.truncate_fully_and_start_at(offset, now_ms),
        };
        // After an error too: the log in memory is truncated, only its files are not yet.
        replica.on_cut(log.log_start(), log.log_end());
        done
    }
}

/// What the fetcher does after a decision of the role. `Append` has been carried out before.
fn progress(follow: Follow) -> Progress {
    match follow {
        Follow::Append { .. } | Follow::Ignore => Progress::Again,
        Follow::TruncateTo(end) => Progress::Cut(Cut::To(end)),
        Follow::TruncateFullyAndStartAt(start) => Progress::Cut(Cut::FullyAndStartAt(start)),
        Follow::FindLeaderRange => Progress::FindLeaderRange,
        Follow::AwaitMetadata => Progress::Stuck,
        Follow::BackOff => Progress::BackOff,
    }
}

/// The epochs of a log, for the pure state machines.
pub(super) fn history(epochs: &LeaderEpochCache) -> EpochHistory {
    let starts = epochs.entries();
    EpochHistory::from_entries(
        starts.map(|(epoch, start_offset)| EpochStart { epoch, start_offset }),
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use klamm_log::disk::{Disk, MemoryDisk};
    use klamm_log::log_reader::FetchSpec;
    use klamm_metadata::config_def::Configs;
    use klamm_protocol::batch_builder::BatchBuilder;
    use klamm_protocol::{ErrorCode, Uuid};
    use klamm_replication::OffsetAndEpoch;
    use klamm_replication::partition::{BrokerStatus, Registration};

    use super::*;
    use crate::config::BrokerConfig;
    use crate::net::response::Part;
    use crate::replica::log_manager::LogManager;
    use crate::replica::partition::{AppendOptions, BrokerStatuses, ReadOptions, Reader};
    use crate::replica::settings::partition_config;

    const TOPIC_ID: Uuid = Uuid::from_bytes([9; 16]);

    fn batch(value: &'static [u8]) -> Bytes {
        let mut builder = BatchBuilder::new(0);
        builder.append(1, None, Some(value), &[]).unwrap();
        builder.build().unwrap().bytes
    }

    fn bytes_of(parts: Vec<Part>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in parts {
            match part {
                Part::Memory(memory) => bytes.extend_from_slice(&memory),
                Part::File { file, position, len } => {
                    let mut read = vec![0; len];
                    assert_eq!(file.read_at(&mut read, position).unwrap(), len);
                    bytes.extend(read);
                }
            }
        }
        bytes
    }

    /// One broker's replica of the partition, with its log manager.
    struct Replica {
        id: i32,
        store: LogManager,
        partition: Arc<Partition>,
    }

    fn replica(id: i32) -> Replica {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
        let mut config = BrokerConfig::from_pairs([("node.id", id.to_string().as_str())]).unwrap();
        config.storage.log_dirs = vec![PathBuf::from("/data")];
        let store = LogManager::open(&disk, &config).unwrap();
        let configs = BrokerConfig::from_pairs::<&str, &str>([]).unwrap();
        let topic = partition_config(&configs, "t", &Configs::new());
        let opened = store.open_all(vec![("t".into(), TOPIC_ID, 0, topic)]);
        let partition = opened.into_iter().next().unwrap().unwrap();
        Replica { id, store, partition }
    }

    fn registration(epoch: LeaderEpoch) -> Registration {
        Registration {
            leader_epoch: epoch,
            partition_epoch: epoch,
            replicas: vec![1, 2],
            isr: vec![1, 2],
        }
    }

    impl Replica {
        fn lead(&self, epoch: LeaderEpoch) {
            self.partition.lead(&registration(epoch), &BrokerStatuses::new());
        }

        fn follow(&self, leader: &Self, epoch: LeaderEpoch) {
            assert!(self.partition.follow(Some(leader.id), &registration(epoch)));
        }

        fn append(&self, value: &'static [u8]) {
            self.partition.append(batch(value), &AppendOptions::coordinator(), 0).unwrap();
        }

        fn log_end(&self) -> Offset {
            self.partition.view().unwrap().log_end()
        }

        fn high_watermark(&self) -> Offset {
            self.partition.view().unwrap().high_watermark()
        }

        /// Everything in the log, as bytes.
        fn bytes(&self) -> Vec<u8> {
            let view = self.partition.view().unwrap();
            let spec = FetchSpec {
                offset: 0,
                max_bytes: 1 << 20,
                min_one_message: true,
                upper_bound: view.log_end(),
            };
            view.read(spec).unwrap().records.unwrap().read().unwrap().to_vec()
        }

        fn options(&self) -> ReadOptions {
            ReadOptions {
                fetch_offset: 0,
                max_bytes: 1 << 20,
                min_one_batch: true,
                reader: Reader::Debugger,
                log_start_offset: 0,
                current_leader_epoch: None,
                last_fetched_epoch: None,
            }
        }

        /// Waits until all appended records are on disk.
        async fn sync(&self) {
            let countdown = Countdown::new();
            self.partition.sync_before_fetch(&countdown);
            countdown.seal();
            countdown.over().await;
        }

        /// Sends one fetch to the leader; `None` when there is nothing to fetch.
        async fn fetch_from(&self, leader: &Self) -> Option<Progress> {
            self.sync().await;
            let (fetch, log_start_offset) = self.partition.next_fetch()?;
            let options = ReadOptions {
                fetch_offset: fetch.fetch_offset,
                reader: Reader::Follower { id: self.id, broker_epoch: None },
                log_start_offset,
                current_leader_epoch: Some(fetch.current_leader_epoch),
                last_fetched_epoch: fetch.last_fetched_epoch,
                ..leader.options()
            };
            let read = leader.partition.read(&options, None);
            let error = read.as_ref().err().copied().unwrap_or(ErrorCode::None);
            let mut answer = FetchedPartition {
                error,
                number: fetch.number,
                current_leader_epoch: fetch.current_leader_epoch,
                fetch_offset: fetch.fetch_offset,
                diverging: None,
                high_watermark: -1,
                log_start_offset: -1,
            };
            let mut records = Vec::new();
            if let Ok(read) = read {
                answer.diverging = read.diverging_epoch;
                answer.high_watermark = read.high_watermark;
                answer.log_start_offset = read.log_start_offset;
                records = bytes_of(read.parts);
            }
            Some(self.partition.on_fetched(&answer, records.into()))
        }

        fn cut(&self, epoch: LeaderEpoch, cut: Cut) {
            let all = [Arc::clone(&self.partition)];
            self.store.cut(&all, &self.partition, epoch, cut).unwrap();
        }

        /// Fetches until both logs end at the same offset and the leader has committed everything.
        async fn catch_up_with(&self, leader: &Self, epoch: LeaderEpoch) {
            for _ in 0..20 {
                match self.fetch_from(leader).await.unwrap() {
                    Progress::Cut(cut) => self.cut(epoch, cut),
                    Progress::Again => {}
                    other => panic!("{other:?}"),
                }
                if self.log_end() == leader.log_end() && leader.high_watermark() == leader.log_end()
                {
                    return;
                }
                leader.sync().await;
            }
            panic!("the follower does not catch up");
        }
    }

    #[tokio::test]
    async fn a_follower_holds_the_leaders_bytes_and_its_fetches_commit_them() {
        let (leader, follower) = (replica(1), replica(2));
        leader.lead(5);
        follower.follow(&leader, 5);
        leader.append(b"one");
        leader.append(b"two");
        leader.sync().await;
        assert_eq!(follower.fetch_from(&leader).await, Some(Progress::Again));
        assert_eq!((follower.log_end(), leader.high_watermark()), (2, 0));
        assert_eq!(follower.fetch_from(&leader).await, Some(Progress::Again));
        assert_eq!((leader.high_watermark(), follower.high_watermark()), (2, 2));
        assert_eq!(follower.bytes(), leader.bytes());
    }

    #[tokio::test]
    async fn records_that_were_never_committed_give_way_to_those_of_the_next_leader() {
        let (old, new) = (replica(1), replica(2));
        old.lead(5);
        new.follow(&old, 5);
        old.append(b"committed");
        new.catch_up_with(&old, 5).await;
        old.append(b"lost");
        old.append(b"lost too");
        new.lead(6);
        new.append(b"chosen");
        old.follow(&new, 6);
        old.catch_up_with(&new, 6).await;
        assert_eq!(old.bytes(), new.bytes());
        assert_eq!((old.log_end(), old.high_watermark()), (2, 2));
    }

    #[tokio::test]
    async fn records_are_deleted_once_every_replica_has_deleted_them() {
        let (leader, follower) = (replica(1), replica(2));
        let mut statuses = BrokerStatuses::new();
        let status =
            |fenced| BrokerStatus { broker_epoch: 1, fenced, in_controlled_shutdown: false };
        statuses.insert(2, status(false));
        leader.partition.lead(&registration(5), &statuses);
        follower.follow(&leader, 5);
        leader.append(b"one");
        follower.catch_up_with(&leader, 5).await;
        leader.partition.with_log(|log| log.delete_records(1)).unwrap().unwrap();
        let deleted = leader.partition.deleted_everywhere(1);
        tokio::pin!(deleted);
        follower.fetch_from(&leader).await;
        assert!(
            at_once(deleted.as_mut()).await.is_none(),
            "the follower has only received the new log start"
        );
        follower.fetch_from(&leader).await;
        assert_eq!(deleted.await, Ok(1));

        let deleted = leader.partition.deleted_everywhere(2);
        tokio::pin!(deleted);
        assert!(at_once(deleted.as_mut()).await.is_none());
        assert!(leader.partition.follow(Some(2), &registration(6)));
        assert_eq!(deleted.await, Err(ErrorCode::NotLeaderOrFollower));
    }

    /// The output of a future that is ready at once.
    async fn at_once<F: Future + Unpin>(future: F) -> Option<F::Output> {
        tokio::time::timeout(std::time::Duration::ZERO, future).await.ok()
    }

    #[tokio::test]
    async fn what_is_lost_with_a_leadership_is_not_acknowledged_even_if_it_comes_back() {
        let (old, new) = (replica(1), replica(2));
        old.lead(5);
        new.follow(&old, 5);
        let countdown = Countdown::new();
        let options = AppendOptions::client(-1, 11, Some(&countdown));
        let lost = old.partition.append(batch(b"lost"), &options, 0).unwrap();
        new.lead(6);
        new.append(b"chosen");
        old.follow(&new, 6);
        countdown.seal();
        assert!(countdown.is_over(), "no request waits any longer");
        let awaited = lost.awaited.unwrap();
        assert_eq!(old.partition.acknowledged(&awaited), Err(ErrorCode::NotLeaderOrFollower));
        old.catch_up_with(&new, 6).await;
        old.lead(7);
        new.follow(&old, 7);
        old.append(b"more");
        new.catch_up_with(&old, 7).await;
        assert_eq!(old.high_watermark(), 2);
        assert_eq!(old.partition.acknowledged(&awaited), Err(ErrorCode::NotLeaderOrFollower));
    }

    #[tokio::test]
    async fn a_log_is_not_cut_in_another_epoch_than_the_one_that_asked_for_it() {
        let (one, two) = (replica(1), replica(2));
        one.lead(5);
        one.append(b"value");
        one.follow(&two, 6);
        one.cut(5, Cut::To(0));
        assert_eq!(one.log_end(), 1);
        one.cut(6, Cut::To(0));
        assert_eq!(one.log_end(), 0);
    }

    #[tokio::test]
    async fn damaged_bytes_are_not_appended_and_are_fetched_again() {
        let (leader, follower) = (replica(1), replica(2));
        leader.lead(5);
        follower.follow(&leader, 5);
        let (fetch, _) = follower.partition.next_fetch().unwrap();
        let answer = FetchedPartition {
            error: ErrorCode::None,
            number: fetch.number,
            current_leader_epoch: 5,
            fetch_offset: 0,
            diverging: None,
            high_watermark: 0,
            log_start_offset: 0,
        };
        let mut damaged = batch(b"value").to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(follower.partition.on_fetched(&answer, damaged.into()), Progress::BackOff);
        assert_eq!(follower.log_end(), 0);
    }

    #[tokio::test]
    async fn a_follower_starts_anew_where_the_leader_starts_if_that_has_deleted_what_it_lacks() {
        let (leader, follower) = (replica(1), replica(2));
        leader.lead(5);
        follower.follow(&leader, 5);
        let (fetch, _) = follower.partition.next_fetch().unwrap();
        let answer = FetchedPartition {
            error: ErrorCode::OffsetOutOfRange,
            number: fetch.number,
            current_leader_epoch: 5,
            fetch_offset: 0,
            diverging: None,
            high_watermark: -1,
            log_start_offset: -1,
        };
        let progress = follower.partition.on_fetched(&answer, Bytes::new());
        assert_eq!(progress, Progress::FindLeaderRange);
        let progress = follower.partition.on_leader_range(5, (50, 90));
        assert_eq!(progress, Progress::Cut(Cut::FullyAndStartAt(50)));
        follower.cut(5, Cut::FullyAndStartAt(50));
        let (fetch, log_start) = follower.partition.next_fetch().unwrap();
        assert_eq!((fetch.fetch_offset, log_start), (50, 50));
    }

    #[tokio::test]
    async fn a_late_diverging_epoch_is_ignored_once_the_role_has_changed() {
        let (leader, follower) = (replica(1), replica(2));
        leader.lead(5);
        follower.follow(&leader, 5);
        let (fetch, _) = follower.partition.next_fetch().unwrap();
        follower.lead(6);
        let answer = FetchedPartition {
            error: ErrorCode::None,
            number: fetch.number,
            current_leader_epoch: 5,
            fetch_offset: 0,
            diverging: Some(OffsetAndEpoch::new(0, 3)),
            high_watermark: 0,
            log_start_offset: 0,
        };
        let progress = follower.partition.on_fetched(&answer, Bytes::new());
        assert_eq!(progress, Progress::Stuck);
    }
}
