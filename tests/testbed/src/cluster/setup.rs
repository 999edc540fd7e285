//! How a cluster shall be: which nodes in which roles, what their `server.properties` say, and where the quorum's voters stand.
//!
//! `kafka-storage format`, or `klamm format`, prepares every directory, so that all nodes agree on the cluster id and the feature levels, and so
//! that either program can take over any directory.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use klamm_protocol::Uuid;

use super::{Cluster, Node};
use crate::broker::Broker;
use crate::place::{Directory, free_port};
use crate::program::Program;
use crate::setup::{Flavour, klamm};
use crate::tool::tool;

/// Kafka's defaults but for replicated internal topics of few partitions, no rebalance delay, and `min.insync.replicas`.
const COMMON_PROPERTIES: &str = "\
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
offsets.topic.num.partitions=6
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
";

/// Features whose coordinators Klamm does not have: a cluster that has finalized them is not one it may join.
const FEATURES_LEFT_OUT: &str = "--feature share.version=0 --feature streams.version=0";

const LOCALHOST: &str = "127.0.0.1";

/// What a node does in its cluster (`process.roles`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roles {
    /// Broker and controller in one process.
    Combined,
    /// A broker only.
    Broker,
    /// A controller only.
    Controller,
}

impl Roles {
    pub(super) fn is_broker(self) -> bool {
        self != Self::Controller
    }

    pub(super) fn is_controller(self) -> bool {
        self != Self::Broker
    }

    fn name(self) -> &'static str {
        match self {
            Self::Combined => "broker,controller",
            Self::Broker => "broker",
            Self::Controller => "controller",
        }
    }
}

/// Where the voters are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Voters {
    /// In every `server.properties` (`controller.quorum.voters`).
    Static,
    /// In the metadata log (KIP-853), beginning with all controllers.
    Initial,
    /// In the metadata log, beginning with the first controller alone.
    Standalone,
}

/// Where a node runs, if not on this machine's loopback address and below its home.
#[derive(Debug, Clone, Default)]
struct Site {
    /// IP address and network namespace.
    host: Option<(String, String)>,
    data: Option<PathBuf>,
    second_data: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy)]
struct Plan {
    flavour: Flavour,
    roles: Roles,
}

/// How a cluster shall be.
#[derive(Debug, Clone)]
pub struct ClusterSetup {
    plans: BTreeMap<i32, Plan>,
    sites: BTreeMap<i32, Site>,
    properties: String,
    voters: Voters,
    features: &'static str,
    formatted_by: Flavour,
    cluster_id: String,
    has_second_directories: bool,
}

impl ClusterSetup {
    /// A cluster to which nodes have yet to be added.
    pub fn empty() -> Self {
        Self {
            plans: BTreeMap::new(),
            sites: BTreeMap::new(),
            properties: COMMON_PROPERTIES.to_owned(),
            voters: Voters::Static,
            features: FEATURES_LEFT_OUT,
            formatted_by: Flavour::Kafka,
            cluster_id: random_id().to_string(),
            has_second_directories: false,
        }
    }

    /// Nodes 1, 2, ... of the given flavours, brokers and controllers in one, with static voters.
    pub fn of(flavours: &[Flavour]) -> Self {
        (1..)
            .zip(flavours)
            .fold(Self::empty(), |setup, (id, flavour)| setup.node(id, *flavour, Roles::Combined))
    }

    /// Three nodes of the broker under test.
    pub fn under_test() -> Self {
        Self::of(&[Flavour::under_test(); 3])
    }

    /// One more node.
    pub fn node(mut self, id: i32, flavour: Flavour, roles: Roles) -> Self {
        self.plans.insert(id, Plan { flavour, roles });
        self
    }

    /// One more line of every `server.properties`.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        writeln!(self.properties, "{key}={value}").expect("a string takes text");
        self
    }

    /// The voters are in the metadata log (KIP-853): all controllers at first.
    pub fn with_dynamic_quorum(mut self) -> Self {
        self.voters = Voters::Initial;
        self
    }

    /// The voters are in the metadata log (KIP-853): only the first controller at first, and the others watch.
    pub fn with_standalone_quorum(mut self) -> Self {
        self.voters = Voters::Standalone;
        self
    }

    /// All features that `kafka-storage format` finalizes by default.
    pub fn with_all_features(mut self) -> Self {
        self.features = "";
        self
    }

    /// The directories are prepared by `klamm format`.
    pub fn formatted_by_klamm(mut self) -> Self {
        self.formatted_by = Flavour::Klamm;
        self
    }

    /// Puts a node into a network namespace where it has an address of its own.
    pub fn on_host(mut self, id: i32, address: &str, namespace: &str) -> Self {
        let host = Some((address.to_owned(), namespace.to_owned()));
        self.sites.entry(id).or_default().host = host;
        self
    }

    /// Puts a node's log directory to a given place, which must exist and be empty.
    pub fn on_disk(mut self, id: i32, directory: impl Into<PathBuf>) -> Self {
        self.sites.entry(id).or_default().data = Some(directory.into());
        self
    }

    /// Puts a node's second log directory to a given place, which must exist and be empty.
    pub fn with_second_on_disk(mut self, id: i32, directory: impl Into<PathBuf>) -> Self {
        self.sites.entry(id).or_default().second_data = Some(directory.into());
        self.with_second_directories()
    }

    /// Gives every node a second log directory ([`Broker::second_data`]).
    pub fn with_second_directories(mut self) -> Self {
        self.has_second_directories = true;
        self
    }

    /// Formats and starts all nodes, and waits until every broker is registered and unfenced.
    ///
    /// # Panics
    /// When that does not happen in time, with the logs.
    pub fn start(self) -> Cluster {
        let mut cluster = self.prepare();
        for id in cluster.ids() {
            cluster.spawn(id);
        }
        cluster.until_all_unfenced();
        cluster
    }

    /// Formats all nodes and starts none.
    fn prepare(self) -> Cluster {
        let nodes = self.plans.iter().map(|(id, plan)| (*id, self.node_at(*id, *plan))).collect();
        let cluster = Cluster { nodes, setup: self };
        let quorum = cluster.setup.quorum_line(&cluster.nodes);
        let directory_ids: Vec<(i32, Uuid)> = cluster
            .nodes
            .iter()
            .filter(|(_, node)| node.roles.is_controller())
            .map(|(id, _)| (*id, random_id()))
            .collect();
        for id in cluster.ids() {
            let how = cluster.setup.format_options(id, &cluster.nodes, &directory_ids);
            cluster.setup.write_and_format(id, &cluster.nodes[&id], &quorum, &how);
        }
        cluster
    }

    fn node_at(&self, id: i32, plan: Plan) -> Node {
        let site = self.sites.get(&id).cloned().unwrap_or_default();
        let host = site.host.as_ref().map_or(LOCALHOST, |(address, _)| address);
        let listener = |wanted: bool| wanted.then(|| format!("{host}:{}", free_port()));
        let client = listener(plan.roles.is_broker());
        let controller = listener(plan.roles.is_controller());
        let bootstrap = client.as_ref().or(controller.as_ref()).expect("a node has a role").clone();
        let mut broker = Broker::stopped(Directory::new("node"), bootstrap);
        if let Some(data) = site.data {
            broker = broker.with_data(data);
        }
        if let Some(second) = site.second_data {
            broker = broker.with_second_data(second);
        }
        if let Some((_, namespace)) = site.host {
            broker = broker.in_namespace(namespace);
        }
        let Plan { flavour, roles } = plan;
        Node { broker, flavour, roles, client, controller, is_awake: false }
    }

    /// A node more, formatted to join what runs already: a broker, or a controller that is no voter.
    pub(super) fn joining(
        &mut self,
        id: i32,
        flavour: Flavour,
        roles: Roles,
        nodes: &BTreeMap<i32, Node>,
    ) -> Node {
        let plan = Plan { flavour, roles };
        self.plans.insert(id, plan);
        let node = self.node_at(id, plan);
        let how = if self.voters == Voters::Static { "" } else { "--no-initial-controllers" };
        self.write_and_format(id, &node, &self.quorum_line(nodes), how);
        node
    }

    fn quorum_line(&self, nodes: &BTreeMap<i32, Node>) -> String {
        let controllers =
            nodes.iter().filter_map(|(id, node)| Some((id, node.controller.as_ref()?)));
        if self.voters == Voters::Static {
            let voters: Vec<String> =
                controllers.map(|(id, address)| format!("{id}@{address}")).collect();
            format!("controller.quorum.voters={}", voters.join(","))
        } else {
            let servers: Vec<&str> = controllers.map(|(_, address)| address.as_str()).collect();
            format!("controller.quorum.bootstrap.servers={}", servers.join(","))
        }
    }

    fn format_options(
        &self,
        id: i32,
        nodes: &BTreeMap<i32, Node>,
        directory_ids: &[(i32, Uuid)],
    ) -> String {
        let (first, _) = directory_ids.first().expect("a cluster has a controller");
        let is_controller = nodes[&id].roles.is_controller();
        match self.voters {
            Voters::Static => String::new(),
            Voters::Initial if is_controller => {
                let voter = |(id, directory_id): &(i32, Uuid)| {
                    let address = nodes[id].controller.as_ref().expect("it is a controller");
                    format!("{id}@{address}:{directory_id}")
                };
                let voters: Vec<String> = directory_ids.iter().map(voter).collect();
                format!("--initial-controllers {}", voters.join(","))
            }
            Voters::Standalone if id == *first => "--standalone".to_owned(),
            Voters::Initial | Voters::Standalone => "--no-initial-controllers".to_owned(),
        }
    }

    fn write_and_format(&self, id: i32, node: &Node, quorum: &str, how: &str) {
        let properties = node.broker.properties();
        std::fs::write(&properties, self.properties_of(id, node, quorum))
            .expect("the directory is ours");
        let Self { cluster_id, features, .. } = self;
        let format = format!("format --cluster-id={cluster_id} {features} {how} --config");
        let properties = properties.display().to_string();
        match self.formatted_by {
            Flavour::Kafka => tool(&format!("kafka-storage {format}")).arg(properties).ok(),
            Flavour::Klamm => {
                let arguments = format.split_whitespace().map(str::to_owned).chain([properties]);
                Program::from(klamm()).args(arguments).run().ok()
            }
        };
    }

    fn properties_of(&self, id: i32, node: &Node, quorum: &str) -> String {
        let client = node.client.as_ref().map(|address| format!("PLAINTEXT://{address}"));
        let controller = node.controller.as_ref().map(|address| format!("CONTROLLER://{address}"));
        let listeners: Vec<String> = client.iter().cloned().chain(controller).collect();
        let advertised =
            client.map(|address| format!("advertised.listeners={address}\n")).unwrap_or_default();
        let second = match self.has_second_directories {
            true => format!(",{}", node.broker.second_data().display()),
            false => String::new(),
        };
        format!(
            "{}node.id={id}\nprocess.roles={}\n{quorum}\nlisteners={}\n{advertised}log.dirs={}{second}\n",
            self.properties,
            node.roles.name(),
            listeners.join(","),
            node.broker.data().display(),
        )
    }
}

/// An id that nobody else has.
fn random_id() -> Uuid {
    use std::io::Read as _;
    let mut source = std::fs::File::open("/dev/urandom").expect("Linux has random bytes");
    loop {
        let mut bytes = [0; 16];
        source.read_exact(&mut bytes).expect("and never runs out of them");
        if let Some(id) = Uuid::from_random(bytes) {
            return id;
        }
    }
}
