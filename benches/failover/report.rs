//! The table: one row for each figure, one column for each broker.

use std::time::Duration;

use klamm_faults::{History, Stalls};
use klamm_testbed::Flavour;

use crate::verdict::Verdict;

/// One broker's figures, in the order in which they were measured.
#[derive(Debug)]
pub(crate) struct Column {
    flavour: Flavour,
    rows: Vec<(&'static str, String)>,
    /// Whether every history so far was as it should be.
    pub(crate) is_clean: bool,
}

impl Column {
    pub(crate) fn of(flavour: Flavour) -> Self {
        Self { flavour, rows: Vec::new(), is_clean: true }
    }

    /// Adds what became of a history, with what was done to the cluster meanwhile.
    pub(crate) fn judge(&mut self, row: &'static str, done: &str, history: &History) {
        let verdict = Verdict::on(history);
        self.is_clean &= verdict.is_clean();
        self.add(row, format!("{done}{verdict}"));
    }

    pub(crate) fn is_of(&self, flavour: Flavour) -> bool {
        self.flavour == flavour
    }

    /// Adds a figure, and says it at once: the table comes much later.
    pub(crate) fn add(&mut self, row: &'static str, figure: String) {
        eprintln!("{:?}: {row}: {figure}", self.flavour);
        self.rows.push((row, figure));
    }
}

/// Median (least .. greatest) in seconds.
pub(crate) fn seconds(times: &[Duration]) -> String {
    let mut times = times.to_vec();
    times.sort_unstable();
    let [least, .., greatest] = times[..] else {
        return times.first().map_or(String::new(), |time| format!("{:.2} s", time.as_secs_f64()));
    };
    let median = times[times.len() / 2].as_secs_f64();
    format!("{median:.2} s ({:.2}..{:.2})", least.as_secs_f64(), greatest.as_secs_f64())
}

/// What partitions of the failed node and all others had to wait.
pub(crate) fn stalls(measured: &[Stalls]) -> String {
    let led: Vec<Duration> = measured.iter().map(|stalls| stalls.led).collect();
    let others: Vec<Duration> = measured.iter().map(|stalls| stalls.others).collect();
    format!("{} / {}", seconds(&led), seconds(&others))
}

/// Prints the table as Markdown.
pub(crate) fn print(columns: &[Column]) {
    let names: Vec<String> = columns.iter().map(|column| format!("{:?}", column.flavour)).collect();
    println!("| event | {} |", names.join(" | "));
    println!("|---|{}", "---|".repeat(columns.len()));
    let Some(first) = columns.first() else { return };
    for (at, (row, _)) in first.rows.iter().enumerate() {
        let figures: Vec<&str> = columns.iter().map(|column| column.rows[at].1.as_str()).collect();
        println!("| {row} | {} |", figures.join(" | "));
    }
}
