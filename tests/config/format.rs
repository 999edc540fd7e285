//! `klamm format` beside `kafka-storage.sh format` of Apache Kafka: the same flags, the same files.

use std::path::{Path, PathBuf};

use klamm_testbed::{Directory, tool};

use crate::{klamm, properties};

const CLUSTER_ID: &str = "4L6g3nShT-eMCtK--X86sw";
const VOTERS: &str = "1@localhost:9093:JEXY6aqzQY-32P5TStzaFg,2@[::1]:9094:MvDxzVmcRsaTz33bUuRU6A";
const BOOTSTRAP: &str = "bootstrap.checkpoint";
const FIRST_SNAPSHOT: &str = "__cluster_metadata-0/00000000000000000000-0000000000.checkpoint";

/// One node's two log directories, formatted by one of the two programs.
struct Node {
    directory: Directory,
    file: String,
}

impl Node {
    fn new(stem: &str, quorum: &str) -> Self {
        Self::with_role(stem, (1, "broker,controller"), quorum)
    }

    fn with_role(stem: &str, (id, role): (i32, &str), quorum: &str) -> Self {
        let listeners = [
            ("broker", "PLAINTEXT://localhost:9092"),
            ("controller", "CONTROLLER://localhost:9093"),
        ];
        let listeners = listeners.iter().filter(|(of_role, _)| role.contains(of_role));
        let listeners: Vec<&str> = listeners.map(|(_, listener)| *listener).collect();
        let directory = Directory::new(stem);
        let dirs = ["a", "b"].map(|name| directory.path().join(name).display().to_string());
        let lines = [
            format!("process.roles={role}"),
            format!("node.id={id}"),
            format!("listeners={}", listeners.join(",")),
            "controller.listener.names=CONTROLLER".to_owned(),
            format!("log.dirs={}", dirs.join(",")),
            quorum.to_owned(),
        ];
        let file = properties(&directory, "server.properties", &lines);
        Self { directory, file }
    }

    fn format(&self, flags: &[&str]) -> klamm_testbed::Output {
        let arguments = [&["format", "-t", CLUSTER_ID, "-c", &self.file], flags].concat();
        klamm(self.directory.path(), &arguments, &[])
    }

    fn format_with_kafka(&self, flags: &[&str]) -> klamm_testbed::Output {
        let mut format = tool("kafka-storage format").arg("-t").arg(CLUSTER_ID);
        for argument in ["-c", self.file.as_str()].iter().chain(flags) {
            format = format.arg(*argument);
        }
        format.run()
    }

    /// What a tool says of the directories, which Kafka takes in no order of any meaning.
    fn told(&self, output: &str) -> Vec<String> {
        let root = self.directory.path().display().to_string();
        let lines = output.lines().map(|line| line.replace(&root, "~"));
        let mut lines: Vec<_> = lines
            .filter(|line| line.starts_with("Bootstrap") || line.starts_with("Formatting"))
            .collect();
        lines.sort();
        lines
    }

    /// The paths of all files, sorted, relative to the node's directory.
    fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![self.directory.path().to_path_buf()];
        while let Some(path) = open.pop() {
            for entry in std::fs::read_dir(&path).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { open.push(path) } else { found.push(path) }
            }
        }
        let root = self.directory.path();
        found.iter_mut().for_each(|path| *path = path.strip_prefix(root).unwrap().to_owned());
        found.sort();
        found
    }

    /// What kafka-dump-log says about a file, without times, checksums and made-up ids.
    fn dump(&self, file: &Path) -> Vec<String> {
        let path = self.directory.path().join(file);
        let dump = tool("kafka-dump-log --cluster-metadata-decoder --deep-iteration --files")
            .arg(path.to_str().unwrap())
            .ok();
        let shown = dump.lines().skip(1).map(timeless).collect();
        assert!(dump.contains("isvalid: true") && !dump.contains("isvalid: false"), "{dump}");
        shown
    }

    fn meta_properties(&self, directory: &str) -> Vec<String> {
        let path = self.directory.path().join(directory).join("meta.properties");
        let text = std::fs::read_to_string(path).unwrap();
        let mut lines: Vec<String> =
            text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

fn timeless(line: &str) -> String {
    let mut text = line.to_owned();
    for marker in ["CreateTime: ", "crc: ", "\"lastContainedLogTimestamp\":1"] {
        while let Some(start) = text.find(marker) {
            let digits =
                text[start + marker.len()..].bytes().take_while(u8::is_ascii_digit).count();
            text.replace_range(start..start + marker.len() + digits, "*");
        }
    }
    text
}

/// What Kafka finalizes in new clusters by default and Klamm does not serve yet.
const LEFT_OUT: [&str; 4] = ["-f", "share.version=0", "-f", "streams.version=0"];

/// Formats with both programs and compares every file. Kafka is told to leave out what Klamm leaves out by itself.
fn assert_same_files(quorum: &str, flags: &[&str]) {
    assert_same_files_of((1, "broker,controller"), quorum, flags);
}

fn assert_same_files_of(node: (i32, &str), quorum: &str, flags: &[&str]) {
    let ours = Node::with_role("format-klamm", node, quorum);
    let kafkas = Node::with_role("format-kafka", node, quorum);
    let told = ours.told(&ours.format(flags).ok());
    assert_eq!(told, kafkas.told(&kafkas.format_with_kafka(&[flags, &LEFT_OUT].concat()).ok()));
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(ours.files(), kafkas.files());
    for file in ours.files() {
        let name = file.file_name().unwrap();
        if name.to_str().unwrap().ends_with(".checkpoint") {
            assert_eq!(ours.dump(&file), kafkas.dump(&file), "{}", file.display());
        }
    }
    for directory in ["a", "b"] {
        let without_id = |node: &Node| -> Vec<String> {
            let lines = node.meta_properties(directory);
            assert_eq!(lines.len(), 4, "{lines:?}");
            lines.into_iter().filter(|line| !line.starts_with("directory.id=")).collect()
        };
        assert_eq!(without_id(&ours), without_id(&kafkas));
    }
}

#[test]
fn a_static_quorum_is_formatted_as_kafka_formats_it() {
    assert_same_files("controller.quorum.voters=1@localhost:9093", &[]);
}

#[test]
fn named_voters_are_written_as_kafka_writes_them() {
    let quorum = "controller.quorum.bootstrap.servers=localhost:9093";
    assert_same_files(quorum, &["-I", VOTERS, "-f", "transaction.version=1", "-r", "4.1"]);
}

#[test]
fn a_quorum_that_is_decided_later_is_formatted_as_kafka_formats_it() {
    let quorum = "controller.quorum.bootstrap.servers=localhost:9093";
    assert_same_files(quorum, &["--no-initial-controllers", "--release-version", "3.9"]);
}

/// A controller that is one of three voters, or that joins them later, and a broker beside them.
const NODES_OF_A_CLUSTER: [(i32, &str); 4] =
    [(1, "broker,controller"), (2, "controller"), (9, "controller"), (7, "broker")];

#[test]
fn every_node_of_a_cluster_with_three_named_voters_is_formatted_as_kafka_formats_it() {
    let servers = "localhost:9093,node2.example:9093,node3.example:9093";
    let quorum = format!("controller.quorum.bootstrap.servers={servers}");
    let voters = "1@localhost:9093:JEXY6aqzQY-32P5TStzaFg,\
         2@node2.example:9093:MvDxzVmcRsaTz33bUuRU6A,3@node3.example:9093:07R5amHmR32VDA6jHkGbTA";
    for node in NODES_OF_A_CLUSTER {
        assert_same_files_of(node, &quorum, &["--initial-controllers", voters]);
    }
}

#[test]
fn every_node_of_a_cluster_with_three_static_voters_is_formatted_as_kafka_formats_it() {
    let voters = "1@localhost:9093,2@node2.example:9093,9@node3.example:9093";
    let quorum = format!("controller.quorum.voters={voters}");
    for node in NODES_OF_A_CLUSTER {
        assert_same_files_of(node, &quorum, &[]);
    }
}

#[test]
fn nodes_that_join_a_cluster_are_formatted_as_kafka_formats_them() {
    let quorum = "controller.quorum.bootstrap.servers=node2.example:9093,node3.example:9093";
    assert_same_files_of((9, "controller"), quorum, &["--no-initial-controllers"]);
    assert_same_files_of((7, "broker"), quorum, &[]);
}

#[test]
fn a_standalone_node_is_the_voter_that_its_meta_properties_name() {
    let node = Node::new("format-standalone", "controller.quorum.bootstrap.servers=localhost:9093");
    node.format(&["--standalone"]).ok();
    let snapshot = node.dump(&Path::new("a").join(FIRST_SNAPSHOT)).join("\n");
    let id = node.meta_properties("a");
    let id = id.iter().find_map(|line| line.strip_prefix("directory.id=")).unwrap();
    let voter = format!(
        r#"{{"voterId":1,"voterDirectoryId":"{id}","endpoints":[{{"name":"CONTROLLER","host":"localhost","port":9093}}]"#
    );
    assert!(snapshot.contains(&voter), "{snapshot}");
    assert!(snapshot.contains(r#""kRaftVersion":1"#), "{snapshot}");
    let bootstrap = node.dump(&Path::new("b").join(BOOTSTRAP)).join("\n");
    assert!(bootstrap.contains(r#""name":"metadata.version","featureLevel":30"#), "{bootstrap}");
}

#[test]
fn what_is_formatted_is_refused_or_skipped_and_never_changed() {
    let node = Node::new("format-again", "controller.quorum.voters=1@localhost:9093");
    node.format(&[]).ok();
    let before = node.meta_properties("a");
    let refused = node.format(&[]);
    assert_eq!(refused.status, 1, "{refused}");
    assert!(refused.stderr.contains("is already formatted. Use --ignore-formatted"), "{refused}");
    let skipped = node.format(&["--ignore-formatted"]).ok();
    assert_eq!(skipped, "All of the log directories are already formatted.\n");
    assert_eq!(node.meta_properties("a"), before);
}

#[test]
fn features_that_klamm_does_not_serve_are_written_where_flags_ask_for_them() {
    let node = Node::new("format-share", "controller.quorum.voters=1@localhost:9093");
    let formatted = node.format(&["-f", "share.version=1"]);
    assert_eq!(formatted.status, 0, "{formatted}");
    assert!(formatted.stderr.contains("share.version=1 is written as asked, and"), "{formatted}");
    let bootstrap = node.dump(&Path::new("a").join(BOOTSTRAP)).join("\n");
    assert!(bootstrap.contains(r#""name":"share.version","featureLevel":1"#), "{bootstrap}");
    assert!(!bootstrap.contains("streams.version"), "{bootstrap}");
}

#[test]
fn kafka_finds_a_formatted_directory_in_order() {
    let node = Node::new("format-info", "controller.quorum.voters=1@localhost:9093");
    node.format(&[]).ok();
    let info = tool("kafka-storage info --config").arg(node.file.as_str()).ok();
    assert!(info.contains("Found metadata: {") && !info.contains("Found problem"), "{info}");
}

#[test]
fn directories_of_another_cluster_end_with_three() {
    let node = Node::new("format-other", "controller.quorum.voters=1@localhost:9093");
    node.format(&[]).ok();
    let other = ["format", "-g", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c", &node.file];
    let output = klamm(node.directory.path(), &other, &[]);
    assert_eq!(output.status, 3, "{output}");
    assert!(output.stderr.contains("belongs to cluster"), "{output}");
}

#[test]
fn requests_that_make_no_sense_end_with_two() {
    let node = Node::new("format-usage", "controller.quorum.bootstrap.servers=localhost:9093");
    let refusal = |flags: &[&str]| {
        let output = node.format(flags);
        assert_eq!(output.status, 2, "{output}");
        output.stderr
    };
    assert!(refusal(&[]).contains("you must specify one of the following: --standalone"));
    assert!(refusal(&["-s", "-N"]).contains("cannot be used with"));
    assert!(refusal(&["-s", "-r", "9.9"]).contains("Unknown metadata.version '9.9'"));
    assert!(refusal(&["-s", "-S", "SCRAM-SHA-256=[name=a]"]).contains("--add-scram is not there"));
    assert!(!node.directory.path().join("a").exists());
}

#[test]
fn a_node_that_has_no_place_in_its_quorum_is_not_formatted() {
    let node = Node::new("format-nowhere", "controller.quorum.voters=2@localhost:9093");
    let output = node.format(&[]);
    assert_eq!(output.status, 2, "{output}");
    let reason = "node.id is 1, which controller.quorum.voters";
    assert!(output.stderr.contains(reason), "{output}");
    assert_ne!(node.format_with_kafka(&[]).status, 0);
    assert!(!node.directory.path().join("a").exists());
}

#[test]
fn a_node_whose_configuration_names_no_quorum_is_formatted_as_one_of_its_own() {
    let node = Node::new("format-alone", "# none");
    let standalone = node.format(&["-s"]);
    assert_eq!(standalone.status, 2, "{standalone}");
    let reason = "either controller.quorum.bootstrap.servers must contain";
    assert!(standalone.stderr.contains(reason), "{standalone}");
    assert_ne!(node.format_with_kafka(&[]).status, 0, "Kafka's tool wants a quorum to be named");
    assert!(!node.directory.path().join("a").exists());
    let output = node.format(&[]);
    assert_eq!(output.status, 0, "{output}");
    assert!(node.directory.path().join("a/meta.properties").exists());
}
