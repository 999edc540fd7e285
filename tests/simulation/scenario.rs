//! What a seed makes of the cluster: how many nodes, how it is configured, how bad the weather is.
//!
//! Timeouts are Kafka's in the same proportions but shorter, so that a run of a few seconds of the world's
//! time holds many of everything.

use crate::plant::Plant;
use crate::random::Random;
use bytestring::ByteString;
use klamm_metadata::config_def::{BrokerConfigs, Configs};
use klamm_metadata::controller::ControllerSettings;
use klamm_metadata::controller::activation::FeatureLevels;
use klamm_metadata::controller::heartbeats::SessionTimeouts;
use klamm_metadata::image::brokers::VersionRange;
use klamm_metadata::image::features::ELIGIBLE_LEADER_REPLICAS_VERSION;
use klamm_metadata::metadata_version::MetadataVersion;
use klamm_protocol::Uuid;
use klamm_protocol::ids::BrokerId;
use klamm_replication::partition::LeaderConfig;
use klamm_replication::quorum::{
    Address, ControlChange, Endpoints, KRaftVersionRange, Membership, QuorumConfig, ReplicaKey,
    Voter, VoterSet,
};
use std::collections::BTreeMap;

pub(crate) const LISTENER: &str = "CONTROLLER";
pub(crate) const CLUSTER_ID: &str = "3Db5QLSqSZieL3rJBUUegA";
/// `replica.lag.time.max.ms`, and the much longer one that leaves the removal of silent followers to
/// `failover.follower.silence.ms`.
pub(crate) const LAG_MS: i64 = 300;
pub(crate) const LONG_LAG_MS: i64 = 20 * LAG_MS;
/// `failover.follower.silence.ms`
pub(crate) const FOLLOWER_SILENCE_MS: i64 = 100;
/// `broker.session.timeout.ms`
pub(crate) const SESSION_MS: i64 = 450;
/// `failover.broker.silence.ms`, of brokers with quick heartbeats.
pub(crate) const SILENCE_MS: i64 = 300;
/// `failover.broker.grace.ms`
const GRACE_MS: i64 = 30;
/// `broker.heartbeat.interval.ms`
pub(crate) const HEARTBEAT_MS: i64 = 80;
/// `controller.quorum.fetch.timeout.ms`
pub(crate) const FETCH_TIMEOUT_MS: u32 = 600;
/// After this a caller asks again.
pub(crate) const CALL_TIMEOUT_MS: i64 = 150;
/// `group.min.session.timeout.ms`, which all members use.
pub(crate) const MEMBER_SESSION_MS: i32 = 500;
/// `max.poll.interval.ms`, which is the rebalance timeout.
pub(crate) const REBALANCE_MS: i32 = 400;

/// A cluster before it starts.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    /// The voters are the first ones at first; the others are brokers only, or may become voters.
    pub(crate) nodes: Vec<BrokerId>,
    pub(crate) voters: Vec<BrokerId>,
    /// Whether voters come and go (KIP-853).
    pub(crate) changes_voters: bool,
    pub(crate) min_insync_replicas: usize,
    /// `replica.lag.time.max.ms`
    pub(crate) lag_ms: i64,
    membership: Membership,
    pub(crate) producers: usize,
    pub(crate) members: usize,
    /// In a hundred messages, how many are lost.
    pub(crate) loss: u64,
    /// Longest times between two faults of a kind.
    pub(crate) crash_every_ms: i64,
    pub(crate) partition_every_ms: i64,
    /// A sync fails once in so many.
    pub(crate) disk_failure_odds: u64,
    /// Whether disks are replaced by empty ones. Without eligible leader replicas the last one in sync leads, whatever
    /// became of its disk; and who is made a voter for the disk that it has lost can take the quorum with it.
    pub(crate) replaces_disks: bool,
    /// How many log directories each node has.
    pub(crate) directories: BTreeMap<BrokerId, u8>,
    /// In a hundred starts, how many find one of several directories away; and whether they fail and are replaced.
    pub(crate) directories_away: u64,
    pub(crate) directories_fail: bool,
    /// Whether wall clocks are set.
    pub(crate) clocks_jump: bool,
    /// Whether disks run out of room for a while.
    pub(crate) disks_fill: bool,
    /// Whether batches on disks become unreadable.
    pub(crate) disks_decay: bool,
    /// Whether an operator moves replicas between log directories.
    pub(crate) replicas_move: bool,
    settings: ControllerSettings,
}

impl Scenario {
    /// `upkeep` decides about damage and moves: what the other source makes of a seed it has made of it for long.
    pub(crate) fn random(random: &mut Random, upkeep: &mut Random) -> Self {
        let voter_count = if random.chance(15) { 1 } else { 3 };
        let node_count = if random.chance(40) { 4 } else { 3 };
        let nodes: Vec<BrokerId> = (1..=node_count).collect();
        let voters: Vec<BrokerId> = (1..=voter_count).collect();
        let min_insync_replicas = if random.chance(25) { 1 } else { 2 };
        let with_directories = random.chance(50);
        let changes_voters = with_directories && random.chance(60);
        let membership = membership(&voters, with_directories);
        let kraft_version = *membership.kraft_version.latest();
        let elr = random.chance(60);
        let most = if random.chance(75) { 3 } else { 1 };
        let count = |_| u8::try_from(random.between(1, most)).expect("few");
        let counts: Vec<u8> = nodes.iter().map(count).collect();
        let settings = settings(&voters, (kraft_version, elr), min_insync_replicas, random);
        let node_ids = nodes.clone().into_iter();
        Self {
            nodes,
            voters,
            changes_voters,
            min_insync_replicas,
            lag_ms: if random.chance(50) { LAG_MS } else { LONG_LAG_MS },
            membership,
            producers: 2,
            members: usize::try_from(random.between(1, 3)).expect("a few"),
            loss: random.below(5),
            crash_every_ms: random.between(400, 3_000),
            partition_every_ms: random.between(600, 3_000),
            disk_failure_odds: if random.chance(30) { 400 } else { u64::MAX },
            replaces_disks: elr && min_insync_replicas > 1 && !changes_voters,
            directories: node_ids.zip(counts).collect(),
            directories_away: if random.chance(60) { 40 } else { 0 },
            directories_fail: random.chance(60),
            clocks_jump: random.chance(50),
            disks_fill: random.chance(50),
            disks_decay: upkeep.chance(40),
            replicas_move: upkeep.chance(50),
            settings,
        }
    }

    /// What a node's quorum is configured with.
    pub(crate) fn quorum(&self, id: BrokerId, directory: Uuid, seed: u64) -> QuorumConfig {
        let known = if self.changes_voters { &self.nodes } else { &self.voters };
        let others = known.iter().filter(|other| **other != id);
        QuorumConfig {
            local_endpoints: endpoints(id),
            can_become_voter: known.contains(&id),
            bootstrap_servers: others.map(|other| address(*other)).collect(),
            election_timeout_ms: 150,
            fetch_timeout_ms: FETCH_TIMEOUT_MS,
            election_backoff_max_ms: 100,
            // Longer than the half second for which a leader keeps a fetch waiting.
            request_timeout_ms: 550,
            seed,
            ..QuorumConfig::with_defaults(
                ReplicaKey::new(id, directory),
                LISTENER.into(),
                CLUSTER_ID.into(),
            )
        }
    }

    /// What a node is formatted with: a node that was no voter at first knows none.
    pub(crate) fn initial_membership(&self, id: BrokerId) -> Membership {
        match self.changes_voters && !self.voters.contains(&id) {
            true => Membership::new(VoterSet::default()),
            false => self.membership.clone(),
        }
    }

    /// What a node leads partitions with.
    pub(crate) fn leader(&self, id: BrokerId, plant: Plant) -> LeaderConfig {
        LeaderConfig {
            broker_id: id,
            min_insync_replicas: match plant {
                Plant::MinIsrIgnored => 1,
                _ => self.min_insync_replicas,
            },
            replica_lag_time_max_ms: self.lag_ms,
            follower_silence_ms: FOLLOWER_SILENCE_MS,
            flush_before_ack: true,
        }
    }

    /// What a node's controller is configured with.
    pub(crate) fn controller(&self, id: BrokerId) -> ControllerSettings {
        ControllerSettings { node_id: id, ..self.settings.clone() }
    }
}

fn settings(
    voters: &[BrokerId],
    (kraft_version, elr): (i16, bool),
    min_insync_replicas: usize,
    random: &mut Random,
) -> ControllerSettings {
    let others = [(ByteString::from(ELIGIBLE_LEADER_REPLICAS_VERSION), i16::from(elr))];
    let levels = FeatureLevels {
        metadata_version: MetadataVersion::LATEST,
        others: others.into_iter().collect(),
    };
    let configs: Configs =
        [("min.insync.replicas".into(), min_insync_replicas.to_string().into())].into();
    let configs = BrokerConfigs::new(configs).expect("a number of replicas");
    let single = ControllerSettings::single_node(
        voters[0],
        CLUSTER_ID.into(),
        supported_features(),
        levels.bootstrap_records(),
        configs,
    );
    ControllerSettings {
        quorum_voters: voters.to_vec(),
        kraft_version,
        session_timeouts: SessionTimeouts {
            session_ms: SESSION_MS,
            silence_ms: SILENCE_MS,
            grace_ms: GRACE_MS,
        },
        max_idle_interval_ms: 200,
        leader_imbalance_check_interval_ms: if random.chance(50) { 700 } else { 0 },
        ..single
    }
}

/// What every node supports.
pub(crate) fn supported_features() -> BTreeMap<ByteString, VersionRange> {
    let features = [
        ("metadata.version", 7, 30),
        ("kraft.version", 0, 1),
        ("eligible.leader.replicas.version", 0, 1),
        ("group.version", 0, 1),
        ("transaction.version", 0, 2),
    ];
    let range = |(name, min, max)| (ByteString::from_static(name), VersionRange { min, max });
    features.into_iter().map(range).collect()
}

/// A node's replica of the metadata log, on its first disk.
pub(crate) fn key(id: BrokerId) -> ReplicaKey {
    ReplicaKey::new(id, directory(id, 0))
}

/// Some log directories of a node, the first ones after so many others.
pub(crate) fn directories(id: BrokerId, first: u8, count: u8) -> impl Iterator<Item = Uuid> {
    (first..first + count).map(move |number| directory(id, number))
}

/// A log directory of a node.
pub(crate) fn directory(id: BrokerId, number: u8) -> Uuid {
    let id = u8::try_from(id).expect("a small id");
    Uuid::from_bytes([9, number, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, id])
}

pub(crate) fn endpoints(id: BrokerId) -> Endpoints {
    Endpoints::single(LISTENER.into(), address(id))
}

fn address(id: BrokerId) -> Address {
    Address { host: "localhost".into(), port: u16::try_from(id).expect("a small id") }
}

/// The voters, from the configuration or (with directories) from formatting.
fn membership(voters: &[BrokerId], with_directories: bool) -> Membership {
    let ids = voters.iter().copied();
    if !with_directories {
        let addresses = ids.map(|id| (id, address(id)));
        return Membership::new(VoterSet::from_static(&LISTENER.into(), addresses));
    }
    let voters = VoterSet::new(ids.map(|id| Voter {
        key: key(id),
        endpoints: endpoints(id),
        supported_kraft_version: KRaftVersionRange { min: 0, max: 1 },
    }));
    let mut membership = Membership::new(VoterSet::default());
    membership.apply(Membership::BOOTSTRAP_OFFSET, ControlChange::KRaftVersion(1));
    membership.apply(Membership::BOOTSTRAP_OFFSET, ControlChange::Voters(voters));
    membership
}
