//! Consumer groups: eager and cooperative rebalances, static members, members that vanish.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use klamm_testbed::{Broker, unique, until_true};
use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::types::RDKafkaErrorCode;

use crate::rdkafka_client::{LIMIT, config, send_values};

const POLL: Duration = Duration::from_millis(20);
const PARTITIONS: i32 = 4;

/// Notes what a member was given and what was taken from it.
#[derive(Default)]
struct Noted {
    rebalances: Mutex<Vec<(&'static str, usize)>>,
}

impl ClientContext for Noted {}

impl ConsumerContext for Noted {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let noted = match rebalance {
            Rebalance::Assign(partitions) => ("assigned", partitions.count()),
            Rebalance::Revoke(partitions) => ("revoked", partitions.count()),
            Rebalance::Error(_) => ("error", 0),
        };
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner).push(noted);
    }
}

struct Group {
    topic: String,
    name: String,
}

impl Group {
    fn new() -> Self {
        let partitions = format!("--partitions {PARTITIONS}");
        let topic = Broker::shared().create_topic("rust-group", &partitions);
        Self { topic, name: unique("rust-group") }
    }

    fn member(&self, settings: &[(&str, &str)]) -> BaseConsumer<Noted> {
        let member: BaseConsumer<Noted> = config(Broker::shared(), settings)
            .set("group.id", &self.name)
            .set("auto.offset.reset", "earliest")
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "200")
            .create_with_context(Noted::default())
            .unwrap();
        member.subscribe(&[&self.topic]).unwrap();
        member
    }
}

fn rebalances(member: &BaseConsumer<Noted>) -> Vec<(&'static str, usize)> {
    member.context().rebalances.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn assigned(member: &BaseConsumer<Noted>) -> BTreeSet<i32> {
    let assignment = member.assignment().unwrap();
    assignment.elements().iter().map(|element| element.partition()).collect()
}

/// Polls all members until each holds an equal share and together they hold everything.
#[track_caller]
fn settle(members: &[&BaseConsumer<Noted>]) {
    let share = usize::try_from(PARTITIONS).unwrap() / members.len();
    until_true("the members to share the partitions", LIMIT, || {
        for member in members {
            if let Some(Err(error)) = member.poll(POLL) {
                panic!("{error}");
            }
        }
        let shares: Vec<_> = members.iter().map(|member| assigned(member)).collect();
        let all: BTreeSet<i32> = shares.iter().flatten().copied().collect();
        shares.iter().all(|held| held.len() == share) && all == (0..PARTITIONS).collect()
    });
}

#[test]
fn an_eager_rebalance_takes_all_partitions_and_hands_them_out_anew() {
    let group = Group::new();
    let settings = [("partition.assignment.strategy", "range")];
    let first = group.member(&settings);
    settle(&[&first]);
    let second = group.member(&settings);
    settle(&[&first, &second]);
    assert_eq!(rebalances(&first), [("assigned", 4), ("revoked", 4), ("assigned", 2)]);
    assert_eq!(rebalances(&second), [("assigned", 2)]);
    drop(second);
    settle(&[&first]);
    assert_eq!(rebalances(&first)[3..], [("revoked", 2), ("assigned", 4)]);
}

#[test]
fn a_cooperative_rebalance_moves_only_what_has_to_move() {
    let group = Group::new();
    let settings = [("partition.assignment.strategy", "cooperative-sticky")];
    let first = group.member(&settings);
    settle(&[&first]);
    let second = group.member(&settings);
    settle(&[&first, &second]);
    let revoked: usize = rebalances(&first)
        .iter()
        .filter(|(what, _)| *what == "revoked")
        .map(|(_, count)| count)
        .sum();
    assert_eq!(revoked, 2, "{:?}", rebalances(&first));
    drop(second);
    settle(&[&first]);
}

#[test]
fn a_static_member_that_returns_gets_its_partitions_without_a_rebalance() {
    let group = Group::new();
    let member = |instance| group.member(&[("group.instance.id", instance)]);
    let first = member("one");
    let second = member("two");
    settle(&[&first, &second]);
    let held = assigned(&second);
    let before = rebalances(&first);
    drop(second);
    let second = member("two");
    settle(&[&first, &second]);
    assert_eq!(assigned(&second), held);
    assert_eq!(rebalances(&first), before, "the one that stayed noticed nothing");
}

#[test]
fn the_older_of_two_members_with_one_instance_id_is_fenced() {
    let group = Group::new();
    let older = group.member(&[("group.instance.id", "same")]);
    settle(&[&older]);
    let newer = group.member(&[("group.instance.id", "same")]);
    let mut fenced = None;
    until_true("the older member to be fenced", LIMIT, || {
        newer.poll(POLL);
        fenced = older.poll(POLL).and_then(Result::err);
        fenced.is_some()
    });
    assert_eq!(
        fenced,
        Some(KafkaError::MessageConsumptionFatal(RDKafkaErrorCode::FencedInstanceId))
    );
    settle(&[&newer]);
}

#[test]
fn a_member_that_no_longer_polls_loses_its_partitions() {
    let group = Group::new();
    let silent = group.member(&[("max.poll.interval.ms", "6000")]);
    let active = group.member(&[]);
    settle(&[&silent, &active]);
    settle(&[&active]);
}

#[tokio::test]
async fn the_next_member_continues_after_the_last_commit() {
    let group = Group::new();
    let settings = [("enable.auto.commit", "false")];
    send_values(Broker::shared(), &group.topic, &["a", "b", "c"]).await;
    for (value, next) in [("a", 1), ("b", 2), ("c", 3)] {
        let member = group.member(&settings);
        let message =
            klamm_testbed::until("the next record", LIMIT, || member.poll(POLL)).unwrap().detach();
        assert_eq!((message.payload(), message.offset() + 1), (Some(value.as_bytes()), next));
        let mut offsets = rdkafka::TopicPartitionList::new();
        offsets.add_partition_offset(&group.topic, 0, rdkafka::Offset::Offset(next)).unwrap();
        member.commit(&offsets, CommitMode::Sync).unwrap();
    }
}
