//! Which replica a consumer had better read from (KIP-392; Kafka's `RackAwareReplicaSelector`).

use klamm_protocol::ids::{BrokerId, Offset};
use klamm_replication::partition::LeaderState;

use super::Partition;

impl Partition {
    /// The in-sync follower in the consumer's rack that has come furthest, unless the leader is in that rack itself.
    pub(crate) fn preferred_read_replica<'a>(
        &self,
        rack: &str,
        fetch_offset: Offset,
        rack_of: impl Fn(BrokerId) -> Option<&'a str>,
    ) -> Option<BrokerId> {
        if rack_of(self.broker_id) == Some(rack) {
            return None;
        }
        let state = self.lock();
        select(state.leader()?, fetch_offset, |id| rack_of(id) == Some(rack))
    }
}

fn select(
    leader: &LeaderState,
    fetch_offset: Offset,
    is_near: impl Fn(BrokerId) -> bool,
) -> Option<BrokerId> {
    let near = leader.followers().filter(|(id, follower)| {
        let holds = follower.log_start_offset <= fetch_offset
            && follower.log_end_offset >= Some(fetch_offset);
        let alive = follower.status.is_some_and(|status| !status.fenced);
        is_near(*id) && holds && alive && leader.isr().isr().contains(id)
    });
    let furthest = near.max_by_key(|(_, at)| (at.log_end_offset, at.last_caught_up_ms));
    furthest.map(|(id, _)| id)
}

#[cfg(test)]
mod tests {
    use klamm_replication::partition::{
        BrokerStatus, FollowerFetch, LeaderConfig, LogEnds, Registration,
    };

    use super::*;

    /// Broker 1 leads; 2 and 3 are in sync at offsets 10 and 8, 4 is not in sync.
    fn leader() -> LeaderState {
        let config = LeaderConfig {
            broker_id: 1,
            min_insync_replicas: 1,
            replica_lag_time_max_ms: 1000,
            flush_before_ack: true,
        };
        let registration = Registration {
            leader_epoch: 1,
            partition_epoch: 1,
            replicas: vec![1, 2, 3, 4],
            isr: vec![1, 2, 3],
        };
        let status = BrokerStatus { broker_epoch: 7, fenced: false, in_controlled_shutdown: false };
        let statuses = [2, 3, 4].map(|id| (id, status)).into();
        let ends = LogEnds { log_end_offset: 10, flushed_offset: 10 };
        let mut leader = LeaderState::new(config, &registration, ends, 0, &statuses, 5000);
        for (follower, fetch_offset) in [(2, 10), (3, 8), (4, 9)] {
            let fetch = FollowerFetch {
                follower,
                broker_epoch: -1,
                current_leader_epoch: 1,
                fetch_offset,
                log_start_offset: 0,
                now_ms: 5000,
            };
            leader.on_follower_fetch(fetch).unwrap();
        }
        leader
    }

    #[test]
    fn the_near_replica_that_has_come_furthest_is_preferred() {
        assert_eq!(select(&leader(), 5, |_| true), Some(2));
        assert_eq!(select(&leader(), 5, |id| id != 2), Some(3));
        assert_eq!(select(&leader(), 9, |id| id != 2), None, "3 does not hold the offset, 4 lags");
        assert_eq!(select(&leader(), 5, |_| false), None);
    }

    #[test]
    fn a_fenced_replica_is_not_preferred() {
        let mut leader = leader();
        let status = BrokerStatus { broker_epoch: 7, fenced: true, in_controlled_shutdown: false };
        leader.on_broker_status(2, Some(status));
        assert_eq!(select(&leader, 5, |_| true), Some(3));
    }
}
