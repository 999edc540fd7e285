//! House rules that a compiler does not check.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const CRATES: [&str; 5] = ["protocol", "log", "replication", "metadata", "coordinator"];
const PURE: [&str; 4] = ["protocol", "replication", "metadata", "coordinator"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All Rust files below a directory, build products left out.
fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).expect("the directory is readable") {
        let path = entry.expect("its entries are readable").path();
        let name = path.file_name().expect("an entry has a name").to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" && name != "klamm-data" {
                files.extend(rust_files(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

#[test]
fn every_file_says_what_it_owns() {
    let silent: Vec<_> = rust_files(root())
        .into_iter()
        .filter(|path| !read(path).trim_start().starts_with("//!"))
        .collect();
    assert!(silent.is_empty(), "no //! at the top of {silent:#?}");
}

#[test]
fn no_file_is_a_dumping_ground() {
    let named_badly: Vec<_> = rust_files(root())
        .into_iter()
        .filter(|path| {
            let stem = path.file_stem().unwrap().to_string_lossy();
            let stem = stem.trim_end_matches('s');
            matches!(stem, "util" | "utility" | "helper" | "common" | "misc" | "mod")
        })
        .collect();
    assert!(named_badly.is_empty(), "put it on the noun that it is about: {named_badly:#?}");
}

/// The most methods of one type.
const MAX_METHODS: usize = 55;
/// The types that have more, with what they have. They may only become smaller.
const LARGE_TYPES: [(&str, usize); 5] =
    [("Controller", 96), ("Log", 73), ("LogManager", 99), ("Partition", 78), ("Quorum", 145)];

/// The methods of each type of production code, over all its files: cutting a file does not make an object smaller.
fn methods_of_types() -> BTreeMap<(PathBuf, String), usize> {
    let mut counts = BTreeMap::new();
    let roots = CRATES.iter().map(|name| root().join(name).join("src")).chain([root().join("src")]);
    for source_root in roots {
        for path in rust_files(&source_root) {
            let source = read(&path);
            let mut type_name = None;
            for line in source.lines() {
                if let Some(rest) = line.strip_prefix("impl") {
                    type_name = inherent(rest);
                } else if line.starts_with('}') {
                    type_name = None;
                } else if line.starts_with("    ")
                    && !line.starts_with("     ")
                    && is_function(line)
                    && let Some(name) = &type_name
                {
                    *counts.entry((source_root.clone(), name.clone())).or_default() += 1;
                }
            }
        }
    }
    counts
}

/// The type of an inherent impl, from what stands behind `impl`.
fn inherent(rest: &str) -> Option<String> {
    if rest.contains(" for ") {
        return None;
    }
    let (_, name) = rest.split_once(' ')?;
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
    Some(name[..end].to_owned())
}

fn is_function(line: &str) -> bool {
    let before = line.trim_start().split("fn ").next().unwrap_or_default();
    let is_modifier = |word: &str| {
        matches!(word, "const" | "async") || word.starts_with("pub") || word.ends_with(')')
    };
    line.contains("fn ") && before.split_whitespace().all(is_modifier)
}

#[test]
fn no_type_has_more_methods_than_one_can_know() {
    let counts = methods_of_types();
    let limit = |name: &str| {
        LARGE_TYPES.iter().find(|(large, _)| *large == name).map_or(MAX_METHODS, |(_, has)| *has)
    };
    let too_large: Vec<_> =
        counts.iter().filter(|((_, name), count)| **count > limit(name)).collect();
    assert!(too_large.is_empty(), "these want to be several types: {too_large:#?}");
    for (name, listed) in LARGE_TYPES {
        let most = counts.iter().filter(|((_, of), _)| of == name).map(|(_, count)| *count).max();
        assert_eq!(most, Some(listed), "{name} has become smaller: note it, so that it stays so");
    }
}

#[test]
fn the_lower_crates_know_no_runtime_and_the_four_in_the_middle_not_each_other() {
    for name in CRATES {
        let manifest = read(&root().join(name).join("Cargo.toml"));
        let dependencies = manifest.split("[dev-dependencies]").next().unwrap();
        assert!(!dependencies.contains("tokio"), "{name} names tokio");
        for other in CRATES.iter().filter(|other| **other != "protocol") {
            assert!(
                !dependencies.contains(&format!("klamm-{other}.workspace")),
                "{name} depends on {other}"
            );
        }
    }
}

#[test]
fn the_pure_crates_touch_no_file_and_no_clock() {
    let forbidden =
        ["std::fs", "std::net", "Instant::now", "SystemTime::now", "HashMap", "HashSet"];
    for name in PURE {
        for path in rust_files(&root().join(name).join("src")) {
            let source = read(&path);
            let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
            for line in code {
                let found = forbidden.iter().find(|word| line.contains(**word));
                assert!(found.is_none(), "{}: {line}", path.display());
            }
        }
    }
}

/// The rooms of `src/`, from the top down. What each needs is below it; arrows up or in a circle grow into a knot.
const ROOMS: [&str; 15] = [
    "server",
    "cli",
    "api",
    "coordinator",
    "cluster",
    "replica",
    "controller",
    "metadata_cache",
    "security",
    "net",
    "broker_session",
    "logging",
    "config",
    "owner",
    "blocking",
];
/// What every room may name: they name no room.
const GROUND: [&str; 2] = ["clock", "random"];

/// The rooms that a file names by `crate::`, with the line.
fn rooms_named(source: &str) -> Vec<(String, String)> {
    let mut named = Vec::new();
    for line in source.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for after in line.split("crate::").skip(1) {
            let names: Vec<&str> = match after.strip_prefix('{') {
                // One level is enough: rustfmt groups no deeper here.
                Some(group) => group.split(['}', ',']).collect(),
                None => vec![after],
            };
            let first = |name: &str| -> String {
                name.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
            };
            named.extend(names.into_iter().map(first).map(|room| (room, line.trim().to_owned())));
        }
    }
    named
}

#[test]
fn arrows_between_the_rooms_of_src_point_down() {
    let src = root().join("src");
    let known = |room: &str| ROOMS.contains(&room) || GROUND.contains(&room);
    let mut wrong = Vec::new();
    for path in rust_files(&src) {
        let inside = path.strip_prefix(&src).unwrap();
        let room = inside.iter().next().unwrap().to_string_lossy().replace(".rs", "");
        if room == "lib" || room == "main" {
            continue;
        }
        assert!(known(&room), "{room} has no place in ROOMS: which rooms may it name?");
        let floor = |room: &str| ROOMS.iter().position(|other| *other == room);
        for (named, line) in rooms_named(&read(&path)) {
            // A capital is a public name of the crate itself.
            let is_up = known(&named)
                && floor(&named) < floor(&room).or(Some(ROOMS.len()))
                && floor(&named).is_some();
            if is_up || named.starts_with(char::is_uppercase) && room != "server" && room != "cli" {
                wrong.push(format!("{}: {line}", inside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that point up: {wrong:#?}");
}

#[test]
fn every_api_of_both_tables_has_its_handler_file_and_every_file_its_api() {
    let table = klamm::compatibility::handler_modules();
    let files: BTreeSet<String> = fs::read_dir(root().join("src/api/handlers"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(table, files);
}

#[test]
fn generated_documents_are_current() {
    let differences = read(&root().join("tests/conformance/known-differences.tsv"));
    let expected = klamm::compatibility::document(&differences);
    let path = root().join("docs/compatibility.md");
    if std::env::var_os("KLAMM_UPDATE_DOCS").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    assert!(
        read(&path) == expected,
        "docs/compatibility.md is old: run KLAMM_UPDATE_DOCS=1 cargo test --test tidy"
    );
}

#[test]
fn nothing_names_a_machine_path() {
    let offending: Vec<_> = rust_files(root())
        .into_iter()
        .filter(|path| {
            // The words are put together here, or this file would find itself.
            let source = read(path);
            ["/ro".to_owned() + "ot/", "/wo".to_owned() + "rk/", "/ho".to_owned() + "me/"]
                .iter()
                .any(|word| source.contains(word))
        })
        .collect();
    assert!(offending.is_empty(), "{offending:#?}");
}

#[test]
fn the_walks_of_the_architecture_name_functions_that_are_there() {
    let text = read(&root().join("ARCHITECTURE.md"));
    let (_, walks) = text.split_once("## Four walks").unwrap();
    let (walks, _) = walks.split_once("\n## ").unwrap();
    let mut named = 0;
    for line in walks.lines() {
        let mut quoted = line.split('`').skip(1).step_by(2);
        let Some(path) = quoted.next().filter(|path| path.ends_with(".rs")) else { continue };
        let source = read(&root().join(path));
        for function in quoted {
            let is_there = source.contains(&format!("fn {function}("))
                || source.contains(&format!("fn {function}<"));
            assert!(is_there, "{path} has no {function}: {line}");
            named += 1;
        }
    }
    assert!(named > 50, "{named} functions are named");
}
