//! The brokers, their disks, the controller and what is under way between them.

use crate::random::Random;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};
use klamm_replication::partition::{
    AcksState, BrokerStatus, CommittedIsr, FetchPosition, FetchedPartition, Follow, FollowerFetch,
    FollowerState, IsrProposal, LeaderConfig, LeaderState, LogEnds, ProposalOutcome, Registration,
    check_position,
};
use klamm_replication::{EpochHistory, OffsetAndEpoch};
use std::collections::{BTreeMap, BTreeSet};

const LAG_MS: i64 = 1_000;

/// A defect that the invariants must catch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plant {
    None,
    TruncateToHighWatermark,
    AcknowledgeBeforeSync,
    AssumeExpansionFailed,
}

type Record = (LeaderEpoch, u64);

#[derive(Debug)]
enum Role {
    Down,
    Idle,
    Leader(LeaderState),
    Follower(FollowerState),
}

#[derive(Debug)]
struct Broker {
    role: Role,
    log: Vec<Record>,
    flushed: usize,
    epochs: EpochHistory,
    high_watermark: Offset,
    broker_epoch: i64,
    partition_epoch: i32,
    /// Produces that wait: the offset after them, and the record.
    waiting: Vec<(Offset, Record)>,
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
            role: Role::Idle,
            log: Vec::new(),
            flushed: 0,
            epochs: EpochHistory::default(),
            high_watermark: 0,
            broker_epoch: i64::from(id),
            partition_epoch: -1,
            waiting: Vec::new(),
        };
        let unfenced = |id: BrokerId| BrokerStatus {
            broker_epoch: i64::from(id),
            fenced: false,
            in_controlled_shutdown: false,
        };
        Self {
            min_insync_replicas: if random.chance(50) { 1 } else { 2 },
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
            93..95 => self.check_isr(id),
            95..97 => self.crash(id),
            97..99 => self.restart(id),
            _ => self.move_leadership(),
        }
    }

    fn produce(&mut self, id: BrokerId) {
        let now_ms = self.now_ms;
        let broker = self.brokers.get_mut(&id).expect("a broker");
        let Role::Leader(leader) = &mut broker.role else { return };
        if leader.check_min_isr().is_err() {
            return;
        }
        self.next_value += 1;
        let record = (leader.leader_epoch(), self.next_value);
        broker.log.push(record);
        let end = offset(broker.log.len());
        leader.on_appended(end, now_ms);
        broker.waiting.push((end, record));
        self.acknowledge(id);
    }

    fn flush(&mut self, id: BrokerId) {
        let now_ms = self.now_ms;
        let broker = self.brokers.get_mut(&id).expect("a broker");
        broker.flushed = broker.log.len();
        if let Role::Leader(leader) = &mut broker.role {
            leader.on_flushed(offset(broker.flushed), now_ms);
        }
        self.acknowledge(id);
    }

    fn acknowledge(&mut self, id: BrokerId) {
        let broker = self.brokers.get_mut(&id).expect("a broker");
        let Role::Leader(leader) = &broker.role else { return };
        broker.high_watermark = leader.high_watermark();
        let waiting = std::mem::take(&mut broker.waiting);
        for (end, record) in waiting {
            match leader.acks_state(end) {
                AcksState::Waiting => broker.waiting.push((end, record)),
                AcksState::Replicated => {
                    self.acknowledged.insert(end - 1, record);
                }
                AcksState::NotEnoughReplicas => {}
            }
        }
    }

    /// A follower fetches; its leader answers at once, the answer arrives when it does.
    fn fetch(&mut self, id: BrokerId) {
        let acknowledges_early = self.plant == Plant::AcknowledgeBeforeSync;
        let now_ms = self.now_ms;
        let broker = self.brokers.get_mut(&id).expect("a broker");
        let end = broker.end();
        let Role::Follower(follower) = &mut broker.role else { return };
        if !acknowledges_early {
            broker.flushed = broker.log.len();
        }
        let Some(next) = follower.next_fetch(end, &broker.epochs) else { return };
        let (leader_id, broker_epoch) = (follower.leader_id, broker.broker_epoch);
        let fetch = FollowerFetch {
            follower: id,
            broker_epoch,
            current_leader_epoch: next.current_leader_epoch,
            fetch_offset: next.fetch_offset,
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
        match self.answer(leader_id, fetch, next.last_fetched_epoch) {
            Err(error) => answer.fetched.error = error,
            Ok((diverging, high_watermark, records)) => {
                answer.fetched.diverging = diverging;
                answer.fetched.high_watermark = high_watermark;
                answer.records = records;
            }
        }
        self.answers.push(answer);
        self.acknowledge(leader_id);
    }

    fn answer(
        &mut self,
        leader_id: BrokerId,
        fetch: FollowerFetch,
        last_fetched_epoch: LeaderEpoch,
    ) -> Result<(Option<OffsetAndEpoch>, Offset, Vec<Record>), ErrorCode> {
        let broker = self.brokers.get_mut(&leader_id).expect("a broker");
        let end = broker.end();
        let Role::Leader(leader) = &mut broker.role else {
            return Err(ErrorCode::NotLeaderOrFollower);
        };
        let epoch_end = broker.epochs.end_offset_for(last_fetched_epoch, end);
        let current = fetch.current_leader_epoch == leader.leader_epoch();
        if current {
            let position = check_position(fetch.fetch_offset, last_fetched_epoch, epoch_end, 0)?;
            if let FetchPosition::Diverging(end) = position {
                return Ok((Some(end), leader.high_watermark(), Vec::new()));
            }
        }
        let progress = leader.on_follower_fetch(fetch)?;
        let high_watermark = leader.high_watermark();
        let from = broker.log.iter().skip(length(fetch.fetch_offset));
        let records = from.take(3).copied().collect();
        let proposed = progress.proposal.map(|proposal| Proposed { from: leader_id, proposal });
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
        let Role::Follower(follower) = &mut broker.role else { return };
        match follower.on_fetched(&answer.fetched, &broker.epochs, end) {
            Follow::Append { .. } => {
                let high_watermark = answer.fetched.high_watermark;
                follower.on_appended(high_watermark, end + offset(answer.records.len()));
                broker.high_watermark = follower.high_watermark();
                answer.records.into_iter().for_each(|record| broker.append(record));
            }
            Follow::TruncateTo(end) => broker.truncate(end),
            Follow::FindLeaderRange => {
                self.violation = Some(format!("{} is outside its leader's log", answer.to));
            }
            _ => {}
        }
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
        let Role::Leader(leader) = &mut broker.role else { return };
        let (outcome, _) = leader.on_proposal_answered(&proposal, answer, now_ms);
        broker.partition_epoch = broker.partition_epoch.max(leader.partition_epoch());
        if outcome == ProposalOutcome::Retry {
            self.proposals.push(Proposed { from, proposal });
        }
        self.acknowledge(from);
    }

    fn alter_partition(
        &mut self,
        from: BrokerId,
        proposal: &IsrProposal,
    ) -> Result<CommittedIsr, ErrorCode> {
        if proposal.leader_epoch < self.registration.leader_epoch || self.leader != Some(from) {
            return Err(ErrorCode::FencedLeaderEpoch);
        }
        if proposal.partition_epoch < self.registration.partition_epoch {
            return Err(ErrorCode::InvalidUpdateVersion);
        }
        let eligible = |(id, epoch): &(BrokerId, i64)| {
            let status = &self.statuses[id];
            !status.fenced && (*epoch == -1 || *epoch == status.broker_epoch)
        };
        if !proposal.new_isr.iter().all(eligible) {
            return Err(ErrorCode::IneligibleReplica);
        }
        self.registration.isr = proposal.new_isr.iter().map(|(id, _)| *id).collect();
        self.registration.partition_epoch += 1;
        Ok(CommittedIsr {
            leader_epoch: self.registration.leader_epoch,
            partition_epoch: self.registration.partition_epoch,
            isr: self.registration.isr.iter().copied().collect(),
        })
    }

    /// The metadata reaches a broker.
    fn publish(&mut self, id: BrokerId) {
        let now_ms = self.now_ms;
        let registration = self.registration.clone();
        let leader_id = self.leader;
        let broker = self.brokers.get_mut(&id).expect("a broker");
        if matches!(broker.role, Role::Down) {
            return;
        }
        for (other, status) in &self.statuses {
            if let Role::Leader(leader) = &mut broker.role {
                leader.on_broker_status(*other, Some(*status));
            }
        }
        if registration.partition_epoch <= broker.partition_epoch {
            return;
        }
        broker.partition_epoch = registration.partition_epoch;
        match (&mut broker.role, leader_id) {
            (_, None) => broker.role = Role::Idle,
            (Role::Leader(leader), Some(leader_id)) if leader_id == id => {
                let started = leader.on_registration(&registration, &self.statuses, now_ms);
                if let Some(start) = started {
                    broker.epochs.assign(registration.leader_epoch, start);
                }
            }
            (_, Some(leader_id)) if leader_id == id => self.lead(id),
            (Role::Follower(follower), Some(_))
                if follower.leader_epoch == registration.leader_epoch => {}
            (_, Some(leader_id)) => self.follow(id, leader_id),
        }
        self.acknowledge(id);
    }

    fn lead(&mut self, id: BrokerId) {
        let broker = self.brokers.get_mut(&id).expect("a broker");
        for (at, record) in &self.acknowledged {
            if broker.log.get(length(*at)) != Some(record) {
                self.violation = Some(format!("leader {id} lacks acknowledged offset {at}"));
            }
        }
        let config = LeaderConfig {
            broker_id: id,
            min_insync_replicas: self.min_insync_replicas,
            replica_lag_time_max_ms: LAG_MS,
            flush_before_ack: true,
        };
        let ends = LogEnds { log_end_offset: broker.end(), flushed_offset: offset(broker.flushed) };
        let (registration, statuses) = (&self.registration, &self.statuses);
        let known = broker.high_watermark;
        let leader = LeaderState::new(config, registration, ends, known, statuses, self.now_ms);
        broker.epochs.assign(registration.leader_epoch, broker.end());
        broker.waiting.clear();
        broker.role = Role::Leader(leader);
    }

    fn follow(&mut self, id: BrokerId, leader_id: BrokerId) {
        let truncates = self.plant == Plant::TruncateToHighWatermark;
        let broker = self.brokers.get_mut(&id).expect("a broker");
        broker.waiting.clear();
        let known = broker.high_watermark.min(broker.end());
        if truncates {
            broker.truncate(known);
        }
        let Registration { leader_epoch, partition_epoch, .. } = self.registration;
        let follower = FollowerState::new(leader_id, leader_epoch, partition_epoch, known);
        broker.role = Role::Follower(follower);
    }

    fn check_isr(&mut self, id: BrokerId) {
        self.now_ms += LAG_MS / 2;
        let now_ms = self.now_ms;
        let Role::Leader(leader) = &mut self.brokers.get_mut(&id).expect("a broker").role else {
            return;
        };
        let proposal = leader.on_isr_check(now_ms);
        self.proposals.extend(proposal.map(|proposal| Proposed { from: id, proposal }));
    }

    /// The power fails. What was not synced may be lost, and so is what was known of the high watermark.
    fn crash(&mut self, id: BrokerId) {
        let broker = self.brokers.get_mut(&id).expect("a broker");
        if matches!(broker.role, Role::Down) {
            return;
        }
        let unsynced = u64::try_from(broker.log.len() - broker.flushed).expect("a length");
        let kept = usize::try_from(self.random.below(unsynced + 1)).expect("a length");
        broker.truncate(offset(broker.flushed + kept));
        broker.role = Role::Down;
        broker.waiting.clear();
        broker.high_watermark = self.random.between(0, broker.high_watermark);
        self.statuses.get_mut(&id).expect("registered").fenced = true;
        self.elect_without(id);
    }

    /// Takes a broker out of the ISR, unless it is the last, and finds another leader.
    fn elect_without(&mut self, id: BrokerId) {
        if self.registration.isr != [id] {
            self.registration.isr.retain(|member| *member != id);
        }
        if self.leader == Some(id) {
            let statuses = &self.statuses;
            let mut isr = self.registration.isr.iter().copied();
            self.leader = isr.find(|member| !statuses[member].fenced);
            self.registration.leader_epoch += 1;
        }
        self.registration.partition_epoch += 1;
    }

    fn restart(&mut self, id: BrokerId) {
        let broker = self.brokers.get_mut(&id).expect("a broker");
        if !matches!(broker.role, Role::Down) {
            return;
        }
        broker.role = Role::Idle;
        broker.flushed = broker.log.len();
        broker.broker_epoch += 10;
        broker.partition_epoch = -1;
        let broker_epoch = broker.broker_epoch;
        let status = BrokerStatus { broker_epoch, fenced: false, in_controlled_shutdown: false };
        self.statuses.insert(id, status);
        if self.leader.is_none() && self.registration.isr.contains(&id) {
            self.leader = Some(id);
            self.registration.leader_epoch += 1;
            self.registration.partition_epoch += 1;
        }
        self.publish(id);
    }

    fn move_leadership(&mut self) {
        let next = self.any();
        let able = self.registration.isr.contains(&next) && !self.statuses[&next].fenced;
        if able && self.leader.is_some() {
            self.leader = Some(next);
            self.registration.leader_epoch += 1;
            self.registration.partition_epoch += 1;
        }
    }

    /// The in-sync replicas hold, on disk, everything below the high watermark (R7).
    pub(crate) fn check(&mut self) -> Result<(), String> {
        if let Some(violation) = self.violation.take() {
            return Err(violation);
        }
        let Some(leader_id) = self.leader else { return Ok(()) };
        let leader_log = &self.brokers[&leader_id];
        let Role::Leader(leader) = &leader_log.role else { return Ok(()) };
        if leader.leader_epoch() != self.registration.leader_epoch {
            return Ok(());
        }
        let committed = length(leader.high_watermark());
        for member in &self.registration.isr {
            let broker = &self.brokers[member];
            let holds = broker.flushed >= committed
                && broker.log[..committed] == leader_log.log[..committed];
            if !holds {
                return Err(format!("{member} is in sync and lacks part of 0..{committed}"));
            }
        }
        Ok(())
    }

    /// Ends the faults: everyone catches up, all logs are equal and hold what was acknowledged.
    pub(crate) fn heal(&mut self) -> Result<(), String> {
        for id in 1..=3 {
            self.restart(id);
        }
        for _ in 0..400 {
            self.now_ms += 10;
            for id in 1..=3 {
                self.publish(id);
                self.flush(id);
                self.fetch(id);
                self.deliver_answer();
                self.deliver_answer();
                self.deliver_proposal();
            }
            self.check()?;
        }
        let logs: BTreeSet<&Vec<Record>> =
            self.brokers.values().map(|broker| &broker.log).collect();
        if logs.len() != 1 || self.registration.isr.len() != 3 {
            let isr = &self.registration.isr;
            return Err(format!("{} different logs, ISR {isr:?} after healing", logs.len()));
        }
        let log = logs.first().expect("one log");
        let lost =
            self.acknowledged.iter().find(|(at, record)| log.get(length(**at)) != Some(record));
        lost.map_or(Ok(()), |lost| Err(format!("{lost:?} was acknowledged and is lost")))
    }
}
