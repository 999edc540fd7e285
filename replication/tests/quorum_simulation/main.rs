//! Quorums of one, three and five voters on a network that loses, delays, duplicates and partitions, on
//! machines that lose power, while voters are added, removed and replaced: whatever happens, an epoch has one leader, what is committed is the same
//! everywhere and stays, and once the faults end the quorum commits again.
//!
//! Everything follows from the seed; a failure prints it. `QUORUM_SEED=<n>` runs that one,
//! `QUORUM_SEEDS=<n>` so many from 0 on.

mod cluster;
mod disk;
mod random;

use cluster::{Cluster, Plant};
use std::env;

const DEFAULT_SEEDS: u64 = 500;

fn number_from_environment(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

fn run(seed: u64, plant: Plant) -> Result<(), String> {
    drive(&mut Cluster::new(seed, plant))
}

fn drive(cluster: &mut Cluster) -> Result<(), String> {
    cluster.run_with_faults(8_000)?;
    cluster.heal_and_converge(3_000)
}

#[test]
fn one_leader_in_an_epoch_and_nothing_committed_is_lost_under_any_seed() {
    let only = number_from_environment("QUORUM_SEED");
    let count = number_from_environment("QUORUM_SEEDS").unwrap_or(DEFAULT_SEEDS);
    let seeds = only.map_or(0..count, |seed| seed..seed + 1);
    for seed in seeds {
        if let Err(violation) = run(seed, Plant::None) {
            panic!("seed {seed}: {violation}");
        }
    }
}

#[test]
fn equal_seeds_give_equal_runs() {
    for seed in 0..10 {
        let mut runs = [(); 2].map(|()| Cluster::new(seed, Plant::None).traced());
        for cluster in &mut runs {
            assert_eq!(drive(cluster), Ok(()));
        }
        assert!(runs[0].trace().is_some());
        assert_eq!(runs[0].trace(), runs[1].trace());
    }
}

#[test]
fn voters_come_and_go_in_the_midst_of_faults() {
    let mut clusters: Vec<Cluster> = (0..60).map(|seed| Cluster::new(seed, Plant::None)).collect();
    for cluster in &mut clusters {
        assert_eq!(drive(cluster), Ok(()));
    }
    assert!(clusters.iter().map(|cluster| cluster.changes).sum::<u64>() > 20);
    assert!(clusters.iter().map(Cluster::rejoined).sum::<usize>() > 3);
    assert!(clusters.iter().filter(|cluster| cluster.has_upgraded()).count() > 3);
}

#[test]
fn a_disk_that_lies_about_syncing_the_log_is_caught() {
    assert!((0..200).any(|seed| run(seed, Plant::LogSyncLies).is_err()));
}

#[test]
fn a_disk_that_lies_about_syncing_votes_is_caught() {
    assert!((0..200).any(|seed| run(seed, Plant::VoteSyncLies).is_err()));
}
