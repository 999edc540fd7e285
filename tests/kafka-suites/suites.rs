//! Which of Kafka's suites there are, and which of them every `cargo test` runs.

use std::time::Duration;

pub(crate) const KAFKA_VERSION: &str = "4.3.1";

/// The jars that hold the suites of tools, clients and brokers.
const JARS: &[&str] =
    &["kafka-tools", "kafka-clients-integration-tests", "kafka-server", "kafka_2.13"];

/// What every `cargo test` runs: kafka-tools whole and, of the others, classes that take seconds. A name that ends with a dot
/// stands for all classes that begin with it.
const FAST: &[&str] = &[
    "org.apache.kafka.tools.",
    "kafka.server.DeleteGroupsRequestTest",
    "kafka.server.DescribeGroupsRequestTest",
    "kafka.server.DescribeQuorumRequestTest",
    "kafka.server.HeartbeatRequestTest",
    "kafka.server.JoinGroupRequestTest",
    "kafka.server.LeaveGroupRequestTest",
    "kafka.server.ListGroupsRequestTest",
    "kafka.server.OffsetCommitRequestTest",
    "kafka.server.OffsetDeleteRequestTest",
    "kafka.server.OffsetFetchRequestTest",
    "kafka.server.SyncGroupRequestTest",
    "org.apache.kafka.clients.admin.AutoTopicCreationTest",
    "org.apache.kafka.clients.admin.DeleteTopicTest",
    "org.apache.kafka.clients.admin.ListOffsetsIntegrationTest",
    "org.apache.kafka.clients.consumer.PlaintextConsumerAssignTest",
    "org.apache.kafka.clients.consumer.PlaintextConsumerFetchTest",
    "org.apache.kafka.clients.producer.ProducerFailureHandlingTest",
    "org.apache.kafka.clients.producer.ProducerIdExpirationTest",
    "org.apache.kafka.server.BootstrapControllersIntegrationTest",
    "org.apache.kafka.server.BrokerRegistrationRequestTest",
    "org.apache.kafka.server.MetadataRequestTest",
    "org.apache.kafka.server.ReconfigurableQuorumIntegrationTest",
];

/// Fewer would mean that methods were lost: the comparison must not pass by running nothing.
const FAST_METHODS_AT_LEAST: usize = 550;
const ALL_METHODS_AT_LEAST: usize = 1_200;
const CONNECT_METHODS_AT_LEAST: usize = 150;
const STREAMS_METHODS_AT_LEAST: usize = 290;

/// How long all runners together may take.
const FAST_LIMIT: Duration = Duration::from_secs(20 * 60);
const LONG_LIMIT: Duration = Duration::from_secs(3 * 60 * 60);

/// How much is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// What every `cargo test` runs.
    Fast,
    /// All of tools, clients and brokers.
    All,
    /// Kafka Connect.
    Connect,
    /// Kafka Streams.
    Streams,
}

impl Scope {
    /// What `KLAMM_KAFKA_SUITES` says: `all`, `connect`, `streams`, or nothing.
    ///
    /// # Panics
    /// When it has another value.
    pub(crate) fn from_environment() -> Self {
        match std::env::var("KLAMM_KAFKA_SUITES").as_deref() {
            Err(_) => Self::Fast,
            Ok("all") => Self::All,
            Ok("connect") => Self::Connect,
            Ok("streams") => Self::Streams,
            Ok(other) => {
                panic!("KLAMM_KAFKA_SUITES is all, connect, streams or not set, and not {other}")
            }
        }
    }

    /// The jars that hold its classes.
    pub(crate) fn jars(self) -> &'static [&'static str] {
        match self {
            Self::Fast | Self::All => JARS,
            Self::Connect => &["connect-runtime"],
            Self::Streams => &["kafka-streams-integration-tests"],
        }
    }

    /// A regular expression for the names of its classes.
    pub(crate) fn classes(self) -> String {
        if self != Self::Fast {
            return ".*".to_owned();
        }
        let names = FAST.iter().map(|name| match name.ends_with('.') {
            true => format!("\\Q{name}\\E.*"),
            false => format!("\\Q{name}\\E"),
        });
        names.collect::<Vec<_>>().join("|")
    }

    /// Whether a method's class is one of its classes.
    pub(crate) fn includes(self, method: &str) -> bool {
        let class = method.split('#').next().expect("a split has a first part");
        let is_connect = class.starts_with("org.apache.kafka.connect.");
        let is_streams = class.starts_with("org.apache.kafka.streams.");
        let is_of = |name: &&str| class == *name || name.ends_with('.') && class.starts_with(*name);
        match self {
            Self::Fast => FAST.iter().any(is_of),
            Self::All => !is_connect && !is_streams,
            Self::Connect => is_connect,
            Self::Streams => is_streams,
        }
    }

    /// Whether the methods that are known to fail are run as well.
    pub(crate) fn runs_the_red(self) -> bool {
        self != Self::Fast
    }

    pub(crate) fn methods_at_least(self) -> usize {
        match self {
            Self::Fast => FAST_METHODS_AT_LEAST,
            Self::All => ALL_METHODS_AT_LEAST,
            Self::Connect => CONNECT_METHODS_AT_LEAST,
            Self::Streams => STREAMS_METHODS_AT_LEAST,
        }
    }

    /// How long all runners together may take.
    pub(crate) fn limit(self) -> Duration {
        match self {
            Self::Fast => FAST_LIMIT,
            Self::All | Self::Connect | Self::Streams => LONG_LIMIT,
        }
    }
}
