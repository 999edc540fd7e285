//! `meta.properties`: the cluster and node of a log directory (Kafka's `MetaProperties`).

use crate::disk::Disk;
use crate::error::{FileProblem, LogError};
use klamm_protocol::Uuid;
use klamm_protocol::ids::BrokerId;
use std::collections::BTreeMap;
use std::path::Path;

/// The file's name.
pub const NAME: &str = "meta.properties";

const CLUSTER_ID: &str = "cluster.id";
const NODE_ID: &str = "node.id";
const BROKER_ID: &str = "broker.id";
const DIRECTORY_ID: &str = "directory.id";
const VERSION: &str = "version";

/// The contents of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaProperties {
    /// 0: the form of ZooKeeper clusters, with `broker.id`; 1: KRaft.
    pub version: i64,
    pub cluster_id: Option<String>,
    pub node_id: Option<BrokerId>,
    /// The directory's own id (KIP-858).
    pub directory_id: Option<Uuid>,
}

impl MetaProperties {
    /// The contents that a KRaft node writes.
    pub fn new(cluster_id: &str, node_id: BrokerId, directory_id: Uuid) -> Self {
        Self {
            version: 1,
            cluster_id: Some(cluster_id.to_owned()),
            node_id: Some(node_id),
            directory_id: Some(directory_id),
        }
    }

    /// Reads the file; `None` if the directory has none, and so was never formatted.
    pub fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Self>, LogError> {
        match disk.read(path) {
            Ok(contents) => Self::decode(path, &contents).map(Some),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Replaces the file.
    pub fn write(&self, disk: &dyn Disk, path: &Path) -> Result<(), LogError> {
        Ok(disk.write_atomically(path, self.encode().as_bytes())?)
    }

    /// The text of the file.
    pub fn encode(&self) -> String {
        let id_key = if self.version == 0 { BROKER_ID } else { NODE_ID };
        let lines = [
            (CLUSTER_ID, self.cluster_id.clone()),
            (DIRECTORY_ID, self.directory_id.map(|id| id.to_string())),
            (id_key, self.node_id.map(|id| id.to_string())),
            (VERSION, Some(self.version.to_string())),
        ];
        let lines = lines.into_iter().filter_map(|(key, value)| Some((key, value?)));
        lines.map(|(key, value)| format!("{key}={}\n", escaped(&value))).collect()
    }

    /// Parses the text of the file. `path` is for errors.
    pub fn decode(path: &Path, contents: &[u8]) -> Result<Self, LogError> {
        let malformed =
            |line: usize, problem| LogError::Malformed { path: path.to_path_buf(), line, problem };
        let text = std::str::from_utf8(contents).map_err(|_| malformed(1, FileProblem::NotText))?;
        let properties = properties(text);
        let number = |key: &str| {
            let value = properties.get(key);
            let expected = FileProblem::Syntax { expected: "a whole number" };
            let parse = |(line, value): &(usize, String)| {
                value.parse::<i64>().map_err(|_| malformed(*line, expected))
            };
            value.map(parse).transpose()
        };
        let version = number(VERSION)?.unwrap_or(0);
        if !(0..=1).contains(&version) {
            let line = properties.get(VERSION).map_or(1, |(line, _)| *line);
            return Err(malformed(line, FileProblem::Version { found: version, expected: 1 }));
        }
        let id_key = if version == 0 { BROKER_ID } else { NODE_ID };
        let node_id = number(id_key)?
            .map(BrokerId::try_from)
            .transpose()
            .map_err(|_| malformed(1, FileProblem::Syntax { expected: "a node id of 32 bits" }))?;
        let cluster_id = properties.get(CLUSTER_ID).map(|(_, value)| value.clone());
        let directory_id = properties.get(DIRECTORY_ID).map(|(line, value)| {
            let expected = FileProblem::Syntax { expected: "a directory id" };
            value.parse::<Uuid>().map_err(|_| malformed(*line, expected))
        });
        if version > 0 {
            let missing = |key| malformed(1, FileProblem::Missing { key });
            cluster_id.as_ref().ok_or_else(|| missing(CLUSTER_ID))?;
            node_id.ok_or_else(|| missing(NODE_ID))?;
        }
        Ok(Self { version, cluster_id, node_id, directory_id: directory_id.transpose()? })
    }
}

/// Parses the part of Java's properties format that this file uses: comments, `=` or `:`, backslashes. Values have
/// their line numbers.
fn properties(text: &str) -> BTreeMap<String, (usize, String)> {
    let mut properties = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.starts_with(['#', '!']) {
            continue;
        }
        if let Some((key, value)) = line.split_once(['=', ':']) {
            let entry = (index + 1, unescaped(value.trim()));
            properties.insert(key.trim_end().to_owned(), entry);
        }
    }
    properties
}

fn unescaped(value: &str) -> String {
    let mut characters = value.chars();
    let mut text = String::with_capacity(value.len());
    while let Some(character) = characters.next() {
        let literal = if character == '\\' { characters.next() } else { Some(character) };
        text.extend(literal);
    }
    text
}

fn escaped(value: &str) -> String {
    let special = |character| matches!(character, '\\' | ':' | '=' | '#' | '!');
    let mut text = String::with_capacity(value.len());
    for character in value.chars() {
        if special(character) {
            text.push('\\');
        }
        text.push(character);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> Result<MetaProperties, LogError> {
        MetaProperties::decode(Path::new(NAME), text.as_bytes())
    }

    #[test]
    fn what_kafka_wrote_is_read() {
        let text = "#\n#Sat Nov 21 10:00:00 UTC 2026\ncluster.id=4L6g3nShT-eMCtK--X86sw\n\
                    directory.id=3Fqz1vE4QkiEUlmSCjTTzQ\nnode.id=3\nversion=1\n";
        let id = "3Fqz1vE4QkiEUlmSCjTTzQ".parse().unwrap();
        let expected = MetaProperties::new("4L6g3nShT-eMCtK--X86sw", 3, id);
        assert_eq!(decode(text).unwrap(), expected);
        assert_eq!(decode(&expected.encode()).unwrap(), expected);
    }

    #[test]
    fn special_characters_are_escaped_as_java_does() {
        let odd = MetaProperties::new("a:b=c\\d#e", 0, Uuid::METADATA_TOPIC);
        assert!(odd.encode().starts_with("cluster.id=a\\:b\\=c\\\\d\\#e\n"));
        assert_eq!(decode(&odd.encode()).unwrap(), odd);
    }

    #[test]
    fn version_zero_has_a_broker_id_and_nothing_is_required() {
        assert_eq!(decode("broker.id=7\n").unwrap().node_id, Some(7));
        assert_eq!(decode("").unwrap().version, 0);
    }

    #[test]
    fn the_error_says_what_is_missing_or_wrong_and_where() {
        for (text, expected) in [
            ("version=1\nnode.id=1\n", "cluster.id is missing"),
            ("version=1\ncluster.id=x\n", "node.id is missing"),
            ("version=2\n", "line 1: version 2 is not known"),
            ("version=1\nnode.id=one\ncluster.id=x\n", "line 2: expected a whole number"),
            ("version=1\nnode.id=1\ncluster.id=x\ndirectory.id=y\n", "line 4"),
        ] {
            let error = decode(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
