//! The signals of the process, handled as by a JVM: TERM, INT and HUP stop the broker cleanly, QUIT dumps the state.
//!
//! Invariant: a signal that is ignored when the process starts stays ignored, as in a JVM: `nohup` and shells that
//! start programs in the background rely on it. QUIT is always handled.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::warn;

use crate::server::state_dump::StateDump;

const STOPPING: [(&str, SignalKind); 3] = [
    ("SIGTERM", SignalKind::terminate()),
    ("SIGINT", SignalKind::interrupt()),
    ("SIGHUP", SignalKind::hangup()),
];

/// The signals that stop the broker.
pub(crate) struct StopSignals {
    signals: Vec<(&'static str, Signal)>,
}

impl StopSignals {
    /// Handles the signals from now on.
    pub(crate) fn new() -> Self {
        let ignored = ignored_signals();
        let mut signals = Vec::new();
        for (name, kind) in STOPPING {
            if is_in(ignored, kind) {
                continue;
            }
            match signal(kind) {
                Ok(taken) => signals.push((name, taken)),
                Err(failure) => warn!("{name} cannot be handled: {failure}"),
            }
        }
        Self { signals }
    }

    /// Waits for the next signal and returns its name. Waits for ever if all are ignored.
    pub(crate) async fn next(&mut self) -> &'static str {
        std::future::poll_fn(|context| {
            for (name, signal) in &mut self.signals {
                if signal.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*name);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

/// Dumps the state at every QUIT, on a thread and a runtime of its own, so that it also works when the node hangs.
pub(crate) fn on_quit(dump: StateDump) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let main = tokio::runtime::Handle::current();
    // Registered before the thread starts: an earlier QUIT would kill the process.
    let mut quit = {
        let _entered = runtime.enter();
        signal(SignalKind::quit())?
    };
    std::thread::Builder::new().name("state-dump".to_owned()).spawn(move || {
        runtime.block_on(async {
            while quit.recv().await.is_some() {
                dump.write(&main).await;
            }
        });
    })?;
    Ok(())
}

/// The mask of the signals that this process ignores; empty if the system does not show it.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_in(&status).unwrap_or_default()
}

fn ignored_in(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

/// Signal n is bit n - 1.
fn is_in(mask: u64, kind: SignalKind) -> bool {
    let bit = u32::try_from(kind.as_raw_value() - 1).expect("signals are counted from 1");
    mask >> bit & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_mask() {
        let mask = ignored_in("Name:\tklamm\nSigIgn:\t0000000000001001\nSigCgt:\t2\n").unwrap();
        assert!(is_in(mask, SignalKind::hangup()));
        assert!(!is_in(mask, SignalKind::interrupt()));
        assert!(!is_in(mask, SignalKind::terminate()));
        assert_eq!(ignored_in("Name:\tklamm\n"), None);
    }

    /// Rust ignores SIGPIPE in every program, so that a closed pipe is an error and does not kill the process.
    #[test]
    fn a_closed_pipe_ends_nothing() {
        assert!(is_in(ignored_signals(), SignalKind::pipe()));
    }
}
