//! What a broker's process does when it is sent a signal, or nobody reads its log any more.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use klamm_testbed::{Directory, Program, Running, free_port, until, until_true};

use crate::LIMIT;
use crate::client::Client;

/// A broker in a directory of its own. `env` decides how it takes signals at its start, whatever this process does.
struct Node {
    directory: Directory,
    port: u16,
}

impl Node {
    fn new() -> Self {
        Self { directory: Directory::new("signals"), port: free_port() }
    }

    fn command(&self, signals: &str) -> Command {
        let mut command = Command::new("env");
        command.arg("--default-signal=INT,QUIT,TERM,PIPE").arg(signals);
        command.arg(env!("CARGO_BIN_EXE_klamm"));
        let listeners =
            format!("listeners=PLAINTEXT://127.0.0.1:{},CONTROLLER://127.0.0.1:0", self.port);
        command.args(["--override", "log.dirs=data", "--override", &listeners]);
        command
    }

    fn start(&self, signals: &str) -> Running {
        let running = Program::from(self.command(signals)).in_dir(self.directory.path()).start();
        running.until_prints("Transitioning from RECOVERY to RUNNING", LIMIT);
        running
    }

    fn is_clean(&self) -> bool {
        self.directory.path().join("data/.kafka_cleanshutdown").exists()
    }

    fn prove(&self) {
        Client::connect(([127, 0, 0, 1], self.port).into()).prove();
    }
}

/// What a pipe of Linux takes.
const PIPE_BYTES: usize = 64 * 1024;

const DEFAULT_HUP: &str = "--default-signal=HUP";

#[test]
fn term_int_and_hup_are_clean_ends() {
    for name in ["TERM", "INT", "HUP"] {
        let node = Node::new();
        let running = node.start(DEFAULT_HUP);
        assert!(!node.is_clean(), "it runs");
        running.signal(name);
        let ended = running.wait(LIMIT);
        assert_eq!(ended.status, 0, "{name}: {ended}");
        assert!(node.is_clean(), "{name}: {ended}");
        assert!(ended.stdout.contains(&format!("SIG{name} asks the broker to stop")), "{ended}");
    }
}

/// A start that waits for controllers that are not there.
#[test]
fn a_signal_ends_a_start_that_waits() {
    let node = Node::new();
    let mut command = node.command(DEFAULT_HUP);
    let (own, nobody) = (format!("listeners=PLAINTEXT://127.0.0.1:{}", node.port), free_port());
    let voters = format!("controller.quorum.voters=2@127.0.0.1:{nobody}");
    for key in ["process.roles=broker", "controller.listener.names=CONTROLLER", &own, &voters] {
        command.args(["--override", key]);
    }
    command.env("CLUSTER_ID", "4L6g3nShT-eMCtK--X86sw");
    let running = Program::from(command).in_dir(node.directory.path()).start();
    until_true("the directory to be formatted", LIMIT, || {
        node.directory.path().join("data/meta.properties").exists()
    });
    running.signal("TERM");
    let ended = running.wait(LIMIT);
    assert_eq!(ended.status, 0, "{ended}");
    assert!(ended.stdout.contains("SIGTERM asks the broker to stop while it starts"), "{ended}");
    assert!(ended.stdout.contains("the start is given up"), "{ended}");
}

/// As a JVM: `nohup` is an ignored SIGHUP.
#[test]
fn a_hup_that_is_ignored_at_the_start_stays_ignored() {
    let node = Node::new();
    let running = node.start("--ignore-signal=HUP");
    running.signal("HUP");
    // The dump comes after the signal before it.
    running.signal("QUIT");
    running.until_prints("end of the state of node 1", LIMIT);
    node.prove();
    assert!(!running.stdout().contains("asks the broker to stop"));
    running.signal("TERM");
    assert_eq!(running.wait(LIMIT).status, 0);
}

#[test]
fn quit_dumps_the_state_and_the_broker_goes_on() {
    let node = Node::new();
    let running = node.start(DEFAULT_HUP);
    for times in 1..=2 {
        running.signal("QUIT");
        until_true("the dump", LIMIT, || {
            running.stdout().matches("end of the state of node 1").count() == times
        });
        node.prove();
    }
    let log = running.stdout();
    for line in [
        "state of node 1, broker and controller (SIGQUIT)",
        "process ",
        "runtime: ",
        "threads: 1 x publisher: ",
        "connections: ",
        "metadata of cluster ",
        "registration: broker epoch ",
        "this node is the active controller",
        "quorum: voter 1, log end offset ",
        "log directory ",
        "partitions here: 0, 0 led, 0 offline",
        "partitions of the cluster: 0 without a leader, 0 with replicas out of sync",
        "groups coordinated here: 0 ()",
        "fetch sessions: 0 of 1000",
    ] {
        let dumped = log.lines().filter(|dumped| dumped.ends_with("(klamm::state_dump)"));
        let times = dumped.filter(|dumped| dumped.contains(line)).count();
        assert_eq!(times, 2, "{line}\n{log}");
    }
    running.signal("TERM");
    assert_eq!(running.wait(LIMIT).status, 0);
    assert!(node.is_clean());
}

/// A terminal and a script that both pass a signal on are no reason to leave the logs open.
#[test]
fn a_repeated_signal_does_not_make_the_end_unclean() {
    let node = Node::new();
    let running = node.start(DEFAULT_HUP);
    for name in ["TERM", "INT", "TERM", "HUP"] {
        running.signal(name);
    }
    let ended = running.wait(LIMIT);
    assert_eq!(ended.status, 0, "{ended}");
    assert!(node.is_clean(), "{ended}");
}

/// Killed when dropped.
struct Unread(Child);

impl Drop for Unread {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.0.kill().expect("it is our child");
            self.0.wait().expect("it is our child");
        }
    }
}

#[test]
fn a_log_that_nobody_reads_ends_nothing() {
    let node = Node::new();
    let mut command = node.command(DEFAULT_HUP);
    command.current_dir::<&Path>(node.directory.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut unread = Unread(command.spawn().unwrap());
    drop((unread.0.stdout.take(), unread.0.stderr.take()));
    until_true("the first answer", LIMIT, || {
        assert!(unread.0.try_wait().unwrap().is_none(), "it has ended");
        std::net::TcpStream::connect(("127.0.0.1", node.port)).is_ok()
    });
    let kill = |name: &str| {
        let id = unread.0.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    };
    kill("-QUIT");
    node.prove();
    kill("-TERM");
    let status = until("its end", Duration::from_secs(30), || unread.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    assert!(node.is_clean());
}

/// The pipe is full from the beginning: whoever has the reading end never reads.
#[test]
fn a_full_pipe_that_nobody_empties_stops_nothing() {
    let node = Node::new();
    let (unread_end, mut full) = std::io::pipe().unwrap();
    std::io::Write::write_all(&mut full, &[b' '; PIPE_BYTES]).unwrap();
    let mut command = node.command(DEFAULT_HUP);
    command.current_dir::<&Path>(node.directory.path());
    command.stdin(Stdio::null()).stdout(full).stderr(Stdio::null());
    let mut unread = Unread(command.spawn().unwrap());
    until_true("the first answer", LIMIT, || {
        assert!(unread.0.try_wait().unwrap().is_none(), "it has ended");
        std::net::TcpStream::connect(("127.0.0.1", node.port)).is_ok()
    });
    node.prove();
    let id = unread.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let status = until("its end", Duration::from_secs(30), || unread.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    assert!(node.is_clean());
    drop(unread_end);
}
