//! Apache Kafka's jars and our own Java helpers, made ready once for each target directory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use crate::place::target_dir;
use crate::program::{Program, require};

/// A first download of about 90 jars over a slow line.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(600);
const COMPILE_LIMIT: Duration = Duration::from_secs(120);

/// The directory with the jars of Apache Kafka's broker, clients, tools and shell, as `tests/pom.xml` names them.
///
/// # Panics
/// When Maven is missing or cannot fetch them.
pub fn kafka_jars() -> &'static Path {
    static JARS: LazyLock<PathBuf> = LazyLock::new(|| {
        fetched("kafka-libs", &Path::new(env!("CARGO_MANIFEST_DIR")).join("../pom.xml"))
    });
    &JARS
}

/// The directory `<target>/<name>` with the jars that a `pom.xml` depends on.
///
/// # Panics
/// When Maven is missing or cannot fetch them.
pub fn fetched(name: &str, pom: &Path) -> PathBuf {
    let source = std::fs::read_to_string(pom).expect("the pom is there");
    made_once(name, &source, |jars| {
        require("mvn", "maven");
        let output = format!("-DoutputDirectory={}", jars.display());
        Program::new("mvn")
            .args(["-q", "-B", "dependency:copy-dependencies", &output, "-f"])
            .arg(pom.display().to_string())
            .limit(DOWNLOAD_LIMIT)
            .run()
            .ok();
    })
}

/// Compiles one Java source file against Kafka's jars and returns the directory of its classes.
///
/// # Panics
/// When the compiler is missing or refuses it.
pub fn compiled(source: &Path) -> PathBuf {
    let name = source.file_stem().expect("a source has a name").to_string_lossy();
    compiled_against(kafka_jars(), &format!("java-{name}"), &[source.to_path_buf()])
}

/// Compiles Java source files against the jars of a directory into the directory `<target>/<name>`, which is returned.
///
/// # Panics
/// When the compiler is missing or refuses them.
pub fn compiled_against(jars: &Path, name: &str, sources: &[PathBuf]) -> PathBuf {
    let read = |source: &PathBuf| std::fs::read_to_string(source).expect("the source is there");
    let text: String = sources.iter().map(read).collect();
    made_once(name, &text, |classes| {
        require("javac", "default-jdk-headless");
        Program::new("javac")
            .args(["-nowarn", "-cp", &format!("{}/*", jars.display()), "-d"])
            .arg(classes.display().to_string())
            .args(sources.iter().map(|source| source.display().to_string()))
            .limit(COMPILE_LIMIT)
            .run()
            .ok();
    })
}

/// A `java` command with Kafka's jars, and the given directories before them, on its class path.
///
/// # Panics
/// When there is no Java.
pub fn jvm(classes: &[&Path], heap_mib: u32) -> Command {
    jvm_with(kafka_jars(), classes, heap_mib)
}

/// A `java` command with the jars of a directory, and the given directories before them, on its class path.
///
/// # Panics
/// When there is no Java.
pub fn jvm_with(jars: &Path, classes: &[&Path], heap_mib: u32) -> Command {
    require("java", "default-jre-headless");
    let mut path: Vec<String> = classes.iter().map(|dir| dir.display().to_string()).collect();
    path.push(format!("{}/*", jars.display()));
    let log4j = Path::new(env!("CARGO_MANIFEST_DIR")).join("log4j2.xml");
    let mut java = Command::new("java");
    java.arg(format!("-Xmx{heap_mib}m"))
        .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"])
        .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
        .arg(format!("-Dlog4j2.configurationFile={}", log4j.display()))
        .args(["-cp", &path.join(":")]);
    java
}

/// Makes the directory `<target>/<name>` unless it was made from the same `source` before. Safe among processes that ask at
/// once.
///
/// # Panics
/// When the target directory cannot be written to.
pub fn made_once(name: &str, source: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let directory = target_dir().join(name);
    std::fs::create_dir_all(&directory).expect("the target directory is writable");
    let lock = File::create(target_dir().join(format!("{name}.lock"))).expect("and takes files");
    lock.lock().expect("the file system has locks");
    let stamp = target_dir().join(format!("{name}.made-from"));
    if std::fs::read_to_string(&stamp).is_ok_and(|made_from| made_from == source) {
        return directory;
    }
    std::fs::remove_dir_all(&directory).expect("an outdated directory can be removed");
    std::fs::create_dir_all(&directory).expect("the target directory is writable");
    make(&directory);
    std::fs::write(&stamp, source).expect("the target directory is writable");
    directory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_made_again_only_when_its_source_changes() {
        let name = format!("made-once-{}", std::process::id());
        let mut made = Vec::new();
        for source in ["one", "one", "two"] {
            made_once(&name, source, |_| made.push(source));
        }
        assert_eq!(made, ["one", "two"]);
        std::fs::remove_dir_all(target_dir().join(&name)).unwrap();
        for kind in ["lock", "made-from"] {
            std::fs::remove_file(target_dir().join(format!("{name}.{kind}"))).unwrap();
        }
    }
}
