//! CreateTopics (API 19): ControllerApis.createTopics and ReplicationControlManager.createTopics.
//!
//! Topics succeed or fail individually, but those that succeed become visible together.

mod error;

use std::collections::{BTreeMap, BTreeSet};

use bytestring::ByteString;
use klamm_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use klamm_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult, CreateTopicsResponse,
};
use klamm_protocol::messages::topic_record::TopicRecord;
use klamm_protocol::metadata_record::MetadataRecord;
use klamm_protocol::{ErrorCode, Uuid};

pub use self::error::CreateTopicError;
use super::outcome::Outcome;
use super::placement::place;
use super::{Controller, MAX_RECORDS_PER_USER_OP};
use crate::config_def::Configs;
use crate::config_def::alter::AlterOperation;
use crate::config_def::describe::created_topic_configs;
use crate::image::configs::ConfigResource;
use crate::image::partition::Partition;
use crate::random::Random;
use crate::topic_name;

/// The maximum number of partitions that one request may create.
pub const MAX_PARTITIONS_PER_REQUEST: i64 = 10_000;

/// The client's permissions on topics, by name.
#[derive(Clone, Copy)]
pub struct CreateTopicsAccess<'a> {
    /// CREATE on the cluster or the topic.
    pub may_create: &'a dyn Fn(&str) -> bool,
    /// DESCRIBE_CONFIGS on the topic.
    pub may_describe_configs: &'a dyn Fn(&str) -> bool,
}

impl std::fmt::Debug for CreateTopicsAccess<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreateTopicsAccess").finish_non_exhaustive()
    }
}

impl CreateTopicsAccess<'_> {
    /// Everything is allowed: without an authorizer, and for the brokers themselves.
    pub const ALL: Self = Self { may_create: &|_| true, may_describe_configs: &|_| true };
}

/// A topic that can be created.
struct NewTopic {
    result: CreatableTopicResult,
    records: Vec<MetadataRecord>,
}

impl Controller {
    /// Creates topics.
    pub fn on_create_topics(
        &self,
        request: &CreateTopicsRequest,
        access: CreateTopicsAccess<'_>,
        random: &mut Random,
    ) -> Outcome<CreateTopicsResponse> {
        let repeated = repeated_names(request);
        let prohibited = |topic: &CreatableTopic| {
            if repeated.contains(&topic.name) {
                Some(CreateTopicError::DuplicateInRequest)
            } else if topic.name == topic_name::CLUSTER_METADATA_TOPIC {
                Some(CreateTopicError::ClusterMetadata)
            } else if !(access.may_create)(&topic.name) {
                Some(CreateTopicError::NotAuthorized)
            } else {
                None
            }
        };
        let (refused, allowed): (Vec<_>, Vec<_>) =
            request.topics.iter().partition(|topic| prohibited(topic).is_some());
        if self.partitions_asked_for(&allowed) > MAX_PARTITIONS_PER_REQUEST {
            return refuse_all(request, &CreateTopicError::TooManyPartitions);
        }
        let (mut records, mut results) = (Vec::new(), Vec::new());
        for topic in allowed {
            match self.create_topic(topic, access, random) {
                Ok(mut new) => {
                    records.append(&mut new.records);
                    results.push(new.result);
                }
                Err(error) => results.push(failed(&topic.name, &error)),
            }
        }
        if records.len() > MAX_RECORDS_PER_USER_OP {
            return refuse_all(request, &CreateTopicError::TooManyRecords);
        }
        let mut answered = BTreeSet::new();
        for topic in refused {
            let error = prohibited(topic).expect("the topic was refused for a reason");
            if answered.insert(&topic.name) {
                results.push(failed(&topic.name, &error));
            }
        }
        let outcome = Outcome::atomic(
            records,
            CreateTopicsResponse { topics: results, ..Default::default() },
        );
        if request.validate_only { outcome.without_records() } else { outcome }
    }

    fn partitions_asked_for(&self, topics: &[&CreatableTopic]) -> i64 {
        let of = |topic: &&CreatableTopic| match (topic.assignments.len(), topic.num_partitions) {
            (0, -1) => i64::from(self.broker_configs.int("num.partitions")),
            (0, count) => i64::from(count.max(0)),
            (assigned, _) => i64::try_from(assigned).unwrap_or(i64::MAX),
        };
        topics.iter().map(of).fold(0, i64::saturating_add)
    }

    fn create_topic(
        &self,
        topic: &CreatableTopic,
        access: CreateTopicsAccess<'_>,
        random: &mut Random,
    ) -> Result<NewTopic, CreateTopicError> {
        self.check_name(&topic.name)?;
        let configs = self.creation_configs(topic)?;
        let partitions = self.creation_partitions(topic, random)?;
        let topic_id = random.uuid();
        let result = self.created(topic, topic_id, &partitions, access);
        let record = TopicRecord { name: topic.name.clone(), topic_id };
        let mut records = vec![MetadataRecord::Topic(record)];
        records.extend(configs);
        let (version, elr) =
            (self.image().metadata_version(), self.image().features.is_elr_enabled());
        records.extend((0..).zip(&partitions).map(|(index, partition)| {
            MetadataRecord::Partition(partition.to_record(topic_id, index, version, elr))
        }));
        Ok(NewTopic { result, records })
    }

    fn check_name(&self, name: &ByteString) -> Result<(), CreateTopicError> {
        if self.image().topics.by_name(name).is_some() {
            return Err(CreateTopicError::Exists { name: name.clone() });
        }
        if let Some(existing) = self.image().topics.colliding_with(name) {
            let (name, existing) = (name.clone(), existing.clone());
            return Err(CreateTopicError::Collides { name, existing });
        }
        Ok(topic_name::validate(name)?)
    }

    /// The records of the topic's configuration. If a key is named twice, the last value counts.
    fn creation_configs(
        &self,
        topic: &CreatableTopic,
    ) -> Result<Vec<MetadataRecord>, CreateTopicError> {
        let nulls = topic.configs.iter().filter(|config| config.value.is_none());
        let nulls: Vec<String> = nulls.map(|config| config.name.to_string()).collect();
        if !nulls.is_empty() {
            return Err(CreateTopicError::NullConfigs { names: nulls });
        }
        if topic.configs.is_empty() {
            return Ok(Vec::new());
        }
        let operations: BTreeMap<_, _> = topic
            .configs
            .iter()
            .filter_map(|config| {
                Some((config.name.clone(), (AlterOperation::Set, config.value.clone()?)))
            })
            .collect();
        let resource = ConfigResource::topic(topic.name.clone());
        let mut records = self.altered(&resource, &operations, true, true)?;
        records.append(&mut self.clear_elr_records(&records));
        Ok(records)
    }

    fn creation_partitions(
        &self,
        topic: &CreatableTopic,
        random: &mut Random,
    ) -> Result<Vec<Partition>, CreateTopicError> {
        if !topic.assignments.is_empty() {
            return self.assigned_partitions(topic);
        }
        if topic.replication_factor < -1 || topic.replication_factor == 0 {
            return Err(CreateTopicError::InvalidReplicationFactor);
        }
        if topic.num_partitions < -1 || topic.num_partitions == 0 {
            return Err(CreateTopicError::InvalidPartitions);
        }
        let replication_factor = match topic.replication_factor {
            -1 => i16::try_from(self.broker_configs.int("default.replication.factor"))
                .unwrap_or(i16::MAX),
            factor => factor,
        };
        let count = match topic.num_partitions {
            -1 => self.broker_configs.int("num.partitions"),
            count => count,
        };
        let count = usize::try_from(count).map_err(|_| CreateTopicError::InvalidPartitions)?;
        let placed = place(self.usable_brokers(), count, replication_factor, random)
            .map_err(|error| CreateTopicError::Placement { replication_factor, error })?;
        let inactive = || CreateTopicError::NoActiveReplica { replication_factor };
        placed.iter().map(|replicas| self.new_partition(replicas).ok_or_else(inactive)).collect()
    }

    fn assigned_partitions(
        &self,
        topic: &CreatableTopic,
    ) -> Result<Vec<Partition>, CreateTopicError> {
        if topic.replication_factor != -1 {
            return Err(CreateTopicError::AssignmentAndReplicationFactor);
        }
        if topic.num_partitions != -1 {
            return Err(CreateTopicError::AssignmentAndPartitions);
        }
        let (mut partitions, mut factor) = (BTreeMap::new(), None);
        for assignment in &topic.assignments {
            let partition = assignment.partition_index;
            if partitions.contains_key(&partition) {
                return Err(CreateTopicError::RepeatedPartition { partition });
            }
            self.check_assignment(&assignment.broker_ids, factor)?;
            factor = Some(assignment.broker_ids.len());
            let new = self
                .new_partition(&assignment.broker_ids)
                .ok_or(super::assignment::AssignmentError::NoActiveReplica { partition })?;
            partitions.insert(partition, new);
        }
        if !(0..).zip(partitions.keys()).all(|(expected, index)| expected == *index) {
            return Err(CreateTopicError::GapInPartitions);
        }
        Ok(partitions.into_values().collect())
    }

    fn created(
        &self,
        topic: &CreatableTopic,
        topic_id: Uuid,
        partitions: &[Partition],
        access: CreateTopicsAccess<'_>,
    ) -> CreatableTopicResult {
        let result = CreatableTopicResult {
            name: topic.name.clone(),
            topic_id,
            error_code: ErrorCode::None.code(),
            error_message: None,
            ..Default::default()
        };
        if !(access.may_describe_configs)(&topic.name) {
            let topic_config_error_code = ErrorCode::TopicAuthorizationFailed.code();
            return CreatableTopicResult { topic_config_error_code, ..result };
        }
        let replicas = partitions.first().map_or(0, |first| first.replicas.len());
        CreatableTopicResult {
            num_partitions: i32::try_from(partitions.len()).unwrap_or(i32::MAX),
            replication_factor: i16::try_from(replicas).unwrap_or(i16::MAX),
            configs: Some(self.created_configs(topic)),
            ..result
        }
    }

    fn created_configs(&self, topic: &CreatableTopic) -> Vec<CreatableTopicConfigs> {
        let own = topic
            .configs
            .iter()
            .filter_map(|config| Some((config.name.clone(), config.value.clone()?)));
        let own: Configs = own.collect();
        let configs = created_topic_configs(&self.broker_configs, &own).into_iter();
        let configs = configs.map(|config| CreatableTopicConfigs {
            name: config.name,
            value: config.value.filter(|_| !config.is_sensitive),
            read_only: config.read_only,
            config_source: config.source.id(),
            is_sensitive: config.is_sensitive,
        });
        configs.collect()
    }
}

fn repeated_names(request: &CreateTopicsRequest) -> BTreeSet<ByteString> {
    let mut seen = BTreeSet::new();
    let names = request.topics.iter().map(|topic| &topic.name);
    names.filter(|name| !seen.insert(*name)).cloned().collect()
}

fn refuse_all(
    request: &CreateTopicsRequest,
    error: &CreateTopicError,
) -> Outcome<CreateTopicsResponse> {
    let topics = request.topics.iter().map(|topic| failed(&topic.name, error)).collect();
    Outcome::answer(CreateTopicsResponse { topics, ..Default::default() })
}

fn failed(name: &ByteString, error: &CreateTopicError) -> CreatableTopicResult {
    CreatableTopicResult {
        name: name.clone(),
        error_code: error.code().code(),
        error_message: Some(error.to_string().into()),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
