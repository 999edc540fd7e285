//! The leader: appends, high watermark, answers to fetches. (Kafka: `tryCompleteFetchRequest`,
//! `onUpdateLeaderHighWatermark`, `handleDescribeQuorumRequest`.)

use super::control_batch::EpochStartBatch;
use super::leader::Progress;
use super::log_history::ControlChange;
use super::log_position::FetchPosition;
use super::message::{FetchReply, FetchReplyBody, FetchRequest, Reply};
use super::parked_fetch::ParkedFetch;
use super::role::Role;
use super::voters::VoterSet;
use super::{Anomaly, AppendBatch, Effect, Quorum, RequestId};
use bytes::Bytes;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};

/// Records were appended for an epoch that this node does not lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the leader of epoch {requested}, the current epoch is {current}")]
pub struct NotLeader {
    pub requested: LeaderEpoch,
    pub current: LeaderEpoch,
}

impl NotLeader {
    /// The error code for the controller's client.
    pub fn code(&self) -> ErrorCode {
        ErrorCode::NotController
    }
}

/// The leader's view of the quorum (DescribeQuorum, KIP-836).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumDescription {
    pub leader_id: BrokerId,
    pub leader_epoch: LeaderEpoch,
    /// None until a record of this epoch is committed.
    pub high_watermark: Option<Offset>,
    /// This node is always caught up. After its removal it is among the observers.
    pub voters: Vec<Progress>,
    pub observers: Vec<Progress>,
    /// The voters in force, with their endpoints.
    pub voter_set: VoterSet,
}

impl Quorum {
    /// Appends one batch of the state machine, which has the offsets `log().end_offset .. log().end_offset +
    /// record_count` and this epoch.
    pub fn append(
        &mut self,
        now_ms: i64,
        epoch: LeaderEpoch,
        record_count: u32,
        batch: Bytes,
    ) -> Result<Vec<Effect>, NotLeader> {
        if !self.is_leader() || epoch != self.election.epoch {
            return Err(NotLeader { requested: epoch, current: self.election.epoch });
        }
        self.append_to_log(record_count, AppendBatch::Records(batch));
        Ok(self.proceed(now_ms))
    }

    /// Resigns the leadership of `epoch`, to shut down or because the state machine has failed. Does nothing if the
    /// epoch has passed.
    pub fn resign(&mut self, now_ms: i64, epoch: LeaderEpoch) -> Vec<Effect> {
        if self.is_leader() && epoch == self.election.epoch {
            self.become_resigned(now_ms);
        }
        self.proceed(now_ms)
    }

    /// The state of the replicas; NOT_LEADER_OR_FOLLOWER if this node is not the leader.
    pub fn describe(&mut self, now_ms: i64) -> Result<QuorumDescription, ErrorCode> {
        let local = self.config.local;
        let end_offset = self.log.end_offset;
        let voter_set = self.voters().clone();
        let Role::Leader(leader) = &mut self.role else {
            return Err(ErrorCode::NotLeaderOrFollower);
        };
        leader.forget_silent_observers(now_ms);
        let up_to_date = |progress: &Progress| match progress.key.id == local.id {
            true => progress.of_leader(now_ms, end_offset),
            false => *progress,
        };
        Ok(QuorumDescription {
            leader_id: local.id,
            leader_epoch: leader.epoch,
            high_watermark: leader.high_watermark,
            voters: leader.voters().map(up_to_date).collect(),
            observers: leader.observers().map(up_to_date).collect(),
            voter_set,
        })
    }

    /// Appends the first batch of an epoch. At kraft.version 1 it includes the voters if the log has none yet, or if
    /// this node's endpoints have changed.
    pub(super) fn append_epoch_start(&mut self, now_ms: i64, granting: Vec<BrokerId>) {
        let voters_offset = self.membership.voters.latest_offset();
        let kraft_version = *self.membership.kraft_version.latest();
        let mut batch = EpochStartBatch {
            leader_id: self.config.local.id,
            voter_ids: self.voters().ids().collect(),
            granting_voter_ids: granting,
            timestamp_ms: self.wall_ms(now_ms),
            membership: None,
        };
        if kraft_version > 0 {
            let updated = self.voters_with_local_voter();
            let unwritten = voters_offset == Some(super::Membership::BOOTSTRAP_OFFSET);
            if unwritten || updated != *self.voters() {
                batch.membership = Some((kraft_version, updated));
            }
        }
        let base_offset = self.log.end_offset;
        let record_count = batch.record_count();
        if let Some((level, voters)) = &batch.membership {
            let changes = [
                (base_offset + 1, ControlChange::KRaftVersion(*level)),
                (base_offset + 2, ControlChange::Voters(voters.clone())),
            ];
            changes.into_iter().for_each(|(offset, change)| self.membership.apply(offset, change));
        }
        self.append_to_log(record_count, AppendBatch::EpochStart(batch));
    }

    fn voters_with_local_voter(&self) -> VoterSet {
        let updated = self.voters().with_updated(self.local_voter());
        updated.filter(|_| !self.config.local_endpoints.is_empty()).unwrap_or(self.voters().clone())
    }

    pub(super) fn append_to_log(&mut self, record_count: u32, batch: AppendBatch) {
        let (base_offset, epoch) = (self.log.end_offset, self.election.epoch);
        self.log.append(epoch, base_offset + Offset::from(record_count));
        self.effects.push(Effect::Append { base_offset, epoch, batch });
        for parked in self.parked.take_below(self.log.end_offset) {
            self.answer_parked_fetch(&parked);
        }
    }

    pub(super) fn count_own_flush(&mut self) {
        let flushed_offset = self.log.flushed_offset;
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.on_flushed(flushed_offset).is_some() {
            self.on_leader_high_watermark();
        }
    }

    /// Passes a new high watermark to the state machine and answers waiting followers.
    fn on_leader_high_watermark(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        let Some(high_watermark) = leader.high_watermark else { return };
        self.commit(high_watermark);
        self.settle_voter_change(high_watermark);
        for parked in self.parked.take_all() {
            self.answer_parked_fetch(&parked);
        }
    }

    /// Starts the state machine when all records from before the epoch are committed, unless the same event has ended
    /// the epoch: a leader that commits its own removal never starts it.
    pub(super) fn announce_leadership(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.high_watermark.is_some() && !leader.announced {
            leader.announced = true;
            self.effects.push(Effect::BecameLeader { epoch: leader.epoch });
        }
    }

    pub(super) fn on_fetch_request(
        &mut self,
        now_ms: i64,
        request_id: RequestId,
        fetch: FetchRequest,
    ) {
        if let Err(error) = self.check_fetch(&fetch) {
            self.refuse_fetch(request_id, error);
            return;
        }
        self.count_fetch(now_ms, &fetch);
        let reply = self.fetch_reply(&fetch);
        let news =
            reply.body != FetchReplyBody::Empty || fetch.high_watermark < reply.high_watermark;
        if news || fetch.max_wait_ms == 0 {
            self.reply(request_id, Reply::Fetch(reply));
            return;
        }
        let deadline_ms = now_ms.saturating_add(fetch.max_wait_ms.into());
        let answered = self.parked.park(ParkedFetch { request_id, fetch, deadline_ms });
        for parked in answered {
            self.answer_parked_fetch(&parked);
        }
    }

    fn check_fetch(&self, fetch: &FetchRequest) -> Result<(), ErrorCode> {
        let malformed = fetch.max_wait_ms < 0
            || fetch.fetch_offset < 0
            || fetch.last_fetched_epoch < 0
            || fetch.last_fetched_epoch > fetch.current_leader_epoch;
        if malformed {
            return Err(ErrorCode::InvalidRequest);
        }
        self.check_leader_request(fetch.current_leader_epoch)?;
        if fetch.replica.id == self.config.local.id {
            return Err(ErrorCode::UnknownServerError);
        }
        Ok(())
    }

    /// A fetch at a position that is part of this log acknowledges the records before it. A diverging one does not
    /// (KAFKA-13141).
    fn count_fetch(&mut self, now_ms: i64, fetch: &FetchRequest) {
        let position = self.log.fetch_position(fetch.fetch_offset, fetch.last_fetched_epoch);
        if fetch.replica.id < 0 || position != FetchPosition::Valid {
            return;
        }
        let end_offset = self.log.end_offset;
        let Role::Leader(leader) = &mut self.role else { return };
        let before = leader.voter(&fetch.replica).and_then(|progress| progress.end_offset);
        let moved = leader.on_fetch(now_ms, fetch.replica, fetch.fetch_offset, end_offset);
        if let Some(from) = before.filter(|before| *before > fetch.fetch_offset) {
            let (replica_id, to) = (fetch.replica.id, fetch.fetch_offset);
            let anomaly = Anomaly::FetchOffsetWentBack { replica_id, from, to };
            self.effects.push(Effect::Anomaly(anomaly));
        }
        if moved.is_some() {
            self.on_leader_high_watermark();
        }
        self.count_contact(now_ms, &fetch.replica);
    }

    pub(super) fn count_contact(&mut self, now_ms: i64, replica: &super::ReplicaKey) {
        let deadline_ms = self.check_quorum_deadline_ms(now_ms);
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.on_contact(replica) {
            leader.check_quorum_deadline_ms = deadline_ms;
        }
    }

    fn fetch_reply(&self, fetch: &FetchRequest) -> FetchReply {
        let offset = fetch.fetch_offset;
        let body = match self.log.fetch_position(offset, fetch.last_fetched_epoch) {
            FetchPosition::Diverging(end) => FetchReplyBody::Diverging(end),
            FetchPosition::Snapshot(id) => FetchReplyBody::Snapshot(id),
            FetchPosition::Valid if offset >= self.log.end_offset => FetchReplyBody::Empty,
            FetchPosition::Valid => FetchReplyBody::Records { offset, max_bytes: fetch.max_bytes },
        };
        FetchReply { body, ..self.empty_fetch_reply(ErrorCode::None) }
    }

    fn empty_fetch_reply(&self, error: ErrorCode) -> FetchReply {
        let high_watermark = match &self.role {
            Role::Leader(leader) if error == ErrorCode::None => leader.high_watermark,
            _ => None,
        };
        FetchReply {
            error,
            leader: self.leader_info(),
            high_watermark,
            log_start_offset: self.log.start_offset,
            body: FetchReplyBody::Empty,
        }
    }

    fn refuse_fetch(&mut self, request_id: RequestId, error: ErrorCode) {
        let reply = self.empty_fetch_reply(error);
        self.reply(request_id, Reply::Fetch(reply));
    }

    fn answer_parked_fetch(&mut self, parked: &ParkedFetch) {
        let reply = self.fetch_reply(&parked.fetch);
        self.reply(parked.request_id, Reply::Fetch(reply));
    }

    pub(super) fn expire_parked_fetches(&mut self, now_ms: i64) {
        for parked in self.parked.take_expired(now_ms) {
            self.answer_parked_fetch(&parked);
        }
    }

    pub(super) fn refuse_parked_fetches(&mut self) {
        for parked in self.parked.take_all() {
            self.refuse_fetch(parked.request_id, ErrorCode::NotLeaderOrFollower);
        }
    }
}
