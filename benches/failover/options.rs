//! The command line.

use std::time::Duration;

use klamm_testbed::Flavour;

const DEFAULT_REPETITIONS: usize = 3;
const DEFAULT_CHAOS_MINUTES: u64 = 10;
const DEFAULT_SEED: u64 = 1;

const HELP: &str = "\
cargo bench --bench failover -- [--reps N] [--minutes N] [--seed N] [--only kafka|klamm] [PART]

  --reps N      how often each fault is measured (3)
  --minutes N   how long chaos kills random nodes, and grey does what else can happen to them (10 each)
  --seed N      which nodes these are (1)
  --only B      measures one broker alone
  PART          faults, full, links, chaos, grey, power or throughput; all of them without it

Needs Java and Maven, root for links and grey faults (network namespaces), full disks and the power cut (loop devices). Takes about 70 minutes for both brokers.";

/// What was asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Options {
    /// Measurements of each fault.
    pub(crate) repetitions: usize,
    /// How long nodes are killed at random.
    pub(crate) chaos: Duration,
    /// Which nodes those are.
    pub(crate) seed: u64,
    /// The only broker to measure.
    only: Option<Flavour>,
    /// The only part to run.
    part: Option<String>,
}

/// What `main` is to do.
#[derive(Debug)]
pub(crate) enum Wanted {
    Run(Options),
    /// Only to say this.
    Nothing(&'static str),
}

impl Options {
    pub(crate) fn includes(&self, part: &str) -> bool {
        self.part.as_ref().is_none_or(|only| only == part)
    }

    /// In the order in which they are measured.
    pub(crate) fn flavours(&self) -> impl Iterator<Item = Flavour> {
        let only = self.only;
        [Flavour::Kafka, Flavour::Klamm]
            .into_iter()
            .filter(move |flavour| only.is_none_or(|only| only == *flavour))
    }
}

/// Reads the arguments. Cargo itself adds `--bench`, but only for `cargo bench`: `cargo test --benches` must not kill nodes for
/// an hour.
///
/// # Panics
/// When an argument makes no sense.
pub(crate) fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Wanted {
    let mut options = Options {
        repetitions: DEFAULT_REPETITIONS,
        chaos: Duration::from_secs(DEFAULT_CHAOS_MINUTES * 60),
        seed: DEFAULT_SEED,
        only: None,
        part: None,
    };
    let mut is_bench = false;
    while let Some(argument) = arguments.next() {
        let mut value =
            || arguments.next().unwrap_or_else(|| panic!("{argument} wants a value\n{HELP}"));
        let mut number = || value().parse::<u64>().expect("a whole number");
        match argument.as_str() {
            "--bench" => is_bench = true,
            "--help" | "-h" => return Wanted::Nothing(HELP),
            "--reps" => options.repetitions = usize::try_from(number()).expect("not that many"),
            "--minutes" => options.chaos = Duration::from_secs(number() * 60),
            "--seed" => options.seed = number(),
            "--only" => options.only = Some(flavour(&value())),
            "faults" | "full" | "links" | "chaos" | "grey" | "power" | "throughput" => {
                options.part = Some(argument)
            }
            _ => panic!("there is no {argument}\n{HELP}"),
        }
    }
    assert!(options.repetitions > 0, "--reps is at least 1");
    if is_bench {
        Wanted::Run(options)
    } else {
        Wanted::Nothing("nodes are killed by `cargo bench --bench failover` only")
    }
}

fn flavour(name: &str) -> Flavour {
    match name {
        "kafka" => Flavour::Kafka,
        "klamm" => Flavour::Klamm,
        _ => panic!("--only is kafka or klamm, not {name}"),
    }
}
