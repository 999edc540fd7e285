//! Decides by the contents of its directories whether a node may start, and whether as a new node. Pure.
//!
//! The rule behind the table: an empty metadata log forgets every partition. So one is created only if no directory was
//! ever in use, or if other controllers have the metadata log and the operator has formatted the directory.

use std::path::PathBuf;

/// The contents of a directory before anything in it is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contents {
    /// It does not exist, or has no files.
    Empty,
    /// Formatted, and never used by a running node.
    Formatted,
    /// Formatted, and used by a running node since.
    Used,
    /// It has files, but no `meta.properties`.
    Foreign,
    /// It cannot be read.
    Unreadable,
}

/// One configured directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Surveyed {
    pub(super) path: PathBuf,
    pub(super) contents: Contents,
    /// It has `__cluster_metadata-0` with a log, a snapshot or `quorum-state` in it.
    pub(super) has_metadata_log: bool,
    /// It is `metadata.log.dir`, or the first of `log.dirs` if that is not set.
    pub(super) is_for_metadata: bool,
}

/// The role of this node in the metadata quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quorum {
    /// The only voter: no other node has the metadata log.
    Alone,
    /// One of several voters.
    Voter,
    /// A broker that is no controller.
    Observer,
}

/// How a node starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// All directories are new: empty ones are formatted.
    Begin,
    /// This node has its metadata log, which decides whether an empty directory is new or the mount point of a missing
    /// disk.
    GoOn,
    /// The metadata log is fetched from others; until then this node cannot tell what an empty directory is.
    Join,
}

/// Why a node refuses to start on its directories.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    #[error(
        "Found unexpected metadata location in data directory {}: the metadata log is there, and the configured metadata \
         directory is {}. Nothing was changed. Set metadata.log.dir={} (or name that directory first in log.dirs){}",
        .found.display(), .configured.display(), .found.display(),
        if *.is_double { "; the configured one has a metadata log too, move the one aside that is not this node's" } else { "" }
    )]
    MetadataLogElsewhere { found: PathBuf, configured: PathBuf, is_double: bool },
    #[error(
        "the metadata directory {} is not formatted, but {} is: the metadata log of this node is missing, and an empty one \
         would forget every partition. Nothing was changed. Mount or restore {}, or set metadata.log.dir to where the metadata \
         log is; if it is lost and other controllers have it, format the directory explicitly (klamm format --ignore-formatted)",
        .dir.display(), .formatted.display(), .dir.display()
    )]
    MetadataDirectoryNotFormatted { dir: PathBuf, formatted: PathBuf },
    #[error(
        "the metadata directory {} was in use, but the metadata log (__cluster_metadata-0) is not in it: an empty one would \
         forget every partition. Nothing was changed. Set metadata.log.dir to where the metadata log is, or restore it",
        .dir.display()
    )]
    MetadataLogGone { dir: PathBuf },
    #[error(
        "the metadata directory {} is newly formatted, but {} is in use: this node is the only controller, and an empty metadata \
         log would forget every partition. Nothing was changed. Restore __cluster_metadata-0 of this node into {}, or, to begin \
         anew without what is there, name empty directories in log.dirs",
        .dir.display(), .used.display(), .dir.display()
    )]
    MetadataLogReplaced { dir: PathBuf, used: PathBuf },
    #[error(
        "the metadata directory {} has no metadata log, and {} cannot be read: the metadata log may be there. Nothing was \
         changed. Make {} readable, or take it out of log.dirs",
        .dir.display(), .unreadable.display(), .unreadable.display()
    )]
    MetadataLogMayBeUnreadable { dir: PathBuf, unreadable: PathBuf },
    #[error(
        "{} holds files but no meta.properties: it is not a Kafka data directory. Use an empty directory, or format this one \
         (klamm format --ignore-formatted)",
        .dir.display()
    )]
    NotADataDirectory { dir: PathBuf },
    #[error(
        "{} and {} are the same directory: name it once in log.dirs",
        .first.display(), .second.display()
    )]
    SameDirectory { first: PathBuf, second: PathBuf },
    #[error(
        "{} and {} have the same directory.id {id} in meta.properties: one is a copy of the other. Take the copy out of log.dirs, \
         or, if its records are to be kept beside, give it another directory.id",
        .first.display(), .second.display()
    )]
    CopiedDirectory { first: PathBuf, second: PathBuf, id: klamm_protocol::Uuid },
}

/// The table of the module.
pub(super) fn decide(directories: &[Surveyed], quorum: Quorum) -> Result<Start, LayoutError> {
    let is_metadata = |one: &&Surveyed| one.is_for_metadata;
    let metadata = directories.iter().find(is_metadata).expect("one directory is for metadata");
    let others = || directories.iter().filter(|one| !one.is_for_metadata);
    let is = |contents: Contents| move |one: &&Surveyed| one.contents == contents;
    if let Some(elsewhere) = others().find(|one| one.has_metadata_log) {
        return Err(LayoutError::MetadataLogElsewhere {
            found: elsewhere.path.clone(),
            configured: metadata.path.clone(),
            is_double: metadata.has_metadata_log,
        });
    }
    if let Some(foreign) = directories.iter().find(is(Contents::Foreign)) {
        return Err(LayoutError::NotADataDirectory { dir: foreign.path.clone() });
    }
    if metadata.has_metadata_log {
        return Ok(Start::GoOn);
    }
    let dir = metadata.path.clone();
    if let Some(unreadable) = others().find(is(Contents::Unreadable)) {
        let unreadable = unreadable.path.clone();
        return Err(LayoutError::MetadataLogMayBeUnreadable { dir, unreadable });
    }
    let used = others().find(is(Contents::Used)).map(|used| used.path.clone());
    let formatted = others().find(|one| one.contents != Contents::Empty);
    match (metadata.contents, quorum) {
        (Contents::Empty, _) => match formatted.map(|one| one.path.clone()) {
            None => Ok(Start::Begin),
            Some(formatted) => Err(LayoutError::MetadataDirectoryNotFormatted { dir, formatted }),
        },
        (Contents::Used, Quorum::Observer) => Ok(Start::Join),
        (Contents::Used, _) => Err(LayoutError::MetadataLogGone { dir }),
        (Contents::Formatted, quorum) => match (used, quorum) {
            (None, _) => Ok(Start::Begin),
            (Some(used), Quorum::Alone) => Err(LayoutError::MetadataLogReplaced { dir, used }),
            (Some(_), Quorum::Voter | Quorum::Observer) => Ok(Start::Join),
        },
        (Contents::Foreign | Contents::Unreadable, _) => {
            unreachable!("the metadata directory was read, and is nobody else's")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Contents::{Empty, Foreign, Formatted, Unreadable, Used};
    use super::Quorum::{Alone, Observer, Voter};
    use super::*;

    fn at(path: &str, contents: Contents, has_metadata_log: bool) -> Surveyed {
        let is_for_metadata = path == "/m";
        Surveyed { path: path.into(), contents, has_metadata_log, is_for_metadata }
    }

    /// A metadata directory and one other.
    fn started(metadata: (Contents, bool), other: Contents, quorum: Quorum) -> &'static str {
        let directories = [at("/m", metadata.0, metadata.1), at("/o", other, false)];
        match decide(&directories, quorum) {
            Ok(Start::Begin) => "begin",
            Ok(Start::GoOn) => "go on",
            Ok(Start::Join) => "join",
            Err(LayoutError::MetadataDirectoryNotFormatted { .. }) => "not formatted",
            Err(LayoutError::MetadataLogGone { .. }) => "gone",
            Err(LayoutError::MetadataLogReplaced { .. }) => "replaced",
            Err(LayoutError::MetadataLogMayBeUnreadable { .. }) => "unreadable",
            Err(LayoutError::NotADataDirectory { .. }) => "foreign",
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn every_cell_of_the_table() {
        let others = [Empty, Formatted, Used, Foreign, Unreadable];
        let rows = [
            (
                (Empty, false),
                Alone,
                ["begin", "not formatted", "not formatted", "foreign", "unreadable"],
            ),
            (
                (Empty, false),
                Voter,
                ["begin", "not formatted", "not formatted", "foreign", "unreadable"],
            ),
            (
                (Empty, false),
                Observer,
                ["begin", "not formatted", "not formatted", "foreign", "unreadable"],
            ),
            ((Formatted, false), Alone, ["begin", "begin", "replaced", "foreign", "unreadable"]),
            ((Formatted, false), Voter, ["begin", "begin", "join", "foreign", "unreadable"]),
            ((Formatted, false), Observer, ["begin", "begin", "join", "foreign", "unreadable"]),
            ((Used, false), Alone, ["gone", "gone", "gone", "foreign", "unreadable"]),
            ((Used, false), Voter, ["gone", "gone", "gone", "foreign", "unreadable"]),
            ((Used, false), Observer, ["join", "join", "join", "foreign", "unreadable"]),
            ((Formatted, true), Alone, ["go on", "go on", "go on", "foreign", "go on"]),
            ((Used, true), Alone, ["go on", "go on", "go on", "foreign", "go on"]),
            ((Used, true), Voter, ["go on", "go on", "go on", "foreign", "go on"]),
            ((Used, true), Observer, ["go on", "go on", "go on", "foreign", "go on"]),
            ((Foreign, true), Alone, ["foreign"; 5]),
            ((Foreign, false), Alone, ["foreign"; 5]),
        ];
        for (metadata, quorum, expected) in rows {
            let found = others.map(|other| started(metadata, other, quorum));
            assert_eq!(found, expected, "{metadata:?} {quorum:?}");
        }
    }

    #[test]
    fn the_only_directory_begins_unless_it_was_in_use() {
        for (contents, has_log, expected) in [
            (Empty, false, Some(Start::Begin)),
            (Formatted, false, Some(Start::Begin)),
            (Used, false, None),
            (Used, true, Some(Start::GoOn)),
        ] {
            let start = decide(&[at("/m", contents, has_log)], Alone).ok();
            assert_eq!(start, expected, "{contents:?} {has_log}");
        }
    }

    #[test]
    fn a_metadata_log_elsewhere_stops_every_node_and_names_both_places_and_the_fix() {
        for metadata in [Empty, Formatted, Used, Foreign] {
            for elsewhere in [Formatted, Used, Foreign] {
                for quorum in [Alone, Voter, Observer] {
                    let directories = [at("/m", metadata, false), at("/o", elsewhere, true)];
                    let refused = decide(&directories, quorum).unwrap_err().to_string();
                    assert!(refused.contains("unexpected metadata location"), "{refused}");
                    assert!(refused.contains("Set metadata.log.dir=/o"), "{refused}");
                    assert!(refused.contains("directory is /m"), "{refused}");
                }
            }
        }
        let both = [at("/m", Used, true), at("/o", Used, true)];
        let refused = decide(&both, Alone).unwrap_err().to_string();
        assert!(refused.contains("the configured one has a metadata log too"), "{refused}");
    }
}
