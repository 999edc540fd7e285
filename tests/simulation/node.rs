//! A node: its disk, its clock and, while it runs, its process. Routes what arrives to the driver
//! that it is for.

use crate::batch::PartitionId;
use crate::broker::Broker;
use crate::clock::{Clock, DAY_MS};
use crate::disk::Disk;
use crate::log::SyncMark;
use crate::message::{CallId, Message, Sender};
use crate::metadata_driver::{MetadataDriver, NodeStep};
use crate::observation::Life;
use crate::plant::Plant;
use crate::scenario::{Scenario, directories, directory};
use klamm_protocol::Uuid;
use klamm_protocol::ids::{BrokerId, Offset};
use klamm_replication::quorum::FlushTicket;

/// A node checkpoints its high watermarks this often.
const CHECKPOINT_MS: i64 = 250;
/// `producer.id.expiration.ms`
const PRODUCER_ID_EXPIRATION_MS: i64 = DAY_MS;
/// A node takes snapshots at intervals of up to so long.
const SNAPSHOT_MS: i64 = 2_500;

#[derive(Debug, Clone)]
pub(crate) enum NodeTimer {
    /// Deadlines of quorum, controller and groups.
    Tick,
    MetadataSynced {
        ticket: FlushTicket,
        mark: SyncMark,
    },
    DataSynced(Vec<(PartitionId, Uuid, SyncMark)>),
    Contact,
    ContactTimeout(CallId),
    CheckIsr,
    CheckSilence(PartitionId),
    Fetch {
        partition: PartitionId,
        number: u64,
    },
    SendProposal {
        partition: PartitionId,
        call: CallId,
    },
    ProposalTimeout {
        partition: PartitionId,
        call: CallId,
    },
    LoadGroups(u64),
    Checkpoint,
    /// There may be room again.
    TryAgain,
    /// Damage and moves are looked at.
    Upkeep,
    TakeSnapshot,
    /// A connection to this node broke, and the next one was refused.
    ProcessGone(BrokerId),
}

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) metadata: MetadataDriver,
    pub(crate) broker: Broker,
    /// Up to where the broker has seen the metadata.
    published: Offset,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: BrokerId,
    pub(crate) incarnation: u64,
    pub(crate) clock: Clock,
    pub(crate) disk: Disk,
    pub(crate) process: Option<Process>,
    /// The world's time at which the process is to be woken.
    pub(crate) tick_at_ms: i64,
    /// How many directories it has had: the next one's id.
    named: u8,
}

impl Node {
    pub(crate) fn new(id: BrokerId, clock: Clock, scenario: &Scenario) -> Self {
        let count = scenario.directories[&id];
        Self {
            id,
            incarnation: 0,
            clock,
            disk: Disk::new(directories(id, 0, count), scenario.initial_membership(id)),
            process: None,
            tick_at_ms: i64::MAX,
            named: count,
        }
    }

    /// All disks and what was on them is gone. The new ones are formatted for a node that is no voter.
    pub(crate) fn replace_disks(&mut self, scenario: &Scenario) {
        let count = u8::try_from(self.disk.logs.count()).expect("few directories");
        let directories = directories(self.id, self.named, count);
        self.named += count;
        self.disk = Disk::new(directories, scenario.initial_membership(self.id));
    }

    /// A directory and what was in it is gone. An empty one takes its place.
    pub(crate) fn replace_directory(&mut self, at: usize) {
        self.disk.logs.replace(at, directory(self.id, self.named));
        self.named += 1;
    }

    /// A directory answers EIO from now on.
    pub(crate) fn on_directory_failed(&mut self, at: usize, step: &mut NodeStep<'_>) {
        let lost = self.disk.logs.fail(at, step.random);
        if let Some(process) = &mut self.process {
            process.broker.on_directory_failed(lost, step);
        }
    }

    /// There is room again.
    pub(crate) fn on_room(&mut self, step: &mut NodeStep<'_>) {
        if let Some(process) = &mut self.process {
            process.metadata.on_room(&mut self.disk, step);
            process.publish(&mut self.disk, step);
        }
    }

    /// The moves of the broker, for a failure's message.
    pub(crate) fn moves(&self) -> String {
        self.process.as_ref().map_or_else(String::new, |process| process.broker.moves())
    }

    /// An operator wants a replica in this directory.
    pub(crate) fn alter_log_dir(
        &mut self,
        partition: PartitionId,
        at: Uuid,
        step: &mut NodeStep<'_>,
    ) {
        if let Some(process) = &mut self.process {
            process.broker.alter_log_dir(partition, at, &mut self.disk, step);
        }
    }

    /// A directory that was away is there again.
    pub(crate) fn on_directory_returned(&mut self, step: &mut NodeStep<'_>) {
        if let Some(process) = &mut self.process {
            process.published = -1;
            process.publish(&mut self.disk, step);
        }
    }

    pub(crate) fn life(&self) -> Life {
        (self.id, self.incarnation)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.process.is_some()
    }

    pub(crate) fn start(&mut self, scenario: &Scenario, step: &mut NodeStep<'_>) {
        self.incarnation += 1;
        let life = self.life();
        let metadata = MetadataDriver::start(life, scenario, &mut self.disk, step);
        let config = scenario.leader(life.0, step.plant);
        let broker = Broker::start(life, config, &mut self.disk, step);
        step.after(CHECKPOINT_MS, NodeTimer::Checkpoint);
        if scenario.disks_decay || scenario.replicas_move {
            step.after(0, NodeTimer::Upkeep);
        }
        let snapshot_ms = step.random.between(300, SNAPSHOT_MS);
        step.after(snapshot_ms, NodeTimer::TakeSnapshot);
        let mut process = Process { metadata, broker, published: -1 };
        process.publish(&mut self.disk, step);
        self.process = Some(process);
    }

    /// When the process wants to be woken, by its own clock.
    pub(crate) fn next_deadline_ms(&self) -> i64 {
        self.process.as_ref().map_or(i64::MAX, |process| {
            let groups_ms = process.broker.groups.next_deadline_ms();
            process.metadata.next_deadline_ms().min(groups_ms)
        })
    }

    pub(crate) fn on_message(&mut self, from: Sender, message: Message, step: &mut NodeStep<'_>) {
        if let Some(process) = &mut self.process {
            process.on_message(from, message, &mut self.disk, step);
            process.publish(&mut self.disk, step);
        }
    }

    pub(crate) fn on_timer(&mut self, timer: NodeTimer, step: &mut NodeStep<'_>) {
        if let NodeTimer::Checkpoint = timer {
            self.clock.write_down(match step.plant {
                Plant::RestartBelievesSkippedDays => step.now.wall_ms,
                _ => step.now.retention_ms,
            });
        }
        if let Some(process) = &mut self.process {
            process.on_timer(timer, &mut self.disk, step);
            process.publish(&mut self.disk, step);
        }
    }
}

impl Process {
    /// Tells the broker of metadata that it has not seen.
    fn publish(&mut self, disk: &mut Disk, step: &mut NodeStep<'_>) {
        let loader = self.metadata.controller.committed();
        if loader.end_offset() != self.published && !step.is_dead() {
            self.published = loader.end_offset();
            self.broker.on_metadata(loader.stable(), disk, step);
        }
    }

    fn on_message(
        &mut self,
        from: Sender,
        message: Message,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        let Self { metadata, broker, .. } = self;
        match message {
            Message::Quorum { id, request } => metadata.on_request(from, id, request, disk, step),
            Message::QuorumAnswer { id, response } => {
                metadata.on_response(id, response, disk, step);
            }
            Message::Controller { call, request } => {
                metadata.on_controller_request(from, call, request, disk, step);
            }
            Message::ControllerAnswer { call, answer } => {
                let registered = broker.epoch;
                broker.on_controller_answer(call, answer, disk, step);
                if broker.epoch != registered {
                    self.published = -1;
                }
            }
            Message::Fetch(fetch) => broker.on_fetch(from, fetch, disk, step),
            Message::FetchAnswer { partition, fetched, batches } => {
                broker.on_fetched(partition, &fetched, batches, disk, step);
            }
            Message::Produce { call, batch } => {
                broker.on_produce((from, call), batch, disk, step);
            }
            Message::Read { call, partition, leader_epoch, offset } => {
                let answer = broker.read(partition, leader_epoch, offset, disk, step.plant);
                step.answer(from, Message::ReadAnswer { call, answer });
            }
            Message::Group { call, request } => {
                broker.on_group_request(from, call, request, disk, step);
            }
            Message::ProduceAnswer { .. }
            | Message::ReadAnswer { .. }
            | Message::GroupAnswer { .. } => unreachable!("a node asks for none of these"),
        }
    }

    fn on_timer(&mut self, timer: NodeTimer, disk: &mut Disk, step: &mut NodeStep<'_>) {
        let Self { metadata, broker, published } = self;
        match timer {
            NodeTimer::Tick => {
                metadata.on_tick(disk, step);
                broker.with_groups(disk, step, crate::group_driver::GroupDriver::on_tick);
            }
            NodeTimer::MetadataSynced { ticket, mark } => {
                metadata.on_synced(ticket, mark, disk, step);
            }
            NodeTimer::DataSynced(marks) => broker.on_synced(marks, disk, step),
            NodeTimer::Contact => broker.on_contact_timer(metadata, disk, step),
            NodeTimer::ContactTimeout(call) => broker.on_contact_timeout(call),
            NodeTimer::CheckIsr => broker.on_isr_timer(disk, step),
            NodeTimer::CheckSilence(partition) => broker.on_silence_timer(partition, disk, step),
            NodeTimer::Fetch { partition, number } => {
                broker.on_fetch_timer(partition, number, disk, step);
            }
            NodeTimer::SendProposal { partition, call } => {
                broker.on_proposal_timer(partition, call, metadata, step);
            }
            NodeTimer::ProposalTimeout { partition, call } => {
                broker.on_proposal_timeout(partition, call, disk, step);
            }
            NodeTimer::LoadGroups(begun) => {
                broker.with_groups(disk, step, |groups, replica, partition, step| {
                    groups.load(begun, replica, partition, step);
                });
            }
            NodeTimer::Checkpoint => {
                step.after(CHECKPOINT_MS, NodeTimer::Checkpoint);
                for (id, replica) in &mut broker.replicas {
                    let partition = disk.logs.get_mut(*id).expect("a replica has a log");
                    replica.producers.remove_expired(step.now, PRODUCER_ID_EXPIRATION_MS);
                    if !partition.is_full {
                        partition.checkpoint = replica.core.high_watermark();
                    }
                }
            }
            NodeTimer::TryAgain => {
                broker.on_try_again();
                *published = -1;
            }
            NodeTimer::Upkeep => broker.on_upkeep(metadata, disk, step),
            NodeTimer::ProcessGone(id) => metadata.on_process_gone(id, disk, step),
            NodeTimer::TakeSnapshot => {
                let delay_ms = step.random.between(300, SNAPSHOT_MS);
                step.after(delay_ms, NodeTimer::TakeSnapshot);
                metadata.take_snapshot(disk, step);
            }
        }
    }
}
