//! The partitions that this broker holds, by topic id, and those that it should hold but cannot open.

use klamm_protocol::ids::TopicIdPartition;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytestring::ByteString;
use klamm_protocol::ids::PartitionIndex;
use klamm_protocol::{ErrorCode, Uuid};

use super::partition::Partition;

/// Why a partition that the metadata has cannot be used on this broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LookupError {
    /// Another broker leads it, or none.
    NotLeader,
    /// Its log directory is offline, or its log cannot be opened for now.
    Offline,
}

impl LookupError {
    pub(crate) fn code(self) -> ErrorCode {
        match self {
            Self::NotLeader => ErrorCode::NotLeaderOrFollower,
            Self::Offline => ErrorCode::KafkaStorageError,
        }
    }
}

type Partitions = HashMap<TopicIdPartition, Arc<Partition>>;

/// A partition whose log could not be opened, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unopened {
    pub(crate) topic: ByteString,
    pub(crate) reason: String,
    /// A retry may succeed; if false, the log directory has to come back first.
    pub(crate) is_worth_a_try: bool,
}

/// The partitions of this broker. The locks are held for one look-up or one change of an entry.
#[derive(Debug, Default)]
pub(crate) struct PartitionTable {
    partitions: RwLock<Partitions>,
    /// The replicas that the metadata has on this broker and that are not in `partitions`.
    unopened: Mutex<BTreeMap<TopicIdPartition, Unopened>>,
}

impl PartitionTable {
    fn read(&self) -> RwLockReadGuard<'_, Partitions> {
        self.partitions.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Partitions> {
        self.partitions.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The partition, if this broker holds a replica of it.
    pub(crate) fn get(&self, topic_id: Uuid, index: PartitionIndex) -> Option<Arc<Partition>> {
        self.read().get(&TopicIdPartition::new(topic_id, index)).map(Arc::clone)
    }

    /// The partition, if this broker leads it and can reach its log.
    pub(crate) fn leader(
        &self,
        topic_id: Uuid,
        index: PartitionIndex,
    ) -> Result<Arc<Partition>, LookupError> {
        let partition = self.replica(topic_id, index)?;
        if !partition.is_leader() {
            return Err(LookupError::NotLeader);
        }
        Ok(partition)
    }

    /// The partition, if this broker has a replica of it, leading or not, and can reach its log.
    pub(crate) fn replica(
        &self,
        topic_id: Uuid,
        index: PartitionIndex,
    ) -> Result<Arc<Partition>, LookupError> {
        let partition = self.get(topic_id, index).ok_or_else(|| {
            match self.unopened().contains_key(&TopicIdPartition::new(topic_id, index)) {
                true => LookupError::Offline,
                false => LookupError::NotLeader,
            }
        })?;
        if partition.is_offline() { Err(LookupError::Offline) } else { Ok(partition) }
    }

    pub(crate) fn insert(&self, partition: Arc<Partition>) {
        let key = partition.key();
        self.write().insert(key, partition);
        self.unopened().remove(&key);
    }

    /// Notes that a partition cannot be opened; returns whether the partition or the reason is new.
    pub(crate) fn insert_unopened(&self, key: TopicIdPartition, why: Unopened) -> bool {
        let known = self.unopened().insert(key, why.clone());
        known.as_ref() != Some(&why)
    }

    /// Removes a partition that need not be opened any more.
    pub(crate) fn remove_unopened(&self, key: TopicIdPartition) -> Option<Unopened> {
        self.unopened().remove(&key)
    }

    /// Whether any unopened partition is worth a retry.
    pub(crate) fn is_any_worth_a_try(&self) -> bool {
        self.unopened().values().any(|unopened| unopened.is_worth_a_try)
    }

    /// Why the partition could not be opened, if so.
    pub(crate) fn unopened_at(&self, key: TopicIdPartition) -> Option<Unopened> {
        self.unopened().get(&key).cloned()
    }

    /// The partitions that could not be opened.
    pub(crate) fn all_unopened(&self) -> Vec<TopicIdPartition> {
        self.unopened().keys().copied().collect()
    }

    fn unopened(&self) -> MutexGuard<'_, BTreeMap<TopicIdPartition, Unopened>> {
        self.unopened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn remove(&self, topic_id: Uuid, index: PartitionIndex) -> Option<Arc<Partition>> {
        self.write().remove(&TopicIdPartition::new(topic_id, index))
    }

    /// All partitions, in no particular order.
    pub(crate) fn all(&self) -> Vec<Arc<Partition>> {
        self.read().values().map(Arc::clone).collect()
    }
}
