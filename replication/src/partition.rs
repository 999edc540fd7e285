//! Replication of one topic partition: the leader, the in-sync replicas, the follower.
//!
//! The partition's log, its epochs on disk, fetch sessions and the controller are the shell's. A leader is
//! told what was appended, flushed, fetched and published, and answers with the high watermark and
//! with proposals for the controller; a follower is told what its fetch returned and answers with what to
//! do to the log.

mod event;
mod fetch_check;
mod follower;
mod isr;
mod leader;
mod replica;

pub use event::{
    AcksState, FetchProgress, FollowerFetch, LeaderConfig, LogEnds, NotEnoughReplicas, Registration,
};
pub use fetch_check::{FetchPosition, check_leader_epoch, check_position, epoch_end_offset};
pub use follower::{FetchedPartition, Follow, FollowerState, NextFetch};
pub use isr::{CommittedIsr, IsrChange, IsrProposal, IsrState, ProposalOutcome};
pub use leader::LeaderState;
pub use replica::{BrokerStatus, RemoteReplica};
