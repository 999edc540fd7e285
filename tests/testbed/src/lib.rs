//! What the end-to-end tests share: a broker as a process (Klamm, or Apache Kafka as the reference), clusters of
//! them, Apache Kafka's tools, and other programs, each with a deadline.
//!
//! The crate knows how things are started, awaited and ended. It never judges an answer: checks belong in the tests.
//! Invariants: every process it starts ends with the test process at the latest, and is ended by its own id; every wait
//! has a deadline; ports and directories are a test's own.
//!
//! `KLAMM_TEST_TARGET=kafka` puts Apache Kafka in the place of the broker under test: the oracle for the tests themselves.
//! `KLAMM_TEST_KEEP=1` keeps the directories of ended brokers.

mod ask;
mod broker;
mod cluster;
mod console;
mod disk;
mod guard;
mod jars;
mod network;
mod place;
mod process;
mod program;
mod setup;
mod tool;
mod tool_runner;
mod wait;

pub use ask::ask;
pub use broker::Broker;
pub use cluster::{Cluster, ClusterSetup, Node, PartitionState, QuorumState, Roles};
pub use disk::Disk;
pub use jars::{compiled, compiled_against, fetched, jvm, jvm_with, kafka_jars, made_once};
pub use network::Network;
pub use place::{Directory, free_port, target_dir, unique};
pub use program::{Output, Program, Running, require};
pub use setup::{Flavour, Setup};
pub use tool::{Tool, tool};
pub use tool_runner::ToolRun;
pub use wait::{until, until_true, within};
