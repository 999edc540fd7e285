//! What producers and consumers of one topic saw, as data. Each partition has one producer, which numbers its records from 0.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A record: the partition it was sent to, and its number there. Its text, `partition:number`, is the record's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordId {
    /// Partition.
    pub partition: i32,
    /// How many records were sent to the partition before it.
    pub number: u64,
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.number)
    }
}

/// A value that no producer of a history sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotARecordId;

impl FromStr for RecordId {
    type Err = NotARecordId;

    fn from_str(text: &str) -> Result<Self, NotARecordId> {
        let (partition, number) = text.split_once(':').ok_or(NotARecordId)?;
        let id = Self {
            partition: partition.parse().map_err(|_| NotARecordId)?,
            number: number.parse().map_err(|_| NotARecordId)?,
        };
        // `0:007` and `+1:2` parse, but nobody sends them.
        (id.to_string() == text).then_some(id).ok_or(NotARecordId)
    }
}

/// An acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// The record.
    pub id: RecordId,
    /// Where it is stored. A client that hears of a record only as a duplicate does not learn it.
    pub offset: Option<i64>,
    /// When, since the history's beginning.
    pub at: Duration,
}

/// A record as the last complete read of its partition found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Where.
    pub offset: i64,
    /// Its value.
    pub value: String,
}

/// A record that a member of the consumer group got while the cluster was failing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Polled {
    /// The member, and how often its partitions had been assigned: within a session nothing may be skipped or repeated.
    pub session: (usize, usize),
    /// Partition.
    pub partition: i32,
    /// Where.
    pub offset: i64,
    /// Its value.
    pub value: String,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// How many records were handed to the producer of each partition.
    pub sent: BTreeMap<i32, u64>,
    /// In the order of arrival.
    pub acknowledged: Vec<Acknowledged>,
    /// Records that the producer gave up: they may be stored or not.
    pub failed: Vec<RecordId>,
    /// Every partition from its first record to its end, read when all was over.
    pub stored: BTreeMap<i32, Vec<Stored>>,
    /// In the order of arrival.
    pub polled: Vec<Polled>,
    /// Records that are stored twice because their producer sent them twice, the second time under a new epoch.
    pub sent_twice: BTreeSet<RecordId>,
}

impl History {
    /// Whether a producer sent this value to this partition.
    pub(crate) fn was_sent(&self, partition: i32, value: &str) -> Option<RecordId> {
        let id: RecordId = value.parse().ok()?;
        let sent = self.sent.get(&partition).copied().unwrap_or(0);
        (id.partition == partition && id.number < sent).then_some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_id_is_its_text_and_nothing_else_is_one() {
        let id = RecordId { partition: 3, number: 41 };
        assert_eq!((id.to_string().as_str(), "3:41".parse()), ("3:41", Ok(id)));
        for text in ["", "3", "3:", ":4", "3:-1", "3:041", "+3:41", "3:41 ", "three:41"] {
            assert_eq!(text.parse::<RecordId>(), Err(NotARecordId), "{text}");
        }
    }
}
