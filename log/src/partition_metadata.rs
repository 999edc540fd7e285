//! `partition.metadata`: the topic id of a partition's directory (KIP-516).
//!
//! Written before any record, so that records of a deleted topic are never used for a new one of the same name.

use crate::disk::Disk;
use crate::error::{FileProblem, LogError};
use crate::segment::PartitionHome;
use klamm_protocol::Uuid;
use std::path::Path;

/// The file's name.
pub const NAME: &str = "partition.metadata";

const VERSION: i64 = 0;

/// Compares the directory's topic id with the expected one, writes it if it is missing, and returns it.
pub(crate) fn agree(
    home: &PartitionHome,
    expected: Option<Uuid>,
) -> Result<Option<Uuid>, LogError> {
    let path = home.file(NAME);
    match (home.disk.read(&path), expected) {
        (Ok(contents), expected) => {
            let found = decode(&path, &contents)?;
            match expected.filter(|expected| *expected != found) {
                None => Ok(Some(found)),
                Some(expected) => Err(LogError::InconsistentTopicId { path, found, expected }),
            }
        }
        (Err(error), _) if !error.is_not_found() => Err(error.into()),
        (Err(_), Some(topic_id)) => {
            home.disk.write_atomically(&path, encode(topic_id).as_bytes())?;
            Ok(Some(topic_id))
        }
        (Err(_), None) => Ok(None),
    }
}

/// The topic id of a partition's directory; `None` if the file does not exist.
pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Uuid>, LogError> {
    let path = dir.join(NAME);
    match disk.read(&path) {
        Ok(contents) => decode(&path, &contents).map(Some),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The contents of the file.
pub fn encode(topic_id: Uuid) -> String {
    format!("version: {VERSION}\ntopic_id: {topic_id}")
}

/// The topic id in the file's contents. `path` is for the error.
pub fn decode(path: &Path, contents: &[u8]) -> Result<Uuid, LogError> {
    let malformed =
        |line: usize, problem| LogError::Malformed { path: path.to_path_buf(), line, problem };
    let text = std::str::from_utf8(contents).map_err(|_| malformed(1, FileProblem::NotText))?;
    let mut lines = text.lines();
    let mut value = |line: usize, key: &'static str| {
        let value = lines.next().and_then(|text| text.strip_prefix(key)?.strip_prefix(':'));
        value.map(str::trim).ok_or_else(|| malformed(line, FileProblem::Missing { key }))
    };
    let version = value(1, "version")?;
    let found = version
        .parse::<i64>()
        .map_err(|_| malformed(1, FileProblem::Syntax { expected: "a version number" }))?;
    // Later versions only add fields, so that Kafka can be downgraded.
    if found < VERSION {
        return Err(malformed(1, FileProblem::Version { found, expected: VERSION }));
    }
    let topic_id = value(2, "topic_id")?.parse::<Uuid>().ok().filter(|id| !id.is_zero());
    topic_id.ok_or_else(|| malformed(2, FileProblem::Syntax { expected: "a topic id" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_kafkas_and_comes_back() {
        let text = encode(Uuid::METADATA_TOPIC);
        assert_eq!(text, "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ");
        let path = Path::new("partition.metadata");
        assert_eq!(decode(path, text.as_bytes()).unwrap(), Uuid::METADATA_TOPIC);
    }

    #[test]
    fn malformed_files_are_refused() {
        let path = Path::new("partition.metadata");
        for (contents, line) in [
            (&b""[..], 1),
            (b"version: x\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ", 1),
            (b"version: -1\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ", 1),
            (b"version: 0", 2),
            (b"version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA", 2),
        ] {
            match decode(path, contents) {
                Err(LogError::Malformed { line: found, .. }) => assert_eq!(found, line),
                other => panic!("{contents:?} gave {other:?}"),
            }
        }
    }
}
