//! Log directories that are reordered, absent, empty, replaced or copied between two lives of a node, or come back during one:
//! no acknowledged record is lost, and a node that does not start says why and what to do.

mod lost_metadata;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use klamm_testbed::{Cluster, ClusterSetup, Flavour, until_true};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::stage::alone;

const LIMIT: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 6;
const RECORDS: usize = 20;
/// A log directory cannot be used.
const DATA_DIRECTORY: i32 = 3;

/// A cluster with a topic, every record of which was acknowledged by all replicas.
struct Scene {
    cluster: Cluster,
    topic: String,
    /// How many records each partition has.
    records: usize,
}

impl Scene {
    fn begin(cluster: Cluster, replicas: &[i32]) -> Self {
        let partitions = usize::try_from(PARTITIONS).unwrap();
        let min_isr = if replicas.len() > 1 { "2" } else { "1" };
        let configs = [("min.insync.replicas", min_isr)];
        let topic = cluster.create_topic("dirs", &vec![replicas.to_vec(); partitions], &configs);
        let mut scene = Self { cluster, topic, records: 0 };
        scene.produce();
        scene
    }

    /// Adds to every partition.
    fn produce(&mut self) {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", self.cluster.bootstrap())
            .set("acks", "all")
            .set("message.timeout.ms", "60000")
            .create()
            .unwrap();
        for partition in 0..PARTITIONS {
            for number in self.records..self.records + RECORDS {
                let value = format!("{partition}-{number}");
                let record = BaseRecord::<(), str>::to(&self.topic).partition(partition);
                producer.send(record.payload(value.as_str())).unwrap();
            }
        }
        producer.flush(LIMIT).unwrap();
        assert_eq!(producer.in_flight_count(), 0);
        self.records += RECORDS;
    }

    /// The partitions that have no leader.
    fn offline(&self) -> Vec<i32> {
        let partitions = self.cluster.partitions_of(&self.topic).unwrap_or_default();
        let offline = partitions.iter().filter(|partition| partition.leader < 0);
        offline.map(|partition| partition.partition).collect()
    }

    /// As many partitions as these are offline, and all others have every record.
    #[track_caller]
    fn assert_nothing_lost(&self, offline: usize, what: &str) {
        until_true(&format!("{offline} partitions to be offline ({what})"), LIMIT, || {
            let partitions = self.cluster.partitions_of(&self.topic).unwrap_or_default();
            !partitions.is_empty() && self.offline().len() == offline
        });
        self.assert_led_are_whole(what);
    }

    /// Every partition that is led has every record, in order.
    #[track_caller]
    fn assert_led_are_whole(&self, what: &str) {
        let offline = self.offline();
        let led: Vec<i32> = (0..PARTITIONS).filter(|index| !offline.contains(index)).collect();
        self.assert_whole(&led, what);
    }

    #[track_caller]
    fn assert_whole(&self, partitions: &[i32], what: &str) {
        let expected: BTreeMap<i32, Vec<String>> = partitions
            .iter()
            .map(|index| (*index, (0..self.records).map(|n| format!("{index}-{n}")).collect()))
            .collect();
        assert_eq!(self.read(partitions), expected, "{what}");
    }

    fn read(&self, partitions: &[i32]) -> BTreeMap<i32, Vec<String>> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.cluster.bootstrap())
            .set("group.id", "directories")
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        let mut assigned = TopicPartitionList::new();
        for partition in partitions {
            let added = assigned.add_partition_offset(&self.topic, *partition, Offset::Beginning);
            added.unwrap();
        }
        consumer.assign(&assigned).unwrap();
        let wanted = partitions.len() * self.records;
        let mut read: BTreeMap<i32, Vec<String>> = BTreeMap::new();
        let mut count = 0;
        let deadline = std::time::Instant::now() + LIMIT;
        while count < wanted && std::time::Instant::now() < deadline {
            let Some(polled) = consumer.poll(Duration::from_millis(100)) else { continue };
            let Ok(message) = polled else { continue };
            let value = String::from_utf8(message.payload().unwrap_or_default().to_vec());
            read.entry(message.partition()).or_default().push(value.unwrap());
            count += 1;
        }
        read
    }

    fn directory(&self, id: i32, number: usize) -> PathBuf {
        let broker = self.cluster.node(id).broker();
        match number {
            1 => broker.data().to_path_buf(),
            2 => broker.second_data().to_path_buf(),
            _ => broker.data().with_file_name(format!("data-{number}")),
        }
    }

    /// Deletes the topic and creates it again.
    fn make_anew(&mut self) {
        let topic = self.topic.clone();
        self.cluster.tool(&format!("kafka-topics --delete --topic {topic}")).ok();
        let create =
            format!("kafka-topics --create --partitions 6 --replication-factor 1 --topic {topic}");
        let made = || {
            let made = self.cluster.tool(&create).run();
            made.stdout.contains("Created topic")
        };
        until_true("the topic to be made anew", LIMIT, made);
        self.records = 0;
        self.produce();
        self.assert_nothing_lost(0, "made anew");
    }

    /// Writes `log.dirs` anew.
    fn name(&self, id: i32, numbers: &[usize]) {
        let properties = self.cluster.node(id).broker().properties();
        let text = std::fs::read_to_string(&properties).unwrap();
        let dirs = numbers.iter().map(|number| self.directory(id, *number).display().to_string());
        let dirs = dirs.collect::<Vec<_>>().join(",");
        let lines = text.lines().map(|line| match line.starts_with("log.dirs=") {
            true => format!("log.dirs={dirs}\n"),
            false => format!("{line}\n"),
        });
        std::fs::write(&properties, lines.collect::<String>()).unwrap();
    }

    fn away(&self, id: i32, number: usize) -> PathBuf {
        self.directory(id, number).with_extension("away")
    }

    fn take_away(&self, id: i32, number: usize) {
        std::fs::rename(self.directory(id, number), self.away(id, number)).unwrap();
    }

    fn put_back(&self, id: i32, number: usize) {
        let directory = self.directory(id, number);
        if self.away(id, number).exists() {
            if directory.exists() {
                std::fs::remove_dir_all(&directory).unwrap();
            }
            std::fs::rename(self.away(id, number), directory).unwrap();
        }
    }

    /// Formats what is not formatted, as an operator does.
    fn format(&self, id: i32, cluster_id_from: usize) {
        self.format_as(id, &self.directory(id, cluster_id_from));
    }

    fn format_as(&self, id: i32, cluster_id_from: &Path) {
        let text = std::fs::read_to_string(cluster_id_from.join("meta.properties")).unwrap();
        let cluster_id = text.lines().find_map(|line| line.strip_prefix("cluster.id=")).unwrap();
        let properties = self.cluster.node(id).broker().properties();
        let formatted = Command::new(env!("CARGO_BIN_EXE_klamm"))
            .args(["format", "--ignore-formatted", "-t", cluster_id, "-c"])
            .arg(properties)
            .output()
            .unwrap();
        assert!(formatted.status.success(), "{formatted:?}");
    }

    /// The node refuses to start, and says these words.
    #[track_caller]
    fn refuses(&mut self, id: i32, words: &str) {
        let before = self.cluster.node(id).broker().log().len();
        let ended = self.cluster.ends_as(id, Flavour::Klamm);
        let log = self.cluster.node(id).broker().log().split_off(before);
        assert_eq!(ended.code(), Some(DATA_DIRECTORY), "{log}");
        assert!(log.contains(words), "{words} is not said:\n{log}");
    }

    /// No partition's directory of the node was set aside.
    fn assert_no_strays(&self, id: i32, numbers: &[usize]) {
        for number in numbers {
            let entries = std::fs::read_dir(self.directory(id, *number)).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let strays: Vec<String> = names.filter(|name| name.ends_with("-stray")).collect();
            assert!(strays.is_empty(), "{strays:?}");
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (from, name) = (entry.as_ref().unwrap().path(), entry.unwrap().file_name());
        if from.is_dir() {
            copy(&from, &to.join(name));
        } else {
            std::fs::copy(&from, to.join(name)).unwrap();
        }
    }
}

/// A node of its own with three directories and two partitions in each.
fn alone_with_three() -> Scene {
    let setup = ClusterSetup::of(&[Flavour::Klamm]).with_second_directories();
    let mut cluster = setup.start();
    // The third is named with the first life, so that all are equally old.
    cluster.stop(1);
    let mut scene = Scene { cluster, topic: String::new(), records: 0 };
    scene.name(1, &[1, 2, 3]);
    scene.cluster.start_again(1);
    scene = Scene::begin(scene.cluster, &[1]);
    scene.cluster.stop(1);
    scene
}

#[test]
fn a_lone_node_starts_with_its_directories_in_every_order_or_says_where_its_metadata_log_is() {
    let _machine = alone();
    let mut scene = alone_with_three();
    for order in [[1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1], [1, 2, 3]] {
        scene.name(1, &order);
        if order[0] == 1 {
            scene.cluster.start_again(1);
            scene.assert_nothing_lost(0, &format!("{order:?}"));
            scene.cluster.stop(1);
        } else {
            let fix = format!("Set metadata.log.dir={}", scene.directory(1, 1).display());
            scene.refuses(1, &fix);
        }
        scene.assert_no_strays(1, &order);
    }
}

#[test]
fn a_lone_node_does_without_a_directory_that_is_missed_and_has_its_records_when_it_is_back() {
    let _machine = alone();
    let mut scene = alone_with_three();
    for missed in [2, 3] {
        for fate in ["absent", "empty", "replaced", "not named"] {
            let what = format!("directory {missed} is {fate}");
            match fate {
                "not named" => scene.name(1, &[1, 5 - missed]),
                _ => scene.take_away(1, missed),
            }
            if fate == "empty" {
                std::fs::create_dir(scene.directory(1, missed)).unwrap();
            }
            if fate == "replaced" {
                scene.format(1, 1);
            }
            scene.cluster.start_again(1);
            scene.assert_nothing_lost(2, &what);
            if fate == "absent" || fate == "empty" {
                // Without another start.
                scene.put_back(1, missed);
                scene.assert_nothing_lost(0, &what);
                scene.cluster.stop(1);
            } else {
                scene.cluster.stop(1);
                scene.put_back(1, missed);
                scene.name(1, &[1, 2, 3]);
            }
            scene.cluster.start_again(1);
            scene.assert_nothing_lost(0, &what);
            scene.cluster.stop(1);
            scene.assert_no_strays(1, &[1, 2, 3]);
        }
    }
}

#[test]
fn a_lone_node_without_its_metadata_directory_or_with_a_copy_refuses_to_start() {
    let _machine = alone();
    let mut scene = alone_with_three();
    scene.take_away(1, 1);
    scene.refuses(1, "is not formatted, but");
    std::fs::create_dir(scene.directory(1, 1)).unwrap();
    scene.refuses(1, "klamm format");
    scene.format(1, 2);
    scene.refuses(1, "Restore __cluster_metadata-0 of this node");
    scene.put_back(1, 1);

    scene.take_away(1, 3);
    copy(&scene.directory(1, 2), &scene.directory(1, 3));
    scene.refuses(1, "one is a copy of the other");
    scene.put_back(1, 3);

    std::os::unix::fs::symlink(scene.directory(1, 2), scene.directory(1, 4)).unwrap();
    scene.name(1, &[1, 2, 3, 4]);
    scene.refuses(1, "name it once in log.dirs");
    scene.name(1, &[1, 2, 3]);
    scene.cluster.start_again(1);
    scene.assert_nothing_lost(0, "all is put back");
    scene.assert_no_strays(1, &[1, 2, 3]);
}

#[test]
fn a_topic_in_a_directory_that_is_lost_for_good_can_be_deleted_and_made_anew() {
    let _machine = alone();
    let mut scene = alone_with_three();
    scene.take_away(1, 3);
    scene.format(1, 1);
    scene.cluster.start_again(1);
    scene.assert_nothing_lost(2, "the third is replaced");
    scene.make_anew();
}

#[test]
fn three_nodes_go_on_without_a_directory_and_have_it_back_during_their_life() {
    let _machine = alone();
    let setup = ClusterSetup::of(&[Flavour::Klamm; 3]).with_second_directories();
    let mut scene = Scene::begin(setup.start(), &[1, 2, 3]);
    for (id, fate) in [(1, "absent"), (2, "empty"), (3, "replaced")] {
        scene.cluster.stop(id);
        scene.take_away(id, 2);
        if fate == "empty" {
            std::fs::create_dir(scene.directory(id, 2)).unwrap();
        }
        if fate == "replaced" {
            scene.format(id, 1);
        }
        scene.cluster.start_again(id);
        scene.assert_nothing_lost(0, fate);
        scene.produce();
        if fate != "replaced" {
            scene.put_back(id, 2);
        }
        // A new disk is filled by the peers.
        scene.cluster.until_whole();
        scene.assert_nothing_lost(0, fate);
    }
}

#[test]
fn three_nodes_that_lose_the_same_directory_at_once_lose_no_record() {
    let _machine = alone();
    let setup = ClusterSetup::of(&[Flavour::Klamm; 3]).with_second_directories();
    let mut scene = Scene::begin(setup.start(), &[1, 2, 3]);
    let ids = scene.cluster.ids();
    for id in &ids {
        scene.cluster.stop(*id);
    }
    for id in &ids {
        scene.name(*id, &[2, 1]);
        scene.refuses(*id, "Found unexpected metadata location");
        scene.name(*id, &[1, 2]);
    }
    for id in &ids {
        scene.take_away(*id, 2);
        std::fs::create_dir(scene.directory(*id, 2)).unwrap();
    }
    for id in &ids {
        scene.cluster.spawn(*id);
    }
    ids.iter().for_each(|id| scene.cluster.until_unfenced(*id));
    let lies = |partition: i32, away: bool| {
        let name = format!("{}-{partition}", scene.topic);
        let at = |id: i32| if away { scene.away(id, 2) } else { scene.directory(id, 1) };
        ids.iter().all(|id| at(*id).join(&name).exists())
    };
    // Those that lie in the one here and in the other there may be led or not.
    let are_settled = || {
        let offline = scene.offline();
        (0..PARTITIONS).all(|index| {
            let is_offline = offline.contains(&index);
            (is_offline || !lies(index, true)) && (!is_offline || !lies(index, false))
        })
    };
    until_true("what is in the first directories to be led", LIMIT, are_settled);
    scene.assert_led_are_whole("the second directories are away");
    ids.iter().for_each(|id| scene.put_back(*id, 2));
    scene.cluster.until_whole();
    scene.assert_nothing_lost(0, "they are back");
    scene.produce();
    ids.iter().for_each(|id| scene.assert_no_strays(*id, &[1, 2]));
}

#[test]
fn three_nodes_of_which_one_comes_up_without_its_partition_directories_lose_no_record() {
    let _machine = alone();
    let setup = ClusterSetup::of(&[Flavour::Klamm; 3]).with_second_directories();
    let mut scene = Scene::begin(setup.start(), &[1, 2, 3]);
    let partitions = |scene: &Scene| -> Vec<PathBuf> {
        let dirs = [1, 2].map(|number| scene.directory(2, number));
        let dirs = dirs.iter().flat_map(|dir| std::fs::read_dir(dir).unwrap());
        let paths = dirs.map(|entry| entry.unwrap().path());
        let prefix = format!("{}-", scene.topic);
        let is_of_topic =
            |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(&prefix);
        paths.filter(is_of_topic).collect()
    };
    // With the node alone in the ISR, which the others left with everything, and with all three in it.
    for order in [[1, 3, 2], [2, 1, 3]] {
        for id in order {
            scene.cluster.stop(id);
        }
        let taken = partitions(&scene);
        assert_eq!(taken.len(), usize::try_from(PARTITIONS).unwrap());
        for path in taken {
            std::fs::remove_dir_all(path).unwrap();
        }
        for id in [2, 1, 3] {
            scene.cluster.spawn(id);
        }
        [1, 2, 3].iter().for_each(|id| scene.cluster.until_unfenced(*id));
        scene.assert_nothing_lost(0, &format!("stopped as {order:?}"));
        // The others fill it again.
        scene.cluster.until_whole();
        assert_eq!(partitions(&scene).len(), usize::try_from(PARTITIONS).unwrap());
        scene.produce();
        scene.assert_nothing_lost(0, "and it goes on");
    }
}

#[test]
fn a_lone_node_keeps_a_partition_closed_whose_directory_has_vanished() {
    let _machine = alone();
    let mut scene = alone_with_three();
    let name = format!("{}-1", scene.topic);
    let dirs = [1, 2, 3].map(|number| scene.directory(1, number));
    let dir = dirs.iter().map(|dir| dir.join(&name)).find(|dir| dir.exists()).unwrap();
    let saved = dir.parent().unwrap().with_file_name("saved");
    std::fs::rename(&dir, &saved).unwrap();
    for _ in 0..2 {
        let before = scene.cluster.node(1).broker().log().len();
        scene.cluster.start_again(1);
        scene.assert_nothing_lost(1, "one has vanished, and nobody leads it");
        let (parent, vanished) = (dir.parent().unwrap(), dir.file_name().unwrap());
        let said = format!(
            "1 partitions stay offline: their directories were in {} before, and have vanished: {}.",
            parent.display(),
            vanished.to_str().unwrap()
        );
        assert!(scene.cluster.node(1).broker().log().split_off(before).contains(&said));
        assert!(!dir.exists(), "nothing begins in its place");
        scene.cluster.stop(1);
    }
    std::fs::rename(&saved, &dir).unwrap();
    scene.cluster.start_again(1);
    scene.assert_nothing_lost(0, "it is put back");
    scene.cluster.stop(1);
    std::fs::remove_dir_all(&dir).unwrap();
    scene.cluster.start_again(1);
    scene.make_anew();
}

#[test]
fn a_directory_comes_back_in_a_cluster_of_apache_kafka_controllers() {
    let _machine = alone();
    let setup = ClusterSetup::empty()
        .node(1, Flavour::Kafka, klamm_testbed::Roles::Controller)
        .node(2, Flavour::Klamm, klamm_testbed::Roles::Broker);
    let mut scene = Scene::begin(setup.with_second_directories().start(), &[2]);
    scene.cluster.stop(2);
    scene.take_away(2, 2);
    scene.cluster.start_again(2);
    scene.assert_nothing_lost(3, "the second directory is away");
    scene.put_back(2, 2);
    scene.assert_nothing_lost(0, "it is back");
}
