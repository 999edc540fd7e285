//! `sendfile`, and the file systems that refuse it: some FUSE file systems, GPFS, old kernels, some sandboxes.
//!
//! Invariant: after a file system has refused `sendfile` once, it is not tried there again, so that the refusal costs
//! one system call and one log line in the life of the process.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tracing::warn;

/// The errors of a file system that does not support `sendfile`. All other errors concern this file or this connection
/// only.
const REFUSALS: [Errno; 5] =
    [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP, Errno::PERM, Errno::SPIPE];

/// The file systems that have refused, by device.
static REFUSING: Refusing =
    Refusing { any: AtomicBool::new(false), devices: Mutex::new(BTreeSet::new()) };

struct Refusing {
    /// Avoids the lock and the look-up of the device while no file system has refused.
    any: AtomicBool,
    devices: Mutex<BTreeSet<u64>>,
}

impl Refusing {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether to try `sendfile` for this file.
pub(super) fn is_possible(file: BorrowedFd<'_>) -> bool {
    if !REFUSING.any.load(Ordering::Relaxed) {
        return true;
    }
    device_of(file).is_none_or(|device| !REFUSING.lock().contains(&device))
}

/// Sends a range of a file. `None`: the file system does not support it, and nothing was sent.
pub(super) fn send(
    stream: &TcpStream,
    file: BorrowedFd<'_>,
    position: u64,
    len: usize,
) -> io::Result<Option<usize>> {
    let mut offset = position;
    let sent = stream.try_io(Interest::WRITABLE, || {
        Ok(rustix::fs::sendfile(stream, file, Some(&mut offset), len)?)
    });
    match sent {
        Err(error) if is_refusal(&error) => {
            remember(file, &error);
            Ok(None)
        }
        other => other.map(Some),
    }
}

fn is_refusal(error: &io::Error) -> bool {
    Errno::from_io_error(error).is_some_and(|errno| REFUSALS.contains(&errno))
}

fn remember(file: BorrowedFd<'_>, error: &io::Error) {
    let Some(device) = device_of(file) else { return };
    if REFUSING.lock().insert(device) {
        let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let path = path.map_or_else(|_| "a log".to_owned(), |path| path.display().to_string());
        warn!(
            "the file system of {path} refuses sendfile ({error}): what is fetched from it is copied through memory, \
             which works and costs CPU"
        );
    }
    REFUSING.any.store(true, Ordering::Relaxed);
}

fn device_of(file: BorrowedFd<'_>) -> Option<u64> {
    rustix::fs::fstat(file).ok().map(|stat| stat.st_dev)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_concerns_the_file_system_is_a_refusal() {
        for errno in REFUSALS {
            assert!(is_refusal(&errno.into()), "{errno}");
        }
        for errno in [Errno::IO, Errno::PIPE, Errno::CONNRESET, Errno::AGAIN, Errno::BADF] {
            assert!(!is_refusal(&errno.into()), "{errno}");
        }
    }
}
