//! File descriptors: connections leave some of them free for the log.
//!
//! Log segments, snapshots and checkpoints need descriptors at moments that cannot wait, so accepting pauses before the
//! last ones are used.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that connections leave free; a quarter of the limit if that is less.
const KEPT_FOR_FILES: u64 = 64;

/// Raises the soft limit on open files to the hard limit, as the JVM does. Returns the new limit; `None` is no limit.
pub(crate) fn raise_limit() -> io::Result<Option<u64>> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return Ok(limit.current);
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    Ok(limit.maximum)
}

/// The limit on open files; `None` is no limit.
pub(crate) fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// How many log files may stay open when idle, at most `wanted`: half of the limit is left for connections and for
/// files that are opened briefly.
pub(crate) fn for_files(wanted: usize) -> usize {
    let Some(limit) = getrlimit(Resource::Nofile).current else { return wanted };
    wanted.min(usize::try_from(limit / 2).unwrap_or(wanted))
}

/// Whether a new connection would take one of the last descriptors. `any` is any open descriptor.
pub(crate) fn are_scarce(any: impl AsFd) -> bool {
    let Some(limit) = getrlimit(Resource::Nofile).current else { return false };
    // A duplicate gets the lowest free descriptor, so its number is a lower bound of the used ones.
    match fcntl_dupfd_cloexec(any, 0) {
        Ok(copy) => {
            let taken = u64::try_from(copy.as_raw_fd()).expect("descriptors are not negative");
            taken + KEPT_FOR_FILES.min(limit / 4) >= limit
        }
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_not_scarce_where_most_are_free() {
        assert!(!are_scarce(io::stdin()));
    }

    #[test]
    fn raising_the_limit_leaves_nothing_to_raise() {
        let raised = raise_limit().unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current, raised);
        assert_eq!(raise_limit().unwrap(), raised);
    }
}
