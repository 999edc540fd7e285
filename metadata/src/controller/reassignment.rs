//! How a partition moves from one list of replicas to another: target and departing replicas live
//! together until everybody new is in sync (Kafka's PartitionReassignmentReplicas and -Revert).

use std::collections::BTreeSet;

use klamm_protocol::ids::BrokerId;

use crate::image::partition::Partition;

/// A move that is planned or under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reassignment {
    /// The target replicas in their order, then those that leave.
    pub replicas: Vec<BrokerId>,
    /// Who leaves at the end.
    pub removing: Vec<BrokerId>,
    /// Who has joined.
    pub adding: Vec<BrokerId>,
}

/// What a partition looks like once its move is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completed {
    /// Its replicas.
    pub replicas: Vec<BrokerId>,
    /// Its in-sync replicas.
    pub isr: Vec<BrokerId>,
}

impl Reassignment {
    /// Plans a move.
    pub fn plan(current: &[BrokerId], target: &[BrokerId]) -> Self {
        let removing = difference(current, target);
        let replicas = target.iter().chain(&removing).copied().collect();
        Self { replicas, adding: difference(target, current), removing }
    }

    /// The move that a partition is in, if any of its replicas joins or leaves.
    pub fn of(partition: &Partition) -> Self {
        Self {
            replicas: partition.replicas.clone(),
            removing: partition.removing_replicas.clone(),
            adding: partition.adding_replicas.clone(),
        }
    }

    /// The partition after the move, if this ISR is enough to end it: somebody stays in sync and
    /// everybody new is in sync. When replicas become fewer, all that stay must be in sync, or
    /// ending the move would weaken the ISR for nothing.
    ///
    /// Who joins by an unfinished move and leaves by the one that took its place need not come in sync. (Apache
    /// Kafka waits for it, and for ever.)
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

    /// The replicas before the move.
    pub fn original_replicas(&self) -> Vec<BrokerId> {
        self.replicas.iter().copied().filter(|id| !self.adding.contains(id)).collect()
    }
}

/// How to go back to the replicas before a move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revert {
    /// The replicas to go back to.
    pub replicas: Vec<BrokerId>,
    /// Their ISR.
    pub isr: Vec<BrokerId>,
    /// Whether none of them is in sync, so that going back means an unclean election.
    pub unclean: bool,
}

impl Revert {
    /// Plans going back; none if only joining replicas would be left, which cannot be.
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
