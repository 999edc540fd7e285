//! The same requests to Apache Kafka and to the broker under test, every field of every answer compared.
//!
//! `Wire.java` sends and compares; `known-differences.tsv` names the scenarios that differ, and why. The list is exact: a
//! difference that is not listed fails the test, and so does a listed scenario in which the two agree.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use klamm_testbed::{Broker, Flavour, Output, Program, Setup, compiled, jvm, kafka_jars};

/// The areas that this broker claims to cover.
const AREAS: &[&str] = &[
    "admin",
    "apirange",
    "apiversions",
    "compressed",
    "configs",
    "controller",
    "fetch",
    "groups",
    "metadata",
    "offsets",
    "produce",
    "protocol",
    "topics",
];
/// Fewer would mean that scenarios were lost: the comparison must not pass by comparing nothing.
const SCENARIOS_AT_LEAST: usize = 1_100;
const BUDGET: Duration = Duration::from_secs(600);
const HEAP_MIB: u32 = 400;
/// Scenarios that are asked once more. More than these are no accident.
const MAX_ASKED_AGAIN: usize = 5;

/// What became of one scenario: nothing, or how the answers differ.
type Outcomes = BTreeMap<String, Option<String>>;

#[test]
fn answers_differ_from_those_of_kafka_only_where_it_is_written_down() {
    let reference = Setup::kafka().start();
    let mut under_test = Broker::start();
    let areas = format!("^({})\\.", AREAS.join("|"));
    let report = compare(reference.bootstrap(), under_test.bootstrap(), &areas);
    assert!(under_test.is_running(), "the broker did not survive the scenarios");
    let mut outcomes = outcomes_of(&report.stdout);
    assert!(
        outcomes.len() >= SCENARIOS_AT_LEAST,
        "only {} scenarios ran: {report}",
        outcomes.len()
    );

    let list = match Flavour::under_test() {
        Flavour::Klamm => include_str!("known-differences.tsv"),
        Flavour::Kafka => "",
    };
    let known = known_differences(list);
    // On a busy machine Kafka's broker lags behind what its controller has answered: what differs is asked once more,
    // with no other scenario beside it. What differs then as well, differs.
    let again = unlisted_names(&outcomes, &known);
    if (1..=MAX_ASKED_AGAIN).contains(&again.len()) {
        let exactly = again.iter().map(|name| name.replace('.', "\\.")).collect::<Vec<_>>();
        let exactly = format!("^({})$", exactly.join("|"));
        let report = compare(reference.bootstrap(), under_test.bootstrap(), &exactly);
        println!("asked again: {exactly}");
        outcomes.extend(outcomes_of(&report.stdout));
    }
    let unlisted = unlisted(&outcomes, &known);
    let outdated = outdated(&outcomes, &known);
    assert!(
        unlisted.is_empty() && outdated.is_empty(),
        "{} scenarios differ from Kafka and known-differences.tsv does not say so:\n{}\n\
         {} are listed there, but agree or do not exist: {outdated:?}",
        unlisted.len(),
        unlisted.join("\n"),
        outdated.len(),
    );
}

/// Sends the scenarios whose names match to both and returns the driver's report.
fn compare(reference: &str, under_test: &str, names: &str) -> Output {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
    let classes = compiled(&here.join("Wire.java"));
    let mut wire = jvm(&[&classes], HEAP_MIB);
    wire.env("KAFKA_LIBS", kafka_jars())
        .arg("Wire")
        .arg(format!("--scenarios={}", here.join("scenarios").display()))
        .arg(format!("--budget={}", BUDGET.as_secs()))
        .arg(format!("REF={reference}"))
        .arg(format!("SUT={under_test}"))
        .arg(names);
    Program::from(wire).limit(BUDGET + Duration::from_secs(60)).run()
}

/// Reads the driver's report: `PASS name` or `FAIL name`, the latter followed by indented lines.
fn outcomes_of(report: &str) -> Outcomes {
    let mut outcomes = Outcomes::new();
    let mut failed = None;
    for line in report.lines() {
        if let Some(name) = line.strip_prefix("PASS ") {
            outcomes.insert(name.to_owned(), None);
        } else if let Some(name) = line.strip_prefix("FAIL ") {
            outcomes.insert(name.to_owned(), Some(String::new()));
            failed = Some(name.to_owned());
        } else if line.starts_with("  ")
            && let Some(Some(difference)) = failed.as_ref().and_then(|name| outcomes.get_mut(name))
        {
            difference.push_str(line);
            difference.push('\n');
        }
    }
    outcomes
}

/// Scenario and reason of each line that is not a comment.
fn known_differences(list: &str) -> BTreeMap<&str, &str> {
    let lines = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_once('\t').expect("scenario, tab, reason")).collect()
}

/// The differences that are not listed, as the report tells them.
fn unlisted(outcomes: &Outcomes, known: &BTreeMap<&str, &str>) -> Vec<String> {
    let told = |name: &String| Some(format!("{name}\n{}", outcomes[name].as_ref()?));
    unlisted_names(outcomes, known).iter().filter_map(told).collect()
}

fn unlisted_names(outcomes: &Outcomes, known: &BTreeMap<&str, &str>) -> Vec<String> {
    let failed = outcomes.iter().filter(|(_, outcome)| outcome.is_some());
    let names = failed.map(|(name, _)| name);
    names.filter(|name| !known.contains_key(name.as_str())).cloned().collect()
}

/// The listed scenarios that did not fail.
fn outdated<'a>(outcomes: &Outcomes, known: &BTreeMap<&'a str, &str>) -> Vec<&'a str> {
    let fails = |name: &str| outcomes.get(name).is_some_and(Option::is_some);
    known.keys().copied().filter(|name| !fails(name)).collect()
}

#[test]
fn a_report_is_held_against_the_list_in_both_directions() {
    let report =
        "PASS a.one\nFAIL a.two\n  step: x\n    .code: 0 != 3\nPASS a.three\n\na 2 passed\n";
    let outcomes = outcomes_of(report);
    assert_eq!(outcomes.len(), 3);
    assert_eq!(unlisted_names(&outcomes, &known_differences("")), ["a.two"]);
    assert_eq!(outcomes["a.two"].as_deref(), Some("  step: x\n    .code: 0 != 3\n"));

    let known = known_differences("# scenario\treason\na.two\tas it should be\n");
    assert!(unlisted(&outcomes, &known).is_empty() && outdated(&outcomes, &known).is_empty());
    let known = known_differences("a.one\tagrees\na.gone\tdoes not exist\n");
    assert_eq!(unlisted(&outcomes, &known), ["a.two\n  step: x\n    .code: 0 != 3\n"]);
    assert_eq!(outdated(&outcomes, &known), ["a.gone", "a.one"]);
}
