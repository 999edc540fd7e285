//! Cleans up after an interrupted deletion or compaction in a partition's directory (Kafka's
//! `LogLoader.removeTempFilesAndCollectSwapFiles`).
//!
//! A `.swap` file is a finished segment of the log cleaner: it replaces the segments in its offset range. One at or
//! above the lowest `.cleaned` file belongs to an unfinished split and is removed.

use crate::disk::Disk;
use crate::error::LogError;
use crate::file_name::{self, CLEANED_SUFFIX, FileKind, SWAP_SUFFIX};
use crate::log::is_marked;
use crate::segment::{BatchScan, PartitionHome};
use klamm_protocol::ids::Offset;

/// Finishes or undoes the interrupted operation.
pub(super) fn clear(home: &PartitionHome) -> Result<(), LogError> {
    let names = file_names(home)?;
    let with_suffix =
        |suffix: &'static str| names.iter().filter(move |name| name.ends_with(suffix));
    let first_cleaned = with_suffix(CLEANED_SUFFIX).filter_map(|n| file_name::offset_of(n)).min();
    let mut swaps = Vec::new();
    for name in &names {
        let is_unfinished_split = name.ends_with(SWAP_SUFFIX)
            && first_cleaned.is_some_and(|first| {
                file_name::offset_of(name).is_some_and(|offset| offset >= first)
            });
        let is_temporary = name.ends_with(".tmp");
        if is_marked(name) || name.ends_with(CLEANED_SUFFIX) || is_unfinished_split || is_temporary
        {
            home.disk.remove_file_if_exists(&home.file(name))?;
        } else if name.ends_with(SWAP_SUFFIX) {
            swaps.push(name.as_str());
        }
    }
    if swaps.is_empty() { Ok(()) } else { finish_swap(home, &names, &swaps) }
}

fn finish_swap(home: &PartitionHome, names: &[String], swaps: &[&str]) -> Result<(), LogError> {
    let mut covered: Option<(Offset, Offset)> = None;
    for name in swaps {
        let plain = name.strip_suffix(SWAP_SUFFIX).unwrap_or(name);
        if let Some((FileKind::Log, base_offset)) = FileKind::parse(plain) {
            let end = next_offset(home, name, base_offset)?;
            let (first, last) = covered.unwrap_or((base_offset, end));
            covered = Some((first.min(base_offset), last.max(end)));
        }
    }
    if let Some((first, end)) = covered {
        let replaced = |name: &&String| {
            FileKind::parse(name).is_some_and(|(_, offset)| (first..end).contains(&offset))
        };
        for name in names.iter().filter(replaced) {
            home.disk.remove_file_if_exists(&home.file(name))?;
        }
    }
    for name in swaps {
        let plain = name.strip_suffix(SWAP_SUFFIX).unwrap_or(name);
        home.disk.rename(&home.file(name), &home.file(plain))?;
    }
    Ok(home.sync()?)
}

/// The offset after the last complete batch of a segment file.
fn next_offset(home: &PartitionHome, name: &str, base: Offset) -> Result<Offset, LogError> {
    let file = home.disk.open(&home.file(name), crate::disk::OpenMode::Read)?;
    let batches = BatchScan::new(file.as_ref(), 0, file.size()?);
    let last = batches.map_while(Result::ok).last();
    Ok(last.map_or(base, |batch| batch.header.next_offset()))
}

fn file_names(home: &PartitionHome) -> Result<Vec<String>, LogError> {
    let disk: &dyn Disk = home.disk.as_ref();
    let entries = disk.list(&home.path())?;
    Ok(entries.into_iter().filter(|entry| !entry.is_dir).map(|entry| entry.name).collect())
}
