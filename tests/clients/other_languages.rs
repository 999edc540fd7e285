//! confluent-kafka from Python and franz-go from Go: each program checks its own answers and says `passed`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use klamm_testbed::{Broker, Program, made_once, require, unique};

const SETUP_LIMIT: Duration = Duration::from_secs(600);
const RUN_LIMIT: Duration = Duration::from_secs(90);

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(path)
}

fn text(path: &str) -> String {
    std::fs::read_to_string(here(path)).unwrap()
}

#[test]
fn python_with_confluent_kafka_is_served() {
    let venv = made_once("python-clients", &text("python/requirements.txt"), |venv| {
        require("python3", "python3");
        let venv = venv.display().to_string();
        let setup = |program: &str, line: &[&str]| {
            Program::new(program).args(line).limit(SETUP_LIMIT).run().ok();
        };
        setup("python3", &["-m", "venv", &venv]);
        let requirements = here("python/requirements.txt").display().to_string();
        setup(&format!("{venv}/bin/pip"), &["install", "-q", "-r", &requirements]);
    });
    let said = Program::new(venv.join("bin/python"))
        .arg(here("python/smoke.py").display().to_string())
        .args([Broker::shared().bootstrap(), &unique("python")])
        .limit(RUN_LIMIT)
        .run()
        .ok();
    assert!(said.ends_with("passed\n"), "{said}");
}

#[test]
fn go_with_franz_go_is_served() {
    let source = text("go/go.mod") + &text("go/go.sum") + &text("go/main.go");
    let built = made_once("go-clients", &source, |directory| {
        require("go", "golang-go");
        let output = directory.join("smoke").display().to_string();
        let build = Program::new("go").args(["build", "-o", &output, "."]);
        build.in_dir(here("go")).limit(SETUP_LIMIT).run().ok();
    });
    let said = Program::new(built.join("smoke"))
        .args([Broker::shared().bootstrap(), &unique("go")])
        .limit(RUN_LIMIT)
        .run()
        .ok();
    assert!(said.ends_with("passed\n"), "{said}");
}
