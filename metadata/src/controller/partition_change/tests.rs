//! The results of partition changes: ISR, ELR, leader, epochs.

use super::*;
use crate::directory_id;

const TOPIC: Uuid = Uuid::from_bytes([5; 16]);

fn dir(id: BrokerId) -> Uuid {
    Uuid::from_bytes([u8::try_from(id).unwrap() + 1; 16])
}

/// In the record: no broker leads.
const NO_LEADER: BrokerId = -1;

fn partition(
    replicas: &[BrokerId],
    isr: &[BrokerId],
    leader: impl Into<Option<BrokerId>>,
) -> Partition {
    Partition {
        replicas: replicas.to_vec(),
        directories: replicas.iter().map(|id| dir(*id)).collect(),
        isr: isr.to_vec(),
        leader: leader.into(),
        leader_epoch: 10,
        partition_epoch: 20,
        ..Default::default()
    }
}

/// Builds the change with these brokers alive and min.insync.replicas 2.
fn change(
    partition: &Partition,
    alive: &[BrokerId],
    elr_enabled: bool,
    wish: impl FnOnce(&mut PartitionChange<'_>),
) -> Option<PartitionChangeRecord> {
    let context = ChangeContext {
        is_acceptable_leader: &|id| alive.contains(&id),
        default_dir: &|_| directory_id::UNASSIGNED,
        version: MetadataVersion::LATEST,
        min_isr: 2,
        elr_enabled,
    };
    let mut change = PartitionChange::new(partition, TOPIC, 3, context);
    wish(&mut change);
    change.build().map(|record| match record {
        MetadataRecord::PartitionChange(record) => record,
        other => panic!("not a change of a partition: {other:?}"),
    })
}

fn empty() -> PartitionChangeRecord {
    PartitionChangeRecord { topic_id: TOPIC, partition_id: 3, ..Default::default() }
}

#[test]
fn no_wish_is_no_record() {
    let partition = partition(&[1, 2, 3], &[1, 2, 3], 1);
    assert_eq!(change(&partition, &[1, 2, 3], true, |_| {}), None);
}

#[test]
fn an_isr_shrink_keeps_the_leader_and_its_epoch() {
    let partition = partition(&[1, 2, 3], &[1, 2, 3], 1);
    let record = change(&partition, &[1, 2], true, |change| change.isr = vec![1, 2]);
    assert_eq!(record, Some(PartitionChangeRecord { isr: Some(vec![1, 2]), ..empty() }));
}

#[test]
fn an_isr_shrink_bumps_the_leader_epoch_before_3_6() {
    let partition = partition(&[1, 2], &[1, 2], 1);
    let context = ChangeContext {
        is_acceptable_leader: &|_| true,
        default_dir: &|_| directory_id::UNASSIGNED,
        version: MetadataVersion::from_level(11).unwrap(),
        min_isr: 1,
        elr_enabled: false,
    };
    let mut change = PartitionChange::new(&partition, TOPIC, 3, context);
    change.isr = vec![1];
    let Some(MetadataRecord::PartitionChange(record)) = change.build() else { panic!("a change") };
    assert_eq!(record.leader, 1);
    assert_eq!(record.directories, None, "directories came with 3.7");
}

#[test]
fn the_next_replica_in_sync_takes_over_from_a_dead_leader() {
    let partition = partition(&[1, 2, 3], &[1, 3], 1);
    let record = change(&partition, &[2, 3], false, |change| change.isr = vec![3]).unwrap();
    assert_eq!((record.leader, record.isr), (3, Some(vec![3])));
    assert_eq!(record.leader_recovery_state, NO_RECOVERY_STATE_CHANGE);
}

#[test]
fn a_preferred_election_goes_back_to_the_first_replica() {
    let partition = partition(&[1, 2, 3], &[1, 2, 3], 2);
    let preferred = |change: &mut PartitionChange<'_>| change.election = Election::Preferred;
    assert_eq!(change(&partition, &[1, 2], true, preferred).unwrap().leader, 1);
    assert_eq!(change(&partition, &[2, 3], true, preferred), None, "the leader stays");
}

#[test]
fn the_last_in_sync_replica_becomes_eligible_and_is_remembered() {
    let partition = partition(&[1, 2, 3], &[1], 1);
    let record = change(&partition, &[], true, |change| change.isr = Vec::new()).unwrap();
    assert_eq!(record.leader, NO_LEADER);
    assert_eq!(record.isr, Some(Vec::new()));
    assert_eq!(record.eligible_leader_replicas, Some(vec![1]));
    assert_eq!(record.last_known_elr, Some(vec![1]));
}

#[test]
fn without_eligible_leaders_the_isr_never_becomes_empty() {
    let partition = partition(&[1, 2], &[1], 1);
    let record = change(&partition, &[], false, |change| change.isr = Vec::new()).unwrap();
    assert_eq!((record.leader, record.isr), (NO_LEADER, None));
    assert_eq!((record.eligible_leader_replicas, record.last_known_elr), (None, None));
}

#[test]
fn an_eligible_replica_leads_again_with_itself_as_isr() {
    let leaderless =
        Partition { elr: vec![1, 3], last_known_elr: vec![1], ..partition(&[1, 2, 3], &[], None) };
    let record = change(&leaderless, &[3], true, |_| {}).unwrap();
    assert_eq!((record.leader, record.isr), (3, Some(vec![3])));
    assert_eq!(record.eligible_leader_replicas, Some(vec![1]));
    assert_eq!(record.last_known_elr, Some(Vec::new()));
    assert_eq!(record.leader_recovery_state, NO_RECOVERY_STATE_CHANGE, "nothing was lost");
}

#[test]
fn leavers_of_a_thin_isr_stay_eligible_unless_they_stopped_uncleanly() {
    let partition = partition(&[1, 2, 3], &[1, 2], 1);
    let shrink = |change: &mut PartitionChange<'_>| change.isr = vec![1];
    let record = change(&partition, &[1], true, shrink).unwrap();
    assert_eq!(record.eligible_leader_replicas, Some(vec![2]));
    let record = change(&partition, &[1], true, |change| {
        shrink(change);
        change.unclean_shutdown_replicas = vec![2];
    });
    assert_eq!(record.unwrap().eligible_leader_replicas, None);
}

#[test]
fn a_replica_that_is_moved_away_is_not_eligible() {
    // Found by the cluster simulation.
    let mut moving = partition(&[1, 2, 4], &[4], 4);
    moving.adding_replicas = vec![1];
    moving.removing_replicas = vec![4];
    let record = change(&moving, &[1, 4], true, |change| change.isr = vec![1, 4]).unwrap();
    assert_eq!((record.replicas, record.isr), (Some(vec![1, 2]), Some(vec![1])));
    assert_eq!(record.eligible_leader_replicas, None);
}

#[test]
fn eligible_replicas_are_forgotten_when_the_isr_is_whole() {
    let thin = Partition { elr: vec![2], ..partition(&[1, 2, 3], &[1], 1) };
    let record = change(&thin, &[1, 3], true, |change| change.isr = vec![1, 3]).unwrap();
    assert_eq!(record.eligible_leader_replicas, Some(Vec::new()));
}

#[test]
fn the_last_known_leader_is_the_last_clean_hope() {
    let leaderless = Partition { last_known_elr: vec![2], ..partition(&[1, 2], &[], None) };
    let record = change(&leaderless, &[1, 2], true, |_| {}).unwrap();
    assert_eq!((record.leader, record.isr), (2, Some(vec![2])));
    assert_eq!(record.leader_recovery_state, LeaderRecoveryState::Recovering.value());
    assert_eq!(record.last_known_elr, Some(Vec::new()));
    assert_eq!(change(&leaderless, &[1], true, |_| {}), None);
}

#[test]
fn an_unclean_election_takes_any_live_replica_and_marks_it() {
    let leaderless = partition(&[1, 2, 3], &[1], None);
    let unclean = |change: &mut PartitionChange<'_>| change.election = Election::Unclean;
    let record = change(&leaderless, &[3], false, unclean).unwrap();
    assert_eq!((record.leader, record.isr), (3, Some(vec![3])));
    assert_eq!(record.leader_recovery_state, LeaderRecoveryState::Recovering.value());
    assert_eq!(change(&leaderless, &[], false, unclean), None);
}

#[test]
fn a_recovered_leader_says_so() {
    let recovering = Partition {
        leader_recovery_state: LeaderRecoveryState::Recovering,
        ..partition(&[1], &[1], 1)
    };
    let record = change(&recovering, &[1], true, |change| {
        change.leader_recovery_state = LeaderRecoveryState::Recovered;
    });
    assert_eq!(record.unwrap().leader_recovery_state, 0);
}

#[test]
fn a_reassignment_ends_when_the_new_replicas_are_in_sync() {
    let moving = Partition {
        adding_replicas: vec![3],
        removing_replicas: vec![1],
        ..partition(&[3, 2, 1], &[2, 1], 1)
    };
    let record = change(&moving, &[1, 2, 3], true, |change| change.isr = vec![2, 1, 3]).unwrap();
    assert_eq!(record.replicas, Some(vec![3, 2]));
    assert_eq!(record.isr, Some(vec![2, 3]));
    assert_eq!(record.leader, 3, "the old leader leaves");
    assert_eq!(record.adding_replicas, Some(Vec::new()));
    assert_eq!(record.removing_replicas, Some(Vec::new()));
    assert_eq!(record.directories, Some(vec![dir(3), dir(2)]));
}

#[test]
fn losing_a_replica_bumps_the_epoch_of_a_leader_that_stays() {
    let partition = partition(&[1, 2, 3], &[1, 2, 3], 1);
    let record = change(&partition, &[1, 2, 3], true, |change| {
        change.replicas = vec![1, 2];
        change.isr = vec![1, 2];
    });
    assert_eq!(record.unwrap().leader, 1);
}

#[test]
fn new_replicas_get_the_default_directory_and_known_ones_keep_theirs() {
    let partition = partition(&[1, 2], &[1, 2], 1);
    let record = change(&partition, &[1, 2], true, |change| {
        change.replicas = vec![1, 2, 3];
        change.adding = vec![3];
    })
    .unwrap();
    assert_eq!(record.directories, Some(vec![dir(1), dir(2), directory_id::UNASSIGNED]));
    let record =
        change(&partition, &[1, 2], true, |change| change.set_directory(2, dir(7))).unwrap();
    assert_eq!(record.directories, Some(vec![dir(1), dir(7)]));
    assert_eq!(record.leader, NO_LEADER_CHANGE);
}
