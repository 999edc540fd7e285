//! The KRaft quorum as a pure state machine: who leads the metadata log and what of it is
//! committed (KIP-595, 630, 853, 996; Kafka's `KafkaRaftClient` and `QuorumState`).
//!
//! The shell passes events in and carries the returned effects out, in order (see [`Effect`]). The log, its
//! files and the network are the shell's; the core keeps what it must know of them. One voter is
//! not a special case: it wins every election by its own vote, at once.
//!
//! Invariants:
//! - at most one vote in an epoch, on disk before it is told;
//! - a leader never leads the same epoch twice, across restarts as well (KAFKA-10527);
//! - nothing is committed that a majority of the voters does not hold on disk;
//! - the log is never cut below what this node knows to be committed, in this life or from the one before.

mod add_voter;
mod control_batch;
mod effect;
mod election;
mod evidence;
mod fetching;
mod inbound;
mod jitter;
mod joining;
mod kraft_upgrade;
mod leader;
mod leading;
mod log_history;
mod log_position;
pub mod message;
mod parked_fetch;
mod remove_voter;
mod requests;
mod responses;
mod role;
mod sending;
mod snapshot;
mod transition;
mod update_voter;
mod vote_store;
mod voter_change;
mod voter_change_error;
mod voters;
pub mod wire;

#[cfg(test)]
mod lost_log_tests;
#[cfg(test)]
mod single_voter_tests;
#[cfg(test)]
mod three_voter_tests;
#[cfg(test)]
mod voter_change_tests;

pub use control_batch::{ControlBatchError, EpochStartBatch, MembershipBatch, membership_records};
pub use effect::{
    Anomaly, AppendBatch, CorrelationId, Destination, Effect, FlushTicket, RequestId,
};
pub use election::Election;
pub use kraft_upgrade::KRaftUpgradeError;
pub use leader::{MAX_OBSERVERS, OBSERVER_SESSION_TIMEOUT_MS, Progress};
pub use leading::{NotLeader, QuorumDescription};
pub use log_history::{ControlChange, LogHistory, Membership};
pub use log_position::LogPosition;
pub use parked_fetch::MAX_PARKED_FETCHES;
pub use role::RoleName;
pub use vote_store::{StoredElection, StoredFormat, VoteStoreError};
pub use voters::{Address, Endpoints, KRaftVersionRange, ReplicaKey, Voter, VoterSet};

use crate::OffsetAndEpoch;
use bytestring::ByteString;
use jitter::Jitter;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};
use parked_fetch::ParkedFetches;
use requests::Requests;
use role::Role;

/// What the quorum needs of the configuration. Times are in milliseconds; the names are those of
/// Kafka's keys.
#[derive(Debug, Clone)]
pub struct QuorumConfig {
    /// `node.id`, and the directory id of `metadata.log.dir`.
    pub local: ReplicaKey,
    /// Where others reach this node's controller listeners; empty on a broker.
    pub local_endpoints: Endpoints,
    /// The first of `controller.listener.names`: over it the quorum talks.
    pub listener: ByteString,
    pub cluster_id: ByteString,
    /// Whether this node has the controller role, and so must sync what it fetches.
    pub can_become_voter: bool,
    /// The metadata log is empty where others of this node's files are in use: it was lost. As a voter this node neither
    /// votes nor campaigns until it has caught up with a leader, for it may have acknowledged what its log held.
    pub must_catch_up: bool,
    /// `controller.quorum.auto.join.enable`: an observer that can become a voter makes itself one
    /// (KIP-1186).
    pub auto_join: bool,
    /// The others that can tell who leads: `controller.quorum.bootstrap.servers`, or the
    /// addresses in `controller.quorum.voters`, without this node.
    pub bootstrap_servers: Vec<Address>,
    /// `controller.quorum.election.timeout.ms`
    pub election_timeout_ms: u32,
    /// `controller.quorum.fetch.timeout.ms`
    pub fetch_timeout_ms: u32,
    /// `controller.quorum.election.backoff.max.ms`
    pub election_backoff_max_ms: u32,
    /// `controller.quorum.request.timeout.ms`
    pub request_timeout_ms: u32,
    /// `controller.quorum.retry.backoff.ms`
    pub retry_backoff_ms: u32,
    /// `controller.quorum.fetch.max.bytes`
    pub fetch_max_bytes: i32,
    /// `controller.quorum.fetch.snapshot.max.bytes`
    pub fetch_snapshot_max_bytes: i32,
    /// Spreads election timeouts. Draw it at random, or fix it for a reproducible run.
    pub seed: u64,
}

impl QuorumConfig {
    /// Kafka's defaults around an identity.
    pub fn with_defaults(local: ReplicaKey, listener: ByteString, cluster_id: ByteString) -> Self {
        Self {
            local,
            local_endpoints: Endpoints::default(),
            listener,
            cluster_id,
            can_become_voter: true,
            must_catch_up: false,
            auto_join: false,
            bootstrap_servers: Vec::new(),
            election_timeout_ms: 1_000,
            fetch_timeout_ms: 2_000,
            election_backoff_max_ms: 1_000,
            request_timeout_ms: 2_000,
            retry_backoff_ms: 20,
            fetch_max_bytes: 1024 * 1024,
            fetch_snapshot_max_bytes: 1024 * 1024,
            seed: 0,
        }
    }
}

/// What the shell has found on disk.
#[derive(Debug, Clone)]
pub struct Boot {
    /// `quorum-state`; None if there is no such file.
    pub election: Option<StoredElection>,
    /// The recovered log.
    pub log: LogPosition,
    /// The configured voters, and what the control records of the snapshot and of the whole log
    /// (committed or not) say.
    pub membership: Membership,
}

/// How long a leader keeps a follower's fetch waiting for news (`MAX_FETCH_WAIT_MS` in Kafka).
const FETCH_MAX_WAIT_MS: i32 = 500;

/// One replica of the metadata log.
#[derive(Debug)]
pub struct Quorum {
    config: QuorumConfig,
    election: Election,
    /// What `quorum-state` holds; a missing file says the same as one of epoch 0.
    persisted: StoredElection,
    announced_leader: Option<(LeaderEpoch, Option<BrokerId>)>,
    leader_endpoints: Endpoints,
    /// The leader that was followed last, if it fell silent.
    lost_leader: Option<BrokerId>,
    role: Role,
    membership: Membership,
    log: LogPosition,
    high_watermark: Option<Offset>,
    /// See [`QuorumConfig::must_catch_up`]. The only voter has nobody to catch up with.
    must_catch_up: bool,
    flush_in_flight: Option<FlushTicket>,
    /// `LoadSnapshot` has been said; nothing may happen before it has been done.
    loading_snapshot: Option<OffsetAndEpoch>,
    requests: Requests,
    parked: ParkedFetches,
    jitter: Jitter,
    /// How far the wall clock is ahead of the steady one.
    wall_ahead_ms: i64,
    effects: Vec<Effect>,
}

impl Quorum {
    /// The quorum as it is after a restart, and the first things to do. The only voter leads a
    /// new epoch when this returns.
    pub fn start(config: QuorumConfig, boot: Boot, now_ms: i64) -> (Self, Vec<Effect>) {
        let voters = boot.membership.voters.latest();
        let kraft_version = *boot.membership.kraft_version.latest();
        let nothing_stored = StoredElection::new(Election::NEVER, kraft_version, voters);
        let persisted = boot.election.unwrap_or(nothing_stored);
        let must_catch_up = config.must_catch_up && !voters.is_only_voter(&config.local);
        let mut quorum = Self {
            must_catch_up,
            requests: Requests::new(
                config.request_timeout_ms.into(),
                config.retry_backoff_ms.into(),
            ),
            jitter: Jitter::new(config.seed),
            config,
            election: persisted.election,
            persisted,
            announced_leader: None,
            leader_endpoints: Endpoints::default(),
            lost_leader: None,
            role: Role::Unattached { election_deadline_ms: i64::MAX },
            membership: boot.membership,
            log: boot.log,
            high_watermark: None,
            flush_in_flight: None,
            loading_snapshot: None,
            parked: ParkedFetches::default(),
            wall_ahead_ms: 0,
            effects: Vec::new(),
        };
        quorum.boot(now_ms);
        let effects = quorum.proceed(now_ms);
        (quorum, effects)
    }

    /// Time has passed. Call at [`Self::next_deadline_ms`] at the latest; earlier does no harm.
    pub fn on_tick(&mut self, now_ms: i64) -> Vec<Effect> {
        self.assert_not_loading();
        self.proceed(now_ms)
    }

    /// The events' `now_ms` is the steady clock's. What is written is stamped with the wall clock, which
    /// is so far ahead of it, or behind.
    pub fn set_wall_ahead(&mut self, wall_ahead_ms: i64) {
        self.wall_ahead_ms = wall_ahead_ms;
    }

    /// The timestamp of what is written at `now_ms`.
    fn wall_ms(&self, now_ms: i64) -> i64 {
        now_ms.saturating_add(self.wall_ahead_ms)
    }

    /// When `on_tick` must be called next; `i64::MAX` if only an event can change anything.
    pub fn next_deadline_ms(&self) -> i64 {
        let mut deadline_ms = self.role.next_deadline_ms(self.may_campaign());
        for other in [self.requests.next_deadline_ms(), self.parked.next_deadline_ms()] {
            deadline_ms = deadline_ms.min(other.unwrap_or(i64::MAX));
        }
        deadline_ms
    }

    /// Everything below the ticket's end has been synced.
    pub fn on_flushed(&mut self, now_ms: i64, ticket: FlushTicket) -> Vec<Effect> {
        self.assert_not_loading();
        if self.flush_in_flight == Some(ticket) {
            self.flush_in_flight = None;
        }
        if self.log.flushed(ticket) {
            self.count_own_flush();
        }
        self.proceed(now_ms)
    }

    pub fn epoch(&self) -> LeaderEpoch {
        self.election.epoch
    }

    /// Who leads the current epoch, as far as this node knows. A leader that has resigned still
    /// counts: the epoch had no other.
    pub fn leader_id(&self) -> Option<BrokerId> {
        self.election.leader_id
    }

    /// The leader that this node followed before it campaigned, if it fell silent rather than resigned.
    pub fn lost_leader(&self) -> Option<BrokerId> {
        self.lost_leader
    }

    pub fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// The role, for metrics and logs (`raft-metrics: current-state`).
    pub fn role(&self) -> RoleName {
        self.role.name(self.is_voter())
    }

    /// Below it everything is committed; None until this process has learnt of one.
    pub fn high_watermark(&self) -> Option<Offset> {
        self.high_watermark
    }

    /// Whether this node, a voter, waits for a leader before it votes.
    pub fn must_catch_up(&self) -> bool {
        self.must_catch_up && self.is_voter()
    }

    pub fn log(&self) -> &LogPosition {
        &self.log
    }

    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    pub fn election(&self) -> &Election {
        &self.election
    }

    pub fn leader_endpoints(&self) -> &Endpoints {
        &self.leader_endpoints
    }

    fn voters(&self) -> &VoterSet {
        self.membership.voters.latest()
    }

    fn is_voter(&self) -> bool {
        self.voters().is_voter(&self.config.local)
    }

    /// Whether this node stands for election when it hears of no leader: as a voter, or while its
    /// own removal may still have to be committed by it. A leader that had appended its removal,
    /// and then lost its leadership, could otherwise be the only one with a log long enough to win
    /// and not be allowed to (Raft's dissertation, 4.2.2; Kafka stands still there).
    fn may_campaign(&self) -> bool {
        let voters = &self.membership.voters;
        let in_snapshot = self.log.latest_snapshot.map(|snapshot| snapshot.offset);
        let uncommitted = voters.latest_offset() >= self.high_watermark.max(in_snapshot);
        let was_voter = voters.previous().is_some_and(|former| former.is_voter(&self.config.local));
        !self.must_catch_up && (self.is_voter() || (uncommitted && was_voter))
    }

    /// Roles and log offsets that change while the log is being replaced would contradict it.
    fn assert_not_loading(&self) {
        assert!(self.loading_snapshot.is_none(), "on_snapshot_loaded follows LoadSnapshot at once");
    }

    /// Lets the role do what time and state now call for, and hands the effects over.
    fn proceed(&mut self, now_ms: i64) -> Vec<Effect> {
        self.expire_requests(now_ms);
        if self.loading_snapshot.is_some() {
            return std::mem::take(&mut self.effects);
        }
        self.expire_voter_change(now_ms);
        while self.expire_role(now_ms) {}
        self.announce_leadership();
        self.expire_parked_fetches(now_ms);
        self.flush_if_needed();
        self.send_requests(now_ms);
        std::mem::take(&mut self.effects)
    }

    /// One flush at a time: those that come meanwhile are one group, synced together by the next.
    fn flush_if_needed(&mut self) {
        let counts = self.is_voter() || self.config.can_become_voter;
        let dirty = self.log.flushed_offset < self.log.end_offset;
        if counts && dirty && self.flush_in_flight.is_none() {
            let ticket = self.log.flush_ticket();
            self.flush_in_flight = Some(ticket);
            self.effects.push(Effect::Flush(ticket));
        }
    }

    fn commit(&mut self, high_watermark: Offset) {
        if Some(high_watermark) <= self.high_watermark {
            return;
        }
        self.high_watermark = Some(high_watermark);
        self.log.committed_offset = self.log.committed_offset.max(high_watermark);
        self.effects.push(Effect::CommitTo { high_watermark });
    }

    fn election_deadline_ms(&mut self, now_ms: i64) -> i64 {
        let timeout_ms = self.config.election_timeout_ms;
        let spread_ms = self.jitter.below(timeout_ms);
        now_ms.saturating_add(i64::from(timeout_ms) + i64::from(spread_ms))
    }

    fn fetch_deadline_ms(&self, now_ms: i64) -> i64 {
        // The leader answers all followers at once, when it appends: they must not all miss it at once.
        let turn_ms = if self.is_voter() { self.turn_ms(self.election.leader_id) } else { 0 };
        now_ms.saturating_add(i64::from(self.config.fetch_timeout_ms) + turn_ms)
    }

    fn log_end(&self) -> OffsetAndEpoch {
        self.log.end()
    }
}
