//! Changes of the ISR that the broker's leaders propose to the controller.

use super::{BACK_OFF_MS, Broker};
use crate::batch::{PARTITIONS, PartitionId};
use crate::disk::Disk;
use crate::message::{Address, CallId, ControllerAnswer, ControllerRequest, Message};
use crate::metadata_driver::{MetadataDriver, NodeStep};
use crate::node::NodeTimer;
use crate::observation::Observation;
use crate::plant::Plant;
use crate::scenario::{CALL_TIMEOUT_MS, FOLLOWER_SILENCE_MS, HEARTBEAT_MS, LAG_MS, SILENCE_MS};
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, Offset, or_minus_one};
use klamm_protocol::messages::alter_partition_request::{
    AlterPartitionRequest, BrokerState, PartitionData, TopicData,
};
use klamm_replication::partition::{
    CommittedIsr, IsrChange, IsrProposal, ProposalOutcome, SILENCE_CHECKS,
};

impl Broker {
    pub(crate) fn on_isr_timer(&mut self, disk: &mut Disk, step: &mut NodeStep<'_>) {
        step.after(self.leader_config.replica_lag_time_max_ms / 2, NodeTimer::CheckIsr);
        for id in 0..PARTITIONS.len() {
            let Some(replica) = self.replicas.get_mut(&id).filter(|it| !it.is_offline) else {
                continue;
            };
            if let Some(proposal) = replica.core.on_isr_check(step.now_ms) {
                self.propose(id, proposal, disk, step);
            }
        }
    }

    /// Looks at the followers again for as long as they hold back the high watermark.
    pub(super) fn watch_followers(&mut self, id: PartitionId, step: &mut NodeStep<'_>) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        if replica.core.is_held_back() && !std::mem::replace(&mut replica.is_watched, true) {
            let interval_ms = FOLLOWER_SILENCE_MS / i64::from(SILENCE_CHECKS);
            step.after(interval_ms, NodeTimer::CheckSilence(id));
        }
    }

    pub(crate) fn on_silence_timer(
        &mut self,
        id: PartitionId,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        replica.is_watched = false;
        // A leader that cannot serve its followers does not judge them.
        let serves = !self.dead.contains(&id) && !replica.is_offline;
        if !serves {
            replica.core.forgive_silence();
        }
        if !serves || step.plant == Plant::SilentFollowersStay {
            self.observe_waiting(id, step);
            return self.watch_followers(id, step);
        }
        let unconfirmed_ms = step.now_ms.saturating_sub(self.confirmed_ms);
        let is_confirmed = unconfirmed_ms < SILENCE_MS + HEARTBEAT_MS;
        if let Some(proposal) = replica.core.on_silence_check(is_confirmed, step.now_ms) {
            self.propose(id, proposal, disk, step);
        }
        self.observe_waiting(id, step);
        let replica = self.replicas.get_mut(&id).expect("it has just been looked at");
        replica.settle(disk.logs.get(id).expect("a replica has a log"), step);
        self.watch_followers(id, step);
    }

    /// Tells what the leader could acknowledge with a sufficient part of its ISR, and what it has.
    fn observe_waiting(&self, id: PartitionId, step: &mut NodeStep<'_>) {
        let Some(leader) = self.replicas[&id].core.leader() else { return };
        let in_sync = |id: &BrokerId| leader.isr().isr().contains(id);
        let followers = leader.followers().filter(|(id, _)| in_sync(id));
        let mut held: Vec<Offset> =
            followers.filter_map(|(_, follower)| follower.log_end_offset).collect();
        held.sort_unstable_by_key(|end| std::cmp::Reverse(*end));
        let replicas = leader.followers().count() + 1;
        let sufficient = self.leader_config.min_insync_replicas.max(replicas / 2 + 1);
        // The leader itself is one of them.
        let Some(reached) = held.get(sufficient.saturating_sub(2)) else { return };
        step.observe(Observation::Waiting {
            life: self.life,
            partition: id,
            epoch: leader.leader_epoch(),
            partition_epoch: leader.partition_epoch(),
            committed: leader.high_watermark(),
            reached: *reached,
            unconfirmed_ms: step.now_ms.saturating_sub(self.confirmed_ms),
            at_ms: step.now_ms,
        });
    }

    pub(super) fn propose(
        &mut self,
        id: PartitionId,
        proposal: IsrProposal,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        if step.plant == Plant::ShrinkBeforeCommit
            && let IsrChange::Shrink(_) = proposal.change
        {
            self.shrink_early(id, &proposal, disk, step);
        }
        if let IsrChange::Shrink(followers) = &proposal.change {
            let (life, partition, at_ms) = (self.life, id, step.now_ms);
            for follower in followers.iter().copied() {
                step.observe(Observation::ShrinkProposed { life, partition, follower, at_ms });
            }
        }
        let call = self.next_call();
        let replica = self.replicas.get_mut(&id).expect("its leader proposes");
        replica.proposal = Some((call, proposal));
        // A driver with this mistake shows it only if a member restarts before the controller decides.
        let delay_ms = match step.plant {
            Plant::ProposalWithoutBrokerEpochs => step.random.between(0, LAG_MS),
            _ => 0,
        };
        step.after(delay_ms, NodeTimer::SendProposal { partition: id, call });
    }

    /// A driver with a mistake treats its wish as the controller's word.
    pub(super) fn shrink_early(
        &mut self,
        id: PartitionId,
        proposal: &IsrProposal,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        let replica = self.replicas.get_mut(&id).expect("its leader proposes");
        let wished = CommittedIsr {
            leader_epoch: proposal.leader_epoch,
            partition_epoch: proposal.partition_epoch,
            isr: proposal.new_isr.iter().map(|(member, _)| *member).collect(),
        };
        replica.core.on_proposal_answered(proposal, Ok(wished), step.now_ms);
        replica.settle(disk.logs.get(id).expect("a replica has a log"), step);
    }

    /// Sends the proposal to whoever is the controller now, and again if no answer comes.
    pub(crate) fn on_proposal_timer(
        &mut self,
        id: PartitionId,
        call: CallId,
        metadata: &MetadataDriver,
        step: &mut NodeStep<'_>,
    ) {
        let Some(replica) = self.replicas.get(&id) else { return };
        let Some((_, proposal)) = replica.proposal.as_ref().filter(|(asked, _)| *asked == call)
        else {
            return;
        };
        step.after(CALL_TIMEOUT_MS, NodeTimer::ProposalTimeout { partition: id, call });
        let (topic, partition_index) = PARTITIONS[id];
        let topic = metadata.controller.committed().stable().topics.by_name(topic);
        let (Some(controller), Some(topic)) = (metadata.quorum.leader_id(), topic) else { return };
        let states = proposal.new_isr.iter();
        let nameless = step.plant == Plant::ProposalWithoutBrokerEpochs;
        let states = states.map(|&(broker_id, epoch)| BrokerState {
            broker_id,
            broker_epoch: or_minus_one(epoch.filter(|_| !nameless)),
        });
        let data = PartitionData {
            partition_index,
            leader_epoch: proposal.leader_epoch,
            new_isr_with_epochs: states.collect(),
            partition_epoch: proposal.partition_epoch,
            ..Default::default()
        };
        let request = ControllerRequest::AlterPartition(AlterPartitionRequest {
            broker_id: self.life.0,
            broker_epoch: or_minus_one(self.broker_epoch()),
            topics: vec![TopicData { topic_id: topic.id, partitions: vec![data] }],
        });
        step.ask(Address::Node(controller), Message::Controller { call, request });
    }

    pub(crate) fn on_proposal_timeout(
        &mut self,
        id: PartitionId,
        call: CallId,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        let replica = self.replicas.get(&id);
        let waits = replica.and_then(|replica| replica.proposal.as_ref());
        if waits.is_some_and(|(asked, _)| *asked == call) {
            let error = match step.plant {
                Plant::LostAnswerTakenForRefusal => ErrorCode::OperationNotAttempted,
                _ => ErrorCode::RequestTimedOut,
            };
            self.on_proposal_answer(id, Err(error), disk, step);
        }
    }

    pub(super) fn on_proposal_answer(
        &mut self,
        id: PartitionId,
        answer: Result<CommittedIsr, ErrorCode>,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        let call = self.next_call();
        let replica = self.replicas.get_mut(&id).expect("it has a proposal");
        let (_, proposal) = replica.proposal.take().expect("a proposal is answered");
        let outcome = replica.core.on_proposal_answered(&proposal, answer, step.now_ms);
        if outcome == ProposalOutcome::Retry {
            replica.proposal = Some((call, proposal));
            step.after(BACK_OFF_MS, NodeTimer::SendProposal { partition: id, call });
        }
        replica.settle(disk.logs.get(id).expect("a replica has a log"), step);
        self.after_progress(id, disk, step);
    }
}

/// What the controller has made of a proposal.
pub(super) fn committed_isr(answer: ControllerAnswer) -> Result<CommittedIsr, ErrorCode> {
    let ControllerAnswer::AlterPartition(answer) = answer else {
        return Err(ErrorCode::UnknownServerError);
    };
    let code = |code| ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError);
    if answer.error_code != 0 {
        return Err(code(answer.error_code));
    }
    let partition = &answer.topics[0].partitions[0];
    if partition.error_code != 0 {
        return Err(code(partition.error_code));
    }
    Ok(CommittedIsr {
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        isr: partition.isr.iter().copied().collect(),
    })
}
