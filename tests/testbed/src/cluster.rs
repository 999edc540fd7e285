//! Several nodes that make one cluster: started, ended, frozen and brought back one by one, and asked about themselves.
//!
//! Invariants: questions go only to nodes that run and are not frozen; a node keeps its directory, address and id through any
//! number of ends and starts, also as the other program.

mod setup;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

pub use setup::{ClusterSetup, Roles};
pub use state::{PartitionState, QuorumState};

use klamm_protocol::batch::BatchHeader;

use crate::broker::Broker;
use crate::place::unique;
use crate::setup::Flavour;
use crate::tool::{Tool, tool};
use crate::wait::{until, until_true, within};

/// Three JVMs on two busy cores take their time.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Kafka takes up to 50 s until a killed node is in every ISR again.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(90);
const TOPIC_LIMIT: Duration = Duration::from_secs(30);

/// One node of a cluster.
#[derive(Debug)]
pub struct Node {
    broker: Broker,
    flavour: Flavour,
    roles: Roles,
    /// `host:port` of the client listener, where there is one.
    client: Option<String>,
    /// `host:port` of the controller listener, where there is one.
    controller: Option<String>,
    /// Whether it runs and is not frozen.
    is_awake: bool,
}

impl Node {
    /// The node's process and directory.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Which program it runs, or ran last.
    pub fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// `host:port` of the client listener.
    pub fn client(&self) -> Option<&str> {
        self.client.as_deref()
    }

    /// `host:port` of the controller listener.
    pub fn controller(&self) -> Option<&str> {
        self.controller.as_deref()
    }
}

/// A cluster. Dropped, its nodes are killed and their directories removed.
#[derive(Debug)]
pub struct Cluster {
    nodes: BTreeMap<i32, Node>,
    setup: ClusterSetup,
}

impl Cluster {
    /// The nodes' ids.
    pub fn ids(&self) -> Vec<i32> {
        self.nodes.keys().copied().collect()
    }

    /// A node.
    ///
    /// # Panics
    /// When there is none of this id.
    pub fn node(&self, id: i32) -> &Node {
        &self.nodes[&id]
    }

    fn node_mut(&mut self, id: i32) -> &mut Node {
        self.nodes.get_mut(&id).expect("the cluster has this node")
    }

    /// `host:port` of every broker that runs and is not frozen, separated by commas.
    pub fn bootstrap(&self) -> String {
        let brokers: Vec<&str> =
            self.awake().filter_map(|(_, node)| node.client.as_deref()).collect();
        brokers.join(",")
    }

    /// `host:port` of every controller, running or not, separated by commas.
    pub fn controllers(&self) -> String {
        let controllers: Vec<&str> =
            self.nodes.values().filter_map(|node| node.controller.as_deref()).collect();
        controllers.join(",")
    }

    /// One of Kafka's tools, pointed at the cluster's brokers.
    ///
    /// # Panics
    /// When there is no such tool.
    pub fn tool(&self, line: &str) -> Tool {
        tool(line).talking_to(&self.bootstrap())
    }

    /// Ends a node without notice (SIGKILL), frozen or not.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self, id: i32) {
        let node = self.node_mut(id);
        node.is_awake = false;
        node.broker.kill();
    }

    /// Shuts a node down cleanly (SIGTERM) and returns how it ended.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn stop(&mut self, id: i32) -> ExitStatus {
        let node = self.node_mut(id);
        node.is_awake = false;
        node.broker.stop()
    }

    /// Ends all nodes without notice. What they have written is in their files: only power takes it away.
    pub fn kill_all(&mut self) {
        for node in self.nodes.values_mut() {
            node.is_awake = false;
            node.broker.end();
        }
    }

    /// Freezes a node (SIGSTOP).
    ///
    /// # Panics
    /// When it does not run.
    pub fn pause(&mut self, id: i32) {
        let node = self.node_mut(id);
        node.is_awake = false;
        node.broker.pause();
    }

    /// Lets a frozen node go on.
    ///
    /// # Panics
    /// When it does not run.
    pub fn resume(&mut self, id: i32) {
        let node = self.node_mut(id);
        node.broker.resume();
        node.is_awake = true;
    }

    /// Starts an ended node again without waiting for anything.
    pub fn spawn(&mut self, id: i32) {
        let node = self.node_mut(id);
        node.broker.spawn_as(node.flavour);
        node.is_awake = true;
    }

    /// Starts an ended node again, as the program named, and waits until it is unfenced.
    ///
    /// # Panics
    /// When it is not in time.
    pub fn start_as(&mut self, id: i32, flavour: Flavour) {
        self.node_mut(id).flavour = flavour;
        self.start_again(id);
    }

    /// Starts an ended node as the program named, which is to refuse, and returns how it ended.
    ///
    /// # Panics
    /// When it has not ended in time.
    #[track_caller]
    pub fn ends_as(&mut self, id: i32, flavour: Flavour) -> ExitStatus {
        self.node_mut(id).broker.ends_as(flavour)
    }

    /// Starts an ended node again as the program it was and waits until it is unfenced.
    ///
    /// # Panics
    /// When it is not in time.
    pub fn start_again(&mut self, id: i32) {
        self.spawn(id);
        let node = self.node_mut(id);
        node.broker.until_answers();
        if node.roles.is_broker() {
            self.until_unfenced(id);
        }
    }

    /// Starts an ended node with both roles again, as a controller only, without waiting for anything.
    ///
    /// # Panics
    /// When it has not had both roles.
    pub fn spawn_as_controller(&mut self, id: i32) {
        let node = self.node_mut(id);
        assert_eq!(node.roles, Roles::Combined, "node {id} has both roles");
        node.roles = Roles::Controller;
        node.client = None;
        let properties = node.broker.properties();
        let text = std::fs::read_to_string(&properties).expect("the node has been started");
        let controller = node.controller.as_ref().expect("it is a controller");
        let lines = text.lines().filter(|line| !line.starts_with("advertised.listeners="));
        let lines = lines.map(|line| match line.split_once('=') {
            Some(("process.roles", _)) => "process.roles=controller\n".to_owned(),
            Some(("listeners", _)) => format!("listeners=CONTROLLER://{controller}\n"),
            _ => format!("{line}\n"),
        });
        std::fs::write(&properties, lines.collect::<String>()).expect("the directory is ours");
        self.spawn(id);
    }

    /// Adds a node that joins the running cluster, and waits until it is unfenced if it is a broker.
    ///
    /// # Panics
    /// When it does not come up in time.
    pub fn join(&mut self, id: i32, flavour: Flavour, roles: Roles) {
        assert!(!self.nodes.contains_key(&id), "the cluster has a node {id}");
        let node = self.setup.joining(id, flavour, roles, &self.nodes);
        self.nodes.insert(id, node);
        self.start_again(id);
    }

    /// Nodes that run and are not frozen.
    fn awake(&self) -> impl Iterator<Item = (i32, &Node)> {
        self.nodes.iter().filter(|(_, node)| node.is_awake).map(|(id, node)| (*id, node))
    }

    /// Asks one awake broker after another until one answers.
    fn ask_any<T>(&self, question: impl Fn(&str) -> io::Result<T>) -> io::Result<T> {
        let mut answer = Err(io::Error::other("no broker is awake"));
        for address in self.awake().filter_map(|(_, node)| node.client.as_deref()) {
            answer = question(address);
            if answer.is_ok() {
                break;
            }
        }
        answer
    }

    /// The quorum as the active controller describes it.
    ///
    /// # Errors
    /// While there is none, or no broker that knows it.
    pub fn quorum(&self) -> io::Result<QuorumState> {
        self.ask_any(state::quorum)
    }

    /// The id of the active controller.
    ///
    /// # Panics
    /// When there is none in time.
    #[track_caller]
    pub fn controller(&self) -> i32 {
        until("an active controller", START_LIMIT, || {
            self.quorum().ok().map(|quorum| quorum.leader)
        })
    }

    /// All partitions as some awake broker sees them.
    ///
    /// # Errors
    /// When no broker answers.
    pub fn partitions(&self) -> io::Result<Vec<PartitionState>> {
        Ok(self.ask_any(state::metadata)?.1)
    }

    /// The ids of the unfenced brokers as some awake broker sees them.
    ///
    /// # Errors
    /// When no broker answers.
    pub fn unfenced(&self) -> io::Result<BTreeSet<i32>> {
        Ok(self.ask_any(state::metadata)?.0)
    }

    /// The partitions of one topic as some awake broker sees them; none while it knows no such topic.
    ///
    /// # Errors
    /// When no broker answers.
    pub fn partitions_of(&self, topic: &str) -> io::Result<Vec<PartitionState>> {
        let mut partitions = self.partitions()?;
        partitions.retain(|partition| partition.topic == topic);
        Ok(partitions)
    }

    /// The header of the batch in which the leader of a partition keeps an offset.
    ///
    /// # Errors
    /// When there is no leader, or it does not have the offset.
    pub fn batch_at(&self, topic: &str, partition: i32, offset: i64) -> io::Result<BatchHeader> {
        let partitions = self.partitions_of(topic)?;
        let state = partitions.iter().find(|state| state.partition == partition);
        let leader = state.and_then(|state| self.nodes.get(&state.leader));
        let leader = leader.and_then(|node| node.client.as_deref());
        let leader = leader.ok_or_else(|| io::Error::other("the partition has no leader"))?;
        state::batch_at(leader, topic, partition, offset)
    }

    /// Waits until every broker, as all awake brokers see it, is registered and unfenced.
    pub(crate) fn until_all_unfenced(&mut self) {
        let brokers: BTreeSet<i32> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.roles.is_broker())
            .map(|(id, _)| *id)
            .collect();
        for node in self.nodes.values_mut() {
            node.broker.until_answers();
        }
        until_true("all brokers to be unfenced", START_LIMIT, || {
            self.awake()
                .filter_map(|(_, node)| node.client.as_deref())
                .all(|address| state::metadata(address).is_ok_and(|(seen, _)| seen == brokers))
        });
    }

    /// Waits until all awake brokers see `id` unfenced.
    ///
    /// # Panics
    /// When they do not in time.
    #[track_caller]
    pub fn until_unfenced(&self, id: i32) {
        until_true(&format!("node {id} to be unfenced"), START_LIMIT, || {
            self.awake()
                .filter_map(|(_, node)| node.client.as_deref())
                .all(|address| state::metadata(address).is_ok_and(|(seen, _)| seen.contains(&id)))
        });
    }

    /// Waits until every partition is led and has all its replicas in sync, as all awake brokers see it, and returns how long
    /// that took.
    ///
    /// # Panics
    /// When it takes longer than two minutes.
    #[track_caller]
    pub fn until_whole(&self) -> Duration {
        let begin = Instant::now();
        let whole = within(CATCH_UP_LIMIT, || {
            self.awake().filter_map(|(_, node)| node.client.as_deref()).all(|address| {
                state::metadata(address)
                    .is_ok_and(|(_, partitions)| partitions.iter().all(PartitionState::is_whole))
            })
        });
        let took = begin.elapsed();
        if !whole {
            let mut left = self.partitions().unwrap_or_default();
            left.retain(|partition| !partition.is_whole());
            panic!("waited {took:?} in vain for every ISR to be full: {left:?}");
        }
        took
    }

    /// Creates a topic with a name of its own that starts with `stem` and the given replicas of each partition, and waits
    /// until all its partitions are led and in sync.
    ///
    /// # Panics
    /// When it cannot be created.
    #[track_caller]
    pub fn create_topic(
        &self,
        stem: &str,
        assignment: &[Vec<i32>],
        configs: &[(&str, &str)],
    ) -> String {
        let topic = unique(stem);
        self.ask_any(|address| state::create_topic(address, &topic, assignment, configs))
            .unwrap_or_else(|error| panic!("{topic} cannot be created: {error}"));
        until_true(&format!("the replicas of {topic}"), TOPIC_LIMIT, || {
            self.awake().filter_map(|(_, node)| node.client.as_deref()).all(|address| {
                state::metadata(address).is_ok_and(|(_, mut partitions)| {
                    partitions.retain(|partition| partition.topic == topic);
                    partitions.len() == assignment.len()
                        && partitions.iter().all(PartitionState::is_whole)
                })
            })
        });
        topic
    }
}
