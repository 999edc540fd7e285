//! `config.providers` (KIP-421): values from the environment, a file or a directory, for placeholders
//! `${provider:[path:]key}` in the configuration.
//!
//! Invariants: a placeholder itself is never used as a value. Apache Kafka keeps one that it cannot resolve as the
//! value; here it stops the start. Errors never contain resolved values.
//!
//! Sources: `ConfigTransformer`, `AbstractConfig.resolveConfigVariables`, `FileConfigProvider`,
//! `DirectoryConfigProvider`, `EnvVarConfigProvider`.

use std::collections::BTreeMap;

mod error;
mod placeholder;
mod provider;

pub use error::{ProviderError, Unresolved, UnresolvedReason};
pub use placeholder::has_placeholder;

use super::environment::Variables;
use super::settings::{Setting, Settings};
use placeholder::{Part, parts};
use provider::Provider;

const PROVIDERS: &str = "config.providers";

/// Whether a key configures the providers themselves. Placeholders in their values are not resolved.
pub fn is_of_providers(key: &str) -> bool {
    key.strip_prefix(PROVIDERS).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Replaces every placeholder by its value.
///
/// # Errors All placeholders without a value, and all unusable providers.
pub fn resolve(settings: &mut Settings, variables: &Variables) -> Result<(), Vec<Unresolved>> {
    let with_placeholders: Vec<(String, Setting)> = settings
        .iter()
        .filter(|(key, setting)| !is_of_providers(key) && has_placeholder(&setting.value))
        .map(|(key, setting)| (key.to_owned(), setting.clone()))
        .collect();
    let (providers, mut unresolved) = configured(settings);
    for (key, written) in with_placeholders {
        match resolved(&written.value, &providers, variables) {
            Ok(value) => settings.resolve(&key, value),
            Err((placeholder, reason)) => {
                let origin = written.origin;
                unresolved.push(Unresolved::Placeholder { key, origin, placeholder, reason });
            }
        }
    }
    if unresolved.is_empty() { Ok(()) } else { Err(unresolved) }
}

/// The providers in `config.providers`. As in Apache Kafka, one without a class is ignored.
fn configured(settings: &Settings) -> (BTreeMap<String, Provider>, Vec<Unresolved>) {
    let (mut providers, mut failures) = (BTreeMap::new(), Vec::new());
    // Kafka does not trim the names.
    let names = settings.value(PROVIDERS).unwrap_or_default().split(',');
    for name in names.filter(|name| !name.is_empty()) {
        let Some(class) = settings.get(&format!("{PROVIDERS}.{name}.class")) else { continue };
        let parameter = |parameter: &str| {
            let key = format!("{PROVIDERS}.{name}.param.{parameter}");
            settings.get(&key).map(|setting| (key, setting))
        };
        match Provider::new(name, class, parameter) {
            Ok(provider) => drop(providers.insert(name.to_owned(), provider)),
            Err(failure) => failures.push(*failure),
        }
    }
    (providers, failures)
}

fn resolved(
    written: &str,
    providers: &BTreeMap<String, Provider>,
    variables: &Variables,
) -> Result<String, (String, UnresolvedReason)> {
    let mut value = String::new();
    for part in parts(written) {
        let placeholder = match part {
            Part::Text(text) => {
                value.push_str(text);
                continue;
            }
            Part::Placeholder(placeholder) => placeholder,
        };
        let name = placeholder.provider;
        let found = match providers.get(name) {
            Some(provider) => provider.value(&placeholder, variables),
            None => Err(UnresolvedReason::UnknownProvider { provider: name.to_owned() }),
        };
        value.push_str(&found.map_err(|reason| (placeholder.written.to_owned(), reason))?);
    }
    Ok(value)
}

#[cfg(test)]
mod tests;
