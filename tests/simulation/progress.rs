//! What a healed cluster must reach: a controller that all follow, full ISRs, equal logs, clients that
//! get on.

use crate::batch::PARTITIONS;
use crate::client::Kind;
use crate::world::World;
use klamm_protocol::ids::Offset;

/// How many batches each producer has to get acknowledged after the faults.
const BATCHES: u64 = 5;

/// Where clients were when the faults ended.
#[derive(Debug)]
pub(crate) struct Goal {
    /// What each producer has to reach.
    acknowledged: Vec<u64>,
}

impl Goal {
    pub(crate) fn set(world: &World) -> Self {
        let producers = world.clients.iter().filter_map(|client| match &client.kind {
            Kind::Producer(producer) => Some(producer.acknowledged + BATCHES),
            _ => None,
        });
        Self { acknowledged: producers.collect() }
    }

    /// What is still missing.
    pub(crate) fn look(&mut self, world: &World) -> Result<(), String> {
        controller_is_followed(world)?;
        partitions_are_whole(world)?;
        world.replaced_disk_is_restored()?;
        world.upkeep_is_done()?;
        self.producers_get_on(world)?;
        group_has_read_everything(world)
    }

    fn producers_get_on(&self, world: &World) -> Result<(), String> {
        let producers = world.clients.iter().filter_map(|client| match &client.kind {
            Kind::Producer(producer) => Some(producer),
            _ => None,
        });
        for (producer, wanted) in producers.zip(&self.acknowledged) {
            if producer.acknowledged < *wanted {
                return Err(format!("a producer does not get on: {producer:?}"));
            }
        }
        Ok(())
    }
}

fn controller_is_followed(world: &World) -> Result<(), String> {
    let active = world.nodes.values().find_map(|node| {
        let metadata = &node.process.as_ref()?.metadata;
        metadata.controller.controller().is_active().then_some((node.id, metadata))
    });
    let Some((controller, metadata)) = active else {
        return Err("there is no active controller".to_owned());
    };
    let end = metadata.controller.committed().end_offset();
    for node in world.nodes.values() {
        let Some(process) = &node.process else {
            return Err(format!("node {} is down", node.id));
        };
        let (own, leader) =
            (process.metadata.controller.committed(), process.metadata.quorum.leader_id());
        if leader != Some(controller) || own.end_offset() + 20 < end {
            return Err(format!(
                "node {} follows {leader:?} up to {} of {end}",
                node.id,
                own.end_offset()
            ));
        }
        if !metadata.controller.committed().stable().brokers.is_active(node.id) {
            return Err(format!("broker {} is not active", node.id));
        }
    }
    Ok(())
}

pub(crate) fn partitions_are_whole(world: &World) -> Result<(), String> {
    for id in 0..PARTITIONS.len() {
        let Some(found) = world.invariants.committed().partition(id) else {
            return Err("there are no topics".to_owned());
        };
        let settled = found.adding_replicas.is_empty() && found.removing_replicas.is_empty();
        if !found.has_leader() || found.isr.len() != found.replicas.len() || !settled {
            return Err(format!("partition {id} is {found:?}"));
        }
    }
    Ok(())
}

/// The members together have read what was committed a moment ago.
fn group_has_read_everything(world: &World) -> Result<(), String> {
    for (partition, committed) in world.invariants.high_watermarks() {
        let members = world.clients.iter().filter_map(|client| match &client.kind {
            Kind::Member(member) => member.consumed.get(&partition).copied(),
            _ => None,
        });
        let read: Offset = members.max().unwrap_or(0);
        if partition < crate::batch::DATA_PARTITIONS && read + 40 < committed {
            return Err(format!("partition {partition} is read up to {read} of {committed}"));
        }
    }
    Ok(())
}
