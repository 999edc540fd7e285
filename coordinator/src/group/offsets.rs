//! Committed offsets by group, topic and partition, and those that an open transaction will commit.
//!
//! Changes only by replaying records and transaction markers. A pending offset takes effect at its
//! transaction's commit marker, unless a plain commit with a higher log offset came meanwhile.
//! (Kafka: `OffsetMetadataManager.replay`, `replayEndTransactionMarker`)

mod commit;
mod delete;
pub(crate) mod expiry;
mod fetch;
pub(crate) mod topic_deletion;

use std::collections::{BTreeMap, BTreeSet};

use bytestring::ByteString;
use klamm_protocol::Uuid;
use klamm_protocol::ids::{LeaderEpoch, Offset, ProducerId, none_if_minus_one};
use klamm_protocol::messages::offset_commit_key::OffsetCommitKey;
use klamm_protocol::messages::offset_commit_value::OffsetCommitValue;

use super::detach::detach;

/// A committed offset, from its record in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommittedOffset {
    /// The log offset of the record: a later record wins, in whichever order markers come.
    pub(crate) record_offset: Offset,
    pub(crate) offset: Offset,
    /// None if the client did not know it.
    pub(crate) leader_epoch: Option<LeaderEpoch>,
    pub(crate) metadata: ByteString,
    pub(crate) commit_timestamp_ms: i64,
    /// Set by OffsetCommit requests up to version 4 that brought a retention time of their own.
    pub(crate) expire_timestamp_ms: Option<i64>,
    /// Zero in records from before KIP-848's topic ids.
    pub(crate) topic_id: Uuid,
}

impl CommittedOffset {
    fn from_record(record_offset: Offset, value: &OffsetCommitValue) -> Self {
        Self {
            record_offset,
            offset: value.offset,
            leader_epoch: none_if_minus_one(value.leader_epoch),
            metadata: detach(&value.metadata),
            commit_timestamp_ms: value.commit_timestamp,
            expire_timestamp_ms: none_if_minus_one(value.expire_timestamp),
            topic_id: value.topic_id,
        }
    }
}

/// The partitions of a group's topics.
pub(crate) type ByTopic<V> = BTreeMap<ByteString, BTreeMap<i32, V>>;

/// A value for each partition of each group, without empty levels.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ByPartition<V>(BTreeMap<ByteString, ByTopic<V>>);

impl<V> Default for ByPartition<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<V> ByPartition<V> {
    fn get(&self, group: &str, topic: &str, partition: i32) -> Option<&V> {
        self.0.get(group)?.get(topic)?.get(&partition)
    }

    fn partitions_mut(&mut self, group: &ByteString, topic: &ByteString) -> &mut BTreeMap<i32, V> {
        if !self.0.contains_key(group) {
            self.0.insert(detach(group), BTreeMap::new());
        }
        let topics = self.0.get_mut(group).expect("the group was inserted above");
        if !topics.contains_key(topic) {
            topics.insert(detach(topic), BTreeMap::new());
        }
        topics.get_mut(topic).expect("the topic was inserted above")
    }

    fn remove(&mut self, group: &str, topic: &str, partition: i32) -> Option<V> {
        let topics = self.0.get_mut(group)?;
        let partitions = topics.get_mut(topic)?;
        let removed = partitions.remove(&partition);
        if partitions.is_empty() {
            topics.remove(topic);
        }
        if topics.is_empty() {
            self.0.remove(group);
        }
        removed
    }
}

/// All offsets of a shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Offsets {
    committed: ByPartition<CommittedOffset>,
    pending: BTreeMap<ProducerId, ByPartition<CommittedOffset>>,
    /// The transactions with a pending offset for a partition.
    open_transactions: ByPartition<BTreeSet<ProducerId>>,
}

impl Offsets {
    pub(crate) fn committed(
        &self,
        group: &str,
        topic: &str,
        partition: i32,
    ) -> Option<&CommittedOffset> {
        self.committed.get(group, topic, partition)
    }

    /// The offsets of one group, by topic.
    pub(crate) fn of_group(&self, group: &str) -> Option<&ByTopic<CommittedOffset>> {
        self.committed.0.get(group)
    }

    /// Whether an open transaction has an offset for this partition.
    pub(crate) fn is_pending(&self, group: &str, topic: &str, partition: i32) -> bool {
        self.open_transactions.get(group, topic, partition).is_some()
    }

    /// The partitions of a group with a pending offset.
    pub(crate) fn pending_of_group(&self, group: &str) -> Option<&ByTopic<BTreeSet<ProducerId>>> {
        self.open_transactions.0.get(group)
    }

    /// The groups with a committed or a pending offset.
    pub(crate) fn group_ids(&self) -> BTreeSet<&ByteString> {
        self.committed.0.keys().chain(self.open_transactions.0.keys()).collect()
    }

    /// Whether a group has a committed or a pending offset of a topic.
    pub(crate) fn has_topic(&self, group: &str, topic: &str) -> bool {
        self.of_group(group).is_some_and(|topics| topics.contains_key(topic))
            || self.pending_of_group(group).is_some_and(|topics| topics.contains_key(topic))
    }

    /// The partitions of a topic with a committed or a pending offset that has its id or none.
    pub(crate) fn partitions_of(&self, group: &str, topic: &str, topic_id: Uuid) -> BTreeSet<i32> {
        let in_store = |store: &ByPartition<CommittedOffset>| -> Vec<i32> {
            let partitions = store.0.get(group).and_then(|topics| topics.get(topic));
            let matching = partitions
                .into_iter()
                .flatten()
                .filter(|(_, offset)| offset.topic_id.is_zero() || offset.topic_id == topic_id);
            matching.map(|(partition, _)| *partition).collect()
        };
        let pending = self.pending.values().flat_map(in_store);
        in_store(&self.committed).into_iter().chain(pending).collect()
    }

    /// Applies a record at `record_offset`; `producer_id` has written it in a transaction.
    pub(crate) fn replay(
        &mut self,
        record_offset: Offset,
        producer_id: Option<ProducerId>,
        key: &OffsetCommitKey,
        value: Option<&OffsetCommitValue>,
    ) {
        match (value, producer_id) {
            (None, _) => self.replay_tombstone(key),
            (Some(value), None) => self.replay_commit(record_offset, key, value),
            (Some(value), Some(producer_id)) => {
                self.replay_pending(record_offset, producer_id, key, value);
            }
        }
    }

    fn replay_commit(
        &mut self,
        record_offset: Offset,
        key: &OffsetCommitKey,
        value: &OffsetCommitValue,
    ) {
        let committed = CommittedOffset::from_record(record_offset, value);
        self.committed.partitions_mut(&key.group, &key.topic).insert(key.partition, committed);
    }

    fn replay_pending(
        &mut self,
        record_offset: Offset,
        producer_id: ProducerId,
        key: &OffsetCommitKey,
        value: &OffsetCommitValue,
    ) {
        let pending = CommittedOffset::from_record(record_offset, value);
        let of_producer = self.pending.entry(producer_id).or_default();
        of_producer.partitions_mut(&key.group, &key.topic).insert(key.partition, pending);
        let open = self.open_transactions.partitions_mut(&key.group, &key.topic);
        open.entry(key.partition).or_default().insert(producer_id);
    }

    /// Removes the committed offset and every pending one: a later commit marker commits none.
    fn replay_tombstone(&mut self, key: &OffsetCommitKey) {
        self.committed.remove(&key.group, &key.topic, key.partition);
        let open = self.open_transactions.remove(&key.group, &key.topic, key.partition);
        for producer_id in open.unwrap_or_default() {
            if let Some(pending) = self.pending.get_mut(&producer_id) {
                pending.remove(&key.group, &key.topic, key.partition);
            }
        }
    }

    pub(crate) fn replay_txn_marker(&mut self, producer_id: ProducerId, commit: bool) {
        let Some(pending) = self.pending.remove(&producer_id) else { return };
        for (group, topics) in pending.0 {
            for (topic, partitions) in topics {
                for (partition, offset) in partitions {
                    self.close(producer_id, &group, &topic, partition);
                    if commit {
                        self.commit_pending(&group, &topic, partition, offset);
                    }
                }
            }
        }
    }

    fn close(&mut self, producer_id: ProducerId, group: &str, topic: &str, partition: i32) {
        let Some(topics) = self.open_transactions.0.get_mut(group) else { return };
        let Some(open) = topics.get_mut(topic).and_then(|open| open.get_mut(&partition)) else {
            return;
        };
        open.remove(&producer_id);
        if open.is_empty() {
            self.open_transactions.remove(group, topic, partition);
        }
    }

    fn commit_pending(
        &mut self,
        group: &ByteString,
        topic: &ByteString,
        partition: i32,
        pending: CommittedOffset,
    ) {
        let partitions = self.committed.partitions_mut(group, topic);
        let is_newest = partitions
            .get(&partition)
            .is_none_or(|committed| pending.record_offset > committed.record_offset);
        if is_newest {
            partitions.insert(partition, pending);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> OffsetCommitKey {
        OffsetCommitKey { group: "g".into(), topic: "t".into(), partition: 0 }
    }

    fn value(offset: Offset) -> OffsetCommitValue {
        OffsetCommitValue { offset, ..Default::default() }
    }

    fn committed(offsets: &Offsets) -> Option<Offset> {
        offsets.committed("g", "t", 0).map(|committed| committed.offset)
    }

    #[test]
    fn a_transactional_offset_is_pending_until_its_commit_marker() {
        let mut offsets = Offsets::default();
        offsets.replay_pending(10, 77, &key(), &value(5));
        assert_eq!(committed(&offsets), None);
        assert!(offsets.is_pending("g", "t", 0));
        offsets.replay_txn_marker(77, true);
        assert_eq!(committed(&offsets), Some(5));
        assert!(!offsets.is_pending("g", "t", 0));
        assert_eq!(offsets.pending_of_group("g"), None);
    }

    #[test]
    fn an_aborted_transaction_leaves_no_trace() {
        let mut offsets = Offsets::default();
        offsets.replay_pending(10, 77, &key(), &value(5));
        offsets.replay_txn_marker(77, false);
        assert_eq!(offsets, Offsets::default());
    }

    #[test]
    fn a_partition_stays_pending_until_its_last_transaction_ends() {
        let mut offsets = Offsets::default();
        offsets.replay_pending(10, 77, &key(), &value(5));
        offsets.replay_pending(11, 78, &key(), &value(6));
        offsets.replay_txn_marker(77, false);
        assert!(offsets.is_pending("g", "t", 0));
        offsets.replay_txn_marker(78, true);
        assert!(!offsets.is_pending("g", "t", 0));
        assert_eq!(committed(&offsets), Some(6));
    }

    #[test]
    fn a_plain_commit_that_came_after_the_transactional_one_wins() {
        let mut offsets = Offsets::default();
        offsets.replay_pending(10, 77, &key(), &value(5));
        offsets.replay_commit(11, &key(), &value(9));
        offsets.replay_txn_marker(77, true);
        assert_eq!(committed(&offsets), Some(9));
    }

    #[test]
    fn a_tombstone_also_erases_what_is_pending() {
        let mut offsets = Offsets::default();
        offsets.replay_commit(9, &key(), &value(4));
        offsets.replay_pending(10, 77, &key(), &value(5));
        offsets.replay_tombstone(&key());
        offsets.replay_txn_marker(77, true);
        assert_eq!(offsets, Offsets::default());
    }

    #[test]
    fn a_marker_without_pending_offsets_changes_nothing() {
        let mut offsets = Offsets::default();
        offsets.replay_commit(9, &key(), &value(4));
        let before = offsets.clone();
        offsets.replay_txn_marker(77, true);
        assert_eq!(offsets, before);
    }
}
