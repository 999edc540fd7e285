//! The file `quorum-state`: one line of JSON, version 0 or 1 (Kafka's `FileQuorumStateStore`). Converts bytes to the
//! value and back; the shell reads and writes the file (`.tmp`, sync, rename).
//!
//! An unknown version is an error, never a reset (KAFKA-15412): a node that forgets its vote can vote twice.

use super::election::Election;
use super::voters::{ReplicaKey, VoterSet};
use klamm_protocol::Uuid;
use klamm_protocol::ids::{BrokerId, none_if_minus_one, or_minus_one};
use serde_json::{Map, Value};

/// The contents of `quorum-state`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredElection {
    pub election: Election,
    pub format: StoredFormat,
}

/// The version of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredFormat {
    /// Version 0, used at kraft.version 0: has the voters, but no directory ids.
    V0 { voter_ids: Vec<BrokerId> },
    /// Version 1, used from kraft.version 1 on.
    V1,
}

/// Why a `quorum-state` file cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum VoteStoreError {
    #[error("quorum-state is not one line of JSON: {reason}")]
    NotJson { reason: String },
    #[error(
        "quorum-state has data_version {version}, only 0 and 1 are known; it was written by a newer node"
    )]
    UnknownVersion { version: i64 },
    #[error("quorum-state lacks a valid value for {field}")]
    Field { field: &'static str },
}

impl StoredElection {
    /// The contents for the kraft.version in force.
    pub fn new(election: Election, kraft_version: i16, voters: &VoterSet) -> Self {
        let format = match kraft_version {
            0 => StoredFormat::V0 { voter_ids: voters.ids().collect() },
            _ => StoredFormat::V1,
        };
        Self { election, format }
    }

    /// The file, field for field as Kafka writes it, without a line end.
    pub fn encode(&self) -> String {
        let Election { epoch, leader_id, voted } = self.election;
        let leader_id = or_minus_one(leader_id);
        let voted_id = or_minus_one(voted.map(|voted| voted.id));
        match &self.format {
            StoredFormat::V0 { voter_ids } => {
                let voters: Vec<String> =
                    voter_ids.iter().map(|id| format!(r#"{{"voterId":{id}}}"#)).collect();
                format!(
                    r#"{{"clusterId":"","leaderId":{leader_id},"leaderEpoch":{epoch},"votedId":{voted_id},"appliedOffset":0,"currentVoters":[{}],"data_version":0}}"#,
                    voters.join(",")
                )
            }
            StoredFormat::V1 => {
                let directory = voted.map_or(Uuid::ZERO, |voted| voted.directory_id_or_zero());
                format!(
                    r#"{{"leaderId":{leader_id},"leaderEpoch":{epoch},"votedId":{voted_id},"votedDirectoryId":"{directory}","data_version":1}}"#
                )
            }
        }
    }

    /// Decodes the file. As in Kafka only its first line counts, and unknown fields are ignored.
    pub fn decode(file: &[u8]) -> Result<Self, VoteStoreError> {
        let line = file.split(|byte| matches!(byte, b'\n' | b'\r')).next().unwrap_or_default();
        let fields: Map<String, Value> = serde_json::from_slice(line)
            .map_err(|error| VoteStoreError::NotJson { reason: error.to_string() })?;
        let format = match integer(&fields, "data_version")? {
            0 => StoredFormat::V0 { voter_ids: voter_ids(&fields)? },
            1 => StoredFormat::V1,
            version => return Err(VoteStoreError::UnknownVersion { version }),
        };
        let directory_id = match format {
            StoredFormat::V0 { .. } => Uuid::ZERO,
            StoredFormat::V1 => uuid(&fields, "votedDirectoryId")?,
        };
        let voted_id = node_id(&fields, "votedId")?;
        let election = Election {
            epoch: int32(&fields, "leaderEpoch")?,
            leader_id: node_id(&fields, "leaderId")?,
            voted: voted_id.map(|id| ReplicaKey::new(id, directory_id)),
        };
        Ok(Self { election, format })
    }
}

fn integer(fields: &Map<String, Value>, field: &'static str) -> Result<i64, VoteStoreError> {
    fields.get(field).and_then(Value::as_i64).ok_or(VoteStoreError::Field { field })
}

fn int32(fields: &Map<String, Value>, field: &'static str) -> Result<i32, VoteStoreError> {
    integer(fields, field)?.try_into().map_err(|_| VoteStoreError::Field { field })
}

fn node_id(
    fields: &Map<String, Value>,
    field: &'static str,
) -> Result<Option<BrokerId>, VoteStoreError> {
    match none_if_minus_one(int32(fields, field)?) {
        Some(..0) => Err(VoteStoreError::Field { field }),
        id => Ok(id),
    }
}

fn uuid(fields: &Map<String, Value>, field: &'static str) -> Result<Uuid, VoteStoreError> {
    let text = fields.get(field).and_then(Value::as_str);
    text.and_then(|text| text.parse().ok()).ok_or(VoteStoreError::Field { field })
}

fn voter_ids(fields: &Map<String, Value>) -> Result<Vec<BrokerId>, VoteStoreError> {
    let field = "currentVoters";
    let malformed = VoteStoreError::Field { field };
    let voters = match fields.get(field) {
        Some(Value::Array(voters)) => voters,
        Some(Value::Null) => return Ok(Vec::new()),
        _ => return Err(malformed),
    };
    let id = |voter: &Value| voter.get("voterId")?.as_i64()?.try_into().ok();
    voters.iter().map(id).collect::<Option<_>>().ok_or(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V0: &str = r#"{"clusterId":"","leaderId":1,"leaderEpoch":1,"votedId":-1,"appliedOffset":0,"currentVoters":[{"voterId":1}],"data_version":0}"#;
    const V1: &str = r#"{"leaderId":-1,"leaderEpoch":7,"votedId":3,"votedDirectoryId":"AAAAAAAAAAAAAAAAAAAAAQ","data_version":1}"#;

    #[test]
    fn version_0_is_written_and_read_as_kafka_writes_it() {
        let stored = StoredElection {
            election: Election::elected(1, 1),
            format: StoredFormat::V0 { voter_ids: vec![1] },
        };
        assert_eq!(stored.encode(), V0);
        assert_eq!(StoredElection::decode(V0.as_bytes()), Ok(stored));
    }

    #[test]
    fn version_1_is_written_and_read_as_kafka_writes_it() {
        let voted = ReplicaKey::new(3, Uuid::METADATA_TOPIC);
        let stored = StoredElection {
            election: Election { epoch: 7, leader_id: None, voted: Some(voted) },
            format: StoredFormat::V1,
        };
        assert_eq!(stored.encode(), V1);
        assert_eq!(StoredElection::decode(format!("{V1}\n").as_bytes()), Ok(stored));
    }

    #[test]
    fn the_version_follows_kraft_version() {
        let store = |level| StoredElection::new(Election::NEVER, level, &VoterSet::default());
        assert_eq!(store(0).format, StoredFormat::V0 { voter_ids: vec![] });
        assert_eq!(store(1).format, StoredFormat::V1);
    }

    #[test]
    fn an_unknown_version_is_an_error_and_never_a_reset() {
        let newer = V1.replace(r#""data_version":1"#, r#""data_version":2"#);
        assert_eq!(
            StoredElection::decode(newer.as_bytes()),
            Err(VoteStoreError::UnknownVersion { version: 2 })
        );
    }

    #[test]
    fn a_damaged_file_is_refused_and_the_field_named() {
        let not_json = |file: &[u8]| {
            matches!(StoredElection::decode(file), Err(VoteStoreError::NotJson { .. }))
        };
        assert!(not_json(b""));
        assert!(not_json(b"\n"));
        assert!(not_json(b"[]"));
        assert!(not_json(&V1.as_bytes()[..20]));
        for (from, to, field) in [
            (r#""leaderEpoch":7"#, r#""leaderEpoch":"7""#, "leaderEpoch"),
            (r#""leaderEpoch":7"#, r#""leaderEpoch":4294967296"#, "leaderEpoch"),
            (r#""leaderId":-1"#, r#""leaderId":-2"#, "leaderId"),
            (r#""votedId":3,"#, "", "votedId"),
            ("AAAAAAAAAAAAAAAAAAAAAQ", "short", "votedDirectoryId"),
            (r#","data_version":1"#, "", "data_version"),
        ] {
            assert_eq!(
                StoredElection::decode(V1.replace(from, to).as_bytes()),
                Err(VoteStoreError::Field { field }),
                "{from} -> {to}"
            );
        }
        let voters = V0.replace(r#"{"voterId":1}"#, "1");
        let error = VoteStoreError::Field { field: "currentVoters" };
        assert_eq!(StoredElection::decode(voters.as_bytes()), Err(error));
    }
}
