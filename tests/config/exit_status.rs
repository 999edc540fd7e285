//! How `klamm` ends when it cannot start, and what it says then.

use std::net::TcpListener;

use klamm_testbed::Directory;

use crate::{klamm, properties};

#[test]
fn wrong_arguments_and_wrong_values_end_with_two() {
    let directory = Directory::new("exit-status");
    let status = |arguments: &[&str]| klamm(directory.path(), arguments, &[]).status;
    assert_eq!(status(&["--no-such-flag"]), 2);
    assert_eq!(status(&["no-such-file.properties"]), 2);
    assert_eq!(status(&["--override", "num.io.threads=none"]), 2);
    assert_eq!(status(&["--override", "process.roles=broker"]), 2);
    assert_eq!(status(&["--override", "listeners=SSL://:9092"]), 2);
    let level = [("KAFKA_LOG4J_ROOT_LOGLEVEL", "LOUD")];
    assert_eq!(klamm(directory.path(), &[], &level).status, 2);
}

#[test]
fn a_bad_value_is_named_with_its_line_and_its_default() {
    let directory = Directory::new("exit-status");
    let lines = ["# threads", "num.io.threads = none"];
    let file = properties(&directory, "server.properties", &lines.map(str::to_owned));
    let output = klamm(directory.path(), &[&file], &[]);
    assert_eq!(output.status, 2, "{output}");
    let expected = format!(
        "klamm: {file}:2: Invalid value none for configuration num.io.threads: Not a number of type INT; the default is 8\n"
    );
    assert_eq!(output.stderr, expected);
}

#[test]
fn protection_that_is_not_there_stops_the_start_and_names_each_key() {
    let directory = Directory::new("exit-status");
    let lines = [
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found=false",
        "ssl.client.auth=none",
    ];
    let file = properties(&directory, "server.properties", &lines.map(str::to_owned));
    let variables = [("KAFKA_SSL_KEYSTORE_PASSWORD", "hunter2"), ("KAFKA_SUPER_USERS", "")];
    let output = klamm(directory.path(), &[&file], &variables);
    assert_eq!(output.status, 2, "{output}");
    let told: Vec<&str> = output.stderr.lines().collect();
    assert_eq!(told.len(), 3, "{output}");
    assert!(
        told[0].starts_with(&format!(
            "klamm: {file}:2: 'allow.everyone.if.no.acl.found' asks for ACLs"
        ))
    );
    assert!(told[1].starts_with(&format!("{file}:1: 'authorizer.class.name' asks for ACLs")));
    assert!(
        told[2].starts_with("environment KAFKA_SSL_KEYSTORE_PASSWORD: 'ssl.keystore.password'")
    );
    let printed = format!("{}{}", output.stdout, output.stderr);
    assert!(!printed.contains("hunter2"), "{output}");
    assert!(!directory.path().join("klamm-data").exists(), "nothing was begun");
}

#[test]
fn a_variable_that_cannot_be_read_stops_the_start() {
    use std::os::unix::ffi::OsStrExt;
    let directory = Directory::new("exit-status");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_klamm"));
    let value = std::ffi::OsStr::from_bytes(&[0xff]);
    command.env_clear().env("KAFKA_AUTHORIZER_CLASS_NAME", value);
    let output = klamm_testbed::Program::from(command).in_dir(directory.path()).run();
    assert_eq!(output.status, 2, "{output}");
    assert!(output.stderr.contains("environment KAFKA_AUTHORIZER_CLASS_NAME"), "{output}");
}

#[test]
fn a_directory_of_another_node_ends_with_three() {
    let directory = Directory::new("exit-status");
    let data = directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let owner = "version=1\ncluster.id=4L6g3nShT-eMCtK--X86sw\nnode.id=9\n";
    std::fs::write(data.join("meta.properties"), owner).unwrap();
    let log_dirs = format!("log.dirs={}", data.display());
    let arguments = [
        "--override",
        &log_dirs,
        "--override",
        "listeners=PLAINTEXT://localhost:0,CONTROLLER://localhost:0",
    ];
    let output = klamm(directory.path(), &arguments, &[]);
    assert_eq!(output.status, 3, "{output}");
    assert!(output.to_string().contains(data.to_str().unwrap()), "{output}");
}

#[test]
fn a_busy_port_ends_with_four_and_names_the_port() {
    let directory = Directory::new("exit-status");
    let holder = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = holder.local_addr().unwrap().port();
    let listeners = format!("listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:0");
    let output = klamm(directory.path(), &["--override", &listeners], &[]);
    assert_eq!(output.status, 4, "{output}");
    assert!(output.to_string().contains(&port.to_string()), "{output}");
}

#[test]
fn help_version_and_ids_end_with_zero() {
    let directory = Directory::new("exit-status");
    let printed = |arguments: &[&str]| klamm(directory.path(), arguments, &[]).ok();
    assert!(printed(&["--help"]).contains("--override"));
    assert!(printed(&["--version"]).starts_with("klamm "));
    assert_eq!(printed(&["random-uuid"]).trim_end().len(), 22);
    assert_ne!(printed(&["random-uuid"]), printed(&["random-uuid"]));
}
