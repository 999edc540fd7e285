//! How a node shall be: which program, which `server.properties`, formatted by whom.
//!
//! Both programs get the same `server.properties`, so that either can take over the directory of the other.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use crate::broker::Broker;
use crate::jars::jvm;
use crate::place::{Directory, free_port};
use crate::tool::tool;

const BROKER_HEAP_MIB: u32 = 640;

/// What every node is started with: Kafka's defaults but for one-node internal topics and no rebalance delay.
const COMMON_PROPERTIES: &str = "\
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
";

/// Which program a node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// The `klamm` that this build made.
    Klamm,
    /// Apache Kafka.
    Kafka,
}

impl Flavour {
    /// Klamm, unless `KLAMM_TEST_TARGET=kafka` asks for the oracle run.
    ///
    /// # Panics
    /// When the variable has another value.
    pub fn under_test() -> Self {
        match std::env::var("KLAMM_TEST_TARGET").as_deref() {
            Err(_) | Ok("klamm") => Self::Klamm,
            Ok("kafka") => Self::Kafka,
            Ok(other) => panic!("KLAMM_TEST_TARGET is klamm or kafka, not {other}"),
        }
    }

    pub(crate) fn command(self, properties: &Path) -> Command {
        match self {
            Self::Klamm => {
                let mut klamm = klamm();
                klamm.arg(properties);
                klamm
            }
            Self::Kafka => {
                let mut java = jvm(&[], BROKER_HEAP_MIB);
                java.arg("kafka.Kafka").arg(properties);
                java
            }
        }
    }
}

/// The binary that this build made.
pub(crate) fn klamm() -> Command {
    let binary = std::env::var_os("CARGO_BIN_EXE_klamm");
    Command::new(binary.expect("cargo test names the binary it built"))
}

/// How a node shall be.
#[derive(Debug, Clone)]
pub struct Setup {
    flavour: Flavour,
    properties: String,
    quorum: Quorum,
    cluster_id: Option<String>,
}

/// Where a node finds the voters: in its configuration, or (KIP-853) in the metadata log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quorum {
    Static,
    Dynamic,
}

impl Setup {
    /// A node of the broker under test.
    pub fn under_test() -> Self {
        Self {
            flavour: Flavour::under_test(),
            properties: COMMON_PROPERTIES.to_owned(),
            quorum: Quorum::Static,
            cluster_id: None,
        }
    }

    /// A node of Apache Kafka.
    pub fn kafka() -> Self {
        Self { flavour: Flavour::Kafka, ..Self::under_test() }
    }

    /// One more line of `server.properties`.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        writeln!(self.properties, "{key}={value}").expect("a string takes text");
        self
    }

    /// The voters are in the metadata log (KIP-853) and not in `server.properties`.
    pub fn with_dynamic_quorum(mut self) -> Self {
        self.quorum = Quorum::Dynamic;
        self
    }

    /// `kafka-storage format` prepares the directory, as Apache Kafka itself always needs it.
    pub fn formatted_by_kafka(mut self, cluster_id: &str) -> Self {
        self.cluster_id = Some(cluster_id.to_owned());
        self
    }

    /// Starts it on a new directory and waits until it answers.
    ///
    /// # Panics
    /// When it does not, with its log.
    pub fn start(self) -> Broker {
        let home = Directory::new("broker");
        let port = free_port();
        let properties = self.properties_for(home.path(), port, free_port());
        let mut broker = Broker::stopped(home, format!("127.0.0.1:{port}"));
        std::fs::write(broker.properties(), properties).expect("the directory is ours");
        if self.flavour == Flavour::Kafka || self.cluster_id.is_some() {
            self.format(&broker.properties());
        }
        broker.start_as(self.flavour);
        broker
    }

    fn properties_for(&self, home: &Path, port: u16, controller_port: u16) -> String {
        let quorum = match self.quorum {
            Quorum::Static => "controller.quorum.voters=1@",
            Quorum::Dynamic => "controller.quorum.bootstrap.servers=",
        };
        format!(
            "{}{quorum}127.0.0.1:{controller_port}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\nlog.dirs={}/data\n",
            self.properties,
            home.display(),
        )
    }

    fn format(&self, properties: &Path) {
        let random = || tool("kafka-storage random-uuid").ok().trim().to_owned();
        let id = self.cluster_id.clone().unwrap_or_else(random);
        let voters = if self.quorum == Quorum::Dynamic { "--standalone" } else { "" };
        tool(&format!("kafka-storage format {voters} --cluster-id={id} --config"))
            .arg(properties.display().to_string())
            .ok();
    }
}
