//! Consumer groups: one [`GroupShard`] for each partition of `__consumer_offsets`.
//!
//! A shard decides (`on_<event>`), the driver appends and reports back (`on_appended`, `on_append_failed`,
//! `on_committed`, `on_tick`). Durable state, the committed offsets and the stored group metadata,
//! changes only by replaying records, the same way on a running coordinator and while loading.
//! Membership between two stored generations is volatile, as in Kafka.
//!
//! How a driver runs a shard:
//! 1. [`GroupLoader`]: `replay` every record of the partition, then `on_loaded` gives the shard, which
//!    wants to hear of the committed end once (`on_committed`) before it shows offsets.
//! 2. After every event: if the outcome has records, append them as one batch *before the next
//!    event*, then call `on_appended` or `on_append_failed` and treat that outcome in the same way.
//! 3. Send the replies. Call `on_tick` when `next_deadline_ms` has come (it may lie in the past),
//!    and `on_committed` whenever the partition's committed end moves.
//! 4. `on_unloaded` answers whatever still waits.

mod classic;
mod config;
mod delete_groups;
mod describe;
mod detach;
mod draft;
#[cfg(test)]
mod harness;
mod heartbeat;
mod join;
mod leave;
mod list;
mod loader;
mod offset_commit;
mod offset_delete;
mod offset_expiry;
mod offset_fetch;
mod offsets;
mod partition;
mod rebalance;
mod record;
mod session;
mod shard;
#[cfg(test)]
mod simulation;
mod static_member;
mod stored;
mod sync;
mod timers;
mod topic_deletion;
mod turn;
mod write;

pub use classic::state::State;
pub use config::GroupConfig;
pub use join::JoinGroup;
pub use list::ListFilter;
pub use loader::GroupLoader;
pub use partition::partition_for;
pub use record::{GroupType, ReplayError, Replayed};
pub use shard::GroupShard;
pub use topic_deletion::DeletedTopic;
