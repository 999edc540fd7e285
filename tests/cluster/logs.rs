//! Logs of ended nodes, batch by batch, to be held against one another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use klamm_testbed::{Cluster, Node};

const METADATA_LOG: &str = "__cluster_metadata-0";
/// Base offset and length: what stands before the counted bytes of a batch.
const BATCH_PREFIX_LEN: usize = 12;
const LENGTH_AT: usize = 8;

/// A log's batches by base offset, as bytes.
pub(crate) type Batches = BTreeMap<i64, Vec<u8>>;

/// The files of a directory with this extension, in the order of their names.
pub(crate) fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

/// All whole batches of a log directory of one partition.
pub(crate) fn batches(directory: &Path) -> Batches {
    let mut batches = Batches::new();
    for segment in files(directory, "log") {
        let bytes = match std::fs::read(&segment) {
            // Deleted or set aside meanwhile, by a repair for instance.
            Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => continue,
            read => read.unwrap(),
        };
        let mut rest = &bytes[..];
        while rest.len() >= BATCH_PREFIX_LEN {
            let base_offset = i64::from_be_bytes(rest[..LENGTH_AT].try_into().unwrap());
            let length = rest[LENGTH_AT..BATCH_PREFIX_LEN].try_into().unwrap();
            let length = usize::try_from(i32::from_be_bytes(length)).unwrap();
            // A killed node may leave half a batch.
            let Some((batch, after)) = rest.split_at_checked(BATCH_PREFIX_LEN + length) else {
                break;
            };
            batches.insert(base_offset, batch.to_vec());
            rest = after;
        }
    }
    batches
}

/// The metadata log of a node.
pub(crate) fn metadata_log(node: &Node) -> PathBuf {
    node.broker().data().join(METADATA_LOG)
}

/// Ends the cluster and checks that all its metadata logs are equal wherever they are committed and not yet replaced by
/// a snapshot.
#[track_caller]
pub(crate) fn end_with_equal_metadata_logs(mut cluster: Cluster) {
    let committed = cluster.quorum().unwrap().high_watermark;
    cluster.kill_all();
    let logs: Vec<Batches> = cluster
        .ids()
        .into_iter()
        .map(|id| {
            let mut log = batches(&metadata_log(cluster.node(id)));
            log.retain(|offset, _| *offset < committed);
            log
        })
        .collect();
    let begin = logs.iter().filter_map(|log| log.keys().next()).max().unwrap();
    let first: Vec<_> = logs[0].range(begin..).collect();
    assert!(!first.is_empty(), "nothing is left to compare");
    for log in &logs {
        assert!(log.range(begin..).collect::<Vec<_>>() == first, "metadata logs differ");
    }
}

/// Checks that all replicas of a topic's partitions are equal, byte for byte, and that there is something in them. The cluster
/// has ended, and was in sync before.
#[track_caller]
pub(crate) fn assert_equal_replicas(cluster: &Cluster, topic: &str, partitions: i32) {
    let mut compared = 0;
    for partition in 0..partitions {
        let name = format!("{topic}-{partition}");
        let logs: Vec<(i32, Batches)> = cluster
            .ids()
            .into_iter()
            .map(|id| (id, cluster.node(id).broker().data().join(&name)))
            .filter(|(_, directory)| directory.exists())
            .map(|(id, directory)| (id, batches(&directory)))
            .collect();
        assert!(logs.len() > 1, "{name} has one replica only");
        for (id, log) in &logs {
            let (first, expected) = &logs[0];
            assert!(log == expected, "{name} differs between nodes {first} and {id}");
            compared += log.len();
        }
    }
    assert!(compared > 0, "{topic} is empty");
}
