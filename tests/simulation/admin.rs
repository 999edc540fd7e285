//! The administrator: creates the topics, then moves partitions, elects preferred leaders, adds and removes voters, and
//! sets offsets of a group that has no members.

use crate::batch::{DATA_TOPIC, OFFSETS_PARTITION, PARTITIONS};
use crate::client::{ClientStep, ClientTimer, Leaders};
use crate::message::{Address, ControllerAnswer, ControllerRequest, GroupRequest, Message};
use crate::scenario::{endpoints, key};
use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::BrokerId;
use klamm_protocol::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use klamm_replication::quorum::CorrelationId;
use klamm_replication::quorum::message::{AddVoterRequest, RemoveVoterRequest, Request};

/// Replicas of each partition.
const REPLICATION_FACTOR: usize = 3;

#[derive(Debug)]
pub(crate) struct Admin {
    nodes: Vec<BrokerId>,
    changes_voters: bool,
    pub(crate) has_created: bool,
    /// Set while there are faults: afterwards things stay where they are.
    pub(crate) is_restless: bool,
}

impl Admin {
    pub(crate) fn new(nodes: Vec<BrokerId>, changes_voters: bool) -> Self {
        Self { nodes, changes_voters, has_created: false, is_restless: true }
    }

    /// Asks any node: only the active controller does as it is told.
    pub(crate) fn on_poll(&mut self, leaders: &Leaders, step: &mut ClientStep<'_>) {
        let longest_ms = if self.changes_voters { 600 } else { 1_500 };
        let delay_ms = if self.has_created { step.random.between(200, longest_ms) } else { 40 };
        step.after(delay_ms, ClientTimer::Poll);
        if self.has_created && !self.is_restless {
            return;
        }
        if self.has_created
            && step.random.chance(30)
            && let Some(coordinator) = leaders.of(OFFSETS_PARTITION)
        {
            let request = GroupRequest::Commit(offsets_of_nobody());
            step.ask(Address::Node(coordinator), Message::Group { call: 0, request });
        }
        let to = self.nodes[self.pick(self.nodes.len(), step)];
        let message = if self.has_created && self.changes_voters && step.random.chance(75) {
            let request = self.change_of_voters(step);
            Message::Quorum { id: CorrelationId(0), request }
        } else {
            Message::Controller { call: 0, request: self.next_request(step) }
        };
        step.ask(Address::Node(to), message);
    }

    /// Whoever leads refuses what makes no sense: a voter twice, no voters at all, two changes at once.
    fn change_of_voters(&self, step: &mut ClientStep<'_>) -> Request {
        let id = self.nodes[self.pick(self.nodes.len(), step)];
        if step.random.chance(50) {
            return Request::RemoveVoter(RemoveVoterRequest { voter: key(id) });
        }
        Request::AddVoter(AddVoterRequest {
            timeout_ms: 0,
            voter: key(id),
            endpoints: endpoints(id),
            ack_when_committed: true,
        })
    }

    fn pick(&self, count: usize, step: &mut ClientStep<'_>) -> usize {
        let count = u64::try_from(count).expect("few");
        usize::try_from(step.random.below(count)).expect("an index")
    }

    fn next_request(&self, step: &mut ClientStep<'_>) -> ControllerRequest {
        if !self.has_created {
            let replicas = PARTITIONS.map(|_| self.any_replicas(step)).to_vec();
            return ControllerRequest::CreateTopics { replicas };
        }
        if self.nodes.len() == REPLICATION_FACTOR || step.random.chance(50) {
            return ControllerRequest::ElectPreferred;
        }
        let partition = self.pick(PARTITIONS.len(), step);
        ControllerRequest::Reassign { partition, replicas: self.any_replicas(step) }
    }

    fn any_replicas(&self, step: &mut ClientStep<'_>) -> Vec<BrokerId> {
        let mut nodes = self.nodes.clone();
        let mut chosen = Vec::new();
        while chosen.len() < REPLICATION_FACTOR {
            let at = self.pick(nodes.len(), step);
            chosen.push(nodes.swap_remove(at));
        }
        chosen
    }

    pub(crate) fn on_answer(&mut self, answer: Result<ControllerAnswer, ErrorCode>) {
        if let Ok(ControllerAnswer::Done(Ok(()))) = answer {
            self.has_created = true;
        }
    }
}

/// Offsets that are kept for as long as `offsets.retention.minutes` says, since nobody is in the group.
fn offsets_of_nobody() -> OffsetCommitRequest {
    // The members of the other group read and commit all partitions but this one.
    let partition_index = i32::try_from(OFFSETS_PARTITION).expect("a small index");
    let partition = OffsetCommitRequestPartition {
        partition_index,
        committed_offset: 1,
        committed_metadata: Some(ByteString::new()),
        ..Default::default()
    };
    let partitions = vec![partition];
    let name = DATA_TOPIC.into();
    OffsetCommitRequest {
        group_id: ByteString::from_static("nobody"),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic { name, partitions, ..Default::default() }],
        ..Default::default()
    }
}
