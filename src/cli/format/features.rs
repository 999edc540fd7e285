//! The initial features of a new cluster: the defaults of its metadata version as far as brokers of this build support
//! them, overridden by `--feature`, with a check of their dependencies.
//!
//! Sources: `Formatter.calculateEffectiveFeatureLevels`, `Feature`, `MetadataVersion`.

use std::collections::BTreeMap;

use bytestring::ByteString;
use klamm_metadata::controller::activation::FeatureLevels;
use klamm_metadata::metadata_version::MetadataVersion;

use crate::cluster::features;

const KRAFT_VERSION: &str = "kraft.version";

/// One level of a feature.
#[derive(Debug)]
struct Level {
    level: i16,
    /// A new cluster at this metadata version or a later one starts with the level.
    default_from: i16,
    /// The level needs this metadata version at least.
    needs: i16,
}

/// The production features of Apache Kafka 4.3.1, sorted by name. Level 0 is the absence of one.
const FEATURES: &[(&str, &[Level])] = &[
    ("eligible.leader.replicas.version", &[Level { level: 1, default_from: 26, needs: 23 }]),
    ("group.version", &[Level { level: 1, default_from: 22, needs: 0 }]),
    (KRAFT_VERSION, &[Level { level: 1, default_from: 21, needs: 0 }]),
    ("share.version", &[Level { level: 1, default_from: 28, needs: 0 }]),
    ("streams.version", &[Level { level: 1, default_from: 29, needs: 0 }]),
    (
        "transaction.version",
        &[
            Level { level: 1, default_from: 24, needs: 0 },
            Level { level: 2, default_from: 24, needs: 0 },
        ],
    ),
];

/// Why a cluster cannot start with these features.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeatureError {
    #[error("'{0}' is no feature; write NAME=LEVEL, as in --feature kraft.version=1")]
    Malformed(String),
    #[error("Unsupported feature: {name}. Supported features are: {}", feature_names())]
    UnknownFeature { name: String },
    #[error("{name} has no level {level}; its levels are 0 to {highest}")]
    UnknownLevel { name: String, level: i16, highest: i16 },
    #[error(
        "metadata.version has no level {level}; its levels are {} to {}",
        MetadataVersion::MINIMUM.level(),
        MetadataVersion::LATEST.level()
    )]
    UnknownMetadataVersion { level: i16 },
    #[error(
        "Unknown metadata.version '{release}'. Supported metadata.version are: {}",
        metadata_versions()
    )]
    UnknownRelease { release: String },
    #[error("Use --release-version instead of --feature metadata.version=X to avoid ambiguity.")]
    TwoMetadataVersions,
    #[error(
        "{name} could not be set to {level} because it depends on metadata.version level {needs}"
    )]
    Dependency { name: String, level: i16, needs: i16 },
    #[error(
        "Cannot set kraft.version to 0 if controller.quorum.voters is empty and one of the flags --standalone, --initial-controllers, or --no-initial-controllers is used. For dynamic controllers support, try removing the --feature flag for kraft.version."
    )]
    DynamicQuorum,
    #[error(
        "Cannot set kraft.version to {0} unless controller.quorum.voters is empty and one of the flags --standalone, --initial-controllers, or --no-initial-controllers is used. For dynamic controllers support, try using one of --standalone, --initial-controllers, or --no-initial-controllers and removing controller.quorum.voters."
    )]
    StaticQuorum(i16),
}

fn feature_names() -> String {
    FEATURES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

fn all_metadata_versions() -> impl DoubleEndedIterator<Item = MetadataVersion> {
    let levels = MetadataVersion::MINIMUM.level()..=MetadataVersion::LATEST.level();
    levels.filter_map(MetadataVersion::from_level)
}

fn metadata_versions() -> String {
    all_metadata_versions().map(MetadataVersion::name).collect::<Vec<_>>().join(", ")
}

/// Parses `--feature name=level` flags. The last one of a name counts.
pub fn parse_levels(flags: &[String]) -> Result<BTreeMap<String, i16>, FeatureError> {
    flags
        .iter()
        .map(|flag| {
            let (name, level) =
                flag.split_once('=').ok_or_else(|| FeatureError::Malformed(flag.clone()))?;
            let level = level.trim().parse().map_err(|_| FeatureError::Malformed(flag.clone()))?;
            Ok((name.trim().to_owned(), level))
        })
        .collect()
}

/// The features that the flags request.
#[derive(Debug, Clone)]
pub struct FeatureRequest<'a> {
    /// By name, from flags.
    pub levels: BTreeMap<String, i16>,
    /// A Kafka release, as in `4.2`, or a metadata version, as in `4.2-IV1`.
    pub release: Option<&'a str>,
    /// The voters are in the metadata log and not in the configuration.
    pub has_dynamic_quorum: bool,
}

/// The initial features of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialFeatures {
    /// All but kraft.version, which is not in the metadata records.
    pub levels: FeatureLevels,
    pub kraft_version: i16,
}

impl InitialFeatures {
    /// The features with which brokers of this build cannot join a cluster. Only flags can set them.
    pub fn not_served(&self) -> impl Iterator<Item = (&str, i16)> {
        let levels = self.levels.others.iter().map(|(name, level)| (&**name, *level));
        levels.filter(|(name, level)| *level > 0 && !features::may_be_finalized(name))
    }
}

impl FeatureRequest<'_> {
    /// Adds the defaults and checks the dependencies of features.
    pub fn resolve(&self) -> Result<InitialFeatures, FeatureError> {
        let metadata_version = self.metadata_version()?;
        let is_known = |name: &str| {
            name == MetadataVersion::FEATURE_NAME
                || FEATURES.iter().any(|(known, _)| *known == name)
        };
        if let Some(name) = self.levels.keys().find(|name| !is_known(name)) {
            return Err(FeatureError::UnknownFeature { name: name.clone() });
        }
        let kraft_version = self.kraft_version()?;
        let mut others = BTreeMap::new();
        for &(name, levels) in FEATURES {
            let level = match self.levels.get(name) {
                _ if name == KRAFT_VERSION => kraft_version,
                Some(&level) => level,
                None if !features::may_be_finalized(name) => 0,
                None => default_level(levels, metadata_version),
            };
            check_level(name, levels, level, metadata_version)?;
            if name != KRAFT_VERSION {
                others.insert(ByteString::from_static(name), level);
            }
        }
        Ok(InitialFeatures { levels: FeatureLevels { metadata_version, others }, kraft_version })
    }

    fn metadata_version(&self) -> Result<MetadataVersion, FeatureError> {
        match (self.levels.get(MetadataVersion::FEATURE_NAME), self.release) {
            (Some(_), Some(_)) => Err(FeatureError::TwoMetadataVersions),
            (Some(&level), None) => MetadataVersion::from_level(level)
                .ok_or(FeatureError::UnknownMetadataVersion { level }),
            (None, Some(release)) => metadata_version_of_release(release)
                .ok_or_else(|| FeatureError::UnknownRelease { release: release.to_owned() }),
            (None, None) => Ok(MetadataVersion::LATEST),
        }
    }

    fn kraft_version(&self) -> Result<i16, FeatureError> {
        match self.levels.get(KRAFT_VERSION) {
            Some(0) if self.has_dynamic_quorum => Err(FeatureError::DynamicQuorum),
            Some(&level) if level != 0 && !self.has_dynamic_quorum => {
                Err(FeatureError::StaticQuorum(level))
            }
            Some(&level) => Ok(level),
            None => Ok(i16::from(self.has_dynamic_quorum)),
        }
    }
}

/// `4.2` and `4.2.1` are the last metadata version of that release; `4.2-IV0` is itself.
fn metadata_version_of_release(release: &str) -> Option<MetadataVersion> {
    let mut segments = release.split('.');
    let name = match (segments.next(), segments.next()) {
        (Some(major), Some(minor)) => format!("{major}.{minor}"),
        _ => release.to_owned(),
    };
    all_metadata_versions().rev().find(|version| {
        version.name() == name
            || version.name().split_once("-IV").is_some_and(|(release, _)| release == name)
    })
}

fn default_level(levels: &[Level], metadata_version: MetadataVersion) -> i16 {
    levels
        .iter()
        .rev()
        .find(|level| level.default_from <= metadata_version.level())
        .map_or(0, |level| level.level)
}

fn check_level(
    name: &str,
    levels: &[Level],
    level: i16,
    metadata_version: MetadataVersion,
) -> Result<(), FeatureError> {
    if level == 0 {
        return Ok(());
    }
    let Some(known) = levels.iter().find(|known| known.level == level) else {
        let highest = levels.last().map_or(0, |last| last.level);
        return Err(FeatureError::UnknownLevel { name: name.to_owned(), level, highest });
    };
    if metadata_version.level() < known.needs {
        return Err(FeatureError::Dependency { name: name.to_owned(), level, needs: known.needs });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(
        flags: &[&str],
        release: Option<&str>,
        has_dynamic_quorum: bool,
    ) -> Result<InitialFeatures, FeatureError> {
        let flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
        let levels = parse_levels(&flags)?;
        FeatureRequest { levels, release, has_dynamic_quorum }.resolve()
    }

    fn levels(flags: &[&str], release: Option<&str>) -> (i16, Vec<i16>) {
        let features = resolve(flags, release, true).unwrap();
        let others = features.levels.others.into_values().collect();
        (features.levels.metadata_version.level(), others)
    }

    #[test]
    fn the_defaults_are_those_of_kafkas_version_mapping_that_klamm_serves() {
        // In the order of eligible.leader.replicas, group, share, streams, transaction.
        assert_eq!(levels(&[], None), (30, vec![1, 1, 0, 0, 2]));
        assert_eq!(levels(&[], Some("4.3.1")), (30, vec![1, 1, 0, 0, 2]));
        assert_eq!(levels(&[], Some("4.1")), (27, vec![1, 1, 0, 0, 2]));
        assert_eq!(levels(&[], Some("4.2-IV0")), (28, vec![1, 1, 0, 0, 2]));
        assert_eq!(levels(&[], Some("3.9")), (21, vec![0, 0, 0, 0, 0]));
        assert_eq!(levels(&["metadata.version=22"], None), (22, vec![0, 1, 0, 0, 0]));
        assert_eq!(levels(&["transaction.version=1"], None).1, [1, 1, 0, 0, 1]);
    }

    #[test]
    fn flags_bring_in_what_klamm_does_not_serve() {
        assert_eq!(levels(&["share.version=1"], Some("4.3")), (30, vec![1, 1, 1, 0, 2]));
        let flags = ["share.version=1", "streams.version=0", "group.version=1"];
        let features = resolve(&flags, None, true).unwrap();
        assert_eq!(features.not_served().collect::<Vec<_>>(), [("share.version", 1)]);
        assert_eq!(resolve(&[], None, true).unwrap().not_served().count(), 0);
    }

    #[test]
    fn the_quorum_decides_kraft_version() {
        assert_eq!(resolve(&[], None, true).unwrap().kraft_version, 1);
        assert_eq!(resolve(&[], None, false).unwrap().kraft_version, 0);
        assert_eq!(resolve(&["kraft.version=0"], None, true), Err(FeatureError::DynamicQuorum));
        assert_eq!(resolve(&["kraft.version=1"], None, false), Err(FeatureError::StaticQuorum(1)));
    }

    #[test]
    fn what_does_not_exist_or_does_not_fit_is_refused() {
        let refusal = |flags: &[&str], release| resolve(flags, release, true).unwrap_err();
        assert_eq!(
            refusal(&["foo.version=1"], None).to_string(),
            "Unsupported feature: foo.version. Supported features are: eligible.leader.replicas.version, group.version, kraft.version, share.version, streams.version, transaction.version"
        );
        assert_eq!(
            refusal(&["eligible.leader.replicas.version=1"], Some("3.9")).to_string(),
            "eligible.leader.replicas.version could not be set to 1 because it depends on metadata.version level 23"
        );
        assert_eq!(
            refusal(&["transaction.version=9"], None).to_string(),
            "transaction.version has no level 9; its levels are 0 to 2"
        );
        assert_eq!(
            refusal(&["metadata.version=30"], Some("4.3")),
            FeatureError::TwoMetadataVersions
        );
        assert_eq!(
            refusal(&["metadata.version=99"], None),
            FeatureError::UnknownMetadataVersion { level: 99 }
        );
        assert!(refusal(&[], Some("9.9")).to_string().ends_with("4.2-IV1, 4.3-IV0"));
        assert!(matches!(refusal(&["group.version"], None), FeatureError::Malformed(_)));
        assert!(matches!(refusal(&["group.version=x"], None), FeatureError::Malformed(_)));
    }
}
