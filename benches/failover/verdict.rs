//! A history's anomalies, counted.

use std::fmt;

use klamm_faults::{Anomaly, History};

/// How many of each kind there are.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Verdict {
    acknowledged: usize,
    given_up: usize,
    lost: usize,
    duplicated: usize,
    reordered: usize,
    others: usize,
}

/// So many anomalies are told one by one.
const SHOWN: usize = 20;

impl Verdict {
    pub(crate) fn on(history: &History) -> Self {
        let mut verdict = Self {
            acknowledged: history.acknowledged.len(),
            given_up: history.failed.len(),
            ..Self::default()
        };
        for (at, anomaly) in history.anomalies().into_iter().enumerate() {
            if at < SHOWN {
                eprintln!("  {anomaly}");
            }
            match anomaly {
                Anomaly::Lost(_) => verdict.lost += 1,
                Anomaly::Duplicated { .. } => verdict.duplicated += 1,
                Anomaly::Reordered { .. } => verdict.reordered += 1,
                _ => verdict.others += 1,
            }
        }
        verdict
    }

    /// Whether every promise to a client was kept.
    pub(crate) fn is_clean(&self) -> bool {
        self.lost + self.duplicated + self.reordered + self.others == 0
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, given_up, lost, duplicated, reordered, others } = self;
        write!(
            f,
            "{lost} of {acknowledged} lost, {duplicated} duplicated, {reordered} reordered, \
             {others} other anomalies, {given_up} given up"
        )
    }
}
