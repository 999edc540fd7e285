//! DescribeConfigs (key 32): the values in force for topics, brokers, groups, client metrics and loggers, with the
//! source of each.
//!
//! An answer can be thousands of times the size of its request, so it is made on the blocking pool
//! and has a bound.

use bytestring::ByteString;
use klamm_metadata::config_def::ConfigValueError;
use klamm_metadata::config_def::describe::{
    ConfigSource, ConfigSynonym, DescribedConfig, KeyFilter, describe_broker,
    describe_broker_default, describe_client_metrics, describe_group, describe_topic,
};
use klamm_metadata::image::configs::{ConfigResource, ConfigResourceType};
use klamm_metadata::topic_name::{self, InvalidTopicName};
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::BrokerId;
use klamm_protocol::messages::describe_configs_request::{
    DescribeConfigsRequest, DescribeConfigsResource,
};
use klamm_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResponse, DescribeConfigsResult,
    DescribeConfigsSynonym,
};

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;
use crate::api::services::Services;
use crate::logging::loggers;
use crate::metadata_cache::PublishedImage;

/// The maximum number of configs in one answer: all those of about 14,000 topics.
const MAX_DESCRIBED_CONFIGS: usize = 500_000;

/// Why a resource is not described.
#[derive(Debug, PartialEq, thiserror::Error)]
enum DescribeRefusal {
    #[error(transparent)]
    TopicName(#[from] InvalidTopicName),
    #[error("there is no such topic")]
    UnknownTopic,
    #[error("Broker id must be an integer, but it is: {name}")]
    BrokerIdNotANumber { name: ByteString },
    #[error(
        "Unexpected broker id, expected {expected} or empty string, but received {name}: \
         each broker describes its own configuration, ask that one"
    )]
    OtherBroker { expected: BrokerId, name: ByteString },
    #[error("{0} must not be empty")]
    EmptyName(&'static str),
    #[error("a stored configuration is not valid: {0}")]
    Stored(#[from] ConfigValueError),
    #[error(
        "the answer would have more than {MAX_DESCRIBED_CONFIGS} configs: ask for less at once"
    )]
    TooMuch,
}

impl DescribeRefusal {
    fn code(&self) -> ErrorCode {
        match self {
            Self::TopicName(_) => ErrorCode::InvalidTopicException,
            Self::UnknownTopic => ErrorCode::UnknownTopicOrPartition,
            Self::BrokerIdNotANumber { .. }
            | Self::OtherBroker { .. }
            | Self::EmptyName(_)
            | Self::TooMuch => ErrorCode::InvalidRequest,
            Self::Stored(_) => ErrorCode::UnknownServerError,
        }
    }

    /// Kafka answers an unknown topic with an empty message.
    fn message(&self) -> ByteString {
        match self {
            Self::UnknownTopic => ByteString::new(),
            refusal => refusal.to_string().into(),
        }
    }
}

message_replies!(DescribeConfigsResponse);

pub(crate) async fn handle(
    context: RequestContext,
    body: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let services = context.services;
    let answered = tokio::task::spawn_blocking(move || answer(&services, &body));
    let results = match answered.await {
        Ok(results) => results,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    };
    DescribeConfigsResponse { results, ..Default::default() }
}

fn answer(services: &Services, body: &DescribeConfigsRequest) -> Vec<DescribeConfigsResult> {
    let type_of =
        |resource: &DescribeConfigsResource| ConfigResourceType::from_id(resource.resource_type);
    let types: Option<Vec<_>> = body.resources.iter().map(type_of).collect();
    // Kafka refuses the whole request for one resource of an unknown type.
    let Some(types) = types else {
        let error = ErrorCode::InvalidRequest;
        let refused = |resource| result(resource, error, error.message().into(), Vec::new());
        return body.resources.iter().map(refused).collect();
    };
    let image = services.metadata_cache.image();
    let mut room = MAX_DESCRIBED_CONFIGS;
    let described = body.resources.iter().zip(types).map(|(resource, type_)| {
        let described = describe(services, &image, type_, resource).and_then(|configs| {
            room = room.checked_sub(configs.len()).ok_or(DescribeRefusal::TooMuch)?;
            Ok(configs)
        });
        match described {
            Ok(configs) => {
                let configs = configs.into_iter().map(|config| lower(config, body)).collect();
                result(resource, ErrorCode::None, ByteString::new(), configs)
            }
            Err(refusal) => result(resource, refusal.code(), refusal.message(), Vec::new()),
        }
    });
    described.collect()
}

fn describe(
    services: &Services,
    image: &PublishedImage,
    type_: ConfigResourceType,
    resource: &DescribeConfigsResource,
) -> Result<Vec<DescribedConfig>, DescribeRefusal> {
    let name = &resource.resource_name;
    let keys = KeyFilter(resource.configuration_keys.as_deref().unwrap_or_default());
    let stored = image.configs.of(&ConfigResource { type_, name: name.clone() });
    let config = services.config.current();
    let broker = &config.configs;
    match type_ {
        ConfigResourceType::Topic => {
            topic_name::validate(name)?;
            image.topics.by_name(name).ok_or(DescribeRefusal::UnknownTopic)?;
            Ok(describe_topic(broker, stored, keys)?)
        }
        ConfigResourceType::Broker if name.is_empty() => Ok(describe_broker_default(broker, keys)),
        ConfigResourceType::Broker => {
            check_broker(name, services.config.node_id)?;
            Ok(describe_broker(broker, keys))
        }
        ConfigResourceType::BrokerLogger => {
            refuse_empty(name, "Broker id")?;
            check_broker(name, services.config.node_id)?;
            Ok(describe_loggers(keys))
        }
        ConfigResourceType::ClientMetrics => {
            refuse_empty(name, "Client metrics subscription name")?;
            Ok(describe_client_metrics(stored, keys)?)
        }
        ConfigResourceType::Group => {
            refuse_empty(name, "Group name")?;
            Ok(describe_group(broker, stored, keys)?)
        }
    }
}

fn refuse_empty(name: &ByteString, what: &'static str) -> Result<(), DescribeRefusal> {
    if name.is_empty() { Err(DescribeRefusal::EmptyName(what)) } else { Ok(()) }
}

fn check_broker(name: &ByteString, node_id: BrokerId) -> Result<(), DescribeRefusal> {
    match name.parse::<BrokerId>() {
        Err(_) => Err(DescribeRefusal::BrokerIdNotANumber { name: name.clone() }),
        Ok(id) if id != node_id => {
            Err(DescribeRefusal::OtherBroker { expected: node_id, name: name.clone() })
        }
        Ok(_) => Ok(()),
    }
}

fn describe_loggers(keys: KeyFilter<'_>) -> Vec<DescribedConfig> {
    let asked = |name: &str| keys.0.is_empty() || keys.0.iter().any(|key| key == name);
    let loggers = loggers::all().into_iter().filter(|(name, _)| asked(name));
    let described = loggers.map(|(name, level)| DescribedConfig {
        name: name.into(),
        value: Some(ByteString::from_static(level)),
        source: ConfigSource::DynamicBrokerLogger,
        is_sensitive: false,
        read_only: false,
        config_type: None,
        synonyms: Vec::new(),
        // As Kafka answers, whether the request asks for documentation or not.
        documentation: Some(""),
    });
    described.collect()
}

fn result(
    resource: &DescribeConfigsResource,
    error: ErrorCode,
    message: ByteString,
    configs: Vec<DescribeConfigsResourceResult>,
) -> DescribeConfigsResult {
    DescribeConfigsResult {
        error_code: error.code(),
        error_message: Some(message),
        resource_type: resource.resource_type,
        resource_name: resource.resource_name.clone(),
        configs,
    }
}

fn lower(config: DescribedConfig, asked: &DescribeConfigsRequest) -> DescribeConfigsResourceResult {
    let is_logger = config.source == ConfigSource::DynamicBrokerLogger;
    let documentation = config.documentation.filter(|_| asked.include_documentation || is_logger);
    let config_type = config.type_id();
    let synonyms = if asked.include_synonyms { config.synonyms } else { Vec::new() };
    let synonyms = synonyms.into_iter().map(|ConfigSynonym { name, value, source }| {
        DescribeConfigsSynonym { name, value, source: source.id() }
    });
    DescribeConfigsResourceResult {
        name: config.name,
        value: config.value,
        read_only: config.read_only,
        config_source: config.source.id(),
        is_sensitive: config.is_sensitive,
        synonyms: synonyms.collect(),
        config_type,
        documentation: documentation.map(ByteString::from_static),
    }
}

#[cfg(test)]
mod tests {
    use klamm_metadata::config_def::{BrokerConfigs, Configs};
    use klamm_protocol::Message;

    use super::*;

    fn topic() -> DescribeConfigsResource {
        DescribeConfigsResource {
            resource_type: 2,
            resource_name: "t".into(),
            ..Default::default()
        }
    }

    fn described() -> Vec<DescribedConfig> {
        let broker = BrokerConfigs::new(Configs::new()).unwrap();
        describe_topic(&broker, &Configs::new(), KeyFilter(&[])).unwrap()
    }

    #[test]
    fn synonyms_and_documentation_come_when_they_are_asked_for() {
        let lowered = |include| {
            let asked = DescribeConfigsRequest {
                include_synonyms: include,
                include_documentation: include,
                ..Default::default()
            };
            let mut configs = described().into_iter();
            let config = configs.find(|config| config.name == "max.message.bytes").unwrap();
            lower(config, &asked)
        };
        let bare = lowered(false);
        assert_eq!((bare.synonyms.len(), bare.documentation), (0, None));
        let full = lowered(true);
        assert_eq!(full.synonyms[0].name, "message.max.bytes");
        assert!(full.documentation.is_some());
    }

    #[test]
    fn a_broker_speaks_for_itself_only() {
        assert_eq!(check_broker(&"1".into(), 1), Ok(()));
        let other = check_broker(&"2".into(), 1).unwrap_err();
        assert_eq!(other.code(), ErrorCode::InvalidRequest);
        let name = ByteString::from_static("one");
        assert_eq!(
            check_broker(&name, 1),
            Err(DescribeRefusal::BrokerIdNotANumber { name: name.clone() })
        );
    }

    #[test]
    fn an_answer_can_be_written_in_every_version() {
        let asked = DescribeConfigsRequest {
            include_synonyms: true,
            include_documentation: true,
            ..Default::default()
        };
        let refusal = DescribeRefusal::UnknownTopic;
        let configs = described().into_iter().map(|config| lower(config, &asked)).collect();
        let results = vec![
            result(&topic(), ErrorCode::None, ByteString::new(), configs),
            result(&topic(), refusal.code(), refusal.message(), Vec::new()),
        ];
        let response = DescribeConfigsResponse { results, ..Default::default() };
        for version in DescribeConfigsResponse::VERSIONS {
            response.encoded(version).unwrap();
        }
    }
}
