//! Activation as the active controller: bootstrap records for an empty log, the abort of a transaction that the last
//! controller left open (Kafka's ActivationRecordsGenerator).

use bytestring::ByteString;
use klamm_protocol::messages::abort_transaction_record::AbortTransactionRecord;
use klamm_protocol::messages::begin_transaction_record::BeginTransactionRecord;
use klamm_protocol::messages::config_record::ConfigRecord;
use klamm_protocol::messages::end_transaction_record::EndTransactionRecord;
use klamm_protocol::messages::feature_level_record::FeatureLevelRecord;
use klamm_protocol::metadata_record::MetadataRecord;

use super::effective_configs::MIN_INSYNC_REPLICAS;
use super::heartbeats::BrokerHeartbeats;
use super::outcome::Outcome;
use super::tick::Timers;
use super::{Active, Controller};
use crate::image::configs::ConfigResource;
use crate::image::features::ELIGIBLE_LEADER_REPLICAS_VERSION;
use crate::metadata_version::MetadataVersion;

/// The feature levels of a new cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureLevels {
    /// The level of metadata.version.
    pub metadata_version: MetadataVersion,
    /// The levels of the other features. Level 0 is the same as absence.
    pub others: std::collections::BTreeMap<ByteString, i16>,
}

impl FeatureLevels {
    /// The records of a new cluster's `bootstrap.checkpoint`, as `kafka-storage.sh format` writes them:
    /// metadata.version, then the others by name, without kraft.version, which is a control record.
    pub fn bootstrap_records(&self) -> Vec<MetadataRecord> {
        let metadata_version =
            (ByteString::from_static(MetadataVersion::FEATURE_NAME), self.metadata_version.level());
        let others = self.others.iter().filter(|(_, level)| **level > 0);
        std::iter::once(metadata_version)
            .chain(others.map(|(name, level)| (name.clone(), *level)))
            .map(|(name, feature_level)| {
                MetadataRecord::FeatureLevel(FeatureLevelRecord { name, feature_level })
            })
            .collect()
    }
}

impl Controller {
    /// Starts to lead. Every unfenced broker gets a new session.
    pub fn on_elected(&mut self, now_ms: i64) -> Outcome<()> {
        let mut heartbeats = BrokerHeartbeats::new(self.settings.session_timeouts);
        for broker in self.image().brokers.iter().filter(|broker| !broker.fenced) {
            heartbeats.assume(broker.id, broker.epoch, now_ms);
        }
        let timers = Timers::start(&self.settings, now_ms);
        self.active = Some(Active { heartbeats, timers });
        // An open transaction is aborted, so its records do not count.
        if self.loader.stable().features.metadata_version().is_none() {
            self.bootstrap()
        } else {
            self.abort_open_transaction()
        }
    }

    fn bootstrap(&self) -> Outcome<()> {
        let bootstrap = &self.settings.bootstrap_records;
        let level_of = |feature: &str| {
            bootstrap.iter().rev().find_map(|record| match record {
                MetadataRecord::FeatureLevel(record) if record.name == feature => {
                    Some(record.feature_level)
                }
                _ => None,
            })
        };
        let version = level_of(MetadataVersion::FEATURE_NAME)
            .and_then(MetadataVersion::from_level)
            .expect("the bootstrap records name a known metadata.version");
        let mut records = bootstrap.clone();
        if level_of(ELIGIBLE_LEADER_REPLICAS_VERSION) > Some(0) {
            records.push(self.cluster_min_insync_replicas());
        }
        if !version.is_metadata_transaction_supported() {
            return Outcome::atomic(records, ());
        }
        let mut transaction = self.abort_open_transaction().records;
        let name = Some(ByteString::from_static("Bootstrap records"));
        transaction.push(MetadataRecord::BeginTransaction(BeginTransactionRecord { name }));
        transaction.append(&mut records);
        transaction.push(MetadataRecord::EndTransaction(EndTransactionRecord::default()));
        Outcome::spread(transaction, ())
    }

    fn abort_open_transaction(&self) -> Outcome<()> {
        if self.loader.transaction_start_offset().is_none() {
            return Outcome::answer(());
        }
        let reason = Some(ByteString::from_static("Controller failover"));
        let record = MetadataRecord::AbortTransaction(AbortTransactionRecord { reason });
        Outcome::atomic(vec![record], ())
    }

    /// Eligible leader replicas are only safe if all nodes have the same min.insync.replicas.
    pub(super) fn cluster_min_insync_replicas(&self) -> MetadataRecord {
        let all_brokers = ConfigResource::all_brokers();
        MetadataRecord::Config(ConfigRecord {
            resource_type: all_brokers.type_.id(),
            resource_name: all_brokers.name,
            name: ByteString::from_static(MIN_INSYNC_REPLICAS),
            value: Some(self.static_min_insync_replicas().into()),
        })
    }
}

#[cfg(test)]
mod tests;
