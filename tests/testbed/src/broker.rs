//! One broker node: the broker under test, or Apache Kafka, on its own directory and ports.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::LazyLock;
use std::time::Duration;

use crate::place::Directory;
use crate::process::Process;
use crate::program::signal;
use crate::setup::{Flavour, Setup};
use crate::tool::{Tool, tool};
use crate::wait::{until, until_true};

const START_LIMIT: Duration = Duration::from_secs(90);
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// An ApiVersions v0 request with correlation id 7 and no client id, as bytes on the wire.
const API_VERSIONS_REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];

/// A node. Dropped, it is killed and its directory removed.
#[derive(Debug)]
pub struct Broker {
    // Before the directory: fields drop in this order.
    process: Option<Process>,
    data: PathBuf,
    second_data: PathBuf,
    bootstrap: String,
    namespace: Option<String>,
    home: Directory,
}

impl Broker {
    /// A stopped node whose `server.properties` are in `home`.
    pub(crate) fn stopped(home: Directory, bootstrap: String) -> Self {
        let (data, second_data) = (home.path().join("data"), home.path().join("data-2"));
        Self { process: None, data, second_data, bootstrap, namespace: None, home }
    }

    /// The node keeps its log directory elsewhere than below its home.
    pub(crate) fn with_data(mut self, data: PathBuf) -> Self {
        self.data = data;
        self
    }

    /// The node keeps its second log directory elsewhere than below its home.
    pub(crate) fn with_second_data(mut self, second_data: PathBuf) -> Self {
        self.second_data = second_data;
        self
    }

    /// The node runs in a network namespace.
    pub(crate) fn in_namespace(mut self, namespace: String) -> Self {
        self.namespace = Some(namespace);
        self
    }

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

    /// `host:port` of the client listener; of the controller listener where there is no other.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Its log directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Its second log directory, where it has one.
    pub fn second_data(&self) -> &Path {
        &self.second_data
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
        self.process.as_ref().expect("the node runs").id()
    }

    /// Whether it still runs.
    ///
    /// # Panics
    /// When it was stopped.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().expect("the node was started").ended().is_none()
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
        self.process.take().expect("the node runs").terminate()
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
        self.spawn_as(flavour);
        self.until_answers();
    }

    /// Starts the stopped node again without waiting for anything.
    pub(crate) fn spawn_as(&mut self, flavour: Flavour) {
        assert!(self.process.is_none(), "the node runs already");
        let mut command = flavour.command(&self.properties());
        if let Some(namespace) = &self.namespace {
            let mut inside = Command::new("ip");
            // It replaces itself by the program: the process id is the node's.
            inside.args(["netns", "exec", namespace]).arg(command.get_program());
            inside.args(command.get_args());
            command = inside;
        }
        let log = self.home.path().join("log");
        self.process = Some(Process::spawn(command, log, self.home.path()));
    }

    /// Starts the stopped node as a program that is to refuse, and returns how it ended.
    #[track_caller]
    pub(crate) fn ends_as(&mut self, flavour: Flavour) -> ExitStatus {
        self.spawn_as(flavour);
        let mut process = self.process.take().expect("it was started");
        until("the node to refuse", START_LIMIT, || process.ended())
    }

    /// Waits until the node answers requests.
    pub(crate) fn until_answers(&mut self) {
        let address = self.bootstrap.parse().expect("an address and a port");
        let process = self.process.as_mut().expect("the node was started");
        until_true("the node to answer", START_LIMIT, || {
            process.assert_alive();
            answers(address)
        });
    }

    /// Freezes the node (SIGSTOP): its connections stay open and nothing answers.
    ///
    /// # Panics
    /// When it is stopped.
    pub fn pause(&self) {
        signal(self.pid(), "STOP");
    }

    /// Lets a frozen node go on (SIGCONT).
    ///
    /// # Panics
    /// When it is stopped.
    pub fn resume(&self) {
        signal(self.pid(), "CONT");
    }

    /// [`kill`](Self::kill), if it runs.
    pub(crate) fn end(&mut self) {
        self.process = None;
    }

    /// What the node has written to its standard output and error, over all its starts.
    ///
    /// # Panics
    /// When it was never started.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.home.path().join("log")).expect("a started node has a log");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Starts the stopped node again as the broker under test.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_again(&mut self) {
        self.start_as(Flavour::under_test());
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
