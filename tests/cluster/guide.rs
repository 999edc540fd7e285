//! What `docs/clusters.md` tells an operator to do, done: its files and its commands, as they stand on the page.

use std::time::Duration;

use klamm_testbed::Flavour::{self, Kafka};
use klamm_testbed::{
    Cluster, ClusterSetup, Directory, Output, Program, Running, free_port, tool, until_true,
};

use crate::peers::finish;
use crate::stage::{alone, scene};

const LIMIT: Duration = Duration::from_secs(60);

/// The code blocks below a heading of the page, without the indentation of the lists that they are in.
fn blocks(heading: &str) -> Vec<Vec<String>> {
    let page = include_str!("../../docs/clusters.md");
    let section = page.split("\n## ").find_map(|section| section.strip_prefix(heading));
    let section = section.unwrap_or_else(|| panic!("the page has a section {heading:?}"));
    let blocks = section.split("```").skip(1).step_by(2);
    let lines = |block: &str| -> Vec<String> {
        let lines = block.lines().map(|line| line.split('#').next().unwrap().trim().to_owned());
        lines.filter(|line| !line.is_empty()).collect()
    };
    blocks.map(lines).collect()
}

/// Runs a command of one of Kafka's tools against the cluster.
fn run(cluster: &Cluster, command: &str) -> Output {
    let line = command.replace("--bootstrap-server <broker> ", "").replacen(".sh", "", 1);
    cluster.tool(&line).run()
}

/// Starts a node as a program that the cluster's features keep out, and returns the command which that program asks for.
fn refused(cluster: &mut Cluster, id: i32, flavour: Flavour) -> String {
    let status = cluster.ends_as(id, flavour);
    assert_eq!(status.code(), Some(6), "refused by the cluster");
    let log = cluster.node(id).broker().log();
    let at = log.find("kafka-features.sh").unwrap_or_else(|| panic!("no command in: {log}"));
    // The line ends with the name of the logger.
    let command = log[at..].split(" (klamm::").next().unwrap();
    command.replace("<a broker of the cluster>", "<broker>")
}

#[test]
fn a_cluster_becomes_klamm_node_by_node_and_kafka_again_without_loss() {
    let _machine = alone();
    let steps = blocks("Replacing Apache Kafka node by node");
    let [healthy, features, replaced] = &steps[..] else { panic!("{steps:?}") };
    let mut scene = scene(ClusterSetup::of(&[Kafka; 3]).with_all_features().start());

    let ids = scene.cluster().ids();
    crate::failover::stop(scene.cluster_mut(), ids[0]);
    let asked_for = refused(scene.cluster_mut(), ids[0], Flavour::under_test());
    assert!(features.contains(&asked_for), "{asked_for:?} is on the page: {features:?}");
    scene.cluster_mut().start_as(ids[0], Kafka);
    scene.cluster().until_whole();

    for command in healthy.iter().chain(features) {
        let said = run(scene.cluster(), command).ok();
        assert!(!command.contains("under-replicated") || said.trim().is_empty(), "{said}");
    }
    for flavour in [Flavour::under_test(), Kafka] {
        for id in &ids {
            crate::failover::stop(scene.cluster_mut(), *id);
            scene.cluster_mut().start_as(*id, flavour);
            let [is_whole, elect] = &replaced[..] else { panic!("{replaced:?}") };
            until_true("nothing to be under-replicated", LIMIT, || {
                run(scene.cluster(), is_whole).ok().trim().is_empty()
            });
            run(scene.cluster(), elect).ok();
            scene.until_steady();
        }
    }
    finish(scene);
}

/// `klamm` with the arguments of a command on the page.
fn klamm(home: &Directory, command: &str, cluster_id: &str) -> Program {
    let arguments = command.strip_prefix("klamm ").expect("the page runs klamm");
    let arguments = arguments.replace("<cluster id>", cluster_id);
    Program::new(env!("CARGO_BIN_EXE_klamm")).args(arguments.split(' ')).in_dir(home.path())
}

/// The node's file, after the one on the page for node 1 of hosts that are only examples.
fn properties(page: &[String], id: usize, ports: &[[u16; 2]; 3], home: &Directory) -> String {
    let mut text = page.join("\n").replace("node.id=1", &format!("node.id={id}"));
    let data = home.path().join("data");
    text = text.replace("/var/lib/klamm", &data.display().to_string());
    text = text.replace("//host1:", &format!("//host{id}:"));
    for (host, [client, controller]) in (1..).zip(ports) {
        text = text.replace(&format!("host{host}:9092"), &format!("127.0.0.1:{client}"));
        text = text.replace(&format!("host{host}:9093"), &format!("127.0.0.1:{controller}"));
    }
    text
}

#[test]
fn the_three_nodes_of_the_page_are_a_cluster() {
    let _machine = alone();
    let steps = blocks("Three nodes");
    let [page, commands] = &steps[..] else { panic!("{steps:?}") };
    let [random_uuid, format, start] = &commands[..] else { panic!("{commands:?}") };
    let ports = [(); 3].map(|()| [free_port(), free_port()]);
    let homes = [(); 3].map(|()| Directory::new("guide"));
    let cluster_id = klamm(&homes[0], random_uuid, "").run().ok();
    let nodes: Vec<Running> = (1..)
        .zip(&homes)
        .map(|(id, home)| {
            let file = home.path().join("server.properties");
            std::fs::write(file, properties(page, id, &ports, home)).unwrap();
            klamm(home, format, cluster_id.trim()).run().ok();
            klamm(home, start, "").start()
        })
        .collect();
    for node in &nodes {
        node.until_prints("Transition from STARTING to STARTED", LIMIT);
    }
    let bootstrap = format!("--bootstrap-server 127.0.0.1:{}", ports[2][0]);
    tool(&format!("kafka-topics {bootstrap} --create --topic guided --partitions 3")).ok();
    let described = tool(&format!("kafka-topics {bootstrap} --describe --topic guided")).ok();
    assert!(described.contains("ReplicationFactor: 3"), "{described}");
    assert!(described.contains("min.insync.replicas=2"), "{described}");
    // All at once: the last would wait for a quorum's leave to stop.
    nodes.iter().for_each(Running::terminate);
    for node in nodes {
        node.wait(LIMIT).ok();
    }
}
