//! `klamm config show`.

use klamm_testbed::Directory;

use crate::{klamm, properties};

#[test]
fn each_value_is_shown_with_the_place_that_decided_it() {
    let directory = Directory::new("config-show");
    let lines = ["num.partitions=2", "num.io.threads=4", "default.replication.factor=1"];
    let file = properties(&directory, "server.properties", &lines.map(str::to_owned));
    let shown = klamm(
        directory.path(),
        &["config", "show", &file, "--override", "num.io.threads=6"],
        &[("KAFKA_NUM_PARTITIONS", "3"), ("KAFKA_CFG_MIN_INSYNC_REPLICAS", "1")],
    )
    .ok();
    for line in [
        "num.partitions=3  # environment KAFKA_NUM_PARTITIONS".to_owned(),
        "num.io.threads=6  # --override".to_owned(),
        format!("default.replication.factor=1  # {file}:3"),
        "min.insync.replicas=1  # environment KAFKA_CFG_MIN_INSYNC_REPLICAS".to_owned(),
        "num.network.threads=3  # default".to_owned(),
    ] {
        assert!(shown.lines().any(|shown| shown == line), "no line {line:?} in\n{shown}");
    }
}

#[test]
fn without_any_configuration_the_defaults_of_a_single_node_are_shown() {
    let directory = Directory::new("config-show");
    let shown = klamm(directory.path(), &["config", "show"], &[("KAFKA_HOME", "/opt")]).ok();
    for line in [
        "listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093  # Klamm's default: this machine only",
        "log.dirs=./klamm-data  # Klamm's default: data beside the working directory",
        "# log.retention.ms is not set",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "no line {line:?} in\n{shown}");
    }
    let is_line = |line: &str| line.contains("  # ") || line.ends_with(" is not set");
    assert!(shown.lines().count() > 340 && shown.lines().all(is_line), "{shown}");
}

#[test]
fn misspelt_keys_are_pointed_out_and_stop_nobody() {
    let directory = Directory::new("config-show");
    let lines = ["", "advertised.listener=PLAINTEXT://a:1"];
    let file = properties(&directory, "server.properties", &lines.map(str::to_owned));
    let output = klamm(directory.path(), &["config", "show", &file], &[]);
    assert_eq!(output.status, 0, "{output}");
    let expected = format!(
        "klamm: {file}:2: unknown key 'advertised.listener' (did you mean 'advertised.listeners'?)\n"
    );
    assert_eq!(output.stderr, expected);
}

#[test]
fn passwords_are_masked() {
    let directory = Directory::new("config-show");
    let output = klamm(
        directory.path(),
        &["config", "show", "--override", "ssl.key.password=hunter2"],
        &[("KAFKA_SSL_KEYSTORE_PASSWORD", "hunter2")],
    );
    assert!(output.stdout.contains("ssl.key.password=[hidden]"), "{output}");
    assert!(!output.stdout.contains("hunter2") && !output.stderr.contains("hunter2"), "{output}");
}
