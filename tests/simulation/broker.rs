//! The broker of a node: its life in the cluster (KIP-631), and the replicas that the metadata give it.
//!
//! Invariant: nothing is led or followed before the metadata hold this life's own registration: older
//! metadata would let the broker resume an epoch whose tail it may have lost.

use crate::batch::{OFFSETS_PARTITION, PARTITIONS, PartitionBatch, PartitionId, Payload, Value};
use crate::disk::Disk;
use crate::group_driver::GroupDriver;
use crate::log::SyncMark;
use crate::message::{
    Address, CallId, ControllerAnswer, ControllerRequest, GroupRequest, Message, ProducedBatch,
    ReadAnswer, ReplicaFetch, Sender,
};
use crate::metadata_driver::{MetadataDriver, NodeStep};
use crate::node::NodeTimer;
use crate::observation::Life;
use crate::plant::Plant;
use crate::replica::{Replica, Role};
use crate::scenario::{
    CALL_TIMEOUT_MS, CLUSTER_ID, HEARTBEAT_MS, LAG_MS, directory, supported_features,
};
use klamm_metadata::image::ClusterImage;
use klamm_protocol::ErrorCode;
use klamm_protocol::Uuid;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};
use klamm_protocol::messages::alter_partition_request::{
    AlterPartitionRequest, BrokerState, PartitionData, TopicData,
};
use klamm_protocol::messages::broker_heartbeat_request::BrokerHeartbeatRequest;
use klamm_protocol::messages::broker_registration_request::{
    BrokerRegistrationRequest, Feature, Listener,
};
use klamm_replication::partition::{
    CommittedIsr, FetchedPartition, Follow, IsrChange, IsrProposal, ProposalOutcome, Registration,
    check_leader_epoch,
};
use std::collections::BTreeMap;
use std::rc::Rc;

/// How long a follower waits after an answer without news.
const POLL_MS: i64 = 20;
/// How long a follower waits after an answer that was of no use.
const BACK_OFF_MS: i64 = 30;

#[derive(Debug)]
pub(crate) struct Broker {
    life: Life,
    min_insync_replicas: usize,
    incarnation_id: Uuid,
    previous_epoch: i64,
    /// This life's epoch, once registered.
    pub(crate) epoch: Option<i64>,
    /// The metadata have held this life's registration: they are as new as this process.
    is_caught_up: bool,
    /// The registration or heartbeat that waits for its answer.
    contact: Option<CallId>,
    next_call: CallId,
    stopping: bool,
    /// The controller lets this broker stop.
    pub(crate) may_stop: bool,
    pub(crate) replicas: BTreeMap<PartitionId, Replica>,
    sync_in_flight: bool,
    pub(crate) groups: GroupDriver,
}

impl Broker {
    pub(crate) fn start(
        life: Life,
        min_insync_replicas: usize,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&step.random.next().to_be_bytes());
        bytes[8..].copy_from_slice(&step.random.next().to_be_bytes());
        let (heartbeat_ms, check_ms) = (step.random.between(0, HEARTBEAT_MS), LAG_MS / 2);
        step.after(heartbeat_ms, NodeTimer::Contact);
        step.after(check_ms, NodeTimer::CheckIsr);
        Self {
            life,
            min_insync_replicas,
            incarnation_id: Uuid::from_bytes(bytes),
            previous_epoch: disk.clean_broker_epoch.take().unwrap_or(-1),
            epoch: None,
            is_caught_up: false,
            contact: None,
            next_call: 0,
            stopping: false,
            may_stop: false,
            replicas: BTreeMap::new(),
            sync_in_flight: false,
            groups: GroupDriver::default(),
        }
    }

    fn next_call(&mut self) -> CallId {
        self.next_call += 1;
        self.next_call
    }

    /// Begins a controlled shutdown.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
    }

    // Contact with the controller.

    pub(crate) fn on_contact_timer(&mut self, metadata: &MetadataDriver, step: &mut NodeStep<'_>) {
        step.after(HEARTBEAT_MS, NodeTimer::Contact);
        if self.contact.is_some() {
            return;
        }
        let Some(controller) = metadata.quorum.leader_id() else { return };
        if metadata.loader.stable().features.metadata_version().is_none() {
            return;
        }
        let call = self.next_call();
        let request = match self.epoch {
            None => ControllerRequest::Register(self.registration()),
            Some(epoch) => ControllerRequest::Heartbeat(BrokerHeartbeatRequest {
                broker_id: self.life.0,
                broker_epoch: epoch,
                current_metadata_offset: metadata.loader.end_offset() - 1,
                want_fence: false,
                want_shut_down: self.stopping,
                ..Default::default()
            }),
        };
        self.contact = Some(call);
        step.after(CALL_TIMEOUT_MS, NodeTimer::ContactTimeout(call));
        step.ask(Address::Node(controller), Message::Controller { call, request });
    }

    fn registration(&self) -> BrokerRegistrationRequest {
        let features = supported_features().into_iter().map(|(name, range)| Feature {
            name,
            min_supported_version: range.min,
            max_supported_version: range.max,
        });
        BrokerRegistrationRequest {
            broker_id: self.life.0,
            cluster_id: CLUSTER_ID.into(),
            incarnation_id: self.incarnation_id,
            listeners: vec![Listener {
                name: "PLAINTEXT".into(),
                host: "localhost".into(),
                port: 9092,
                security_protocol: 0,
            }],
            features: features.collect(),
            log_dirs: vec![directory(self.life.0)],
            previous_broker_epoch: self.previous_epoch,
            ..Default::default()
        }
    }

    pub(crate) fn on_contact_timeout(&mut self, call: CallId) {
        if self.contact == Some(call) {
            self.contact = None;
        }
    }

    pub(crate) fn on_controller_answer(
        &mut self,
        call: CallId,
        answer: Result<ControllerAnswer, ErrorCode>,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        if self.contact == Some(call) {
            self.contact = None;
            match answer {
                Ok(ControllerAnswer::Registered(Ok(epoch))) => self.epoch = Some(epoch),
                // A registration of an earlier life came late and took this one's place.
                Ok(ControllerAnswer::Heartbeat(answer)) if answer.error_code != 0 => {
                    self.epoch = None;
                }
                Ok(ControllerAnswer::Heartbeat(answer)) => self.may_stop = answer.should_shut_down,
                _ => {}
            }
            return;
        }
        let asked = self.replicas.values().find_map(|replica| match &replica.proposal {
            Some((asked, _)) if *asked == call => Some(replica.partition),
            _ => None,
        });
        if let Some(partition) = asked {
            let answer = answer.and_then(committed_isr);
            self.on_proposal_answer(partition, answer, disk, step);
        }
    }

    // The replicas.

    /// The metadata have moved on.
    pub(crate) fn on_metadata(
        &mut self,
        image: &ClusterImage,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        let registered = image.brokers.get(self.life.0).map(|broker| broker.incarnation_id);
        self.is_caught_up |= registered == Some(self.incarnation_id);
        if !self.is_caught_up && step.plant != Plant::LeaderResumesItsEpoch {
            return;
        }
        for (id, (topic, index)) in PARTITIONS.iter().enumerate() {
            let topic = image.topics.by_name(topic);
            let Some(found) = topic.and_then(|topic| topic.partition(*index)) else { continue };
            if !found.replicas.contains(&self.life.0) {
                self.drop_replica(id, disk, step);
                continue;
            }
            let registration = Registration {
                leader_epoch: found.leader_epoch,
                partition_epoch: found.partition_epoch,
                replicas: found.replicas.clone(),
                isr: found.isr.clone(),
            };
            self.on_registration(id, found.leader, &registration, image, disk, step);
        }
    }

    fn on_registration(
        &mut self,
        id: PartitionId,
        leader_id: BrokerId,
        registration: &Registration,
        image: &ClusterImage,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        let (life, min_insync_replicas) = (self.life, self.min_insync_replicas);
        let partition = disk.partitions.entry(id).or_default();
        let replica = self.replicas.entry(id).or_insert_with(|| Replica::open(life, id, partition));
        let changed = replica.on_metadata(
            leader_id,
            registration,
            image,
            min_insync_replicas,
            partition,
            step,
        );
        if !changed {
            return;
        }
        if id == OFFSETS_PARTITION {
            self.groups.end(step);
            if self.replicas[&id].leads() {
                self.groups.begin(step);
            }
        }
        self.request_sync(disk, step);
        self.fetch(id, disk, step);
    }

    /// The replica has been moved away: its log is deleted.
    fn drop_replica(&mut self, id: PartitionId, disk: &mut Disk, step: &mut NodeStep<'_>) {
        if let Some(mut replica) = self.replicas.remove(&id) {
            replica.give_up(step);
        }
        if disk.partitions.remove(&id).is_some() && id == OFFSETS_PARTITION {
            self.groups.end(step);
        }
    }

    pub(crate) fn fetch(&mut self, id: PartitionId, disk: &Disk, step: &mut NodeStep<'_>) {
        let broker_epoch = self.epoch.unwrap_or(-1);
        let (Some(replica), Some(partition)) =
            (self.replicas.get_mut(&id), disk.partitions.get(&id))
        else {
            return;
        };
        let Some((leader_id, fetch)) = replica.next_fetch(broker_epoch, partition, step.plant)
        else {
            return;
        };
        let again = NodeTimer::Fetch { partition: id, number: fetch.number };
        step.after(CALL_TIMEOUT_MS, again);
        step.ask(Address::Node(leader_id), Message::Fetch(fetch));
    }

    /// Fetches again, unless another fetch has been sent since.
    pub(crate) fn on_fetch_timer(
        &mut self,
        id: PartitionId,
        number: u64,
        disk: &Disk,
        step: &mut NodeStep<'_>,
    ) {
        if self.replicas.get(&id).is_some_and(|replica| replica.latest_fetch == number) {
            self.fetch(id, disk, step);
        }
    }

    pub(crate) fn on_fetch(
        &mut self,
        from: Sender,
        fetch: ReplicaFetch,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        let id = fetch.partition;
        let (Some(replica), Some(partition)) =
            (self.replicas.get_mut(&id), disk.partitions.get(&id))
        else {
            let fetched = refused(&fetch, ErrorCode::NotLeaderOrFollower);
            let answer = Message::FetchAnswer { partition: id, fetched, batches: Vec::new() };
            return step.answer(from, answer);
        };
        let (fetched, batches, proposal) = replica.serve_fetch(&fetch, partition, step);
        step.answer(from, Message::FetchAnswer { partition: id, fetched, batches });
        if let Some(proposal) = proposal {
            self.propose(id, proposal, disk, step);
        }
        self.after_progress(id, disk, step);
    }

    pub(crate) fn on_fetched(
        &mut self,
        id: PartitionId,
        fetched: &FetchedPartition,
        batches: Vec<Rc<PartitionBatch>>,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        let (Some(replica), Some(partition)) =
            (self.replicas.get_mut(&id), disk.partitions.get_mut(&id))
        else {
            return;
        };
        let news = !batches.is_empty();
        let again_ms = match replica.on_fetched(fetched, batches, partition, step) {
            Follow::Append { .. } if news => {
                self.request_sync(disk, step);
                0
            }
            Follow::TruncateTo(_) => 0,
            Follow::Append { .. } => POLL_MS,
            Follow::BackOff => BACK_OFF_MS,
            Follow::FindLeaderRange | Follow::TruncateFullyAndStartAt(_) => {
                panic!("{id}: node {} is outside the log of its leader: {fetched:?}", self.life.0)
            }
            Follow::AwaitMetadata | Follow::Ignore => return,
        };
        if again_ms == 0 {
            return self.fetch(id, disk, step);
        }
        step.after(again_ms, NodeTimer::Fetch { partition: id, number: fetched.number });
    }

    // The ISR.

    pub(crate) fn on_isr_timer(&mut self, disk: &mut Disk, step: &mut NodeStep<'_>) {
        step.after(LAG_MS / 2, NodeTimer::CheckIsr);
        for id in 0..PARTITIONS.len() {
            let Some(leader) = self.replicas.get_mut(&id).and_then(Replica::leader) else {
                continue;
            };
            if let Some(proposal) = leader.on_isr_check(step.now_ms) {
                self.propose(id, proposal, disk, step);
            }
        }
    }

    fn propose(
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
        let call = self.next_call();
        let replica = self.replicas.get_mut(&id).expect("its leader proposes");
        replica.proposal = Some((call, proposal));
        step.after(0, NodeTimer::SendProposal { partition: id, call });
    }

    /// A driver with a mistake treats its wish as the controller's word.
    fn shrink_early(
        &mut self,
        id: PartitionId,
        proposal: &IsrProposal,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        let replica = self.replicas.get_mut(&id).expect("its leader proposes");
        let Some(leader) = replica.leader() else { return };
        let wished = CommittedIsr {
            leader_epoch: proposal.leader_epoch,
            partition_epoch: proposal.partition_epoch,
            isr: proposal.new_isr.iter().map(|(member, _)| *member).collect(),
        };
        leader.on_proposal_answered(proposal, Ok(wished), step.now_ms);
        replica.on_progress(&disk.partitions[&id], step);
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
        let topic = metadata.loader.stable().topics.by_name(topic);
        let (Some(controller), Some(topic)) = (metadata.quorum.leader_id(), topic) else { return };
        let states = proposal.new_isr.iter();
        let states =
            states.map(|&(broker_id, broker_epoch)| BrokerState { broker_id, broker_epoch });
        let data = PartitionData {
            partition_index,
            leader_epoch: proposal.leader_epoch,
            new_isr_with_epochs: states.collect(),
            partition_epoch: proposal.partition_epoch,
            ..Default::default()
        };
        let request = ControllerRequest::AlterPartition(AlterPartitionRequest {
            broker_id: self.life.0,
            broker_epoch: self.epoch.unwrap_or(-1),
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

    fn on_proposal_answer(
        &mut self,
        id: PartitionId,
        answer: Result<CommittedIsr, ErrorCode>,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        let call = self.next_call();
        let replica = self.replicas.get_mut(&id).expect("it has a proposal");
        let (_, proposal) = replica.proposal.take().expect("a proposal is answered");
        let Some(leader) = replica.leader() else { return };
        let (outcome, _) = leader.on_proposal_answered(&proposal, answer, step.now_ms);
        if outcome == ProposalOutcome::Retry {
            replica.proposal = Some((call, proposal));
            step.after(BACK_OFF_MS, NodeTimer::SendProposal { partition: id, call });
        }
        replica.on_progress(&disk.partitions[&id], step);
        self.after_progress(id, disk, step);
    }

    // Syncing.

    /// Begins to sync all logs that need it, unless that is going on.
    pub(crate) fn request_sync(&mut self, disk: &Disk, step: &mut NodeStep<'_>) {
        if self.sync_in_flight {
            return;
        }
        let dirty = disk
            .partitions
            .iter()
            .filter(|(_, partition)| partition.log.synced_end() < partition.log.end());
        let marks: Vec<(PartitionId, SyncMark)> =
            dirty.map(|(id, partition)| (*id, partition.log.sync_mark())).collect();
        if marks.is_empty() {
            return;
        }
        self.sync_in_flight = true;
        let delay_ms = step.random.between(0, 12);
        step.after(delay_ms, NodeTimer::DataSynced(marks));
    }

    pub(crate) fn on_synced(
        &mut self,
        marks: Vec<(PartitionId, SyncMark)>,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        self.sync_in_flight = false;
        for (id, mark) in marks {
            let Some(partition) = disk.partitions.get_mut(&id) else { continue };
            partition.log.on_synced(mark);
            let Some(replica) = self.replicas.get_mut(&id) else { continue };
            replica.on_synced(partition, step);
            match replica.leads() {
                true => self.after_progress(id, disk, step),
                false => self.fetch(id, disk, step),
            }
        }
        self.request_sync(disk, step);
    }

    /// The coordinator hears of the high watermark; what it appends has to be synced.
    fn after_progress(&mut self, id: PartitionId, disk: &mut Disk, step: &mut NodeStep<'_>) {
        if id == OFFSETS_PARTITION {
            self.with_groups(disk, step, GroupDriver::on_progress);
        }
        self.request_sync(disk, step);
    }

    // Clients.

    pub(crate) fn on_produce(
        &mut self,
        to: (Sender, CallId),
        batch: ProducedBatch,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        let id = batch.partition;
        let (Some(replica), Some(partition)) =
            (self.replicas.get_mut(&id), disk.partitions.get_mut(&id))
        else {
            let answer = Err(ErrorCode::UnknownTopicOrPartition);
            return step.answer(to.0, Message::ProduceAnswer { call: to.1, answer });
        };
        replica.produce(to, batch.values, partition, step);
        self.request_sync(disk, step);
    }

    /// What a consumer may see from `offset` on.
    pub(crate) fn read(
        &self,
        id: PartitionId,
        leader_epoch: LeaderEpoch,
        offset: Offset,
        disk: &Disk,
        plant: Plant,
    ) -> Result<ReadAnswer, ErrorCode> {
        let replica = self.replicas.get(&id).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let Role::Leader(leader) = &replica.role else {
            return Err(ErrorCode::NotLeaderOrFollower);
        };
        check_leader_epoch(leader_epoch, leader.leader_epoch())?;
        let known = leader.check_offsets_available().is_ok();
        let early = plant == Plant::LatestShownTooEarly;
        let batches = disk.partitions[&id].log.read(offset, leader.high_watermark(), 4);
        Ok(ReadAnswer {
            values: batches.iter().flat_map(|batch| values_from(batch, offset)).collect(),
            latest: (known || early).then(|| leader.high_watermark()),
        })
    }

    pub(crate) fn on_group_request(
        &mut self,
        to: Sender,
        call: CallId,
        request: GroupRequest,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        self.with_groups(disk, step, |groups, replica, partition, step| {
            groups.on_request((to, call), request, replica, partition, step);
        });
    }

    /// Lets the coordinator act on its partition.
    pub(crate) fn with_groups(
        &mut self,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
        act: impl FnOnce(
            &mut GroupDriver,
            Option<&mut Replica>,
            Option<&mut crate::disk::PartitionDisk>,
            &mut NodeStep<'_>,
        ),
    ) {
        let replica = self.replicas.get_mut(&OFFSETS_PARTITION);
        let partition = disk.partitions.get_mut(&OFFSETS_PARTITION);
        act(&mut self.groups, replica, partition, step);
        self.request_sync(disk, step);
    }
}

fn values_from(batch: &PartitionBatch, offset: Offset) -> Vec<(Offset, Option<Value>)> {
    let Payload::Values(values) = &batch.payload else { return Vec::new() };
    let values = (batch.base_offset..).zip(values.iter().map(|value| Some(*value)));
    values.filter(|(at, _)| *at >= offset).collect()
}

fn refused(fetch: &ReplicaFetch, error: ErrorCode) -> FetchedPartition {
    FetchedPartition {
        error,
        number: fetch.number,
        current_leader_epoch: fetch.current_leader_epoch,
        fetch_offset: fetch.fetch_offset,
        diverging: None,
        high_watermark: -1,
        log_start_offset: 0,
    }
}

fn committed_isr(answer: ControllerAnswer) -> Result<CommittedIsr, ErrorCode> {
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
