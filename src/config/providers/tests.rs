//! Values from all three providers, and every error.

use std::path::{Path, PathBuf};

use super::*;
use crate::config::environment::Environment;
use crate::config::properties;

const FILE: &str = "org.apache.kafka.common.config.provider.FileConfigProvider";
const DIRECTORY: &str = "org.apache.kafka.common.config.provider.DirectoryConfigProvider";
const ENV_VAR: &str = "org.apache.kafka.common.config.provider.EnvVarConfigProvider";

/// A directory of one test, removed on drop.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("klamm-providers-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &[u8]) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn path(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn variables() -> Variables {
    let mut variables: Vec<(std::ffi::OsString, std::ffi::OsString)> =
        vec![("RACK".into(), "az-1".into()), ("OTHER".into(), "${env:RACK}".into())];
    use std::os::unix::ffi::OsStringExt;
    variables.push(("BROKEN".into(), std::ffi::OsString::from_vec(vec![0xff])));
    Environment::from_variables(variables).variables
}

/// Resolves a value with all three providers and these additional lines.
fn value_with(value: &str, lines: &str) -> Result<String, String> {
    let mut settings = Settings::default();
    let text = format!(
        "config.providers=env,file,dir,nothing\nconfig.providers.env.class={ENV_VAR}\n\
         config.providers.file.class={FILE}\nconfig.providers.dir.class={DIRECTORY}\n{lines}\n"
    );
    settings.add_file(Path::new("f"), properties::parse(text.as_bytes()).unwrap());
    settings.add_flags(&[("broker.rack".to_owned(), value.to_owned())]);
    let resolved = resolve(&mut settings, &variables());
    resolved
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    Ok(settings.value("broker.rack").unwrap().to_owned())
}

fn value(value: &str) -> Result<String, String> {
    value_with(value, "")
}

#[test]
fn variables_files_and_directories_give_values() {
    let directory = Directory::new("values");
    let file = directory.file("secrets.properties", "rack = old\nrack = ü\n".as_bytes());
    let inside = directory.file("rack", b"az-2\n");
    assert_eq!(value("${env:RACK}"), Ok("az-1".to_owned()));
    assert_eq!(value("a-${env:RACK}-${env:RACK}"), Ok("a-az-1-az-1".to_owned()));
    assert_eq!(value(&format!("${{file:{file}:rack}}")), Ok("ü".to_owned()));
    // As in Kafka, the value is the whole file.
    assert_eq!(value(&format!("${{dir:{}:rack}}", directory.path())), Ok("az-2\n".to_owned()));
    assert!(Path::new(&inside).is_file());
}

#[test]
fn what_a_provider_gives_is_not_resolved_again() {
    assert_eq!(value("${env:OTHER}"), Ok("${env:RACK}".to_owned()));
}

#[test]
fn what_is_no_placeholder_stays() {
    assert_eq!(value("${HOME}"), Ok("${HOME}".to_owned()));
    assert_eq!(value("rack"), Ok("rack".to_owned()));
}

#[test]
fn what_is_written_is_remembered() {
    let mut settings = Settings::default();
    settings.add_flags(&[
        ("config.providers".to_owned(), "env".to_owned()),
        ("config.providers.env.class".to_owned(), ENV_VAR.to_owned()),
        ("broker.rack".to_owned(), "${env:RACK}".to_owned()),
    ]);
    resolve(&mut settings, &variables()).unwrap();
    assert_eq!(settings.written("broker.rack"), Some("${env:RACK}"));
    assert_eq!(settings.written("config.providers"), None);
}

#[test]
fn a_placeholder_without_a_value_is_refused_with_its_place_and_the_fix() {
    let directory = Directory::new("refusals");
    let (path, file) = (directory.path(), directory.file("secrets.properties", b"a=1"));
    let latin = directory.file("latin.properties", b"a=\xe9");
    let broken = directory.file("broken.properties", b"a=\\u12");
    for (written, expected) in [
        (
            "${vault:x}".to_owned(),
            "there is no provider 'vault': add it to config.providers".to_owned(),
        ),
        ("${nothing:x}".to_owned(), "there is no provider 'nothing'".to_owned()),
        ("${env:NONE}".to_owned(), "the environment has no variable NONE: set it".to_owned()),
        ("${env:}".to_owned(), "the environment has no variable ".to_owned()),
        ("${env:BROKEN}".to_owned(), "the variable BROKEN is not UTF-8".to_owned()),
        (
            "${env:path:RACK}".to_owned(),
            "the environment knows no paths: write ${env:VARIABLE}".to_owned(),
        ),
        ("${file:key}".to_owned(), "it names no path: write ${file:path:key}".to_owned()),
        ("${dir:key}".to_owned(), "it names no path: write ${dir:path:key}".to_owned()),
        (format!("${{file:{path}/none:a}}"), format!("{path}/none cannot be read: No such file")),
        (format!("${{file:{latin}:a}}"), format!("{latin} cannot be read: ")),
        (format!("${{file:{broken}:a}}"), format!("{broken} is no properties file: line 1")),
        (format!("${{file:{file}:b}}"), format!("{file} has no key 'b': add it there")),
        (format!("${{dir:{path}/none:a}}"), format!("{path}/none is no directory")),
        (format!("${{dir:{path}:none}}"), format!("the directory {path} has no file 'none'")),
        (format!("${{dir:{path}:../x}}"), format!("the directory {path} has no file '../x'")),
        (format!("${{dir:{path}:.}}"), format!("the directory {path} has no file '.'")),
    ] {
        let refusal = value(&written).unwrap_err();
        let start = format!("--override: 'broker.rack' has {written}, and {expected}");
        assert!(refusal.starts_with(&start), "{refusal}\nshould be\n{start}");
    }
}

#[test]
fn only_allowed_paths_are_read() {
    let directory = Directory::new("allowed");
    let (path, file) = (directory.path(), directory.file("secrets.properties", b"a=1"));
    std::fs::create_dir_all(directory.0.join("open")).unwrap();
    let open = directory.file("open/a", b"2");
    let only = |provider: &str, allowed: &str| {
        format!("config.providers.{provider}.param.allowed.paths={allowed}")
    };
    let in_file = format!("${{file:{file}:a}}");
    assert_eq!(value_with(&in_file, &only("file", &path)), Ok("1".to_owned()));
    assert_eq!(
        value_with(&in_file, &only("file", &format!("{path}/open,{file}"))),
        Ok("1".to_owned())
    );
    assert_eq!(value_with(&in_file, &only("file", "")), Ok("1".to_owned()));
    let refusal = value_with(&in_file, &only("file", &format!("{path}/open"))).unwrap_err();
    assert!(refusal.ends_with(&format!("{file} is not below what config.providers.file.param.allowed.paths allows: add it there")), "{refusal}");
    let around = format!("${{file:{path}/open/../secrets.properties:a}}");
    assert!(value_with(&around, &only("file", &format!("{path}/open"))).is_err());
    let sibling = format!("${{dir:{path}/opened:a}}");
    assert!(value_with(&sibling, &only("dir", &format!("{path}/open"))).is_err());
    let in_directory = format!("${{dir:{path}/open:a}}");
    assert_eq!(
        value_with(&in_directory, &only("dir", &format!("{path}/./open/"))),
        Ok("2".to_owned())
    );
    assert!(Path::new(&open).is_file());
}

#[test]
fn only_variables_that_the_pattern_matches_whole_are_let_through() {
    let with = |pattern: &str| {
        value_with(
            "${env:RACK}",
            &format!("config.providers.env.param.allowlist.pattern={pattern}"),
        )
    };
    assert_eq!(with("R.*|X"), Ok("az-1".to_owned()));
    assert_eq!(
        with("RAC"),
        Err("--override: 'broker.rack' has ${env:RACK}, and config.providers.env.param.allowlist.pattern does not let RACK through: widen the pattern".to_owned())
    );
    assert!(with("(").unwrap_err().starts_with(
        "f:5: 'config.providers.env.param.allowlist.pattern' is no regular expression"
    ));
}

#[test]
fn providers_that_cannot_be_had_are_refused_even_if_nothing_names_them() {
    let refusal = |lines: &str| value_with("rack", lines).unwrap_err();
    assert_eq!(
        refusal("config.providers.nothing.class=com.example.Vault"),
        format!(
            "f:5: 'config.providers.nothing.class' names com.example.Vault, which Klamm does not have: it has {FILE}, {DIRECTORY}, {ENV_VAR}"
        )
    );
    assert!(
        refusal("config.providers.file.param.allowed.paths=relative").contains("is not absolute")
    );
    let missing = refusal("config.providers.dir.param.allowed.paths=/no/such/path");
    assert!(missing.contains("has /no/such/path, which does not exist"), "{missing}");
}
