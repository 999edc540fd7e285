//! Offsets of topics that are deleted. (Kafka: `OffsetMetadataManager.onTopicsDeleted`)

use bytestring::ByteString;
use klamm_protocol::Uuid;

use super::expiry::Slice;
use crate::group::detach::detach;
use crate::group::shard::GroupShard;
use crate::runtime::Effects;

/// A deleted topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletedTopic {
    pub topic_id: Uuid,
    pub name: ByteString,
}

impl GroupShard {
    /// Deletes the offsets of these topics in groups of every type. Offsets with the id of another topic of the same
    /// name stay.
    ///
    /// Tombstones that do not fit into one batch follow with the next ticks.
    pub fn on_topics_deleted(&mut self, topics: &[DeletedTopic], effects: &mut Effects<Self>) {
        for topic in topics {
            let topic = DeletedTopic { topic_id: topic.topic_id, name: detach(&topic.name) };
            let offsets = &self.offsets;
            let groups = offsets.group_ids().into_iter();
            let affected = groups.filter(|group| offsets.has_topic(group, &topic.name));
            for group in affected {
                self.cleanup.topic_deletions.push_back((group.clone(), topic.clone()));
            }
        }
        self.clean_up(effects);
    }

    pub(crate) fn delete_offsets_of_deleted_topics(&mut self, slice: &mut Slice) {
        while !slice.is_full()
            && let Some((group, topic)) = self.cleanup.topic_deletions.pop_front()
        {
            let partitions = self.offsets.partitions_of(&group, &topic.name, topic.topic_id);
            for partition in &partitions {
                if slice.is_full() {
                    break;
                }
                slice.delete_offset(&group, &topic.name, *partition);
            }
            if slice.is_full() {
                // Offsets that are deleted already will not be found again.
                self.cleanup.topic_deletions.push_front((group, topic));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::harness::{GROUP, Harness, TOPIC, committing, topic_id};
    use crate::group::kind::{Group, GroupType};

    fn delete(harness: &mut Harness, topic_id: Uuid) {
        let topic = DeletedTopic { topic_id, name: TOPIC.into() };
        harness.call(|shard, effects| shard.on_topics_deleted(&[topic], effects));
    }

    #[test]
    fn offsets_of_a_deleted_topic_go_and_the_group_stays() {
        let mut harness = Harness::new();
        harness.commit_offset(&committing(5));
        delete(&mut harness, topic_id());
        assert_eq!(harness.committed_offset(), -1);
        assert_eq!(harness.state_name(), "Empty");
    }

    #[test]
    fn offsets_of_another_topic_with_that_name_stay() {
        let mut harness = Harness::new();
        harness.commit_offset(&committing(5));
        delete(&mut harness, Uuid::from_bytes([9; 16]));
        assert_eq!(harness.committed_offset(), 5);
    }

    #[test]
    fn offsets_without_a_topic_id_go_by_name() {
        let mut harness = Harness::new();
        let mut request = committing(5);
        request.topics[0].topic_id = Uuid::ZERO;
        harness.commit_offset(&request);
        delete(&mut harness, Uuid::from_bytes([9; 16]));
        assert_eq!(harness.committed_offset(), -1);
    }

    #[test]
    fn groups_of_other_types_lose_such_offsets_too() {
        let mut harness = Harness::new();
        harness.commit_offset(&committing(5));
        let not_run = Group::NotRun(GroupType::Consumer);
        harness.shard_mut().groups.insert(GROUP.into(), not_run);
        delete(&mut harness, topic_id());
        assert_eq!(harness.committed_offset(), -1);
    }
}
