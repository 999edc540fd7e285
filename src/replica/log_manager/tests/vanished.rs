//! Partition directories that are removed from a log directory that stays: no empty log replaces them.

use klamm_log::checkpoint;
use klamm_log::disk::DirEntry;
use klamm_log::partition_dir::DirKind;

use super::*;

const KEY: TopicPartition = TopicPartition { topic: ByteString::from_static("t"), partition: 1 };

/// The log of partition 1, in whichever directory it is.
fn log_dir(node: &Node) -> (Uuid, PathBuf) {
    let directory = KnownReplica::find(&node.image, 1, "t", 1).unwrap().directory;
    let is_there = |dir: &&'static str| node.disk.exists(&Path::new(dir).join("t-1")).unwrap();
    (directory, Path::new(DIRECTORIES.into_iter().find(is_there).unwrap()).join("t-1"))
}

/// A node from which the directory of partition 1 is taken away.
fn without_log() -> (Node, PathBuf) {
    let node = Node::new();
    let (_, dir) = log_dir(&node);
    node.disk.rename(&dir, Path::new("/saved")).unwrap();
    (node, dir)
}

fn all_but_one() -> Ends {
    (0..PARTITIONS).filter(|index| *index != 1).map(|index| (index, 1)).collect()
}

/// A log manager that has compared its logs with the metadata.
fn settled(node: &Node, image: &ClusterImage) -> Life {
    let store = node.start("/a,/b,/c", None).unwrap();
    let mut seen = TopicsSeen::default();
    seen.in_image(image);
    store.judge_empty(seen, image).unwrap();
    settle(&store, image);
    store
}

fn replica(node: &Node) -> KnownReplica {
    KnownReplica::find(&node.image, 1, "t", 1).unwrap()
}

#[test]
fn a_log_that_has_vanished_stays_closed_at_each_start_until_it_is_put_back() {
    let (node, dir) = without_log();
    for _ in 0..3 {
        assert_eq!(started(&node, "/a,/b,/c", None).unwrap().1, all_but_one());
        assert!(!node.disk.exists(&dir).unwrap());
    }
    node.disk.rename(Path::new("/saved"), &dir).unwrap();
    node.assert_whole("put back");
}

#[test]
fn the_evidence_survives_a_crash_behind_a_checkpoint() {
    let (node, dir) = without_log();
    for _ in 0..2 {
        let store = settled(&node, &node.image);
        assert_eq!(store.vanished_from(&KEY, &replica(&node)), Some(dir.clone()));
        store.write_checkpoints(&[]);
    }
}

#[test]
fn a_log_that_nobody_counts_on_begins_anew_once_another_leads() {
    let (node, _) = without_log();
    let store = settled(&node, &node.image);
    let begins = |is_counted_on, is_led_elsewhere| {
        let replica = KnownReplica { is_counted_on, is_led_elsewhere, ..replica(&node) };
        store.vanished_from(&KEY, &replica).is_none()
    };
    assert!(!begins(true, true) && !begins(true, false) && !begins(false, false));
    assert!(begins(false, true));
    let partitions = open_all(&store, vec![1]);
    let view = partitions[0].view().unwrap();
    assert_eq!((view.log_start(), view.log_end()), (0, 0), "no checkpoint of the other holds");
    assert_eq!(store.vanished_from(&KEY, &replica(&node)), None);
    store.close(&partitions, Some(2));
}

#[test]
fn a_replica_that_was_given_up_has_vanished_from_any_directory_and_no_other_replica_has() {
    let (node, dir) = without_log();
    let store = settled(&node, &node.image);
    let at = |directory| store.vanished_from(&KEY, &KnownReplica { directory, ..replica(&node) });
    for reserved in [directory_id::LOST, directory_id::UNASSIGNED] {
        assert_eq!(at(reserved), Some(dir.clone()));
    }
    let other = store.directory_ids().into_iter().find(|id| *id != replica(&node).directory);
    assert_eq!(at(other.unwrap()), None);
    assert_eq!(
        store.vanished_from(&TopicPartition::new("t".into(), 0), &replica(&node)),
        None,
        "it is here"
    );
    assert_eq!(
        store.vanished_from(&TopicPartition::new("t".into(), 77), &replica(&node)),
        None,
        "it never was"
    );
}

#[test]
fn a_new_topic_of_the_same_name_begins() {
    let (node, _) = without_log();
    let store = settled(&node, &node.image);
    let replica = KnownReplica { topic_id: Uuid::from_bytes([8; 16]), ..replica(&node) };
    assert_eq!(store.vanished_from(&KEY, &replica), None);
}

#[test]
fn a_deleted_topic_leaves_no_evidence() {
    let (node, _) = without_log();
    let store = settled(&node, &node.image);
    store.delete_unopened(&KEY.topic, KEY.partition);
    store.write_checkpoints(&[]);
    drop(store);
    let store = settled(&node, &node.image);
    assert_eq!(store.vanished_from(&KEY, &replica(&node)), None);
    drop(store);
    // The same holds for a partition that was deleted while the node was down.
    let (node, _) = without_log();
    let store = settled(&node, &ClusterImage::default());
    store.write_checkpoints(&[]);
    drop(store);
    let store = settled(&node, &node.image);
    assert_eq!(store.vanished_from(&KEY, &replica(&node)), None);
}

#[test]
fn a_log_that_was_being_deleted_has_not_vanished() {
    let (node, dir) = without_log();
    let unique = crate::random::uuid();
    let marked = PartitionDirName::marked("t", 1, DirKind::Delete, unique);
    node.disk.rename(Path::new("/saved"), &dir.with_file_name(marked)).unwrap();
    let store = settled(&node, &node.image);
    assert_eq!(store.vanished_from(&KEY, &replica(&node)), None);
}

#[test]
fn a_replica_that_was_never_opened_begins() {
    let (node, dir) = without_log();
    for name in [checkpoint::RECOVERY_POINT, checkpoint::HIGH_WATERMARK, checkpoint::LOG_START] {
        node.disk.remove_file(&dir.with_file_name(name)).unwrap();
    }
    let mut all = all_but_one();
    all.insert(1, 0);
    assert_eq!(started(&node, "/a,/b,/c", None).unwrap().1, all);
}

/// Removes all files of partition 1's log directory except `meta.properties`.
fn emptied(node: &Node) -> PathBuf {
    let (_, dir) = log_dir(node);
    let home = dir.parent().unwrap();
    assert_ne!(home, Path::new("/a"), "the metadata directory is another");
    node.disk.create_dir_all(Path::new("/saved")).unwrap();
    for DirEntry { name, .. } in node.disk.list(home).unwrap() {
        if name != "meta.properties" {
            node.disk.rename(&home.join(&name), &Path::new("/saved").join(&name)).unwrap();
        }
    }
    dir
}

#[test]
fn what_was_in_a_directory_that_was_emptied_stays_closed_until_it_is_put_back() {
    let node = Node::new();
    let dir = emptied(&node);
    for _ in 0..2 {
        let store = settled(&node, &node.image);
        assert_eq!(store.vanished_from(&KEY, &replica(&node)), Some(dir.clone()));
        let home = dir.parent().unwrap();
        assert!(node.disk.exists(&home.join(checkpoint::RECOVERY_POINT)).unwrap());
    }
    let elsewhere = KnownReplica { directory: directory_id::UNASSIGNED, ..replica(&node) };
    let store = settled(&node, &node.image);
    assert_eq!(store.vanished_from(&KEY, &elsewhere), Some(dir.clone()), "remembered by its name");
    drop(store);
    for DirEntry { name, .. } in node.disk.list(Path::new("/saved")).unwrap() {
        node.disk.rename(&Path::new("/saved").join(&name), &dir.with_file_name(&name)).unwrap();
    }
    node.assert_whole("put back");
}

#[test]
fn a_directory_that_is_new_has_lost_nothing_and_is_marked_as_used_by_its_first_start() {
    let node = Node::new();
    let dir = emptied(&node);
    let checkpoints = dir.with_file_name(checkpoint::RECOVERY_POINT);
    // The metadata had no replica in it when the previous process started.
    let store = settled(&node, &ClusterImage::default());
    assert!(node.disk.exists(&checkpoints).unwrap());
    drop(store);
    let store = settled(&node, &node.image);
    assert_eq!(store.vanished_from(&KEY, &replica(&node)), None, "a topic made since");
}

#[test]
fn a_directory_that_comes_back_without_a_log_that_was_missed_has_lost_it() {
    let node = Node::new();
    let (id, dir) = log_dir(&node);
    let home = dir.parent().unwrap().to_str().unwrap().to_owned();
    assert_ne!(home, "/a", "the metadata directory does not come back");
    node.suffers(&home, Fate::Absent);
    let store = settled(&node, &node.image);
    assert!(store.is_out_of_reach(&replica(&node)));
    store.note_missed(&KEY, id);
    // Only meta.properties is restored.
    let (from, to) = (PathBuf::from(away(&home)), PathBuf::from(&home));
    node.disk.create_dir_all(&to).unwrap();
    let properties = node.disk.read(&from.join("meta.properties")).unwrap();
    node.disk.write_synced(&to.join("meta.properties"), &properties).unwrap();
    store.look_again();
    store.find_returned(&store.unsettled_ids());
    settle(&store, &node.image);
    assert_eq!(store.vanished_from(&KEY, &replica(&node)), Some(dir.clone()));
    store.write_checkpoints(&[]);
    drop(store);
    let store = settled(&node, &node.image);
    assert_eq!(store.vanished_from(&KEY, &replica(&node)), Some(dir), "also with the next start");
    drop(store);
    node.put_back(&home);
    node.assert_whole("all of it is put back");
}

/// The last registration may have been without the directory as well.
#[test]
fn a_replica_that_was_never_reported_is_missed_while_a_path_waits_for_its_disk() {
    let node = Node::new();
    let unreported = KnownReplica { directory: directory_id::UNASSIGNED, ..replica(&node) };
    let store = settled(&node, &node.image);
    assert!(!store.is_out_of_reach(&unreported));
    drop(store);
    node.suffers("/b", Fate::Absent);
    let store = settled(&node, &node.image);
    assert!(store.is_out_of_reach(&unreported));
}
