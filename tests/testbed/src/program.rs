//! Another program (kcat, python, go, mvn): started with arguments and input, awaited with a deadline, read in full.

use std::fmt;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::guard::Guard;
use crate::wait::{until, until_true};

const DEFAULT_LIMIT: Duration = Duration::from_secs(60);
const APT_LIMIT: Duration = Duration::from_secs(300);

/// What a program left: exit status (-1 after a signal), standard output and standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// Exit status.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output of a run that succeeded.
    ///
    /// # Panics
    /// With the whole output when it failed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.status, 0, "{self}");
        self.stdout
    }

    /// Standard output and error of a run that failed as it should.
    ///
    /// # Panics
    /// With the whole output when it succeeded.
    #[track_caller]
    pub fn failure(self) -> String {
        assert_ne!(self.status, 0, "this should have failed: {self}");
        self.stdout + &self.stderr
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, status, stdout, stderr } = self;
        write!(f, "{command}\nexit status {status}\n{stdout}\n--- standard error\n{stderr}")
    }
}

/// A program about to be started.
#[derive(Debug)]
pub struct Program {
    command: Command,
    stdin: Vec<u8>,
    limit: Duration,
}

impl From<Command> for Program {
    fn from(command: Command) -> Self {
        Self { command, stdin: Vec::new(), limit: DEFAULT_LIMIT }
    }
}

impl Program {
    /// A program found by its name or path.
    pub fn new(name: impl AsRef<Path>) -> Self {
        Command::new(name.as_ref()).into()
    }

    /// One more argument.
    pub fn arg(mut self, argument: impl AsRef<str>) -> Self {
        self.command.arg(argument.as_ref());
        self
    }

    /// More arguments.
    pub fn args<S: AsRef<str>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// An environment variable.
    pub fn env(mut self, name: &str, value: impl AsRef<Path>) -> Self {
        self.command.env(name, value.as_ref());
        self
    }

    /// Where it runs.
    pub fn in_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.command.current_dir(directory.into());
        self
    }

    /// What it reads on its standard input, which ends after it.
    pub fn stdin(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.stdin = input.into();
        self
    }

    /// How long it may take.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Starts it and waits for its end.
    ///
    /// # Panics
    /// When it cannot be started or does not end in time.
    pub fn run(self) -> Output {
        let limit = self.limit;
        self.start().wait(limit)
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(mut self) -> Running {
        let line = format!("{:?}", self.command).replace('"', "");
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match self.command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("cannot start {line}: {error}"),
        };
        let mut input = child.stdin.take().expect("its standard input is a pipe");
        let stdin = self.stdin;
        // A program may end without having read everything: not our affair.
        std::thread::spawn(move || drop(input.write_all(&stdin)));
        Running {
            guard: Guard::over(child.id(), None),
            stdout: Collected::from(child.stdout.take().expect("its standard output is a pipe")),
            stderr: Collected::from(child.stderr.take().expect("its standard error is a pipe")),
            command: line,
            child,
        }
    }
}

/// A program at work; killed when dropped.
#[derive(Debug)]
pub struct Running {
    command: String,
    child: Child,
    stdout: Collected,
    stderr: Collected,
    #[expect(dead_code, reason = "held for its drop")]
    guard: Guard,
}

impl Running {
    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Waits until its standard output contains `text`.
    ///
    /// # Panics
    /// When the limit is over, with all that it wrote.
    pub fn until_prints(&self, text: &str, limit: Duration) {
        until_true(&format!("{} to print {text}", self.command), limit, || {
            self.stdout().contains(text)
        });
    }

    /// Asks it to end, as a supervisor would (SIGTERM).
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends it a signal, named as `kill` names it.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When the limit is over, with all that it wrote.
    pub fn wait(mut self, limit: Duration) -> Output {
        let what = format!("the end of {}", self.command);
        let status = until(&what, limit, || self.child.try_wait().expect("it is our child"));
        self.output(status)
    }

    fn output(&mut self, status: ExitStatus) -> Output {
        Output {
            command: self.command.clone(),
            status: status.code().unwrap_or(-1),
            stdout: self.stdout.finished(),
            stderr: self.stderr.finished(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            eprintln!("{} is killed\n{}\n{}", self.command, self.stdout(), self.stderr.text());
            self.child.kill().expect("it is our child");
            self.child.wait().expect("it is our child");
        }
    }
}

/// A pipe read by a thread of its own, so that a program never blocks on it.
#[derive(Debug)]
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Collected {
    fn from(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&bytes);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(read @ 1..) = pipe.read(&mut buffer) {
                let mut bytes = shared.lock().unwrap_or_else(PoisonError::into_inner);
                bytes.extend_from_slice(&buffer[..read]);
            }
        });
        Self { bytes, reader: Some(reader) }
    }

    fn text(&self) -> String {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn finished(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader does not panic");
        }
        self.text()
    }
}

/// Sends a signal to a process that we started.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
    assert!(sent.expect("there is a kill command").success(), "cannot signal {pid}");
}

/// Makes sure that `program` can be run, installing Debian's `package` if need be.
///
/// # Panics
/// When it is missing and cannot be installed, saying how to get it.
pub fn require(program: &str, package: &str) {
    static APT: Mutex<()> = Mutex::new(());
    // One at a time: apt itself does not wait for another apt that reads its lists.
    let _turn = APT.lock().unwrap_or_else(PoisonError::into_inner);
    if is_installed(program) {
        return;
    }
    let mut apt = Command::new("sh");
    apt.args(["-c", &format!("apt-get update -q && apt-get install -y -q {package}")]);
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    let output = Program::from(apt).limit(APT_LIMIT).run();
    assert!(
        is_installed(program),
        "the tests need {program}: install it, on Debian with `apt-get install {package}`\n{output}"
    );
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_reads_its_input_and_its_output_and_status_come_back() {
        let script = "read a; echo out $a; echo err >&2; exit 3";
        let output = Program::new("sh").args(["-c", script]).stdin("in\n").run();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out in\n", "err\n"));
        assert_eq!(output.status, 3);
    }

    #[test]
    #[should_panic(expected = "in vain for: the end of sleep 60")]
    fn a_program_that_does_not_end_in_time_fails_the_test() {
        Program::new("sleep").arg("60").limit(Duration::from_millis(50)).run();
    }

    #[test]
    fn what_a_running_program_prints_can_be_awaited() {
        let running = Program::new("sh").args(["-c", "echo ready; exec sleep 60"]).start();
        running.until_prints("ready", Duration::from_secs(5));
        running.terminate();
        assert_eq!(running.wait(Duration::from_secs(5)).status, -1);
    }
}
