//! Runs methods in a few JVMs, each of which takes one class after another.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use klamm_testbed::{
    Directory, Flavour, Program, compiled_against, fetched, jvm_with, made_once, require,
    target_dir,
};

use crate::report::Report;
use crate::suites::{KAFKA_VERSION, Scope};

/// How long a method may take: a whole scenario of Kafka Connect on a busy machine.
pub(crate) const LIMIT_S: u32 = 240;
/// How long one may take of which it is known that it fails: many wait in vain.
pub(crate) const RED_LIMIT_S: u32 = 20;
/// Tests mostly wait; more would get into one another's way on two cores.
const RUNNERS: usize = 3;
/// Methods that are known to fail wait even more.
const RED_RUNNERS: usize = 6;
const HEAP_MIB: u32 = 640;

/// Which of the methods that there are.
#[derive(Debug)]
pub(crate) enum Choice {
    AllBut(BTreeSet<String>),
    Only(BTreeSet<String>),
}

impl Choice {
    pub(crate) fn includes(&self, method: &str) -> bool {
        match self {
            Self::AllBut(left_out) => !left_out.contains(method),
            Self::Only(chosen) => chosen.contains(method),
        }
    }

    /// As the runner reads it.
    fn lines(&self) -> String {
        let (sign, methods) = match self {
            Self::AllBut(methods) => ('-', methods),
            Self::Only(methods) => ('+', methods),
        };
        let mut lines = String::new();
        for method in methods {
            writeln!(lines, "{sign}{method}").expect("a string takes text");
        }
        lines
    }
}

/// Runs methods of a scope, each for `limit_s` at most.
///
/// # Panics
/// When a runner cannot be started or does not come to an end.
pub(crate) fn run(scope: Scope, choice: &Choice, limit_s: u32) -> Report {
    let mut report = Report::default();
    if let Choice::Only(chosen) = choice
        && chosen.is_empty()
    {
        return report;
    }
    let home = Directory::new("kafka-suites");
    std::fs::create_dir(home.path().join("claims")).expect("the directory is ours");
    std::fs::write(home.path().join("methods"), choice.lines()).expect("the directory is ours");
    let runners = match choice {
        Choice::AllBut(_) => RUNNERS,
        // Those that failed unexpectedly run one after another, with nothing beside them.
        Choice::Only(_) if limit_s == LIMIT_S => 1,
        Choice::Only(_) => RED_RUNNERS,
    };
    let running: Vec<_> =
        (0..runners).map(|number| runner(scope, home.path(), number, limit_s).start()).collect();
    for (number, runner) in running.into_iter().enumerate() {
        let output = runner.wait(scope.limit());
        // What the tests themselves have printed, and what became of them.
        let log = target_dir().join(format!("kafka-suites-{number}.log"));
        let text = format!("{}\n{}", output.stderr, output.stdout);
        std::fs::write(&log, text).expect("the target directory is writable");
        report.read(&output.stdout);
        assert_eq!(output.status, 0, "a runner ended; see {}", log.display());
    }
    report.expect_ended(choice);
    report
}

fn runner(scope: Scope, home: &Path, number: usize, limit_s: u32) -> Program {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka-suites");
    let jars = fetched("kafka-suites-libs", &here.join("pom.xml"));
    let compiled = |name: &str| {
        compiled_against(&jars, &format!("kafka-suites-{name}"), &java_files(&here.join(name)))
    };
    let (kit, runner) = (compiled("kit"), compiled("runner"));
    let resources = resources(&jars);
    let classes: &[&Path] = match Flavour::under_test() {
        Flavour::Klamm => &[&kit, &runner, &resources],
        // The oracle run: Kafka's own kit starts Kafka's brokers.
        Flavour::Kafka => &[&runner, &resources],
    };
    let temporary = home.join(format!("tmp-{number}"));
    std::fs::create_dir(&temporary).expect("the directory is ours");
    let suites: Vec<String> = scope
        .jars()
        .iter()
        .map(|jar| jars.join(format!("{jar}-{KAFKA_VERSION}-test.jar")).display().to_string())
        .collect();
    let binary = std::env::var("CARGO_BIN_EXE_klamm").expect("cargo test names the binary");
    let mut java = jvm_with(&jars, classes, HEAP_MIB);
    // The runner keeps tests from ending its JVM, which Java from 18 on allows only then.
    java.arg("-Djava.security.manager=allow")
        .arg(format!("-Djava.io.tmpdir={}", temporary.display()))
        .arg(format!("-Dklamm.binary={binary}"))
        .arg(format!("-Dlog4j2.configurationFile={}", here.join("log4j2.xml").display()))
        .arg("klamm.suites.runner.Runner")
        .arg(suites.join(":"))
        .arg(scope.classes())
        .arg(home.join("methods"))
        .arg(home.join("claims"))
        .arg(limit_s.to_string());
    java.current_dir(&temporary);
    Program::from(java)
}

/// What tests read as files, which is not possible in a jar: the sources of Connect's test plugins, which they compile.
fn resources(jars: &Path) -> PathBuf {
    made_once("kafka-suites-resources", KAFKA_VERSION, |directory| {
        require("jar", "default-jdk-headless");
        let jar = jars.join(format!("connect-runtime-{KAFKA_VERSION}-test.jar"));
        let jar = jar.display().to_string();
        Program::new("jar").args(["xf", &jar, "test-plugins"]).in_dir(directory).run().ok();
    })
}

/// All Java sources below a directory, in order.
fn java_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).expect("the directory is readable") {
        let path = entry.expect("its entries are readable").path();
        if path.is_dir() {
            files.extend(java_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "java") {
            files.push(path);
        }
    }
    files.sort();
    files
}
