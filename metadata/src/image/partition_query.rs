//! The partitions in Metadata and DescribeTopicPartitions: their state for clients of one listener, and pages of them
//! in a fixed order.
//!
//! Kafka's KRaftMetadataCache. The handlers replace errors that an old version does not have.

use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, PartitionIndex};

use super::ClusterImage;
use super::partition::Partition;
use super::topics::Topic;

/// One partition for clients of one listener.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionView<'a> {
    /// The partition's index.
    pub index: PartitionIndex,
    /// The partition as registered.
    pub partition: &'a Partition,
    /// The leader, unless there is none that can be reached on this listener.
    pub leader: Option<BrokerId>,
    /// `LeaderNotAvailable` without a leader, `ListenerNotFound` if the leader lacks the listener, else `None`.
    pub error: ErrorCode,
    /// Replicas that are fenced, unknown, lack the listener or have lost their directory.
    pub offline_replicas: Vec<BrokerId>,
}

/// The start of a page of partitions (DescribeTopicPartitions, KIP-966).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionCursor {
    /// The first topic of the page.
    pub topic: ByteString,
    /// Its first partition.
    pub partition: PartitionIndex,
}

/// A page of partitions.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionPage<'a> {
    /// The requested topics, with those of their partitions that fit; none for an unknown topic.
    pub topics: Vec<(ByteString, Option<TopicPage<'a>>)>,
    /// The start of the next page, if there is one.
    pub next: Option<PartitionCursor>,
}

/// The part of a topic that is on a page.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicPage<'a> {
    /// The topic.
    pub topic: &'a Topic,
    /// Its partitions on this page.
    pub partitions: Vec<PartitionView<'a>>,
}

impl ClusterImage {
    /// A partition for clients of `listener`.
    pub fn view<'a>(
        &self,
        index: PartitionIndex,
        partition: &'a Partition,
        listener: &str,
    ) -> PartitionView<'a> {
        let leader = partition.leader.and_then(|id| self.brokers.get(id));
        let (leader, error) = match leader {
            None => (None, ErrorCode::LeaderNotAvailable),
            Some(broker) if !broker.listeners.contains_key(listener) => {
                (None, ErrorCode::ListenerNotFound)
            }
            Some(broker) => (Some(broker.id), ErrorCode::None),
        };
        let online = |id: BrokerId| {
            let directory = partition.directory(id);
            self.brokers.is_reachable(id, listener)
                && directory.is_some_and(|dir| self.brokers.has_online_dir(id, dir))
        };
        let offline_replicas =
            partition.replicas.iter().copied().filter(|id| !online(*id)).collect();
        PartitionView { index, partition, leader, error, offline_replicas }
    }

    /// All partitions of a topic for clients of `listener`, by index.
    pub fn views<'a>(
        &'a self,
        topic: &'a Topic,
        listener: &'a str,
    ) -> impl Iterator<Item = PartitionView<'a>> {
        topic.partitions().map(move |(index, partition)| self.view(index, partition, listener))
    }

    /// At most `limit` partitions of the named topics, in the given order, from `first_partition` of the first topic
    /// on.
    ///
    /// The page ends between topics only when a further topic is named: then the cursor points to
    /// its partition 0.
    pub fn page<'a>(
        &'a self,
        topics: impl IntoIterator<Item = ByteString>,
        first_partition: PartitionIndex,
        limit: usize,
        listener: &'a str,
    ) -> PartitionPage<'a> {
        let mut page = PartitionPage { topics: Vec::new(), next: None };
        let (mut left, mut first) = (limit, first_partition);
        for name in topics {
            if left == 0 {
                page.next = Some(PartitionCursor { topic: name, partition: 0 });
                return page;
            }
            let Some(topic) = self.topics.by_name(&name) else {
                page.topics.push((name, None));
                continue;
            };
            let mut rest = topic
                .partitions_from(first)
                .map(|(index, partition)| self.view(index, partition, listener));
            let partitions: Vec<_> = rest.by_ref().take(left).collect();
            left -= partitions.len();
            let next = rest.next().map(|view| view.index);
            page.topics.push((name.clone(), Some(TopicPage { topic, partitions })));
            if let Some(partition) = next {
                page.next = Some(PartitionCursor { topic: name, partition });
                return page;
            }
            first = 0;
        }
        page
    }
}
