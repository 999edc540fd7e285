//! The requests that each role sends, and when (Kafka: `KafkaRaftClient.poll...`).

use super::message::{
    BeginQuorumEpochRequest, EndQuorumEpochRequest, FetchRequest, FetchSnapshotRequest, Request,
    VoteRequest,
};
use super::role::{FetchingSnapshot, Role};
use super::voters::ReplicaKey;
use super::{Address, Destination, Effect, FETCH_MAX_WAIT_MS, Quorum};
use klamm_protocol::ids::BrokerId;

/// The id of the first bootstrap server; the others have lower ones.
const FIRST_BOOTSTRAP_ID: BrokerId = -2;

impl Quorum {
    pub(super) fn send_requests(&mut self, now_ms: i64) {
        match &self.role {
            Role::Unattached { .. } => self.send_fetch_to_bootstrap(now_ms),
            Role::Prospective { ballot, .. } | Role::Candidate { ballot, .. } => {
                if !ballot.is_lost() {
                    let voters = ballot.unanswered().collect();
                    self.send_vote_requests(now_ms, voters);
                }
            }
            Role::Leader(_) => self.send_begin_quorum_epoch(now_ms),
            Role::Resigned(_) => self.send_end_quorum_epoch(now_ms),
            Role::Follower(_) => self.send_follower_fetch(now_ms),
        }
    }

    /// Fails requests without an answer in time. If a follower's leader did not answer, the follower asks a bootstrap
    /// server for the leader, once.
    pub(super) fn expire_requests(&mut self, now_ms: i64) {
        let timed_out = self.requests.expire(now_ms);
        let leader_id = self.election.leader_id;
        if matches!(self.role, Role::Follower(_))
            && timed_out.into_iter().any(|id| Some(id) == leader_id)
        {
            self.send_fetch_to_bootstrap(now_ms);
        }
    }

    pub(super) fn send(&mut self, now_ms: i64, to: Destination, request: Request) {
        let correlation_id = self.requests.sent(to.id, now_ms);
        self.effects.push(Effect::Send { correlation_id, to, request });
    }

    /// Sends to a voter, unless a request to it is in flight, requests to it are paused, or its address is unknown.
    fn send_to_voter(&mut self, now_ms: i64, id: BrokerId, request: Request) {
        let voter = self.voters().get(id);
        let address = voter.and_then(|voter| voter.endpoints.address(&self.config.listener));
        if let Some(address) = address.filter(|_| self.requests.is_ready(id)) {
            let to = Destination { id, address: address.clone() };
            self.send(now_ms, to, request);
        }
    }

    fn send_vote_requests(&mut self, now_ms: i64, voters: Vec<ReplicaKey>) {
        let pre_vote = matches!(self.role, Role::Prospective { .. });
        for voter in voters {
            let request = VoteRequest {
                replica: self.config.local,
                replica_epoch: self.election.epoch,
                voter: Some(voter),
                log_end: self.log_end(),
                pre_vote,
            };
            self.send_to_voter(now_ms, voter.id, Request::Vote(request));
        }
    }

    /// Sends BeginQuorumEpoch twice in a fetch timeout, to every voter that has not fetched for half of it.
    fn send_begin_quorum_epoch(&mut self, now_ms: i64) {
        let interval_ms = i64::from(self.config.fetch_timeout_ms) / 2;
        let Role::Leader(leader) = &mut self.role else { return };
        if now_ms < leader.begin_quorum_epoch_deadline_ms {
            return;
        }
        leader.begin_quorum_epoch_deadline_ms = now_ms.saturating_add(interval_ms);
        let silent = leader.other_voters().filter(|progress| {
            progress.last_fetch_ms.is_none_or(|last_ms| now_ms - last_ms >= interval_ms)
        });
        let silent: Vec<ReplicaKey> = silent.map(|progress| progress.key).collect();
        for voter in silent {
            let request = BeginQuorumEpochRequest {
                leader_id: self.config.local.id,
                leader_epoch: self.election.epoch,
                voter: Some(voter),
                leader_endpoints: self.leader_endpoints.clone(),
            };
            self.send_to_voter(now_ms, voter.id, Request::BeginQuorumEpoch(request));
        }
    }

    fn send_end_quorum_epoch(&mut self, now_ms: i64) {
        let Role::Resigned(resigned) = &self.role else { return };
        let request = EndQuorumEpochRequest {
            leader_id: self.config.local.id,
            leader_epoch: self.election.epoch,
            preferred_candidates: resigned.preferred_successors.clone(),
            leader_endpoints: self.leader_endpoints.clone(),
        };
        let voters: Vec<BrokerId> = resigned.unacknowledged.iter().copied().collect();
        for id in voters {
            self.send_to_voter(now_ms, id, Request::EndQuorumEpoch(request.clone()));
        }
    }

    /// Sends one request at a time. The next fetch waits until the records of the last one are on disk, because the
    /// fetch offset acknowledges them.
    fn send_follower_fetch(&mut self, now_ms: i64) {
        if self.requests.any_in_flight() || self.loading_snapshot.is_some() {
            return;
        }
        let voter_request = self.due_voter_request(now_ms);
        let is_voter_request = voter_request.is_some();
        let Some(request) = voter_request.or_else(|| self.next_fetch()) else { return };
        let leader_id = self.election.leader_id.expect("a follower has a leader");
        if self.requests.is_paused(leader_id) {
            return;
        }
        if self.requests.is_backing_off(leader_id) {
            self.send_fetch_to_bootstrap(now_ms);
            return;
        }
        if let Some(address) = self.leader_endpoints.address(&self.config.listener) {
            let to = Destination { id: leader_id, address: address.clone() };
            self.send(now_ms, to, request);
            if is_voter_request {
                self.restart_voter_request_period(now_ms);
            }
        } else {
            self.send_fetch_to_bootstrap(now_ms);
        }
    }

    fn next_fetch(&self) -> Option<Request> {
        let Role::Follower(follower) = &self.role else { return None };
        match follower.snapshot {
            Some(snapshot) => Some(self.fetch_snapshot_request(snapshot)),
            None if self.must_flush_before_fetch() => None,
            None => Some(self.fetch_request()),
        }
    }

    fn must_flush_before_fetch(&self) -> bool {
        let acknowledges = self.is_voter() || self.config.can_become_voter;
        acknowledges && self.log.flushed_offset < self.log.end_offset
    }

    /// Sends a fetch to one bootstrap server after the other, beginning with a random one.
    fn send_fetch_to_bootstrap(&mut self, now_ms: i64) {
        if self.requests.any_in_flight() || self.must_flush_before_fetch() {
            return;
        }
        let servers = self.config.bootstrap_servers.len();
        let first = self.jitter.below(u32::try_from(servers).unwrap_or(u32::MAX));
        let first = usize::try_from(first).expect("an index of the bootstrap servers");
        let ready = (0..servers).map(|step| (first + step) % servers).find_map(|index| {
            let id = FIRST_BOOTSTRAP_ID - BrokerId::try_from(index).ok()?;
            self.requests.is_ready(id).then_some((id, index))
        });
        if let Some((id, index)) = ready {
            let address: Address = self.config.bootstrap_servers[index].clone();
            let request = self.fetch_request();
            self.send(now_ms, Destination { id, address }, request);
        }
    }

    fn fetch_request(&self) -> Request {
        Request::Fetch(FetchRequest {
            replica: self.config.local,
            current_leader_epoch: self.election.epoch,
            fetch_offset: self.log.end_offset,
            last_fetched_epoch: self.log.last_epoch(),
            high_watermark: self.high_watermark,
            max_wait_ms: FETCH_MAX_WAIT_MS,
            max_bytes: self.config.fetch_max_bytes,
        })
    }

    fn fetch_snapshot_request(&self, snapshot: FetchingSnapshot) -> Request {
        Request::FetchSnapshot(FetchSnapshotRequest {
            replica: self.config.local,
            current_leader_epoch: self.election.epoch,
            snapshot_id: snapshot.id,
            position: snapshot.position,
            max_bytes: self.config.fetch_snapshot_max_bytes,
        })
    }
}
