//! The brokers with their disks, and what is under way between them and the controller.

mod checks;
mod controller;
mod power;

use crate::random::Random;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};
use klamm_replication::partition::{
    Awaited, BrokerStatus, Effect, FetchPosition, FetchWaiter, FetchedLog, FetchedPartition,
    Follow, IsrProposal, LeaderConfig, LogEnds, PartitionFetch, ProposalOutcome, Reader,
    Registration, Replica, SILENCE_CHECKS,
};
use klamm_replication::{EpochHistory, OffsetAndEpoch};
use std::collections::BTreeMap;

const LAG_MS: i64 = 1_000;
const SILENCE_MS: i64 = 200;

/// A defect that the invariants must catch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plant {
    None,
    TruncateToHighWatermark,
    AcknowledgeBeforeSync,
    AssumeExpansionFailed,
    /// The high watermark does not wait for a follower that has caught up and is about to join the ISR.
    OutsidersNotWaitedFor,
    /// The controller takes a replica into the ISR whose broker has restarted since it fetched (KIP-903).
    BrokerEpochNotChecked,
    /// The controller takes a replica into the ISR whose broker is fenced (INELIGIBLE_REPLICA, KIP-841).
    FencedReplicaTaken,
}

type Record = (LeaderEpoch, u64);

/// No fetch waits in this simulation: followers ask again.
#[derive(Debug)]
enum NoFetch {}

impl FetchWaiter for NoFetch {
    fn is_over(&self) -> bool {
        match *self {}
    }
}

/// A produce that waits for its record to be committed.
#[derive(Debug, Clone, Copy)]
struct Produce {
    record: Record,
    awaited: Awaited,
}

/// A broker: its disk, and its replica while it is up.
#[derive(Debug)]
struct Broker {
    replica: Option<Replica<Produce, NoFetch>>,
    log: Vec<Record>,
    flushed: usize,
    epochs: EpochHistory,
    /// The high watermark on disk.
    checkpoint: Offset,
    broker_epoch: i64,
}

#[derive(Debug, Clone)]
struct Answer {
    to: BrokerId,
    fetched: FetchedPartition,
    records: Vec<Record>,
}

#[derive(Debug, Clone)]
struct Proposed {
    from: BrokerId,
    proposal: IsrProposal,
}

pub(crate) struct Brokers {
    random: Random,
    plant: Plant,
    now_ms: i64,
    brokers: BTreeMap<BrokerId, Broker>,
    min_insync_replicas: usize,
    /// Otherwise what is acknowledged need not be on any disk, and no two brokers fail one after the other.
    flush_before_ack: bool,
    leader: Option<BrokerId>,
    registration: Registration,
    statuses: BTreeMap<BrokerId, BrokerStatus>,
    answers: Vec<Answer>,
    proposals: Vec<Proposed>,
    acknowledged: BTreeMap<Offset, Record>,
    next_value: u64,
    violation: Option<String>,
}

fn offset(length: usize) -> Offset {
    Offset::try_from(length).expect("a short log")
}

fn length(offset: Offset) -> usize {
    usize::try_from(offset).expect("an offset")
}

impl Broker {
    fn end(&self) -> Offset {
        offset(self.log.len())
    }

    fn ends(&self) -> LogEnds {
        LogEnds { log_end_offset: self.end(), flushed_offset: offset(self.flushed) }
    }

    fn append(&mut self, record: Record) {
        self.epochs.assign(record.0, self.end());
        self.log.push(record);
    }

    fn truncate(&mut self, end: Offset) {
        self.log.truncate(length(end));
        self.flushed = self.flushed.min(self.log.len());
        self.epochs.truncate_from_end(end);
    }
}

impl Brokers {
    pub(crate) fn new(seed: u64, plant: Plant) -> Self {
        let mut random = Random::new(seed);
        let broker = |id: BrokerId| Broker {
            replica: Some(Replica::new(0)),
            log: Vec::new(),
            flushed: 0,
            epochs: EpochHistory::default(),
            checkpoint: 0,
            broker_epoch: i64::from(id),
        };
        let unfenced = |id: BrokerId| BrokerStatus {
            broker_epoch: i64::from(id),
            fenced: false,
            in_controlled_shutdown: false,
        };
        Self {
            min_insync_replicas: if random.chance(50) { 1 } else { 2 },
            flush_before_ack: random.chance(60),
            random,
            plant,
            now_ms: 0,
            brokers: (1..=3).map(|id| (id, broker(id))).collect(),
            leader: Some(1),
            registration: Registration {
                leader_epoch: 0,
                partition_epoch: 0,
                replicas: vec![1, 2, 3],
                isr: vec![1, 2, 3],
            },
            statuses: (1..=3).map(|id| (id, unfenced(id))).collect(),
            answers: Vec::new(),
            proposals: Vec::new(),
            acknowledged: BTreeMap::new(),
            next_value: 0,
            violation: None,
        }
    }

    fn any(&mut self) -> BrokerId {
        BrokerId::try_from(self.random.below(3)).expect("small") + 1
    }

    pub(crate) fn step(&mut self) {
        self.now_ms += self.random.between(0, 30);
        let id = self.any();
        match self.random.below(100) {
            0..20 => self.produce(id),
            20..40 => self.flush(id),
            40..65 => self.fetch(id),
            65..80 => self.deliver_answer(),
            80..86 => self.deliver_proposal(),
            86..93 => self.publish(id),
            93..94 => self.check_isr(id),
            94..95 => self.check_silence(id),
            95..97 => self.crash(id),
            97..99 => self.restart(id),
            _ => self.move_leadership(),
        }
    }

    fn produce(&mut self, id: BrokerId) {
        let now_ms = self.now_ms;
        let broker = self.brokers.get_mut(&id).expect("a broker");
        let Some(replica) = &mut broker.replica else { return };
        let Ok(leader_epoch) = replica.check_append(true) else { return };
        self.next_value += 1;
        let record = (leader_epoch, self.next_value);
        broker.log.push(record);
        let required_offset = offset(broker.log.len());
        let unseen = hide_outsiders(replica, self.plant);
        replica.on_appended(required_offset, now_ms);
        show(replica, unseen);
        let awaited = Awaited { required_offset, epoch: Some(leader_epoch) };
        replica.await_committed(required_offset, Produce { record, awaited });
        self.settle(id);
    }

    fn flush(&mut self, id: BrokerId) {
        let now_ms = self.now_ms;
        let broker = self.brokers.get_mut(&id).expect("a broker");
        let Some(replica) = &mut broker.replica else { return };
        broker.flushed = broker.log.len();
        let unseen = hide_outsiders(replica, self.plant);
        replica.on_flushed(offset(broker.flushed), now_ms);
        show(replica, unseen);
        self.settle(id);
    }

    /// Carries out what a replica asks for.
    fn settle(&mut self, id: BrokerId) {
        let broker = self.brokers.get_mut(&id).expect("a broker");
        let Some(replica) = &mut broker.replica else { return };
        while let Some(effect) = replica.poll_effect() {
            match effect {
                Effect::SetHighWatermark(high_watermark) => broker.checkpoint = high_watermark,
                Effect::Finish(produce) => {
                    let at = produce.awaited.last_offset();
                    let epoch = broker.log.get(length(at)).map(|record| record.0);
                    if replica.acknowledged(&produce.awaited, epoch) == Ok(true) {
                        self.acknowledged.insert(at, produce.record);
                    }
                }
                Effect::Wake(nobody) => match nobody {},
            }
        }
    }

    /// A follower fetches; its leader answers at once, the answer arrives when it does.
    fn fetch(&mut self, id: BrokerId) {
        let flushes = self.flush_before_ack && self.plant != Plant::AcknowledgeBeforeSync;
        let now_ms = self.now_ms;
        let broker = self.brokers.get_mut(&id).expect("a broker");
        if flushes {
            broker.flushed = broker.log.len();
        }
        let (ends, broker_epoch) = (broker.ends(), broker.broker_epoch);
        let Some(replica) = &mut broker.replica else { return };
        let Some(next) = replica.next_fetch(ends, flushes, &broker.epochs) else { return };
        let leader_id = replica.follower().and_then(|follower| follower.leader_id);
        let leader_id = leader_id.expect("a fetch has a leader");
        let fetch = PartitionFetch {
            reader: Reader::Follower { id, broker_epoch: Some(broker_epoch) },
            current_leader_epoch: Some(next.current_leader_epoch),
            fetch_offset: next.fetch_offset,
            last_fetched_epoch: next.last_fetched_epoch,
            log_start_offset: 0,
            now_ms,
        };
        let mut answer = Answer {
            to: id,
            fetched: FetchedPartition {
                error: ErrorCode::None,
                number: next.number,
                current_leader_epoch: next.current_leader_epoch,
                fetch_offset: next.fetch_offset,
                diverging: None,
                high_watermark: -1,
                log_start_offset: 0,
            },
            records: Vec::new(),
        };
        match self.answer(leader_id, fetch) {
            Err(error) => answer.fetched.error = error,
            Ok((diverging, high_watermark, records)) => {
                answer.fetched.diverging = diverging;
                answer.fetched.high_watermark = high_watermark;
                answer.records = records;
            }
        }
        self.answers.push(answer);
        self.settle(leader_id);
    }

    fn answer(
        &mut self,
        leader_id: BrokerId,
        fetch: PartitionFetch,
    ) -> Result<(Option<OffsetAndEpoch>, Offset, Vec<Record>), ErrorCode> {
        let broker = self.brokers.get_mut(&leader_id).expect("a broker");
        let epoch = fetch.last_fetched_epoch;
        let epoch_end = epoch.and_then(|epoch| broker.epochs.end_offset_for(epoch, broker.end()));
        let Some(replica) = &mut broker.replica else {
            return Err(ErrorCode::NotLeaderOrFollower);
        };
        let log = FetchedLog { log_start_offset: 0, epoch_end };
        let (position, proposal) = replica.on_fetch(&fetch, log, None)?;
        let high_watermark = replica.high_watermark();
        if let FetchPosition::Diverging(end) = position {
            return Ok((Some(end), high_watermark, Vec::new()));
        }
        let from = broker.log.iter().skip(length(fetch.fetch_offset));
        let records = from.take(3).copied().collect();
        let proposed = proposal.map(|proposal| Proposed { from: leader_id, proposal });
        self.proposals.extend(proposed);
        Ok((None, high_watermark, records))
    }

    fn deliver_answer(&mut self) {
        if self.answers.is_empty() {
            return;
        }
        let count = u64::try_from(self.answers.len()).expect("few");
        let index = usize::try_from(self.random.below(count)).expect("an index");
        let answer = self.answers.swap_remove(index);
        if self.random.chance(10) {
            return;
        }
        let broker = self.brokers.get_mut(&answer.to).expect("a broker");
        let end = broker.end();
        let Some(replica) = &mut broker.replica else { return };
        match replica.on_fetched(&answer.fetched, &broker.epochs, end) {
            Some(Follow::Append { .. }) => {
                let new_end = end + offset(answer.records.len());
                let start = replica.on_replicated(&answer.fetched, new_end);
                assert_eq!(start, 0, "nothing is deleted");
                answer.records.into_iter().for_each(|record| broker.append(record));
            }
            Some(Follow::TruncateTo(end)) => {
                replica.on_cut(0, end);
                broker.truncate(end);
            }
            Some(Follow::FindLeaderRange) => {
                self.violation = Some(format!("{} is outside its leader's log", answer.to));
            }
            _ => {}
        }
        self.settle(answer.to);
    }

    /// The controller decides on an AlterPartition, or it is lost on the way there or back.
    fn deliver_proposal(&mut self) {
        if self.proposals.is_empty() {
            return;
        }
        let Proposed { from, proposal } = self.proposals.remove(0);
        let answer = match self.random.below(4) {
            0 => Err(ErrorCode::RequestTimedOut),
            1 => self.alter_partition(from, &proposal).and(Err(ErrorCode::RequestTimedOut)),
            _ => self.alter_partition(from, &proposal),
        };
        let assume_failed = self.plant == Plant::AssumeExpansionFailed;
        let answer = match answer {
            Err(ErrorCode::RequestTimedOut) if assume_failed => {
                Err(ErrorCode::OperationNotAttempted)
            }
            answer => answer,
        };
        let now_ms = self.now_ms;
        let broker = self.brokers.get_mut(&from).expect("a broker");
        let Some(replica) = &mut broker.replica else { return };
        if replica.on_proposal_answered(&proposal, answer, now_ms) == ProposalOutcome::Retry {
            self.proposals.push(Proposed { from, proposal });
        }
        self.settle(from);
    }

    /// The metadata reaches a broker.
    fn publish(&mut self, id: BrokerId) {
        let broker = self.brokers.get_mut(&id).expect("a broker");
        let Some(replica) = &mut broker.replica else { return };
        for (other, status) in &self.statuses {
            replica.on_broker_status(*other, Some(*status));
        }
        match self.leader {
            Some(leader_id) if leader_id == id => self.lead(id),
            leader_id => self.follow(id, leader_id),
        }
        self.settle(id);
    }

    fn lead(&mut self, id: BrokerId) {
        let config = LeaderConfig {
            broker_id: id,
            min_insync_replicas: self.min_insync_replicas,
            replica_lag_time_max_ms: LAG_MS,
            follower_silence_ms: SILENCE_MS,
            flush_before_ack: self.flush_before_ack,
        };
        let broker = self.brokers.get_mut(&id).expect("a broker");
        let ends = broker.ends();
        let Some(replica) = &mut broker.replica else { return };
        let (registration, statuses) = (&self.registration, &self.statuses);
        let Some(start) = replica.lead(config, registration, ends, statuses, self.now_ms) else {
            return;
        };
        broker.epochs.assign(registration.leader_epoch, start);
        for (at, record) in &self.acknowledged {
            if broker.log.get(length(*at)) != Some(record) {
                self.violation = Some(format!("leader {id} lacks acknowledged offset {at}"));
            }
        }
    }

    fn follow(&mut self, id: BrokerId, leader_id: Option<BrokerId>) {
        let broker = self.brokers.get_mut(&id).expect("a broker");
        let Some(replica) = &mut broker.replica else { return };
        let is_news = replica.follow(leader_id, &self.registration);
        if is_news && self.plant == Plant::TruncateToHighWatermark {
            let known = replica.high_watermark();
            replica.on_cut(0, known);
            broker.truncate(known);
        }
    }

    fn check_isr(&mut self, id: BrokerId) {
        self.now_ms += LAG_MS / 2;
        let now_ms = self.now_ms;
        let broker = self.brokers.get_mut(&id).expect("a broker");
        let Some(replica) = &mut broker.replica else { return };
        let proposal = replica.on_isr_check(now_ms);
        self.proposals.extend(proposal.map(|proposal| Proposed { from: id, proposal }));
    }

    fn check_silence(&mut self, id: BrokerId) {
        let now_ms = self.now_ms;
        let broker = self.brokers.get_mut(&id).expect("a broker");
        let Some(replica) = &mut broker.replica else { return };
        let checks = 0..=SILENCE_CHECKS;
        let proposal = checks.into_iter().find_map(|_| replica.on_silence_check(true, now_ms));
        self.proposals.extend(proposal.map(|proposal| Proposed { from: id, proposal }));
        self.settle(id);
    }
}

/// A driver with a mistake lets its leader know nothing of brokers that are not in the ISR, so that the high watermark
/// does not wait for them. Returns what it hides.
fn hide_outsiders(
    replica: &mut Replica<Produce, NoFetch>,
    plant: Plant,
) -> Vec<(BrokerId, Option<BrokerStatus>)> {
    let Some(leader) = replica.leader().filter(|_| plant == Plant::OutsidersNotWaitedFor) else {
        return Vec::new();
    };
    let outside = leader.followers().filter(|(id, _)| !leader.isr().is_in_maximal_isr(*id));
    let hidden: Vec<_> = outside.map(|(id, follower)| (id, follower.status)).collect();
    hidden.iter().for_each(|(id, _)| replica.on_broker_status(*id, None));
    hidden
}

fn show(replica: &mut Replica<Produce, NoFetch>, hidden: Vec<(BrokerId, Option<BrokerStatus>)>) {
    hidden.into_iter().for_each(|(id, status)| replica.on_broker_status(id, status));
}
