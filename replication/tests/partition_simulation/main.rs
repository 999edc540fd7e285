//! One partition on three brokers, with a controller: leaders change, brokers lose power, metadata,
//! fetches and AlterPartition arrive late, out of order or never. Whatever is acknowledged with acks=all is
//! in the log of every later leader, the in-sync replicas hold everything below the high watermark,
//! followers that keep pace join the ISR, and once it is quiet all logs are equal.
//!
//! The replicas are those that ship; the logs, the network and the controller are simulated.
//!
//! Everything follows from the seed; a failure prints it. `PARTITION_SEED=<n>` runs that one.

mod brokers;
#[path = "../quorum_simulation/random.rs"]
mod random;

use brokers::{Brokers, Plant};
use std::env;

const SEEDS: u64 = 500;
const STEPS: usize = 600;

fn run(seed: u64, plant: Plant) -> Result<(), String> {
    let mut brokers = Brokers::new(seed, plant);
    for step in 0..STEPS {
        brokers.step();
        brokers.check().map_err(|violation| format!("step {step}: {violation}"))?;
    }
    brokers.heal_under_load()?;
    brokers.come_to_rest()
}

#[test]
fn what_is_acknowledged_survives_under_any_seed() {
    let only = env::var("PARTITION_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(0..SEEDS, |seed: u64| seed..seed + 1);
    for seed in seeds {
        if let Err(violation) = run(seed, Plant::None) {
            panic!("seed {seed}: {violation}");
        }
    }
}

#[test]
fn a_follower_that_cuts_to_its_high_watermark_is_caught() {
    assert!((0..200).any(|seed| run(seed, Plant::TruncateToHighWatermark).is_err()));
}

#[test]
fn a_follower_that_acknowledges_before_it_syncs_is_caught() {
    assert!((0..200).any(|seed| run(seed, Plant::AcknowledgeBeforeSync).is_err()));
}

#[test]
fn a_leader_that_takes_the_answer_of_a_lost_request_for_granted_is_caught() {
    assert!((0..200).any(|seed| run(seed, Plant::AssumeExpansionFailed).is_err()));
}

#[test]
fn a_high_watermark_that_does_not_wait_for_followers_about_to_join_is_caught() {
    assert!((0..200).any(|seed| run(seed, Plant::OutsidersNotWaitedFor).is_err()));
}

#[test]
fn an_isr_that_a_restarted_broker_joins_by_its_former_fetches_is_caught() {
    assert!((0..200).any(|seed| run(seed, Plant::BrokerEpochNotChecked).is_err()));
}

#[test]
fn an_isr_that_a_fenced_broker_joins_is_caught() {
    assert!((0..200).any(|seed| run(seed, Plant::FencedReplicaTaken).is_err()));
}
