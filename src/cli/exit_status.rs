//! The exit status of the process.

use std::process::ExitCode;

/// The exit codes of `klamm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// 0: done, or stopped by SIGTERM or SIGINT after a clean shutdown.
    Ok,
    /// 1: something failed while the process was running.
    Runtime,
    /// 2: wrong arguments or a wrong configuration. Trying again does not help.
    Usage,
    /// 3: a log directory cannot be used: locked, foreign, unreadable, or of another node or
    /// cluster.
    DataDirectory,
    /// 4: a listener's address cannot be bound.
    Bind,
    /// 5: the quorum did not come to an agreement in time.
    QuorumTimeout,
    /// 6: the cluster does not take this broker.
    Refused,
}

impl ExitStatus {
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Runtime => 1,
            Self::Usage => 2,
            Self::DataDirectory => 3,
            Self::Bind => 4,
            Self::QuorumTimeout => 5,
            Self::Refused => 6,
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}
