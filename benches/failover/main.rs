//! Measures what the failure of a node costs the clients of three: the same faults under the same load, on Apache Kafka and on
//! Klamm in turn, and prints their figures side by side.
//!
//! The load is Apache Kafka's own producer with its defaults and acks=all. Every history is checked: what is lost, stored twice
//! or out of order is counted and printed with the figures.
//!
//! `cargo bench --bench failover -- --help`

mod chaos;
mod faults;
mod full;
mod grey;
mod links;
mod options;
mod power;
mod random;
mod report;
mod throughput;
mod verdict;

use std::time::Duration;

use klamm_faults::{Client, LoadSetup};
use klamm_testbed::Flavour;

use options::{Options, Wanted};
use report::Column;

/// The clients' own defaults.
const LOAD: LoadSetup = LoadSetup {
    client: Client::Java,
    partitions: 12,
    records_per_second_and_partition: 100,
    request_timeout: Duration::from_secs(30),
};

fn main() {
    let options = match options::from_arguments(std::env::args().skip(1)) {
        Wanted::Run(options) => options,
        Wanted::Nothing(why) => return println!("{why}"),
    };
    let columns: Vec<Column> =
        options.flavours().map(|flavour| measure(flavour, &options)).collect();
    report::print(&columns);
    // What Apache Kafka loses by its defaults is a figure; what Klamm loses is a defect.
    if columns.iter().any(|column| column.is_of(Flavour::Klamm) && !column.is_clean) {
        eprintln!("Klamm has broken a promise");
        std::process::exit(1);
    }
}

fn measure(flavour: Flavour, options: &Options) -> Column {
    let mut column = Column::of(flavour);
    if options.includes("faults") {
        faults::measure(flavour, options.repetitions, &mut column);
    }
    if options.includes("full") {
        full::measure(flavour, options.repetitions, &mut column);
    }
    if options.includes("links") {
        links::measure(flavour, &mut column);
    }
    if options.includes("chaos") {
        chaos::measure(flavour, options.chaos, options.seed, &mut column);
    }
    if options.includes("grey") {
        grey::measure(flavour, options.chaos, options.seed, &mut column);
    }
    if options.includes("power") {
        power::measure(flavour, &mut column);
    }
    if options.includes("throughput") {
        throughput::measure(flavour, &mut column);
    }
    column
}
