//! One replica of a partition on a broker: its role, and what it does to its log.
//!
//! Invariants: a follower fetches only when everything it has is synced, for its fetch acknowledges what
//! it has; a leader's epoch is in the log's epochs before anything is served (KAFKA-7415).

mod fetching;

use crate::batch::{PartitionBatch, PartitionId, Payload, Value};
use crate::log::Extent;
use crate::log_directories::PartitionDisk;
use crate::message::{CallId, Message, ProducedBatch, Sender};
use crate::metadata_driver::NodeStep;
use crate::observation::{Life, Observation};
use crate::plant::Plant;
use crate::scenario::LAG_MS;
use klamm_log::producer_state::{AppendOrigin, ProducerState};
use klamm_metadata::image::ClusterImage;
use klamm_protocol::ErrorCode;
use klamm_protocol::batch::BatchHeader;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};
use klamm_replication::partition::{
    AcksState, BrokerStatus, FollowerState, IsrProposal, LeaderConfig, LeaderState, LogEnds,
    Registration,
};
use std::collections::BTreeMap;
use std::rc::Rc;

#[derive(Debug)]
pub(crate) enum Role {
    /// The partition has no leader, or this broker knows nothing yet.
    Idle,
    Leader(LeaderState),
    Follower(FollowerState),
}

/// A produce with acks=all that waits for its replicas.
#[derive(Debug)]
struct Waiting {
    to: Sender,
    call: CallId,
    first_offset: Offset,
    required_offset: Offset,
    values: Vec<Value>,
}

#[derive(Debug)]
pub(crate) struct Replica {
    life: Life,
    pub(crate) partition: PartitionId,
    pub(crate) role: Role,
    pub(crate) high_watermark: Offset,
    pub(crate) producers: ProducerState,
    waiting: Vec<Waiting>,
    partition_epoch: i32,
    /// The proposal to the controller that is under way.
    pub(crate) proposal: Option<(CallId, IsrProposal)>,
    /// The number of the last fetch that was sent.
    pub(crate) latest_fetch: u64,
}

/// What an append came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Appended {
    pub(crate) first_offset: Offset,
    pub(crate) required_offset: Offset,
}

impl Replica {
    pub(crate) fn open(life: Life, partition: PartitionId, disk: &PartitionDisk) -> Self {
        Self {
            life,
            partition,
            role: Role::Idle,
            high_watermark: disk.checkpoint.min(disk.log.end()),
            producers: rebuilt_producers(disk),
            waiting: Vec::new(),
            partition_epoch: -1,
            proposal: None,
            latest_fetch: 0,
        }
    }

    pub(crate) fn leader(&mut self) -> Option<&mut LeaderState> {
        match &mut self.role {
            Role::Leader(leader) => Some(leader),
            _ => None,
        }
    }

    pub(crate) fn leads(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// The epoch that this replica leads; -1 if it does not.
    pub(crate) fn led_epoch(&self) -> LeaderEpoch {
        if self.leads() { self.epoch() } else { -1 }
    }

    fn epoch(&self) -> LeaderEpoch {
        match &self.role {
            Role::Idle => -1,
            Role::Leader(leader) => leader.leader_epoch(),
            Role::Follower(follower) => follower.leader_epoch,
        }
    }

    /// The metadata say who leads. Returns whether the role is another one now.
    pub(crate) fn on_metadata(
        &mut self,
        leader_id: BrokerId,
        registration: &Registration,
        image: &ClusterImage,
        min_insync_replicas: usize,
        disk: &mut PartitionDisk,
        step: &mut NodeStep<'_>,
    ) -> bool {
        let statuses = statuses(image, registration);
        if let Role::Leader(leader) = &mut self.role {
            for id in &registration.replicas {
                leader.on_broker_status(*id, statuses.get(id).copied());
            }
        }
        if registration.partition_epoch <= self.partition_epoch {
            return false;
        }
        self.partition_epoch = registration.partition_epoch;
        let here = leader_id == self.life.0;
        match &mut self.role {
            Role::Leader(leader) if here => {
                let started = leader.on_registration(registration, &statuses, step.now_ms);
                if leader.isr().pending().is_none() {
                    self.proposal = None;
                }
                if let Some(start) = started {
                    disk.epochs.assign(registration.leader_epoch, start);
                    self.announce_leadership(registration.leader_epoch, step);
                }
                self.on_progress(disk, step);
                false
            }
            Role::Follower(follower)
                if !here
                    && follower.leader_id == leader_id
                    && follower.leader_epoch == registration.leader_epoch =>
            {
                follower.partition_epoch = registration.partition_epoch;
                false
            }
            _ => {
                self.give_up(step);
                match here {
                    true => self.lead(registration, &statuses, min_insync_replicas, disk, step),
                    false => self.follow(leader_id, registration, disk, step),
                }
                true
            }
        }
    }

    /// Whoever waits for an append here is sent to the new leader.
    pub(crate) fn give_up(&mut self, step: &mut NodeStep<'_>) {
        let outlives = step.plant == Plant::WaitingOutlivesLeadership;
        let ended = if outlives { Vec::new() } else { std::mem::take(&mut self.waiting) };
        for waiting in ended {
            let answer = Err(ErrorCode::NotLeaderOrFollower);
            step.answer(waiting.to, Message::ProduceAnswer { call: waiting.call, answer });
        }
        self.proposal = None;
        self.role = Role::Idle;
    }

    fn lead(
        &mut self,
        registration: &Registration,
        statuses: &BTreeMap<BrokerId, BrokerStatus>,
        min_insync_replicas: usize,
        disk: &mut PartitionDisk,
        step: &mut NodeStep<'_>,
    ) {
        let ignored = step.plant == Plant::MinIsrIgnored;
        let config = LeaderConfig {
            broker_id: self.life.0,
            min_insync_replicas: if ignored { 1 } else { min_insync_replicas },
            replica_lag_time_max_ms: LAG_MS,
            flush_before_ack: true,
        };
        let ends =
            LogEnds { log_end_offset: disk.log.end(), flushed_offset: disk.log.synced_end() };
        let known = self.high_watermark;
        let leader = LeaderState::new(config, registration, ends, known, statuses, step.now_ms);
        disk.epochs.assign(registration.leader_epoch, disk.log.end());
        if step.plant == Plant::DuplicateDetectionLost {
            self.producers = ProducerState::new(disk.log.end());
        } else {
            self.compare_producers(disk, step);
        }
        self.role = Role::Leader(leader);
        self.announce_leadership(registration.leader_epoch, step);
        self.on_progress(disk, step);
    }

    fn announce_leadership(&self, epoch: LeaderEpoch, step: &mut NodeStep<'_>) {
        let (life, partition) = (self.life, self.partition);
        step.observe(Observation::PartitionLed { life, partition, epoch });
    }

    fn compare_producers(&self, disk: &PartitionDisk, step: &mut NodeStep<'_>) {
        let equal = rebuilt_producers(disk) == self.producers;
        let (life, partition) = (self.life, self.partition);
        step.observe(Observation::ProducersRebuilt { life, partition, equal });
    }

    fn follow(
        &mut self,
        leader_id: BrokerId,
        registration: &Registration,
        disk: &mut PartitionDisk,
        step: &mut NodeStep<'_>,
    ) {
        if leader_id < 0 {
            return;
        }
        let known = self.high_watermark.min(disk.log.end());
        if step.plant == Plant::TruncateToHighWatermark {
            let whole = disk.log.find(known).map_or(known, |batch| batch.base_offset());
            self.truncate(whole, disk);
        }
        let Registration { leader_epoch, partition_epoch, .. } = *registration;
        let follower = FollowerState::new(leader_id, leader_epoch, partition_epoch, known);
        self.role = Role::Follower(follower);
    }

    fn truncate(&mut self, end: Offset, disk: &mut PartitionDisk) {
        disk.log.truncate(end);
        disk.epochs.truncate_from_end(end);
        self.high_watermark = self.high_watermark.min(end);
        self.producers = rebuilt_producers(disk);
    }

    /// The log has been synced up to here.
    pub(crate) fn on_synced(&mut self, disk: &PartitionDisk, step: &mut NodeStep<'_>) {
        if let Role::Leader(leader) = &mut self.role {
            leader.on_flushed(disk.log.synced_end(), step.now_ms);
            self.on_progress(disk, step);
        }
    }

    /// The high watermark may have moved, or the ISR.
    pub(crate) fn on_progress(&mut self, disk: &PartitionDisk, step: &mut NodeStep<'_>) {
        let epoch = self.epoch();
        let offset = match &self.role {
            Role::Idle => return,
            Role::Leader(leader) => leader.high_watermark(),
            Role::Follower(follower) => follower.high_watermark(),
        };
        let moved = offset != self.high_watermark;
        self.high_watermark = offset;
        let (life, partition, leads) = (self.life, self.partition, self.leads());
        if moved {
            let seen = Observation::HighWatermark { life, partition, epoch, leads, offset };
            step.observe(seen);
        }
        self.answer_waiting(disk, step);
    }

    fn answer_waiting(&mut self, disk: &PartitionDisk, step: &mut NodeStep<'_>) {
        let Role::Leader(leader) = &self.role else { return };
        let (life, partition, epoch) = (self.life, self.partition, leader.leader_epoch());
        let early = step.plant == Plant::AcknowledgedOnAppend;
        let mut still = Vec::new();
        for waiting in std::mem::take(&mut self.waiting) {
            let required_offset = match early {
                true => waiting.required_offset.min(disk.log.end()),
                false => waiting.required_offset,
            };
            let state = match leader.acks_state(required_offset) {
                AcksState::Waiting if early => AcksState::Replicated,
                state => state,
            };
            let answer = match state {
                AcksState::Waiting => {
                    still.push(waiting);
                    continue;
                }
                AcksState::NotEnoughReplicas => Err(ErrorCode::NotEnoughReplicasAfterAppend),
                AcksState::Replicated => {
                    for (offset, value) in (waiting.first_offset..).zip(&waiting.values) {
                        let (offset, value) = (offset, *value);
                        let seen =
                            Observation::Acknowledged { life, partition, epoch, offset, value };
                        step.observe(seen);
                    }
                    Ok(waiting.first_offset)
                }
            };
            step.answer(waiting.to, Message::ProduceAnswer { call: waiting.call, answer });
        }
        self.waiting = still;
    }

    /// Appends a batch as leader, if there are replicas enough.
    pub(crate) fn append(
        &mut self,
        mut header: BatchHeader,
        payload: Payload,
        origin: AppendOrigin,
        disk: &mut PartitionDisk,
        step: &mut NodeStep<'_>,
    ) -> Result<Appended, ErrorCode> {
        let Role::Leader(leader) = &mut self.role else {
            return Err(ErrorCode::NotLeaderOrFollower);
        };
        leader.check_min_isr().map_err(|error| error.code())?;
        if disk.is_full {
            step.observe(Observation::BatchWithoutRoom);
            return Err(ErrorCode::KafkaStorageError);
        }
        header.base_offset = disk.log.end();
        header.partition_leader_epoch = leader.leader_epoch();
        let repeated = self.producers.append(&header, origin).map_err(|error| error.code())?;
        if let Some(earlier) = repeated {
            step.observe(Observation::BatchRepeated);
            let (first_offset, required_offset) = (earlier.first_offset(), earlier.last_offset + 1);
            return Ok(Appended { first_offset, required_offset });
        }
        let batch = Rc::new(PartitionBatch {
            base_offset: header.base_offset,
            leader_epoch: header.partition_leader_epoch,
            writer: self.life,
            header,
            payload,
        });
        let (life, partition) = (self.life, self.partition);
        disk.log.append(Rc::clone(&batch));
        step.observe(Observation::Written { life, partition, batch });
        leader.on_appended(disk.log.end(), step.now_ms);
        let (first_offset, required_offset) = (header.base_offset, header.next_offset());
        Ok(Appended { first_offset, required_offset })
    }

    /// A producer's batch; answered when all in-sync replicas have it.
    pub(crate) fn produce(
        &mut self,
        (to, call): (Sender, CallId),
        batch: ProducedBatch,
        disk: &mut PartitionDisk,
        step: &mut NodeStep<'_>,
    ) {
        let values = batch.values;
        let header = header_of(&values, batch.timestamp_ms);
        let payload = Payload::Values(values.clone());
        match self.append(header, payload, AppendOrigin::Client, disk, step) {
            Err(error) => {
                step.answer(to, Message::ProduceAnswer { call, answer: Err(error) });
            }
            Ok(Appended { first_offset, required_offset }) => {
                self.waiting.push(Waiting { to, call, first_offset, required_offset, values });
                self.on_progress(disk, step);
            }
        }
    }
}

/// The producers as the log tells.
fn rebuilt_producers(disk: &PartitionDisk) -> ProducerState {
    let mut producers = ProducerState::new(0);
    for batch in disk.log.batches() {
        let taken = producers.append(&batch.header, AppendOrigin::Replication);
        taken.expect("what was accepted once is taken over");
    }
    producers
}

fn statuses(image: &ClusterImage, registration: &Registration) -> BTreeMap<BrokerId, BrokerStatus> {
    let brokers = registration.replicas.iter().filter_map(|id| image.brokers.get(*id));
    let status = |broker: &klamm_metadata::image::brokers::Broker| BrokerStatus {
        broker_epoch: broker.epoch,
        fenced: broker.fenced,
        in_controlled_shutdown: broker.in_controlled_shutdown,
    };
    brokers.map(|broker| (broker.id, status(broker))).collect()
}

/// A header for so many records of nobody.
pub(crate) fn header(records: usize, now_ms: i64) -> BatchHeader {
    let record_count = i32::try_from(records).expect("few records");
    BatchHeader {
        base_offset: 0,
        batch_length: 0,
        partition_leader_epoch: -1,
        magic: 2,
        crc: 0,
        attributes: 0,
        last_offset_delta: record_count - 1,
        base_timestamp: now_ms,
        max_timestamp: now_ms,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        record_count,
    }
}

fn header_of(values: &[Value], now_ms: i64) -> BatchHeader {
    let first = values.first().expect("a batch has values");
    BatchHeader {
        producer_id: first.producer,
        producer_epoch: 0,
        base_sequence: first.sequence,
        ..header(values.len(), now_ms)
    }
}
