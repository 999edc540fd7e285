//! The methods that are known to fail, with their reasons.

use std::collections::{BTreeMap, BTreeSet};

/// The reason of methods that pass or fail by chance, whoever's brokers they run against. They are never run.
const RACE: &str = "a race in the test itself";

/// `known-red.tsv`.
#[derive(Debug)]
pub(crate) struct KnownRed<'a> {
    reasons: BTreeMap<&'a str, &'a str>,
}

impl<'a> KnownRed<'a> {
    /// Reads a list: `class#method`, a tab, the reason. Lines that begin with `#` are comments.
    pub(crate) fn of(list: &'a str) -> Self {
        let lines = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let fields = lines.map(|line| line.split_once('\t').expect("method, tab, reason"));
        Self { reasons: fields.collect() }
    }

    pub(crate) fn contains(&self, method: &str) -> bool {
        self.reasons.contains_key(method)
    }

    /// Whether it fails by chance only.
    pub(crate) fn is_race(&self, method: &str) -> bool {
        self.reasons.get(method) == Some(&RACE)
    }

    pub(crate) fn methods(&self) -> BTreeSet<String> {
        self.reasons.keys().map(|method| (*method).to_owned()).collect()
    }

    /// How many methods are listed for each reason.
    pub(crate) fn counts(&self) -> BTreeMap<&'a str, usize> {
        let mut counts = BTreeMap::new();
        for reason in self.reasons.values() {
            *counts.entry(*reason).or_default() += 1;
        }
        counts
    }
}
