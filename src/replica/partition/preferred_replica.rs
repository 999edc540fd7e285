//! Which replica a consumer had better read from (KIP-392; Kafka's `RackAwareReplicaSelector`).

use klamm_protocol::ids::{BrokerId, Offset};

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
        let leader = state.replica.leader()?;
        leader.preferred_read_replica(fetch_offset, |id| rack_of(id) == Some(rack))
    }
}
