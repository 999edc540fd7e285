//! Apache Kafka's own integration tests against Klamm: its published test jars, run with a kit of ours that starts processes
//! instead of brokers in the JVM (`kit/`).
//!
//! `known-red.tsv` names the methods that fail, and why. The list is exact: a method that fails and is not listed fails the test,
//! and so does one that is listed and passes. `cargo test` runs a part; `KLAMM_KAFKA_SUITES` asks for more, the listed ones too.

mod known_red;
mod report;
mod run;
mod suites;

use klamm_testbed::Flavour;

use crate::known_red::KnownRed;
use crate::report::Report;
use crate::run::Choice;
use crate::suites::Scope;

/// Methods that are run once more, with nothing else beside them. More than these are no accident.
const MAX_RUN_AGAIN: usize = 12;

#[test]
fn kafkas_own_tests_fail_only_where_it_is_written_down() {
    let scope = Scope::from_environment();
    let known = KnownRed::of(match Flavour::under_test() {
        Flavour::Klamm => include_str!("known-red.tsv"),
        Flavour::Kafka => "",
    });
    let mut report = run::run(scope, &Choice::AllBut(known.methods()), run::LIMIT_S);
    // Kafka's own limits are made for machines with nothing else to do.
    let again = report.failures_but(&known);
    if (1..=MAX_RUN_AGAIN).contains(&again.len()) {
        println!("run again: {again:?}");
        report.update(run::run(scope, &Choice::Only(again.into_iter().collect()), run::LIMIT_S));
    }
    if scope.runs_the_red() {
        let listed = report.known_to_fail(&known);
        report.update(run::run(scope, &Choice::Only(listed), run::RED_LIMIT_S));
    }
    report.print_summary(&known);
    assert!(
        report.found() >= scope.methods_at_least(),
        "only {} methods were found",
        report.found()
    );
    let unlisted = report.told_failures_but(&known);
    let outdated = report.outdated(&known, scope);
    assert!(
        unlisted.is_empty() && outdated.is_empty(),
        "{} methods fail and known-red.tsv does not say so:\n{}\n{} are listed there, but pass or do not exist:\n{}",
        unlisted.len(),
        unlisted.join("\n"),
        outdated.len(),
        outdated.join("\n"),
    );
}

#[test]
fn a_report_is_held_against_the_list_in_both_directions() {
    let told = "FOUND\ta.A#one\nFOUND\ta.A#two\nFOUND\ta.A#three\nnoise\nPASS\ta.A#one\t12\n\
                FAIL\ta.A#two\t7\tjava.lang.Error: x\n";
    let mut report = Report::default();
    report.read(told);
    assert_eq!(report.found(), 3);
    let nothing = KnownRed::of("# method\treason\n");
    // What was begun and of which nothing more was heard has failed.
    report.expect_ended(&Choice::AllBut(Default::default()));
    assert_eq!(report.failures_but(&nothing), ["a.A#three", "a.A#two"]);

    let known = KnownRed::of("a.A#two\ttransactions\na.A#three\ttransactions\n");
    assert!(report.told_failures_but(&known).is_empty());
    assert!(report.outdated(&known, Scope::All).is_empty());
    let known = KnownRed::of("a.A#two\ta race in the test itself\na.A#three\ttransactions\n");
    assert!(report.known_to_fail(&known).into_iter().eq(["a.A#three"]));
    let known = KnownRed::of("a.A#one\ttransactions\na.A#gone\ttransactions\n");
    assert_eq!(report.outdated(&known, Scope::All), ["a.A#gone", "a.A#one"]);
}
