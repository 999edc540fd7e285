//! Replication of one topic partition: the leader, the in-sync replicas, the follower.
//!
//! The shell owns the partition's log, its epochs on disk, fetch sessions and the channel to the controller. A
//! [`Replica`] gets events (appended, flushed, fetched, published), and returns the high watermark, the waiters to
//! release, proposals for the controller, and, as a follower, what to do with the log. [`Repair`] decides the
//! repair of damaged records, [`Move`] the way of a replica into another log directory.

mod alter_log_dirs;
mod delayed;
mod event;
mod fetch_check;
mod fetch_schedule;
mod follower;
mod isr;
mod leader;
mod remote_replica;
mod repair;
mod replica;
mod role;

pub use alter_log_dirs::{
    AfterCopy, Alignment, Alteration, LogRange, Move, MoveStep, MovingReplica, RecordedDirectory,
    align,
};
pub use delayed::FetchWaiter;
pub use event::{LeaderConfig, LogEnds, NotEnoughReplicas, Registration};
pub use fetch_check::FetchPosition;
pub use fetch_schedule::{FetchOutcome, FetchSchedule, Patience};
pub use follower::{FetchedPartition, Follow, FollowerState, NextFetch};
pub use isr::{CommittedIsr, IsrChange, IsrProposal, IsrState, ProposalOutcome};
pub use leader::{LeaderState, SILENCE_CHECKS};
pub use remote_replica::{BrokerStatus, RemoteReplica};
pub use repair::{DamagedReplica, Repair, RepairStep};
pub use replica::{
    AppendRefused, Awaited, Effect, FetchedLog, ListIsolation, PartitionFetch, Reader, Replica,
    VisibleEnds,
};
pub use role::Role;
