//! The effect of every record type on an image, and which records contradict it.

use klamm_protocol::Uuid;
use klamm_protocol::messages::access_control_entry_record::AccessControlEntryRecord;
use klamm_protocol::messages::broker_registration_change_record::BrokerRegistrationChangeRecord;
use klamm_protocol::messages::client_quota_record::{ClientQuotaRecord, EntityData};
use klamm_protocol::messages::config_record::ConfigRecord;
use klamm_protocol::messages::delegation_token_record::DelegationTokenRecord;
use klamm_protocol::messages::feature_level_record::FeatureLevelRecord;
use klamm_protocol::messages::fence_broker_record::FenceBrokerRecord;
use klamm_protocol::messages::partition_change_record::PartitionChangeRecord;
use klamm_protocol::messages::partition_record::PartitionRecord;
use klamm_protocol::messages::producer_ids_record::ProducerIdsRecord;
use klamm_protocol::messages::register_broker_record::{BrokerEndpoint, RegisterBrokerRecord};
use klamm_protocol::messages::remove_access_control_entry_record::RemoveAccessControlEntryRecord;
use klamm_protocol::messages::remove_delegation_token_record::RemoveDelegationTokenRecord;
use klamm_protocol::messages::remove_topic_record::RemoveTopicRecord;
use klamm_protocol::messages::remove_user_scram_credential_record::RemoveUserScramCredentialRecord;
use klamm_protocol::messages::topic_record::TopicRecord;
use klamm_protocol::messages::unfence_broker_record::UnfenceBrokerRecord;
use klamm_protocol::messages::unregister_broker_record::UnregisterBrokerRecord;
use klamm_protocol::messages::user_scram_credential_record::UserScramCredentialRecord;
use klamm_protocol::messages::zk_migration_state_record::ZkMigrationStateRecord;

use super::*;
use crate::directory_id;
use crate::image::scram::ScramMechanism;
use crate::snapshot;

fn id(byte: u8) -> Uuid {
    Uuid::from_bytes([byte; 16])
}

fn topic(name: &str, byte: u8) -> MetadataRecord {
    MetadataRecord::Topic(TopicRecord { name: name.into(), topic_id: id(byte) })
}

fn partition(topic: u8, partition_id: i32) -> PartitionRecord {
    PartitionRecord {
        topic_id: id(topic),
        partition_id,
        replicas: vec![1, 2],
        isr: vec![1, 2],
        leader: 1,
        leader_epoch: 3,
        partition_epoch: 5,
        directories: vec![id(50), id(51)],
        ..Default::default()
    }
}

fn broker(broker_id: i32, broker_epoch: i64) -> RegisterBrokerRecord {
    let endpoint = |name: &str, port| BrokerEndpoint {
        name: name.into(),
        host: "h".into(),
        port,
        security_protocol: 0,
    };
    RegisterBrokerRecord {
        broker_id,
        broker_epoch,
        end_points: vec![endpoint("INSIDE", 1), endpoint("OUTSIDE", 2)],
        fenced: false,
        rack: None,
        log_dirs: vec![id(49 + u8::try_from(broker_id).unwrap())],
        ..Default::default()
    }
}

fn image(records: impl IntoIterator<Item = MetadataRecord>) -> ClusterImage {
    let mut image = ClusterImage::default();
    records.into_iter().for_each(|record| image.replay(&record).unwrap());
    image
}

/// Replays a record that contradicts the image.
fn error(image: &ClusterImage, record: impl Into<MetadataRecord>) -> ReplayError {
    image.clone().replay(&record.into()).unwrap_err()
}

fn check_snapshot(image: &ClusterImage) {
    let mut restored = ClusterImage::default();
    for record in snapshot::records(image) {
        restored.replay(&record).unwrap();
    }
    assert_eq!(&restored, image);
}

#[test]
fn a_change_of_one_image_does_not_show_in_its_clone() {
    let mut first = image([topic("a", 1), partition(1, 0).into()]);
    let second = first.clone();
    let leader =
        PartitionChangeRecord { topic_id: id(1), partition_id: 0, leader: 2, ..Default::default() };
    first.replay(&leader.into()).unwrap();
    first.replay(&topic("b", 2)).unwrap();
    assert_eq!(second.topics.by_id(id(1)).unwrap().partition(0).unwrap().leader, Some(1));
    assert_eq!(second.topics.len(), 1);
    assert_eq!(first.topics.by_id(id(1)).unwrap().partition(0).unwrap().leader, Some(2));
}

#[test]
fn a_change_bumps_the_partition_epoch_and_only_a_named_leader_bumps_the_leader_epoch() {
    let before = image([topic("a", 1), partition(1, 0).into()]);
    let change = |set: &dyn Fn(&mut PartitionChangeRecord)| {
        let mut record =
            PartitionChangeRecord { topic_id: id(1), partition_id: 0, ..Default::default() };
        set(&mut record);
        let mut after = before.clone();
        after.replay(&record.into()).unwrap();
        after.topics.by_name("a").unwrap().partition(0).unwrap().clone()
    };
    let shrunk = change(&|record| record.isr = Some(vec![1]));
    assert_eq!((shrunk.partition_epoch, shrunk.leader_epoch, &*shrunk.isr), (6, 3, &[1][..]));
    let same_leader = change(&|record| record.leader = 1);
    assert_eq!((same_leader.partition_epoch, same_leader.leader_epoch), (6, 4));
    let recovering = change(&|record| record.leader_recovery_state = 1);
    let state = recovering.leader_recovery_state;
    assert_eq!(state, partition::LeaderRecoveryState::Recovering);
}

#[test]
fn partitions_from_before_directories_had_ids_are_migrating() {
    let old = PartitionRecord { directories: Vec::new(), ..partition(1, 0) };
    let image = image([topic("a", 1), old.into()]);
    let partition = image.topics.by_name("a").unwrap().partition(0).unwrap();
    assert_eq!(partition.directories, [directory_id::MIGRATING; 2]);
    assert_eq!(partition.directory(2), Some(directory_id::MIGRATING));
    assert_eq!(partition.directory(9), None);
}

#[test]
fn topic_records_that_do_not_fit_are_errors() {
    let image = image([topic("a", 1), partition(1, 0).into()]);
    let change = PartitionChangeRecord { topic_id: id(1), partition_id: 7, ..Default::default() };
    assert!(matches!(error(&image, change.clone()), ReplayError::UnknownPartition { .. }));
    let elsewhere = PartitionChangeRecord { topic_id: id(9), ..change };
    assert_eq!(error(&image, elsewhere), ReplayError::UnknownTopicId { id: id(9) });
    assert!(matches!(error(&image, topic("a", 2)), ReplayError::DuplicateTopic { .. }));
    assert!(matches!(error(&image, topic("b", 1)), ReplayError::DuplicateTopicId { .. }));
    assert_eq!(error(&image, partition(9, 0)), ReplayError::UnknownTopicId { id: id(9) });
    let one_directory = PartitionRecord { directories: vec![id(50)], ..partition(1, 1) };
    assert!(matches!(
        error(&image, one_directory),
        ReplayError::DirectoriesMismatch { replicas: 2, directories: 1, .. }
    ));
    let strange = PartitionRecord { leader_recovery_state: 5, ..partition(1, 1) };
    assert!(matches!(
        error(&image, strange),
        ReplayError::UnknownLeaderRecoveryState { state: 5, .. }
    ));
    let gone = RemoveTopicRecord { topic_id: id(9) };
    assert_eq!(error(&image, gone), ReplayError::UnknownTopicId { id: id(9) });
    let clear =
        klamm_protocol::messages::clear_elr_record::ClearElrRecord { topic_name: "b".into() };
    assert_eq!(error(&image, clear), ReplayError::UnknownTopic { name: "b".into() });
}

#[test]
fn a_removed_topic_takes_its_configuration_along() {
    let config = ConfigRecord {
        resource_type: 2,
        resource_name: "a".into(),
        name: "retention.ms".into(),
        value: Some("1".into()),
    };
    let mut image = image([topic("a", 1), config.clone().into()]);
    assert_eq!(image.configs.of_topic("a").len(), 1);
    image.replay(&RemoveTopicRecord { topic_id: id(1) }.into()).unwrap();
    assert_eq!(image, ClusterImage::default());
    let strange = ConfigRecord { resource_type: 3, ..config };
    assert!(matches!(
        error(&image, strange),
        ReplayError::UnknownConfigResourceType { type_: 3, .. }
    ));
}

#[test]
fn brokers_are_fenced_unfenced_changed_and_forgotten_at_their_epoch() {
    let mut image = image([broker(1, 10).into()]);
    let fence = FenceBrokerRecord { id: 1, epoch: 10 };
    image.replay(&fence.clone().into()).unwrap();
    assert!(!image.brokers.is_alive(1));
    image.replay(&UnfenceBrokerRecord { id: 1, epoch: 10 }.into()).unwrap();
    assert!(image.brokers.is_active(1));
    let change = BrokerRegistrationChangeRecord {
        broker_id: 1,
        broker_epoch: 10,
        in_controlled_shutdown: 1,
        log_dirs: vec![id(70)],
        cordoned_log_dirs: Some(vec![id(70)]),
        ..Default::default()
    };
    image.replay(&change.clone().into()).unwrap();
    let changed = image.brokers.get(1).unwrap();
    assert!(changed.in_controlled_shutdown && !changed.is_active());
    assert!(!changed.has_uncordoned_dirs());
    assert!(!changed.has_online_dir(id(50)) && changed.has_online_dir(id(70)));
    check_snapshot(&{
        let mut with_version = image.clone();
        let name = "metadata.version".into();
        let level = FeatureLevelRecord { name, feature_level: 30 };
        with_version.replay(&level.into()).unwrap();
        with_version
    });
    let stale = FenceBrokerRecord { epoch: 9, ..fence };
    let mismatch = ReplayError::BrokerEpochMismatch { broker: 1, current: 10, replayed: 9 };
    assert_eq!(error(&image, stale), mismatch);
    let unknown = UnregisterBrokerRecord { broker_id: 2, broker_epoch: 1 };
    assert_eq!(error(&image, unknown), ReplayError::UnknownBroker { broker: 2 });
    for (fenced, shutdown) in [(2, 0), (0, -1)] {
        let strange = BrokerRegistrationChangeRecord {
            fenced,
            in_controlled_shutdown: shutdown,
            ..change.clone()
        };
        assert!(matches!(
            error(&image, strange),
            ReplayError::InvalidRegistrationChange { broker: 1, .. }
        ));
    }
    image.replay(&UnregisterBrokerRecord { broker_id: 1, broker_epoch: 10 }.into()).unwrap();
    assert!(image.brokers.is_empty());
    let mut strange = broker(1, 11);
    strange.end_points[0].security_protocol = 8;
    assert!(matches!(error(&image, strange), ReplayError::UnknownSecurityProtocol { id: 8, .. }));
}

#[test]
fn features_at_level_0_are_absent_and_kraft_version_never_shows() {
    let level = |name: &str, feature_level| -> MetadataRecord {
        FeatureLevelRecord { name: name.into(), feature_level }.into()
    };
    let mut image = image([
        level("group.version", 1),
        level("metadata.version", 25),
        level("kraft.version", 1),
        level("a.version", 2),
    ]);
    let finalized = |image: &ClusterImage| {
        let finalized = image.features.finalized();
        finalized.map(|(name, level)| (name.to_owned(), level)).collect::<Vec<_>>()
    };
    let expected = [("metadata.version", 25), ("a.version", 2), ("group.version", 1)]
        .map(|(n, l)| (n.to_owned(), l));
    assert_eq!(finalized(&image), expected);
    image.replay(&level("a.version", 0)).unwrap();
    assert_eq!((image.features.level("a.version"), finalized(&image).len()), (0, 2));
    let newer = error(&image, level("metadata.version", 31));
    assert_eq!(newer, ReplayError::UnsupportedMetadataVersion { level: 31 });
}

#[test]
fn producer_ids_only_grow() {
    let next = |next_producer_id| -> MetadataRecord {
        ProducerIdsRecord { next_producer_id, ..Default::default() }.into()
    };
    let image = image([next(1_000), next(2_000)]);
    let back = ReplayError::ProducerIdsGoBack { current: 2_000, replayed: 2_000 };
    assert_eq!(error(&image, next(2_000)), back);
}

#[test]
fn quotas_credentials_tokens_and_acls_come_and_go() {
    let entity = vec![EntityData { entity_type: "user".into(), entity_name: None }];
    let quota =
        ClientQuotaRecord { entity, key: "producer_byte_rate".into(), value: 5.0, remove: false };
    let credential =
        UserScramCredentialRecord { name: "u".into(), mechanism: 1, ..Default::default() };
    let token = DelegationTokenRecord { token_id: "k".into(), ..Default::default() };
    let acl = AccessControlEntryRecord { id: id(3), ..Default::default() };
    let version = FeatureLevelRecord { name: "metadata.version".into(), feature_level: 30 };
    let mut image = image([
        version.into(),
        quota.clone().into(),
        credential.clone().into(),
        token.into(),
        acl.clone().into(),
        ZkMigrationStateRecord::default().into(),
    ]);
    check_snapshot(&image);
    assert!(image.scram.get(ScramMechanism::Sha256, &"u".into()).is_some());
    assert!(!format!("{image:?}").contains("stored_key"), "secrets are not printed");
    assert_eq!(error(&image, acl), ReplayError::DuplicateAcl { id: id(3) });
    let strange = UserScramCredentialRecord { mechanism: 3, ..credential };
    assert!(matches!(error(&image, strange), ReplayError::UnknownScramMechanism { .. }));
    let removals: [MetadataRecord; 4] = [
        ClientQuotaRecord { remove: true, ..quota }.into(),
        RemoveUserScramCredentialRecord { name: "u".into(), mechanism: 1 }.into(),
        RemoveDelegationTokenRecord { token_id: "k".into() }.into(),
        RemoveAccessControlEntryRecord { id: id(3) }.into(),
    ];
    for removal in &removals {
        image.replay(removal).unwrap();
    }
    let only_version = FeatureLevelRecord { name: "metadata.version".into(), feature_level: 30 };
    assert_eq!(image, self::image([only_version.into()]));
    assert!(matches!(
        error(&image, removals[1].clone()),
        ReplayError::UnknownScramCredential { mechanism: 1, .. }
    ));
    assert_eq!(error(&image, removals[3].clone()), ReplayError::UnknownAcl { id: id(3) });
    image.replay(&removals[2]).unwrap();
}

#[test]
fn clients_see_leaders_and_offline_replicas_of_their_own_listener() {
    let fenced = RegisterBrokerRecord { fenced: true, ..broker(2, 11) };
    let mut inside_only = broker(3, 12);
    inside_only.end_points.truncate(1);
    let on_inside_only = PartitionRecord {
        replicas: vec![3],
        isr: vec![3],
        leader: 3,
        directories: vec![id(52)],
        ..partition(1, 1)
    };
    let leaderless = PartitionRecord { leader: -1, ..partition(1, 2) };
    let lost = PartitionRecord { directories: vec![id(99), id(51)], ..partition(1, 3) };
    let image = image([
        topic("a", 1),
        partition(1, 0).into(),
        on_inside_only.into(),
        leaderless.into(),
        lost.into(),
        broker(1, 10).into(),
        fenced.into(),
        inside_only.into(),
    ]);
    let topic = image.topics.by_name("a").unwrap();
    let views: Vec<_> = image
        .views(topic, "OUTSIDE")
        .map(|view| (view.leader, view.error, view.offline_replicas))
        .collect();
    assert_eq!(
        views,
        [
            (Some(1), klamm_protocol::ErrorCode::None, vec![2]),
            (None, klamm_protocol::ErrorCode::ListenerNotFound, vec![3]),
            (None, klamm_protocol::ErrorCode::LeaderNotAvailable, vec![2]),
            (Some(1), klamm_protocol::ErrorCode::None, vec![1, 2]),
        ]
    );
    let alive: Vec<_> = image.brokers.alive_on("INSIDE").map(|(broker, _)| broker.id).collect();
    assert_eq!(alive, [1, 3]);
    let alive: Vec<_> = image.brokers.alive_on("OUTSIDE").map(|(_, e)| e.port).collect();
    assert_eq!(alive, [2]);
}

#[test]
fn pages_of_partitions_follow_one_another() {
    let records = [topic("a", 1), topic("b", 2)]
        .into_iter()
        .chain((0..3).map(|index| partition(1, index).into()))
        .chain((0..2).map(|index| partition(2, index).into()));
    let image = image(records);
    let page = |names: &[&'static str], first, limit| {
        let names = names.iter().map(|name| (*name).into());
        let page = image.page(names, first, limit, "OUTSIDE");
        let topics = page.topics.into_iter().map(|(name, topic)| {
            let partitions = topic.map(|topic| topic.partitions.iter().map(|p| p.index).collect());
            (name.to_string(), partitions)
        });
        let next = page.next.map(|cursor| (cursor.topic.to_string(), cursor.partition));
        (topics.collect::<Vec<(String, Option<Vec<i32>>)>>(), next)
    };
    let a = |partitions: &[i32]| ("a".to_owned(), Some(partitions.to_vec()));
    let b = |partitions: &[i32]| ("b".to_owned(), Some(partitions.to_vec()));
    let next = |name: &str, partition| Some((name.to_owned(), partition));
    assert_eq!(page(&["a", "b"], 0, 2), (vec![a(&[0, 1])], next("a", 2)));
    assert_eq!(page(&["a", "b"], 2, 2), (vec![a(&[2]), b(&[0])], next("b", 1)));
    assert_eq!(page(&["b"], 1, 2), (vec![b(&[1])], None));
    assert_eq!(page(&["a", "b"], 0, 3), (vec![a(&[0, 1, 2])], next("b", 0)));
    assert_eq!(page(&["a"], 9, 5), (vec![a(&[])], None), "a cursor beyond the end");
    let unknown = ("no".to_owned(), None);
    assert_eq!(page(&["a", "no"], 0, 9), (vec![a(&[0, 1, 2]), unknown], None));
    let names: Vec<_> = image.topics.from_name("aa").map(|topic| &*topic.name).collect();
    assert_eq!(names, ["b"]);
}

#[test]
fn a_delta_names_what_a_publisher_acts_on() {
    use crate::delta::ImageDelta;
    let before = image([
        topic("gone", 1),
        partition(1, 0).into(),
        topic("stays", 2),
        partition(2, 0).into(),
        partition(2, 1).into(),
        broker(1, 10).into(),
    ]);
    let mut after = before.clone();
    assert!(ImageDelta::between(&before, &after).is_empty());
    let moved = PartitionChangeRecord {
        topic_id: id(2),
        partition_id: 1,
        replicas: Some(vec![2, 3]),
        directories: Some(vec![id(51), id(52)]),
        isr: Some(vec![2]),
        leader: 2,
        ..Default::default()
    };
    let config = ConfigRecord {
        resource_type: 2,
        resource_name: "stays".into(),
        name: "retention.ms".into(),
        value: Some("1".into()),
    };
    for record in [
        RemoveTopicRecord { topic_id: id(1) }.into(),
        topic("gone", 5),
        partition(5, 0).into(),
        moved.into(),
        config.into(),
        FenceBrokerRecord { id: 1, epoch: 10 }.into(),
    ] {
        after.replay(&record).unwrap();
    }
    let delta = ImageDelta::between(&before, &after);
    assert_eq!(delta.deleted_topic_ids(), [id(1)].into());
    assert_eq!(delta.created_topics.iter().map(|topic| topic.id).collect::<Vec<_>>(), [id(5)]);
    let changed: Vec<_> = delta
        .changed_partitions
        .iter()
        .map(|p| (p.topic.id, p.index, p.before.is_some()))
        .collect();
    assert_eq!(changed, [(id(2), 1, true), (id(5), 0, false)]);
    let moved = &delta.changed_partitions[0];
    assert!(moved.is_removed_from(1) && !moved.is_removed_from(2) && moved.is_replica(3));
    assert!(moved.is_newly_led_by(2) && !moved.is_newly_led_by(3));
    assert_eq!(delta.changed_configs, [configs::ConfigResource::topic("stays")].into());
    assert_eq!(delta.changed_brokers, [1].into());
    assert!(!delta.features_changed && !delta.is_empty());
}
