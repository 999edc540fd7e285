//! IncrementalAlterConfigs (API 44) and AlterConfigs (33) on the controller (Kafka's
//! ConfigurationControlManager and ControllerConfigurationValidator).
//!
//! Invariant: the changes of one resource are made all or none.

mod error;

use std::collections::{BTreeMap, BTreeSet};

use bytestring::ByteString;
use klamm_protocol::messages::alter_configs_request::AlterConfigsRequest;
use klamm_protocol::messages::alter_configs_response::{self, AlterConfigsResponse};
use klamm_protocol::messages::clear_elr_record::ClearElrRecord;
use klamm_protocol::messages::config_record::ConfigRecord;
use klamm_protocol::messages::incremental_alter_configs_request::IncrementalAlterConfigsRequest;
use klamm_protocol::messages::incremental_alter_configs_response::{
    self, IncrementalAlterConfigsResponse,
};
use klamm_protocol::metadata_record::MetadataRecord;

pub use self::error::ConfigChangeError;
use super::Controller;
use super::effective_configs::MIN_INSYNC_REPLICAS;
use super::outcome::Outcome;
use crate::config_def::alter::{AlterOperation, apply_operation};
use crate::config_def::client_metrics::validate_client_metrics_configs;
use crate::config_def::group_config::validate_group_configs;
use crate::config_def::topic_config::validate_topic_configs;
use crate::config_def::{ConfigScope, Configs};
use crate::image::configs::{ConfigResource, ConfigResourceType};
use crate::topic_name;

/// Log directories that take no new replicas (KIP-1066).
const CORDONED_LOG_DIRS: &str = "cordoned.log.dirs";
/// The maximum length of a value, in UTF-16 units (Java's Short.MAX_VALUE).
const MAX_VALUE_LENGTH: usize = 32_767;

/// The operations by key.
type Operations = BTreeMap<ByteString, (AlterOperation, ByteString)>;

/// The answer for each resource of a request.
type Answers = Vec<(i8, ByteString, Result<(), ConfigChangeError>)>;

impl Controller {
    /// Sets, deletes, appends to and subtracts from values.
    ///
    /// `forwarded` is whether a broker has checked the request with [`crate::alter_configs::check_incremental`].
    pub fn on_incremental_alter_configs(
        &self,
        request: &IncrementalAlterConfigsRequest,
        forwarded: bool,
    ) -> Outcome<IncrementalAlterConfigsResponse> {
        let mut records = Vec::new();
        let resources =
            request.resources.iter().map(|r| (r.resource_type, r.resource_name.clone(), r));
        let unknown = unknown_operation(request);
        let answers = each_once(resources, |resource, asked| {
            let mut operations = Operations::new();
            if let Some(id) = unknown {
                return Err(ConfigChangeError::UnknownOperation(id));
            }
            for config in &asked.configs {
                let operation = AlterOperation::from_id(config.config_operation)
                    .expect("a request with an unknown operation is refused");
                let value = config.value.clone().unwrap_or_default();
                operations.insert(config.name.clone(), (operation, value));
            }
            records.append(&mut self.altered(&resource, &operations, false, forwarded)?);
            Ok(())
        });
        let responses = answers.into_iter().map(|(resource_type, resource_name, result)| {
            let (error_code, error_message) = error::answer(&result);
            incremental_alter_configs_response::AlterConfigsResourceResponse {
                error_code,
                error_message,
                resource_type,
                resource_name,
            }
        });
        let response = IncrementalAlterConfigsResponse {
            responses: responses.collect(),
            ..Default::default()
        };
        self.finish(records, response, request.validate_only)
    }

    /// Replaces all values of the resources.
    pub fn on_alter_configs(
        &self,
        request: &AlterConfigsRequest,
        forwarded: bool,
    ) -> Outcome<AlterConfigsResponse> {
        let mut records = Vec::new();
        let resources =
            request.resources.iter().map(|r| (r.resource_type, r.resource_name.clone(), r));
        let answers = each_once(resources, |resource, asked| {
            let values = asked.configs.iter();
            let values: BTreeMap<_, _> =
                values.map(|config| (config.name.clone(), config.value.clone())).collect();
            records.append(&mut self.replaced(&resource, &values, forwarded)?);
            Ok(())
        });
        let responses = answers.into_iter().map(|(resource_type, resource_name, result)| {
            let (error_code, error_message) = error::answer(&result);
            alter_configs_response::AlterConfigsResourceResponse {
                error_code,
                error_message,
                resource_type,
                resource_name,
            }
        });
        let response =
            AlterConfigsResponse { responses: responses.collect(), ..Default::default() };
        self.finish(records, response, request.validate_only)
    }

    fn finish<R>(
        &self,
        mut records: Vec<MetadataRecord>,
        response: R,
        validate_only: bool,
    ) -> Outcome<R> {
        records.append(&mut self.clear_elr_records(&records));
        let outcome = Outcome::atomic(records, response);
        if validate_only { outcome.without_records() } else { outcome }
    }

    /// The records of operations on one resource. A resource that is being created need not exist.
    pub(super) fn altered(
        &self,
        resource: &ConfigResource,
        operations: &Operations,
        newly_created: bool,
        forwarded: bool,
    ) -> Result<Vec<MetadataRecord>, ConfigChangeError> {
        let current = self.image().configs.of(resource);
        let mut changes = Vec::new();
        for (key, (operation, text)) in operations {
            let now = current.get(key).map(|value| &**value);
            let new = apply_operation(scope(resource.type_), key, now, *operation, text)?;
            if is_worth_a_record(resource, now, new.as_deref()) {
                changes.push((key.clone(), new.map(ByteString::from)));
            }
        }
        self.validate(resource, &changes, &[], newly_created, forwarded)?;
        Ok(config_records(resource, changes))
    }

    fn replaced(
        &self,
        resource: &ConfigResource,
        values: &BTreeMap<ByteString, Option<ByteString>>,
        forwarded: bool,
    ) -> Result<Vec<MetadataRecord>, ConfigChangeError> {
        let current = self.image().configs.of(resource);
        let altered: Vec<_> = values
            .iter()
            .filter(|(key, new)| {
                let now = current.get(*key).map(|value| &**value);
                is_worth_a_record(resource, now, new.as_deref())
            })
            .map(|(key, new)| (key.clone(), new.clone()))
            .collect();
        let deleted: Vec<_> = current
            .keys()
            .filter(|key| !values.contains_key(*key))
            .map(|key| (key.clone(), None))
            .collect();
        self.validate(resource, &altered, &deleted, false, forwarded)?;
        let mut records = config_records(resource, altered);
        records.append(&mut config_records(resource, deleted));
        Ok(records)
    }

    fn validate(
        &self,
        resource: &ConfigResource,
        altered: &[(ByteString, Option<ByteString>)],
        deleted: &[(ByteString, Option<ByteString>)],
        newly_created: bool,
        forwarded: bool,
    ) -> Result<(), ConfigChangeError> {
        let existing = self.image().configs.of(resource);
        let mut all = existing.clone();
        for (key, value) in altered.iter().chain(deleted) {
            self.check_special_keys(resource, key, value.as_deref(), forwarded)?;
            match value {
                None => all.remove(key),
                Some(value) if value.encode_utf16().count() > MAX_VALUE_LENGTH => {
                    return Err(ConfigChangeError::ValueTooLong);
                }
                Some(value) => all.insert(key.clone(), value.clone()),
            };
        }
        self.validate_all(resource, &all, existing)?;
        if newly_created { Ok(()) } else { self.check_exists(resource) }
    }

    /// Checks broker keys with special conditions.
    fn check_special_keys(
        &self,
        resource: &ConfigResource,
        key: &str,
        value: Option<&str>,
        forwarded: bool,
    ) -> Result<(), ConfigChangeError> {
        if resource.type_ != ConfigResourceType::Broker {
            return Ok(());
        }
        if key == MIN_INSYNC_REPLICAS && self.image().features.is_elr_enabled() {
            if !resource.name.is_empty() {
                return Err(ConfigChangeError::BrokerMinInsyncReplicas);
            }
            if value.is_none() {
                return Err(ConfigChangeError::ClusterMinInsyncReplicasRemoved);
            }
        }
        if key == CORDONED_LOG_DIRS {
            if !self.image().metadata_version().is_cordoned_log_dirs_supported() {
                return Err(ConfigChangeError::CordonedLogDirsDisabled);
            }
            let current = self.image().configs.value(resource, CORDONED_LOG_DIRS);
            let new = value.map(str::trim).filter(|text| !text.is_empty());
            if !forwarded && new.is_some_and(|new| !is_subset(new, current)) {
                return Err(ConfigChangeError::CordonedLogDirsGrow);
            }
        }
        Ok(())
    }

    fn validate_all(
        &self,
        resource: &ConfigResource,
        all: &Configs,
        existing: &Configs,
    ) -> Result<(), ConfigChangeError> {
        match resource.type_ {
            ConfigResourceType::Topic => {
                if resource.name.is_empty() {
                    return Err(ConfigChangeError::DefaultTopic);
                }
                topic_name::validate(&resource.name)?;
                Ok(validate_topic_configs(existing, all, &self.broker_configs)?)
            }
            ConfigResourceType::Broker => check_broker_name(&resource.name),
            ConfigResourceType::ClientMetrics => {
                Ok(validate_client_metrics_configs(&resource.name, all)?)
            }
            ConfigResourceType::Group => {
                Ok(validate_group_configs(&resource.name, all, &self.broker_configs)?)
            }
            ConfigResourceType::BrokerLogger => Err(ConfigChangeError::BrokerLogger),
        }
    }

    fn check_exists(&self, resource: &ConfigResource) -> Result<(), ConfigChangeError> {
        match resource.type_ {
            ConfigResourceType::Topic if self.image().topics.by_name(&resource.name).is_none() => {
                Err(ConfigChangeError::UnknownTopic { name: resource.name.clone() })
            }
            ConfigResourceType::Broker if !resource.name.is_empty() => {
                let node = resource.name.parse().map_err(|_| ConfigChangeError::BrokerName)?;
                let image = self.image();
                let known = image.brokers.get(node).is_some()
                    || image.controllers.get(node).is_some()
                    || self.settings.quorum_voters.contains(&node);
                if known { Ok(()) } else { Err(ConfigChangeError::UnknownNode { node }) }
            }
            _ => Ok(()),
        }
    }

    /// After a change of min.insync.replicas the ELRs are invalid: returns the records that clear them (KIP-966).
    pub(super) fn clear_elr_records(&self, records: &[MetadataRecord]) -> Vec<MetadataRecord> {
        if !self.image().features.is_elr_enabled() {
            return Vec::new();
        }
        let changed = records.iter().filter_map(|record| match record {
            MetadataRecord::Config(config) if config.name == MIN_INSYNC_REPLICAS => Some(config),
            _ => None,
        });
        let cleared = changed.map(|config| {
            let is_topic = config.resource_type == ConfigResourceType::Topic.id();
            let topic_name =
                if is_topic { config.resource_name.clone() } else { ByteString::new() };
            MetadataRecord::ClearElr(ClearElrRecord { topic_name })
        });
        cleared.collect()
    }
}

fn unknown_operation(request: &IncrementalAlterConfigsRequest) -> Option<i8> {
    let configs = request.resources.iter().flat_map(|resource| &resource.configs);
    let mut ids = configs.map(|config| config.config_operation);
    ids.find(|id| AlterOperation::from_id(*id).is_none())
}

/// Answers each resource with the result of `alter`; a resource that is named twice is refused both times.
fn each_once<T>(
    resources: impl Iterator<Item = (i8, ByteString, T)>,
    mut alter: impl FnMut(ConfigResource, T) -> Result<(), ConfigChangeError>,
) -> Answers {
    let resources: Vec<_> = resources.collect();
    let (mut seen, mut repeated) = (BTreeSet::new(), BTreeSet::new());
    for (type_, name, _) in &resources {
        if !seen.insert((*type_, name.clone())) {
            repeated.insert((*type_, name.clone()));
        }
    }
    let mut answers: Answers = repeated
        .iter()
        .map(|(type_, name)| (*type_, name.clone(), Err(ConfigChangeError::DuplicateResource)))
        .collect();
    for (id, name, asked) in resources {
        if repeated.contains(&(id, name.clone())) {
            continue;
        }
        let result = match ConfigResourceType::from_id(id) {
            Some(type_) => alter(ConfigResource { type_, name: name.clone() }, asked),
            None => Err(ConfigChangeError::UnknownResourceType(id)),
        };
        answers.push((id, name, result));
    }
    answers
}

/// Whether a record is written. For brokers also without a change: it makes them reload files such as key stores
/// (KAFKA-14136).
fn is_worth_a_record(resource: &ConfigResource, now: Option<&str>, new: Option<&str>) -> bool {
    now != new || resource.type_ == ConfigResourceType::Broker
}

fn config_records(
    resource: &ConfigResource,
    changes: Vec<(ByteString, Option<ByteString>)>,
) -> Vec<MetadataRecord> {
    let records = changes.into_iter().map(|(name, value)| {
        MetadataRecord::Config(ConfigRecord {
            resource_type: resource.type_.id(),
            resource_name: resource.name.clone(),
            name,
            value,
        })
    });
    records.collect()
}

fn scope(type_: ConfigResourceType) -> ConfigScope {
    match type_ {
        ConfigResourceType::Topic => ConfigScope::Topic,
        ConfigResourceType::Broker | ConfigResourceType::BrokerLogger => ConfigScope::Broker,
        ConfigResourceType::ClientMetrics => ConfigScope::ClientMetrics,
        ConfigResourceType::Group => ConfigScope::Group,
    }
}

fn check_broker_name(name: &str) -> Result<(), ConfigChangeError> {
    if name.is_empty() {
        return Ok(());
    }
    match name.parse::<i32>() {
        Err(_) => Err(ConfigChangeError::BrokerName),
        Ok(id) if id < 0 => Err(ConfigChangeError::NegativeBroker),
        Ok(_) => Ok(()),
    }
}

fn is_subset(new: &str, current: Option<&str>) -> bool {
    let current: Vec<&str> = current.map_or(Vec::new(), |text| text.split(',').collect());
    new.split(',').all(|dir| current.iter().any(|known| known.trim() == dir.trim()))
}

#[cfg(test)]
mod tests;
