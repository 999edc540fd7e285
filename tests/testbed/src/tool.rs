//! One of Apache Kafka's command-line tools, by the name of its script, run as `bin/<name>.sh` would.

use std::time::Duration;

use crate::jars::jvm;
use crate::program::{Output, Program, Running};
use crate::tool_runner::{self, ToolRun};

const DEFAULT_LIMIT: Duration = Duration::from_secs(60);
const TOOL_HEAP_MIB: u32 = 256;

/// Script name, main class.
const TOOLS: &[(&str, &str)] = &[
    ("kafka-broker-api-versions", "org.apache.kafka.tools.BrokerApiVersionsCommand"),
    ("kafka-cluster", "org.apache.kafka.tools.ClusterTool"),
    ("kafka-configs", "kafka.admin.ConfigCommand"),
    ("kafka-console-consumer", "org.apache.kafka.tools.consumer.ConsoleConsumer"),
    ("kafka-console-producer", "org.apache.kafka.tools.ConsoleProducer"),
    ("kafka-consumer-groups", "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"),
    ("kafka-consumer-perf-test", "org.apache.kafka.tools.ConsumerPerformance"),
    ("kafka-delete-records", "org.apache.kafka.tools.DeleteRecordsCommand"),
    ("kafka-dump-log", "org.apache.kafka.tools.DumpLogSegments"),
    ("kafka-features", "org.apache.kafka.tools.FeatureCommand"),
    ("kafka-get-offsets", "org.apache.kafka.tools.GetOffsetShell"),
    ("kafka-groups", "org.apache.kafka.tools.GroupsCommand"),
    ("kafka-leader-election", "org.apache.kafka.tools.LeaderElectionCommand"),
    ("kafka-log-dirs", "org.apache.kafka.tools.LogDirsCommand"),
    ("kafka-metadata-quorum", "org.apache.kafka.tools.MetadataQuorumCommand"),
    ("kafka-metadata-shell", "org.apache.kafka.shell.MetadataShell"),
    ("kafka-producer-perf-test", "org.apache.kafka.tools.ProducerPerformance"),
    ("kafka-reassign-partitions", "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"),
    ("kafka-storage", "kafka.tools.StorageTool"),
    ("kafka-topics", "org.apache.kafka.tools.TopicCommand"),
    ("kafka-verifiable-consumer", "org.apache.kafka.tools.VerifiableConsumer"),
    ("kafka-verifiable-producer", "org.apache.kafka.tools.VerifiableProducer"),
];

/// A tool about to be run.
#[derive(Debug, Clone)]
pub struct Tool {
    name: String,
    class: &'static str,
    arguments: Vec<String>,
    stdin: Vec<u8>,
    limit: Duration,
}

/// A tool and its arguments, separated by spaces: `tool("kafka-dump-log --files x.log")`.
///
/// # Panics
/// When there is no such tool.
pub fn tool(line: &str) -> Tool {
    let mut words = line.split_whitespace().map(str::to_owned);
    let name = words.next().expect("a tool has a name");
    let known = TOOLS.iter().find(|(known, _)| *known == name);
    let Some((_, class)) = known else { panic!("no tool is called {name}") };
    Tool { name, class, arguments: words.collect(), stdin: Vec::new(), limit: DEFAULT_LIMIT }
}

impl Tool {
    /// One more argument, which may contain spaces.
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// What it reads on its standard input.
    pub fn stdin(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.stdin = input.into();
        self
    }

    /// How long it may take.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Names the broker it shall talk to, where this tool expects it.
    pub(crate) fn talking_to(mut self, bootstrap: &str) -> Self {
        let flag = ["--bootstrap-server".to_owned(), bootstrap.to_owned()];
        // Only this one wants the flag behind its subcommand; others with subcommands want it before.
        let at = if self.name == "kafka-cluster" { self.arguments.len() } else { 0 };
        self.arguments.splice(at..at, flag);
        self
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn run(self) -> Output {
        let limit = self.limit;
        self.start().wait(limit)
    }

    /// Runs it and returns its standard output.
    ///
    /// # Panics
    /// When it fails or does not end in time.
    #[track_caller]
    pub fn ok(self) -> String {
        self.run().ok()
    }

    /// Starts it, in the JVM that all tools share.
    pub fn start(self) -> ToolRun {
        tool_runner::start(&self.name, self.class, &self.arguments, &self.stdin)
    }

    /// Starts it in a JVM of its own: for tools that leave through `System.exit` or whose output is followed while they run.
    pub fn start_in_own_jvm(self) -> Running {
        let mut java = jvm(&[], TOOL_HEAP_MIB);
        java.arg(self.class).args(&self.arguments);
        Program::from(java).stdin(self.stdin).start()
    }
}
