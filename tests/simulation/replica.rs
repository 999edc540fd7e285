//! One replica of a partition on a broker: the replica that ships, and what the driver does to its log.
//!
//! Invariant: a leader's epoch is in the log's epochs before anything is served (KAFKA-7415).

mod fetching;

use crate::batch::{PartitionBatch, PartitionId, Payload, Value};
use crate::log::Extent;
use crate::log_directories::PartitionDisk;
use crate::message::{CallId, Message, ProducedBatch, Sender};
use crate::metadata_driver::NodeStep;
use crate::node::NodeTimer;
use crate::observation::{Life, Observation};
use crate::plant::Plant;
use klamm_log::producer_state::{AppendOrigin, ProducerState};
use klamm_metadata::image::ClusterImage;
use klamm_protocol::ErrorCode;
use klamm_protocol::batch::BatchHeader;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset, or_minus_one};
use klamm_replication::partition::{
    Awaited, BrokerStatus, Effect, FetchWaiter, IsrProposal, LeaderConfig, LogEnds, Registration,
    Repair,
};
use std::collections::BTreeMap;
use std::rc::Rc;

/// No fetch waits in this simulation: followers and consumers ask again.
#[derive(Debug)]
pub(crate) enum NoFetch {}

impl FetchWaiter for NoFetch {
    fn is_over(&self) -> bool {
        match *self {}
    }
}

/// A produce with acks=all that waits for its replicas.
#[derive(Debug)]
pub(crate) struct Produce {
    to: Sender,
    call: CallId,
    first_offset: Offset,
    awaited: Awaited,
    values: Vec<Value>,
}

/// What ships.
type Core = klamm_replication::partition::Replica<Produce, NoFetch>;

#[derive(Debug)]
pub(crate) struct Replica {
    life: Life,
    pub(crate) partition: PartitionId,
    pub(crate) core: Core,
    pub(crate) producers: ProducerState,
    /// What a driver with a mistake has not given up.
    outliving: Vec<Produce>,
    /// The proposal to the controller that is under way.
    pub(crate) proposal: Option<(CallId, IsrProposal)>,
    /// A look at silent followers is due.
    pub(crate) is_watched: bool,
    /// The number of the last fetch that was sent.
    pub(crate) latest_fetch: u64,
    /// The batch that was found to be damaged.
    pub(crate) damaged: Option<Offset>,
    pub(crate) repair: Repair,
    /// It serves nothing while its damage is repaired.
    pub(crate) is_offline: bool,
    /// What was cut off with the damage is being fetched again.
    pub(crate) is_refetching: bool,
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
            core: Core::new(disk.checkpoint.min(disk.log.end())),
            producers: rebuilt_producers(disk),
            outliving: Vec::new(),
            proposal: None,
            is_watched: false,
            latest_fetch: 0,
            damaged: None,
            repair: Repair::default(),
            is_offline: false,
            is_refetching: false,
        }
    }

    /// The controller is told that it is lost.
    pub(crate) fn is_under_repair(&self) -> bool {
        self.is_offline || self.is_refetching
    }

    /// The epoch that this replica leads, if it does.
    pub(crate) fn led_epoch(&self) -> Option<LeaderEpoch> {
        self.core.leader().map(|leader| leader.leader_epoch())
    }

    /// The metadata say who leads. Returns whether the role is another one now.
    pub(crate) fn on_metadata(
        &mut self,
        leader_id: Option<BrokerId>,
        registration: &Registration,
        image: &ClusterImage,
        config: LeaderConfig,
        disk: &mut PartitionDisk,
        step: &mut NodeStep<'_>,
    ) -> bool {
        let statuses = statuses(image, registration);
        for id in &registration.replicas {
            self.core.on_broker_status(*id, statuses.get(id).copied());
        }
        let led = self.core.is_leader();
        let changed = if leader_id == Some(self.life.0) {
            self.lead(registration, &statuses, config, disk, step);
            !led
        } else {
            self.follow(leader_id, registration, disk, step)
        };
        if self.proposal.as_ref().is_some_and(|(_, proposal)| !self.core.is_proposing(proposal)) {
            self.proposal = None;
        }
        self.settle(disk, step);
        changed
    }

    /// The log is about to be closed.
    pub(crate) fn close(&mut self, step: &mut NodeStep<'_>) {
        self.core.stop();
        self.settle(&PartitionDisk::default(), step);
    }

    fn lead(
        &mut self,
        registration: &Registration,
        statuses: &BTreeMap<BrokerId, BrokerStatus>,
        config: LeaderConfig,
        disk: &mut PartitionDisk,
        step: &mut NodeStep<'_>,
    ) {
        let led = self.core.is_leader();
        let started = self.core.lead(config, registration, ends(disk), statuses, step.now_ms);
        let Some(start) = started else { return };
        disk.epochs.assign(registration.leader_epoch, start);
        if !led && step.plant == Plant::DuplicateDetectionLost {
            self.producers = ProducerState::new(disk.log.end());
        } else if !led {
            self.compare_producers(disk, step);
        }
        self.announce_leadership(registration.leader_epoch, step);
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
        leader_id: Option<BrokerId>,
        registration: &Registration,
        disk: &mut PartitionDisk,
        step: &NodeStep<'_>,
    ) -> bool {
        let is_news = self.core.follow(leader_id, registration);
        if is_news && leader_id.is_some() && step.plant == Plant::TruncateToHighWatermark {
            let known = self.core.high_watermark();
            let whole = disk.log.find(known).map_or(known, |batch| batch.base_offset());
            self.truncate(whole, disk);
        }
        is_news
    }

    pub(crate) fn truncate(&mut self, end: Offset, disk: &mut PartitionDisk) {
        disk.truncate(end);
        self.core.on_cut(disk.log.start(), disk.log.end());
        self.producers = rebuilt_producers(disk);
    }

    /// The log has been synced up to here.
    pub(crate) fn on_synced(&mut self, disk: &PartitionDisk, step: &mut NodeStep<'_>) {
        self.core.on_flushed(disk.log.synced_end(), step.now_ms);
        self.settle(disk, step);
    }

    /// Carries out what the core asks for.
    pub(crate) fn settle(&mut self, disk: &PartitionDisk, step: &mut NodeStep<'_>) {
        while let Some(effect) = self.core.poll_effect() {
            match effect {
                Effect::SetHighWatermark(offset) => {
                    let (life, partition, leads) =
                        (self.life, self.partition, self.core.is_leader());
                    let epoch = self.core.role().leader_epoch().unwrap_or(-1);
                    let seen = Observation::HighWatermark { life, partition, epoch, leads, offset };
                    step.observe(seen);
                }
                Effect::Finish(produce) => self.finish(produce, disk, step),
                Effect::Wake(nobody) => match nobody {},
            }
        }
        self.finish_outliving(step);
    }

    /// A produce need not wait any longer.
    fn finish(&mut self, produce: Produce, disk: &PartitionDisk, step: &mut NodeStep<'_>) {
        let epoch = epoch_of(produce.awaited.last_offset(), disk);
        let answer = match self.core.acknowledged(&produce.awaited, epoch) {
            _ if self.is_offline => Err(ErrorCode::KafkaStorageError),
            Ok(true) => return self.acknowledge(produce, step),
            // Given up: another broker may lead, and take it.
            Ok(false) => Err(ErrorCode::NotLeaderOrFollower),
            Err(ErrorCode::NotLeaderOrFollower)
                if step.plant == Plant::WaitingOutlivesLeadership =>
            {
                return self.outliving.push(produce);
            }
            Err(error) => Err(error),
        };
        step.answer(produce.to, Message::ProduceAnswer { call: produce.call, answer });
    }

    fn acknowledge(&self, produce: Produce, step: &mut NodeStep<'_>) {
        let (life, partition, epoch) = (self.life, self.partition, or_minus_one(self.led_epoch()));
        for (offset, value) in (produce.first_offset..).zip(produce.values) {
            step.observe(Observation::Acknowledged { life, partition, epoch, offset, value });
        }
        let answer = Ok(produce.first_offset);
        step.answer(produce.to, Message::ProduceAnswer { call: produce.call, answer });
    }

    /// A driver with a mistake goes by the offset alone when it leads again.
    fn finish_outliving(&mut self, step: &mut NodeStep<'_>) {
        if self.outliving.is_empty() || !self.core.is_leader() {
            return;
        }
        let committed = self.core.high_watermark();
        let (finished, still) = std::mem::take(&mut self.outliving)
            .into_iter()
            .partition(|produce| produce.awaited.required_offset <= committed);
        self.outliving = still;
        let finished: Vec<Produce> = finished;
        finished.into_iter().for_each(|produce| self.acknowledge(produce, step));
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
        let leader_epoch = self.core.check_append(true).map_err(|refused| refused.code())?;
        if self.is_offline {
            return Err(ErrorCode::KafkaStorageError);
        }
        if has_no_room(disk, step) {
            return Err(ErrorCode::KafkaStorageError);
        }
        header.base_offset = disk.log.end();
        header.partition_leader_epoch = leader_epoch;
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
        self.core.on_appended(disk.log.end(), step.now_ms);
        self.settle(disk, step);
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
                let epoch = epoch_of(required_offset - 1, disk);
                let awaited = Awaited { required_offset, epoch };
                let produce = Produce { to, call, first_offset, awaited, values };
                let early = step.plant == Plant::AcknowledgedOnAppend;
                if early || self.core.high_watermark() >= required_offset {
                    return self.acknowledge(produce, step);
                }
                self.core.await_committed(required_offset, produce);
                self.settle(disk, step);
            }
        }
    }
}

/// Whether nothing can be appended. The broker looks soon what follows from that.
fn has_no_room(disk: &mut PartitionDisk, step: &mut NodeStep<'_>) -> bool {
    if disk.is_full && !std::mem::replace(&mut disk.is_found_full, true) {
        step.after(0, NodeTimer::TryAgain);
    }
    if disk.is_found_full {
        step.observe(Observation::BatchWithoutRoom);
    }
    disk.is_found_full
}

fn ends(disk: &PartitionDisk) -> LogEnds {
    LogEnds { log_end_offset: disk.log.end(), flushed_offset: disk.log.synced_end() }
}

fn epoch_of(offset: Offset, disk: &PartitionDisk) -> Option<LeaderEpoch> {
    disk.log.find(offset).map(|batch| batch.leader_epoch)
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
