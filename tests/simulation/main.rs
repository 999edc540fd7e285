//! Whole clusters of the pure cores on one seeded scheduler: quorum, controller, partitions, producers, the
//! group coordinator and its members, on a network that loses, delays, doubles and cuts, on machines that lose
//! power, whose disks fail and whose clocks differ.
//!
//! Everything follows from the seed. `SIMULATION_SEED=<n>` runs that one, `SIMULATION_SEEDS=<n>` so many from 0
//! on, `SIMULATION_FRESH_SEEDS=<n>` so many that nobody has seen; `SIMULATION_VERBOSE=1` tells what happens.

mod admin;
mod batch;
mod broker;
mod client;
mod clock;
mod decision;
mod disk;
mod group_driver;
mod invariants;
mod log;
mod member;
mod message;
mod metadata_driver;
mod network;
mod node;
mod observation;
mod plant;
mod producer;
mod progress;
mod random;
mod replica;
mod scenario;
mod step;
mod world;

use plant::Plant;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::World;

/// Seeds of every run.
const FIXED_SEEDS: u64 = 2_000;
/// After so many failing seeds the others are not run.
const MAX_FAILURES: usize = 20;

fn number_from_environment(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// Runs a seed. A broken assertion in a core is a violation as well.
fn run(seed: u64, plant: Plant) -> Result<(), String> {
    let run = catch_unwind(AssertUnwindSafe(|| World::new(seed, plant).run()));
    run.unwrap_or_else(|_| Err("a core panicked".to_owned()))
}

/// Runs seeds; the first few that fail are all named, with how to run them again.
fn check(seeds: impl Iterator<Item = u64>) {
    let failures = seeds.filter_map(|seed| Some((seed, run(seed, Plant::None).err()?)));
    let failures: Vec<String> = failures
        .take(MAX_FAILURES)
        .map(|(seed, violation)| format!("SIMULATION_SEED={seed} runs it again: {violation}"))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn no_invariant_breaks_under_any_fixed_seed() {
    let only = number_from_environment("SIMULATION_SEED");
    let count = number_from_environment("SIMULATION_SEEDS").unwrap_or(FIXED_SEEDS);
    check(only.map_or(0..count, |seed| seed..seed + 1));
}

#[test]
fn survey() {
    for plant in plant::ALL {
        let mut caught: Vec<(u64, String)> = Vec::new();
        for seed in 0..300 {
            if let Err(v) = run(seed, plant) {
                caught.push((seed, v.chars().take(150).collect()));
            }
        }
        println!("PLANT {plant:?} {} {:?}", caught.len(), caught.iter().take(3).collect::<Vec<_>>());
    }
}
