//! What must hold at every step, one rule a file, and the committed metadata that rules are measured by.

mod acknowledged_records;
mod committed_metadata;
mod committed_offsets;
mod consumed_records;
mod dead_leader;
mod equal_state;
mod full_leaders;
mod group_generations;
mod high_watermark;
mod isr_members;
mod latest_offsets;
mod leader_contact;
mod log_directories;
mod log_matching;
mod one_leader;
mod producer_state;
mod stalls;
mod voters;

use crate::batch::{MetadataBatch, PARTITIONS, PartitionBatch, PartitionId};
use crate::log::Extent;
use crate::node::Node;
use crate::observation::{Life, Observation};
use crate::scenario::{CALL_TIMEOUT_MS, HEARTBEAT_MS, Scenario};
use klamm_metadata::directory_id;
use klamm_metadata::image::partition::Partition;
use klamm_metadata::loader::MetadataLoader;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};
use std::collections::BTreeMap;
use std::rc::Rc;

/// A controller that answers has done so within this.
const CONFIRMED_MS: i64 = HEARTBEAT_MS + CALL_TIMEOUT_MS;

/// The nodes as they are, for rules that look at disks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cluster<'w> {
    pub(crate) nodes: &'w BTreeMap<BrokerId, Node>,
    pub(crate) scenario: &'w Scenario,
    /// The node whose disk has been replaced and does not hold everything again.
    pub(crate) restoring: Option<BrokerId>,
}

impl Cluster<'_> {
    /// Whether a directory of a node has this batch, synced. One that is away or has failed will be back.
    fn has_durably(
        &self,
        id: BrokerId,
        partition: PartitionId,
        batch: &Rc<PartitionBatch>,
    ) -> bool {
        let logs = self.nodes.get(&id).into_iter().flat_map(|node| node.disk.logs.all(partition));
        let mut found = logs.filter_map(|disk| disk.log.find_synced(batch.base_offset()));
        found.any(|found| Rc::ptr_eq(found, batch))
    }

    /// Whether a node has the directory that the metadata mean. One that is gone holds nothing, whatever they say until
    /// its successor is known. Nor does one to which the log was still being copied from one that is gone.
    fn has_disk_of(&self, id: BrokerId, partition: PartitionId, found: &Partition) -> bool {
        let Some(directory) = found.directory(id) else { return false };
        let logs = &self.nodes[&id].disk.logs;
        match self.restoring == Some(id) {
            true => logs.has(directory) && logs.all(partition).next().is_some(),
            false => directory_id::is_reserved(directory) || logs.has(directory),
        }
    }

    /// The batch at `offset` in the log that a node uses; if it uses none, in any.
    fn batch(
        &self,
        id: BrokerId,
        partition: PartitionId,
        offset: Offset,
    ) -> Option<&Rc<PartitionBatch>> {
        let logs = &self.nodes.get(&id)?.disk.logs;
        match logs.get(partition) {
            Some(disk) => disk.log.find(offset),
            None => logs.all(partition).find_map(|disk| disk.log.find(offset)),
        }
    }
}

/// The metadata that some node has taken for committed, from the first record on.
#[derive(Debug, Default)]
pub(crate) struct Committed {
    pub(crate) batches: BTreeMap<Offset, Rc<MetadataBatch>>,
    pub(crate) loader: MetadataLoader,
}

impl Committed {
    fn end(&self) -> Offset {
        self.loader.end_offset()
    }

    /// Who replicates a partition. Others may still have a log of it, which they are about to delete.
    fn replicas(&self, partition: PartitionId) -> Vec<BrokerId> {
        self.partition(partition).map_or(Vec::new(), |found| found.replicas.clone())
    }

    /// A partition as the committed metadata have it.
    pub(crate) fn partition(&self, partition: PartitionId) -> Option<&Partition> {
        let (topic, index) = PARTITIONS[partition];
        self.loader.stable().topics.by_name(topic)?.partition(index)
    }

    /// The partition, if the node leads it in this epoch and its metadata have the newest change of it. The answer to
    /// its own proposal may be lost, and then it waits for the metadata.
    fn led_knowingly(
        &self,
        (life, partition): (Life, PartitionId),
        epoch: LeaderEpoch,
        partition_epoch: i32,
    ) -> Option<&Partition> {
        self.partition(partition).filter(|found| {
            (found.leader, found.leader_epoch) == (Some(life.0), epoch)
                && found.partition_epoch <= partition_epoch
        })
    }

    fn push(&mut self, batch: &Rc<MetadataBatch>) {
        match &batch.records {
            None => self.loader.skip_to(batch.next_offset),
            Some(records) => {
                for (record, offset) in records.iter().zip(batch.base_offset..) {
                    let replayed = self.loader.replay(record, offset);
                    replayed.expect("what is committed can be replayed");
                }
            }
        }
        self.batches.insert(batch.base_offset, Rc::clone(batch));
    }
}

/// A rule. It is told of everything that could break it.
trait Invariant {
    fn observe(
        &mut self,
        seen: &Observation,
        committed: &Committed,
        cluster: &Cluster<'_>,
    ) -> Result<(), String>;

    /// The healed cluster has come to rest.
    fn finish(&mut self, _committed: &Committed, _cluster: &Cluster<'_>) -> Result<(), String> {
        Ok(())
    }
}

/// All rules.
#[derive(Default)]
pub(crate) struct Invariants {
    committed: Committed,
    committed_metadata: committed_metadata::CommittedMetadata,
    one_leader: one_leader::OneLeader,
    equal_state: equal_state::EqualState,
    leader_contact: leader_contact::LeaderContact,
    voters: voters::Voters,
    log_matching: log_matching::LogMatching,
    high_watermark: high_watermark::HighWatermark,
    isr_members: isr_members::IsrMembers,
    acknowledged_records: acknowledged_records::AcknowledgedRecords,
    producer_state: producer_state::ProducerState,
    consumed_records: consumed_records::ConsumedRecords,
    latest_offsets: latest_offsets::LatestOffsets,
    group_generations: group_generations::GroupGenerations,
    committed_offsets: committed_offsets::CommittedOffsets,
    dead_leader: dead_leader::DeadLeader,
    full_leaders: full_leaders::FullLeaders,
    stalls: stalls::Stalls,
    log_directories: log_directories::LogDirectories,
}

impl Invariants {
    pub(crate) fn committed(&self) -> &Committed {
        &self.committed
    }

    /// The highest high watermark of each partition.
    pub(crate) fn high_watermarks(&self) -> impl Iterator<Item = (PartitionId, Offset)> {
        self.high_watermark.highest()
    }

    /// A step has left this to be seen. Rules look at the state after the step, so what it has
    /// committed of the metadata is taken in first; but each ISR is looked at as it was committed.
    pub(crate) fn observe(
        &mut self,
        observed: &[Observation],
        cluster: &Cluster<'_>,
    ) -> Result<(), String> {
        for seen in observed {
            self.committed_metadata.observe(seen, &self.committed, cluster)?;
            if let Observation::MetadataCommitted { batch, .. } = seen
                && batch.base_offset == self.committed.end()
            {
                self.committed.push(batch);
            }
            self.isr_members.observe(seen, &self.committed, cluster)?;
        }
        for seen in observed {
            let (rules, committed) = self.rules();
            rules.into_iter().try_for_each(|rule| rule.observe(seen, committed, cluster))?;
        }
        Ok(())
    }

    pub(crate) fn finish(&mut self, cluster: &Cluster<'_>) -> Result<(), String> {
        let (rules, committed) = self.rules();
        rules.into_iter().try_for_each(|rule| rule.finish(committed, cluster))
    }

    fn rules(&mut self) -> ([&mut dyn Invariant; 16], &Committed) {
        let rules: [&mut dyn Invariant; 16] = [
            &mut self.one_leader,
            &mut self.equal_state,
            &mut self.leader_contact,
            &mut self.voters,
            &mut self.log_matching,
            &mut self.high_watermark,
            &mut self.acknowledged_records,
            &mut self.producer_state,
            &mut self.consumed_records,
            &mut self.latest_offsets,
            &mut self.group_generations,
            &mut self.committed_offsets,
            &mut self.dead_leader,
            &mut self.full_leaders,
            &mut self.stalls,
            &mut self.log_directories,
        ];
        (rules, &self.committed)
    }
}
