//! Future logs (`<topic>-<partition>.<id>-future`): copies of replicas in another log directory (KIP-113). Also the log
//! directories that were chosen for replicas which do not exist yet.
//!
//! To replace a log by its future log takes two renames, each synced: first the old log's directory gets a name to be
//! deleted, then the future log's directory gets the plain name. After a crash between the two, only the future log is
//! left; it was complete, so the next start uses it as the log. (Apache Kafka renames in the other order, and an
//! operator has to help when it finds two logs. When it finds only the future log, it does the same as Klamm.)

use klamm_protocol::ids::TopicPartition;
use std::path::Path;
use std::sync::Arc;

use bytestring::ByteString;
use klamm_log::error::LogError;
use klamm_log::log::{Log, LogOptions};
use klamm_log::partition_dir::{DirKind, PartitionDirName};
use klamm_metadata::known_replica::KnownReplica;
use klamm_protocol::Uuid;
use klamm_protocol::ids::PartitionIndex;
use tracing::{error, info, warn};

use super::found::Known;
use super::known::are_all_found;
use super::{LogManager, lock};
use crate::clock;
use crate::replica::partition::{FutureReplica, MoveError, Partition};

/// The most replicas for which a log directory is remembered before they exist.
pub(super) const MAX_PREFERENCES: usize = 10_000;

impl LogManager {
    /// The index of this directory in `log.dirs`.
    pub(crate) fn place_at(&self, path: &Path) -> Option<usize> {
        self.settled().find(|(_, directory)| directory.dir.path() == path).map(|(place, _)| place)
    }

    /// The index of the directory that has the partition's log.
    pub(crate) fn place_of(&self, topic: &ByteString, index: PartitionIndex) -> Option<usize> {
        lock(&self.places).get(&TopicPartition::new(topic.clone(), index)).copied()
    }

    pub(crate) fn path_at(&self, place: usize) -> &Path {
        self.at(place).dir.path()
    }

    pub(crate) fn is_online(&self, place: usize) -> bool {
        self.at(place).is_online()
    }

    /// Remembers the log directory for a replica that does not exist yet.
    pub(crate) fn prefer(&self, topic: &ByteString, index: PartitionIndex, place: usize) {
        let mut preferred = lock(&self.preferred);
        // A copy: the key lives longer than the request's buffer.
        let key = TopicPartition::new(ByteString::from(&**topic), index);
        if preferred.len() >= MAX_PREFERENCES && !preferred.contains_key(&key) {
            warn!(
                "the log directory chosen for {topic}-{index} is ignored: {MAX_PREFERENCES} others are \
                 remembered already"
            );
            return;
        }
        preferred.insert(key, place);
    }

    /// As [`Self::prefer`], for the directory in the cluster metadata, unless another one was chosen.
    pub(crate) fn prefer_recorded(
        &self,
        topic: &ByteString,
        index: PartitionIndex,
        directory: Uuid,
    ) {
        let place = self.settled().find(|(_, known)| known.id == directory).map(|(place, _)| place);
        let Some(place) = place.filter(|_| self.place_of(topic, index).is_none()) else { return };
        let is_preferred =
            lock(&self.preferred).contains_key(&TopicPartition::new(topic.clone(), index));
        if !is_preferred {
            self.prefer(topic, index, place);
        }
    }

    /// At the start: deletes the future logs of replicas that are gone, and lets those whose log is gone replace it. A
    /// future log whose topic the metadata has never known is kept, as logs are.
    pub(super) fn settle_futures(&self, known: Known<'_>) {
        let futures = std::mem::take(&mut *lock(&self.futures));
        for (key, copies) in futures {
            let replica = known(&key.topic, key.partition);
            let belongs = |(place, name): &(usize, String)| {
                let topic_id = self.topic_id_at(*place, name);
                replica.is_some_and(|replica| topic_id.is_none_or(|id| id == replica.topic_id))
            };
            let (mine, others): (Vec<_>, Vec<_>) = copies.into_iter().partition(belongs);
            others
                .into_iter()
                .for_each(|(place, name)| self.delete_if_topic_was_known(place, name));
            if let Some(replica) = replica.filter(|_| !mine.is_empty()) {
                self.settle_copies(key, &replica, mine);
            }
        }
    }

    fn delete_if_topic_was_known(&self, place: usize, name: String) {
        match self.topic_id_at(place, &name) {
            Some(id) if self.has_seen(id) => lock(&self.deleted).push((0, place, name)),
            _ => {
                let path = self.path_at(place).join(name);
                warn!("{} is the future log of an unknown topic, it is kept", path.display());
            }
        }
    }

    /// Keeps at most one future log of a replica, in another directory than its log, and deletes the others.
    fn settle_copies(
        &self,
        key: TopicPartition,
        replica: &KnownReplica,
        mut copies: Vec<(usize, String)>,
    ) {
        let current = self.place_of(&key.topic, key.partition);
        let has_vanished = || self.vanished_from(&key, replica).is_some();
        let may_be_used = || replica.may_replace_log(are_all_found(self));
        if current.is_none() && (!may_be_used() || self.is_missed(replica) || has_vanished()) {
            // The log may come back, and an incomplete future log must not replace it.
            lock(&self.futures).insert(key, copies);
            return;
        }
        copies.sort_by_key(|(place, _)| self.at(*place).id != replica.directory);
        let usable = copies.iter().position(|(place, _)| current != Some(*place));
        let chosen = usable.map(|at| copies.remove(at));
        let superfluous = copies.into_iter().map(|(place, name)| (0, place, name));
        lock(&self.deleted).extend(superfluous);
        let Some((place, name)) = chosen else { return };
        if current.is_some() {
            lock(&self.futures).insert(key, vec![(place, name)]);
        } else if let Err(failure) = self.promote(&key, place, &name) {
            error!("the future log {name} cannot replace the log that is gone: {failure}");
            // Opening the replica tries again: it must not create an empty log beside its future log.
            lock(&self.futures).insert(key, vec![(place, name)]);
        }
    }

    /// Lets a future log replace the log that is gone, if that failed at the start.
    pub(super) fn promote_found(
        &self,
        topic: &ByteString,
        index: PartitionIndex,
    ) -> Result<(), LogError> {
        let key = TopicPartition::new(topic.clone(), index);
        if self.place_of(topic, index).is_some() {
            return Ok(());
        }
        let first = lock(&self.futures).get(&key).and_then(|copies| copies.first().cloned());
        let Some((place, name)) = first else { return Ok(()) };
        self.promote(&key, place, &name)?;
        lock(&self.futures).remove(&key);
        Ok(())
    }

    fn promote(&self, key: &TopicPartition, place: usize, name: &str) -> Result<(), LogError> {
        let TopicPartition { topic, partition: index } = key;
        let directory = &self.at(place).dir;
        let to = directory.path().join(PartitionDirName::current(topic, *index));
        let disk = &directory.storage().disk;
        let parent = disk.open_dir(directory.path())?;
        disk.rename(&directory.path().join(name), &to)?;
        parent.sync()?;
        info!(
            %topic, partition = index,
            "the future log {name} is the log of {topic}-{index} now: the log that it was to replace is gone"
        );
        lock(&self.places).insert(key.clone(), place);
        Ok(())
    }

    /// Opens the future log of a partition that was found at the start, so that the move continues.
    pub(crate) fn found_future(&self, partition: &Partition) -> Option<FutureReplica> {
        let key = TopicPartition::new(partition.topic().clone(), partition.index());
        let (place, name) = lock(&self.futures).remove(&key)?.into_iter().next()?;
        match self.open_future(partition, place, &name) {
            Ok(future) => Some(future),
            // The next start, or the next request to move the replica, tries again.
            Err(failure) if failure.passes() => {
                warn!(
                    "the future log {name} cannot be opened for now, the move does not continue: {failure}"
                );
                None
            }
            Err(failure) => {
                error!(
                    "the future log {name} cannot be opened and is deleted, the move is cancelled: {failure}"
                );
                self.delete_later(partition.config().log.file_delete_delay_ms, place, name);
                None
            }
        }
    }

    /// Creates an empty future log.
    pub(crate) fn create_future(
        &self,
        partition: &Partition,
        place: usize,
    ) -> Result<FutureReplica, LogError> {
        let (topic, index) = (partition.topic(), partition.index());
        let unique = crate::random::uuid();
        let name = PartitionDirName::marked(topic, index, DirKind::Future, unique);
        self.open_future(partition, place, &name)
    }

    fn open_future(
        &self,
        partition: &Partition,
        place: usize,
        name: &str,
    ) -> Result<FutureReplica, LogError> {
        let directory = self.at(place);
        let (topic, index) = (partition.topic(), partition.index());
        let checkpointed = lock(&directory.checkpoints).of(topic, index);
        let options = LogOptions {
            config: partition.config().log.clone(),
            recovery_point: 0,
            log_start: checkpointed.log_start,
            clean_shutdown: directory.was_left_in_order(),
            topic_id: Some(partition.key().topic_id),
            now_ms: clock::now_ms(),
        };
        let path = directory.dir.path().join(name);
        let mut log = Log::open(directory.dir.storage(), &path, options)?;
        if let Some(high_watermark) = checkpointed.high_watermark {
            log.set_high_watermark(high_watermark);
        }
        lock(&directory.checkpoints).forget(topic, index);
        let (directory_id, flusher) = (directory.id, Arc::clone(&directory.flusher));
        Ok(FutureReplica { log, place, directory_id, flusher, unsynced_bytes: 0 })
    }

    /// Cancels a move: the files of the future log are deleted after `file.delete.delay.ms`.
    pub(crate) fn discard_future(&self, partition: &Partition, mut future: FutureReplica) {
        let (topic, index) = (partition.topic(), partition.index());
        let marked = PartitionDirName::marked(topic, index, DirKind::Delete, crate::random::uuid());
        let delay_ms = partition.config().log.file_delete_delay_ms;
        match future.log.rename_dir(&self.path_at(future.place).join(&marked)) {
            Ok(()) => self.delete_later(delay_ms, future.place, marked),
            Err(failure) => {
                warn!("the future log of {topic}-{index} cannot be deleted for now: {failure}");
                let (log, place) = (future.log, future.place);
                self.delete_when_there_is_room(topic, index, (log, place, delay_ms));
            }
        }
    }

    /// Replaces the log by its future log. Returns false if the future log has not caught up yet, or is gone.
    pub(crate) fn replace_with_future(
        &self,
        partitions: &[Arc<Partition>],
        partition: &Partition,
    ) -> Result<bool, MoveError> {
        let _writing = lock(&self.checkpoints);
        let key = TopicPartition::new(partition.topic().clone(), partition.index());
        let Some(from) = self.place_of(&key.topic, key.partition) else { return Ok(false) };
        let mut to = from;
        let marked = PartitionDirName::marked(
            &key.topic,
            key.partition,
            DirKind::Delete,
            crate::random::uuid(),
        );
        let replaced = partition.replace_with_future(|log, future| {
            to = future.place;
            self.exchange(&key, (log, from, &marked), (&mut future.log, to))
        })?;
        if replaced.is_none() {
            return Ok(false);
        }
        self.delete_later(partition.config().log.file_delete_delay_ms, from, marked);
        for place in [from, to] {
            if let Err(failure) = self.write_checkpoints_of(place, partitions, None) {
                let path = self.path_at(place).display();
                error!("the checkpoints of {path} could not be written: {failure}");
            }
        }
        Ok(true)
    }

    fn exchange(
        &self,
        key: &TopicPartition,
        (log, from, marked): (&mut Log, usize, &str),
        (copy, to): (&mut Log, usize),
    ) -> Result<(), LogError> {
        let name = PartitionDirName::current(&key.topic, key.partition);
        log.rename_dir(&self.path_at(from).join(marked))?;
        if let Err(failure) = copy.rename_dir(&self.path_at(to).join(&name)) {
            // Under its present name the next start would delete the log.
            log.rename_back(&self.path_at(from).join(&name))?;
            return Err(failure);
        }
        lock(&self.places).insert(key.clone(), to);
        Ok(())
    }
}

/// Whether the log of a replica is to be in a directory in use, is not there, and may be in one that is not in use. A
/// future log, or an empty one, must not take its place.
pub(crate) fn may_be_elsewhere(
    log_manager: &LogManager,
    key: &TopicPartition,
    replica: &KnownReplica,
) -> bool {
    let was_there = || {
        lock(&log_manager.futures).contains_key(key)
            || lock(&log_manager.topics).knew_at_start(replica.topic_id)
    };
    !replica.may_replace_log(are_all_found(log_manager))
        && log_manager.has(replica.directory)
        && log_manager.place_of(&key.topic, key.partition).is_none()
        && was_there()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use klamm_log::disk::{Disk, Fault, MemoryDisk};
    use klamm_log::log_reader::FetchSpec;
    use klamm_protocol::batch_builder::BatchBuilder;
    use klamm_replication::partition::Registration;
    use tokio::runtime::Builder;

    use super::super::slow_disk::assert_others_are_served;
    use super::*;
    use crate::config::BrokerConfig;
    use crate::replica::partition::{AppendOptions, BrokerStatuses, Cut};
    use crate::replica::settings::partition_config;

    const TOPIC_ID: Uuid = Uuid::from_bytes([9; 16]);
    const ONE: usize = 0;
    const TWO: usize = 1;

    /// A broker with two log directories and one partition.
    struct Place {
        store: LogManager,
        partition: Arc<Partition>,
    }

    impl Drop for Place {
        fn drop(&mut self) {
            self.store.end_flushers();
        }
    }

    /// The metadata log. Without it the node would not start again.
    fn put_metadata_log(disk: &dyn Disk) {
        let dir = Path::new("/one/__cluster_metadata-0");
        disk.create_dir_all(dir).unwrap();
        disk.write_atomically(&dir.join("quorum-state"), b"{}").unwrap();
        disk.sync_dir(Path::new("/one")).unwrap();
    }

    /// Opens what is on the disk; in the cluster metadata, `recorded` is the partition's directory.
    fn open(disk: &MemoryDisk, recorded: Option<usize>) -> Place {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let config = BrokerConfig::from_pairs([("log.dirs", "/one,/two")]).unwrap();
        let store = LogManager::open(&disk, &config).unwrap();
        put_metadata_log(disk.as_ref());
        let directory = recorded.map_or(Uuid::ZERO, |place| store.at(place).id);
        let replica = KnownReplica {
            topic_id: TOPIC_ID,
            directory,
            is_counted_on: true,
            is_led_elsewhere: false,
        };
        store.settle(&|_, _| Some(replica), &|_| None);
        let configs = BrokerConfig::from_pairs::<&str, &str>([]).unwrap();
        let config = partition_config(&configs, "t", &BTreeMap::new());
        let opened = store.open_all(vec![("t".into(), TOPIC_ID, 0, config)]);
        let partition = opened.into_iter().next().unwrap().unwrap();
        Place { store, partition }
    }

    fn registration(leader_epoch: i32) -> Registration {
        Registration {
            leader_epoch,
            partition_epoch: leader_epoch,
            replicas: vec![1],
            isr: vec![1],
        }
    }

    impl Place {
        fn lead(&self, epoch: i32) {
            self.partition.lead(&registration(epoch), &BrokerStatuses::new());
        }

        fn append(&self, value: &'static [u8]) {
            let mut builder = BatchBuilder::new(0);
            builder.append(1, None, Some(value), &[]).unwrap();
            let records = builder.build().unwrap().bytes;
            self.partition.append(records, &AppendOptions::coordinator(), 0).unwrap();
        }

        fn bytes(&self) -> Vec<u8> {
            let view = self.partition.view().unwrap();
            let upper_bound = view.log_end();
            let spec =
                FetchSpec { offset: 0, max_bytes: 1 << 20, min_one_message: true, upper_bound };
            let records = view.read(spec).unwrap().records;
            records.map_or_else(Vec::new, |records| records.read().unwrap().to_vec())
        }

        fn begin(&self, to: usize) -> Result<(), LogError> {
            let future = self.store.create_future(&self.partition, to)?;
            self.partition.begin_move(future).unwrap();
            Ok(())
        }

        fn finish(&self) -> Result<(), MoveError> {
            while !self.partition.copy_to_future()?.unwrap().is_level {}
            let replaced = self
                .store
                .replace_with_future(std::slice::from_ref(&self.partition), &self.partition)?;
            assert!(replaced);
            Ok(())
        }

        fn place(&self) -> Option<usize> {
            self.store.place_of(&"t".into(), 0)
        }
    }

    #[test]
    fn a_replica_moves_with_its_records_and_is_written_to_where_it_is_then() {
        let disk = MemoryDisk::default();
        let broker = open(&disk, None);
        broker.lead(5);
        broker.append(b"one");
        broker.begin(TWO).unwrap();
        broker.append(b"two");
        assert_eq!(broker.partition.future_lag(), Some(2));
        broker.finish().unwrap();
        assert_eq!((broker.place(), broker.partition.future_place()), (Some(TWO), None));
        broker.append(b"three");
        broker.partition.flush().unwrap();
        let bytes = broker.bytes();
        assert_eq!(broker.partition.view().unwrap().high_watermark(), 3);
        drop(broker);
        disk.crash(1);
        let again = open(&disk, Some(TWO));
        assert_eq!((again.place(), again.bytes()), (Some(TWO), bytes));
    }

    #[test]
    fn the_epoch_of_a_leader_that_has_not_appended_yet_moves_as_well() {
        let broker = open(&MemoryDisk::default(), None);
        broker.lead(5);
        broker.append(b"one");
        broker.lead(6);
        broker.begin(TWO).unwrap();
        broker.finish().unwrap();
        let view = broker.partition.view().unwrap();
        assert_eq!(view.leader_epochs().entries().collect::<Vec<_>>(), [(5, 0), (6, 1)]);
    }

    #[test]
    fn what_the_replica_cuts_is_cut_from_the_copy_too() {
        let broker = open(&MemoryDisk::default(), None);
        broker.lead(5);
        broker.append(b"committed");
        broker.append(b"never committed");
        broker.begin(TWO).unwrap();
        broker.partition.copy_to_future().unwrap();
        assert!(broker.partition.follow(Some(2), &registration(6)));
        let all = [Arc::clone(&broker.partition)];
        broker.store.cut(&all, &broker.partition, 6, Cut::To(1)).unwrap();
        broker.lead(7);
        broker.append(b"chosen");
        broker.append(b"chosen too");
        let expected = broker.bytes();
        broker.finish().unwrap();
        assert_eq!(broker.bytes(), expected);
    }

    #[test]
    fn a_move_continues_after_a_restart_and_a_cancelled_one_leaves_no_files() {
        let disk = MemoryDisk::default();
        let broker = open(&disk, None);
        broker.lead(5);
        broker.append(b"one");
        broker.partition.flush().unwrap();
        broker.begin(TWO).unwrap();
        broker.partition.copy_to_future().unwrap();
        drop(broker);
        disk.crash(1);
        let broker = open(&disk, Some(ONE));
        assert_eq!(broker.place(), Some(ONE));
        let future =
            broker.store.found_future(&broker.partition).expect("the restart finds the future log");
        assert_eq!((future.place, future.log.log_end()), (TWO, 1));
        broker.store.discard_future(&broker.partition, future);
        broker.store.remove_deleted(i64::MAX);
        let left = disk.list(Path::new("/two")).unwrap();
        assert!(left.iter().all(|entry| !entry.is_dir), "{left:?}");
    }

    #[test]
    fn a_copy_does_not_replace_a_log_whose_directory_may_come_back() {
        let disk = MemoryDisk::default();
        let broker = open(&disk, None);
        broker.lead(5);
        broker.begin(TWO).unwrap();
        broker.finish().unwrap();
        broker.append(b"one");
        broker.begin(ONE).unwrap();
        assert!(broker.partition.copy_to_future().unwrap().unwrap().is_level);
        // The controller hears of the copy's directory now, and what follows is only in the log.
        broker.append(b"acknowledged");
        broker.partition.flush().unwrap();
        drop(broker);
        disk.rename(Path::new("/two"), Path::new("/away")).unwrap();

        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let config = BrokerConfig::from_pairs([("log.dirs", "/one,/two")]).unwrap();
        let store = LogManager::open(&shared, &config).unwrap();
        let (key, directory) = (TopicPartition::new("t".into(), 0), store.at(ONE).id);
        let counted_on = KnownReplica {
            topic_id: TOPIC_ID,
            directory,
            is_counted_on: true,
            is_led_elsewhere: false,
        };
        store.settle(&|_, _| Some(counted_on), &|_| None);
        assert_eq!(store.place_of(&"t".into(), 0), None);
        assert!(may_be_elsewhere(&store, &key, &counted_on));
        let fetched = KnownReplica { is_counted_on: false, is_led_elsewhere: true, ..counted_on };
        assert!(!may_be_elsewhere(&store, &key, &fetched));

        disk.rename(Path::new("/away"), Path::new("/two")).unwrap();
        store.look_again();
        assert!(may_be_elsewhere(&store, &key, &counted_on), "its logs have not been listed");
        store.find_returned(&store.unsettled_ids());
        store.settle(&|_, _| Some(counted_on), &|_| None);
        assert_eq!(store.place_of(&"t".into(), 0), Some(TWO));
        assert!(!may_be_elsewhere(&store, &key, &counted_on));
        store.end_flushers();
    }

    #[test]
    fn an_exchange_that_waits_for_the_disk_holds_up_no_other_request() {
        let disk = MemoryDisk::default();
        let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let broker = open(&disk, None);
        broker.lead(5);
        broker.append(b"one");
        broker.partition.flush().unwrap();
        broker.begin(TWO).unwrap();
        while !broker.partition.copy_to_future().unwrap().unwrap().is_level {}
        disk.hold_syncs();
        std::thread::scope(|scope| {
            let exchanging = scope.spawn(|| broker.finish());
            assert_others_are_served(&runtime, &disk, &broker.partition);
            exchanging.join().unwrap().unwrap();
        });
        assert_eq!(broker.place(), Some(TWO));
    }

    #[test]
    fn a_lack_that_begins_at_any_moment_of_a_move_delays_it() {
        for fault in [Fault::NoSpace, Fault::OutOfFileDescriptors] {
            for from in 0.. {
                let disk = MemoryDisk::default();
                let broker = open(&disk, None);
                broker.lead(5);
                broker.append(b"one");
                broker.append(b"two");
                broker.partition.flush().unwrap();
                let (bytes, first) = (broker.bytes(), disk.mutations());
                disk.lack_from(first + from, fault);
                let moved = broker.begin(TWO).is_ok() && broker.finish().is_ok();
                disk.give_room();
                if !moved {
                    if broker.partition.future_place().is_none() {
                        broker.begin(TWO).unwrap();
                    }
                    broker.finish().unwrap();
                }
                assert!(broker.store.failed_directories().is_empty(), "{fault:?} from {from}");
                assert_eq!((broker.place(), broker.bytes()), (Some(TWO), bytes));
                broker.append(b"three");
                broker.partition.flush().unwrap();
                let bytes = broker.bytes();
                drop(broker);
                disk.crash(from);
                assert_eq!(open(&disk, Some(TWO)).bytes(), bytes, "{fault:?} from {from}");
                if moved {
                    assert!(from > 5, "a move changes more than that");
                    break;
                }
            }
        }
    }

    #[test]
    fn a_power_cut_at_any_moment_of_a_move_loses_nothing() {
        for cut_at in 0.. {
            let disk = MemoryDisk::default();
            let broker = open(&disk, None);
            broker.lead(5);
            broker.append(b"one");
            broker.append(b"two");
            broker.partition.flush().unwrap();
            let bytes = broker.bytes();
            let fault_at = disk.mutations() + cut_at;
            disk.fail_at(fault_at, Fault::PowerCut);
            let moved = broker.begin(TWO).is_ok() && broker.finish().is_ok();
            let is_over = moved && disk.mutations() <= fault_at;
            drop(broker);
            disk.crash(cut_at);
            // The cluster metadata has the new directory before the future log replaces the log.
            let again = open(&disk, Some(TWO));
            assert_eq!(again.bytes(), bytes, "power cut at {cut_at}");
            assert!(again.place() == Some(TWO) || !moved, "power cut at {cut_at}");
            if is_over {
                assert!(cut_at > 10, "a move changes more than that");
                return;
            }
        }
    }
}
