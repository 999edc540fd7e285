//! Why a placeholder cannot be resolved.

use std::path::PathBuf;

use super::provider::CLASSES;
use crate::config::settings::Origin;

/// A placeholder without a value, or an unusable provider.
#[derive(Debug, thiserror::Error)]
pub enum Unresolved {
    #[error("{origin}: '{key}' has {placeholder}, and {reason}")]
    Placeholder { key: String, origin: Origin, placeholder: String, reason: UnresolvedReason },
    #[error("{origin}: '{key}' {error}")]
    Provider { key: String, origin: Origin, error: ProviderError },
}

/// Why a provider is unusable.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    #[error("names {class}, which Klamm does not have: it has {}", CLASSES.join(", "))]
    UnknownClass { class: String },
    #[error("has {}, which is not absolute: write the whole path", path.display())]
    Relative { path: PathBuf },
    #[error("has {}, which does not exist: create it, or take it out", path.display())]
    Missing { path: PathBuf },
    #[error("is no regular expression that Klamm understands: {0}")]
    Pattern(#[from] regex_lite::Error),
}

/// Why a placeholder has no value. The keys are those of its provider.
#[derive(Debug, thiserror::Error)]
pub enum UnresolvedReason {
    #[error(
        "there is no provider '{provider}': add it to config.providers with its class in config.providers.{provider}.class, or write the value itself"
    )]
    UnknownProvider { provider: String },
    #[error("the environment has no variable {variable}: set it")]
    NoVariable { variable: String },
    #[error("the variable {variable} is not UTF-8: set it again")]
    UnreadableVariable { variable: String },
    #[error("{key} does not let {variable} through: widen the pattern")]
    VariableNotAllowed { variable: String, key: String },
    #[error("the environment knows no paths: write ${{{provider}:VARIABLE}}")]
    PathInEnvironment { provider: String },
    #[error("it names no path: write ${{{provider}:path:key}}")]
    NoPath { provider: String },
    #[error("{} is not below what {key} allows: add it there", path.display())]
    PathNotAllowed { path: PathBuf, key: String },
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{} is no properties file: {reason}", path.display())]
    NoProperties { path: PathBuf, reason: String },
    #[error("{} has no key '{key}': add it there", path.display())]
    NoKey { path: PathBuf, key: String },
    #[error("{} is no directory", path.display())]
    NoDirectory { path: PathBuf },
    #[error("the directory {} has no file '{file}': create it", path.display())]
    NoFile { path: PathBuf, file: String },
}
