//! The effect of a broker event on the broker's partitions (Kafka's
//! ReplicationControlManager.generateLeaderAndIsrUpdates).

use klamm_protocol::Uuid;
use klamm_protocol::ids::{BrokerId, PartitionIndex};
use klamm_protocol::metadata_record::MetadataRecord;

use super::Controller;
use super::partition_change::{ChangeContext, Election, PartitionChange};
use crate::directory_id;
use crate::image::partition::Partition;
use crate::image::topics::Topic;

/// An event of a broker. The image does not have it yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BrokerEvent<'a> {
    /// It is fenced, in controlled shutdown, or registers again after a clean shutdown.
    Leaves(BrokerId),
    /// It is unregistered: partitions that have it only in the ELR are updated too.
    Unregistered(BrokerId),
    /// It may lead again.
    Unfenced {
        /// The broker.
        broker: BrokerId,
        /// Its failed log directories, which the image may not have yet either.
        failed: &'a [Uuid],
    },
    /// It registers again after an unclean shutdown: it may have lost committed records.
    UncleanShutdown(BrokerId),
    /// Some of its log directories have returned.
    DirectoriesReturn {
        /// The broker.
        broker: BrokerId,
        /// All its online directories.
        online: &'a [Uuid],
    },
}

impl BrokerEvent<'_> {
    fn broker(self) -> BrokerId {
        match self {
            Self::Leaves(id)
            | Self::Unregistered(id)
            | Self::Unfenced { broker: id, .. }
            | Self::UncleanShutdown(id)
            | Self::DirectoriesReturn { broker: id, .. } => id,
        }
    }

    fn concerns(self, partition: &Partition) -> bool {
        match self {
            Self::Leaves(id) => partition.isr.contains(&id),
            Self::Unregistered(id) | Self::UncleanShutdown(id) => {
                partition.isr.contains(&id) || partition.elr.contains(&id)
            }
            Self::Unfenced { .. } => !partition.has_leader(),
            Self::DirectoriesReturn { broker, .. } => {
                !partition.has_leader() && partition.replicas.contains(&broker)
            }
        }
    }

    fn shrinks_isr(self) -> bool {
        !matches!(self, Self::Unfenced { .. } | Self::DirectoriesReturn { .. })
    }
}

impl Controller {
    /// Elects leaders and shrinks ISRs for the event.
    pub(super) fn update_partitions(
        &self,
        event: BrokerEvent<'_>,
        records: &mut Vec<MetadataRecord>,
    ) {
        let partitions = self.image().topics.all_partitions();
        let concerned = partitions.filter(|(_, _, partition)| event.concerns(partition));
        records.extend(concerned.filter_map(|(topic, index, partition)| {
            self.updated_partition(event, topic, index, partition)
        }));
    }

    pub(super) fn updated_partition(
        &self,
        event: BrokerEvent<'_>,
        topic: &Topic,
        index: PartitionIndex,
        partition: &Partition,
    ) -> Option<MetadataRecord> {
        let brokers = &self.image().brokers;
        let may_lead = |id: BrokerId, directory: Uuid| match event {
            BrokerEvent::Unfenced { broker, failed } if id == broker => {
                brokers.has_online_dir(id, directory) && !failed.contains(&directory)
            }
            BrokerEvent::DirectoriesReturn { broker, online } if id == broker => {
                brokers.is_active(id) && directory_id::is_online(directory, online)
            }
            _ => {
                !(event.shrinks_isr() && id == event.broker())
                    && brokers.is_active(id)
                    && brokers.has_online_dir(id, directory)
            }
        };
        self.changed_partition(topic, index, partition, &may_lead, |change| {
            if self.is_unclean_election_enabled(&topic.name) {
                change.election = Election::Unclean;
            }
            if event.shrinks_isr() {
                change.isr.retain(|id| *id != event.broker());
            }
            if let BrokerEvent::UncleanShutdown(broker) = event {
                change.unclean_shutdown_replicas.push(broker);
            }
        })
    }

    /// Builds a change of a partition. `may_lead` returns whether a broker could lead it from a directory.
    pub(super) fn changed_partition(
        &self,
        topic: &Topic,
        index: PartitionIndex,
        partition: &Partition,
        may_lead: &dyn Fn(BrokerId, Uuid) -> bool,
        wish: impl FnOnce(&mut PartitionChange<'_>),
    ) -> Option<MetadataRecord> {
        let image = self.image();
        let acceptable =
            |id: BrokerId| partition.directory(id).is_some_and(|dir| may_lead(id, dir));
        let context = ChangeContext {
            is_acceptable_leader: &acceptable,
            default_dir: &|id| image.brokers.default_dir(id),
            version: image.metadata_version(),
            min_isr: self.effective_min_isr(topic),
            elr_enabled: image.features.is_elr_enabled(),
        };
        let mut change = PartitionChange::new(partition, topic.id, index, context);
        wish(&mut change);
        change.build()
    }

    /// As [`Self::changed_partition`], with the image's active brokers as possible leaders.
    pub(super) fn changed_by_request(
        &self,
        topic: &Topic,
        index: PartitionIndex,
        partition: &Partition,
        wish: impl FnOnce(&mut PartitionChange<'_>),
    ) -> Option<MetadataRecord> {
        let brokers = &self.image().brokers;
        let may_lead = |id, dir| brokers.is_active(id) && brokers.has_online_dir(id, dir);
        self.changed_partition(topic, index, partition, &may_lead, wish)
    }
}
