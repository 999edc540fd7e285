//! Which topics and directories the metadata of this node have ever known, and what is missed by them.
//!
//! Evidence rule: a partition's directory is set aside only if its topic was once known to the metadata of this node
//! and the cluster has no replica of it here any more. A metadata log that never knew the topic proves nothing: it may
//! have been begun anew, or belong to another life of the node.

use std::collections::BTreeSet;

use klamm_metadata::image::ClusterImage;
use klamm_metadata::known_replica::KnownReplica;
use klamm_protocol::Uuid;
use klamm_protocol::metadata_record::MetadataRecord;

use super::{LogManager, lock};

/// The most topics that are remembered. What is forgotten is left alone.
const MAX_TOPICS: usize = 1_000_000;

/// The topics of which the metadata of this node have ever spoken, and the directories that they expect.
#[derive(Debug, Default)]
pub(super) struct Topics {
    at_start: BTreeSet<Uuid>,
    since: BTreeSet<Uuid>,
    /// The directories of this broker's last registration, in a life before this.
    registered: BTreeSet<Uuid>,
}

impl Topics {
    /// Whether the local metadata log spoke of a topic when the node started.
    pub(super) fn knew_at_start(&self, topic_id: Uuid) -> bool {
        self.at_start.contains(&topic_id)
    }
}

/// Collects the topics of which a metadata log speaks.
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
    /// What the local metadata log says when the node starts.
    pub(super) fn expect(&self, seen: TopicsSeen, image: &ClusterImage) {
        let mut topics = lock(&self.topics);
        topics.at_start = seen.0;
        let registered = image.brokers.get(self.owner.broker_id);
        topics.registered.extend(registered.iter().flat_map(|broker| &broker.directories));
    }

    /// Topics that the metadata know now.
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

    /// The directories of which is known what lies in them.
    fn found(&self) -> impl Iterator<Item = Uuid> {
        self.in_use().filter(|(_, one)| one.is_found()).map(|(_, one)| one.id)
    }

    /// Whether the log of a replica, which is in none of the directories, must be in one that is not here.
    pub(super) fn is_missed(&self, replica: &KnownReplica) -> bool {
        // If all directories are here, what was never reported was never opened. A path of log.dirs that is not in use may be
        // that of a directory which the last registration did not have either.
        let may_be_elsewhere = || {
            let topics = lock(&self.topics);
            let lacks = topics.registered.iter().any(|id| self.found().all(|found| found != *id));
            (lacks || self.has_idle()) && topics.at_start.contains(&replica.topic_id)
        };
        replica.is_missed(|id| self.found().any(|found| found == id), may_be_elsewhere)
    }

    /// Whether a replica that is in none of the directories must not begin anew here: that would take its records, which
    /// may be the only ones, out of the cluster.
    ///
    /// One that nobody counts on is fetched anew, unless a path of `log.dirs` waits for its disk: then it may be back soon.
    pub(crate) fn is_out_of_reach(&self, replica: &KnownReplica) -> bool {
        let is_complete = self.found().count() == self.slots.len();
        self.is_missed(replica) && !(replica.can_be_fetched() && is_complete)
    }
}
