//! Damage is found and repaired: `Repair` decides, as for `src/replica/repair.rs`.

use super::Broker;
use crate::batch::PartitionId;
use crate::disk::Disk;
use crate::metadata_driver::NodeStep;
use crate::observation::Observation;
use crate::plant::Plant;
use klamm_metadata::directory_id;
use klamm_metadata::image::partition::Partition;
use klamm_protocol::ids::LeaderEpoch;
use klamm_replication::partition::{DamagedReplica, Repair, RepairStep};

/// In a hundred looks at a log, how many find its damage, if nobody reads there.
const SCRUBBED: u64 = 10;

impl Broker {
    pub(super) fn repair(
        &mut self,
        id: PartitionId,
        known: &Partition,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        let (Some(replica), Some(log)) = (self.replicas.get_mut(&id), disk.logs.get(id)) else {
            return;
        };
        if replica.damaged.is_none() && log.damaged.is_some() && step.random.chance(SCRUBBED) {
            replica.damaged = log.damaged;
        }
        if replica.damaged.is_none() && !replica.is_refetching {
            return;
        }
        let follower = replica.core.follower().filter(|follower| follower.leader_id.is_some());
        let following_epoch = follower.map(|follower| follower.leader_epoch);
        if replica.damaged.is_none() {
            if replica.repair.may_return(following_epoch, log.log.end()) {
                (replica.is_refetching, replica.repair) = (false, Repair::default());
                self.report(id, disk.logs.directory_of(id).expect("it is open"));
            }
            return;
        }
        let is_given_up = known.directory(self.life.0).is_some_and(directory_id::is_given_up);
        let next = replica.repair.next_step(&DamagedReplica {
            broker: self.life.0,
            leader: known.leader,
            isr: &known.isr,
            elr: &known.elr,
            last_known_elr: &known.last_known_elr,
            is_given_up,
            following_epoch,
        });
        let early = following_epoch.filter(|_| step.plant == Plant::DamageCutInSync);
        match early.map_or(next, RepairStep::Cut) {
            RepairStep::Wait => {}
            RepairStep::Serve => {
                replica.is_offline = false;
                if is_given_up || self.waits_for_election(known) {
                    self.report(id, disk.logs.directory_of(id).expect("it is open"));
                }
            }
            RepairStep::Leave => {
                if !std::mem::replace(&mut replica.is_offline, true) {
                    replica.core.give_up_waiting();
                    replica.settle(log, step);
                    step.observe(Observation::DamagedReplicaLeaves);
                }
                self.report(id, directory_id::LOST);
            }
            RepairStep::Cut(epoch) => self.cut_damage(id, epoch, disk, step),
        }
    }

    fn cut_damage(
        &mut self,
        id: PartitionId,
        epoch: LeaderEpoch,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        let replica = self.replicas.get_mut(&id).expect("it is damaged");
        let log = disk.logs.get_mut(id).expect("a replica has a log");
        let at = replica.damaged.take().expect("it is damaged");
        replica.repair.on_cut(epoch, log.log.end());
        if at < log.log.end() {
            replica.truncate(at, log);
            log.log.sync();
        }
        assert!(replica.core.on_repaired(epoch), "it follows in the epoch that was decided for");
        (replica.is_offline, replica.is_refetching) = (false, true);
        replica.settle(log, step);
        step.observe(Observation::DamageCut { broker: self.life.0, partition: id });
        self.fetch(id, disk, step);
    }
}
