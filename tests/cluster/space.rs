//! Space or descriptors are lacking for a while: what could not be opened or written is there again when there is room,
//! without a restart, and meanwhile other replicas do what this one cannot.

use std::io;
use std::time::Duration;

use klamm_protocol::batch::Batches;
use klamm_protocol::batch_builder::BatchBuilder;
use klamm_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreateTopicsRequest,
};
use klamm_protocol::messages::create_topics_response::CreateTopicsResponse;
use klamm_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use klamm_protocol::messages::fetch_response::FetchResponse;
use klamm_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use klamm_protocol::messages::find_coordinator_response::FindCoordinatorResponse;
use klamm_protocol::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use klamm_protocol::messages::offset_commit_response::OffsetCommitResponse;
use klamm_protocol::messages::produce_request::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use klamm_protocol::messages::produce_response::ProduceResponse;
use klamm_testbed::{Cluster, ClusterSetup, Disk, Flavour, Roles, ask, until_true, within};

use crate::stage::{alone, scene, victim};

const LIMIT: Duration = Duration::from_secs(60);
/// How long others may take to lead what one node cannot open.
const TAKE_OVER: Duration = Duration::from_secs(10);
const TIMEOUT_MS: i32 = 1500;
/// How long a disk stays full under load.
const FULL: Duration = Duration::from_secs(10);
/// The longest stall then: a second and a half is aimed at, and the machine is busy.
const FULL_STALL: Duration = Duration::from_secs(4);
/// How soon after there is room every ISR is full: five seconds, and a busy machine's time.
const RESUMED: Duration = Duration::from_secs(15);
/// The leaders of one node move away.
const MAX_LEADER_CHANGES: i32 = 6;
const NOT_LEADER: i16 = 6;
const RESERVE: &str = "the metadata log uses its reserve";
const WAITS: &str = "the metadata log waits for room";

/// Has a topic created with these replicas of each partition, and waits for nothing but the answer.
fn create(address: &str, topic: &str, assignment: &[Vec<i32>]) -> io::Result<i16> {
    let assignments = assignment.iter().zip(0..).map(|(replicas, partition_index)| {
        CreatableReplicaAssignment { partition_index, broker_ids: replicas.clone() }
    });
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: topic.into(),
            num_partitions: -1,
            replication_factor: -1,
            assignments: assignments.collect(),
            ..Default::default()
        }],
        timeout_ms: 10_000,
        ..Default::default()
    };
    let answer: CreateTopicsResponse = ask(address, &request, 7)?;
    Ok(answer.topics[0].error_code)
}

/// The error of a produce with acks=all.
fn produce(address: &str, topic: &str, index: i32, value: &[u8]) -> io::Result<i16> {
    let mut batch = BatchBuilder::new(0);
    batch.append(1_700_000_000_000, None, Some(value), &[]).unwrap();
    let records = Some(batch.build().unwrap().bytes);
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: TIMEOUT_MS,
        topic_data: vec![TopicProduceData {
            name: topic.into(),
            partition_data: vec![PartitionProduceData { index, records }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let answer: ProduceResponse = ask(address, &request, 9)?;
    Ok(answer.responses[0].partition_responses[0].error_code)
}

/// How many batches a partition has, or the error.
fn batches(address: &str, topic: &str, index: i32) -> io::Result<Result<usize, i16>> {
    let partition = FetchPartition {
        partition: index,
        current_leader_epoch: -1,
        fetch_offset: 0,
        last_fetched_epoch: -1,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    let request = FetchRequest {
        replica_id: -1,
        max_wait_ms: 0,
        max_bytes: 1 << 20,
        session_epoch: -1,
        topics: vec![FetchTopic {
            topic: topic.into(),
            partitions: vec![partition],
            ..Default::default()
        }],
        ..Default::default()
    };
    let answer: FetchResponse = ask(address, &request, 12)?;
    let found = &answer.responses[0].partitions[0];
    if found.error_code != 0 {
        return Ok(Err(found.error_code));
    }
    Ok(Ok(Batches::new(found.records.clone().unwrap_or_default()).count()))
}

fn find_coordinator(address: &str, group: &str) -> io::Result<i16> {
    let request = FindCoordinatorRequest {
        coordinator_keys: vec![group.into()],
        key_type: 0,
        ..Default::default()
    };
    let answer: FindCoordinatorResponse = ask(address, &request, 4)?;
    Ok(answer.coordinators[0].error_code)
}

fn commit(address: &str, group: &str, topic: &str) -> io::Result<i16> {
    let request = OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: topic.into(),
            partitions: vec![OffsetCommitRequestPartition {
                committed_offset: 1,
                committed_leader_epoch: -1,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let answer: OffsetCommitResponse = ask(address, &request, 8)?;
    Ok(answer.topics[0].partitions[0].error_code)
}

/// One node, its second log directory elsewhere if that is said.
fn one_node() -> ClusterSetup {
    ClusterSetup::of(&[Flavour::Klamm])
        .set("default.replication.factor", "1")
        .set("min.insync.replicas", "1")
        .set("offsets.topic.replication.factor", "1")
        .set("transaction.state.log.replication.factor", "1")
        .set("transaction.state.log.min.isr", "1")
        .set("log.segment.bytes", "1048576")
        .set("failover.metadata.reserve.bytes", "16384")
}

fn client(cluster: &Cluster, id: i32) -> String {
    cluster.node(id).client().unwrap().to_owned()
}

#[test]
fn a_full_disk_that_gets_space_again_leaves_nothing_dead() {
    if Flavour::under_test() != Flavour::Klamm {
        return;
    }
    let _machine = alone();
    let disk = Disk::new();
    let mut cluster = one_node().on_disk(1, disk.directory()).start();
    let address = client(&cluster, 1);
    assert_eq!(create(&address, "rolls", &[vec![1]]).unwrap(), 0);
    let large = vec![7; 200_000];
    until_true("the first record", LIMIT, || produce(&address, "rolls", 0, &large).unwrap() == 0);
    disk.fill();
    // Whatever is asked for while the disk is full may be refused, and must not be dead afterwards.
    for _ in 0..8 {
        drop(produce(&address, "rolls", 0, &large));
    }
    drop(create(&address, "born", &[vec![1], vec![1]]));
    drop(find_coordinator(&address, "group"));
    disk.give_room();
    let well = |what: &str, probe: &dyn Fn() -> io::Result<i16>| {
        until_true(what, LIMIT, || probe().is_ok_and(|code| code == 0));
    };
    well("records in the old topic", &|| produce(&address, "rolls", 0, &large));
    for index in [0, 1] {
        well("records in the new topic", &|| produce(&address, "born", index, b"x"));
    }
    well("a coordinator", &|| find_coordinator(&address, "group"));
    well("a commit", &|| commit(&address, "group", "rolls"));
    // The metadata log waits for room when the node is stopped.
    let said = || cluster.node(1).broker().log();
    let waited = said().matches(WAITS).count();
    disk.fill();
    let mut number = 0;
    let waits = || {
        number += 1;
        drop(create(&address, &format!("unborn-{number}"), &[vec![1]]));
        said().matches(WAITS).count() > waited
    };
    until_true("the metadata log to be full", LIMIT, waits);
    let ended = cluster.stop(1);
    let log = cluster.node(1).broker().log();
    assert_eq!(ended.code(), Some(0), "{log}");
    assert!(log.contains("the metadata log is left as after a crash"), "{log}");
    assert!(!log.contains("the metadata log failed"), "{log}");
}

#[test]
fn replicas_that_cannot_be_created_are_led_by_others_until_there_is_room() {
    others_lead_what_cannot_be_opened(ClusterSetup::of(&[Flavour::Klamm; 3]));
}

#[test]
fn apache_kafkas_controller_has_others_lead_as_well() {
    let setup = ClusterSetup::empty().node(9, Flavour::Kafka, Roles::Controller);
    let brokers = [1, 2, 3].into_iter();
    others_lead_what_cannot_be_opened(
        brokers.fold(setup, |setup, id| setup.node(id, Flavour::Klamm, Roles::Broker)),
    );
}

/// Brokers 1, 2 and 3, of which 2 has a log directory that is full.
fn others_lead_what_cannot_be_opened(setup: ClusterSetup) {
    if Flavour::under_test() != Flavour::Klamm {
        return;
    }
    let _machine = alone();
    let disk = Disk::new();
    let cluster = setup.with_second_on_disk(2, disk.directory()).start();
    let address = client(&cluster, 1);
    disk.fill();
    let assignment = vec![vec![2, 1, 3]; 6];
    assert_eq!(create(&address, "born", &assignment).unwrap(), 0);
    let state = || cluster.partitions_of("born").unwrap_or_default();
    until_true("others to lead what node 2 cannot open", TAKE_OVER, || {
        let partitions = state();
        let lost = partitions.iter().filter(|one| !one.isr.contains(&2)).count();
        partitions.len() == 6
            && lost > 0
            && partitions.iter().all(|one| one.leader > 0 && one.isr.contains(&one.leader))
            && partitions.iter().all(|one| one.isr.contains(&1) && one.isr.contains(&3))
    });
    for partition in 0..6 {
        // Replicas are given up one after the other: the leader of this one may be about to change.
        until_true(&format!("a record in partition {partition}"), TAKE_OVER, || {
            let led = state().into_iter().find(|one| one.partition == partition && one.leader > 0);
            led.is_some_and(|one| {
                let code = produce(&client(&cluster, one.leader), "born", partition, b"x");
                code.is_ok_and(|code| code == 0)
            })
        });
    }
    let without: Vec<_> = state().into_iter().filter(|one| !one.isr.contains(&2)).collect();
    assert!(!without.is_empty(), "the disk is still full");
    disk.give_room();
    cluster.until_whole();
    for partition in state() {
        let leader = client(&cluster, partition.leader);
        assert_eq!(batches(&leader, "born", partition.partition).unwrap(), Ok(1));
    }
}

/// One of three nodes on a disk that fills, with its metadata log on it.
#[track_caller]
fn others_take_over_from_a_full_node(of_controller: bool) {
    if Flavour::under_test() != Flavour::Klamm {
        return;
    }
    let _machine = alone();
    let disks = [1, 2, 3].map(|id| (id, Disk::new()));
    let on_disks = disks
        .iter()
        .fold(ClusterSetup::under_test(), |setup, (id, disk)| setup.on_disk(*id, disk.directory()));
    let mut scene = scene(on_disks.start());
    let full = victim(&scene, of_controller);
    let (_, disk) = disks.iter().find(|(id, _)| *id == full).expect("each node has one");
    let changes = scene.leader_epochs();
    let stalls = scene.measure(full, |_, _| {
        disk.fill();
        within(FULL, || false);
    });
    println!("node {full} is full: {stalls:?}");
    assert!(stalls.led.max(stalls.others) < FULL_STALL, "{stalls:?}");
    let led = scene.cluster().partitions_of(scene.topic()).unwrap();
    assert!(led.iter().all(|one| one.leader != full && !one.isr.contains(&full)), "{led:?}");
    assert!(scene.leader_epochs() - changes <= MAX_LEADER_CHANGES);
    // It answers, learns of what the others decide, and serves what it has.
    let cluster = scene.cluster();
    let other = cluster.ids().into_iter().find(|id| *id != full).expect("there are three");
    assert_eq!(create(&client(cluster, other), "meanwhile", &[vec![other]]).unwrap(), 0);
    until_true("the full node to know the topic", LIMIT, || {
        batches(&client(cluster, full), "meanwhile", 0).is_ok_and(|known| known == Err(NOT_LEADER))
    });
    let said = || cluster.node(full).broker().log();
    let mut number = 0;
    until_true("the metadata log to need its reserve", LIMIT, || {
        number += 1;
        let created = create(&client(cluster, other), &format!("more-{number}"), &[vec![other]]);
        assert_eq!(created.unwrap(), 0);
        said().contains(RESERVE)
    });
    assert!(!said().contains(WAITS), "{}", said());
    disk.give_room();
    let took = cluster.until_whole();
    println!("every ISR is full {took:?} after there is room");
    assert!(took < RESUMED, "{took:?}");
    scene.finish_without_anomaly();
}

#[test]
fn a_leader_whose_disk_is_full_gives_up_its_leaderships_and_comes_back_when_there_is_room() {
    others_take_over_from_a_full_node(false);
}

#[test]
fn an_active_controller_whose_disk_is_full_goes_on_with_its_reserve() {
    others_take_over_from_a_full_node(true);
}

#[test]
fn a_node_serves_more_partitions_than_it_may_have_files_open() {
    const PARTITIONS: i32 = 1000;
    const DESCRIPTORS: u32 = 256;
    if Flavour::under_test() != Flavour::Klamm {
        return;
    }
    let _machine = alone();
    let mut cluster = one_node().start();
    for start in 0..2 {
        let address = client(&cluster, 1);
        let pid = cluster.node(1).broker().pid();
        let limited = std::process::Command::new("prlimit")
            .args(["--pid", &pid.to_string(), &format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}")])
            .status()
            .unwrap();
        assert!(limited.success());
        if start == 0 {
            let assignment = vec![vec![1]; usize::try_from(PARTITIONS).unwrap()];
            // It may take longer than the answer is waited for.
            drop(create(&address, "many", &assignment));
        }
        for index in 0..PARTITIONS {
            until_true(&format!("a record in partition {index}"), LIMIT, || {
                produce(&address, "many", index, b"x").is_ok_and(|code| code == 0)
            });
        }
        for index in 0..PARTITIONS {
            // One that was waited for in vain is there as well.
            let found = batches(&address, "many", index).unwrap();
            assert!(found.is_ok_and(|count| count > start), "partition {index}: {found:?}");
        }
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        assert!(open <= 256, "{open} descriptors");
        if start == 0 {
            crate::failover::stop(&mut cluster, 1);
            cluster.start_again(1);
        }
    }
}
