//! The runtime with a minimal shard: requests add to a sum that is stored in the log.

use bytes::Bytes;
use klamm_protocol::ids::{Offset, ProducerId};
use klamm_protocol::time::Now;
use klamm_protocol::{EncodeError, ErrorCode};

use super::{
    CoordinatorRuntime, Driver, Effects, EncodedRecord, Replayed, RequestToken, Shard, ShardLoader,
    WriteFailure,
};

const COMMIT_TIMEOUT_MS: i64 = 100;

#[derive(Debug, Default)]
struct Sum {
    sum: u8,
    /// Additions that were undone because they could not be committed.
    undone: Vec<(u8, WriteFailure)>,
    parked: Option<RequestToken>,
}

impl Sum {
    fn on_add(&mut self, token: RequestToken, number: u8, effects: &mut Effects<Self>) {
        effects.write(number);
        effects.on_commit(number);
        effects.reply_when_committed(token, Ok(self.sum + number));
    }

    fn on_read(&mut self, token: RequestToken, effects: &mut Effects<Self>) {
        effects.reply_to_read(token, Ok(self.sum));
    }

    fn on_park(&mut self, token: RequestToken, effects: &mut Effects<Self>) {
        self.parked = Some(token);
        effects.schedule("answer", 10);
    }
}

impl Shard for Sum {
    type Config = ();
    type Record = u8;
    type Response = Result<u8, ErrorCode>;
    type OnCommit = u8;
    type Timer = &'static str;
    type ReplayError = std::fmt::Error;

    fn new((): ()) -> Self {
        Self::default()
    }

    fn commit_timeout_ms(&self) -> i64 {
        COMMIT_TIMEOUT_MS
    }

    fn encode(record: &u8) -> Result<EncodedRecord, EncodeError> {
        Ok(EncodedRecord { key: Bytes::copy_from_slice(&[*record]), value: None })
    }

    fn replay(
        &mut self,
        _: Offset,
        _: Option<ProducerId>,
        key: Bytes,
        _: Option<Bytes>,
    ) -> Result<Replayed, std::fmt::Error> {
        self.sum += key.first().ok_or(std::fmt::Error)?;
        Ok(Replayed::Applied)
    }

    fn replay_end_transaction(&mut self, _: ProducerId, _: bool) {}

    fn on_loaded(&mut self, _: &mut Effects<Self>) {}

    fn apply(&mut self, _: Offset, record: &u8, _: Now) {
        self.sum += record;
    }

    fn on_committed(&mut self, _: u8, _: &mut Effects<Self>) {}

    fn on_write_failed(&mut self, number: u8, failure: WriteFailure, _: &mut Effects<Self>) {
        self.undone.push((number, failure));
    }

    fn refuse(_: Self::Response, failure: WriteFailure) -> Self::Response {
        Err(failure.code())
    }

    fn on_timer(&mut self, _: &'static str, effects: &mut Effects<Self>) {
        let token = self.parked.take().expect("the timer is set for a parked request");
        effects.reply(token, Ok(self.sum));
    }

    fn on_unloaded(&mut self, effects: &mut Effects<Self>) {
        if let Some(token) = self.parked.take() {
            effects.reply(token, Err(WriteFailure::Unloaded.code()));
        }
    }
}

#[derive(Default)]
struct Log {
    records: Vec<EncodedRecord>,
    refuses: Option<ErrorCode>,
    replies: Vec<(&'static str, Result<u8, ErrorCode>)>,
}

impl Driver<Sum, &'static str> for Log {
    fn append(&mut self, records: &[EncodedRecord]) -> Result<Offset, ErrorCode> {
        if let Some(error) = self.refuses {
            return Err(error);
        }
        let base_offset = Offset::try_from(self.records.len()).unwrap();
        self.records.extend_from_slice(records);
        Ok(base_offset)
    }

    fn reply(&mut self, waiter: &'static str, response: Result<u8, ErrorCode>) {
        self.replies.push((waiter, response));
    }
}

struct Fixture {
    runtime: CoordinatorRuntime<Sum, &'static str>,
    log: Log,
}

impl Fixture {
    fn loading() -> Self {
        Self { runtime: CoordinatorRuntime::loading(), log: Log::default() }
    }

    fn active() -> Self {
        let mut fixture = Self::loading();
        fixture.load();
        fixture
    }

    fn load(&mut self) {
        let mut loader = ShardLoader::new(());
        for (offset, record) in (0..).zip(&self.log.records) {
            loader.replay(offset, None, record.key.clone(), None).unwrap();
        }
        let log_end = Offset::try_from(self.log.records.len()).unwrap();
        self.runtime.on_loaded(loader.into_active(log_end, Now::at(0)), Now::at(0), &mut self.log);
    }

    fn send(
        &mut self,
        waiter: &'static str,
        event: impl FnOnce(&mut Sum, RequestToken, &mut Effects<Sum>),
    ) -> Result<(), ErrorCode> {
        self.runtime.send_request(waiter, event, Now::at(0), &mut self.log)
    }

    fn add(&mut self, waiter: &'static str, number: u8) {
        self.send(waiter, |shard, token, effects| shard.on_add(token, number, effects)).unwrap();
    }

    fn read(&mut self, waiter: &'static str) {
        self.send(waiter, Sum::on_read).unwrap();
    }

    fn commit(&mut self) {
        let end = Offset::try_from(self.log.records.len()).unwrap();
        self.runtime.on_committed(end, Now::at(0), &mut self.log);
    }

    fn replies(&mut self) -> Vec<(&'static str, Result<u8, ErrorCode>)> {
        std::mem::take(&mut self.log.replies)
    }
}

#[test]
fn replies_and_reads_wait_for_the_commit_of_what_they_show() {
    let mut fixture = Fixture::active();
    fixture.add("add", 5);
    fixture.read("read");
    assert_eq!(fixture.replies(), []);
    fixture.commit();
    assert_eq!(fixture.replies(), [("add", Ok(5)), ("read", Ok(5))]);
    fixture.read("read");
    assert_eq!(fixture.replies(), [("read", Ok(5))]);
}

#[test]
fn what_was_loaded_is_shown_when_it_is_known_to_be_committed() {
    let mut fixture = Fixture::active();
    fixture.add("add", 5);
    fixture.runtime = CoordinatorRuntime::loading();
    fixture.load();
    fixture.read("read");
    assert_eq!(fixture.replies(), []);
    fixture.commit();
    assert_eq!(fixture.replies(), [("read", Ok(5))]);
}

#[test]
fn records_that_the_log_refuses_change_nothing() {
    let mut fixture = Fixture::active();
    fixture.log.refuses = Some(ErrorCode::NotEnoughReplicas);
    fixture.add("add", 5);
    assert_eq!(fixture.replies(), [("add", Err(ErrorCode::CoordinatorNotAvailable))]);
    let failure = WriteFailure::NotAppended(ErrorCode::NotEnoughReplicas);
    assert_eq!(fixture.runtime.shard().undone, [(5, failure)]);
    fixture.read("read");
    assert_eq!(fixture.replies(), [("read", Ok(0))]);
}

#[test]
fn an_overdue_write_is_given_up_and_hides_what_it_led_to_until_it_is_committed() {
    let mut fixture = Fixture::active();
    fixture.add("add", 5);
    assert_eq!(fixture.runtime.next_deadline_ms(), Some(COMMIT_TIMEOUT_MS));
    fixture.runtime.on_tick(Now::at(COMMIT_TIMEOUT_MS), &mut fixture.log);
    fixture.read("early");
    let late = Err(ErrorCode::CoordinatorNotAvailable);
    assert_eq!(fixture.replies(), [("add", late), ("early", late)]);
    assert_eq!(fixture.runtime.shard().undone, [(5, WriteFailure::CommitTimeout)]);
    fixture.commit();
    fixture.read("read");
    assert_eq!(fixture.replies(), [("read", Ok(5))]);
}

#[test]
fn a_timer_answers_a_parked_request() {
    let mut fixture = Fixture::active();
    fixture.send("park", Sum::on_park).unwrap();
    assert_eq!(fixture.runtime.next_deadline_ms(), Some(10));
    fixture.runtime.on_tick(Now::at(9), &mut fixture.log);
    assert_eq!(fixture.replies(), []);
    fixture.runtime.on_tick(Now::at(10), &mut fixture.log);
    assert_eq!(fixture.replies(), [("park", Ok(0))]);
    assert_eq!(fixture.runtime.next_deadline_ms(), None);
}

#[test]
fn unloading_refuses_all_that_wait_and_then_serves_nobody() {
    let mut fixture = Fixture::active();
    fixture.add("add", 5);
    fixture.send("park", Sum::on_park).unwrap();
    fixture.runtime.unload(|waiter, response| fixture.log.replies.push((waiter, response)));
    let moved = Err(ErrorCode::NotCoordinator);
    assert_eq!(fixture.replies(), [("add", moved), ("park", moved)]);
    assert_eq!(fixture.send("late", Sum::on_read), Err(ErrorCode::NotCoordinator));
    fixture.load();
    assert!(!fixture.runtime.is_active());
}

#[test]
fn while_loading_requests_are_refused_and_notifications_kept() {
    let mut fixture = Fixture::loading();
    let refused = fixture.send("early", Sum::on_read);
    assert_eq!(refused, Err(ErrorCode::CoordinatorLoadInProgress));
    fixture.runtime.notify(|_, effects| effects.write(7), Now::at(0), &mut fixture.log);
    assert_eq!(fixture.log.records.len(), 0);
    fixture.load();
    assert_eq!(fixture.log.records.len(), 1);
    fixture.commit();
    fixture.read("read");
    assert_eq!(fixture.replies(), [("read", Ok(7))]);
}
