//! Generates the messages of `src/messages.rs` from the field tables in `schema/`.

#[path = "build/schema.rs"]
mod schema;

#[path = "build/generate.rs"]
mod generate;

use std::path::Path;
use std::{env, fs};

/// The tables, in the order in which their messages are generated.
const TABLES: [&str; 6] = ["client", "metadata", "group", "transaction", "share", "raft"];

fn main() {
    println!("cargo::rerun-if-changed=schema");
    println!("cargo::rerun-if-changed=build");
    let mut messages = Vec::new();
    for table in TABLES {
        let path = format!("schema/{table}.schema");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        messages.extend(schema::parse(&path, &text));
    }
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    let file = Path::new(&out).join("messages.rs");
    fs::write(&file, generate::messages(&messages))
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}
