//! A log that loses its power at every operation: what was flushed is there afterwards, nothing is there
//! that was never written, and indexes, epochs, transactions and producers agree with the records.
//!
//! Each run makes the same random history (`seed`) on a disk that stops at its n-th operation, keeps a random
//! part of what was not synced, and starts again. A failing run prints seed and operation.

#[cfg(test)]
#[path = "crash/model.rs"]
mod model;

use klamm_log::disk::Fault;
use model::{Model, Random, Run};

/// Runs a history without a power cut and says how many operations it takes.
fn operations_of(seed: u64) -> u64 {
    let mut run = Run::new(seed);
    while run.step() {}
    run.operations()
}

fn sweep(seed: u64, crashes: u64) {
    let operations = operations_of(seed);
    assert!(operations > 30, "history {seed} has only {operations} operations");
    for cut in 1..operations {
        for crash in 0..crashes {
            let mut run = Run::new(seed);
            run.cut_power_at(cut);
            while run.step() {}
            let seed_of_crash = Random::new(seed ^ cut.wrapping_mul(7919) ^ crash).next();
            run.crash_and_check(seed_of_crash, &format!("history {seed}, cut {cut}, {crash}"));
        }
    }
}

/// Runs a history in which something is lacking from each operation on in turn, until a few steps have failed.
fn sweep_lacking(seed: u64, fault: Fault) {
    const FAILURES: u32 = 3;
    for from in 1..operations_of(seed) {
        let context = format!("history {seed}, {fault:?} from {from}");
        let mut run = Run::new(seed);
        run.lack_from(from, fault);
        let mut failures = 0;
        while !run.is_over() {
            if run.step() {
                continue;
            }
            failures += 1;
            assert!(failures <= FAILURES, "{context}: fails though there is room");
            assert!(run.is_in_use(), "{context}: what passes takes no directory offline");
            if failures == FAILURES {
                run.give_room();
            }
        }
        run.give_room();
        run.flush_and_check(&context);
        match from % 2 {
            0 => run.crash_and_check(from, &context),
            _ => run.close_and_check(&context),
        }
    }
}

/// Histories that found a bug each: names and contents that reach the disk in an unlucky order.
const ONCE_FAILED: [u64; 3] = [2089, 10080, 12276];

#[test]
fn a_power_cut_at_any_operation_leaves_a_log_that_agrees_with_the_model() {
    for seed in (0..8).chain(ONCE_FAILED) {
        sweep(seed, 3);
    }
}

#[test]
fn a_lack_of_space_from_any_operation_on_loses_nothing_and_leaves_nothing_dead() {
    for seed in 0..5 {
        sweep_lacking(seed, Fault::NoSpace);
    }
}

#[test]
fn a_lack_of_descriptors_from_any_operation_on_loses_nothing_and_leaves_nothing_dead() {
    for seed in 0..5 {
        sweep_lacking(seed, Fault::OutOfFileDescriptors);
    }
}

#[test]
fn a_clean_shutdown_at_any_time_leaves_everything() {
    for seed in 100..200 {
        let mut run = Run::new(seed);
        while run.step() {}
        run.close_and_check(&format!("history {seed}"));
    }
}

#[test]
fn producer_state_rebuilt_from_the_log_equals_the_incremental_state_at_every_step() {
    for seed in 300..340 {
        let mut run = Run::new(seed);
        while run.step() {
            run.check_rebuilt_producers(&format!("history {seed}"));
        }
    }
}

#[test]
fn the_model_notices_a_lost_batch() {
    let mut model = Model::default();
    model.append(vec![1, 2, 3].into(), 0, 4);
    model.flushed(5);
    let lost = std::panic::catch_unwind(|| model.check_records(&[], 0, "lost"));
    assert!(lost.is_err());
}
