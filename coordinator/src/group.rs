//! Consumer groups: one [`GroupShard`] for each partition of `__consumer_offsets`.
//!
//! A shard decides (`on_<event>`) and puts its decisions into its effects; the runtime (see [`crate::runtime`])
//! appends, applies and replies. Committed offsets change only by records, the same way on a running coordinator and
//! while loading. A classic group in memory is ahead of its last record: members and generations are decided first and
//! stored with the leader's assignment; changes between two stored generations are volatile, as in Kafka.

mod classic;
mod config;
mod delete_groups;
mod detach;
#[cfg(test)]
mod harness;
mod kind;
mod list;
mod offsets;
mod on_commit;
mod partition;
mod record;
mod response;
mod shard;
#[cfg(test)]
mod simulation;

pub use classic::join::JoinGroup;
pub use classic::state::State;
pub use classic::static_member::Replacement;
pub use config::GroupConfig;
pub use kind::GroupType;
pub use list::ListFilter;
pub use offsets::topic_deletion::DeletedTopic;
pub use on_commit::OnCommit;
pub use partition::partition_for;
pub use record::{GroupRecord, ReplayError};
pub use response::Response;
pub use shard::{GroupShard, Timer};
