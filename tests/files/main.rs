//! The files of a broker in the eyes of Apache Kafka: its offline tools read them, and it takes over a directory and hands it
//! back.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod dump_log;
mod formatted;
mod handover;
mod metadata_shell;
