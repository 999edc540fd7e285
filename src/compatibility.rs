//! `docs/compatibility.md`: what is served, made from the table that serves it.

use std::fmt::Write;

use klamm_protocol::messages;

use crate::dispatch::{Row, TABLE};
use crate::features;

/// The document. `differences` is the table of conformance scenarios that are answered otherwise than
/// by Apache Kafka: lines of scenario, tab, reason; `#` begins a comment.
pub fn document(differences: &str) -> String {
    let mut out = String::from(
        "# Compatibility with Apache Kafka 4.3.1\n\n\
         Made from the table of APIs in `src/dispatch.rs` and from\n\
         `tests/conformance/known-differences.tsv` by `KLAMM_UPDATE_DOCS=1 cargo test --test tidy`. Do not edit.\n\n\
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

/// The modules under `src/handlers/` that the table should name: each API's in snake case.
pub fn handler_modules() -> Vec<String> {
    TABLE.iter().map(|row| snake(row.schema.name)).collect()
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
