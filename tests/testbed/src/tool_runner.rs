//! The JVM in which the tools run, one for each test process: `ToolRunner.java` and its pipe.
//!
//! It ends by itself when its standard input ends, that is with this process.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use crate::jars::{compiled, jvm};
use crate::program::Output;

const RUNNER_HEAP_MIB: u32 = 512;
const KIND_STOP: u32 = 0;
const KIND_RUN: u32 = 1;

static RUNNER: LazyLock<Runner> = LazyLock::new(Runner::start);

#[derive(Debug)]
struct Runner {
    requests: Mutex<ChildStdin>,
    waiting: Waiting,
    next_id: AtomicU32,
}

/// Who waits for which run. A run whose sender is dropped has no answer to come: the JVM is gone.
type Waiting = Arc<Mutex<BTreeMap<u32, Sender<Answer>>>>;

struct Answer {
    status: i32,
    stdout: String,
    stderr: String,
}

impl Runner {
    fn start() -> Self {
        let classes = compiled(&Path::new(env!("CARGO_MANIFEST_DIR")).join("ToolRunner.java"));
        let mut java = jvm(&[&classes], RUNNER_HEAP_MIB);
        java.arg("ToolRunner").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = java.spawn().expect("java starts");
        let requests = Mutex::new(child.stdin.take().expect("its standard input is a pipe"));
        let mut answers = child.stdout.take().expect("its standard output is a pipe");
        let waiting = Waiting::default();
        let shared = Arc::clone(&waiting);
        std::thread::spawn(move || {
            while let Ok((id, answer)) = read_answer(&mut answers) {
                let waiter = shared.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                // A test that no longer waits has failed already.
                drop(waiter.map(|waiter| waiter.send(answer)));
            }
            shared.lock().unwrap_or_else(PoisonError::into_inner).clear();
            drop(child.wait());
        });
        Self { requests, waiting, next_id: AtomicU32::new(0) }
    }

    fn send(&self, frame: &[u8]) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = requests.write_all(frame).and_then(|()| requests.flush());
        sent.expect("the tools' JVM lives as long as we do");
    }
}

/// A tool at work in the shared JVM.
#[derive(Debug)]
pub struct ToolRun {
    id: u32,
    command: String,
    answer: Receiver<Answer>,
}

impl ToolRun {
    /// Stops it as Ctrl-C would: its shutdown hooks run.
    pub fn stop(&self) {
        RUNNER.send(&[self.id.to_be_bytes(), KIND_STOP.to_be_bytes()].concat());
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When the limit is over.
    pub fn wait(self, limit: Duration) -> Output {
        match self.answer.recv_timeout(limit) {
            Ok(Answer { status, stdout, stderr }) => {
                Output { command: self.command, status, stdout, stderr }
            }
            Err(RecvTimeoutError::Timeout) => {
                panic!("waited {limit:?} in vain for the end of: {}", self.command)
            }
            Err(RecvTimeoutError::Disconnected) => panic!("the tools' JVM is gone"),
        }
    }
}

pub(crate) fn start(name: &str, class: &str, arguments: &[String], stdin: &[u8]) -> ToolRun {
    let id = RUNNER.next_id.fetch_add(1, Ordering::Relaxed);
    let (sender, answer) = channel();
    RUNNER.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
    let mut frame = [id.to_be_bytes(), KIND_RUN.to_be_bytes()].concat();
    put_bytes(&mut frame, class.as_bytes());
    put_length(&mut frame, arguments.len());
    for argument in arguments {
        put_bytes(&mut frame, argument.as_bytes());
    }
    put_bytes(&mut frame, stdin);
    RUNNER.send(&frame);
    ToolRun { id, command: format!("{name} {}", arguments.join(" ")), answer }
}

fn put_length(frame: &mut Vec<u8>, length: usize) {
    let length = u32::try_from(length).expect("a command line is short");
    frame.extend_from_slice(&length.to_be_bytes());
}

fn put_bytes(frame: &mut Vec<u8>, bytes: &[u8]) {
    put_length(frame, bytes.len());
    frame.extend_from_slice(bytes);
}

fn read_answer(from: &mut ChildStdout) -> io::Result<(u32, Answer)> {
    let id = u32::from_be_bytes(read_four(from)?);
    let status = i32::from_be_bytes(read_four(from)?);
    Ok((id, Answer { status, stdout: read_text(from)?, stderr: read_text(from)? }))
}

fn read_four(from: &mut ChildStdout) -> io::Result<[u8; 4]> {
    let mut four = [0; 4];
    from.read_exact(&mut four)?;
    Ok(four)
}

fn read_text(from: &mut ChildStdout) -> io::Result<String> {
    let length = u32::from_be_bytes(read_four(from)?);
    let mut text = Vec::new();
    from.take(u64::from(length)).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use crate::tool::tool;

    #[test]
    fn tools_run_side_by_side_with_streams_and_status_of_their_own() {
        let first = tool("kafka-storage random-uuid").start();
        let second = tool("kafka-storage no-such-command").start();
        let third = tool("kafka-storage random-uuid").run().ok();
        assert!(second.wait(super::Duration::from_secs(30)).failure().contains("no-such-command"));
        let first = first.wait(super::Duration::from_secs(30)).ok();
        assert_eq!((first.trim().len(), third.trim().len()), (22, 22));
        assert_ne!(first, third);
    }
}
