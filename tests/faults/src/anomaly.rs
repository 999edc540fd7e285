//! What may be wrong with a history.

use std::fmt;

use crate::history::RecordId;

/// Something that a cluster which keeps its promises never lets its clients see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anomaly {
    /// Acknowledged, and not stored.
    Lost(RecordId),
    /// Stored more than once, though its producer is idempotent.
    Duplicated {
        /// The record.
        id: RecordId,
        /// Where it is.
        offsets: Vec<i64>,
    },
    /// Stored behind a record that its producer sent later.
    Reordered {
        /// The record.
        id: RecordId,
        /// Where it is.
        offset: i64,
        /// The later record before it.
        after: RecordId,
    },
    /// Stored or polled, and never sent to this partition.
    Phantom {
        /// Partition.
        partition: i32,
        /// Where it is.
        offset: i64,
        /// What it says.
        value: String,
    },
    /// Acknowledged or polled at an offset where the last read found something else.
    Replaced {
        /// The record seen earlier.
        id: RecordId,
        /// Where.
        offset: i64,
        /// What is there now, if anything.
        now: Option<String>,
    },
    /// A producer's later record was acknowledged at a smaller offset.
    AcknowledgedBackwards {
        /// The later record.
        id: RecordId,
        /// Where it was acknowledged.
        offset: i64,
        /// The offset of a record sent before it.
        after: i64,
    },
    /// A member jumped over stored records while its assignment stood.
    Skipped {
        /// Partition.
        partition: i32,
        /// The offset polled last.
        from: i64,
        /// The next offset that it got.
        to: i64,
    },
    /// A member went back, or got a record twice, while its assignment stood.
    NonMonotonic {
        /// Partition.
        partition: i32,
        /// The offset polled last.
        from: i64,
        /// The next offset that it got.
        to: i64,
    },
    /// Stored, and given to no member of the group.
    Undelivered(RecordId),
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(id) => write!(f, "lost: {id} was acknowledged and is not stored"),
            Self::Duplicated { id, offsets } => write!(f, "duplicated: {id} is at {offsets:?}"),
            Self::Reordered { id, offset, after } => {
                write!(f, "reordered: {id} is at {offset}, behind {after}")
            }
            Self::Phantom { partition, offset, value } => {
                write!(f, "phantom: nobody sent '{value}', at {offset} of partition {partition}")
            }
            Self::Replaced { id, offset, now } => {
                write!(f, "replaced: {id} was seen at {offset}, where now is {now:?}")
            }
            Self::AcknowledgedBackwards { id, offset, after } => {
                write!(f, "backwards: {id} acknowledged at {offset}, an earlier one at {after}")
            }
            Self::Skipped { partition, from, to } => {
                write!(f, "skipped: partition {partition}, from {from} to {to}")
            }
            Self::NonMonotonic { partition, from, to } => {
                write!(f, "non-monotonic: partition {partition}, from {from} to {to}")
            }
            Self::Undelivered(id) => write!(f, "undelivered: the group never got {id}"),
        }
    }
}
