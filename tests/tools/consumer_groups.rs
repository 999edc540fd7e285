//! kafka-consumer-groups and kafka-groups.

use std::time::Duration;

use klamm_testbed::{Broker, Directory, Tool, ToolRun, unique, until, until_true};

use crate::table::{columns, rows};

const LIMIT: Duration = Duration::from_secs(30);
const RECORDS: usize = 10;

/// A topic of one partition with ten records, and a group that read six of them and is empty.
struct Stage {
    broker: &'static Broker,
    topic: String,
    group: String,
}

impl Stage {
    fn set() -> Self {
        let broker = Broker::shared();
        let topic = broker.create_topic("grouped", "");
        let group = unique("group");
        let records: Vec<String> = (0..RECORDS).map(|n| n.to_string()).collect();
        broker.produce_lines(&topic, &records);
        let stage = Self { broker, topic, group };
        let read = stage.consumer("--max-messages 6").run().ok();
        assert_eq!(read, "0\n1\n2\n3\n4\n5\n");
        stage
    }

    fn consumer(&self, options: &str) -> Tool {
        let Self { topic, group, .. } = self;
        self.broker.tool(&format!(
            "kafka-console-consumer --topic {topic} --group {group} --timeout-ms 30000 \
             --command-property auto.offset.reset=earliest {options}"
        ))
    }

    fn groups(&self, command: &str) -> Tool {
        self.broker.tool(&format!("kafka-consumer-groups --group {} {command}", self.group))
    }

    /// Resets the group's offset and returns the new one, which it also checks in the description.
    fn reset(&self, to: &str) -> String {
        let reset =
            self.groups(&format!("--reset-offsets --topic {} {to} --execute", self.topic)).ok();
        let new = columns(&reset, &["NEW-OFFSET"])[0][0].clone();
        let described = self.groups("--describe").ok();
        assert_eq!(columns(&described, &["CURRENT-OFFSET"]), [[new.as_str()]], "{to}");
        new
    }

    /// Starts a member and waits until the group is stable with it.
    fn joined(&self) -> ToolRun {
        let member = self.consumer("").start();
        until_true("the group to be stable", LIMIT, || {
            self.groups("--describe --state").ok().contains("Stable")
        });
        member
    }
}

#[test]
fn an_empty_group_is_listed_with_its_state_and_described_with_its_lag() {
    let stage = Stage::set();
    let listed = stage.broker.tool("kafka-consumer-groups --list --state").ok();
    assert!(rows(&listed).contains(&vec![&stage.group, "Empty"]), "{listed}");
    let listed = stage.broker.tool("kafka-consumer-groups --list --state stable").ok();
    assert!(!listed.contains(&stage.group), "{listed}");
    let listed = stage.broker.tool("kafka-groups --list").ok();
    assert!(rows(&listed).contains(&vec![&stage.group, "Classic", "consumer"]), "{listed}");

    let described = stage.groups("--describe").ok();
    assert_eq!(
        columns(
            &described,
            &[
                "GROUP",
                "TOPIC",
                "PARTITION",
                "CURRENT-OFFSET",
                "LOG-END-OFFSET",
                "LAG",
                "CONSUMER-ID"
            ]
        ),
        [[stage.group.as_str(), &stage.topic, "0", "6", "10", "4", "-"]]
    );
}

#[test]
fn a_member_of_a_stable_group_is_described_with_its_assignment() {
    let stage = Stage::set();
    let member = stage.joined();
    let state = stage.groups("--describe --state").ok();
    assert!(state.contains("range") && state.contains("Stable"), "{state}");
    let described = until("the assignment to show", LIMIT, || {
        let described = stage.groups("--describe").ok();
        let shown = columns(&described, &["TOPIC", "PARTITION", "HOST", "CLIENT-ID"]);
        (shown.len() == 1 && shown[0][2] != "-").then_some(shown)
    });
    assert_eq!(described, [[stage.topic.as_str(), "0", "/127.0.0.1", "console-consumer"]]);
    let members = stage.groups("--describe --members --verbose").ok();
    assert!(members.contains(&format!("{}:0", stage.topic)), "{members}");
    assert_eq!(columns(&members, &["#PARTITIONS"]), [["1"]]);

    let refused = stage.groups("--delete").run();
    assert!(refused.stdout.contains("GroupNotEmptyException"), "{refused}");
    let refused = stage
        .groups(&format!("--reset-offsets --to-earliest --topic {} --execute", stage.topic))
        .run();
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(said.contains("is 'Stable'") || said.contains("is Stable"), "{refused}");

    member.stop();
    assert_eq!(member.wait(LIMIT).ok(), "6\n7\n8\n9\n");
    let described = stage.groups("--describe").ok();
    assert_eq!(columns(&described, &["CURRENT-OFFSET", "LAG"]), [["10", "0"]]);
}

#[test]
fn offsets_are_reset_in_every_way() {
    let stage = Stage::set();
    assert_eq!(stage.reset("--to-earliest"), "0");
    assert_eq!(stage.reset("--to-latest"), "10");
    assert_eq!(stage.reset("--to-offset 4"), "4");
    assert_eq!(stage.reset("--to-current"), "4");
    assert_eq!(stage.reset("--shift-by 3"), "7");
    assert_eq!(stage.reset("--shift-by -5"), "2");
    assert_eq!(stage.reset("--shift-by 100"), "10");
    assert_eq!(stage.reset("--to-datetime 2020-01-01T00:00:00.000"), "0");
    assert_eq!(stage.reset("--to-datetime 2100-01-01T00:00:00.000"), "10");
    assert_eq!(stage.reset("--by-duration P1D"), "0");

    let directory = Directory::new("reset");
    let file = directory.path().join("plan.csv");
    std::fs::write(&file, format!("{},0,3\n", stage.topic)).unwrap();
    let reset =
        stage.groups(&format!("--reset-offsets --from-file {} --execute", file.display())).ok();
    assert_eq!(columns(&reset, &["NEW-OFFSET"]), [["3"]]);
    assert_eq!(stage.consumer("--max-messages 2").ok(), "3\n4\n");
}

#[test]
fn a_dry_run_of_a_reset_changes_nothing() {
    let stage = Stage::set();
    let planned = stage.groups("--reset-offsets --all-topics --to-earliest --dry-run").ok();
    assert_eq!(columns(&planned, &["NEW-OFFSET"]), [["0"]]);
    let exported =
        stage.groups("--reset-offsets --all-topics --to-offset 2 --dry-run --export").ok();
    assert!(exported.contains(&format!("{},0,2\n", stage.topic)), "{exported}");
    let described = stage.groups("--describe").ok();
    assert_eq!(columns(&described, &["CURRENT-OFFSET"]), [["6"]]);
}

#[test]
fn committed_offsets_of_a_topic_can_be_deleted() {
    let stage = Stage::set();
    let deleted = stage.groups(&format!("--delete-offsets --topic {}:0", stage.topic)).ok();
    assert!(rows(&deleted).contains(&vec![&stage.topic, "0", "Successful"]), "{deleted}");
    let described = stage.groups("--describe").run();
    assert!(!described.stdout.contains(&stage.topic), "{described}");
}

#[test]
fn a_deleted_group_is_gone_and_starts_anew() {
    let stage = Stage::set();
    let deleted = stage.groups("--delete").ok();
    assert!(
        deleted.contains(&format!(
            "Deletion of requested consumer groups ('{}') was successful.",
            stage.group
        )),
        "{deleted}"
    );
    let listed = stage.broker.tool("kafka-consumer-groups --list").ok();
    assert!(!listed.lines().any(|line| line == stage.group), "{listed}");
    let described = stage.groups("--describe").run();
    let said = format!("{}{}", described.stdout, described.stderr);
    assert!(said.contains(&format!("Group {} not found.", stage.group)), "{described}");
    assert_eq!(stage.consumer("--max-messages 1").ok(), "0\n");
}

#[test]
fn the_partitions_of_a_topic_are_shared_among_the_members_of_a_group() {
    let broker = Broker::shared();
    let topic = broker.create_topic("shared", "--partitions 4");
    let group = unique("sharing");
    let consumer = || {
        broker
            .tool(&format!(
                "kafka-console-consumer --topic {topic} --group {group} --timeout-ms 60000"
            ))
            .start()
    };
    let (first, second) = (consumer(), consumer());
    let describe = || {
        let described = broker
            .tool(&format!("kafka-consumer-groups --describe --members --group {group}"))
            .run();
        let header = described.stdout.contains("#PARTITIONS");
        header.then(|| columns(&described.stdout, &["#PARTITIONS"]))
    };
    until_true("both members to have two partitions", LIMIT, || {
        describe().is_some_and(|members| members == [["2"], ["2"]])
    });
    second.stop();
    second.wait(LIMIT).ok();
    until_true("the one left to have all partitions", LIMIT, || {
        describe().is_some_and(|members| members == [["4"]])
    });
    first.stop();
    first.wait(LIMIT).ok();
}
