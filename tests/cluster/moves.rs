//! Replicas, leaders among them, move between the log directories of their brokers under load (KIP-113).

use std::path::PathBuf;
use std::time::Duration;

use klamm_testbed::{Cluster, ClusterSetup, Directory, Flavour, until};

use crate::logs::batches;
use crate::stage::{LOAD, alone, scene};

const LIMIT: Duration = Duration::from_secs(90);

/// One of the log directories of a node.
type Which = fn(&Cluster, i32) -> PathBuf;

fn first(cluster: &Cluster, id: i32) -> PathBuf {
    cluster.node(id).broker().data().to_path_buf()
}

fn second(cluster: &Cluster, id: i32) -> PathBuf {
    cluster.node(id).broker().second_data().to_path_buf()
}

/// All replicas of a topic on the nodes named in the same place on each; those on other nodes stay where they are.
fn plan(cluster: &Cluster, topic: &str, nodes: &[i32], to: Which) -> String {
    let partitions = cluster.partitions_of(topic).unwrap();
    let directory = |id: &i32| match nodes.contains(id) {
        true => format!("\"{}\"", to(cluster, *id).display()),
        false => r#""any""#.to_owned(),
    };
    let partitions = partitions.iter().map(|partition| {
        let directories: Vec<String> = partition.replicas.iter().map(directory).collect();
        format!(
            r#"{{"topic":"{topic}","partition":{},"replicas":{:?},"log_dirs":[{}]}}"#,
            partition.partition,
            partition.replicas,
            directories.join(",")
        )
    });
    let partitions: Vec<String> = partitions.collect();
    format!(r#"{{"version":1,"partitions":[{}]}}"#, partitions.join(","))
}

fn reassign(cluster: &Cluster, topic: &str, to: Which, action: &str) -> String {
    reassign_on(cluster, topic, &cluster.ids(), to, action)
}

fn reassign_on(cluster: &Cluster, topic: &str, nodes: &[i32], to: Which, action: &str) -> String {
    let home = Directory::new("moves");
    let file = home.path().join("plan.json");
    std::fs::write(&file, plan(cluster, topic, nodes, to)).unwrap();
    let line = "kafka-reassign-partitions --reassignment-json-file";
    cluster.tool(&format!("{line} {} {action}", file.display())).ok()
}

#[track_caller]
fn until_moved(cluster: &Cluster, topic: &str, to: Which) {
    let replicas = 3 * usize::try_from(LOAD.partitions).unwrap();
    let completed = |said: &str| {
        let replicas = said.lines().filter(|line| line.starts_with("Reassignment of replica "));
        replicas.filter(|line| line.ends_with(" completed successfully.")).count()
    };
    until("all replicas to have moved", LIMIT, || {
        let said = reassign(cluster, topic, to, "--verify");
        (completed(&said) == replicas).then_some(())
    });
}

#[track_caller]
fn until_on_the_way(cluster: &Cluster, topic: &str, id: i32) {
    let line = format!("kafka-log-dirs --describe --broker-list {id} --topic-list {topic}");
    until("a copy on its way", LIMIT, || {
        // On a busy machine a JVM may be fenced for a while: the tool then knows no such broker.
        cluster.tool(&line).run().stdout.contains(r#""isFuture":true"#).then_some(())
    });
}

#[test]
fn replicas_move_between_log_directories_under_load_and_across_a_crash() {
    let _machine = alone();
    let setup = ClusterSetup::under_test().with_second_directories();
    let mut scene = scene(setup.start());
    let topic = scene.topic().to_owned();
    let said = reassign(
        scene.cluster(),
        &topic,
        second,
        "--execute --replica-alter-log-dirs-throttle 1000000000",
    );
    assert!(said.contains("Successfully started moving log directory"), "{said}");
    until_moved(scene.cluster(), &topic, second);
    scene.until_steady();

    // Slow enough to be interrupted.
    reassign(
        scene.cluster(),
        &topic,
        first,
        "--execute --additional --replica-alter-log-dirs-throttle 10000",
    );
    until_on_the_way(scene.cluster(), &topic, 2);
    scene.cluster_mut().kill(2);
    scene.until_steady();
    scene.cluster_mut().start_again(2);
    let line = "kafka-configs --alter --entity-type brokers --delete-config \
                replica.alter.log.dirs.io.max.bytes.per.second";
    for id in scene.cluster().ids() {
        scene.cluster().tool(&format!("{line} --entity-name {id}")).ok();
    }
    until_moved(scene.cluster(), &topic, first);
    scene.until_steady();
    scene.cluster().until_whole();
    let mut cluster = scene.finish_without_anomaly();
    cluster.kill_all();
    for partition in 0..LOAD.partitions {
        let name = format!("{topic}-{partition}");
        let logs = cluster.ids().into_iter().map(|id| batches(&first(&cluster, id).join(&name)));
        let logs: Vec<_> = logs.collect();
        assert!(!logs[0].is_empty() && logs.iter().all(|log| *log == logs[0]), "{name} differs");
        for id in cluster.ids() {
            assert!(!second(&cluster, id).join(&name).exists(), "{name} is twice on node {id}");
        }
    }
}

#[test]
fn a_move_that_one_program_has_begun_is_ended_by_the_other() {
    let _machine = alone();
    let setup = ClusterSetup::of(&[Flavour::Klamm, Flavour::Kafka, Flavour::Klamm]);
    let mut scene = scene(setup.with_second_directories().start());
    let topic = scene.topic().to_owned();
    let (cluster, unthrottled) = (scene.cluster(), "--replica-alter-log-dirs-throttle 1000000000");
    reassign(cluster, &topic, second, &format!("--execute {unthrottled}"));
    until_moved(cluster, &topic, second);
    // Enough to be interrupted in.
    scene.until_steady();
    for (id, next) in [(1, Flavour::Kafka), (2, Flavour::Klamm)] {
        // Begun only now: a throttled copy of so little goes on every eleven seconds, and may be done when the other node is back.
        let throttled = "--execute --additional --replica-alter-log-dirs-throttle 10000";
        reassign_on(scene.cluster(), &topic, &[id], first, throttled);
        until_on_the_way(scene.cluster(), &topic, id);
        scene.cluster_mut().kill(id);
        scene.until_steady();
        scene.cluster_mut().start_as(id, next);
    }
    reassign(scene.cluster(), &topic, first, &format!("--execute --additional {unthrottled}"));
    let line = "kafka-configs --alter --entity-type brokers --delete-config \
                replica.alter.log.dirs.io.max.bytes.per.second";
    for id in scene.cluster().ids() {
        scene.cluster().tool(&format!("{line} --entity-name {id}")).ok();
    }
    until_moved(scene.cluster(), &topic, first);
    scene.cluster().until_whole();
    scene.finish_without_anomaly();
}
