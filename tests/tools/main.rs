//! Apache Kafka's command-line tools and kcat against one node, each checked by what it printed.

mod cluster;
mod configs;
mod console;
mod consumer_groups;
mod kcat;
mod load;
mod offsets;
mod table;
mod topics;
