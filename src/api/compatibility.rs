//! Generates `docs/compatibility.md` from the table of APIs.

use std::collections::BTreeSet;
use std::fmt::Write;

use klamm_protocol::messages;

use crate::api::table::{CONTROLLER_TABLE, Row, TABLE};
use crate::cluster::features;

/// The deliberate differences: the subject, what Apache Kafka does, what Klamm does, and what changes that.
const DELIBERATE: &str = include_str!("compatibility/deliberate.tsv");

/// Generates the document. `differences` is the table of conformance scenarios whose answers differ from Apache
/// Kafka's: lines of scenario, tab, reason; `#` begins a comment.
pub fn document(differences: &str) -> String {
    let mut out = String::from(
        "# Compatibility with Apache Kafka 4.3.1\n\n\
         Made from the table of APIs in `src/api/table.rs`, from\n\
         `tests/conformance/known-differences.tsv` and `src/api/compatibility/deliberate.tsv` by\n\
         `KLAMM_UPDATE_DOCS=1 cargo test --test tidy`. Do not edit.\n\n\
         ## APIs\n\n\
         | key | API | Kafka 4.3.1 | served | advertised |\n|--:|---|---|---|---|\n",
    );
    for api in messages::APIS.iter().filter(|api| api.on_broker) {
        let row = TABLE.iter().find(|row| row.schema.key == api.key);
        let (first, last) = api.versions;
        let last = if api.latest_unstable { last - 1 } else { last };
        let (served, advertised) = row.map_or(("-".to_owned(), "-".to_owned()), versions);
        put(
            &mut out,
            format_args!(
                "| {} | {} | {first}-{last} | {served} | {advertised} |",
                api.key, api.name
            ),
        );
    }
    out.push_str("\n## Features\n\n| feature | levels |\n|---|---|\n");
    for feature in features::SUPPORTED {
        put(&mut out, format_args!("| {} | {}-{} |", feature.name, feature.min, feature.max));
    }
    out.push_str(
        "\n## Deliberate differences\n\n\
         | what | Apache Kafka | Klamm | to have it as Apache Kafka |\n|---|---|---|---|\n",
    );
    for line in DELIBERATE.lines().skip(1) {
        put(&mut out, format_args!("| {} |", line.split('\t').collect::<Vec<_>>().join(" | ")));
    }
    out.push_str(
        "\n## Known differences\n\n\
         Scenarios of `tests/conformance/` that Klamm answers otherwise, and why. The test fails when one \
         of them passes, or another fails.\n\n| scenario | reason |\n|---|---|\n",
    );
    let lines = differences.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    for (scenario, reason) in lines.filter_map(|line| line.split_once('\t')) {
        put(&mut out, format_args!("| `{scenario}` | {reason} |"));
    }
    out
}

fn versions(row: &Row) -> (String, String) {
    let last = row.served.end();
    (format!("{}-{last}", row.served.start()), format!("{}-{last}", row.advertised_from))
}

fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(out, "{line}").expect("writing to a String never fails");
}

/// The modules that `src/api/handlers/` must have: the name of each API of the two tables in snake case.
pub fn handler_modules() -> BTreeSet<String> {
    TABLE.iter().chain(CONTROLLER_TABLE.iter()).map(|row| snake(row.schema.name)).collect()
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for (position, character) in name.char_indices() {
        if character.is_uppercase() && position > 0 {
            out.push('_');
        }
        out.extend(character.to_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use klamm_metadata::config_def::ConfigDef;

    use super::*;

    #[test]
    fn every_deliberate_difference_is_told_whole_and_names_keys_that_there_are() {
        for line in DELIBERATE.lines() {
            assert_eq!(line.split('\t').filter(|column| !column.is_empty()).count(), 4, "{line}");
            let remedy = line.rsplit('\t').next().unwrap_or_default();
            let settings = remedy.split('`').skip(1).step_by(2);
            for (key, _) in settings.filter_map(|setting| setting.split_once('=')) {
                assert!(ConfigDef::broker().contains(key), "{key}");
            }
        }
    }
}
