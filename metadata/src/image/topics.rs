//! Topics, by name and by id, with their partitions.
//!
//! Invariants: the two maps hold the same topics; `by_collision_name` holds exactly the names with
//! a dot or an underscore, under the name that they share.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytestring::ByteString;
use klamm_protocol::Uuid;
use klamm_protocol::ids::{BrokerId, PartitionIndex};
use klamm_protocol::messages::clear_elr_record::ClearElrRecord;
use klamm_protocol::messages::partition_change_record::PartitionChangeRecord;
use klamm_protocol::messages::partition_record::PartitionRecord;
use klamm_protocol::messages::remove_topic_record::RemoveTopicRecord;
use klamm_protocol::messages::topic_record::TopicRecord;

use super::PersistentMap;
use super::partition::Partition;
use super::replay_error::ReplayError;
use crate::topic_name;

/// A topic and its partitions.
#[derive(Debug, Clone, PartialEq)]
pub struct Topic {
    /// The topic's name.
    pub name: ByteString,
    /// The topic's id. A topic that is created later with the same name has another one.
    pub id: Uuid,
    partitions: PersistentMap<PartitionIndex, Partition>,
}

impl Topic {
    /// A partition by its index.
    pub fn partition(&self, index: PartitionIndex) -> Option<&Partition> {
        self.partitions.get(&index)
    }

    /// All partitions by index.
    pub fn partitions(&self) -> impl Iterator<Item = (PartitionIndex, &Partition)> {
        self.partitions.iter().map(|(index, partition)| (*index, partition))
    }

    /// The partitions from an index on.
    pub fn partitions_from(
        &self,
        first: PartitionIndex,
    ) -> impl Iterator<Item = (PartitionIndex, &Partition)> {
        self.partitions.range(first..).map(|(index, partition)| (*index, partition))
    }

    /// How many partitions the topic has.
    pub fn partition_count(&self) -> usize {
        self.partitions.size()
    }
}

/// How a topic differs between two images.
#[derive(Debug)]
pub(crate) enum TopicDifference<'a> {
    /// It is only in the first.
    Deleted(&'a Arc<Topic>),
    /// It is only in the second.
    Created(&'a Arc<Topic>),
    /// It is in both, perhaps with other partitions.
    Changed(&'a Arc<Topic>, &'a Arc<Topic>),
}

/// All topics.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TopicsImage {
    by_name: PersistentMap<ByteString, Uuid>,
    by_id: PersistentMap<Uuid, Arc<Topic>>,
    by_collision_name: PersistentMap<ByteString, BTreeSet<ByteString>>,
}

impl TopicsImage {
    /// A topic by its name.
    pub fn by_name(&self, name: &str) -> Option<&Topic> {
        self.by_id(*self.by_name.get(name)?)
    }

    /// A topic by its id.
    pub fn by_id(&self, id: Uuid) -> Option<&Topic> {
        self.by_id.get(&id).map(Arc::as_ref)
    }

    /// A topic by its id, shared.
    pub fn shared_by_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        self.by_id.get(&id).map(Arc::clone)
    }

    /// All topics in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Topic> {
        self.by_name.values().filter_map(|id| self.by_id(*id))
    }

    /// The topics whose name is not below `first`, in the order of their names.
    pub fn from_name<'a>(&'a self, first: &str) -> impl Iterator<Item = &'a Topic> + use<'a> {
        let first = ByteString::from(first);
        self.by_name.range(first..).filter_map(|(_, id)| self.by_id(*id))
    }

    /// How many topics there are.
    pub fn len(&self) -> usize {
        self.by_id.size()
    }

    /// Whether there is no topic.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// An existing topic whose name differs from `name` at most in dots and underscores.
    pub fn colliding_with(&self, name: &str) -> Option<&ByteString> {
        if !topic_name::has_collision_chars(name) {
            return None;
        }
        self.by_collision_name.get(&*topic_name::unify_collision_chars(name))?.first()
    }

    /// Every partition that has the broker as a replica, with its topic.
    pub fn replicated_on(
        &self,
        broker: BrokerId,
    ) -> impl Iterator<Item = (&Topic, PartitionIndex, &Partition)> {
        self.all_partitions().filter(move |(_, _, partition)| partition.replicas.contains(&broker))
    }

    /// Every partition with its topic, by topic name and index.
    pub fn all_partitions(&self) -> impl Iterator<Item = (&Topic, PartitionIndex, &Partition)> {
        self.iter().flat_map(|topic| {
            topic.partitions().map(move |(index, partition)| (topic, index, partition))
        })
    }

    /// Topics that differ between two images. Cheap if no topic changed.
    pub(crate) fn differences<'a>(&'a self, after: &'a Self) -> Vec<TopicDifference<'a>> {
        if self.by_id.ptr_eq(&after.by_id) {
            return Vec::new();
        }
        let gone = self
            .by_id
            .iter()
            .filter(|(id, _)| !after.by_id.contains_key(*id))
            .map(|(_, topic)| TopicDifference::Deleted(topic));
        let new_or_changed =
            after.by_id.iter().filter_map(|(id, topic)| match self.by_id.get(id) {
                None => Some(TopicDifference::Created(topic)),
                Some(before) if Arc::ptr_eq(before, topic) => None,
                Some(before) => Some(TopicDifference::Changed(before, topic)),
            });
        gone.chain(new_or_changed).collect()
    }

    pub(super) fn replay_topic(&mut self, record: &TopicRecord) -> Result<(), ReplayError> {
        if let Some(existing) = self.by_name(&record.name) {
            return Err(ReplayError::DuplicateTopic {
                name: record.name.clone(),
                existing: existing.id,
                replayed: record.topic_id,
            });
        }
        if let Some(existing) = self.by_id(record.topic_id) {
            let name = existing.name.clone();
            return Err(ReplayError::DuplicateTopicId { id: record.topic_id, name });
        }
        let topic = Topic {
            name: record.name.clone(),
            id: record.topic_id,
            partitions: PersistentMap::default(),
        };
        self.add_collision_name(&topic.name);
        self.by_name.insert_mut(topic.name.clone(), topic.id);
        self.by_id.insert_mut(topic.id, Arc::new(topic));
        Ok(())
    }

    pub(super) fn replay_partition(&mut self, record: &PartitionRecord) -> Result<(), ReplayError> {
        let topic = self.topic(record.topic_id)?;
        let partition = Partition::from_record(&topic.name, record)?;
        self.put_partition(record.topic_id, record.partition_id, partition);
        Ok(())
    }

    pub(super) fn replay_change(
        &mut self,
        record: &PartitionChangeRecord,
    ) -> Result<(), ReplayError> {
        let topic = self.topic(record.topic_id)?;
        let current =
            topic.partition(record.partition_id).ok_or_else(|| ReplayError::UnknownPartition {
                topic: topic.name.clone(),
                partition: record.partition_id,
            })?;
        let changed = current.merge(&topic.name, record)?;
        self.put_partition(record.topic_id, record.partition_id, changed);
        Ok(())
    }

    /// Removes the topic and returns its name, whose configs the caller must remove too.
    pub(super) fn replay_remove(
        &mut self,
        record: &RemoveTopicRecord,
    ) -> Result<ByteString, ReplayError> {
        let name = self.topic(record.topic_id)?.name.clone();
        self.by_id.remove_mut(&record.topic_id);
        self.by_name.remove_mut(&name);
        self.remove_collision_name(&name);
        Ok(name)
    }

    pub(super) fn replay_clear_elr(&mut self, record: &ClearElrRecord) -> Result<(), ReplayError> {
        if record.topic_name.is_empty() {
            let ids: Vec<Uuid> = self.by_id.keys().copied().collect();
            ids.into_iter().for_each(|id| self.clear_elr(id));
            return Ok(());
        }
        let unknown = || ReplayError::UnknownTopic { name: record.topic_name.clone() };
        let id = self.by_name(&record.topic_name).ok_or_else(unknown)?.id;
        self.clear_elr(id);
        Ok(())
    }

    fn clear_elr(&mut self, id: Uuid) {
        let Some(topic) = self.by_id(id) else { return };
        let cleared: Vec<_> = topic
            .partitions()
            .filter(|(_, p)| !p.elr.is_empty() || !p.last_known_elr.is_empty())
            .map(|(index, partition)| {
                let mut partition = partition.clone();
                partition.elr.clear();
                partition.last_known_elr.clear();
                partition.partition_epoch = partition.partition_epoch.wrapping_add(1);
                (index, partition)
            })
            .collect();
        for (index, partition) in cleared {
            self.put_partition(id, index, partition);
        }
    }

    fn put_partition(&mut self, id: Uuid, index: PartitionIndex, partition: Partition) {
        let topic = self.by_id.get_mut(&id).expect("the caller found the topic");
        Arc::make_mut(topic).partitions.insert_mut(index, partition);
    }

    fn topic(&self, id: Uuid) -> Result<&Topic, ReplayError> {
        self.by_id(id).ok_or(ReplayError::UnknownTopicId { id })
    }

    fn add_collision_name(&mut self, name: &ByteString) {
        if topic_name::has_collision_chars(name) {
            let shared = ByteString::from(topic_name::unify_collision_chars(name).into_owned());
            let mut names = self.by_collision_name.get(&shared).cloned().unwrap_or_default();
            names.insert(name.clone());
            self.by_collision_name.insert_mut(shared, names);
        }
    }

    fn remove_collision_name(&mut self, name: &ByteString) {
        let shared = topic_name::unify_collision_chars(name);
        let Some(names) = self.by_collision_name.get(&*shared) else { return };
        let mut names = names.clone();
        names.remove(name);
        if names.is_empty() {
            self.by_collision_name.remove_mut(&*shared);
        } else {
            self.by_collision_name.insert_mut(ByteString::from(shared.into_owned()), names);
        }
    }
}
