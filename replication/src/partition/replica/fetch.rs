//! The end of the records that each reader may see, and the progress that a follower's fetch proves.
//!
//! Only the leader answers followers. Each read for a follower's fetch records the follower's position: a waiting fetch
//! proves it as well as a new one.

use super::Replica;
use crate::OffsetAndEpoch;
use crate::partition::delayed::FetchWaiter;
use crate::partition::event::FollowerFetch;
use crate::partition::fetch_check::{FetchPosition, check_leader_epoch, check_position};
use crate::partition::isr::IsrProposal;
use crate::partition::role::Role;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, LeaderEpoch, Offset};

/// A fetch that may read up to the log's end (`FetchRequest.DEBUGGING_CONSUMER_ID`).
const DEBUGGING_CONSUMER: i32 = -2;

/// The reader of a partition, which determines the end of the records that it may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Up to the high watermark, or the last stable offset; some may read `from_followers` (KIP-392).
    Consumer { read_committed: bool, from_followers: bool },
    /// Up to the log's end (`FetchRequest.DEBUGGING_CONSUMER_ID`).
    Debugger,
    /// A follower: up to the log's end. It has the records before its fetch offset.
    Follower { id: BrokerId, broker_epoch: Option<i64> },
}

impl Reader {
    /// The reader of a fetch request, whose replica id is negative for other readers than followers.
    pub fn of(
        (replica_id, broker_epoch): (i32, Option<i64>),
        read_committed: bool,
        from_followers: bool,
    ) -> Self {
        match replica_id {
            0.. => Self::Follower { id: replica_id, broker_epoch },
            DEBUGGING_CONSUMER => Self::Debugger,
            _ => Self::Consumer { read_committed, from_followers },
        }
    }

    pub fn is_follower(self) -> bool {
        matches!(self, Self::Follower { .. })
    }

    /// The end of the records that the reader may see.
    pub fn upper_bound(self, ends: VisibleEnds) -> Offset {
        match self {
            Self::Consumer { read_committed: true, .. } => ends.last_stable_offset,
            Self::Consumer { .. } => ends.high_watermark,
            Self::Debugger | Self::Follower { .. } => ends.log_end_offset,
        }
    }
}

/// The end of the records that ListOffsets may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListIsolation {
    /// Up to the log's end: replicas and debuggers.
    None,
    ReadUncommitted,
    ReadCommitted,
}

/// The ends of a log for the different readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VisibleEnds {
    pub high_watermark: Offset,
    pub last_stable_offset: Offset,
    pub log_end_offset: Offset,
}

/// The fields of a fetch of one partition that the replica needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionFetch {
    pub reader: Reader,
    pub current_leader_epoch: Option<LeaderEpoch>,
    pub fetch_offset: Offset,
    /// The epoch of the record before `fetch_offset`.
    pub last_fetched_epoch: Option<LeaderEpoch>,
    /// The follower's log start offset.
    pub log_start_offset: Offset,
    /// Used for followers only.
    pub now_ms: i64,
}

/// The data of this replica's log for a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchedLog {
    pub log_start_offset: Offset,
    /// The end of the fetch's last epoch in this log, or of the largest one below it.
    pub epoch_end: Option<OffsetAndEpoch>,
}

impl<P, F: FetchWaiter> Replica<P, F> {
    /// Checks a fetch, and records the progress of a follower. Returns whether its position is part of this log, and a
    /// change of the ISR to send to the controller. A waiter is woken when another read may find more.
    ///
    /// Only a fetch at a valid position proves progress (KAFKA-13141).
    pub fn on_fetch(
        &mut self,
        fetch: &PartitionFetch,
        log: FetchedLog,
        waiter: Option<F>,
    ) -> Result<(FetchPosition, Option<IsrProposal>), ErrorCode> {
        self.check_reader(fetch.reader, fetch.current_leader_epoch)?;
        if let Some(waiter) = waiter {
            match fetch.reader {
                Reader::Consumer { .. } => self.consumers.add(waiter),
                Reader::Debugger | Reader::Follower { .. } => self.followers.add(waiter),
            }
        }
        let (offset, epoch) = (fetch.fetch_offset, fetch.last_fetched_epoch);
        let position = check_position(offset, epoch, log.epoch_end, log.log_start_offset)?;
        if let FetchPosition::Diverging(_) = position {
            return Ok((position, None));
        }
        let Reader::Follower { id, broker_epoch } = fetch.reader else {
            return Ok((position, None));
        };
        if offset < log.log_start_offset {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        let proposal = self.on_follower_fetch(FollowerFetch {
            follower: id,
            broker_epoch,
            current_leader_epoch: fetch.current_leader_epoch,
            fetch_offset: offset,
            log_start_offset: fetch.log_start_offset,
            now_ms: fetch.now_ms,
        })?;
        Ok((position, proposal))
    }

    fn on_follower_fetch(
        &mut self,
        fetch: FollowerFetch,
    ) -> Result<Option<IsrProposal>, ErrorCode> {
        let Role::Leader(leader) = &mut self.role else {
            return Err(ErrorCode::NotLeaderOrFollower);
        };
        let progress = leader.on_follower_fetch(fetch)?;
        if progress.log_start_moved {
            self.deletions.release_all();
        }
        Ok(progress.proposal)
    }

    /// Checks whether this broker may answer the reader.
    fn check_reader(
        &self,
        reader: Reader,
        current_leader_epoch: Option<LeaderEpoch>,
    ) -> Result<(), ErrorCode> {
        let epoch = self.role.leader_epoch().ok_or(ErrorCode::NotLeaderOrFollower)?;
        check_leader_epoch(current_leader_epoch, epoch)?;
        let Some(leader) = self.leader() else {
            let from_followers = matches!(reader, Reader::Consumer { from_followers: true, .. });
            return if from_followers { Ok(()) } else { Err(ErrorCode::NotLeaderOrFollower) };
        };
        match reader {
            Reader::Follower { id, .. } => leader.check_follower(id, current_leader_epoch),
            Reader::Consumer { .. } | Reader::Debugger => Ok(()),
        }
    }

    /// The latest offset for ListOffsets by this kind of reader, with the leader's epoch.
    ///
    /// A consumer gets no latest offset before this epoch has committed a record, or the offset could go backwards
    /// after an election (KIP-207).
    pub fn latest_offset(
        &self,
        isolation: ListIsolation,
        ends: VisibleEnds,
    ) -> Result<(Offset, LeaderEpoch), ErrorCode> {
        let leader = self.leader().ok_or(ErrorCode::NotLeaderOrFollower)?;
        let offset = match isolation {
            ListIsolation::None => ends.log_end_offset,
            ListIsolation::ReadUncommitted => ends.high_watermark,
            ListIsolation::ReadCommitted => ends.last_stable_offset,
        };
        if isolation != ListIsolation::None {
            leader.check_offsets_available()?;
        }
        Ok((offset, leader.leader_epoch()))
    }
}
