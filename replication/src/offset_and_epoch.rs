//! A position in a replicated log that can be compared between replicas.

use klamm_protocol::ids::{LeaderEpoch, Offset};

/// An exclusive end offset, and the leader epoch of the record before it.
///
/// The order is by epoch first: of two logs the one that ends in the later epoch has every committed record, even if it
/// is shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OffsetAndEpoch {
    pub epoch: LeaderEpoch,
    pub offset: Offset,
}

impl OffsetAndEpoch {
    /// The end of an empty log.
    pub const START: Self = Self { epoch: 0, offset: 0 };

    pub const fn new(offset: Offset, epoch: LeaderEpoch) -> Self {
        Self { epoch, offset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_epoch_outranks_a_longer_log() {
        assert!(OffsetAndEpoch::new(3, 2) > OffsetAndEpoch::new(100, 1));
        assert!(OffsetAndEpoch::new(4, 2) > OffsetAndEpoch::new(3, 2));
    }
}
