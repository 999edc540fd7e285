//! The active controller: decides requests and timeouts, and returns metadata records.
//!
//! A decision reads the newest image, uncommitted records included, and does not change it. Only [`Controller::replay`]
//! changes it, for this controller's own records and for those of other controllers. The controller's other state (such
//! as the time of each broker's last heartbeat) is lost when it resigns, as in Kafka.
//!
//! [`crate::quorum_controller::QuorumController`] does the rest: it calls the controller only while this node leads,
//! appends an outcome's records, replays them at once with their offsets, and holds the response until they are
//! committed.

pub mod activation;
pub mod alter_partition;
pub mod assignment;
pub mod broker_registration;
pub mod configs;
pub mod controller_registration;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_topics;
pub mod directories;
pub mod effective_configs;
pub mod election_requests;
pub mod features;
pub mod heartbeat;
pub mod heartbeats;
pub mod leader_and_isr;
pub mod outcome;
pub mod partition_change;
pub mod placement;
pub mod producer_ids;
pub mod reassignment;
pub mod reassignment_requests;
pub mod tick;
pub mod unregister;

#[cfg(test)]
pub(crate) mod testing;

use std::collections::BTreeMap;

use bytestring::ByteString;
use klamm_protocol::ids::{BrokerId, Offset};
use klamm_protocol::metadata_record::MetadataRecord;

use self::heartbeats::{BrokerHeartbeats, SessionTimeouts};
use crate::config_def::BrokerConfigs;
use crate::image::ClusterImage;
use crate::image::brokers::VersionRange;
use crate::image::configs::{ConfigResource, ConfigResourceType};
use crate::image::replay_error::ReplayError;
use crate::loader::MetadataLoader;

/// The most records of one user's request (`QuorumController.MAX_RECORDS_PER_USER_OP`).
pub const MAX_RECORDS_PER_USER_OP: usize = 10_000;

/// The controller's settings from the node's configuration.
#[derive(Debug, Clone)]
pub struct ControllerSettings {
    /// This node.
    pub node_id: BrokerId,
    /// The cluster id that a registration must have.
    pub cluster_id: ByteString,
    /// The nodes of the metadata quorum.
    pub quorum_voters: Vec<BrokerId>,
    /// The finalized kraft.version, which lives outside the image.
    pub kraft_version: i16,
    /// Feature levels that this node supports.
    pub supported_features: BTreeMap<ByteString, VersionRange>,
    /// The first records of a new cluster, from `bootstrap.checkpoint`.
    pub bootstrap_records: Vec<MetadataRecord>,
    /// This node's static configuration.
    pub static_configs: BrokerConfigs,
    /// When a broker that sends no heartbeats is fenced.
    pub session_timeouts: SessionTimeouts,
    /// `metadata.max.idle.interval.ms`: how often a NoOpRecord is written; 0 for never.
    pub max_idle_interval_ms: i64,
    /// `leader.imbalance.check.interval.seconds`, in milliseconds; 0 with
    /// `auto.leader.rebalance.enable=false`.
    pub leader_imbalance_check_interval_ms: i64,
    /// `unclean.leader.election.interval.ms`.
    pub unclean_leader_election_interval_ms: i64,
}

impl ControllerSettings {
    /// The settings of a quorum of one node at kraft.version 0, with the intervals of `configs`.
    pub fn single_node(
        node_id: BrokerId,
        cluster_id: ByteString,
        supported_features: BTreeMap<ByteString, VersionRange>,
        bootstrap_records: Vec<MetadataRecord>,
        configs: BrokerConfigs,
    ) -> Self {
        let imbalance_check_ms = if configs.boolean("auto.leader.rebalance.enable") {
            configs.long("leader.imbalance.check.interval.seconds").saturating_mul(1_000)
        } else {
            0
        };
        Self {
            node_id,
            cluster_id,
            quorum_voters: vec![node_id],
            kraft_version: 0,
            supported_features,
            bootstrap_records,
            session_timeouts: SessionTimeouts {
                session_ms: i64::from(configs.int("broker.session.timeout.ms")),
                silence_ms: i64::from(configs.int("failover.broker.silence.ms")),
                grace_ms: i64::from(configs.int("failover.broker.grace.ms")),
            },
            max_idle_interval_ms: i64::from(configs.int("metadata.max.idle.interval.ms")),
            leader_imbalance_check_interval_ms: imbalance_check_ms,
            unclean_leader_election_interval_ms: configs
                .long("unclean.leader.election.interval.ms"),
            static_configs: configs,
        }
    }
}

/// The controller's state: the newest image, and volatile state while it leads.
#[derive(Debug)]
pub struct Controller {
    settings: ControllerSettings,
    loader: MetadataLoader,
    /// This node's configuration in force, dynamic values included: the defaults of topics.
    broker_configs: BrokerConfigs,
    active: Option<Active>,
}

/// The state of an active controller only.
#[derive(Debug)]
struct Active {
    heartbeats: BrokerHeartbeats,
    timers: tick::Timers,
}

impl Controller {
    /// A controller that does not lead, with the state that was replayed so far.
    pub fn new(settings: ControllerSettings, loader: MetadataLoader) -> Self {
        let broker_configs = settings.static_configs.clone();
        let mut controller = Self { settings, loader, broker_configs, active: None };
        controller.refresh_broker_configs();
        controller
    }

    /// Applies a record of the metadata log. An error is fatal: the node must stop.
    pub fn replay(&mut self, record: &MetadataRecord, offset: Offset) -> Result<(), ReplayError> {
        self.loader.replay(record, offset)?;
        if changes_broker_configs(record) {
            self.refresh_broker_configs();
        }
        Ok(())
    }

    /// Replaces the state by that of a snapshot or of the committed records, after the uncommitted records of a lost
    /// leadership were truncated.
    pub fn reset(&mut self, loader: MetadataLoader) {
        self.loader = loader;
        self.refresh_broker_configs();
    }

    /// The node no longer leads. The caller resets the state if uncommitted records are truncated.
    pub fn on_resigned(&mut self) {
        self.active = None;
    }

    /// The voters or kraft.version of the quorum have changed.
    pub fn on_quorum(&mut self, kraft_version: i16, voters: impl Iterator<Item = BrokerId>) {
        self.settings.kraft_version = kraft_version;
        self.settings.quorum_voters.clear();
        self.settings.quorum_voters.extend(voters);
    }

    /// Whether this controller leads.
    pub fn is_active(&self) -> bool {
        self.active.is_some()
    }

    /// The state, with its end offset in the log.
    pub fn loader(&self) -> &MetadataLoader {
        &self.loader
    }

    /// The newest image, uncommitted records included.
    pub fn image(&self) -> &ClusterImage {
        self.loader.newest()
    }

    /// The controller's configuration.
    pub fn settings(&self) -> &ControllerSettings {
        &self.settings
    }

    fn refresh_broker_configs(&mut self) {
        let configs = &self.loader.newest().configs;
        let all = configs.of(&ConfigResource::all_brokers()).clone();
        let own = configs.of(&ConfigResource::broker(self.settings.node_id)).clone();
        // Values that this node cannot use are ignored, as the brokers ignore them.
        drop(self.broker_configs.set_dynamic_default(all));
        drop(self.broker_configs.set_dynamic_broker(own));
    }

    fn heartbeats(&self) -> &BrokerHeartbeats {
        &self.active.as_ref().expect("only an active controller makes decisions").heartbeats
    }

    fn heartbeats_mut(&mut self) -> &mut BrokerHeartbeats {
        &mut self.active.as_mut().expect("only an active controller makes decisions").heartbeats
    }
}

/// Whether a record may change the dynamic configuration of brokers. An aborted transaction reverts such changes.
fn changes_broker_configs(record: &MetadataRecord) -> bool {
    match record {
        MetadataRecord::Config(record) => record.resource_type == ConfigResourceType::Broker.id(),
        MetadataRecord::AbortTransaction(_) => true,
        _ => false,
    }
}
