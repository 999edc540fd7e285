//! `klamm config show`: every value in force and where it comes from.
//!
//! Keys that configure security features that Klamm does not have are shown too, with the error that stops a start.

use std::fmt::Write as _;

use klamm_metadata::config_def::synonyms::listener_base_name;
use klamm_metadata::config_def::{ConfigDef, ConfigKey, Visibility};

use crate::config::providers::is_of_providers;
use crate::config::{Loaded, Setting, Sources};

use super::{Console, ExitStatus, print};

const MASK: &str = "[hidden]";

/// Prints a line for each key, sorted, and the advice about them to the error stream.
pub(super) fn run(sources: &Sources, console: &mut Console<'_>) -> ExitStatus {
    let loaded = match Loaded::to_look_at(sources) {
        Ok(loaded) => loaded,
        Err(error) => {
            console.complain(error);
            return ExitStatus::Usage;
        }
    };
    for advice in &loaded.advice {
        console.complain(advice);
    }
    for refusal in &loaded.unprotected {
        console.complain(refusal);
    }
    match print(console, &listing(&loaded)) {
        ExitStatus::Ok if !loaded.unprotected.is_empty() => ExitStatus::Usage,
        status => status,
    }
}

fn listing(loaded: &Loaded) -> String {
    let settings = &loaded.settings;
    let mut lines: Vec<(String, String)> = settings
        .iter()
        .map(|(key, Setting { value, origin })| {
            let value = if is_secret(key) { MASK } else { value };
            let written = settings.written(key).map(|written| format!(", {}", escaped(written)));
            let line =
                format!("{key}={}  # {origin}{}", escaped(value), written.unwrap_or_default());
            (key.to_owned(), line)
        })
        .collect();
    let is_unset = |key: &&ConfigKey| {
        !settings.contains(key.name)
            && !matches!(key.visibility, Visibility::Internal | Visibility::DynamicOnly)
    };
    for key in ConfigDef::broker().iter().filter(is_unset) {
        lines.push((key.name.to_owned(), default_line(loaded, key)));
    }
    lines.sort();
    lines.into_iter().fold(String::new(), |mut text, (_, line)| {
        writeln!(text, "{line}").expect("a String takes everything");
        text
    })
}

fn default_line(loaded: &Loaded, key: &ConfigKey) -> String {
    // A value that another name of the key sets is in force too: node.id by broker.id.
    match loaded.config.configs.value(key.name) {
        Some(value) if key.default_value().as_ref() != Some(&value) => {
            format!("{}={}  # another name of it", key.name, escaped(&value.to_string()))
        }
        Some(value) => format!("{}={}  # default", key.name, escaped(&value.to_string())),
        None => format!("# {} is not set", key.name),
    }
}

/// Passwords, and every unknown key: its value may be a secret.
fn is_secret(key: &str) -> bool {
    let base = listener_base_name(key).unwrap_or(key);
    if is_of_providers(key) {
        return false;
    }
    match ConfigDef::broker().get(base) {
        Some(known) => known.is_sensitive(),
        None => !matches!(base, "super.users" | "allow.everyone.if.no.acl.found"),
    }
}

/// Escapes characters that would break the line or control a terminal, as in a properties file.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            c if c.is_control() => {
                write!(text, "\\u{:04x}", u32::from(c)).expect("a String takes everything");
            }
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pairs: &[(&str, &str)]) -> Vec<String> {
        let overrides =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let sources = Sources { overrides, ..Sources::default() };
        let loaded = Loaded::to_look_at(&sources).unwrap();
        listing(&loaded).lines().map(str::to_owned).collect()
    }

    fn has(lines: &[String], line: &str) -> bool {
        lines.iter().any(|shown| shown == line)
    }

    #[test]
    fn every_public_key_is_shown_with_its_source() {
        let lines = shown(&[("num.partitions", "3")]);
        assert!(has(&lines, "num.partitions=3  # --override"));
        assert!(has(&lines, "num.io.threads=8  # default"));
        assert!(has(&lines, "node.id=1  # Klamm's default: one node, id 1"));
        assert!(has(&lines, "broker.id=1  # another name of it"));
        assert!(has(&lines, "# log.retention.ms is not set"));
        assert!(has(&lines, "log.flush.before.ack=true  # default"));
        assert!(lines.len() > 340);
        assert!(!lines.iter().any(|line| line.starts_with("leader.replication.throttled.rate")));
    }

    #[test]
    fn secrets_and_unknown_keys_are_masked() {
        let lines = shown(&[
            ("ssl.keystore.password", "hunter2"),
            ("listener.name.a.plain.sasl.jaas.config", "hunter2"),
            ("my.token", "hunter2"),
            ("super.users", "User:admin"),
        ]);
        assert!(!lines.iter().any(|line| line.contains("hunter2")));
        assert!(has(&lines, "ssl.keystore.password=[hidden]  # --override"));
        assert!(has(&lines, "super.users=User:admin  # --override"));
    }

    #[test]
    fn control_characters_are_escaped() {
        let lines = shown(&[("broker.rack", "a\u{1b}[2J\\b\nc")]);
        assert!(has(&lines, "broker.rack=a\\u001b[2J\\\\b\\nc  # --override"));
    }
}
