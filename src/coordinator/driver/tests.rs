//! The driver of a group coordinator on a real partition over a disk in memory.

use bytes::Bytes;
use klamm_coordinator::group::{DeletedTopic, GroupConfig, GroupShard, JoinGroup};
use klamm_log::disk::{Disk, Fault, MemoryDisk, Operation};
use klamm_metadata::config_def::Configs;
use klamm_protocol::Uuid;
use klamm_protocol::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
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
use crate::coordinator::PendingAnswer;
use crate::replica::log_manager::{LogManager, has_room_again};
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
    opened_on(disk).1
}

fn opened_on(disk: &MemoryDisk) -> (LogManager, Arc<Partition>) {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let config = BrokerConfig::from_pairs([("log.dirs", "/data")]).unwrap();
    let store = LogManager::open(&disk, &config).unwrap();
    let configs = BrokerConfig::from_pairs::<&str, &str>([]).unwrap();
    let config = partition_config(&configs, CONSUMER_OFFSETS, &Configs::new());
    let id = Uuid::from_bytes([3; 16]);
    let opened = store.open_all(vec![(CONSUMER_OFFSETS.into(), id, 0, config)]);
    let partition = opened.into_iter().next().unwrap().unwrap();
    partition.lead(&registration(), &BrokerStatuses::new());
    (store, partition)
}

fn settings() -> Settings<GroupConfig> {
    let config = BrokerConfig::from_pairs([
        ("group.initial.rebalance.delay.ms", "20"),
        ("offsets.topic.compression.codec", "4"),
    ]);
    crate::coordinator::settings(&config.unwrap().groups)
}

fn started(partition: &Arc<Partition>) -> Arc<Coordinator<GroupShard>> {
    Coordinator::start(Arc::clone(partition), settings(), &Handle::current())
}

/// A coordinator that is loaded only when the test calls `load`.
fn unloaded(partition: &Arc<Partition>) -> Coordinator<GroupShard> {
    Coordinator::new(Arc::clone(partition), settings())
}

async fn loaded(partition: &Arc<Partition>) -> Arc<Coordinator<GroupShard>> {
    let coordinator = started(partition);
    let loading = async {
        while coordinator.call(|_, _| ()) == Err(ErrorCode::CoordinatorLoadInProgress) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), loading).await.expect("an empty log is short");
    coordinator
}

fn commit(coordinator: &Coordinator<GroupShard>, offset: Offset) -> PendingAnswer {
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
    PendingAnswer(coordinator.send_request(|shard, token, effects| {
        shard.on_offset_commit(token, &request, true, effects)
    }))
}

async fn commit_error(pending: PendingAnswer) -> i16 {
    let response: OffsetCommitResponse = pending.answer().await.unwrap();
    response.topics[0].partitions[0].error_code
}

async fn fetched(coordinator: &Coordinator<GroupShard>) -> Offset {
    let group = OffsetFetchRequestGroup {
        group_id: "g".into(),
        topics: Some(vec![OffsetFetchRequestTopics {
            name: "t".into(),
            partition_indexes: vec![0],
            ..Default::default()
        }]),
        ..Default::default()
    };
    let pending = PendingAnswer(coordinator.send_request(|shard, token, effects| {
        shard.on_offset_fetch(token, &group, false, effects)
    }));
    let response: OffsetFetchResponseGroup = pending.answer().await.unwrap();
    assert_eq!(response.error_code, 0);
    response.topics[0].partitions[0].committed_offset
}

fn join(coordinator: &Coordinator<GroupShard>) -> PendingAnswer {
    PendingAnswer(coordinator.send_request(|shard, token, effects| {
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
            requires_known_member_id: false,
            supports_skipping_assignment: false,
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            member_uuid: TOPIC_ID,
            request,
        };
        shard.on_join_group(&join, effects);
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
    // The test runs on one thread: the coordinator cannot have seen the high watermark yet.
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
    assert!(partition.follow(Some(2), &of_two(3)));
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
    coordinator.on_high_watermark();
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
    coordinator.notify(move |shard, effects| shard.on_topics_deleted(&[deleted], effects));
    coordinator.load();
    let coordinator = Arc::new(coordinator);
    let driven = Arc::clone(&coordinator);
    tokio::spawn(async move { driven.drive().await });
    assert_eq!(fetched(&coordinator).await, -1);
}

#[tokio::test]
async fn a_partition_with_a_record_that_nobody_can_read_is_not_served() {
    let partition = partition();
    let record = EncodedRecord { key: Bytes::from_static(b"k"), value: None };
    let batch = batch(&[record], Compression::None, 0).unwrap();
    partition.append(batch, &AppendOptions::coordinator(), 0).unwrap();
    let coordinator = unloaded(&partition);
    coordinator.load();
    assert_eq!(coordinator.call(|_, _| ()), Err(ErrorCode::NotCoordinator));
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
    let meanwhile = coordinator.call(|_, _| ());
    assert_eq!(meanwhile, Err(ErrorCode::CoordinatorLoadInProgress));
    assert_eq!(coordinator.load(), Loading::Over);
    let coordinator = Arc::new(coordinator);
    let driven = Arc::clone(&coordinator);
    tokio::spawn(async move { driven.drive().await });
    assert_eq!(fetched(&coordinator).await, 5);
    // The running coordinator retries by itself.
    disk.fail_next(Operation::Read, Fault::OutOfFileDescriptors);
    assert_eq!(fetched(&*loaded(&partition).await).await, 5);
}

#[tokio::test]
async fn a_commit_that_finds_no_space_is_refused_and_the_next_one_is_not() {
    let disk = MemoryDisk::default();
    let (store, partition) = opened_on(&disk);
    let coordinator = loaded(&partition).await;
    assert_eq!(commit_error(commit(&coordinator, 5)).await, 0);
    disk.lack_from(disk.mutations(), Fault::NoSpace);
    let refused = commit_error(commit(&coordinator, 6)).await;
    assert!(ErrorCode::from_code(refused).is_some_and(|code| code != ErrorCode::None));
    disk.give_room();
    assert!(has_room_again(&store, 0, 1));
    assert_eq!(commit_error(commit(&coordinator, 7)).await, 0);
    assert_eq!(fetched(&coordinator).await, 7);
}

#[tokio::test]
async fn a_partition_that_is_no_longer_led_refuses_commits() {
    let partition = partition();
    let coordinator = loaded(&partition).await;
    partition.follow(Some(2), &registration());
    let error = commit_error(commit(&coordinator, 5)).await;
    assert_eq!(error, ErrorCode::NotCoordinator.code());
}

#[tokio::test]
async fn a_panic_ends_the_coordinator_and_not_the_broker() {
    let coordinator = loaded(&partition()).await;
    let same = Arc::clone(&coordinator);
    let panicked =
        tokio::task::spawn_blocking(move || same.call(|_, _| panic!("a broken invariant")));
    assert!(panicked.await.is_err());
    assert_eq!(coordinator.call(|_, _| ()), Err(ErrorCode::NotCoordinator));
}
