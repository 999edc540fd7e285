//! How often the node logs that a peer of the metadata quorum contradicts itself. Such a peer does so with every
//! response, so most warnings are suppressed. Pure.

use klamm_protocol::ids::BrokerId;
use klamm_replication::quorum::Anomaly;

/// The pause between two warnings of the same kind about the same peer.
const INTERVAL_MS: i64 = 30_000;
/// The most pairs of kind and peer that are counted apart.
const MAX_KNOWN: usize = 64;

type Kind = std::mem::Discriminant<Anomaly>;

/// When each kind of contradiction was last logged, for each peer.
#[derive(Debug, Default)]
pub(super) struct Contradictions(Vec<Known>);

#[derive(Debug)]
struct Known {
    kind: Kind,
    peer: Option<BrokerId>,
    logged_ms: i64,
    suppressed: u64,
}

impl Contradictions {
    /// Returns whether to log this contradiction: `Some` with the number of those of its kind and peer that were
    /// suppressed since the last one that was logged.
    pub(super) fn on_anomaly(
        &mut self,
        now_ms: i64,
        anomaly: &Anomaly,
        peer: Option<BrokerId>,
    ) -> Option<u64> {
        let kind = std::mem::discriminant(anomaly);
        let known = self.0.iter_mut().find(|known| (known.kind, known.peer) == (kind, peer));
        let Some(known) = known else {
            if self.0.len() == MAX_KNOWN {
                self.0.remove(0);
            }
            self.0.push(Known { kind, peer, logged_ms: now_ms, suppressed: 0 });
            return Some(0);
        };
        if now_ms - known.logged_ms < INTERVAL_MS {
            known.suppressed += 1;
            return None;
        }
        known.logged_ms = now_ms;
        Some(std::mem::take(&mut known.suppressed))
    }
}

/// The peer that contradicts itself: the one that the anomaly names, otherwise the leader.
pub(super) fn peer(anomaly: &Anomaly, leader: Option<BrokerId>) -> Option<BrokerId> {
    match anomaly {
        Anomaly::ConflictingLeader { claimed, .. } => Some(*claimed),
        Anomaly::FetchOffsetWentBack { replica_id, .. } => Some(*replica_id),
        Anomaly::LeaderWithoutEndpoint { leader_id, .. } => Some(*leader_id),
        Anomaly::TruncationBelowHighWatermark { .. }
        | Anomaly::UnexpectedSnapshotChunk { .. }
        | Anomaly::UnexpectedBatch { .. } => leader,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unexpected(base_offset: i64) -> Anomaly {
        Anomaly::UnexpectedBatch { base_offset, epoch: 1, expected_offset: 9 }
    }

    #[test]
    fn each_kind_is_logged_for_each_peer_at_once_and_then_twice_a_minute_with_the_number() {
        let mut contradictions = Contradictions::default();
        assert_eq!(contradictions.on_anomaly(0, &unexpected(1), Some(2)), Some(0));
        assert_eq!(contradictions.on_anomaly(10, &unexpected(2), Some(2)), None);
        assert_eq!(contradictions.on_anomaly(20, &unexpected(2), Some(3)), Some(0));
        let other = Anomaly::LeaderWithoutEndpoint { epoch: 1, leader_id: 2 };
        assert_eq!(contradictions.on_anomaly(30, &other, Some(2)), Some(0));
        assert_eq!(contradictions.on_anomaly(29_999, &unexpected(3), Some(2)), None);
        assert_eq!(contradictions.on_anomaly(30_000, &unexpected(4), Some(2)), Some(2));
        assert_eq!(contradictions.on_anomaly(60_000, &unexpected(4), Some(2)), Some(0));
    }

    #[test]
    fn the_number_of_peers_is_bounded() {
        let mut contradictions = Contradictions::default();
        for peer in 0..1_000 {
            assert_eq!(contradictions.on_anomaly(0, &unexpected(1), Some(peer)), Some(0));
        }
        assert_eq!(contradictions.0.len(), MAX_KNOWN);
    }
}
