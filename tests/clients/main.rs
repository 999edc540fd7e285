//! Clients other than Apache Kafka's own, against one node: librdkafka from Rust and Python, franz-go from Go.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admin;
mod groups;
mod offsets;
mod other_languages;
mod produce;
mod rdkafka_client;
