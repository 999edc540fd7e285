//! Kafka's three config providers, by the names of their Java classes.

use std::path::{Component, Path, PathBuf};

use regex_lite::Regex;

use super::error::{ProviderError, Unresolved, UnresolvedReason};
use super::placeholder::Placeholder;
use crate::config::environment::Variables;
use crate::config::properties;
use crate::config::settings::Setting;

const FILE: &str = "org.apache.kafka.common.config.provider.FileConfigProvider";
const DIRECTORY: &str = "org.apache.kafka.common.config.provider.DirectoryConfigProvider";
const ENV_VAR: &str = "org.apache.kafka.common.config.provider.EnvVarConfigProvider";

/// The supported classes.
pub(super) const CLASSES: [&str; 3] = [FILE, DIRECTORY, ENV_VAR];

/// A config provider.
#[derive(Debug)]
pub(super) enum Provider {
    /// A key of a properties file.
    File(AllowedPaths),
    /// The contents of a file in a directory.
    Directory(AllowedPaths),
    /// An environment variable whose whole name matches the pattern, if one is set; with the key of the pattern.
    EnvVar(Option<(String, Regex)>),
}

impl Provider {
    pub(super) fn new<'a>(
        name: &str,
        class: &'a Setting,
        parameter: impl Fn(&str) -> Option<(String, &'a Setting)>,
    ) -> Result<Self, Box<Unresolved>> {
        let allowed_paths = || AllowedPaths::new(parameter("allowed.paths"));
        match &*class.value {
            FILE => Ok(Self::File(allowed_paths()?)),
            DIRECTORY => Ok(Self::Directory(allowed_paths()?)),
            ENV_VAR => {
                let Some((key, setting)) = parameter("allowlist.pattern") else {
                    return Ok(Self::EnvVar(None));
                };
                match Regex::new(&format!(r"\A(?:{})\z", setting.value)) {
                    Ok(pattern) => Ok(Self::EnvVar(Some((key, pattern)))),
                    Err(error) => Err(refused(key, setting, error.into())),
                }
            }
            _ => {
                let error = ProviderError::UnknownClass { class: class.value.clone() };
                Err(refused(format!("config.providers.{name}.class"), class, error))
            }
        }
    }

    /// The value of a placeholder.
    pub(super) fn value(
        &self,
        placeholder: &Placeholder<'_>,
        variables: &Variables,
    ) -> Result<String, UnresolvedReason> {
        match self {
            Self::File(allowed) => value_in_file(&allowed.path_of(placeholder)?, placeholder.key),
            Self::Directory(allowed) => {
                file_in_directory(&allowed.path_of(placeholder)?, placeholder.key)
            }
            Self::EnvVar(pattern) => variable(placeholder, pattern.as_ref(), variables),
        }
    }
}

fn refused(key: String, setting: &Setting, error: ProviderError) -> Box<Unresolved> {
    Box::new(Unresolved::Provider { key, origin: setting.origin.clone(), error })
}

fn variable(
    placeholder: &Placeholder<'_>,
    pattern: Option<&(String, Regex)>,
    variables: &Variables,
) -> Result<String, UnresolvedReason> {
    let variable = placeholder.key.to_owned();
    if !placeholder.path.is_empty() {
        let provider = placeholder.provider.to_owned();
        return Err(UnresolvedReason::PathInEnvironment { provider });
    }
    if let Some((key, pattern)) = pattern
        && !pattern.is_match(&variable)
    {
        return Err(UnresolvedReason::VariableNotAllowed { variable, key: key.clone() });
    }
    match variables.get(&variable) {
        None => Err(UnresolvedReason::NoVariable { variable }),
        Some(value) => match value.to_str() {
            Some(value) => Ok(value.to_owned()),
            None => Err(UnresolvedReason::UnreadableVariable { variable }),
        },
    }
}

fn value_in_file(path: &Path, key: &str) -> Result<String, UnresolvedReason> {
    let text = read(path)?;
    let entries = properties::parse(text.as_bytes()).map_err(|error| {
        UnresolvedReason::NoProperties { path: path.to_owned(), reason: error.to_string() }
    })?;
    // The last entry of a key counts.
    let found = entries.into_iter().rev().find(|entry| entry.key == key);
    let no_key = || UnresolvedReason::NoKey { path: path.to_owned(), key: key.to_owned() };
    found.map(|entry| entry.value).ok_or_else(no_key)
}

/// As in Kafka, the value is the whole file, including a line break at its end.
fn file_in_directory(path: &Path, file: &str) -> Result<String, UnresolvedReason> {
    if !path.is_dir() {
        return Err(UnresolvedReason::NoDirectory { path: path.to_owned() });
    }
    let mut components = Path::new(file).components();
    let is_name = matches!((components.next(), components.next()), (Some(Component::Normal(name)), None) if name == file);
    if !is_name || !path.join(file).is_file() {
        return Err(UnresolvedReason::NoFile { path: path.to_owned(), file: file.to_owned() });
    }
    read(&path.join(file))
}

fn read(path: &Path) -> Result<String, UnresolvedReason> {
    std::fs::read_to_string(path)
        .map_err(|source| UnresolvedReason::Unreadable { path: path.to_owned(), source })
}

/// The paths below which a provider may read (`allowed.paths`); without any, all paths.
#[derive(Debug)]
pub(super) struct AllowedPaths {
    /// The key that sets them, and the paths.
    paths: Option<(String, Vec<PathBuf>)>,
}

impl AllowedPaths {
    fn new(parameter: Option<(String, &Setting)>) -> Result<Self, Box<Unresolved>> {
        let Some((key, setting)) = parameter.filter(|(_, setting)| !setting.value.is_empty())
        else {
            return Ok(Self { paths: None });
        };
        let mut paths = Vec::new();
        for path in setting.value.split(',') {
            let path = normalized(Path::new(path));
            if !path.is_absolute() {
                return Err(refused(key, setting, ProviderError::Relative { path }));
            }
            if !path.exists() {
                return Err(refused(key, setting, ProviderError::Missing { path }));
            }
            paths.push(path);
        }
        Ok(Self { paths: Some((key, paths)) })
    }

    /// The path of a placeholder, if it may be read.
    fn path_of(&self, placeholder: &Placeholder<'_>) -> Result<PathBuf, UnresolvedReason> {
        if placeholder.path.is_empty() {
            let provider = placeholder.provider.to_owned();
            return Err(UnresolvedReason::NoPath { provider });
        }
        let path = PathBuf::from(placeholder.path);
        let Some((key, allowed)) = &self.paths else { return Ok(path) };
        let path = normalized(&path);
        if allowed.iter().any(|allowed| path.starts_with(allowed)) {
            return Ok(path);
        }
        Err(UnresolvedReason::PathNotAllowed { path, key: key.clone() })
    }
}

/// As Java's `Path.normalize`: by the text only, without following links.
fn normalized(path: &Path) -> PathBuf {
    let mut normalized = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => match normalized.components().next_back() {
                Some(Component::Normal(_)) => drop(normalized.pop()),
                Some(Component::RootDir) => {}
                _ => normalized.push(component),
            },
            _ => normalized.push(component),
        }
    }
    normalized
}
