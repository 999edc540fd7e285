//! A node is stopped and started with its three directories in every order, each of them kept, absent, empty or
//! replaced, or one a copy of another: it serves the logs that are mounted, starts no replica empty, and has every
//! record when all directories are put back.

use klamm_protocol::ids::TopicPartition;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use klamm_log::disk::{Disk, Fault, MemoryDisk, Operation};
use klamm_log::meta_properties::MetaProperties;
use klamm_metadata::directory_id;
use klamm_metadata::image::ClusterImage;
use klamm_metadata::known_replica::KnownReplica;
use klamm_protocol::batch_builder::BatchBuilder;
use klamm_protocol::messages::partition_record::PartitionRecord;
use klamm_protocol::messages::register_broker_record::RegisterBrokerRecord;
use klamm_protocol::messages::topic_record::TopicRecord;
use klamm_protocol::metadata_record::MetadataRecord;
use klamm_replication::partition::Registration;

use super::*;
use crate::config::BrokerConfig;
use crate::replica::partition::{AppendOptions, BrokerStatuses};
use crate::replica::settings::partition_config;

mod vanished;

const TOPIC_ID: Uuid = Uuid::from_bytes([9; 16]);
const DIRECTORIES: [&str; 3] = ["/a", "/b", "/c"];
const PARTITIONS: i32 = 6;
const ORDERS: [&str; 6] = ["/a,/b,/c", "/a,/c,/b", "/b,/a,/c", "/b,/c,/a", "/c,/a,/b", "/c,/b,/a"];

/// What happens to a directory between two runs of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Absent,
    Empty,
    /// A new disk that the operator has formatted.
    Replaced,
}

const FATES: [Fate; 4] = [Fate::Kept, Fate::Absent, Fate::Empty, Fate::Replaced];

/// A node: its disk and the contents of its metadata log.
struct Node {
    disk: MemoryDisk,
    image: ClusterImage,
}

/// A log manager whose threads end when it is dropped.
#[derive(Debug)]
struct Life(LogManager);

impl std::ops::Deref for Life {
    type Target = LogManager;

    fn deref(&self) -> &LogManager {
        &self.0
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.0.end_flushers();
    }
}

/// An opened partition, with its log end.
type Ends = BTreeMap<PartitionIndex, Offset>;

impl Node {
    /// A node with two partitions in each directory, each with one record.
    fn new() -> Self {
        let mut node = Self { disk: MemoryDisk::default(), image: ClusterImage::default() };
        let store = node.start("/a,/b,/c", None).unwrap();
        // The log manager only needs the metadata log's directory to have a file in it.
        let metadata_log = Path::new("/a/__cluster_metadata-0");
        node.disk.create_dir_all(metadata_log).unwrap();
        node.disk.write_synced(&metadata_log.join("quorum-state"), b"{}").unwrap();
        let partitions = open_all(&store, (0..PARTITIONS).collect());
        for partition in &partitions {
            let registration = Registration {
                leader_epoch: 0,
                partition_epoch: 0,
                replicas: vec![1],
                isr: vec![1],
            };
            partition.lead(&registration, &BrokerStatuses::new());
            let mut builder = BatchBuilder::new(0);
            builder.append(1, None, Some(b"record"), &[]).unwrap();
            let records = builder.build().unwrap().bytes;
            partition.append(records, &AppendOptions::coordinator(), 0).unwrap();
            partition.flush().unwrap();
        }
        node.learn(&store);
        store.close(&partitions, Some(1));
        node
    }

    /// Records the directory of each replica in the metadata.
    fn learn(&mut self, store: &LogManager) {
        let mut records = vec![
            MetadataRecord::RegisterBroker(RegisterBrokerRecord {
                broker_id: 1,
                log_dirs: store.directory_ids(),
                ..Default::default()
            }),
            MetadataRecord::Topic(TopicRecord { name: "t".into(), topic_id: TOPIC_ID }),
        ];
        records.extend((0..PARTITIONS).map(|partition_id| {
            MetadataRecord::Partition(PartitionRecord {
                partition_id,
                topic_id: TOPIC_ID,
                replicas: vec![1],
                isr: vec![1],
                leader: 1,
                directories: vec![store.directory_id_for(&"t".into(), partition_id).unwrap()],
                ..Default::default()
            })
        }));
        records.iter().for_each(|record| self.image.replay(record).unwrap());
    }

    fn start(&self, log_dirs: &str, metadata_dir: Option<&str>) -> Result<Life, StoreError> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let pairs = [("log.dirs", log_dirs)].into_iter();
        let pairs = pairs.chain(metadata_dir.map(|dir| ("metadata.log.dir", dir)));
        LogManager::open(&disk, &BrokerConfig::from_pairs(pairs).unwrap()).map(Life)
    }

    /// The steps of a start when the metadata is known. Returns the ends of the open logs.
    fn go_on(&self, store: &LogManager) -> Ends {
        // A new node has no metadata.
        let new = ClusterImage::default();
        let image = if store.start == Start::GoOn { &self.image } else { &new };
        let mut seen = TopicsSeen::default();
        seen.in_image(image);
        store.judge_empty(seen, image).unwrap();
        settle(store, image);
        let known = |index: &PartitionIndex| KnownReplica::find(image, 1, "t", *index);
        let here = (0..PARTITIONS).filter(|index| {
            let key = TopicPartition::new("t".into(), *index);
            let is_found = store.place_of(&key.topic, *index).is_some();
            known(index).is_some_and(|replica| {
                let vanished = store.vanished_from(&key, &replica).is_some();
                !vanished && (is_found || !store.is_out_of_reach(&replica))
            })
        });
        let partitions = open_all(store, here.collect());
        let end = |partition: &Arc<Partition>| partition.view().unwrap().log_end();
        let ends = partitions.iter().map(|partition| (partition.index(), end(partition)));
        let ends = ends.collect();
        store.close(&partitions, Some(2));
        ends
    }

    fn suffers(&self, directory: &str, fate: Fate) {
        let path = Path::new(directory);
        if fate == Fate::Kept {
            return;
        }
        self.disk.rename(path, Path::new(&away(directory))).unwrap();
        if fate != Fate::Absent {
            self.disk.create_dir_all(path).unwrap();
        }
        if fate == Fate::Replaced {
            let properties = MetaProperties::read(
                &self.disk,
                &Path::new(&away(directory)).join("meta.properties"),
            );
            let mut properties = properties.unwrap().unwrap();
            properties.directory_id = Some(crate::random::uuid());
            properties.write(&self.disk, &path.join("meta.properties")).unwrap();
        }
    }

    fn put_back(&self, directory: &str) {
        let away = away(directory);
        if self.disk.exists(Path::new(&away)).unwrap() {
            if self.disk.exists(Path::new(directory)).unwrap() {
                self.disk.remove_dir_all(Path::new(directory)).unwrap();
            }
            self.disk.rename(Path::new(&away), Path::new(directory)).unwrap();
        }
    }

    /// Checks that every record is there and that no log was set aside.
    fn assert_whole(&self, what: &str) {
        let store = self.start("/a,/b,/c", None).unwrap_or_else(|error| panic!("{what}: {error}"));
        let ends = self.go_on(&store);
        assert_eq!(ends, (0..PARTITIONS).map(|index| (index, 1)).collect(), "{what}");
        for directory in DIRECTORIES {
            let entries = self.disk.list(Path::new(directory)).unwrap();
            let is_stray = |entry: &klamm_log::disk::DirEntry| entry.name.ends_with("-stray");
            assert!(!entries.iter().any(is_stray), "{what}: {entries:?}");
        }
    }

    /// Copies a directory with everything in it.
    fn copy(&self, from: &Path, to: &Path) {
        self.disk.create_dir_all(to).unwrap();
        for entry in self.disk.list(from).unwrap() {
            let (from, to) = (from.join(&entry.name), to.join(&entry.name));
            if entry.is_dir {
                self.copy(&from, &to);
            } else {
                self.disk.write_synced(&to, &self.disk.read(&from).unwrap()).unwrap();
            }
        }
    }
}

fn away(directory: &str) -> String {
    format!("/away{directory}").replacen("away/", "away-", 1)
}

fn settle(store: &LogManager, image: &ClusterImage) {
    store.note_topics(image.topics.iter().map(|topic| topic.id));
    let known = |topic: &str, index| KnownReplica::find(image, 1, topic, index);
    assert_eq!(store.settle(&known, &|_| None), []);
}

fn open_all(store: &LogManager, indexes: Vec<PartitionIndex>) -> Vec<Arc<Partition>> {
    let configs = BrokerConfig::from_pairs::<&str, &str>([]).unwrap();
    let config = || partition_config(&configs, "t", &BTreeMap::new());
    let wanted = indexes.into_iter().map(|index| ("t".into(), TOPIC_ID, index, config()));
    store.open_all(wanted.collect()).into_iter().map(Result::unwrap).collect()
}

/// Starts the node on the current directories and returns the opened partitions; `None` if it refused.
fn started(node: &Node, log_dirs: &str, metadata_dir: Option<&str>) -> Option<(Start, Ends)> {
    match node.start(log_dirs, metadata_dir) {
        Ok(store) => Some((store.start, node.go_on(&store))),
        Err(refusal) => {
            let told = refusal.to_string();
            let fixes = ["metadata.log.dir", "log.dirs", "klamm format"];
            assert!(fixes.iter().any(|fix| told.contains(fix)), "no fix is named: {told}");
            None
        }
    }
}

#[test]
fn every_order_with_each_directory_kept_absent_empty_or_replaced() {
    for order in ORDERS {
        for metadata_dir in [None, Some("/a")] {
            for fates in 0..FATES.len().pow(3) {
                let fates = [0, 1, 2].map(|at| FATES[fates / FATES.len().pow(at) % FATES.len()]);
                assert_nothing_lost(order, metadata_dir, fates);
            }
        }
    }
}

fn assert_nothing_lost(order: &str, metadata_dir: Option<&str>, fates: [Fate; 3]) {
    let what = format!("{order}, metadata in {metadata_dir:?}, {fates:?}");
    let node = Node::new();
    for (directory, fate) in DIRECTORIES.into_iter().zip(fates) {
        node.suffers(directory, fate);
    }
    let first = metadata_dir.unwrap_or(&order[..2]);
    let has_metadata = first == "/a" && fates[0] == Fate::Kept;
    match started(&node, order, metadata_dir) {
        Some((Start::GoOn, ends)) => {
            assert!(has_metadata, "{what}");
            // The logs in the mounted directories are open, and no empty one beside them.
            let kept = fates.iter().filter(|fate| **fate == Fate::Kept).count();
            assert_eq!(
                (ends.len(), ends.values().all(|end| *end == 1)),
                (2 * kept, true),
                "{what}"
            );
        }
        Some((start, ends)) => {
            assert!(!has_metadata && start == Start::Begin && ends.is_empty(), "{what}");
            assert!(!fates.contains(&Fate::Kept), "{what}: it begins beside what was in use");
        }
        None => assert!(!has_metadata, "{what}: it refuses"),
    }
    DIRECTORIES.iter().for_each(|directory| node.put_back(directory));
    node.assert_whole(&what);
}

#[test]
fn a_copy_of_a_directory_is_refused_with_both_names() {
    for copied in DIRECTORIES {
        for over in DIRECTORIES.into_iter().filter(|over| *over != copied) {
            let node = Node::new();
            node.suffers(over, Fate::Absent);
            node.copy(Path::new(copied), Path::new(over));
            let refusal = node.start("/a,/b,/c", None).unwrap_err().to_string();
            assert!(refusal.contains("the same directory.id"), "{refusal}");
            assert!(refusal.contains(copied) && refusal.contains(over), "{refusal}");
            node.put_back(over);
            node.assert_whole(&format!("{copied} copied over {over}"));
        }
    }
}

#[test]
fn a_directory_that_is_named_twice_is_refused_with_both_names() {
    let node = Node::new();
    for twice in ["/a,/b,/c,/a/../b", "/a,/b,/c,/./b/"] {
        let refusal = node.start(twice, None).unwrap_err().to_string();
        assert!(refusal.contains("are the same directory: name it once in log.dirs"), "{refusal}");
    }
    node.assert_whole("named twice");
}

#[test]
fn a_path_taken_out_of_log_dirs_is_missed_and_its_records_are_back_with_it() {
    for taken_out in ["/a,/b", "/a,/c", "/a"] {
        let node = Node::new();
        let (start, ends) = started(&node, taken_out, None).unwrap();
        let directories = taken_out.split(',').count();
        assert_eq!((start, ends.len()), (Start::GoOn, 2 * directories));
        node.assert_whole(taken_out);
    }
    let node = Node::new();
    assert_eq!(started(&node, "/b,/c", None), None);
    node.assert_whole("without the metadata directory");
}

#[test]
fn an_empty_directory_is_formatted_only_if_none_is_missed() {
    let node = Node::new();
    let store = node.start("/a,/b,/c,/d", None).unwrap();
    assert_eq!(store.directory_ids().len(), 3);
    assert_eq!(node.go_on(&store).len(), 6);
    assert_eq!(store.directory_ids().len(), 4, "a new disk is used at once");
    drop(store);
    node.suffers("/b", Fate::Empty);
    let store = node.start("/a,/b,/c,/e", None).unwrap();
    node.go_on(&store);
    assert_eq!(store.directory_ids().len(), 2, "nobody knows whether /e is where /b belongs");
    assert!(!node.disk.exists(Path::new("/e")).unwrap());
}

#[test]
fn a_directory_that_comes_back_is_used_again_without_another_start() {
    let node = Node::new();
    node.suffers("/b", Fate::Empty);
    let store = node.start("/a,/b,/c", None).unwrap();
    let mut seen = TopicsSeen::default();
    seen.in_image(&node.image);
    store.judge_empty(seen, &node.image).unwrap();
    settle(&store, &node.image);
    store.look_again();
    assert_eq!((store.unsettled_ids().len(), store.has_idle()), (0, true));
    node.put_back("/b");
    store.look_again();
    assert_eq!((store.unsettled_ids().len(), store.has_idle()), (1, false));
    // Until it is settled, no replica is put into it and its logs are not used.
    assert_eq!(store.place_at(Path::new("/b")), None);
    store.find_returned(&store.unsettled_ids());
    settle(&store, &node.image);
    assert_eq!(store.unsettled_ids(), []);
    let partitions = open_all(&store, (0..PARTITIONS).collect());
    assert!(partitions.iter().all(|partition| partition.view().unwrap().log_end() == 1));
    store.close(&partitions, Some(2));
    drop(store);
    node.assert_whole("after the return");
}

#[test]
fn a_copy_that_comes_up_while_the_node_runs_is_not_used() {
    let node = Node::new();
    node.suffers("/b", Fate::Absent);
    let store = node.start("/a,/b,/c", None).unwrap();
    node.copy(Path::new("/c"), Path::new("/b"));
    store.look_again();
    assert!(store.has_idle());
    node.disk.remove_dir_all(Path::new("/b")).unwrap();
    node.copy(Path::new("/a"), Path::new("/b"));
    store.look_again();
    assert!(store.has_idle());
}

#[test]
fn metadata_that_never_knew_a_topic_set_nothing_aside() {
    let node = Node::new();
    let store = node.start("/a,/b,/c", None).unwrap();
    let other = ClusterImage::default();
    store.judge_empty(TopicsSeen::default(), &other).unwrap();
    settle(&store, &other);
    assert_eq!(store.place_of(&"t".into(), 0), None);
    store.close(&[], Some(2));
    drop(store);
    node.assert_whole("after metadata that never knew it");
}

#[test]
fn metadata_that_knew_a_topic_and_have_it_no_more_set_it_aside() {
    let node = Node::new();
    let store = node.start("/a,/b,/c", None).unwrap();
    let mut seen = TopicsSeen::default();
    seen.in_record(&MetadataRecord::RemoveTopic(
        klamm_protocol::messages::remove_topic_record::RemoveTopicRecord { topic_id: TOPIC_ID },
    ));
    let after = ClusterImage::default();
    store.judge_empty(seen, &after).unwrap();
    settle(&store, &after);
    for directory in DIRECTORIES {
        let entries = node.disk.list(Path::new(directory)).unwrap();
        let strays = entries.iter().filter(|entry| entry.name.ends_with("-stray")).count();
        assert_eq!(strays, 2, "{entries:?}");
    }
}

#[test]
fn a_new_topic_does_not_take_the_place_of_one_that_the_metadata_never_knew() {
    let node = Node::new();
    let store = node.start("/a,/b,/c", None).unwrap();
    let other = ClusterImage::default();
    store.judge_empty(TopicsSeen::default(), &other).unwrap();
    settle(&store, &other);
    let configs = BrokerConfig::from_pairs::<&str, &str>([]).unwrap();
    let id = Uuid::from_bytes([8; 16]);
    let open = |index| {
        let config = partition_config(&configs, "t", &BTreeMap::new());
        let opened = store.open_all(vec![("t".into(), id, index, config)]);
        opened.into_iter().next().unwrap()
    };
    // One directory has an old partition of that name; the others have room.
    open(0).unwrap();
    for name in ["/a/t-7", "/b/t-7", "/c/t-7"] {
        node.disk.create_dir_all(Path::new(name)).unwrap();
        let metadata = klamm_log::partition_metadata::encode(TOPIC_ID);
        let file = Path::new(name).join("partition.metadata");
        node.disk.write_synced(&file, metadata.as_bytes()).unwrap();
    }
    let refused = open(7).unwrap_err().to_string();
    assert!(refused.contains("/t-7 is of another topic of that name"), "{refused}");
    for index in 0..PARTITIONS {
        let paths = DIRECTORIES.map(|directory| format!("{directory}/t-{index}"));
        assert!(paths.iter().any(|path| node.disk.exists(Path::new(path)).unwrap()));
    }
}

#[test]
fn new_replicas_stay_out_of_cordoned_directories_while_there_are_others() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
    let config = BrokerConfig::from_pairs([("log.dirs", "/one,/two")]).unwrap();
    let store = LogManager::open(&disk, &config).unwrap();
    let configs = BrokerConfig::from_pairs::<&str, &str>([]).unwrap();
    let place = |index| {
        let config = partition_config(&configs, "t", &BTreeMap::new());
        let wanted = vec![("t".into(), Uuid::from_bytes([7; 16]), index, config)];
        assert!(store.open_all(wanted).iter().all(Result::is_ok));
        store.directory_of(&"t".into(), index).unwrap().display().to_string()
    };
    assert_eq!([place(0), place(1)], ["/one", "/two"]);
    store.cordon(|directory| directory.path.ends_with("one"));
    assert_eq!([place(2), place(3)], ["/two", "/two"]);
    assert_eq!(place(0), "/one", "who is there already stays");
    store.cordon(|_| true);
    assert_eq!(place(4), "/one", "where else");
}

#[test]
fn a_directory_that_cannot_be_used_is_done_without_unless_the_metadata_log_is_there() {
    let disk = MemoryDisk::default();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let pairs = [("log.dirs", "/one,/two"), ("metadata.log.dir", "/two")];
    let config = BrokerConfig::from_pairs(pairs).unwrap();
    let lost = LogManager::open(&shared, &config).unwrap().at(0).id;
    disk.create_dir_all(Path::new("/two/__cluster_metadata-0")).unwrap();
    disk.write_synced(Path::new("/two/__cluster_metadata-0/quorum-state"), b"{}").unwrap();
    disk.fail_next(Operation::Lock, Fault::Io);
    let store = LogManager::open(&shared, &config).unwrap();
    assert_eq!(store.failed_directories(), [Path::new("/one")]);
    assert_eq!((store.directories().len(), store.directory_ids().len()), (2, 1));
    let replica = |directory| KnownReplica {
        topic_id: Uuid::from_bytes([7; 16]),
        directory,
        is_counted_on: false,
        is_led_elsewhere: true,
    };
    // The directory may be back any moment.
    assert!(store.is_out_of_reach(&replica(lost)));
    assert!(!store.is_out_of_reach(&replica(store.directory_ids()[0])));
    assert!(!store.is_out_of_reach(&replica(directory_id::UNASSIGNED)));
    drop(store);
    let config = BrokerConfig::from_pairs([("log.dirs", "/one,/two")]).unwrap();
    disk.fail_next(Operation::Lock, Fault::Io);
    LogManager::open(&shared, &config).unwrap_err();
}
