//! Fetches that wait at the leader for records or for a newer high watermark.
//!
//! They complete on both: a follower that got the high watermark only after its max wait would add half a second to
//! every commit.

use super::effect::RequestId;
use super::message::FetchRequest;
use super::voters::ReplicaKey;
use klamm_protocol::ids::Offset;

/// The maximum number of waiting fetches. Beyond it the oldest is answered at once, empty.
pub const MAX_PARKED_FETCHES: usize = 4_096;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct ParkedFetch {
    pub(super) request_id: RequestId,
    pub(super) fetch: FetchRequest,
    pub(super) deadline_ms: i64,
}

/// The waiting fetches, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct ParkedFetches(Vec<ParkedFetch>);

impl ParkedFetches {
    /// Parks a fetch. Returns those that must be answered now: an older one of the same replica, which no longer waits
    /// for it, and the oldest of all if there are too many.
    pub(super) fn park(&mut self, parked: ParkedFetch) -> Vec<ParkedFetch> {
        let replica = parked.fetch.replica;
        let mut answered = self.take(|other| is_named(&replica) && other.fetch.replica == replica);
        if self.0.len() >= MAX_PARKED_FETCHES {
            answered.push(self.0.remove(0));
        }
        self.0.push(parked);
        answered
    }

    /// Takes the fetches for which there are records now.
    pub(super) fn take_below(&mut self, end_offset: Offset) -> Vec<ParkedFetch> {
        self.take(|parked| parked.fetch.fetch_offset < end_offset)
    }

    pub(super) fn take_expired(&mut self, now_ms: i64) -> Vec<ParkedFetch> {
        self.take(|parked| parked.deadline_ms <= now_ms)
    }

    pub(super) fn take_all(&mut self) -> Vec<ParkedFetch> {
        std::mem::take(&mut self.0)
    }

    pub(super) fn next_deadline_ms(&self) -> Option<i64> {
        self.0.iter().map(|parked| parked.deadline_ms).min()
    }

    fn take(&mut self, mut due: impl FnMut(&ParkedFetch) -> bool) -> Vec<ParkedFetch> {
        let (taken, kept) = std::mem::take(&mut self.0).into_iter().partition(|parked| due(parked));
        self.0 = kept;
        taken
    }
}

/// Whether the replica has an id. Observers without one (a shell, a dump tool) cannot be distinguished.
fn is_named(replica: &ReplicaKey) -> bool {
    replica.id >= 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parked(request_id: u64, replica_id: i32, fetch_offset: Offset) -> ParkedFetch {
        ParkedFetch {
            request_id: RequestId(request_id),
            fetch: FetchRequest {
                replica: ReplicaKey { id: replica_id, directory_id: None },
                current_leader_epoch: 1,
                fetch_offset,
                last_fetched_epoch: 1,
                high_watermark: None,
                max_wait_ms: 500,
                max_bytes: 1024,
            },
            deadline_ms: 500,
        }
    }

    fn ids(fetches: &[ParkedFetch]) -> Vec<u64> {
        fetches.iter().map(|fetch| fetch.request_id.0).collect()
    }

    #[test]
    fn a_replica_waits_with_one_fetch_only_and_nameless_ones_with_several() {
        let mut fetches = ParkedFetches::default();
        assert!(fetches.park(parked(1, 2, 0)).is_empty());
        assert_eq!(ids(&fetches.park(parked(2, 2, 0))), [1]);
        assert!(fetches.park(parked(3, -1, 0)).is_empty());
        assert!(fetches.park(parked(4, -1, 0)).is_empty());
        assert_eq!(ids(&fetches.take_all()), [2, 3, 4]);
    }

    #[test]
    fn the_oldest_gives_way_when_there_are_too_many() {
        let mut fetches = ParkedFetches::default();
        let bound = u64::try_from(MAX_PARKED_FETCHES).unwrap();
        for request_id in 0..bound {
            assert!(fetches.park(parked(request_id, -1, 0)).is_empty());
        }
        assert_eq!(ids(&fetches.park(parked(bound, -1, 0))), [0]);
    }

    #[test]
    fn records_complete_those_that_wait_for_them_and_time_completes_the_rest() {
        let mut fetches = ParkedFetches::default();
        fetches.park(parked(1, 1, 5));
        fetches.park(parked(2, 2, 6));
        assert_eq!(ids(&fetches.take_below(6)), [1]);
        assert!(fetches.take_expired(499).is_empty());
        assert_eq!(ids(&fetches.take_expired(500)), [2]);
    }
}
