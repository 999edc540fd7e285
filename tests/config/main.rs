//! The `klamm` command as a user calls it: what it prints, how it ends, which files it writes.
//!
//! Every run gets an empty environment and a directory of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot prepare its ground fails")]

mod exit_status;
mod format;
mod show;

use std::path::Path;
use std::process::Command;

use klamm_testbed::{Directory, Output, Program};

/// Runs `klamm` in a directory, with nothing in its environment but these variables.
fn klamm(directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_klamm"));
    command.env_clear().envs(variables.iter().copied());
    Program::from(command).args(arguments).in_dir(directory).run()
}

/// Writes a properties file and returns its path.
fn properties(directory: &Directory, name: &str, lines: &[String]) -> String {
    let path = directory.path().join(name);
    std::fs::write(&path, lines.join("\n")).unwrap();
    path.to_str().unwrap().to_owned()
}
