//! One broker node as a process: the broker under test, or Apache Kafka, on its own directory and ports.
//!
//! Both are started with the same `server.properties`, so that either can take over the directory of the other.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use crate::guard::Guard;
use crate::jars::jvm;
use crate::place::{Directory, free_port};
use crate::program::signal;
use crate::tool::{Tool, tool};
use crate::wait::until_true;

const START_LIMIT: Duration = Duration::from_secs(90);
const STOP_LIMIT: Duration = Duration::from_secs(60);
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
const BROKER_HEAP_MIB: u32 = 640;
const LOG_LINES_SHOWN: usize = 60;

/// An ApiVersions v0 request with correlation id 7 and no client id, as bytes on the wire.
const API_VERSIONS_REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];

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

    fn command(self, properties: &Path) -> Command {
        match self {
            Self::Klamm => {
                let binary = std::env::var_os("CARGO_BIN_EXE_klamm");
                let mut klamm = Command::new(binary.expect("cargo test names the binary it built"));
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
        let mut broker = Broker {
            process: None,
            data: home.path().join("data"),
            bootstrap: format!("127.0.0.1:{port}"),
            home,
        };
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

/// A node. Dropped, it is killed and its directory removed.
#[derive(Debug)]
pub struct Broker {
    // Before the directory: fields drop in this order.
    process: Option<Process>,
    data: PathBuf,
    bootstrap: String,
    home: Directory,
}

impl Broker {
    /// A node of the broker under test, of the test's own.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Self {
        Setup::under_test().start()
    }

    /// The node of the broker under test that all tests of this process share. It is never stopped or reconfigured.
    ///
    /// # Panics
    /// When it does not start.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<Broker> = LazyLock::new(Broker::start);
        &SHARED
    }

    /// `host:port` of the client listener.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Its log directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Its `server.properties`.
    pub fn properties(&self) -> PathBuf {
        self.home.path().join("server.properties")
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it is stopped.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the node runs").child.id()
    }

    /// Whether it still runs.
    ///
    /// # Panics
    /// When it was stopped.
    pub fn is_running(&mut self) -> bool {
        let process = self.process.as_mut().expect("the node was started");
        process.child.try_wait().expect("it is our child").is_none()
    }

    /// One of Kafka's tools, pointed at this node: `broker.tool("kafka-topics --list")`.
    ///
    /// # Panics
    /// When there is no such tool.
    pub fn tool(&self, line: &str) -> Tool {
        tool(line).talking_to(&self.bootstrap)
    }

    /// Shuts the node down cleanly (SIGTERM) and returns how it ended.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn stop(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the node runs");
        signal(process.child.id(), "TERM");
        process.wait()
    }

    /// Ends the node without notice (SIGKILL).
    ///
    /// # Panics
    /// When it was stopped already.
    pub fn kill(&mut self) {
        drop(self.process.take().expect("the node runs"));
    }

    /// Starts the stopped node again, on the same directory and ports, as the program named.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_as(&mut self, flavour: Flavour) {
        assert!(self.process.is_none(), "the node runs already");
        let properties = self.properties();
        let log = self.home.path().join("log");
        let mut process = Process::spawn(flavour.command(&properties), log, self.home.path());
        let address = self.bootstrap.parse().expect("an address and a port");
        until_true(&format!("{flavour:?} to answer"), START_LIMIT, || {
            process.assert_alive();
            answers(address)
        });
        self.process = Some(process);
    }

    /// Starts the stopped node again as the broker under test.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_again(&mut self) {
        self.start_as(Flavour::under_test());
    }
}

/// A broker's process. Dropped, it is killed.
#[derive(Debug)]
struct Process {
    child: Child,
    log: PathBuf,
    #[expect(dead_code, reason = "held for its drop")]
    guard: Guard,
}

impl Process {
    fn spawn(mut command: Command, log: PathBuf, home: &Path) -> Self {
        let mut open = OpenOptions::new();
        let out = open.create(true).append(true).open(&log).expect("the directory is ours");
        let err = out.try_clone().expect("a file can be shared");
        let command = command.current_dir(home).stdin(Stdio::null()).stdout(out).stderr(err);
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("cannot start {command:?}: {error}"),
        };
        Self { guard: Guard::over(child.id(), Some(home)), child, log }
    }

    fn assert_alive(&mut self) {
        if let Some(status) = self.child.try_wait().expect("it is our child") {
            panic!("the broker ended with {status}");
        }
    }

    fn wait(&mut self) -> ExitStatus {
        let mut ended = None;
        until_true("the broker's end", STOP_LIMIT, || {
            ended = self.child.try_wait().expect("it is our child");
            ended.is_some()
        });
        ended.expect("just seen")
    }

    fn show_log(&self) {
        let mut text = String::new();
        let read = File::open(&self.log).and_then(|mut file| file.read_to_string(&mut text));
        let lines: Vec<&str> = text.lines().collect();
        let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        eprintln!("--- the broker's log ({read:?})\n{}\n---", shown.join("\n"));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_log();
        }
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }
}

/// Whether a broker answers an ApiVersions request.
fn answers(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<[u8; 10]> {
        let mut stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.write_all(&API_VERSIONS_REQUEST)?;
        // Length, correlation id, error code.
        let mut answer = [0; 10];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer[4..] == [0, 0, 0, 7, 0, 0])
}
