//! A broker under load, as a process of its own on its own directory and ports.
//!
//! Unlike the tests' brokers, Apache Kafka runs here as its start script runs it: its own collector, both compilers, a heap
//! of 1 GiB. Both brokers read the same `server.properties` but for the lines of the [`Setting`].

use std::fmt;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use klamm_protocol::messages::api_versions_request::ApiVersionsRequest;
use klamm_protocol::messages::api_versions_response::ApiVersionsResponse;
use klamm_testbed::{Directory, free_port, kafka_jars, tool, until_true};

use crate::connection::Connection;

const START_LIMIT: Duration = Duration::from_secs(90);
const LOG_LINES_SHOWN: usize = 40;
/// A random UUID's form is all that Apache Kafka asks of it.
const CLUSTER_ID: &str = "YmVuY2gtbG9hZC1rbGFtbQ";

/// What `kafka-server-start.sh` and `kafka-run-class.sh` give the JVM when nothing is set.
const JVM_FLAGS: &[&str] = &[
    "-Xmx1G",
    "-Xms1G",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
];

/// The delay does not touch what is measured: it frees the page cache of deleted topics soon.
const COMMON_PROPERTIES: &str = "\
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.segment.delete.delay.ms=1000
";

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    Kafka,
    Klamm,
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kafka => "kafka",
            Self::Klamm => "klamm",
        })
    }
}

/// What an acknowledged record has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    /// The page cache: Kafka's defaults, and Klamm with `log.flush.before.ack=false`.
    PageCache,
    /// The disk: Kafka with `flush.messages=1`, and Klamm's defaults.
    Synced,
}

impl Setting {
    fn properties(self, flavour: Flavour) -> &'static str {
        match (self, flavour) {
            (Self::PageCache, Flavour::Klamm) => "log.flush.before.ack=false\n",
            (Self::Synced, Flavour::Kafka) => "log.flush.interval.messages=1\n",
            (Self::PageCache, Flavour::Kafka) | (Self::Synced, Flavour::Klamm) => "",
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PageCache => "page cache",
            Self::Synced => "synced",
        })
    }
}

/// A broker at work. Dropped, it is killed and its directory removed.
#[derive(Debug)]
pub(crate) struct Broker {
    flavour: Flavour,
    child: Child,
    address: SocketAddr,
    home: Directory,
}

impl Broker {
    /// Starts one on an empty directory and waits until it answers.
    ///
    /// # Panics
    /// When it does not, with its log.
    pub(crate) fn start(flavour: Flavour, setting: Setting) -> Self {
        let home = Directory::new("load");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let properties = home.path().join("server.properties");
        let text = properties_text(flavour, setting, address.port(), home.path());
        std::fs::write(&properties, text).expect("the directory is ours");
        if flavour == Flavour::Kafka {
            tool(&format!("kafka-storage format --cluster-id={CLUSTER_ID} --config"))
                .arg(properties.display().to_string())
                .start_in_own_jvm()
                .wait(START_LIMIT)
                .ok();
        }
        let child = spawn(command(flavour, &properties), home.path());
        let mut broker = Self { flavour, child, address, home };
        until_true(&format!("{flavour} to answer"), START_LIMIT, || {
            broker.assert_alive();
            broker.answers()
        });
        broker
    }

    pub(crate) fn flavour(&self) -> Flavour {
        self.flavour
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn assert_alive(&mut self) {
        if let Some(status) = self.child.try_wait().expect("it is our child") {
            panic!("{} ended with {status}", self.flavour);
        }
    }

    fn answers(&self) -> bool {
        let Ok(mut connection) = Connection::open(self.address) else { return false };
        let answer: ApiVersionsResponse = connection.call(&ApiVersionsRequest::default(), 0);
        answer.error_code == 0
    }

    fn show_log(&self) {
        let text = std::fs::read_to_string(log_file(self.home.path())).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        eprintln!("--- the log of {}\n{}\n---", self.flavour, shown.join("\n"));
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_log();
        }
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }
}

fn properties_text(flavour: Flavour, setting: Setting, port: u16, home: &Path) -> String {
    let controller_port = free_port();
    format!(
        "{COMMON_PROPERTIES}{}controller.quorum.voters=1@127.0.0.1:{controller_port}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}\nlog.dirs={}/data\n",
        setting.properties(flavour),
        home.display(),
    )
}

/// The broker's command line, in the place of a wrapper that has the kernel kill it when the load generator ends.
fn command(flavour: Flavour, properties: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    match flavour {
        Flavour::Klamm => command.arg(env!("CARGO_BIN_EXE_klamm")),
        Flavour::Kafka => {
            let log4j = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testbed/log4j2.xml");
            command
                .arg("java")
                .args(JVM_FLAGS)
                .arg(format!("-Dlog4j2.configurationFile={log4j}"))
                .args(["-cp", &format!("{}/*", kafka_jars().display()), "kafka.Kafka"])
        }
    };
    command.arg(properties);
    command
}

fn spawn(mut command: Command, home: &Path) -> Child {
    let out = File::create(log_file(home)).expect("the directory is ours");
    let err = out.try_clone().expect("a file can be shared");
    command.current_dir(home).stdin(Stdio::null()).stdout(out).stderr(err);
    command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"))
}

fn log_file(home: &Path) -> PathBuf {
    home.join("log")
}
