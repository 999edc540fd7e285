//! Kafka's checkpoint files: a version, the number of entries, one entry per line.
//!
//! There are two kinds: offsets of partitions (`recovery-point-offset-checkpoint`, `replication-offset-checkpoint`,
//! `log-start-offset-checkpoint`, `cleaner-offset-checkpoint` in a log directory) and leader epochs
//! (`leader-epoch-checkpoint` in a partition's). Files are replaced atomically, so that a power cut leaves the old or
//! the new one.

use crate::disk::Disk;
use crate::error::{FileProblem, LogError};
use klamm_protocol::ids::{LeaderEpoch, Offset, PartitionIndex};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// Offsets below which all records are synced.
pub const RECOVERY_POINT: &str = "recovery-point-offset-checkpoint";
/// High watermarks.
pub const HIGH_WATERMARK: &str = "replication-offset-checkpoint";
/// Log start offsets that DeleteRecords has moved into a segment.
pub const LOG_START: &str = "log-start-offset-checkpoint";
/// Offsets up to which the log cleaner has compacted.
pub const CLEANER: &str = "cleaner-offset-checkpoint";
/// The start offsets of leader epochs.
pub const LEADER_EPOCH: &str = "leader-epoch-checkpoint";

const VERSION: i64 = 0;

/// Offsets by topic and partition.
pub type PartitionOffsets = BTreeMap<(String, PartitionIndex), Offset>;

/// Reads an offset checkpoint; an absent or empty file has no entries.
pub fn read_offsets(disk: &dyn Disk, path: &Path) -> Result<PartitionOffsets, LogError> {
    let parse = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let key = (words.next()?.to_owned(), words.next()?.parse().ok()?);
        let entry = (key, words.next()?.parse().ok()?);
        words.next().is_none().then_some(entry)
    };
    let expected = "'topic partition offset'";
    Ok(read(disk, path, expected, parse)?.into_iter().collect())
}

/// Replaces an offset checkpoint.
pub fn write_offsets(
    disk: &dyn Disk,
    path: &Path,
    offsets: &PartitionOffsets,
) -> Result<(), LogError> {
    let mut text = header(offsets.len());
    for ((topic, partition), offset) in offsets {
        writeln!(text, "{topic} {partition} {offset}").expect("a string takes any text");
    }
    Ok(disk.write_atomically(path, text.as_bytes())?)
}

/// Reads a leader epoch checkpoint: epochs and their start offsets, in the file's order.
pub fn read_epochs(disk: &dyn Disk, path: &Path) -> Result<Vec<(LeaderEpoch, Offset)>, LogError> {
    let parse = |line: &str| {
        let (epoch, offset) = line.split_once(|c: char| c.is_ascii_whitespace())?;
        let entry: (LeaderEpoch, Offset) = (epoch.parse().ok()?, offset.trim().parse().ok()?);
        (entry.0 >= 0 && entry.1 >= 0).then_some(entry)
    };
    read(disk, path, "'epoch startOffset', neither negative", parse)
}

/// The contents of a leader epoch checkpoint.
pub fn encode_epochs(epochs: impl ExactSizeIterator<Item = (LeaderEpoch, Offset)>) -> String {
    let mut text = header(epochs.len());
    for (epoch, offset) in epochs {
        writeln!(text, "{epoch} {offset}").expect("a string takes any text");
    }
    text
}

fn header(count: usize) -> String {
    format!("{VERSION}\n{count}\n")
}

fn read<T>(
    disk: &dyn Disk,
    path: &Path,
    expected: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, LogError> {
    let contents = match disk.read(path) {
        Ok(contents) => contents,
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let malformed =
        |line: usize, problem| LogError::Malformed { path: path.to_path_buf(), line, problem };
    let text = std::str::from_utf8(&contents).map_err(|_| malformed(1, FileProblem::NotText))?;
    let mut lines = text.lines().enumerate();
    let number = |line: Option<(usize, &str)>, expected| match line {
        None => Ok(None),
        Some((index, text)) => text
            .parse()
            .map(Some)
            .map_err(|_| malformed(index + 1, FileProblem::Syntax { expected })),
    };
    let Some(found) = number(lines.next(), "the version number")? else { return Ok(Vec::new()) };
    if found != VERSION {
        return Err(malformed(1, FileProblem::Version { found, expected: VERSION }));
    }
    let Some(announced) = number(lines.next(), "the number of entries")? else {
        return Ok(Vec::new());
    };
    let mut entries = Vec::new();
    for (index, line) in lines {
        let entry = parse(line);
        entries.push(entry.ok_or_else(|| malformed(index + 1, FileProblem::Syntax { expected }))?);
    }
    let announced = usize::try_from(announced).unwrap_or(usize::MAX);
    if announced != entries.len() {
        let problem = FileProblem::EntryCount { expected: announced, found: entries.len() };
        return Err(malformed(2, problem));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    fn disk() -> MemoryDisk {
        let disk = MemoryDisk::default();
        disk.create_dir_all(Path::new("/d")).unwrap();
        disk
    }

    #[test]
    fn offsets_are_written_as_kafka_does_and_read_back() {
        let (disk, path) = (disk(), Path::new("/d/recovery-point-offset-checkpoint"));
        let offsets = PartitionOffsets::from([
            (("a.b-c".to_owned(), 3), 17),
            (("__consumer_offsets".to_owned(), 49), 0),
        ]);
        write_offsets(&disk, path, &offsets).unwrap();
        assert_eq!(disk.read(path).unwrap(), b"0\n2\n__consumer_offsets 49 0\na.b-c 3 17\n");
        assert_eq!(read_offsets(&disk, path).unwrap(), offsets);
    }

    #[test]
    fn absent_and_empty_files_hold_nothing() {
        let (disk, path) = (disk(), Path::new("/d/x"));
        assert!(read_offsets(&disk, path).unwrap().is_empty());
        disk.write_synced(path, b"").unwrap();
        assert!(read_offsets(&disk, path).unwrap().is_empty());
        disk.write_synced(path, b"0\n").unwrap();
        assert!(read_epochs(&disk, path).unwrap().is_empty());
    }

    #[test]
    fn the_error_names_the_line() {
        let (disk, path) = (disk(), Path::new("/d/x"));
        for (contents, line) in [
            (&b"1\n0\n"[..], 1),
            (b"zero\n0\n", 1),
            (b"0\n2\n1 5\n", 2),
            (b"0\n1\n1 5 6\n", 3),
            (b"0\n2\n1 5\n-1 6\n", 4),
            (b"\xff\xfe", 1),
        ] {
            disk.write_synced(path, contents).unwrap();
            match read_epochs(&disk, path) {
                Err(LogError::Malformed { line: found, .. }) => assert_eq!(found, line),
                other => panic!("{contents:?} gave {other:?}"),
            }
        }
    }

    #[test]
    fn epochs_come_back() {
        let (disk, path) = (disk(), Path::new("/d/leader-epoch-checkpoint"));
        let epochs = vec![(0, 0), (5, 120)];
        let text = encode_epochs(epochs.iter().copied());
        assert_eq!(text, "0\n2\n0 0\n5 120\n");
        disk.write_atomically(path, text.as_bytes()).unwrap();
        assert_eq!(read_epochs(&disk, path).unwrap(), epochs);
    }
}
