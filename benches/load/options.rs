//! The command line of the load generator.

use crate::broker::Flavour;

const DEFAULT_REPETITIONS: usize = 3;

const HELP: &str = "\
cargo bench --bench load -- [--reps N] [--scale F] [--only kafka|klamm] [FILTER]

  --reps N    how often each workload is measured on each broker (3)
  --scale F   how much of each workload's bytes or requests (1.0); 0.05 takes a few minutes
  --only B    drives one broker alone
  FILTER      the workloads whose names contain it";

/// What was asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Options {
    /// Measurements of each workload on each broker.
    pub(crate) repetitions: usize,
    /// Factor on every workload's size.
    pub(crate) scale: f64,
    /// The only broker to drive.
    pub(crate) only: Option<Flavour>,
    /// Part of the names of the workloads to run.
    pub(crate) filter: String,
}

/// What `main` is to do.
#[derive(Debug)]
pub(crate) enum Wanted {
    Run(Options),
    /// Only to say this.
    Nothing(&'static str),
}

impl Options {
    pub(crate) fn includes(&self, name: &str) -> bool {
        name.contains(&self.filter)
    }

    /// In the order in which they are driven.
    pub(crate) fn flavours(&self) -> impl Iterator<Item = Flavour> {
        let only = self.only;
        [Flavour::Kafka, Flavour::Klamm]
            .into_iter()
            .filter(move |flavour| only.is_none_or(|only| only == *flavour))
    }
}

/// Reads the arguments. Cargo itself adds `--bench`, but only for `cargo bench`: `cargo test --benches` must not drive load.
///
/// # Panics
/// When an argument makes no sense.
pub(crate) fn from_arguments(arguments: impl Iterator<Item = String>) -> Wanted {
    let mut options =
        Options { repetitions: DEFAULT_REPETITIONS, scale: 1.0, only: None, filter: String::new() };
    let mut is_bench = false;
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let mut value =
            || arguments.next().unwrap_or_else(|| panic!("{argument} wants a value\n{HELP}"));
        match argument.as_str() {
            "--bench" => is_bench = true,
            "--help" | "-h" => return Wanted::Nothing(HELP),
            "--reps" => options.repetitions = value().parse().expect("--reps is a number"),
            "--scale" => options.scale = value().parse().expect("--scale is a number"),
            "--only" => options.only = Some(flavour(&value())),
            flag if flag.starts_with('-') => panic!("there is no option {flag}\n{HELP}"),
            _ => options.filter = argument,
        }
    }
    assert!(options.repetitions > 0, "--reps is at least 1");
    assert!(options.scale > 0.0, "--scale is above 0");
    if is_bench {
        Wanted::Run(options)
    } else {
        Wanted::Nothing("load is driven by `cargo bench --bench load` only")
    }
}

fn flavour(name: &str) -> Flavour {
    match name {
        "kafka" => Flavour::Kafka,
        "klamm" => Flavour::Klamm,
        _ => panic!("--only is kafka or klamm, not {name}"),
    }
}
