//! OffsetFetch, for one group. (Kafka: `OffsetMetadataManager.fetchOffsets`, `fetchAllOffsets`)

use klamm_protocol::ids::or_minus_one;
use klamm_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use klamm_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use klamm_protocol::{ErrorCode, Uuid};

use crate::group::offsets::CommittedOffset;
use crate::group::response::Response;
use crate::group::shard::GroupShard;
use crate::runtime::{Effects, RequestToken};

impl GroupShard {
    /// Looks up the committed offsets of the requested partitions, or of all (`topics` null).
    ///
    /// With topic ids (version 10) the handler has set the names, answers unknown ids itself and, for a request of all
    /// topics, sets the ids. With `require_stable` a partition with an open transaction gets UNSTABLE_OFFSET_COMMIT.
    /// The answer waits until all that it shows is committed. A group-level error has no topics; for version 1 the
    /// handler repeats it in each partition.
    pub fn on_offset_fetch(
        &self,
        token: RequestToken,
        group: &OffsetFetchRequestGroup,
        require_stable: bool,
        effects: &mut Effects<Self>,
    ) {
        let topics = match &group.topics {
            Some(topics) => topics
                .iter()
                .map(|topic| self.fetch_topic(&group.group_id, topic, require_stable))
                .collect(),
            None => self.fetch_all(&group.group_id, require_stable),
        };
        let group_id = group.group_id.clone();
        let response = OffsetFetchResponseGroup { group_id, topics, ..Default::default() };
        effects.reply_to_read(token, Response::OffsetFetch(response));
    }

    fn fetch_topic(
        &self,
        group_id: &str,
        topic: &OffsetFetchRequestTopics,
        require_stable: bool,
    ) -> OffsetFetchResponseTopics {
        let fetch = |partition: &i32| {
            let committed = self
                .offsets
                .committed(group_id, &topic.name, *partition)
                .filter(|committed| is_same_topic(committed.topic_id, topic.topic_id));
            let is_unstable =
                require_stable && self.offsets.is_pending(group_id, &topic.name, *partition);
            partition_answer(*partition, committed, is_unstable)
        };
        OffsetFetchResponseTopics {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partitions: topic.partition_indexes.iter().map(fetch).collect(),
        }
    }

    fn fetch_all(&self, group_id: &str, require_stable: bool) -> Vec<OffsetFetchResponseTopics> {
        let topics = self.offsets.of_group(group_id).into_iter().flatten();
        topics
            .map(|(topic, partitions)| {
                let fetch = |(partition, committed): (&i32, &CommittedOffset)| {
                    let is_unstable =
                        require_stable && self.offsets.is_pending(group_id, topic, *partition);
                    partition_answer(*partition, Some(committed), is_unstable)
                };
                OffsetFetchResponseTopics {
                    name: topic.clone(),
                    topic_id: Uuid::ZERO,
                    partitions: partitions.iter().map(fetch).collect(),
                }
            })
            .collect()
    }
}

/// Whether a committed offset is of the requested topic, not of a deleted one of the same name. Old records have no id.
fn is_same_topic(committed: Uuid, asked: Uuid) -> bool {
    committed.is_zero() || asked.is_zero() || committed == asked
}

fn partition_answer(
    partition_index: i32,
    committed: Option<&CommittedOffset>,
    is_unstable: bool,
) -> OffsetFetchResponsePartitions {
    let error = if is_unstable { ErrorCode::UnstableOffsetCommit } else { ErrorCode::None };
    let shown = committed.filter(|_| !is_unstable);
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: or_minus_one(shown.map(|found| found.offset)),
        committed_leader_epoch: or_minus_one(shown.and_then(|found| found.leader_epoch)),
        metadata: Some(shown.map(|found| found.metadata.clone()).unwrap_or_default()),
        error_code: error.code(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::config::GroupConfig;
    use crate::group::harness::{GROUP, Harness, TOPIC, committing, fetch_one, topic_id};
    use crate::group::record::GroupRecord;
    use crate::runtime::ShardLoader;
    use klamm_protocol::messages::offset_commit_key::OffsetCommitKey;
    use klamm_protocol::messages::offset_commit_value::OffsetCommitValue;

    fn answer(harness: &Harness, token: RequestToken) -> OffsetFetchResponseGroup {
        let Response::OffsetFetch(response) = harness.answer(token) else { panic!() };
        response
    }

    fn all() -> OffsetFetchRequestGroup {
        OffsetFetchRequestGroup { group_id: GROUP.into(), topics: None, ..Default::default() }
    }

    #[test]
    fn what_was_never_committed_is_minus_one_and_no_error() {
        let mut harness = Harness::new();
        let unknown_group = harness.fetch(&fetch_one(), false);
        harness.commit_offset(&committing(5));
        let mut request = fetch_one();
        request.topics.as_mut().unwrap()[0].partition_indexes = vec![1];
        let unknown_partition = harness.fetch(&request, false);
        for token in [unknown_group, unknown_partition] {
            let partition = &answer(&harness, token).topics[0].partitions[0];
            assert_eq!((partition.committed_offset, partition.committed_leader_epoch), (-1, -1));
            assert_eq!((partition.metadata.as_deref(), partition.error_code), (Some(""), 0));
        }
        let nothing = OffsetFetchRequestGroup { group_id: "other".into(), ..all() };
        let nothing = harness.fetch(&nothing, false);
        assert!(answer(&harness, nothing).topics.is_empty());
    }

    #[test]
    fn all_offsets_of_a_group_can_be_asked_for() {
        let mut harness = Harness::new();
        harness.commit_offset(&committing(5));
        let token = harness.fetch(&all(), false);
        let response = answer(&harness, token);
        assert_eq!((response.topics.len(), &*response.topics[0].name), (1, TOPIC));
        let partition = &response.topics[0].partitions[0];
        assert_eq!((partition.partition_index, partition.committed_offset), (0, 5));
        assert_eq!(partition.metadata.as_deref(), Some("meta"));
    }

    #[test]
    fn an_offset_of_a_topic_that_is_gone_is_not_one_of_its_successor() {
        let mut harness = Harness::new();
        harness.commit_offset(&committing(5));
        let mut request = fetch_one();
        for (asked, expected) in [(Uuid::from_bytes([8; 16]), -1), (Uuid::ZERO, 5), (topic_id(), 5)]
        {
            request.topics.as_mut().unwrap()[0].topic_id = asked;
            let token = harness.fetch(&request, false);
            let topic = &answer(&harness, token).topics[0];
            assert_eq!((topic.partitions[0].committed_offset, topic.topic_id), (expected, asked));
        }
    }

    #[test]
    fn a_read_waits_for_the_commits_that_it_has_seen() {
        let mut harness = Harness::new();
        harness.holds_commits = true;
        harness.commit_request(&committing(5));
        let token = harness.fetch(&fetch_one(), false);
        assert!(harness.is_waiting(token));
        harness.commit();
        assert_eq!(answer(&harness, token).topics[0].partitions[0].committed_offset, 5);
    }

    #[test]
    fn while_nothing_is_committed_reads_are_sent_to_look_for_another_coordinator() {
        let mut harness = Harness::new();
        harness.holds_commits = true;
        harness.commit_request(&committing(5));
        let early = harness.fetch(&fetch_one(), false);
        harness.advance(5_000);
        let late = harness.fetch(&fetch_one(), false);
        for token in [early, late] {
            let response = answer(&harness, token);
            assert_eq!(response.error_code, ErrorCode::NotCoordinator.code());
            assert_eq!((&*response.group_id, response.topics.len()), (GROUP, 0));
        }
        harness.commit();
        assert_eq!(harness.committed_offset(), 5);
    }

    #[test]
    fn a_new_coordinator_shows_offsets_when_all_it_loaded_is_committed() {
        let mut harness = Harness::new();
        harness.commit_offset(&committing(5));
        harness.load();
        let token = harness.fetch(&fetch_one(), false);
        assert!(harness.is_waiting(token));
        harness.commit();
        assert_eq!(answer(&harness, token).topics[0].partitions[0].committed_offset, 5);
    }

    #[test]
    fn an_open_transaction_makes_its_partitions_unstable_for_who_wants_to_know() {
        let mut harness = Harness::new();
        let mut loader = ShardLoader::new(GroupConfig::default());
        let key = OffsetCommitKey { group: GROUP.into(), topic: TOPIC.into(), partition: 0 };
        let value = Some(OffsetCommitValue { offset: 9, ..Default::default() });
        let record = GroupRecord::OffsetCommit { key, value }.encode().unwrap();
        loader.replay(0, Some(77), record.key, record.value).unwrap();
        harness.load_from(loader);
        let unstable = harness.fetch(&fetch_one(), true);
        let partition = &answer(&harness, unstable).topics[0].partitions[0];
        assert_eq!(partition.error_code, ErrorCode::UnstableOffsetCommit.code());
        assert_eq!(partition.committed_offset, -1);
        assert_eq!(harness.committed_offset(), -1);
        // In a request for all topics, a partition without a committed offset is not listed, so it is not unstable
        // either.
        let absent = harness.fetch(&all(), true);
        assert!(answer(&harness, absent).topics.is_empty());
        harness.commit_offset(&committing(5));
        let unstable = harness.fetch(&all(), true);
        let partition = &answer(&harness, unstable).topics[0].partitions[0];
        assert_eq!(partition.error_code, ErrorCode::UnstableOffsetCommit.code());
        assert_eq!(harness.committed_offset(), 5);
    }
}
