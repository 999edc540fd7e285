//! A load generator: drives Apache Kafka and Klamm in turn with the same requests and compares what that cost each of them.
//!
//! Requests are encoded before the measurement and sent over raw sockets, so that the two cores that such machines often
//! have are the brokers' and not the generator's. Every answer is checked: an error, a wrong offset or a missing record ends
//! the run. Each repetition drives one broker and then the other, so that both meet the same machine.
//!
//! `cargo bench --bench load -- --help`

mod broker;
mod catalogue;
mod connection;
mod figures;
mod measurement;
mod options;
mod payload;
mod report;
mod topic;
mod workload;

use broker::{Broker, Flavour, Setting};
use catalogue::{CATALOGUE, Case};
use measurement::Sample;
use options::{Options, Wanted};
use report::Comparison;

fn main() {
    let options = match options::from_arguments(std::env::args().skip(1)) {
        Wanted::Run(options) => options,
        Wanted::Nothing(why) => return println!("{why}"),
    };
    let chosen: Vec<&'static Case> =
        CATALOGUE.iter().filter(|case| options.includes(case.name)).collect();
    assert!(!chosen.is_empty(), "no workload has a name like {:?}", options.filter);
    let mut comparisons = Vec::new();
    for setting in [Setting::PageCache, Setting::Synced] {
        let cases: Vec<&'static Case> =
            chosen.iter().copied().filter(|case| case.setting == setting).collect();
        if !cases.is_empty() {
            comparisons.extend(run_all(setting, &cases, &options));
        }
    }
    report::print_summary(&comparisons);
}

/// Runs the workloads of one setting, on one process of each broker.
fn run_all(setting: Setting, cases: &[&'static Case], options: &Options) -> Vec<Comparison> {
    let brokers: Vec<Broker> =
        options.flavours().map(|flavour| Broker::start(flavour, setting)).collect();
    let compare = |case: &&'static Case| {
        let comparison = run(case, &brokers, options);
        report::print(&comparison);
        comparison
    };
    cases.iter().map(compare).collect()
}

fn run(case: &'static Case, brokers: &[Broker], options: &Options) -> Comparison {
    let mut comparison = Comparison::of(case);
    let mut sessions: Vec<_> = brokers
        .iter()
        .map(|broker| (broker, case.load.prepare(broker, case.name, options.scale)))
        .collect();
    for repetition in 0..options.repetitions {
        for (broker, session) in &mut sessions {
            let sample = session.run(broker);
            progress(case, broker.flavour(), repetition, &sample);
            comparison.add(broker.flavour(), sample);
        }
    }
    for (broker, session) in sessions {
        session.finish(broker);
    }
    comparison
}

fn progress(case: &Case, flavour: Flavour, repetition: usize, sample: &Sample) {
    let (name, number) = (case.name, repetition + 1);
    eprintln!("{name} {flavour} {number}: {sample}");
}
