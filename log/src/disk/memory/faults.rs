//! The failures of a [`super::MemoryDisk`]: of one chosen operation, of all from one on that need a lacking resource,
//! or of those that exceed the capacity.

use super::Operation;
use std::io;

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// EIO. A failed sync marks dirty pages as clean, so that a second one would "succeed".
    Io,
    /// ENOSPC, after half of a write.
    NoSpace,
    /// EMFILE.
    OutOfFileDescriptors,
    /// The power goes: this and every later operation fails until [`super::MemoryDisk::crash`].
    PowerCut,
}

impl Fault {
    pub(super) fn error(self) -> io::Error {
        match self {
            Self::Io | Self::PowerCut => io::Error::from(rustix::io::Errno::IO),
            Self::NoSpace => io::Error::from(rustix::io::Errno::NOSPC),
            Self::OutOfFileDescriptors => io::Error::from(rustix::io::Errno::MFILE),
        }
    }

    /// Whether an operation needs the lacking resource. Some file systems also need space for removal and truncation.
    fn hits(self, operation: Operation) -> bool {
        match self {
            Self::Io | Self::PowerCut => true,
            Self::NoSpace => matches!(
                operation,
                Operation::Create
                    | Operation::Write
                    | Operation::Resize
                    | Operation::Rename
                    | Operation::Remove
                    | Operation::CreateDir
            ),
            Self::OutOfFileDescriptors => matches!(
                operation,
                Operation::Open | Operation::Create | Operation::List | Operation::Lock
            ),
        }
    }
}

/// The configured failures.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) mutations: u64,
    pub(super) fail_at: Option<(u64, Fault)>,
    pub(super) fail_next: Option<(Operation, Fault)>,
    pub(super) lack_from: Option<(u64, Fault)>,
    /// Bytes of all files and names together.
    pub(super) capacity: Option<u64>,
    /// The maximum number of open handles, and the current one.
    pub(super) descriptors: Option<usize>,
    pub(super) open: usize,
    pub(super) power_is_off: bool,
}

impl Faults {
    /// Whether an operation fails, and how. `used` bytes are in use, and the operation needs `growth` more.
    pub(super) fn next(
        &mut self,
        operation: Operation,
        growth: u64,
        used: impl Fn() -> u64,
    ) -> Option<Fault> {
        let number = self.mutations;
        let changes = !matches!(operation, Operation::Read | Operation::Stat | Operation::List);
        self.mutations += u64::from(changes);
        let lacking =
            self.lack_from.filter(|(from, fault)| number >= *from && fault.hits(operation));
        if self.power_is_off {
            Some(Fault::PowerCut)
        } else if changes && self.fail_at.is_some_and(|(at, _)| at == number) {
            self.fail_at.take().map(|(_, fault)| fault)
        } else if self.fail_next.is_some_and(|(kind, _)| kind == operation) {
            self.fail_next.take().map(|(_, fault)| fault)
        } else if lacking.is_some() {
            lacking.map(|(_, fault)| fault)
        } else if Fault::OutOfFileDescriptors.hits(operation)
            && self.descriptors.is_some_and(|limit| self.open >= limit)
        {
            Some(Fault::OutOfFileDescriptors)
        } else if growth > 0 && self.capacity.is_some_and(|capacity| used() + growth > capacity) {
            Some(Fault::NoSpace)
        } else {
            None
        }
    }
}
