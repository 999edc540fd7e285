//! The records of `__consumer_offsets`: which Klamm writes, which it reads, and which it ignores.
//!
//! A key starts with a two-byte record type, a value with a two-byte version. Klamm writes the same versions as Kafka
//! 4.3.1: GroupMetadataValue version 3, OffsetCommitValue version 4 (version 1 with an explicit expiry). Records of
//! consumer, share and streams groups are recognised, never written and never deleted: they stay in the log for a
//! broker that supports them, and classic groups cannot use their group ids. (Kafka: `GroupCoordinatorRecordHelpers`,
//! `CoordinatorRecordType`, `GroupCoordinatorRecordSerde`)

mod replay;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use klamm_protocol::messages::consumer_group_metadata_key::ConsumerGroupMetadataKey;
use klamm_protocol::messages::group_metadata_key::GroupMetadataKey;
use klamm_protocol::messages::group_metadata_value::GroupMetadataValue;
use klamm_protocol::messages::legacy_offset_commit_key::LegacyOffsetCommitKey;
use klamm_protocol::messages::legacy_offset_commit_value::LegacyOffsetCommitValue;
use klamm_protocol::messages::offset_commit_key::OffsetCommitKey;
use klamm_protocol::messages::offset_commit_value::OffsetCommitValue;
use klamm_protocol::{DecodeError, Decoder, EncodeError, Message};

use super::kind::GroupType;
use crate::runtime::EncodedRecord;

const LEGACY_OFFSET_COMMIT: i16 = 0;
const OFFSET_COMMIT: i16 = 1;
const GROUP_METADATA: i16 = 2;
const CONSUMER_GROUP_METADATA: i16 = 3;
const SHARE_GROUP_METADATA: i16 = 11;
const STREAMS_GROUP_METADATA: i16 = 17;
const KEY_BODY_VERSION: i16 = 0;
const GROUP_METADATA_VALUE_VERSION: i16 = 3;
const OFFSET_COMMIT_VALUE_VERSION: i16 = 4;
/// The only version with an expiry timestamp (OffsetCommit requests up to version 4).
const OFFSET_COMMIT_VALUE_VERSION_WITH_EXPIRY: i16 = 1;

/// A record that changes the state of classic groups or their offsets.
#[derive(Debug, Clone, PartialEq)]
pub enum GroupRecord {
    /// `None` deletes the committed offset.
    OffsetCommit { key: OffsetCommitKey, value: Option<OffsetCommitValue> },
    /// `None` deletes the group.
    GroupMetadata { group_id: ByteString, value: Option<GroupMetadataValue> },
}

/// A decoded record of the log.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ReadRecord {
    Group(GroupRecord),
    /// A record of a group of another type: the group's own record or another one of it.
    OtherGroup {
        record_type: i16,
        group_type: GroupType,
        group_id: ByteString,
        says: Existence,
    },
    Unknown {
        record_type: i16,
    },
}

/// What a record of a group of another type shows about the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existence {
    Exists,
    Deleted,
    /// A tombstone of another record than the group's own: the group may still exist.
    Nothing,
}

/// Why a record of `__consumer_offsets` cannot be replayed. The partition must not be served then.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("the key of a group record is shorter than its record type")]
    KeyTooShort,
    #[error("the value of a group record of type {record_type} is shorter than its version")]
    ValueTooShort { record_type: i16 },
    #[error("value version {version} of group record type {record_type} is unknown")]
    UnknownValueVersion { record_type: i16, version: i16 },
    #[error("a group record of type {record_type} cannot be decoded: {source}")]
    Malformed { record_type: i16, source: DecodeError },
}

impl GroupRecord {
    pub(crate) fn offset_tombstone(group: &ByteString, topic: &ByteString, partition: i32) -> Self {
        Self::OffsetCommit {
            key: OffsetCommitKey { group: group.clone(), topic: topic.clone(), partition },
            value: None,
        }
    }

    pub(crate) fn group_tombstone(group_id: &ByteString) -> Self {
        Self::GroupMetadata { group_id: group_id.clone(), value: None }
    }

    /// # Errors
    /// A string is longer than the 32,767 bytes that the record can hold.
    pub(crate) fn encode(&self) -> Result<EncodedRecord, EncodeError> {
        match self {
            Self::OffsetCommit { key, value } => {
                let value = value.as_ref().map(|value| prefixed(offset_version(value), value));
                Ok(EncodedRecord {
                    key: prefixed_key(OFFSET_COMMIT, key)?,
                    value: value.transpose()?,
                })
            }
            Self::GroupMetadata { group_id, value } => {
                let key = GroupMetadataKey { group: group_id.clone() };
                let value =
                    value.as_ref().map(|value| prefixed(GROUP_METADATA_VALUE_VERSION, value));
                Ok(EncodedRecord {
                    key: prefixed_key(GROUP_METADATA, &key)?,
                    value: value.transpose()?,
                })
            }
        }
    }
}

fn offset_version(value: &OffsetCommitValue) -> i16 {
    if value.expire_timestamp == -1 {
        OFFSET_COMMIT_VALUE_VERSION
    } else {
        OFFSET_COMMIT_VALUE_VERSION_WITH_EXPIRY
    }
}

fn prefixed_key(record_type: i16, key: &impl Message) -> Result<Bytes, EncodeError> {
    encode_after(record_type, key, KEY_BODY_VERSION)
}

fn prefixed(version: i16, value: &impl Message) -> Result<Bytes, EncodeError> {
    encode_after(version, value, version)
}

fn encode_after(prefix: i16, body: &impl Message, version: i16) -> Result<Bytes, EncodeError> {
    let mut out = BytesMut::with_capacity(64);
    out.put_i16(prefix);
    body.encode(&mut out, version)?;
    Ok(out.freeze())
}

/// Decodes a record of the log.
///
/// # Errors The record is truncated, malformed, or its value has an unknown version.
pub(crate) fn read(key: Bytes, value: Option<Bytes>) -> Result<ReadRecord, ReplayError> {
    let (record_type, key) = split_prefix(key).ok_or(ReplayError::KeyTooShort)?;
    let exists = value.is_some();
    match record_type {
        LEGACY_OFFSET_COMMIT => read_legacy_offset(key, value),
        OFFSET_COMMIT => Ok(ReadRecord::Group(GroupRecord::OffsetCommit {
            key: read_key(record_type, key)?,
            value: read_value(record_type, value)?,
        })),
        GROUP_METADATA => Ok(ReadRecord::Group(GroupRecord::GroupMetadata {
            group_id: read_key::<GroupMetadataKey>(record_type, key)?.group,
            value: read_value(record_type, value)?,
        })),
        _ => match other_group_type(record_type) {
            Some(group_type) => read_other_group(record_type, group_type, key, exists),
            None => Ok(ReadRecord::Unknown { record_type }),
        },
    }
}

/// The group type whose records have this type, up to Kafka 4.3.1's StreamsGroupTopology.
/// 9 and 18 were never assigned.
fn other_group_type(record_type: i16) -> Option<GroupType> {
    match record_type {
        3..=8 | 16 => Some(GroupType::Consumer),
        10..=15 => Some(GroupType::Share),
        17 | 19..=23 => Some(GroupType::Streams),
        _ => None,
    }
}

/// Decodes a record of a group of another type. Any record with a value means that its group exists: a share group may
/// have only records of its partitions' state. Only the tombstone of the group's own record means that it does not
/// exist.
fn read_other_group(
    record_type: i16,
    group_type: GroupType,
    key: Bytes,
    exists: bool,
) -> Result<ReadRecord, ReplayError> {
    // The keys of all these records begin with the same field.
    let group_id = read_key::<ConsumerGroupMetadataKey>(record_type, key)?.group_id;
    let says = match record_type {
        _ if exists => Existence::Exists,
        CONSUMER_GROUP_METADATA | SHARE_GROUP_METADATA | STREAMS_GROUP_METADATA => {
            Existence::Deleted
        }
        _ => Existence::Nothing,
    };
    Ok(ReadRecord::OtherGroup { record_type, group_type, group_id, says })
}

fn read_legacy_offset(key: Bytes, value: Option<Bytes>) -> Result<ReadRecord, ReplayError> {
    let key: LegacyOffsetCommitKey = read_key(LEGACY_OFFSET_COMMIT, key)?;
    let value: Option<LegacyOffsetCommitValue> = read_value(LEGACY_OFFSET_COMMIT, value)?;
    Ok(ReadRecord::Group(GroupRecord::OffsetCommit {
        key: OffsetCommitKey { group: key.group, topic: key.topic, partition: key.partition },
        value: value.map(|value| OffsetCommitValue {
            offset: value.offset,
            metadata: value.metadata,
            commit_timestamp: value.commit_timestamp,
            ..Default::default()
        }),
    }))
}

fn read_key<M: Message>(record_type: i16, body: Bytes) -> Result<M, ReplayError> {
    M::decode(&mut Decoder::new(body), KEY_BODY_VERSION)
        .map_err(|source| ReplayError::Malformed { record_type, source })
}

fn read_value<M: Message>(
    record_type: i16,
    value: Option<Bytes>,
) -> Result<Option<M>, ReplayError> {
    let Some(value) = value else { return Ok(None) };
    let (version, body) = split_prefix(value).ok_or(ReplayError::ValueTooShort { record_type })?;
    if !M::VERSIONS.contains(&version) {
        return Err(ReplayError::UnknownValueVersion { record_type, version });
    }
    M::decode(&mut Decoder::new(body), version)
        .map(Some)
        .map_err(|source| ReplayError::Malformed { record_type, source })
}

fn split_prefix(mut bytes: Bytes) -> Option<(i16, Bytes)> {
    if bytes.len() < size_of::<i16>() {
        return None;
    }
    let prefix = bytes.get_i16();
    Some((prefix, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset_record(expire_timestamp: i64) -> GroupRecord {
        GroupRecord::OffsetCommit {
            key: OffsetCommitKey { group: "g".into(), topic: "t".into(), partition: 7 },
            value: Some(OffsetCommitValue {
                offset: 42,
                leader_epoch: -1,
                metadata: "m".into(),
                commit_timestamp: 5,
                expire_timestamp,
                ..Default::default()
            }),
        }
    }

    fn group_record() -> GroupRecord {
        let value = GroupMetadataValue {
            protocol_type: "consumer".into(),
            generation: 3,
            current_state_timestamp: 9,
            ..Default::default()
        };
        GroupRecord::GroupMetadata { group_id: "g".into(), value: Some(value) }
    }

    fn read_back(record: &GroupRecord) -> ReadRecord {
        let encoded = record.encode().unwrap();
        read(encoded.key, encoded.value).unwrap()
    }

    #[test]
    fn records_are_prefixed_with_their_type_and_the_version_that_kafka_writes() {
        let offset = offset_record(-1).encode().unwrap();
        assert_eq!(&offset.key[..], b"\0\x01\0\x01g\0\x01t\0\0\0\x07");
        assert_eq!(&offset.value.unwrap()[..2], b"\0\x04");
        let expiring = offset_record(100).encode().unwrap();
        assert_eq!(&expiring.value.unwrap()[..2], b"\0\x01");
        let group = group_record().encode().unwrap();
        assert_eq!(&group.key[..], b"\0\x02\0\x01g");
        assert_eq!(&group.value.unwrap()[..2], b"\0\x03");
    }

    #[test]
    fn a_written_record_reads_back_equal() {
        let tombstone = GroupRecord::offset_tombstone(&"g".into(), &"t".into(), 1);
        for record in [offset_record(-1), group_record(), tombstone] {
            assert_eq!(read_back(&record), ReadRecord::Group(record));
        }
        // Version 1 holds no leader epoch and no topic id, but the expiry.
        assert_eq!(read_back(&offset_record(100)), ReadRecord::Group(offset_record(100)));
    }

    #[test]
    fn an_offset_with_a_topic_id_has_the_bytes_that_kafka_4_3_1_writes() {
        let mut record = offset_record(-1);
        let GroupRecord::OffsetCommit { value: Some(value), .. } = &mut record else { panic!() };
        value.leader_epoch = 4;
        value.topic_id = klamm_protocol::Uuid::from_bytes([3; 16]);
        let mut expected = b"\0\x04\0\0\0\0\0\0\0\x2a\0\0\0\x04\x02m".to_vec();
        expected.extend_from_slice(b"\0\0\0\0\0\0\0\x05\x01\0\x10");
        expected.extend_from_slice(&[3; 16]);
        assert_eq!(record.encode().unwrap().value.unwrap(), expected);
    }

    #[test]
    fn a_string_too_long_for_the_record_is_an_error_and_not_a_panic() {
        let group: ByteString = "g".repeat(40_000).into();
        assert!(GroupRecord::group_tombstone(&group).encode().is_err());
    }

    #[test]
    fn legacy_offsets_are_read_as_offsets() {
        let key = Bytes::from_static(b"\0\0\0\x01g\0\x01t\0\0\0\x02");
        let value = Bytes::from_static(b"\0\0\0\0\0\0\0\0\0\x05\0\x01m\0\0\0\0\0\0\0\x09");
        let Ok(ReadRecord::Group(GroupRecord::OffsetCommit { key, value: Some(value) })) =
            read(key, Some(value))
        else {
            panic!("a legacy offset is an offset");
        };
        assert_eq!((&*key.group, &*key.topic, key.partition), ("g", "t", 2));
        assert_eq!((value.offset, value.commit_timestamp), (5, 9));
    }

    #[test]
    fn groups_of_other_types_are_recognised_by_any_record_with_a_value() {
        let cases = [
            (3_u8, GroupType::Consumer, Existence::Deleted),
            (8, GroupType::Consumer, Existence::Nothing),
            (11, GroupType::Share, Existence::Deleted),
            (15, GroupType::Share, Existence::Nothing),
            (16, GroupType::Consumer, Existence::Nothing),
            (17, GroupType::Streams, Existence::Deleted),
            (23, GroupType::Streams, Existence::Nothing),
        ];
        for (record_type, group_type, without_value) in cases {
            let key = Bytes::copy_from_slice(&[0, record_type, 0, 1, b'g', 0, 1, b'm']);
            let expected = |says| ReadRecord::OtherGroup {
                record_type: i16::from(record_type),
                group_type,
                group_id: "g".into(),
                says,
            };
            assert_eq!(read(key.clone(), None).unwrap(), expected(without_value));
            let value = Some(Bytes::from_static(b"\0\0"));
            assert_eq!(read(key, value).unwrap(), expected(Existence::Exists));
        }
    }

    #[test]
    fn record_types_that_kafka_does_not_have_are_unknown() {
        for record_type in [9_u8, 18, 24] {
            let key = Bytes::copy_from_slice(&[0, record_type]);
            let unknown = ReadRecord::Unknown { record_type: i16::from(record_type) };
            assert_eq!(read(key, None).unwrap(), unknown);
        }
    }

    #[test]
    fn damaged_records_are_refused() {
        let key = offset_record(-1).encode().unwrap().key;
        assert!(matches!(read(Bytes::from_static(b"\0"), None), Err(ReplayError::KeyTooShort)));
        let short = read(key.clone(), Some(Bytes::from_static(b"\0")));
        assert!(matches!(short, Err(ReplayError::ValueTooShort { record_type: 1 })));
        let newer = read(key.clone(), Some(Bytes::from_static(b"\0\x05")));
        assert!(matches!(
            newer,
            Err(ReplayError::UnknownValueVersion { record_type: 1, version: 5 })
        ));
        let cut = read(key.slice(..5), None);
        assert!(matches!(cut, Err(ReplayError::Malformed { record_type: 1, .. })));
        let cut = read(key, Some(Bytes::from_static(b"\0\x04\0")));
        assert!(matches!(cut, Err(ReplayError::Malformed { record_type: 1, .. })));
    }
}
