//! Logs that are missing from a directory that is in use: a partition's directory was moved or removed by hand, or the
//! disk was restored without it.
//!
//! The evidence is an entry in the directory's offset checkpoints, or that the replica was missing while the directory
//! was away, or that the metadata has replicas in a directory without logs and checkpoints: every start writes
//! checkpoints. Such a replica must not start with an empty log while it is in the ISR or ELR: it could become leader,
//! and its followers would truncate their logs to nothing.

use klamm_protocol::ids::TopicPartition;
use std::path::PathBuf;

use klamm_metadata::image::ClusterImage;
use klamm_metadata::known_replica::KnownReplica;
use klamm_protocol::Uuid;
use klamm_protocol::ids::PartitionIndex;

use super::directory::Directory;
use super::found::Known;
use super::{LogManager, lock};

/// The maximum number of missing replicas that are remembered until their directories return.
const MAX_MISSED: usize = 1_000_000;

impl LogManager {
    /// The directory that a replica's log has vanished from, if the replica must not start with an empty log: it is in
    /// the ISR or ELR, or has no leader to fetch from.
    pub(crate) fn vanished_from(
        &self,
        TopicPartition { topic, partition: index }: &TopicPartition,
        replica: &KnownReplica,
    ) -> Option<PathBuf> {
        let is_known = || lock(&self.topics).knew_at_start(replica.topic_id);
        if replica.can_be_fetched() || self.place_of(topic, *index).is_some() || !is_known() {
            return None;
        }
        let has_lost_it = |directory: &Directory| {
            replica.may_lie_in(directory.id)
                && lock(&directory.checkpoints).has_vanished(topic, *index, replica.topic_id)
        };
        let place = self.in_use().find(|(_, directory)| has_lost_it(directory))?.0;
        Some(self.dir_of(&TopicPartition::new(topic.clone(), *index), place))
    }

    /// Notes the replicas that the local metadata log has in directories without logs and checkpoints as vanished.
    pub(super) fn find_emptied(&self, image: &ClusterImage) {
        for (_, directory) in self.in_use().filter(|(_, one)| one.is_found()) {
            let mut checkpoints = lock(&directory.checkpoints);
            if !checkpoints.is_directory_bare() {
                continue;
            }
            let broker_id = self.owner.broker_id;
            for (topic, index, partition) in image.topics.replicated_on(broker_id) {
                if partition.directory(broker_id) == Some(directory.id) {
                    checkpoints.set_vanished(topic.name.to_string(), index);
                }
            }
        }
    }

    /// Remembers a replica whose directory is not mounted, for the case that the directory comes back without its log.
    pub(crate) fn note_missed(
        &self,
        TopicPartition { topic, partition: index }: &TopicPartition,
        directory: Uuid,
    ) {
        let mut missed = lock(&self.missed);
        if missed.len() < MAX_MISSED {
            missed.insert((directory, topic.to_string(), *index));
        }
    }

    /// Notes replicas as vanished that were missing and are not in their directory now that it is back.
    pub(super) fn find_vanished(&self, directory: &Directory) {
        let mut missed = lock(&self.missed);
        let here = missed.extract_if(.., |(id, ..)| *id == directory.id);
        for (_, topic, index) in here {
            let is_here =
                lock(&self.places).contains_key(&TopicPartition::new(topic.as_str().into(), index));
            if !is_here {
                lock(&directory.checkpoints).set_vanished(topic, index);
            }
        }
    }

    /// Forgets vanished logs whose replica was removed from this broker, or is in another directory.
    pub(super) fn settle_vanished(&self, known: Known<'_>) {
        for (_, directory) in self.in_use().filter(|(_, one)| one.is_found()) {
            lock(&directory.checkpoints).retain_vanished(|topic, index| {
                known(topic, index).is_some() && self.place_of(&topic.into(), index).is_none()
            });
        }
    }

    /// Forgets a vanished log, because its replica starts with an empty log or was removed.
    pub(super) fn forget_vanished(&self, topic: &str, index: PartitionIndex) {
        for (_, directory) in self.in_use() {
            lock(&directory.checkpoints).retain_vanished(|name, at| name != topic || at != index);
        }
    }
}
