//! A controller with a log in memory: the order of its appends, completions and refusals.

use klamm_protocol::Uuid;
use klamm_protocol::ids::BrokerId;
use klamm_protocol::messages::begin_transaction_record::BeginTransactionRecord;
use klamm_protocol::messages::register_broker_record::RegisterBrokerRecord;
use klamm_protocol::messages::topic_record::TopicRecord;

use super::*;
use crate::config_def::{BrokerConfigs, Configs};
use crate::controller::ControllerSettings;
use crate::controller::activation::FeatureLevels;
use crate::controller::testing::{CLUSTER_ID, supported_features};
use crate::image::replay_error::ReplayError;
use crate::metadata_version::MetadataVersion;

/// The most records in one batch in these tests.
const MAX_RECORDS_PER_BATCH: usize = 2;
const SESSION_MS: i64 = 9_000;

/// A call of the driver by the controller.
#[derive(Debug, PartialEq)]
enum Event {
    Published(Offset),
    Completed(&'static str, HeldUntil),
    Refused(&'static str),
}

/// A quorum whose leader epoch is `led_epoch`, with its log.
#[derive(Debug)]
struct Log {
    led_epoch: Option<LeaderEpoch>,
    batches: Vec<Vec<MetadataRecord>>,
    /// The leadership ends after this many more batches.
    batches_left: usize,
    voters: Vec<BrokerId>,
    lost_leader: Option<BrokerId>,
    events: Vec<Event>,
}

impl Log {
    fn leading(led_epoch: LeaderEpoch) -> Self {
        Self {
            led_epoch: Some(led_epoch),
            batches: Vec::new(),
            batches_left: usize::MAX,
            voters: vec![1, 2, 3],
            lost_leader: None,
            events: Vec::new(),
        }
    }

    fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }
}

impl Driver<&'static str> for Log {
    type Error = ReplayError;

    fn led_epoch(&self) -> Option<LeaderEpoch> {
        self.led_epoch
    }

    fn end_offset(&self) -> Offset {
        Offset::try_from(self.batches.concat().len()).unwrap()
    }

    fn kraft_version(&self) -> i16 {
        1
    }

    fn voters(&self) -> impl Iterator<Item = BrokerId> {
        self.voters.iter().copied()
    }

    fn lost_leader(&self) -> Option<BrokerId> {
        self.lost_leader
    }

    fn append(
        &mut self,
        epoch: LeaderEpoch,
        records: &[MetadataRecord],
        _version: MetadataVersion,
    ) -> Result<bool, ReplayError> {
        if self.led_epoch != Some(epoch) {
            return Ok(false);
        }
        self.batches.push(records.to_vec());
        self.batches_left -= 1;
        if self.batches_left == 0 {
            self.led_epoch = None;
        }
        Ok(true)
    }

    fn replay_committed(
        &mut self,
        committed: &mut MetadataLoader,
        high_watermark: Offset,
    ) -> Result<(), ReplayError> {
        let from = committed.end_offset();
        let records = (0..high_watermark).zip(self.batches.concat());
        for (offset, record) in records.filter(|(offset, _)| *offset >= from) {
            committed.replay(&record, offset)?;
        }
        Ok(())
    }

    fn publish(&mut self, committed: &MetadataLoader) {
        self.events.push(Event::Published(committed.end_offset()));
    }

    fn complete(&mut self, completion: &'static str, held_until: HeldUntil) {
        self.events.push(Event::Completed(completion, held_until));
    }

    fn refuse(&mut self, completion: &'static str) {
        self.events.push(Event::Refused(completion));
    }
}

/// The controller of node 1 that has seen nothing yet.
fn controller() -> QuorumController<&'static str> {
    let levels =
        FeatureLevels { metadata_version: MetadataVersion::LATEST, others: Default::default() };
    let configs: Configs =
        [("broker.session.timeout.ms".into(), SESSION_MS.to_string().into())].into();
    let settings = ControllerSettings::single_node(
        1,
        CLUSTER_ID.into(),
        supported_features(),
        levels.bootstrap_records(),
        BrokerConfigs::new(configs).unwrap(),
    );
    let controller = Controller::new(settings, MetadataLoader::default());
    let snapshots = SnapshotSchedule::new(100, 0, 0, 0);
    QuorumController::new(controller, MetadataLoader::default(), MAX_RECORDS_PER_BATCH, snapshots)
}

/// An active controller in epoch 1 whose first records are committed, and its log.
fn active() -> (QuorumController<&'static str>, Log) {
    let (mut controller, mut log) = (controller(), Log::leading(1));
    assert_eq!(controller.on_became_leader(1, 0, &mut log), Ok(true));
    commit(&mut controller, &mut log);
    log.events.clear();
    (controller, log)
}

/// As [`active`], but with the brokers 2 and 3 registered by an earlier controller, and unfenced.
fn active_with_brokers(lost_leader: Option<BrokerId>) -> (QuorumController<&'static str>, Log) {
    let (mut controller, mut log) = active();
    let outcome = Outcome::spread(vec![broker(2), broker(3)], "brokers");
    decide(&mut controller, &mut log, outcome, HeldUntil::Committed);
    commit(&mut controller, &mut log);
    controller.on_resigned(&mut log);
    (log.led_epoch, log.lost_leader) = (Some(2), lost_leader);
    assert_eq!(controller.on_became_leader(2, 0, &mut log), Ok(true));
    (controller, log)
}

fn decide(
    controller: &mut QuorumController<&'static str>,
    log: &mut Log,
    outcome: Outcome<&'static str>,
    held_until: HeldUntil,
) {
    assert!(controller.active(log.led_epoch).is_some());
    controller.on_decided(outcome, held_until, log).unwrap();
}

/// Commits everything in the log.
fn commit(controller: &mut QuorumController<&'static str>, log: &mut Log) {
    controller.on_high_watermark(log.end_offset(), log).unwrap();
}

fn topics(ids: impl IntoIterator<Item = u8>) -> Vec<MetadataRecord> {
    let topic =
        |id| TopicRecord { name: format!("t{id}").into(), topic_id: Uuid::from_bytes([id; 16]) };
    ids.into_iter().map(|id| MetadataRecord::Topic(topic(id))).collect()
}

fn broker(broker_id: BrokerId) -> MetadataRecord {
    let broker_epoch = i64::from(broker_id);
    RegisterBrokerRecord { broker_id, broker_epoch, fenced: false, ..Default::default() }.into()
}

fn is_fenced(controller: &QuorumController<&'static str>, broker: BrokerId) -> bool {
    controller.controller().image().brokers.get(broker).unwrap().fenced
}

#[test]
fn a_decision_is_completed_when_its_records_are_committed_after_the_image_is_published() {
    let (mut controller, mut log) = active();
    let base = log.end_offset();
    let outcome = Outcome::spread(topics([1]), "first");
    decide(&mut controller, &mut log, outcome, HeldUntil::Committed);
    let outcome = Outcome::spread(topics([2]), "second");
    decide(&mut controller, &mut log, outcome, HeldUntil::Published);
    controller.on_high_watermark(base, &mut log).unwrap();
    assert_eq!(log.take_events(), [Event::Published(base)]);
    commit(&mut controller, &mut log);
    let completed = [
        Event::Published(base + 2),
        Event::Completed("first", HeldUntil::Committed),
        Event::Completed("second", HeldUntil::Published),
    ];
    assert_eq!(log.take_events(), completed);
}

#[test]
fn a_decision_without_records_waits_for_those_before_it() {
    let (mut controller, mut log) = active();
    decide(&mut controller, &mut log, Outcome::answer("alone"), HeldUntil::Published);
    assert_eq!(log.take_events(), [Event::Completed("alone", HeldUntil::Published)]);
    let outcome = Outcome::spread(topics([1]), "topic");
    decide(&mut controller, &mut log, outcome, HeldUntil::Committed);
    decide(&mut controller, &mut log, Outcome::answer("after"), HeldUntil::Committed);
    assert_eq!(log.take_events(), []);
    commit(&mut controller, &mut log);
    let completed = ["topic", "after"].map(|it| Event::Completed(it, HeldUntil::Committed));
    assert_eq!(log.take_events()[1..], completed);
}

#[test]
fn a_decision_is_cut_into_batches_unless_it_is_atomic() {
    let (mut controller, mut log) = active();
    let before = log.batches.len();
    let outcome = Outcome::spread(topics(1..=5), "spread");
    decide(&mut controller, &mut log, outcome, HeldUntil::Committed);
    let outcome = Outcome::atomic(topics(6..=10), "atomic");
    decide(&mut controller, &mut log, outcome, HeldUntil::Committed);
    let sizes: Vec<usize> = log.batches[before..].iter().map(Vec::len).collect();
    assert_eq!(sizes, [2, 2, 1, 5]);
    assert_eq!(controller.controller().image().topics.len(), 10);
    assert_eq!(controller.controller().loader().end_offset(), log.end_offset());
}

#[test]
fn a_decision_whose_leadership_ends_between_two_batches_is_refused() {
    let (mut controller, mut log) = active();
    log.batches_left = 1;
    let outcome = Outcome::spread(topics(1..=5), "lost");
    decide(&mut controller, &mut log, outcome, HeldUntil::Committed);
    assert_eq!(log.take_events(), [Event::Refused("lost")]);
    assert!(controller.active(log.led_epoch).is_none());
}

#[test]
fn a_controller_decides_only_in_the_epoch_in_which_it_became_active() {
    let (mut controller, mut log) = (controller(), Log::leading(1));
    assert!(controller.active(Some(1)).is_none(), "BecameLeader has not been performed");
    assert_eq!(controller.on_became_leader(1, 0, &mut log), Ok(true));
    assert!(controller.active(Some(1)).is_some());
    assert!(controller.active(None).is_none());
    assert!(controller.active(Some(2)).is_none());
    controller.on_resigned(&mut log);
    assert!(controller.active(Some(1)).is_none());
}

#[test]
fn an_election_of_an_epoch_that_has_ended_meanwhile_makes_no_controller_active() {
    for led_epoch in [None, Some(2)] {
        let (mut controller, mut log) = (controller(), Log::leading(1));
        log.led_epoch = led_epoch;
        assert_eq!(controller.on_became_leader(1, 0, &mut log), Ok(false));
        assert!(controller.active(led_epoch).is_none());
        assert!(log.batches.is_empty());
    }
}

#[test]
fn a_controller_that_resigns_refuses_what_waits_and_forgets_what_is_not_committed() {
    let (mut controller, mut log) = active();
    for (id, name) in [(1, "first"), (2, "second")] {
        let outcome = Outcome::spread(topics([id]), name);
        decide(&mut controller, &mut log, outcome, HeldUntil::Published);
    }
    controller.on_resigned(&mut log);
    assert_eq!(log.take_events(), ["first", "second"].map(Event::Refused));
    assert_eq!(controller.controller().loader(), controller.committed());
    assert!(controller.controller().image().topics.is_empty());
    assert_eq!(controller.next_tick_ms(), None);
    commit(&mut controller, &mut log);
    assert_eq!(log.take_events(), [Event::Published(log.end_offset())]);
}

#[test]
fn a_new_controller_goes_on_from_what_others_have_committed() {
    let (_, former) = active();
    let (mut controller, mut log) = (controller(), Log::leading(2));
    log.batches = former.batches;
    commit(&mut controller, &mut log);
    let end_offset = log.end_offset();
    assert_eq!(controller.on_became_leader(2, 0, &mut log), Ok(true));
    assert_eq!(log.end_offset(), end_offset, "the records of a new cluster are there");
    assert_eq!(controller.controller().loader(), controller.committed());
}

#[test]
fn the_controller_knows_the_quorum_of_its_election_and_of_every_commit() {
    let (mut controller, mut log) = active();
    assert_eq!(controller.controller().settings().quorum_voters, [1, 2, 3]);
    assert_eq!(controller.controller().settings().kraft_version, 1);
    log.voters = vec![1, 2];
    commit(&mut controller, &mut log);
    assert_eq!(controller.controller().settings().quorum_voters, [1, 2]);
}

#[test]
fn due_decisions_are_made_one_by_one_until_none_is_due() {
    let (mut controller, mut log) = active_with_brokers(None);
    let before = log.batches.len();
    controller.on_tick(SESSION_MS, &mut log).unwrap();
    assert!(is_fenced(&controller, 2) && is_fenced(&controller, 3));
    let fenced_and_no_op = 3;
    assert_eq!(log.batches.len() - before, fenced_and_no_op);
    assert!(controller.next_tick_ms() > Some(SESSION_MS));
}

#[test]
fn no_due_decision_is_made_once_the_leadership_has_ended() {
    let (mut controller, mut log) = active_with_brokers(None);
    let before = log.batches.len();
    log.batches_left = 1;
    controller.on_tick(SESSION_MS, &mut log).unwrap();
    assert_eq!(log.batches.len() - before, 1);
    assert!(is_fenced(&controller, 2) && !is_fenced(&controller, 3));
}

#[test]
fn a_broker_that_led_the_quorum_and_fell_silent_is_fenced_after_the_grace() {
    let (mut controller, mut log) = active_with_brokers(Some(3));
    let grace_ms = controller.controller().settings().session_timeouts.grace_ms;
    assert!(grace_ms < SESSION_MS);
    controller.on_tick(grace_ms, &mut log).unwrap();
    assert!(is_fenced(&controller, 3) && !is_fenced(&controller, 2));
}

#[test]
fn a_snapshot_is_due_by_the_size_of_the_log_but_not_within_a_transaction() {
    let (mut controller, mut log) = active();
    assert!(!controller.is_snapshot_due(99, 0));
    assert!(controller.is_snapshot_due(100, 0));
    let begin = MetadataRecord::BeginTransaction(BeginTransactionRecord::default());
    let outcome = Outcome::spread(vec![begin], "begin");
    decide(&mut controller, &mut log, outcome, HeldUntil::Committed);
    assert!(controller.is_snapshot_due(100, 0), "what is not committed is in no snapshot");
    commit(&mut controller, &mut log);
    assert!(!controller.is_snapshot_due(100, 0));
}

#[test]
fn a_snapshot_that_was_taken_or_loaded_puts_the_next_one_off() {
    let (mut controller, mut log) = (controller(), Log::leading(1));
    controller.on_snapshot_taken(100, 0);
    assert!(!controller.is_snapshot_due(199, 0));
    assert!(controller.is_snapshot_due(200, 0));
    let loaded = MetadataLoader::from_snapshot(&topics([1]), 40).unwrap();
    controller.on_snapshot_loaded(loaded, 10, 0, &mut log);
    assert!(!controller.is_snapshot_due(109, 0));
    assert!(controller.is_snapshot_due(110, 0));
    assert_eq!(controller.committed().stable().topics.len(), 1);
    assert_eq!(log.take_events(), [Event::Published(40)]);
}

#[test]
#[should_panic(expected = "an active controller loads no snapshot")]
fn an_active_controller_never_loads_a_snapshot() {
    let (mut controller, mut log) = active();
    controller.on_snapshot_loaded(MetadataLoader::default(), 0, 0, &mut log);
}
