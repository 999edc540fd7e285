//! A controller with its log for the tests of decisions: outcomes are applied at once.

use bytestring::ByteString;
use klamm_protocol::Uuid;
use klamm_protocol::ids::{BrokerId, Offset};
use klamm_protocol::messages::broker_heartbeat_request::BrokerHeartbeatRequest;
use klamm_protocol::messages::broker_registration_request::{
    BrokerRegistrationRequest, Feature, Listener,
};
use klamm_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use klamm_protocol::messages::feature_level_record::FeatureLevelRecord;
use klamm_protocol::metadata_record::MetadataRecord;

use super::activation::FeatureLevels;
use super::create_topics::CreateTopicsAccess;
use super::outcome::Outcome;
use super::{Controller, ControllerSettings};
use crate::config_def::{BrokerConfigs, Configs};
use crate::image::brokers::VersionRange;
use crate::image::features::ELIGIBLE_LEADER_REPLICAS_VERSION;
use crate::image::partition::Partition;
use crate::loader::MetadataLoader;
use crate::metadata_version::MetadataVersion;
use crate::random::Random;

pub(crate) const CLUSTER_ID: &str = "3Db5QLSqSZieL3rJBUUegA";

/// A controller, its log and its random generator.
#[derive(Debug)]
pub(crate) struct Testbed {
    pub(crate) controller: Controller,
    pub(crate) random: Random,
    pub(crate) log: Vec<MetadataRecord>,
    pub(crate) now_ms: i64,
}

impl Testbed {
    /// A new cluster at metadata.version 30 without brokers.
    pub(crate) fn new(others: &[(&str, i16)]) -> Self {
        Self::with_configs(others, &[])
    }

    /// As [`Self::new`], with a static configuration.
    pub(crate) fn with_configs(others: &[(&str, i16)], configs: &[(&str, &str)]) -> Self {
        let others = others.iter().map(|(name, level)| (ByteString::from(*name), *level));
        let levels =
            FeatureLevels { metadata_version: MetadataVersion::LATEST, others: others.collect() };
        let configs: Configs =
            configs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let settings = ControllerSettings::single_node(
            0,
            CLUSTER_ID.into(),
            supported_features(),
            levels.bootstrap_records(),
            BrokerConfigs::new(configs).unwrap(),
        );
        let controller = Controller::new(settings, MetadataLoader::default());
        let random = Random::from_seed([3; 32]);
        let mut testbed = Self { controller, random, log: Vec::new(), now_ms: 1_000 };
        let activation = testbed.controller.on_elected(testbed.now_ms);
        testbed.apply(activation);
        testbed
    }

    /// As [`Self::new`], with eligible leader replicas and these brokers alive.
    pub(crate) fn with_brokers(ids: impl IntoIterator<Item = BrokerId>) -> Self {
        let mut testbed = Self::new(&[(ELIGIBLE_LEADER_REPLICAS_VERSION, 1)]);
        ids.into_iter().for_each(|id| testbed.add_broker(id));
        testbed
    }

    pub(crate) fn next_offset(&self) -> Offset {
        self.controller.loader().end_offset()
    }

    /// Appends and replays an outcome's records; returns its response.
    pub(crate) fn apply<R>(&mut self, outcome: Outcome<R>) -> R {
        for record in outcome.records {
            let offset = self.next_offset();
            self.controller.replay(&record, offset).unwrap();
            self.log.push(record);
        }
        outcome.response
    }

    /// Registers a broker and unfences it.
    pub(crate) fn add_broker(&mut self, id: BrokerId) {
        self.register(registration(id));
        self.heartbeat(id, |_| {});
    }

    pub(crate) fn register(&mut self, request: BrokerRegistrationRequest) {
        let next_offset = self.next_offset();
        let outcome =
            self.controller.on_broker_registration(&request, true, next_offset, self.now_ms);
        self.apply(outcome).unwrap();
    }

    /// Sends a heartbeat of a broker that has caught up; `change` modifies it.
    pub(crate) fn heartbeat(
        &mut self,
        id: BrokerId,
        change: impl FnOnce(&mut BrokerHeartbeatRequest),
    ) -> klamm_protocol::messages::broker_heartbeat_response::BrokerHeartbeatResponse {
        let mut request = BrokerHeartbeatRequest {
            broker_id: id,
            broker_epoch: self.controller.image().brokers.get(id).unwrap().epoch,
            current_metadata_offset: self.next_offset() - 1,
            ..Default::default()
        };
        change(&mut request);
        let outcome = self.controller.on_broker_heartbeat(&request, self.now_ms);
        self.apply(outcome)
    }

    pub(crate) fn fence(&mut self, id: BrokerId) {
        self.heartbeat(id, |heartbeat| heartbeat.want_fence = true);
    }

    /// Creates a topic with these replicas of each partition and these configurations.
    pub(crate) fn create(
        &mut self,
        name: &str,
        assignments: &[&[BrokerId]],
        configs: &[(&str, &str)],
    ) -> Uuid {
        let configs = configs.iter().map(|(key, value)| CreatableTopicConfig {
            name: (*key).into(),
            value: Some((*value).into()),
        });
        let assignments = (0..).zip(assignments).map(|(partition_index, ids)| {
            CreatableReplicaAssignment { partition_index, broker_ids: ids.to_vec() }
        });
        let topic = CreatableTopic {
            name: name.into(),
            num_partitions: -1,
            replication_factor: -1,
            assignments: assignments.collect(),
            configs: configs.collect(),
        };
        let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
        let outcome =
            self.controller.on_create_topics(&request, CreateTopicsAccess::ALL, &mut self.random);
        let result = self.apply(outcome).topics.remove(0);
        assert_eq!(result.error_code, 0, "{:?}", result.error_message);
        result.topic_id
    }

    pub(crate) fn partition(&self, topic: &str, index: i32) -> &Partition {
        let topic = self.controller.image().topics.by_name(topic).unwrap();
        topic.partition(index).unwrap()
    }

    /// Reports the directory of a broker's replica.
    pub(crate) fn assign_directory(
        &mut self,
        broker_id: BrokerId,
        topic_id: Uuid,
        partition_index: i32,
        directory: Uuid,
    ) -> klamm_protocol::messages::assign_replicas_to_dirs_response::AssignReplicasToDirsResponse
    {
        use klamm_protocol::messages::assign_replicas_to_dirs_request as request;
        let partitions = vec![request::PartitionData { partition_index }];
        let topics = vec![request::TopicData { topic_id, partitions }];
        let request = request::AssignReplicasToDirsRequest {
            broker_id,
            broker_epoch: self.controller.image().brokers.get(broker_id).unwrap().epoch,
            directories: vec![request::DirectoryData { id: directory, topics }],
        };
        let outcome = self.controller.on_assign_replicas_to_dirs(&request);
        self.apply(outcome)
    }

    /// Sets one value of a topic.
    pub(crate) fn set_config(&mut self, topic: &str, key: &str, value: &str) {
        let record = klamm_protocol::messages::config_record::ConfigRecord {
            resource_type: 2,
            resource_name: topic.into(),
            name: key.into(),
            value: Some(value.into()),
        };
        self.apply(Outcome::spread(vec![MetadataRecord::Config(record)], ()));
    }

    /// Finalizes a feature level without checks.
    pub(crate) fn finalize(&mut self, name: &str, feature_level: i16) {
        let record = FeatureLevelRecord { name: name.into(), feature_level };
        self.apply(Outcome::spread(vec![MetadataRecord::FeatureLevel(record)], ()));
    }
}

/// The supported features in these tests.
pub(crate) fn supported_features() -> std::collections::BTreeMap<ByteString, VersionRange> {
    [
        ("metadata.version", 7, 30),
        ("kraft.version", 0, 1),
        ("eligible.leader.replicas.version", 0, 1),
        ("group.version", 0, 1),
        ("transaction.version", 0, 2),
    ]
    .into_iter()
    .map(|(name, min, max)| (name.into(), VersionRange { min, max }))
    .collect()
}

/// A broker's registration with one directory and one listener.
pub(crate) fn registration(broker_id: BrokerId) -> BrokerRegistrationRequest {
    let id = u8::try_from(broker_id).unwrap();
    let features = supported_features().into_iter().map(|(name, range)| Feature {
        name,
        min_supported_version: range.min,
        max_supported_version: range.max,
    });
    BrokerRegistrationRequest {
        broker_id,
        cluster_id: CLUSTER_ID.into(),
        incarnation_id: uuid(100 + id),
        listeners: vec![Listener {
            name: "PLAINTEXT".into(),
            host: "localhost".into(),
            port: 9092,
            security_protocol: 0,
        }],
        features: features.collect(),
        log_dirs: vec![directory(broker_id)],
        ..Default::default()
    }
}

/// The log directory of a broker of [`registration`].
pub(crate) fn directory(broker_id: BrokerId) -> Uuid {
    uuid(u8::try_from(broker_id).unwrap())
}

/// An id that is not reserved.
pub(crate) fn uuid(last: u8) -> Uuid {
    Uuid::from_bytes([9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last])
}
