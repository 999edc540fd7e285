//! The checks of a broker in AlterConfigs and IncrementalAlterConfigs before it forwards them to the controller, and
//! the merge of both answers (Kafka's ConfigAdminManager).
//!
//! Only the broker itself knows its configuration well enough to validate a change of it; the controller repeats none
//! of these checks.

use std::collections::{BTreeMap, BTreeSet};

use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::BrokerId;
use klamm_protocol::messages::alter_configs_request::AlterConfigsRequest;
use klamm_protocol::messages::alter_configs_response::{
    AlterConfigsResourceResponse as AlterResult, AlterConfigsResponse,
};
use klamm_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, IncrementalAlterConfigsRequest,
};
use klamm_protocol::messages::incremental_alter_configs_response::{
    AlterConfigsResourceResponse as IncrementalResult, IncrementalAlterConfigsResponse,
};

use crate::config_def::alter::{
    AlterError, AlterOperation, apply_operation, check_broker_operation, validate_broker_configs,
};
use crate::config_def::{ConfigScope, Configs};
use crate::image::configs::{ConfigResource, ConfigResourceType, ConfigsImage};

/// Why a broker refuses to alter a resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AlterRefusal {
    /// The request names the resource twice.
    #[error("Each resource must appear at most once.")]
    RepeatedResource,
    /// The request names a key of the resource twice.
    #[error("Error due to duplicate config keys")]
    RepeatedKeys,
    /// Only a deletion may have no value.
    #[error("Null value not supported for : {}", keys.join(", "))]
    NullValues {
        /// The keys without a value.
        keys: Vec<String>,
    },
    /// The resource's name is not a node id.
    #[error("Node id must be an integer, but it is: {name}")]
    NodeIdNotANumber {
        /// The resource's name.
        name: ByteString,
    },
    /// A broker only alters its own configuration.
    #[error("Unexpected broker id, expected {expected}, but received {name}")]
    OtherBroker {
        /// This broker.
        expected: BrokerId,
        /// The resource's name.
        name: ByteString,
    },
    /// A resource type that Kafka does not define, or that this request cannot alter.
    #[error("Unknown resource type {0}")]
    UnknownResourceType(i8),
    /// An operation that Kafka does not define.
    #[error("Unknown operations type {0}")]
    UnknownOperation(i8),
    /// The broker's configuration would be invalid.
    #[error(transparent)]
    Broker(#[from] AlterError),
}

impl AlterRefusal {
    /// The error code for the client.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Broker(error) => error.code(),
            Self::RepeatedResource
            | Self::RepeatedKeys
            | Self::NullValues { .. }
            | Self::NodeIdNotANumber { .. }
            | Self::OtherBroker { .. }
            | Self::UnknownResourceType(_)
            | Self::UnknownOperation(_) => ErrorCode::InvalidRequest,
        }
    }
}

/// The broker's decision about one resource of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// The controller decides.
    Forward,
    /// The broker answers by itself: it applies log levels, and refuses changes that it cannot apply.
    Here,
    /// Refused.
    Refused(AlterRefusal),
}

/// Checks the resources of a request, in order. The caller forwards only those marked `Forward`.
pub fn check_incremental(
    request: &IncrementalAlterConfigsRequest,
    node_id: BrokerId,
    configs: &ConfigsImage,
) -> Vec<Checked> {
    let repeated = repeated(request.resources.iter().map(|r| (r.resource_type, &r.resource_name)));
    let check = |resource: &AlterConfigsResource| {
        if repeated.contains(&(resource.resource_type, &resource.resource_name)) {
            return Err(AlterRefusal::RepeatedResource);
        }
        let delete = AlterOperation::Delete;
        check_keys(resource.configs.iter().map(|config| {
            let deletes = AlterOperation::from_id(config.config_operation) == Some(delete);
            (&config.name, deletes || config.value.is_some())
        }))?;
        match ConfigResourceType::from_id(resource.resource_type) {
            Some(ConfigResourceType::BrokerLogger) => Ok(Checked::Here),
            Some(ConfigResourceType::Broker) => {
                let per_broker = check_node(&resource.resource_name, node_id)?;
                validate_broker_configs(&proposed_values(resource, configs)?, per_broker)?;
                Ok(Checked::Forward)
            }
            Some(_) => Ok(Checked::Forward),
            None => Err(AlterRefusal::UnknownResourceType(resource.resource_type)),
        }
    };
    request.resources.iter().map(|r| check(r).unwrap_or_else(Checked::Refused)).collect()
}

/// Checks the resources of a legacy request, in order.
pub fn check_legacy(request: &AlterConfigsRequest, node_id: BrokerId) -> Vec<Checked> {
    let repeated = repeated(request.resources.iter().map(|r| (r.resource_type, &r.resource_name)));
    let check =
        |resource: &klamm_protocol::messages::alter_configs_request::AlterConfigsResource| {
            if repeated.contains(&(resource.resource_type, &resource.resource_name)) {
                return Err(AlterRefusal::RepeatedResource);
            }
            check_keys(
                resource.configs.iter().map(|config| (&config.name, config.value.is_some())),
            )?;
            match ConfigResourceType::from_id(resource.resource_type) {
                Some(ConfigResourceType::Broker) => {
                    let per_broker = check_node(&resource.resource_name, node_id)?;
                    let values = resource
                        .configs
                        .iter()
                        .filter_map(|config| Some((config.name.clone(), config.value.clone()?)));
                    validate_broker_configs(&values.collect(), per_broker)?;
                    Ok(Checked::Forward)
                }
                Some(ConfigResourceType::BrokerLogger) | None => {
                    Err(AlterRefusal::UnknownResourceType(resource.resource_type))
                }
                Some(_) => Ok(Checked::Forward),
            }
        };
    request.resources.iter().map(|r| check(r).unwrap_or_else(Checked::Refused)).collect()
}

/// The part of a request to forward to the controller.
pub fn forwarded_incremental(
    request: &IncrementalAlterConfigsRequest,
    checked: &[Checked],
) -> IncrementalAlterConfigsRequest {
    let pairs = request.resources.iter().zip(checked);
    let resources = pairs.filter(|(_, c)| **c == Checked::Forward).map(|(r, _)| r.clone());
    IncrementalAlterConfigsRequest {
        resources: resources.collect(),
        validate_only: request.validate_only,
    }
}

/// The part of a legacy request to forward to the controller.
pub fn forwarded_legacy(request: &AlterConfigsRequest, checked: &[Checked]) -> AlterConfigsRequest {
    let pairs = request.resources.iter().zip(checked);
    let resources = pairs.filter(|(_, c)| **c == Checked::Forward).map(|(r, _)| r.clone());
    AlterConfigsRequest { resources: resources.collect(), validate_only: request.validate_only }
}

/// Merges the broker's refusals and the controller's results into one answer. Resources that the broker answers by
/// itself have succeeded.
pub fn join_incremental(
    request: &IncrementalAlterConfigsRequest,
    checked: &[Checked],
    controller: &IncrementalAlterConfigsResponse,
) -> IncrementalAlterConfigsResponse {
    let of_controller = controller.responses.iter().map(|response| {
        let key = (response.resource_type, response.resource_name.clone());
        (key, (response.error_code, response.error_message.clone()))
    });
    let of_controller: BTreeMap<_, _> = of_controller.collect();
    let responses = request.resources.iter().zip(checked).map(|(resource, checked)| {
        let key = (resource.resource_type, resource.resource_name.clone());
        let (error_code, error_message) = joined(checked, of_controller.get(&key));
        let (resource_type, resource_name) = key;
        IncrementalResult { error_code, error_message, resource_type, resource_name }
    });
    IncrementalAlterConfigsResponse { responses: responses.collect(), ..Default::default() }
}

/// As [`join_incremental`], for the legacy request.
pub fn join_legacy(
    request: &AlterConfigsRequest,
    checked: &[Checked],
    controller: &AlterConfigsResponse,
) -> AlterConfigsResponse {
    let of_controller = controller.responses.iter().map(|response| {
        let key = (response.resource_type, response.resource_name.clone());
        (key, (response.error_code, response.error_message.clone()))
    });
    let of_controller: BTreeMap<_, _> = of_controller.collect();
    let responses = request.resources.iter().zip(checked).map(|(resource, checked)| {
        let key = (resource.resource_type, resource.resource_name.clone());
        let (error_code, error_message) = joined(checked, of_controller.get(&key));
        let (resource_type, resource_name) = key;
        AlterResult { error_code, error_message, resource_type, resource_name }
    });
    AlterConfigsResponse { responses: responses.collect(), ..Default::default() }
}

type CodeAndMessage = (i16, Option<ByteString>);

fn joined(checked: &Checked, controller: Option<&CodeAndMessage>) -> CodeAndMessage {
    match (checked, controller) {
        (Checked::Refused(refusal), _) => (refusal.code().code(), Some(refusal.to_string().into())),
        (Checked::Here, _) => (ErrorCode::None.code(), None),
        (Checked::Forward, Some(result)) => result.clone(),
        (Checked::Forward, None) => {
            let error = ErrorCode::UnknownServerError;
            (error.code(), Some(error.message().into()))
        }
    }
}

fn repeated<'a>(
    resources: impl Iterator<Item = (i8, &'a ByteString)>,
) -> BTreeSet<(i8, &'a ByteString)> {
    let mut seen = BTreeSet::new();
    resources.filter(|resource| !seen.insert(*resource)).collect()
}

/// Checks that each key occurs once and has a value; the flag is whether the key has a valid one.
fn check_keys<'a>(
    keys: impl Iterator<Item = (&'a ByteString, bool)> + Clone,
) -> Result<(), AlterRefusal> {
    let mut seen = BTreeSet::new();
    if !keys.clone().all(|(key, _)| seen.insert(key)) {
        return Err(AlterRefusal::RepeatedKeys);
    }
    let nulls: Vec<String> =
        keys.filter(|(_, stands)| !stands).map(|(key, _)| key.to_string()).collect();
    if nulls.is_empty() { Ok(()) } else { Err(AlterRefusal::NullValues { keys: nulls }) }
}

/// Whether the resource is this one broker (true) or all brokers (false).
fn check_node(name: &ByteString, node_id: BrokerId) -> Result<bool, AlterRefusal> {
    if name.is_empty() {
        return Ok(false);
    }
    match name.parse::<BrokerId>() {
        Err(_) => Err(AlterRefusal::NodeIdNotANumber { name: name.clone() }),
        Ok(id) if id != node_id => {
            Err(AlterRefusal::OtherBroker { expected: node_id, name: name.clone() })
        }
        Ok(_) => Ok(true),
    }
}

/// The dynamic values of a broker, or of all, after the operations of a request.
///
/// # Errors
/// An operation that is not defined, or not for this key.
pub fn proposed_values(
    resource: &AlterConfigsResource,
    configs: &ConfigsImage,
) -> Result<Configs, AlterRefusal> {
    let name = resource.resource_name.clone();
    let mut values =
        configs.of(&ConfigResource { type_: ConfigResourceType::Broker, name }).clone();
    for config in &resource.configs {
        let operation = AlterOperation::from_id(config.config_operation)
            .ok_or(AlterRefusal::UnknownOperation(config.config_operation))?;
        check_broker_operation(&config.name, operation)?;
        let current = values.get(&config.name).map(|value| &**value);
        let text = config.value.as_deref().unwrap_or_default();
        match apply_operation(ConfigScope::Broker, &config.name, current, operation, text)? {
            Some(value) => values.insert(config.name.clone(), value.into()),
            None => values.remove(&config.name),
        };
    }
    Ok(values)
}

#[cfg(test)]
mod tests;
