//! What became of each method, as the runners tell it (see `runner/klamm/suites/runner/Report.java`).

use std::collections::{BTreeMap, BTreeSet};

use crate::known_red::KnownRed;
use crate::run::Choice;
use crate::suites::Scope;

/// How a method ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed(String),
    /// Kafka itself does not run it.
    Skipped,
}

/// What became of each method.
#[derive(Debug, Default)]
pub(crate) struct Report {
    found: BTreeSet<String>,
    outcomes: BTreeMap<String, Outcome>,
}

impl Report {
    /// Reads what a runner has told.
    pub(crate) fn read(&mut self, told: &str) {
        for line in told.lines() {
            let mut fields = line.split('\t');
            let (Some(kind), Some(method)) = (fields.next(), fields.next()) else { continue };
            let outcome = match kind {
                "FOUND" => {
                    self.found.insert(method.to_owned());
                    continue;
                }
                "PASS" => Outcome::Passed,
                "FAIL" => Outcome::Failed(fields.nth(1).unwrap_or_default().to_owned()),
                "SKIP" => Outcome::Skipped,
                _ => continue,
            };
            self.outcomes.insert(method.to_owned(), outcome);
        }
    }

    /// What was chosen and found has failed if nothing more was told of it: its runner ended before it did.
    pub(crate) fn expect_ended(&mut self, choice: &Choice) {
        for method in self.found.iter().filter(|method| choice.includes(method)) {
            let unheard = || Outcome::Failed("nothing was heard of it".to_owned());
            self.outcomes.entry(method.clone()).or_insert_with(unheard);
        }
    }

    /// Puts the outcomes of a later run in the place of earlier ones.
    pub(crate) fn update(&mut self, later: Self) {
        self.found.extend(later.found);
        self.outcomes.extend(later.outcomes);
    }

    /// How many methods there are.
    pub(crate) fn found(&self) -> usize {
        self.found.len()
    }

    /// The listed methods that there are.
    pub(crate) fn known_to_exist(&self, known: &KnownRed<'_>) -> BTreeSet<String> {
        self.found.iter().filter(|method| known.contains(method)).cloned().collect()
    }

    /// Those of them of which each run can tell whether they still fail.
    pub(crate) fn known_to_fail(&self, known: &KnownRed<'_>) -> BTreeSet<String> {
        let listed = self.known_to_exist(known);
        listed.into_iter().filter(|method| !known.is_race(method)).collect()
    }

    fn failed(&self) -> impl Iterator<Item = (&String, &String)> {
        self.outcomes.iter().filter_map(|(method, outcome)| match outcome {
            Outcome::Failed(told) => Some((method, told)),
            Outcome::Passed | Outcome::Skipped => None,
        })
    }

    /// The methods that failed and are not listed.
    pub(crate) fn failures_but(&self, known: &KnownRed<'_>) -> Vec<String> {
        let unlisted = self.failed().filter(|(method, _)| !known.contains(method));
        unlisted.map(|(method, _)| method.clone()).collect()
    }

    /// The same with what was told of them.
    pub(crate) fn told_failures_but(&self, known: &KnownRed<'_>) -> Vec<String> {
        let unlisted = self.failed().filter(|(method, _)| !known.contains(method));
        unlisted.map(|(method, told)| format!("{method}\t{told}")).collect()
    }

    /// The listed methods that passed or, where their class belongs to the scope, do not exist.
    pub(crate) fn outdated(&self, known: &KnownRed<'_>, scope: Scope) -> Vec<String> {
        let methods = known.methods().into_iter().filter(|method| scope.includes(method));
        let outdated = methods.filter(|method| match self.outcomes.get(method) {
            Some(Outcome::Failed(_)) => false,
            Some(Outcome::Passed | Outcome::Skipped) => true,
            None => !self.found.contains(method),
        });
        outdated.collect()
    }

    /// Counts, and the reasons of what is listed.
    pub(crate) fn print_summary(&self, known: &KnownRed<'_>) {
        let passed = self.outcomes.values().filter(|outcome| **outcome == Outcome::Passed).count();
        let red = self.known_to_exist(known).len();
        println!("{passed} methods pass, {red} are known to fail, {} were found", self.found());
        for (reason, count) in known.counts() {
            println!("{count:5}  {reason}");
        }
    }
}
