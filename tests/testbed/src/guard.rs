//! A watcher that ends a process and removes its directory, or clears up otherwise, when the test process is gone without having
//! done so.
//!
//! Tests end in many ways (a panic while panicking, Ctrl-C, SIGKILL, statics that are never dropped), and brokers must not outlive them.
//! The watcher is a shell that blocks on a pipe whose other end only this process holds.

use std::path::Path;
use std::process::{Child, Command, Stdio};

const SCRIPT: &str =
    "trap '' HUP INT TERM; read -r _; kill -9 \"$1\" 2>/dev/null; [ -z \"$2\" ] || rm -rf \"$2\"";

#[derive(Debug)]
pub(crate) struct Guard {
    shell: Child,
}

impl Guard {
    /// Watches over `pid`. `directory` is removed too, unless it is to be kept.
    pub(crate) fn over(pid: u32, directory: Option<&Path>) -> Self {
        let kept = std::env::var_os("KLAMM_TEST_KEEP").is_some();
        let directory = directory.filter(|_| !kept).unwrap_or_else(|| Path::new(""));
        Self::shell(&[SCRIPT, "guard", &pid.to_string(), &directory.display().to_string()])
    }

    /// Runs a shell command.
    pub(crate) fn afterwards(command: &str) -> Self {
        Self::shell(&[&format!("trap '' HUP INT TERM; read -r _; {command}")])
    }

    fn shell(script: &[&str]) -> Self {
        let shell = Command::new("sh")
            .arg("-c")
            .args(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("there is a shell");
        Self { shell }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Killed before its pipe closes: the guarded process has ended, and its id may belong to another by now.
        self.shell.kill().expect("the guard is our child");
        self.shell.wait().expect("the guard is our child");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("60").spawn().unwrap()
    }

    #[test]
    fn a_closed_pipe_ends_the_guarded_process_and_its_directory() {
        let directory = crate::Directory::new("guard");
        let mut sleeper = sleeper();
        let mut guard = Guard::over(sleeper.id(), Some(directory.path()));
        drop(guard.shell.stdin.take());
        assert!(!sleeper.wait().unwrap().success());
        guard.shell.wait().unwrap();
        assert!(!directory.path().exists());
        std::fs::create_dir(directory.path()).unwrap();
    }

    #[test]
    fn a_dropped_guard_does_nothing() {
        let mut sleeper = sleeper();
        drop(Guard::over(sleeper.id(), None));
        assert_eq!(sleeper.try_wait().unwrap(), None);
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
    }
}
