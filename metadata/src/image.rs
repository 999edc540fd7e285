//! The cluster image: the state of the metadata log at one offset.
//!
//! An image changes only through [`ClusterImage::replay`], so that images are equal on every node at equal offsets.
//! Cloning one is cheap: all maps share structure, and a change to one topic copies that topic's path only. Record
//! types whose order matters are checked: a record that contradicts the image is an error and never repaired (Kafka's
//! MetadataDelta and the controller's ControlManagers, whichever is stricter).

pub mod acls;
pub mod brokers;
pub mod client_quotas;
pub mod configs;
pub mod controllers;
pub mod delegation_tokens;
pub mod features;
pub mod partition;
pub mod partition_query;
pub mod replay_error;
pub mod scram;
pub mod topics;

use klamm_protocol::ids::ProducerId;
use klamm_protocol::metadata_record::MetadataRecord;

use self::acls::AclsImage;
use self::brokers::BrokersImage;
use self::client_quotas::ClientQuotasImage;
use self::configs::ConfigsImage;
use self::controllers::ControllersImage;
use self::delegation_tokens::DelegationTokensImage;
use self::features::FeaturesImage;
use self::replay_error::ReplayError;
use self::scram::ScramImage;
use self::topics::TopicsImage;
use crate::metadata_version::MetadataVersion;

/// An ordered map whose clones share structure.
pub type PersistentMap<K, V> = rpds::RedBlackTreeMapSync<K, V>;

/// The state of the cluster as of one offset of the metadata log (Kafka's MetadataImage).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClusterImage {
    /// Finalized feature levels.
    pub features: FeaturesImage,
    /// Registered brokers.
    pub brokers: BrokersImage,
    /// Registered controllers.
    pub controllers: ControllersImage,
    /// Topics and their partitions.
    pub topics: TopicsImage,
    /// Dynamic configurations of all resources.
    pub configs: ConfigsImage,
    /// Client quotas.
    pub client_quotas: ClientQuotasImage,
    /// The first producer id of the next block, after a block was allocated.
    pub next_producer_id: Option<ProducerId>,
    /// Access control entries.
    pub acls: AclsImage,
    /// SCRAM credentials.
    pub scram: ScramImage,
    /// Delegation tokens.
    pub delegation_tokens: DelegationTokensImage,
}

impl ClusterImage {
    /// Applies one record.
    ///
    /// Transaction markers have no effect here; [`crate::loader::MetadataLoader`] handles them.
    pub fn replay(&mut self, record: &MetadataRecord) -> Result<(), ReplayError> {
        match record {
            MetadataRecord::RegisterBroker(record) => self.brokers.replay_register(record),
            MetadataRecord::UnregisterBroker(record) => self.brokers.replay_unregister(record),
            MetadataRecord::Topic(record) => self.topics.replay_topic(record),
            MetadataRecord::Partition(record) => self.topics.replay_partition(record),
            MetadataRecord::Config(record) => self.configs.replay(record),
            MetadataRecord::PartitionChange(record) => self.topics.replay_change(record),
            MetadataRecord::FenceBroker(record) => self.brokers.replay_fence(record),
            MetadataRecord::UnfenceBroker(record) => self.brokers.replay_unfence(record),
            MetadataRecord::RemoveTopic(record) => {
                let name = self.topics.replay_remove(record)?;
                self.configs.remove_topic(&name);
                Ok(())
            }
            MetadataRecord::DelegationToken(record) => {
                self.delegation_tokens.replay(record);
                Ok(())
            }
            MetadataRecord::UserScramCredential(record) => self.scram.replay(record),
            MetadataRecord::FeatureLevel(record) => self.features.replay(record),
            MetadataRecord::ClientQuota(record) => {
                self.client_quotas.replay(record);
                Ok(())
            }
            MetadataRecord::ProducerIds(record) => {
                self.replay_producer_ids(record.next_producer_id)
            }
            MetadataRecord::BrokerRegistrationChange(record) => self.brokers.replay_change(record),
            MetadataRecord::AccessControlEntry(record) => self.acls.replay(record),
            MetadataRecord::RemoveAccessControlEntry(record) => self.acls.replay_remove(record),
            MetadataRecord::RemoveUserScramCredential(record) => self.scram.replay_remove(record),
            MetadataRecord::RemoveDelegationToken(record) => {
                self.delegation_tokens.replay_remove(record);
                Ok(())
            }
            MetadataRecord::RegisterController(record) => self.controllers.replay(record),
            MetadataRecord::ClearElr(record) => self.topics.replay_clear_elr(record),
            MetadataRecord::NoOp(_)
            | MetadataRecord::ZkMigrationState(_)
            | MetadataRecord::BeginTransaction(_)
            | MetadataRecord::EndTransaction(_)
            | MetadataRecord::AbortTransaction(_) => Ok(()),
        }
    }

    fn replay_producer_ids(&mut self, next: ProducerId) -> Result<(), ReplayError> {
        match self.next_producer_id {
            Some(current) if next <= current => {
                Err(ReplayError::ProducerIdsGoBack { current, replayed: next })
            }
            _ => {
                self.next_producer_id = Some(next);
                Ok(())
            }
        }
    }

    /// The finalized metadata.version; [`MetadataVersion::MINIMUM`] before the first record.
    pub fn metadata_version(&self) -> MetadataVersion {
        self.features.metadata_version().unwrap_or(MetadataVersion::MINIMUM)
    }
}

#[cfg(test)]
mod tests;
