//! What clients have in common: timers, and what they know of who leads.

use crate::admin::Admin;
use crate::batch::{PARTITIONS, PartitionId};
use crate::member::Member;
use crate::message::{CallId, Message};
use crate::producer::Producer;
use crate::scenario::Scenario;
use crate::step::Step;
use klamm_metadata::image::ClusterImage;
use klamm_protocol::ids::{BrokerId, LeaderEpoch};

pub(crate) type ClientStep<'w> = Step<'w, ClientTimer>;

#[derive(Debug, Clone)]
pub(crate) enum ClientTimer {
    /// A producer's next batch.
    Produce,
    Retry(PartitionId),
    ProduceTimeout {
        partition: PartitionId,
        call: CallId,
    },
    /// A member's or administrator's next turn.
    Poll,
    CallTimeout(CallId),
}

/// The leaders as the client knows them. It never goes back to an earlier epoch, as Java's do not.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leaders([Option<(LeaderEpoch, Option<BrokerId>)>; PARTITIONS.len()]);

impl Leaders {
    pub(crate) fn of(&self, partition: PartitionId) -> Option<BrokerId> {
        self.0[partition].and_then(|(_, leader)| leader)
    }

    /// The epoch of the leader.
    pub(crate) fn epoch_of(&self, partition: PartitionId) -> Option<LeaderEpoch> {
        self.0[partition].map(|(epoch, _)| epoch)
    }

    /// A broker answers a Metadata request.
    pub(crate) fn learn(&mut self, image: &ClusterImage) {
        for (known, (topic, index)) in self.0.iter_mut().zip(PARTITIONS) {
            let topic = image.topics.by_name(topic);
            let Some(found) = topic.and_then(|topic| topic.partition(index)) else { continue };
            if known.is_none_or(|(epoch, _)| epoch <= found.leader_epoch) {
                *known = Some((found.leader_epoch, found.leader));
            }
        }
    }
}

#[derive(Debug)]
pub(crate) enum Kind {
    Producer(Producer),
    Member(Member),
    Admin(Admin),
}

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) leaders: Leaders,
    pub(crate) kind: Kind,
}

impl Client {
    pub(crate) fn start(&mut self, step: &mut ClientStep<'_>) {
        let delay_ms = step.random.between(100, 400);
        let timer = match self.kind {
            Kind::Producer(_) => ClientTimer::Produce,
            Kind::Member(_) | Kind::Admin(_) => ClientTimer::Poll,
        };
        step.after(delay_ms, timer);
    }

    pub(crate) fn on_timer(&mut self, timer: ClientTimer, step: &mut ClientStep<'_>) {
        let leaders = &self.leaders;
        match (&mut self.kind, timer) {
            (Kind::Producer(producer), ClientTimer::Produce) => producer.on_produce(leaders, step),
            (Kind::Producer(producer), ClientTimer::Retry(partition)) => {
                producer.on_retry(partition, leaders, step);
            }
            (Kind::Producer(producer), ClientTimer::ProduceTimeout { partition, call }) => {
                producer.on_timeout(partition, call, leaders, step);
            }
            (Kind::Member(member), ClientTimer::Poll) => member.on_poll(leaders, step),
            (Kind::Member(member), ClientTimer::CallTimeout(call)) => member.on_timeout(call),
            (Kind::Admin(admin), ClientTimer::Poll) => admin.on_poll(leaders, step),
            (kind, timer) => unreachable!("{kind:?} sets no {timer:?}"),
        }
    }

    pub(crate) fn on_message(&mut self, message: Message, step: &mut ClientStep<'_>) {
        match (&mut self.kind, message) {
            (Kind::Producer(producer), Message::ProduceAnswer { call, answer }) => {
                producer.on_answer(call, answer, &self.leaders, step);
            }
            (Kind::Member(member), Message::GroupAnswer { call, answer }) => {
                member.on_answer(call, answer, step);
            }
            (Kind::Member(member), Message::ReadAnswer { call, answer }) => {
                member.on_read(call, answer, step);
            }
            (Kind::Admin(admin), Message::ControllerAnswer { answer, .. }) => {
                admin.on_answer(answer);
            }
            // What became of a change of voters the metadata log tells, and of offsets the log of the groups.
            (Kind::Admin(_), Message::QuorumAnswer { .. } | Message::GroupAnswer { .. }) => {}
            (kind, message) => unreachable!("{kind:?} never asked for {message:?}"),
        }
    }
}

/// The clients of a cluster.
pub(crate) fn all(scenario: &Scenario) -> Vec<Client> {
    let producers = (0..scenario.producers)
        .map(|id| Kind::Producer(Producer::new(i64::try_from(id).expect("a small id"))));
    let members = (0..scenario.members).map(|_| Kind::Member(Member::new()));
    let admin = [Kind::Admin(Admin::new(scenario.nodes.clone(), scenario.changes_voters))];
    let kinds = producers.chain(members).chain(admin);
    kinds.map(|kind| Client { leaders: Leaders::default(), kind }).collect()
}
