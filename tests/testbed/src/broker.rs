//! One broker node: the broker under test, or Apache Kafka, on its own directory and ports.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::LazyLock;
use std::time::Duration;

use crate::place::Directory;
use crate::process::Process;
use crate::setup::{Flavour, Setup};
use crate::tool::{Tool, tool};
use crate::wait::until_true;

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
    bootstrap: String,
    home: Directory,
}

impl Broker {
    /// A stopped node whose `server.properties` are in `home`.
    pub(crate) fn stopped(home: Directory, bootstrap: String) -> Self {
        Self { process: None, data: home.path().join("data"), bootstrap, home }
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
