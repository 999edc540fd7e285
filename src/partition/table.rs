//! Which partitions this broker holds, by topic id.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use klamm_protocol::ids::PartitionIndex;
use klamm_protocol::{ErrorCode, Uuid};

use super::handle::Partition;

/// Why a partition that the cluster knows cannot be used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LookupError {
    /// Another broker leads it, or none.
    NotLeader,
    /// Its log directory is offline.
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

type Partitions = HashMap<(Uuid, PartitionIndex), Arc<Partition>>;

/// The partitions of this broker. Locked for as long as a look-up or a change of one entry takes.
#[derive(Debug, Default)]
pub(crate) struct PartitionTable {
    partitions: RwLock<Partitions>,
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
        self.read().get(&(topic_id, index)).map(Arc::clone)
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
        let partition = self.get(topic_id, index).ok_or(LookupError::NotLeader)?;
        if partition.is_offline() { Err(LookupError::Offline) } else { Ok(partition) }
    }

    pub(crate) fn insert(&self, partition: Arc<Partition>) {
        self.write().insert((partition.topic_id(), partition.index()), partition);
    }

    pub(crate) fn remove(&self, topic_id: Uuid, index: PartitionIndex) -> Option<Arc<Partition>> {
        self.write().remove(&(topic_id, index))
    }

    /// All partitions, in no particular order.
    pub(crate) fn all(&self) -> Vec<Arc<Partition>> {
        self.read().values().map(Arc::clone).collect()
    }
}
