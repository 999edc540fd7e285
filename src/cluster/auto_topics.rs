//! Creates topics automatically when a request names them: ordinary ones for Metadata, internal ones for
//! FindCoordinator (Kafka's DefaultAutoTopicCreationManager).
//!
//! Two concurrent creations of one topic do not conflict: the controller decides one after the other, and answers the
//! second with TOPIC_ALREADY_EXISTS.

use std::sync::Arc;

use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use klamm_protocol::messages::create_topics_response::CreatableTopicResult;
use tracing::{info, warn};

use crate::cluster::internal_topics;
use crate::config::BrokerConfig;
use crate::config::dynamic::DynamicBrokerConfig;
use crate::controller::channel::{ChannelError, ControllerChannel};
use crate::metadata_cache::{MetadataCache, PublishedImage};

/// Creates topics with the active controller, wherever that is.
pub(crate) struct AutoTopicCreation {
    pub(crate) config: Arc<DynamicBrokerConfig>,
    pub(crate) metadata_cache: Arc<MetadataCache>,
    pub(crate) channel: Arc<ControllerChannel>,
}

impl AutoTopicCreation {
    /// Creates an internal topic unless it exists. When this returns, the image has it, and the partitions that this
    /// node leads are open.
    ///
    /// # Errors The error with which the controller refused the topic. FindCoordinator answers
    /// COORDINATOR_NOT_AVAILABLE then.
    ///
    /// # Panics
    /// If the topic is not internal.
    pub(crate) async fn ensure_internal_topic(&self, name: &str) -> Result<(), ErrorCode> {
        assert!(internal_topics::is_internal(name), "{name} is not an internal topic");
        if self.metadata_cache.image().topics.by_name(name).is_some() {
            return Ok(());
        }
        let topic = self.creatable(&ByteString::from(name));
        let results = self.create(vec![topic]).await.map_err(|error| error.code())?;
        match results.iter().find_map(failure) {
            None => Ok(()),
            Some(code) => Err(code),
        }
    }

    /// Creates topics that a client has named and that do not exist. A failure is only logged: the client gets
    /// UNKNOWN_TOPIC_OR_PARTITION.
    pub(crate) async fn create_named(&self, names: &[ByteString]) {
        let topics = names.iter().map(|name| self.creatable(name)).collect();
        if let Err(error) = self.create(topics).await {
            warn!("topics were not created automatically: {error}");
        }
    }

    async fn create(
        &self,
        topics: Vec<CreatableTopic>,
    ) -> Result<Vec<CreatableTopicResult>, ChannelError> {
        let request = CreateTopicsRequest { topics, ..Default::default() };
        let results =
            self.channel.ask_within(&request, self.config.lifecycle.request_timeout).await?.topics;
        for result in &results {
            match failure(result) {
                None => info!("created topic {} automatically", result.name),
                Some(code) => {
                    let reason = result.error_message.as_deref().unwrap_or_default();
                    warn!("topic {} was not created automatically: {code}: {reason}", result.name);
                }
            }
        }
        Ok(results)
    }

    fn creatable(&self, name: &ByteString) -> CreatableTopic {
        let brokers = usable_brokers(&self.metadata_cache.image());
        internal_topics::creatable(&self.config, name, brokers)
            .unwrap_or_else(|| ordinary(&self.config, name))
    }
}

/// Why a topic was not created; `None` if it exists, also if another request has just created it.
fn failure(result: &CreatableTopicResult) -> Option<ErrorCode> {
    match ErrorCode::from_code(result.error_code) {
        Some(ErrorCode::None | ErrorCode::TopicAlreadyExists) => None,
        Some(code) => Some(code),
        None => Some(ErrorCode::UnknownServerError),
    }
}

/// The number of brokers that can have a replica. A fenced broker counts: it fetches the replica when it is back.
fn usable_brokers(image: &PublishedImage) -> usize {
    image.brokers.iter().filter(|broker| broker.has_uncordoned_dirs()).count()
}

/// An ordinary topic. The controller fills in the values that this broker's configuration does not set.
fn ordinary(config: &BrokerConfig, name: &ByteString) -> CreatableTopic {
    let is_set = |key| config.configs.originals().contains_key(key);
    let factor = config.topics.default_replication_factor;
    CreatableTopic {
        name: name.clone(),
        num_partitions: if is_set("num.partitions") { config.topics.num_partitions } else { -1 },
        replication_factor: if is_set("default.replication.factor") {
            i16::try_from(factor).unwrap_or(i16::MAX)
        } else {
            -1
        },
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::internal_topics::CONSUMER_OFFSETS;
    use crate::metadata_cache::testing::{broker, fenced_broker, published};

    fn topic(pairs: &[(&str, &str)]) -> (i32, i16) {
        let config = BrokerConfig::from_pairs(pairs.iter().copied()).unwrap();
        let topic = ordinary(&config, &"t".into());
        (topic.num_partitions, topic.replication_factor)
    }

    #[test]
    fn the_controller_chooses_where_this_broker_was_not_told() {
        assert_eq!(topic(&[]), (-1, -1));
        assert_eq!(topic(&[("num.partitions", "6"), ("default.replication.factor", "1")]), (6, 1));
    }

    #[test]
    fn an_internal_topic_has_a_replica_on_a_broker_that_is_down() {
        let image = published(vec![broker(1), broker(2), fenced_broker(3), broker(4)]);
        assert_eq!(usable_brokers(&image), 4);
        let config = BrokerConfig::from_pairs([("", ""); 0]).unwrap();
        let created = internal_topics::creatable(&config, CONSUMER_OFFSETS, 4).unwrap();
        assert_eq!(created.replication_factor, 3, "no more than the default");
        let few = published(vec![broker(1), fenced_broker(2)]);
        let created = internal_topics::creatable(&config, CONSUMER_OFFSETS, usable_brokers(&few));
        assert_eq!(created.unwrap().replication_factor, 2);
    }

    #[test]
    fn a_topic_that_somebody_else_created_first_is_there() {
        let with = |code: ErrorCode| {
            failure(&CreatableTopicResult { error_code: code.code(), ..Default::default() })
        };
        assert_eq!(with(ErrorCode::None), None);
        assert_eq!(with(ErrorCode::TopicAlreadyExists), None);
        let refused = ErrorCode::InvalidReplicationFactor;
        assert_eq!(with(refused), Some(refused));
    }
}
