//! Measurements side by side, as tables that go into a document as they are.

use crate::broker::Flavour;
use crate::catalogue::{Case, Target};
use crate::figures::{Figure, Spread};
use crate::measurement::Sample;

/// The measurements of one workload, in the order in which they were made.
#[derive(Debug)]
pub(crate) struct Comparison {
    case: &'static Case,
    kafka: Vec<Sample>,
    klamm: Vec<Sample>,
}

impl Comparison {
    pub(crate) fn of(case: &'static Case) -> Self {
        Self { case, kafka: Vec::new(), klamm: Vec::new() }
    }

    pub(crate) fn add(&mut self, flavour: Flavour, sample: Sample) {
        match flavour {
            Flavour::Kafka => self.kafka.push(sample),
            Flavour::Klamm => self.klamm.push(sample),
        }
    }

    /// Klamm's figure over Kafka's, repetition by repetition. `None` when one of them was not driven.
    fn ratio(&self, figure: Figure) -> Option<Spread> {
        let pairs = self.klamm.iter().zip(&self.kafka);
        Spread::of(pairs.map(|(klamm, kafka)| figure.of(klamm) / figure.of(kafka)))
    }

    fn target(&self, figure: Figure) -> Option<&Target> {
        self.case.targets.iter().find(|target| target.figure == figure)
    }
}

fn spread(samples: &[Sample], figure: Figure) -> Option<Spread> {
    Spread::of(samples.iter().map(|sample| figure.of(sample)))
}

fn cell(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// All figures of one workload.
pub(crate) fn print(comparison: &Comparison) {
    let Case { name, what, setting, .. } = comparison.case;
    println!("\n{name}: {what} ({setting})\n");
    println!("| figure | Kafka | Klamm | Klamm/Kafka | target |");
    println!("| --- | --- | --- | --- | --- |");
    for figure in Figure::ALL {
        println!(
            "| {} | {} | {} | {} | {} |",
            figure.unit(),
            cell(spread(&comparison.kafka, figure)),
            cell(spread(&comparison.klamm, figure)),
            cell(comparison.ratio(figure)),
            comparison
                .target(figure)
                .map(|target| format!("{:.2}", target.ratio))
                .unwrap_or_default(),
        );
    }
}

/// The figures that have a target, and whether they reach it; and the memory of it all.
pub(crate) fn print_summary(comparisons: &[Comparison]) {
    println!("\n| workload | figure | Klamm/Kafka | target | reached |");
    println!("| --- | --- | --- | --- | --- |");
    for comparison in comparisons {
        for target in comparison.case.targets {
            let Some(ratio) = comparison.ratio(target.figure) else { continue };
            let reached = if ratio.median <= target.ratio { "yes" } else { "no" };
            let (name, unit) = (comparison.case.name, target.figure.unit());
            println!("| {name} | {unit} | {ratio} | {:.2} | {reached} |", target.ratio);
        }
    }
    for (flavour, samples) in [
        (Flavour::Kafka, comparisons.iter().flat_map(|each| &each.kafka).collect::<Vec<_>>()),
        (Flavour::Klamm, comparisons.iter().flat_map(|each| &each.klamm).collect()),
    ] {
        let peaks = samples.into_iter().map(|sample| Figure::PeakMemory.of(sample));
        if let Some(peaks) = Spread::of(peaks) {
            println!("\nPeak memory of {flavour} over all workloads: {:.0} MiB", peaks.max);
        }
    }
}
