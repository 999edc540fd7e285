//! The driver of one partition's group coordinator: loads it, tells it of events, performs what it
//! decides.
//!
//! Invariants: an event is decided and its records are appended under one lock, so that the log has
//! them in the order of the decisions; the lock is never held across an await; once ended, nothing is
//! appended. Every request that waits has a connection of its own, which bounds their number.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use klamm_coordinator::group::{DeletedTopic, GroupLoader, GroupShard};
use klamm_coordinator::outcome::{Outcome, Record, Reply, RequestToken, Response};
use klamm_protocol::ErrorCode;
use klamm_protocol::batch_builder::{BatchBuilder, BuildError};
use klamm_protocol::compression::Compression;
use klamm_protocol::ids::Offset;
use klamm_protocol::time::Now;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::Settings;
use super::loader::{self, Loaded};
use crate::clock;
use crate::replica::partition::{AppendOptions, Partition};

/// The pause before a partition is loaded again for which something was lacking.
const LOAD_RETRY_PAUSE: Duration = Duration::from_millis(500);

/// A coordinator, from when its partition is led here until it no longer is.
#[derive(Debug)]
pub(super) struct Coordinator {
    partition: Arc<Partition>,
    settings: Settings,
    state: Mutex<State>,
    /// A deadline has come nearer than the one that is being waited for.
    rearm: Notify,
    ended: CancellationToken,
}

#[derive(Debug)]
enum State {
    /// Topics that are deleted meanwhile are remembered.
    Loading {
        deleted: Vec<DeletedTopic>,
    },
    Active(Box<Running>),
    /// The partition moved, or cannot be used.
    Ended,
}

/// What became of an attempt to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loading {
    /// Loaded, or it will never be.
    Over,
    /// Something was lacking for it.
    Later,
}

/// A shard and who waits for it.
#[derive(Debug)]
struct Running {
    shard: GroupShard,
    waiting: BTreeMap<RequestToken, oneshot::Sender<Response>>,
    next_token: u64,
    /// What the driving task waits for.
    armed_ms: i64,
}

impl Coordinator {
    /// Begins to load, in the background. This broker leads the partition.
    pub(super) fn start(
        partition: Arc<Partition>,
        settings: Settings,
        runtime: &Handle,
    ) -> Arc<Self> {
        let coordinator = Arc::new(Self {
            partition,
            settings,
            state: Mutex::new(State::Loading { deleted: Vec::new() }),
            rearm: Notify::new(),
            ended: CancellationToken::new(),
        });
        runtime.spawn(Arc::clone(&coordinator).run());
        coordinator
    }

    /// A panic leaves a shard that nobody may trust: the partition is no longer served.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| {
            error!("{}: the coordinator panicked and has ended", self.name());
            let mut state = poisoned.into_inner();
            *state = State::Ended;
            self.state.clear_poison();
            state
        })
    }

    fn name(&self) -> String {
        format!("{}-{}", self.partition.topic(), self.partition.index())
    }

    /// Has a request decided on, now.
    pub(super) fn ask(
        &self,
        event: impl FnOnce(&mut GroupShard, RequestToken, Now) -> Outcome,
    ) -> Result<oneshot::Receiver<Response>, ErrorCode> {
        let now = clock::now();
        let (answer, answered) = oneshot::channel();
        self.with_running(|running| {
            let token = running.wait_with(answer);
            let outcome = event(&mut running.shard, token, now);
            running.perform(self, outcome, now);
        })?;
        Ok(answered)
    }

    /// Has something answered that needs no record.
    pub(super) fn look<R>(
        &self,
        event: impl FnOnce(&mut GroupShard, Now) -> R,
    ) -> Result<R, ErrorCode> {
        self.with_running(|running| event(&mut running.shard, clock::now()))
    }

    fn with_running<R>(&self, act: impl FnOnce(&mut Running) -> R) -> Result<R, ErrorCode> {
        match &mut *self.lock() {
            State::Loading { .. } => Err(ErrorCode::CoordinatorLoadInProgress),
            State::Ended => Err(ErrorCode::NotCoordinator),
            State::Active(running) => {
                let result = act(running);
                if running.shard.next_deadline_ms() < running.armed_ms {
                    self.rearm.notify_one();
                }
                Ok(result)
            }
        }
    }

    /// Deletes the offsets of topics that are no more.
    pub(super) fn on_topics_deleted(&self, topics: &[DeletedTopic]) {
        if let State::Loading { deleted } = &mut *self.lock() {
            deleted.extend_from_slice(topics);
            return;
        }
        self.event(|shard, now| shard.on_topics_deleted(topics, now));
    }

    /// Stops coordinating. Whoever waits is sent to look for the next coordinator.
    pub(super) fn end(&self) {
        self.ended.cancel();
        let state = std::mem::replace(&mut *self.lock(), State::Ended);
        if let State::Active(running) = state {
            let Running { shard, mut waiting, .. } = *running;
            send(&mut waiting, shard.on_unloaded());
        }
    }

    async fn run(self: Arc<Self>) {
        loop {
            let loading = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || loading.load()).await {
                Ok(Loading::Over) => break,
                Ok(Loading::Later) => {
                    let pause = tokio::time::sleep(LOAD_RETRY_PAUSE);
                    if self.ended.run_until_cancelled(pause).await.is_none() {
                        return;
                    }
                }
                Err(_) => {
                    error!("{}: loading panicked, its groups are not served", self.name());
                    self.end();
                    return;
                }
            }
        }
        let stop = self.ended.clone();
        stop.run_until_cancelled(self.drive()).await;
    }

    fn load(&self) -> Loading {
        let begun = Instant::now();
        let Some(view) = self.partition.view() else {
            self.end();
            return Loading::Over;
        };
        let (log_end, buffer) = (view.log_end(), self.settings.load_buffer_bytes);
        match loader::load(&view, buffer, || self.ended.is_cancelled()) {
            Ok(Some(Loaded { loader, records, unknown })) => {
                self.activate(loader, log_end);
                if records > 0 {
                    let took_ms = begun.elapsed().as_millis();
                    info!("{}: groups loaded from {records} records in {took_ms} ms", self.name());
                }
                if unknown > 0 {
                    warn!("{}: {unknown} records of unknown types are left alone", self.name());
                }
            }
            Ok(None) => {}
            Err(failure) if failure.passes() => {
                warn!("{} {failure}; its groups are loaded when there is room", self.name());
                return Loading::Later;
            }
            Err(failure) => {
                error!("{} {failure}; its groups are not served", self.name());
                self.end();
            }
        }
        Loading::Over
    }

    fn activate(&self, loader: GroupLoader, log_end: Offset) {
        let now = clock::now();
        let shard = loader.on_loaded(self.settings.group.clone(), log_end, now);
        let mut running = Box::new(Running {
            shard,
            waiting: BTreeMap::new(),
            next_token: 0,
            armed_ms: i64::MAX,
        });
        let mut state = self.lock();
        if let State::Loading { deleted } = &*state {
            let outcome = running.shard.on_topics_deleted(deleted, now);
            running.perform(self, outcome, now);
            *state = State::Active(running);
        }
    }

    /// Tells the shard of time and of commits, until it is ended.
    async fn drive(&self) {
        let mut moved = self.partition.watch_high_watermark();
        self.on_moved();
        while let Some(wait) = self.arm() {
            tokio::select! {
                changed = moved.changed() => {
                    assert!(changed.is_ok(), "the partition of a coordinator is held by it");
                    self.on_moved();
                }
                () = tokio::time::sleep(wait) => self.on_tick(),
                () = self.rearm.notified() => {}
            }
        }
    }

    /// How long until the next deadline; `None` when there is nothing to wait for any more.
    fn arm(&self) -> Option<Duration> {
        let armed = self.with_running(|running| {
            running.armed_ms = running.shard.next_deadline_ms();
            running.armed_ms.saturating_sub(clock::now_ms())
        });
        armed.ok().map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or_default()))
    }

    /// The high watermark has moved. The partition is asked where to: what the watch carries may be
    /// older than what is committed by now. Once another leads, what is committed may be something else than what was
    /// appended here.
    fn on_moved(&self) {
        let Some(committed) = self.partition.committed_as_leader() else { return };
        self.event(|shard, now| shard.on_committed(committed, now));
    }

    fn on_tick(&self) {
        self.event(|shard, now| {
            if shard.next_deadline_ms() <= now.steady_ms {
                shard.on_tick(now)
            } else {
                Outcome::default()
            }
        });
    }

    /// Tells the shard of something that nobody waits for.
    fn event(&self, event: impl FnOnce(&mut GroupShard, Now) -> Outcome) {
        let now = clock::now();
        let told = self.with_running(|running| {
            let outcome = event(&mut running.shard, now);
            running.perform(self, outcome, now);
        });
        if told.is_err() {
            debug!("{}: ended, so nothing that happens concerns it", self.name());
        }
    }

    fn append(&self, records: &[Record], wall_ms: i64) -> Result<Offset, ErrorCode> {
        let batch = batch(records, self.settings.compression, wall_ms)
            .map_err(|_| ErrorCode::RecordListTooLarge)?;
        let appended = self.partition.append(batch, &AppendOptions::coordinator(), wall_ms);
        appended.map(|appended| appended.base_offset).map_err(|failure| {
            let (name, code) = (self.name(), failure.code);
            warn!("{name}: {} records were not appended: {code}", records.len());
            code
        })
    }
}

fn batch(
    records: &[Record],
    compression: Compression,
    wall_ms: i64,
) -> Result<bytes::Bytes, BuildError> {
    let mut builder = BatchBuilder::new(0).compression(compression);
    for record in records {
        builder.append(wall_ms, Some(&record.key), record.value.as_deref(), &[])?;
    }
    Ok(builder.build()?.bytes)
}

impl Running {
    fn wait_with(&mut self, answer: oneshot::Sender<Response>) -> RequestToken {
        let token = RequestToken(self.next_token);
        self.next_token += 1;
        self.waiting.insert(token, answer);
        token
    }

    /// Appends what has been decided, tells the shard how that went, and sends the replies.
    fn perform(&mut self, coordinator: &Coordinator, decided: Outcome, now: Now) {
        let mut outcome = decided;
        loop {
            let replies = std::mem::take(&mut outcome.replies);
            send(&mut self.waiting, replies);
            if outcome.records.is_empty() {
                return;
            }
            match coordinator.append(&outcome.records, now.wall_ms) {
                Ok(base_offset) => return self.shard.on_appended(base_offset, now),
                Err(code) => outcome = self.shard.on_append_failed(code, now),
            }
        }
    }
}

fn send(waiting: &mut BTreeMap<RequestToken, oneshot::Sender<Response>>, replies: Vec<Reply>) {
    for reply in replies {
        let answer = waiting.remove(&reply.token).expect("every request is answered once");
        // A client that has gone away needs no answer.
        drop(answer.send(reply.response));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use klamm_coordinator::group::JoinGroup;
    use klamm_log::disk::{Disk, Fault, MemoryDisk, Operation};
    use klamm_metadata::config_def::{BrokerConfigs, Configs};
    use klamm_protocol::Uuid;
    use klamm_protocol::messages::join_group_request::{
        JoinGroupRequest, JoinGroupRequestProtocol,
    };
    use klamm_protocol::messages::join_group_response::JoinGroupResponse;
    use klamm_protocol::messages::offset_commit_request::{
        OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
    };
    use klamm_protocol::messages::offset_commit_response::OffsetCommitResponse;
    use klamm_protocol::messages::offset_fetch_request::{
        OffsetFetchRequestGroup, OffsetFetchRequestTopics,
    };
    use klamm_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
    use klamm_replication::partition::{FetchedPartition, Registration};

    use super::*;
    use crate::cluster::internal_topics::CONSUMER_OFFSETS;
    use crate::config::BrokerConfig;
    use crate::coordinator::Pending;
    use crate::replica::log_manager::LogManager;
    use crate::replica::partition::BrokerStatuses;
    use crate::replica::settings::partition_config;

    const TOPIC_ID: Uuid = Uuid::from_bytes([7; 16]);

    fn registration() -> Registration {
        Registration { leader_epoch: 1, partition_epoch: 1, replicas: vec![1], isr: vec![1] }
    }

    fn partition() -> Arc<Partition> {
        partition_on(&MemoryDisk::default())
    }

    fn partition_on(disk: &MemoryDisk) -> Arc<Partition> {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let config = BrokerConfig::from_pairs([("log.dirs", "/data")]).unwrap();
        let store = LogManager::open(&disk, &config).unwrap();
        let configs = BrokerConfigs::new(Configs::new()).unwrap();
        let config = partition_config(&configs, CONSUMER_OFFSETS, &Configs::new());
        let id = Uuid::from_bytes([3; 16]);
        let opened = store.open_all(vec![(CONSUMER_OFFSETS.into(), id, 0, config)]);
        let partition = opened.into_iter().next().unwrap().unwrap();
        partition.lead(&registration(), &BrokerStatuses::new());
        partition
    }

    fn settings() -> Settings {
        let config = BrokerConfig::from_pairs([
            ("group.initial.rebalance.delay.ms", "20"),
            ("offsets.topic.compression.codec", "4"),
        ]);
        Settings::new(&config.unwrap().groups)
    }

    fn started(partition: &Arc<Partition>) -> Arc<Coordinator> {
        Coordinator::start(Arc::clone(partition), settings(), &Handle::current())
    }

    /// Not loaded before it is told to.
    fn unloaded(partition: &Arc<Partition>) -> Coordinator {
        Coordinator {
            partition: Arc::clone(partition),
            settings: settings(),
            state: Mutex::new(State::Loading { deleted: Vec::new() }),
            rearm: Notify::new(),
            ended: CancellationToken::new(),
        }
    }

    async fn loaded(partition: &Arc<Partition>) -> Arc<Coordinator> {
        let coordinator = started(partition);
        let loading = async {
            while coordinator.look(|_, _| ()) == Err(ErrorCode::CoordinatorLoadInProgress) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), loading)
            .await
            .expect("an empty log is short");
        coordinator
    }

    fn commit(coordinator: &Coordinator, offset: Offset) -> Pending {
        let request = OffsetCommitRequest {
            group_id: "g".into(),
            topics: vec![OffsetCommitRequestTopic {
                name: "t".into(),
                topic_id: TOPIC_ID,
                partitions: vec![OffsetCommitRequestPartition {
                    committed_offset: offset,
                    ..Default::default()
                }],
            }],
            ..Default::default()
        };
        Pending(
            coordinator.ask(|shard, token, now| shard.on_offset_commit(token, 9, &request, now)),
        )
    }

    async fn commit_error(pending: Pending) -> i16 {
        let response: OffsetCommitResponse = pending.answer().await.unwrap();
        response.topics[0].partitions[0].error_code
    }

    async fn fetched(coordinator: &Coordinator) -> Offset {
        let group = OffsetFetchRequestGroup {
            group_id: "g".into(),
            topics: Some(vec![OffsetFetchRequestTopics {
                name: "t".into(),
                partition_indexes: vec![0],
                ..Default::default()
            }]),
            ..Default::default()
        };
        let asked =
            Pending(coordinator.ask(|shard, token, _| shard.on_offset_fetch(token, &group, false)));
        let response: OffsetFetchResponseGroup = asked.answer().await.unwrap();
        assert_eq!(response.error_code, 0);
        response.topics[0].partitions[0].committed_offset
    }

    fn join(coordinator: &Coordinator) -> Pending {
        Pending(coordinator.ask(|shard, token, now| {
            let request = JoinGroupRequest {
                group_id: "g".into(),
                session_timeout_ms: 10_000,
                rebalance_timeout_ms: 10_000,
                protocol_type: "consumer".into(),
                protocols: vec![JoinGroupRequestProtocol {
                    name: "range".into(),
                    ..Default::default()
                }],
                ..Default::default()
            };
            let join = JoinGroup {
                token,
                version: 3,
                client_id: "c".into(),
                client_host: "/127.0.0.1".into(),
                member_uuid: TOPIC_ID,
                request,
            };
            shard.on_join_group(&join, now)
        }))
    }

    #[tokio::test]
    async fn what_was_committed_is_there_for_the_next_coordinator() {
        let partition = partition();
        let first = loaded(&partition).await;
        assert_eq!(commit_error(commit(&first, 5)).await, 0);
        assert_eq!(commit_error(commit(&first, 6)).await, 0);
        assert_eq!(fetched(&first).await, 6);
        first.end();
        assert_eq!(fetched(&*loaded(&partition).await).await, 6);
    }

    #[tokio::test]
    async fn a_commit_is_answered_when_it_is_on_disk() {
        let coordinator = loaded(&partition()).await;
        let mut pending = commit(&coordinator, 5);
        // One thread: nobody can have told the coordinator that it is.
        assert!(pending.0.as_mut().unwrap().try_recv().is_err());
        assert_eq!(commit_error(pending).await, 0);
        let flushed = coordinator.partition.with_log(|log| log.flushed_offset());
        assert_eq!(flushed, Ok(1));
    }

    #[tokio::test]
    async fn a_join_is_answered_when_its_time_has_come() {
        let coordinator = loaded(&partition()).await;
        let response: JoinGroupResponse = join(&coordinator).answer().await.unwrap();
        assert_eq!((response.error_code, response.generation_id), (0, 1));
    }

    #[tokio::test]
    async fn ending_sends_those_who_wait_to_the_next_coordinator() {
        let coordinator = loaded(&partition()).await;
        let pending = join(&coordinator);
        coordinator.end();
        let response: JoinGroupResponse = pending.answer().await.unwrap();
        assert_eq!(response.error_code, ErrorCode::NotCoordinator.code());
        let refused = commit(&coordinator, 5).answer::<OffsetCommitResponse>().await;
        assert_eq!(refused.unwrap_err(), ErrorCode::NotCoordinator);
        assert_eq!(coordinator.partition.view().unwrap().log_end(), 1, "the group's first record");
    }

    #[tokio::test]
    async fn what_the_next_leader_commits_in_the_same_place_is_not_what_was_asked_for_here() {
        let partition = partition();
        let of_two = |epoch| Registration {
            leader_epoch: epoch,
            partition_epoch: epoch,
            replicas: vec![1, 2],
            isr: vec![1, 2],
        };
        partition.lead(&of_two(2), &BrokerStatuses::new());
        let coordinator = loaded(&partition).await;
        let pending = commit(&coordinator, 5);
        assert!(partition.follow(2, &of_two(3)));
        let next_fetch = async {
            loop {
                match partition.next_fetch() {
                    Some((fetch, _)) => return fetch,
                    None => tokio::task::yield_now().await,
                }
            }
        };
        let fetch = tokio::time::timeout(Duration::from_secs(30), next_fetch).await.unwrap();
        let answer = FetchedPartition {
            error: ErrorCode::None,
            number: fetch.number,
            current_leader_epoch: 3,
            fetch_offset: fetch.fetch_offset,
            diverging: None,
            high_watermark: fetch.fetch_offset,
            log_start_offset: 0,
        };
        partition.on_fetched(&answer, Bytes::new());
        assert_eq!(partition.view().unwrap().high_watermark(), 1);
        coordinator.on_moved();
        coordinator.end();
        assert_eq!(commit_error(pending).await, ErrorCode::NotCoordinator.code());
    }

    #[tokio::test]
    async fn topics_that_are_deleted_while_loading_lose_their_offsets() {
        let partition = partition();
        let before = loaded(&partition).await;
        assert_eq!(commit_error(commit(&before, 5)).await, 0);
        before.end();
        let coordinator = unloaded(&partition);
        let refused = commit(&coordinator, 6).answer::<OffsetCommitResponse>().await;
        assert_eq!(refused.unwrap_err(), ErrorCode::CoordinatorLoadInProgress);
        let deleted = DeletedTopic { topic_id: TOPIC_ID, name: "t".into() };
        coordinator.on_topics_deleted(&[deleted]);
        coordinator.load();
        let coordinator = Arc::new(coordinator);
        let driven = Arc::clone(&coordinator);
        tokio::spawn(async move { driven.drive().await });
        assert_eq!(fetched(&coordinator).await, -1);
    }

    #[tokio::test]
    async fn a_partition_with_a_record_that_nobody_can_read_is_not_served() {
        let partition = partition();
        let record = Record { key: Bytes::from_static(b"k"), value: None };
        let batch = batch(&[record], Compression::None, 0).unwrap();
        partition.append(batch, &AppendOptions::coordinator(), 0).unwrap();
        let coordinator = unloaded(&partition);
        coordinator.load();
        assert_eq!(coordinator.look(|_, _| ()), Err(ErrorCode::NotCoordinator));
    }

    #[tokio::test]
    async fn a_partition_that_cannot_be_read_for_now_is_loaded_when_it_can() {
        let disk = MemoryDisk::default();
        let partition = partition_on(&disk);
        let before = loaded(&partition).await;
        assert_eq!(commit_error(commit(&before, 5)).await, 0);
        before.end();
        let coordinator = unloaded(&partition);
        disk.fail_next(Operation::Read, Fault::OutOfFileDescriptors);
        assert_eq!(coordinator.load(), Loading::Later);
        let meanwhile = coordinator.look(|_, _| ());
        assert_eq!(meanwhile, Err(ErrorCode::CoordinatorLoadInProgress));
        assert_eq!(coordinator.load(), Loading::Over);
        let coordinator = Arc::new(coordinator);
        let driven = Arc::clone(&coordinator);
        tokio::spawn(async move { driven.drive().await });
        assert_eq!(fetched(&coordinator).await, 5);
        // By itself it tries again.
        disk.fail_next(Operation::Read, Fault::OutOfFileDescriptors);
        assert_eq!(fetched(&*loaded(&partition).await).await, 5);
    }

    #[tokio::test]
    async fn a_commit_that_finds_no_space_is_refused_and_the_next_one_is_not() {
        let disk = MemoryDisk::default();
        let coordinator = loaded(&partition_on(&disk)).await;
        assert_eq!(commit_error(commit(&coordinator, 5)).await, 0);
        disk.lack_from(disk.mutations(), Fault::NoSpace);
        let refused = commit_error(commit(&coordinator, 6)).await;
        assert!(ErrorCode::from_code(refused).is_some_and(|code| code != ErrorCode::None));
        disk.give_room();
        assert_eq!(commit_error(commit(&coordinator, 7)).await, 0);
        assert_eq!(fetched(&coordinator).await, 7);
    }

    #[tokio::test]
    async fn a_partition_that_is_no_longer_led_refuses_commits() {
        let partition = partition();
        let coordinator = loaded(&partition).await;
        partition.follow(2, &registration());
        let error = commit_error(commit(&coordinator, 5)).await;
        assert_eq!(error, ErrorCode::NotCoordinator.code());
    }

    #[tokio::test]
    async fn a_panic_ends_the_coordinator_and_not_the_broker() {
        let coordinator = loaded(&partition()).await;
        let same = Arc::clone(&coordinator);
        let panicked =
            tokio::task::spawn_blocking(move || same.look(|_, _| panic!("a broken invariant")));
        assert!(panicked.await.is_err());
        assert_eq!(coordinator.look(|_, _| ()), Err(ErrorCode::NotCoordinator));
    }
}
