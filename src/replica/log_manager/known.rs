//! The topics and directories that the metadata of this node has ever known, and which replicas are missing.
//!
//! Evidence rule: a partition's directory is set aside only if the metadata of this node once knew its topic and has no
//! replica of it on this broker any more. A metadata log that never knew the topic proves nothing: it may be a new one,
//! or of another cluster.

use std::collections::BTreeSet;

use klamm_metadata::image::ClusterImage;
use klamm_metadata::known_replica::KnownReplica;
use klamm_protocol::Uuid;
use klamm_protocol::metadata_record::MetadataRecord;

use super::{LogManager, lock};

/// The maximum number of topics that are remembered. Directories of others are left alone.
const MAX_TOPICS: usize = 1_000_000;

/// The topics that the metadata of this node has ever had, and the directories that it expects.
#[derive(Debug, Default)]
pub(super) struct Topics {
    at_start: BTreeSet<Uuid>,
    since: BTreeSet<Uuid>,
    /// The directories of this broker's last registration, by an earlier process.
    registered: BTreeSet<Uuid>,
}

impl Topics {
    /// Whether the local metadata log had the topic, or its deletion, when the node started.
    pub(super) fn knew_at_start(&self, topic_id: Uuid) -> bool {
        self.at_start.contains(&topic_id)
    }
}

/// Collects the topics in a metadata log, including deleted ones.
#[derive(Debug, Default)]
pub(crate) struct TopicsSeen(BTreeSet<Uuid>);

impl TopicsSeen {
    pub(crate) fn in_image(&mut self, image: &ClusterImage) {
        self.0.extend(image.topics.iter().map(|topic| topic.id));
    }

    pub(crate) fn in_record(&mut self, record: &MetadataRecord) {
        match record {
            MetadataRecord::Topic(topic) => drop(self.0.insert(topic.topic_id)),
            MetadataRecord::RemoveTopic(topic) => drop(self.0.insert(topic.topic_id)),
            _ => {}
        }
    }
}

impl LogManager {
    /// Stores what the local metadata log has when the node starts.
    pub(super) fn expect(&self, seen: TopicsSeen, image: &ClusterImage) {
        let mut topics = lock(&self.topics);
        topics.at_start = seen.0;
        let registered = image.brokers.get(self.owner.broker_id);
        topics.registered.extend(registered.iter().flat_map(|broker| &broker.directories));
    }

    /// Adds topics that the metadata has now.
    pub(crate) fn note_topics(&self, ids: impl Iterator<Item = Uuid>) {
        let mut topics = lock(&self.topics);
        for id in ids {
            if topics.since.len() < MAX_TOPICS {
                topics.since.insert(id);
            }
        }
    }

    pub(super) fn has_seen(&self, topic_id: Uuid) -> bool {
        let topics = lock(&self.topics);
        topics.since.contains(&topic_id) || topics.at_start.contains(&topic_id)
    }

    /// Whether one of the directories in use has this id.
    pub(super) fn has(&self, id: Uuid) -> bool {
        self.in_use().any(|(_, directory)| directory.id == id)
    }

    /// The directories whose partitions have been listed.
    fn found(&self) -> impl Iterator<Item = Uuid> {
        self.in_use().filter(|(_, one)| one.is_found()).map(|(_, one)| one.id)
    }

    /// Whether the log of a replica that is in no directory must be in one that is not mounted.
    pub(super) fn is_missed(&self, replica: &KnownReplica) -> bool {
        // If all directories are in use, a replica whose directory was never reported was never opened. A path of
        // log.dirs that is not in use may be that of a directory which the last registration did not have either.
        let may_be_elsewhere = || {
            let topics = lock(&self.topics);
            let lacks = topics.registered.iter().any(|id| self.found().all(|found| found != *id));
            (lacks || !are_all_found(self)) && topics.at_start.contains(&replica.topic_id)
        };
        replica.is_missed(|id| self.found().any(|found| found == id), may_be_elsewhere)
    }

    /// Whether a replica that is in no directory must not start with an empty log: the missing log may have the only
    /// copy of its records.
    ///
    /// A replica outside ISR and ELR is fetched from the leader instead, unless a path of `log.dirs` is not in use:
    /// then its disk may be back soon.
    pub(crate) fn is_out_of_reach(&self, replica: &KnownReplica) -> bool {
        self.is_missed(replica) && !(replica.can_be_fetched() && are_all_found(self))
    }
}

/// Whether every path of `log.dirs` is in use and its partitions have been listed. A directory that has just come back
/// may hold logs that nobody knows of yet.
pub(super) fn are_all_found(log_manager: &LogManager) -> bool {
    log_manager.found().count() == log_manager.slots.len()
}
