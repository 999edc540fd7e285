//! Which feature levels are finalized.

use super::*;
use crate::controller::testing::{Testbed, registration};

fn update(feature: &str, level: i16, upgrade_type: i8) -> FeatureUpdateKey {
    FeatureUpdateKey {
        feature: feature.into(),
        max_version_level: level,
        upgrade_type,
        ..Default::default()
    }
}

fn ask(testbed: &mut Testbed, feature_updates: Vec<FeatureUpdateKey>) -> UpdateFeaturesResponse {
    let request = UpdateFeaturesRequest { feature_updates, ..Default::default() };
    let outcome = testbed.controller.on_update_features(&request);
    testbed.apply(outcome)
}

fn new_cluster() -> Testbed {
    Testbed::new(&[("group.version", 1), ("transaction.version", 2)])
}

#[test]
fn levels_go_up_and_with_permission_down_to_nothing() {
    let mut testbed = new_cluster();
    let answer = ask(&mut testbed, vec![update("group.version", 0, 2)]);
    assert_eq!((answer.error_code, answer.error_message), (0, None));
    assert_eq!(answer.results[0].error_message.as_deref(), Some("NONE"));
    assert_eq!(testbed.controller.image().features.level("group.version"), 0);
    ask(&mut testbed, vec![update("group.version", 1, 1), update("transaction.version", 1, 3)]);
    let finalized: Vec<_> = testbed.controller.image().features.finalized().collect();
    assert_eq!(
        finalized,
        [("metadata.version", 30), ("group.version", 1), ("transaction.version", 1)]
    );
}

#[test]
fn refusals_have_kafkas_texts() {
    let mut testbed = new_cluster();
    for (update, text) in [
        (
            update("transaction.version", 1, 1),
            "Invalid update version 1 for feature transaction.version. Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe downgrade.",
        ),
        (
            update("transaction.version", 1, 9),
            "Invalid update version 1 for feature transaction.version. The controller does not support the given upgrade type.",
        ),
        (
            update("no.such", 1, 1),
            "Invalid update version 1 for feature no.such. Local controller 0 does not support this feature.",
        ),
        (
            update("no.such", 0, 2),
            "Invalid update version 0 for feature no.such. Feature no.such not found.",
        ),
        (
            update("metadata.version", 29, 2),
            "Unsupported metadata.version downgrade from 30 to 29. Refusing to perform the requested downgrade because it might delete metadata information.",
        ),
        (
            update("metadata.version", 29, 3),
            "Unsupported metadata.version downgrade from 30 to 29. Unsafe metadata downgrade is not supported in this version.",
        ),
        (
            update("metadata.version", 99, 1),
            "Invalid update version 99 for feature metadata.version. Local controller 0 only supports versions 7-30",
        ),
        (
            update("group.version", -1, 2),
            "Invalid update version -1 for feature group.version. A feature version cannot be less than 0.",
        ),
        (
            update("transaction.version", 9, 1),
            "Invalid update version 9 for feature transaction.version. Local controller 0 only supports versions 0-2",
        ),
        (
            update("kraft.version", 1, 1),
            "Invalid update version 1 for feature kraft.version. kraft.version can only be upgraded by the quorum's leader.",
        ),
    ] {
        let before = testbed.log.len();
        let answer = ask(&mut testbed, vec![update]);
        assert_eq!(answer.error_code, ErrorCode::InvalidUpdateVersion.code());
        let prefix =
            "The update failed for all features since the following feature had an error: ";
        assert_eq!(answer.error_message.as_deref(), Some(&*format!("{prefix}{text}")));
        assert_eq!((answer.results, testbed.log.len()), (Vec::new(), before));
    }
}

#[test]
fn one_refused_feature_keeps_all_others_as_they_are() {
    let mut testbed = new_cluster();
    ask(&mut testbed, vec![update("group.version", 0, 2), update("no.such", 1, 1)]);
    assert_eq!(testbed.controller.image().features.level("group.version"), 1);
}

#[test]
fn a_downgrade_does_not_go_up_and_the_same_level_is_fine() {
    let mut testbed = new_cluster();
    ask(&mut testbed, vec![update("transaction.version", 1, 2)]);
    let answer = ask(&mut testbed, vec![update("transaction.version", 2, 2)]);
    assert!(answer.error_message.unwrap().ends_with("Can't downgrade to a newer version."));
    assert_eq!(ask(&mut testbed, vec![update("transaction.version", 1, 2)]).error_code, 0);
    assert_eq!(ask(&mut testbed, vec![update("kraft.version", 0, 1)]).error_code, 0);
    assert_eq!(ask(&mut testbed, Vec::new()).error_code, 0);
}

#[test]
fn every_registered_broker_must_support_the_level() {
    let mut testbed = new_cluster();
    let mut old = registration(1);
    old.features.retain(|feature| feature.name != "eligible.leader.replicas.version");
    testbed.register(old);
    let elr = || vec![update("eligible.leader.replicas.version", 1, 1)];
    let answer = ask(&mut testbed, elr());
    assert!(answer.error_message.unwrap().ends_with("Broker 1 does not support this feature."));
    testbed.controller.settings.quorum_voters = vec![0, 5];
    let answer = ask(&mut testbed, vec![update("group.version", 1, 1)]);
    assert!(answer.error_message.unwrap().contains("controller 5 has not registered"));
}

#[test]
fn eligible_leaders_come_with_one_min_insync_replicas_for_all() {
    let mut testbed = new_cluster();
    testbed.add_broker(1);
    let broker_value = ConfigRecord {
        resource_type: ConfigResourceType::Broker.id(),
        resource_name: "1".into(),
        name: MIN_INSYNC_REPLICAS.into(),
        value: Some("2".into()),
    };
    testbed.apply(Outcome::spread(vec![MetadataRecord::Config(broker_value)], ()));
    let elr = update("eligible.leader.replicas.version", 1, 1);
    assert_eq!(ask(&mut testbed, vec![elr]).error_code, 0);
    let image = testbed.controller.image();
    assert!(image.features.is_elr_enabled());
    let value = |resource| image.configs.value(&resource, MIN_INSYNC_REPLICAS);
    assert_eq!(value(ConfigResource::all_brokers()), Some("1"));
    assert_eq!(value(ConfigResource::broker(1)), None);
}

#[test]
fn features_of_a_foreign_cluster_are_named() {
    let mut testbed = new_cluster();
    assert_eq!(testbed.controller.unsupported_features(), []);
    testbed.finalize("share.version", 1);
    assert_eq!(testbed.controller.unsupported_features(), [("share.version".into(), 1)]);
}
