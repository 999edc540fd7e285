//! The features of a cluster that this build supports, and at which levels (KIP-584, KIP-1022).

use std::collections::BTreeMap;

use bytestring::ByteString;
use klamm_metadata::controller::activation::FeatureLevels;
use klamm_metadata::image::ClusterImage;
use klamm_metadata::image::brokers::VersionRange;
use klamm_metadata::metadata_version::MetadataVersion;
use klamm_protocol::metadata_record::MetadataRecord;

/// A feature and its levels that this build supports.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SupportedFeature {
    pub(crate) name: &'static str,
    pub(crate) min: i16,
    pub(crate) max: i16,
    /// The level in a new cluster.
    initial: i16,
}

/// Eligible leader replicas (KIP-966).
const ELR: &str = "eligible.leader.replicas.version";

/// The source of the quorum's voters: the configuration (0), or the metadata log (1, KIP-853). The quorum stores this
/// level itself, not in a metadata record.
pub(crate) const KRAFT_VERSION: &str = "kraft.version";

/// The supported features, by name. Features that are missing (groups of KIP-848, transactions, share and streams
/// groups) are not supported at any level yet.
pub(crate) const SUPPORTED: &[SupportedFeature] = &[
    SupportedFeature { name: ELR, min: 0, max: 1, initial: 1 },
    SupportedFeature { name: KRAFT_VERSION, min: 0, max: 1, initial: 0 },
    SupportedFeature { name: MetadataVersion::FEATURE_NAME, min: 7, max: 30, initial: 30 },
];

/// Features that almost every cluster of several nodes has finalized, and that do not affect other clients: to a client
/// of such a group or transaction this broker answers that it does not support it.
const TOLERATED: [&str; 2] = ["group.version", "transaction.version"];

/// Whether brokers of this build can join a cluster of several nodes that has the feature at some level.
pub(crate) fn may_be_finalized(name: &str) -> bool {
    TOLERATED.contains(&name) || SUPPORTED.iter().any(|feature| feature.name == name)
}

/// Removes features that brokers of this build do not support from the bootstrap records of a new cluster, and returns
/// their names.
pub(crate) fn leave_out_unserved(records: &mut Vec<MetadataRecord>) -> Vec<String> {
    let mut left_out = Vec::new();
    records.retain(|record| match record {
        MetadataRecord::FeatureLevel(feature) if !may_be_finalized(&feature.name) => {
            left_out.push(feature.name.to_string());
            false
        }
        _ => true,
    });
    left_out
}

/// The finalized features because of which this broker cannot join a cluster of several nodes: clients could look for
/// their coordinators here. The operator has to set them to 0 first.
pub(crate) fn obstacles(image: &ClusterImage) -> Vec<String> {
    let known = registered(image, false);
    let finalized = image.features.finalized();
    finalized
        .filter(|(name, level)| *level > 0 && !known.contains_key(*name))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// The features in a broker's registration.
///
/// A directory that Apache Kafka has formatted may have features finalized that this build does not serve. In a cluster
/// of its own (`is_alone`) they are tolerated: no other broker relies on them, and ApiVersions does not list the APIs
/// that clients need for them. In other clusters only [`TOLERATED`] are.
pub(crate) fn registered(
    image: &ClusterImage,
    is_alone: bool,
) -> BTreeMap<ByteString, VersionRange> {
    let mut ranges: BTreeMap<_, _> = SUPPORTED
        .iter()
        .map(|feature| (ByteString::from_static(feature.name), range(feature.min, feature.max)))
        .collect();
    let tolerated = |name: &str| is_alone || TOLERATED.contains(&name);
    for (name, level) in image.features.finalized().filter(|(name, _)| tolerated(name)) {
        ranges.entry(ByteString::from(name)).or_insert_with(|| range(0, level));
    }
    ranges
}

fn range(min: i16, max: i16) -> VersionRange {
    VersionRange { min, max }
}

/// The features of a new cluster.
pub(crate) fn initial() -> FeatureLevels {
    let others = SUPPORTED.iter().filter(|f| f.name != MetadataVersion::FEATURE_NAME);
    FeatureLevels {
        metadata_version: MetadataVersion::from_level(30).expect("4.3-IV0 is known"),
        others: others.map(|f| (ByteString::from_static(f.name), f.initial)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_cluster_begins_without_what_klamm_does_not_serve() {
        let levels = [("share.version", 1), ("streams.version", 1), ("transaction.version", 2)];
        let others = levels.map(|(name, level)| (ByteString::from_static(name), level));
        let asked = FeatureLevels { others: others.into(), ..initial() };
        let mut records = asked.bootstrap_records();
        let left_out = leave_out_unserved(&mut records);
        assert_eq!(left_out, ["share.version", "streams.version"]);
        let kept = FeatureLevels {
            others: [(ByteString::from_static("transaction.version"), 2)].into(),
            ..initial()
        };
        assert_eq!(records, kept.bootstrap_records());
        assert!(leave_out_unserved(&mut records).is_empty());
    }
}
