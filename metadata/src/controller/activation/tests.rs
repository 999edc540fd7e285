//! The first records of a cluster, byte for byte as Apache Kafka 4.3.1 wrote them after
//! `kafka-storage.sh format`, and the registrations that follow.

use bytes::Bytes;
use klamm_protocol::ids::Offset;
use klamm_protocol::messages::broker_registration_request::{
    BrokerRegistrationRequest, Feature, Listener,
};
use klamm_protocol::messages::controller_registration_request as controller_request;
use klamm_protocol::messages::topic_record::TopicRecord;

use super::*;
use crate::controller::testing::{Testbed, registration, uuid};
use crate::image::ClusterImage;
use crate::loader::MetadataLoader;

/// The first records of Kafka's metadata log, from offset 1 on, without NoOpRecords.
const REFERENCE: [(Offset, &str); 13] = [
    (1, "01170001001212426f6f747374726170207265636f726473"),
    (2, "010c00116d657461646174612e76657273696f6e001e00"),
    (3, "010c0021656c696769626c652e6c65616465722e7265706c696361732e76657273696f6e000100"),
    (4, "010c000e67726f75702e76657273696f6e000100"),
    (5, "010c000e73686172652e76657273696f6e000100"),
    (6, "010c001073747265616d732e76657273696f6e000100"),
    (7, "010c00147472616e73616374696f6e2e76657273696f6e000200"),
    (8, "0104000401146d696e2e696e73796e632e7265706c69636173023100"),
    (9, "01180000"),
    (
        10,
        "011b0000000001203374a778fb4e08b8bdee66fee3b67d00020b434f4e54524f4c4c45520a6c6f63616c686f7374c0f1000000080e67726f75702e76657273696f6e00000001000e6b726166742e76657273696f6e0000000100116d657461646174612e76657273696f6e0007001e000e73686172652e76657273696f6e00000001001073747265616d732e76657273696f6e0000000100147472616e73616374696f6e2e76657273696f6e000000020021656c696769626c652e6c65616465722e7265706c696361732e76657273696f6e000000010000",
    ),
    (
        11,
        "0100040000000100daa51c9585b44950b2d1d02077d607cd000000000000000b020a504c41494e544558540a6c6f63616c686f7374c0f000000008116d657461646174612e76657273696f6e0007001e000e73686172652e76657273696f6e00000001000e6b726166742e76657273696f6e00000001000e67726f75702e76657273696f6e00000001001073747265616d732e76657273696f6e0000000100147472616e73616374696f6e2e76657273696f6e000000020021656c696769626c652e6c65616465722e7265706c696361732e76657273696f6e000000010000010001001102f447f3a32a39cc90314575bd2a0df10d",
    ),
    (13, "01110000000001000000000000000b010001ff"),
    (14, "01110300000001000000000000000b01030101"),
];

fn bytes(hex: &str) -> Bytes {
    let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn reference(offset: Offset) -> MetadataRecord {
    let (_, hex) = REFERENCE.iter().find(|(at, _)| *at == offset).unwrap();
    MetadataRecord::from_frame(bytes(hex)).unwrap()
}

/// A cluster with Kafka's default features, as in the reference.
fn kafkas_features() -> Testbed {
    let others = [
        ("eligible.leader.replicas.version", 1),
        ("group.version", 1),
        ("share.version", 1),
        ("streams.version", 1),
        ("transaction.version", 2),
    ];
    Testbed::new(&others)
}

#[test]
fn a_new_cluster_begins_with_the_records_of_apache_kafka() {
    let testbed = kafkas_features();
    let frames = testbed
        .log
        .iter()
        .map(|record| record.to_frame(MetadataVersion::LATEST.record_version(record)).unwrap());
    let expected = REFERENCE.iter().filter(|(offset, _)| *offset <= 9).map(|(_, hex)| bytes(hex));
    assert_eq!(frames.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    let image = testbed.controller.image();
    assert_eq!(image.metadata_version(), MetadataVersion::LATEST);
    assert!(image.features.is_elr_enabled());
    assert_eq!(image.configs.value(&ConfigResource::all_brokers(), MIN_INSYNC_REPLICAS), Some("1"));
}

#[test]
fn registrations_are_the_records_of_apache_kafka() {
    let mut testbed = kafkas_features();
    testbed.controller.settings.cluster_id = "c".into();
    let MetadataRecord::RegisterController(reference_controller) = reference(10) else {
        panic!("offset 10 registers the controller")
    };
    let endpoint = &reference_controller.end_points[0];
    let features = reference_controller.features.iter();
    let request = controller_request::ControllerRegistrationRequest {
        controller_id: 1,
        incarnation_id: reference_controller.incarnation_id,
        listeners: vec![controller_request::Listener {
            name: endpoint.name.clone(),
            host: endpoint.host.clone(),
            port: endpoint.port,
            security_protocol: endpoint.security_protocol,
        }],
        features: features
            .map(|feature| controller_request::Feature {
                name: feature.name.clone(),
                min_supported_version: feature.min_supported_version,
                max_supported_version: feature.max_supported_version,
            })
            .collect(),
        ..Default::default()
    };
    let outcome = testbed.controller.on_controller_registration(&request);
    assert_eq!(outcome.records, [reference(10)]);
    assert_eq!(testbed.apply(outcome).error_code, 0);

    let MetadataRecord::RegisterBroker(reference_broker) = reference(11) else {
        panic!("offset 11 registers the broker")
    };
    let endpoint = &reference_broker.end_points[0];
    let features = reference_broker.features.iter();
    let request = BrokerRegistrationRequest {
        broker_id: 1,
        cluster_id: "c".into(),
        incarnation_id: reference_broker.incarnation_id,
        listeners: vec![Listener {
            name: endpoint.name.clone(),
            host: endpoint.host.clone(),
            port: endpoint.port,
            security_protocol: endpoint.security_protocol,
        }],
        features: features
            .map(|feature| Feature {
                name: feature.name.clone(),
                min_supported_version: feature.min_supported_version,
                max_supported_version: feature.max_supported_version,
            })
            .collect(),
        rack: None,
        log_dirs: reference_broker.log_dirs,
        ..Default::default()
    };
    let now_ms = testbed.now_ms;
    let outcome = testbed.controller.on_broker_registration(&request, true, 11, now_ms);
    assert_eq!(outcome.records, [reference(11)]);
    testbed.apply(outcome).unwrap();
    let before = testbed.log.len();
    let answer = testbed.heartbeat(1, |heartbeat| heartbeat.cordoned_log_dirs = Some(Vec::new()));
    assert!(!answer.is_fenced);
    assert_eq!(testbed.log[before..], [reference(13), reference(14)]);
}

#[test]
fn records_of_apache_kafka_have_the_version_that_kafka_wrote() {
    for (offset, hex) in REFERENCE {
        let record = reference(offset);
        let version = MetadataVersion::LATEST.record_version(&record);
        assert_eq!(record.to_frame(version).unwrap(), bytes(hex), "offset {offset}");
    }
}

#[test]
fn a_cluster_that_has_its_features_gets_nothing_more() {
    let mut testbed = Testbed::new(&[("group.version", 1)]);
    let before = testbed.log.len();
    testbed.controller.on_resigned();
    assert!(!testbed.controller.is_active());
    let outcome = testbed.controller.on_elected(5_000);
    testbed.apply(outcome);
    assert!(testbed.controller.is_active());
    assert_eq!(testbed.log.len(), before);
}

#[test]
fn without_eligible_leaders_no_min_insync_replicas_is_written() {
    let testbed = Testbed::new(&[("group.version", 1), ("transaction.version", 0)]);
    let kinds: Vec<i16> = testbed.log.iter().map(MetadataRecord::api_key).collect();
    assert_eq!(kinds, [23, 12, 12, 24], "a level of 0 is no record either");
}

#[test]
fn a_half_written_bootstrap_is_aborted_and_written_again() {
    let whole = kafkas_features();
    let mut loader = MetadataLoader::default();
    for (offset, record) in (0..).zip(&whole.log[..3]) {
        loader.replay(record, offset).unwrap();
    }
    assert_eq!(loader.stable(), &ClusterImage::default());
    assert_eq!(loader.transaction_start_offset(), Some(0));
    let mut controller = Controller::new(whole.controller.settings.clone(), loader);
    let outcome = controller.on_elected(1_000);
    let kinds: Vec<i16> = outcome.records.iter().map(MetadataRecord::api_key).collect();
    assert_eq!(kinds, [25, 23, 12, 12, 12, 12, 12, 12, 4, 24]);
    for (offset, record) in (3..).zip(&outcome.records) {
        controller.replay(record, offset).unwrap();
    }
    assert_eq!(controller.image(), whole.controller.image());
    assert_eq!(controller.loader().stable(), whole.controller.image());
}

#[test]
fn a_transaction_that_the_last_controller_left_open_is_aborted() {
    let mut testbed = Testbed::new(&[]);
    let before = testbed.controller.image().clone();
    let begin = MetadataRecord::BeginTransaction(BeginTransactionRecord::default());
    let topic = TopicRecord { name: "t".into(), topic_id: uuid(1) };
    testbed.apply(Outcome::spread(vec![begin, MetadataRecord::Topic(topic)], ()));
    assert_eq!(testbed.controller.loader().stable(), &before);
    assert_ne!(testbed.controller.image(), &before);
    let outcome = testbed.controller.on_elected(2_000);
    testbed.apply(outcome);
    assert_eq!(testbed.controller.image(), &before);
}

#[test]
fn an_old_cluster_bootstraps_in_one_atomic_batch() {
    let levels = FeatureLevels {
        metadata_version: MetadataVersion::from_level(12).unwrap(),
        others: [(ByteString::from("group.version"), 1)].into(),
    };
    let mut settings = kafkas_features().controller.settings.clone();
    settings.bootstrap_records = levels.bootstrap_records();
    let mut controller = Controller::new(settings, MetadataLoader::default());
    let outcome = controller.on_elected(1_000);
    assert!(outcome.atomic);
    assert_eq!(outcome.records, levels.bootstrap_records());
}

#[test]
fn live_brokers_have_a_session_after_a_failover() {
    let mut testbed = Testbed::with_brokers([1]);
    testbed.controller.on_resigned();
    let outcome = testbed.controller.on_elected(50_000);
    testbed.apply(outcome);
    let epoch = testbed.controller.image().brokers.get(1).unwrap().epoch;
    assert!(testbed.controller.heartbeats().has_valid_session(1, epoch, 58_999));
    assert!(!testbed.controller.heartbeats().has_valid_session(1, epoch, 59_000));
}

#[test]
fn a_controllers_own_broker_that_is_never_heard_from_is_fenced_and_never_in_the_way_of_the_next() {
    let mut testbed = Testbed::with_brokers([1]);
    let own = testbed.controller.settings.node_id;
    testbed.add_broker(own);
    testbed.controller.on_resigned();
    let outcome = testbed.controller.on_elected(50_000);
    testbed.apply(outcome);
    let epoch = testbed.controller.image().brokers.get(own).unwrap().epoch;
    let heartbeats = testbed.controller.heartbeats();
    assert_eq!(heartbeats.first_expired(58_999, |_| true), None);
    assert!(heartbeats.next_expiry_ms(|id| id == own) == Some(59_000));
    let next = BrokerRegistrationRequest {
        incarnation_id: uuid(99),
        log_dirs: vec![uuid(98)],
        ..registration(own)
    };
    let next_offset = testbed.next_offset();
    let outcome = testbed.controller.on_broker_registration(&next, true, next_offset, 50_000);
    assert!(outcome.response.unwrap().broker_epoch > epoch, "its next process registers at once");
}

#[test]
fn uncommitted_records_are_forgotten_with_the_leadership() {
    let mut testbed = Testbed::with_brokers([1]);
    let committed = testbed.controller.loader().clone();
    testbed.create("t", &[&[1]], &[]);
    testbed.controller.on_resigned();
    testbed.controller.reset(committed.clone());
    assert!(testbed.controller.image().topics.is_empty());
    assert_eq!(testbed.controller.loader(), &committed);
}
