//! The metadata.version feature: its levels, the records that each has added, and the version at which a record is
//! written.
//!
//! Invariant: a `MetadataVersion` always names a level between [`MetadataVersion::MINIMUM`] and
//! [`MetadataVersion::LATEST`]; other levels are refused when they are decoded.

use klamm_protocol::metadata_record::MetadataRecord;

/// A finalized level of the feature `metadata.version` (KIP-584, KIP-778).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetadataVersion(i16);

/// For every level from 7 on: the name, and whether the metadata layout changed with it.
const LEVELS: [(&str, bool); 24] = [
    ("3.3-IV3", true),
    ("3.4-IV0", true),
    ("3.5-IV0", false),
    ("3.5-IV1", false),
    ("3.5-IV2", true),
    ("3.6-IV0", false),
    ("3.6-IV1", true),
    ("3.6-IV2", true),
    ("3.7-IV0", true),
    ("3.7-IV1", false),
    ("3.7-IV2", true),
    ("3.7-IV3", false),
    ("3.7-IV4", false),
    ("3.8-IV0", false),
    ("3.9-IV0", false),
    ("4.0-IV0", false),
    ("4.0-IV1", true),
    ("4.0-IV2", false),
    ("4.0-IV3", false),
    ("4.1-IV0", false),
    ("4.1-IV1", false),
    ("4.2-IV0", false),
    ("4.2-IV1", false),
    ("4.3-IV0", true),
];

impl MetadataVersion {
    /// The feature's name in records and requests.
    pub const FEATURE_NAME: &'static str = "metadata.version";
    /// 3.3-IV3, the oldest level that Kafka 4 reads.
    pub const MINIMUM: Self = Self(7);
    /// 4.3-IV0, the level of a new Kafka 4.3 cluster.
    pub const LATEST: Self = Self(30);

    /// The level, if this version knows it.
    pub fn from_level(level: i16) -> Option<Self> {
        (Self::MINIMUM.0..=Self::LATEST.0).contains(&level).then_some(Self(level))
    }

    /// The number in FeatureLevelRecord.
    pub fn level(self) -> i16 {
        self.0
    }

    /// The name that Kafka's tools print, for example `4.3-IV0`.
    pub fn name(self) -> &'static str {
        self.entry().0
    }

    fn entry(self) -> (&'static str, bool) {
        let index = usize::try_from(self.0 - Self::MINIMUM.0).expect("a level is at least 7");
        LEVELS[index]
    }

    /// Whether a change from one to the other adds or loses metadata (MetadataVersion.didMetadataChange).
    pub fn metadata_changed(self, other: Self) -> bool {
        let (low, high) = if self < other { (self, other) } else { (other, self) };
        (low.0 + 1..=high.0).any(|level| Self(level).entry().1)
    }

    /// SCRAM credentials in the log (KIP-900).
    pub fn is_scram_supported(self) -> bool {
        self.0 >= 11
    }

    /// Before 3.6-IV0 an ISR shrink had to bump the leader epoch (KAFKA-15021).
    pub fn is_leader_epoch_bump_required_on_isr_shrink(self) -> bool {
        self.0 < 12
    }

    /// Begin, End and AbortTransactionRecord (KIP-868).
    pub fn is_metadata_transaction_supported(self) -> bool {
        self.0 >= 13
    }

    /// RegisterControllerRecord (KIP-919).
    pub fn is_controller_registration_supported(self) -> bool {
        self.0 >= 15
    }

    /// Log directory ids in registrations and partitions (KIP-858).
    pub fn is_directory_assignment_supported(self) -> bool {
        self.0 >= 17
    }

    /// Eligible leader replicas in partition records (KIP-966).
    pub fn is_elr_supported(self) -> bool {
        self.0 >= 23
    }

    /// Cordoned log directories (KIP-1066).
    pub fn is_cordoned_log_dirs_supported(self) -> bool {
        self.0 >= 30
    }

    /// The version at which Kafka 4.3.1 writes this record on a cluster of this level.
    pub fn record_version(self, record: &MetadataRecord) -> i16 {
        match record {
            MetadataRecord::RegisterBroker(_) => self.register_broker_version(),
            MetadataRecord::Partition(_) | MetadataRecord::PartitionChange(_) => {
                self.partition_version()
            }
            MetadataRecord::BrokerRegistrationChange(change) => {
                if change.cordoned_log_dirs.is_some() {
                    3
                } else if !change.log_dirs.is_empty() {
                    2
                } else {
                    i16::from(change.in_controlled_shutdown != 0)
                }
            }
            _ => 0,
        }
    }

    fn register_broker_version(self) -> i16 {
        match self.0 {
            30.. => 4,
            17.. => 3,
            8.. => 2,
            _ => 1,
        }
    }

    fn partition_version(self) -> i16 {
        match self.0 {
            23.. => 2,
            17.. => 1,
            _ => 0,
        }
    }
}

impl std::fmt::Display for MetadataVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_levels_can_be_named() {
        assert_eq!(MetadataVersion::from_level(6), None);
        assert_eq!(MetadataVersion::from_level(7), Some(MetadataVersion::MINIMUM));
        assert_eq!(MetadataVersion::from_level(30), Some(MetadataVersion::LATEST));
        assert_eq!(MetadataVersion::from_level(31), None);
        assert_eq!(MetadataVersion::LATEST.name(), "4.3-IV0");
        assert_eq!(MetadataVersion::from_level(25).unwrap().name(), "4.0-IV3");
    }

    #[test]
    fn metadata_changes_between_29_and_30_but_not_between_25_and_29() {
        let level = |n| MetadataVersion::from_level(n).unwrap();
        assert!(level(29).metadata_changed(level(30)));
        assert!(level(30).metadata_changed(level(29)));
        assert!(!level(25).metadata_changed(level(29)));
        assert!(!level(29).metadata_changed(level(25)));
        assert!(!level(30).metadata_changed(level(30)));
    }
}
