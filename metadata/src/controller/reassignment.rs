//! The reassignment of a partition: target and removed replicas exist together until all added ones are in sync
//! (Kafka's PartitionReassignmentReplicas and -Revert).

use std::collections::BTreeSet;

use klamm_protocol::ids::BrokerId;

use crate::image::partition::Partition;

/// A planned or running reassignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reassignment {
    /// The target replicas in their order, then the removed ones.
    pub replicas: Vec<BrokerId>,
    /// The replicas to remove at the end.
    pub removing: Vec<BrokerId>,
    /// The added replicas.
    pub adding: Vec<BrokerId>,
}

/// The partition after its reassignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completed {
    /// Its replicas.
    pub replicas: Vec<BrokerId>,
    /// Its in-sync replicas.
    pub isr: Vec<BrokerId>,
}

impl Reassignment {
    /// Plans a reassignment.
    pub fn plan(current: &[BrokerId], target: &[BrokerId]) -> Self {
        let removing = difference(current, target);
        let replicas = target.iter().chain(&removing).copied().collect();
        Self { replicas, adding: difference(target, current), removing }
    }

    /// The running reassignment of a partition, which may be empty.
    pub fn of(partition: &Partition) -> Self {
        Self {
            replicas: partition.replicas.clone(),
            removing: partition.removing_replicas.clone(),
            adding: partition.adding_replicas.clone(),
        }
    }

    /// The partition after the reassignment, if this ISR completes it: at least one remaining replica and all added
    /// ones are in sync. If the number of replicas decreases, all remaining ones must be in sync, or the completion
    /// would weaken the ISR without need.
    ///
    /// A replica that an unfinished reassignment adds and the one that replaces it removes need not be in sync. (Apache
    /// Kafka waits for it for ever.)
    pub fn completed_by(&self, isr: &[BrokerId]) -> Option<Completed> {
        if self.removing.is_empty() && self.adding.is_empty() {
            return None;
        }
        let staying = |ids: &[BrokerId]| -> Vec<BrokerId> {
            ids.iter().copied().filter(|id| !self.removing.contains(id)).collect()
        };
        let (isr, replicas) = (staying(isr), staying(&self.replicas));
        let empty = isr.is_empty() || replicas.is_empty();
        if !self.removing.is_empty() && empty {
            return None;
        }
        let in_sync = |ids: &[BrokerId]| ids.iter().all(|id| isr.contains(id));
        let joining = staying(&self.adding);
        let shrinks = joining.len() < self.removing.len();
        if !in_sync(&joining) || (shrinks && !in_sync(&replicas)) {
            return None;
        }
        Some(Completed { replicas, isr })
    }

    /// The replicas before the reassignment.
    pub fn original_replicas(&self) -> Vec<BrokerId> {
        self.replicas.iter().copied().filter(|id| !self.adding.contains(id)).collect()
    }
}

/// The revert of a reassignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revert {
    /// The original replicas.
    pub replicas: Vec<BrokerId>,
    /// Their ISR.
    pub isr: Vec<BrokerId>,
    /// Whether none of them is in sync, so that the revert needs an unclean election.
    pub unclean: bool,
}

impl Revert {
    /// Plans a revert; none if all replicas are added ones.
    pub fn of(partition: &Partition) -> Option<Self> {
        let reassignment = Reassignment::of(partition);
        let replicas = reassignment.original_replicas();
        let joined = |id: &BrokerId| reassignment.adding.contains(id);
        let isr: Vec<BrokerId> = partition.isr.iter().copied().filter(|id| !joined(id)).collect();
        if !isr.is_empty() {
            return Some(Self { replicas, isr, unclean: false });
        }
        let first = *replicas.first()?;
        Some(Self { replicas, isr: vec![first], unclean: true })
    }
}

fn difference(a: &[BrokerId], b: &[BrokerId]) -> Vec<BrokerId> {
    let distinct: BTreeSet<BrokerId> = a.iter().copied().collect();
    distinct.into_iter().filter(|id| !b.contains(id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_puts_the_target_first_and_who_leaves_last() {
        let plan = Reassignment::plan(&[0, 1, 2], &[2, 3]);
        assert_eq!(plan.replicas, [2, 3, 0, 1]);
        assert_eq!(plan.removing, [0, 1]);
        assert_eq!(plan.adding, [3]);
        assert_eq!(plan.original_replicas(), [2, 0, 1]);
    }

    #[test]
    fn a_move_ends_when_everybody_new_is_in_sync() {
        let plan = Reassignment::plan(&[0, 1], &[2, 3]);
        assert_eq!(plan.completed_by(&[0, 1, 2]), None);
        let done = Completed { replicas: vec![2, 3], isr: vec![2, 3] };
        assert_eq!(plan.completed_by(&[0, 2, 3]), Some(done));
        assert_eq!(Reassignment::plan(&[0, 1], &[0, 1]).completed_by(&[0, 1]), None);
    }

    #[test]
    fn a_move_does_not_wait_for_who_joined_by_an_earlier_one_and_leaves_again() {
        let moving =
            Reassignment { replicas: vec![1, 4, 2, 3], removing: vec![2, 3], adding: vec![3, 4] };
        assert_eq!(moving.completed_by(&[1, 2]), None);
        let done = Completed { replicas: vec![1, 4], isr: vec![1, 4] };
        assert_eq!(moving.completed_by(&[1, 2, 4]), Some(done));
        assert_eq!(moving.original_replicas(), [1, 2]);
    }

    #[test]
    fn a_shrinking_move_waits_for_all_that_stay() {
        let plan = Reassignment::plan(&[0, 1, 2, 3, 4], &[2, 3, 4, 5]);
        assert_eq!(plan.completed_by(&[0, 1, 5]), None);
        assert!(plan.completed_by(&[2, 3, 4, 5]).is_some());
        assert_eq!(Reassignment::plan(&[0, 1], &[1]).completed_by(&[0]), None);
    }

    #[test]
    fn going_back_without_an_old_replica_in_sync_is_unclean() {
        let partition = Partition {
            replicas: vec![2, 0, 1],
            isr: vec![2],
            adding_replicas: vec![2],
            removing_replicas: vec![0, 1],
            ..Default::default()
        };
        let revert = Revert::of(&partition).unwrap();
        assert_eq!(revert, Revert { replicas: vec![0, 1], isr: vec![0], unclean: true });
        let clean = Partition { isr: vec![1, 2], ..partition.clone() };
        assert_eq!(Revert::of(&clean).unwrap().isr, [1]);
        let all_new = Partition { adding_replicas: vec![0, 1, 2], ..partition };
        assert_eq!(Revert::of(&all_new), None);
    }
}
