//! A broker's process with its log: watched, ended, and shown when a test fails.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::guard::Guard;
use crate::program::signal;
use crate::wait::until;

const STOP_LIMIT: Duration = Duration::from_secs(60);
const LOG_LINES_SHOWN: usize = 60;

/// A broker's process. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    #[expect(dead_code, reason = "held for its drop")]
    guard: Guard,
}

impl Process {
    pub(crate) fn spawn(mut command: Command, log: PathBuf, home: &Path) -> Self {
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

    pub(crate) fn assert_alive(&mut self) {
        if let Some(status) = self.ended() {
            panic!("the broker ended with {status}");
        }
    }

    /// Asks it to shut down (SIGTERM) and waits for its end.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        signal(self.child.id(), "TERM");
        until("the broker's end", STOP_LIMIT, || self.ended())
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is our child")
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
