//! The preferred read replica of a consumer (KIP-392; Kafka's `RackAwareReplicaSelector`).

use klamm_protocol::ids::{BrokerId, Offset};

use super::Partition;

impl Partition {
    /// The most caught-up in-sync follower in the consumer's rack; `None` if the leader itself is in that rack.
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
