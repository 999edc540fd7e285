//! The placement of the replicas of new partitions (Kafka's StripedReplicaPlacer).
//!
//! Goals: each partition's replicas are spread over racks; leaders (first replicas) and followers are spread evenly
//! over the brokers; fenced brokers are used last and never lead. Brokers and racks start at a random offset, so that
//! small topics are not all placed on the same brokers.

use std::collections::BTreeMap;

use bytestring::ByteString;
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::BrokerId;

use crate::random::Random;

/// A broker that may get replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsableBroker {
    /// The node's id.
    pub id: BrokerId,
    /// Its rack.
    pub rack: Option<ByteString>,
    /// Brokers that are fenced, or about to be, get replicas only if no other broker is left.
    pub fenced: bool,
}

/// Why no placement was found. All are INVALID_REPLICATION_FACTOR.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// Zero or negative.
    #[error("Invalid replication factor {wanted}: the replication factor must be positive.")]
    NotPositive {
        /// The requested replication factor.
        wanted: i32,
    },
    /// No broker could lead.
    #[error("All brokers are currently fenced, or have all their log directories cordoned.")]
    NoUnfencedBroker,
    /// More replicas than brokers.
    #[error(
        "The target replication factor of {wanted} cannot be reached because only {usable} broker(s) are registered or some brokers have all their log directories cordoned."
    )]
    TooFewBrokers {
        /// The requested replication factor.
        wanted: i32,
        /// The number of usable brokers.
        usable: usize,
    },
}

impl PlacementError {
    /// The error code for the client.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotPositive { .. } | Self::NoUnfencedBroker | Self::TooFewBrokers { .. } => {
                ErrorCode::InvalidReplicationFactor
            }
        }
    }
}

/// Chooses the replicas of `partitions` new partitions, the preferred leader first.
pub fn place(
    brokers: impl IntoIterator<Item = UsableBroker>,
    partitions: usize,
    replication_factor: i16,
    random: &mut Random,
) -> Result<Vec<Vec<BrokerId>>, PlacementError> {
    let mut racks = RackList::new(brokers, random);
    let wanted = i32::from(replication_factor);
    let replicas = match usize::try_from(replication_factor) {
        Ok(0) | Err(_) => return Err(PlacementError::NotPositive { wanted }),
        Ok(replicas) => replicas,
    };
    if racks.unfenced_brokers == 0 {
        return Err(PlacementError::NoUnfencedBroker);
    }
    if replicas > racks.total_brokers {
        return Err(PlacementError::TooFewBrokers { wanted, usable: racks.total_brokers });
    }
    Ok((0..partitions).map(|_| racks.place(replicas, random)).collect())
}

/// Brokers that are used in turn, each once per round; every round starts at the next one.
#[derive(Debug, Default)]
struct BrokerList {
    brokers: Vec<BrokerId>,
    index: usize,
    offset: usize,
    round: usize,
}

impl BrokerList {
    fn initialize(&mut self, random: &mut Random) {
        if !self.brokers.is_empty() {
            self.brokers.sort_unstable();
            self.offset = random.below(self.brokers.len());
        }
    }

    fn next(&mut self, round: usize) -> Option<BrokerId> {
        let count = self.brokers.len();
        if count > 0 && self.round != round {
            self.round = round;
            self.index = 0;
            self.offset = (self.offset + 1) % count;
        }
        if self.index >= count {
            return None;
        }
        let broker = self.brokers[(self.index + self.offset) % count];
        self.index += 1;
        Some(broker)
    }
}

#[derive(Debug, Default)]
struct Rack {
    fenced: BrokerList,
    unfenced: BrokerList,
}

impl Rack {
    fn next(&mut self, round: usize) -> Option<BrokerId> {
        self.unfenced.next(round).or_else(|| self.fenced.next(round))
    }
}

#[derive(Debug)]
struct RackList {
    racks: Vec<Rack>,
    total_brokers: usize,
    unfenced_brokers: usize,
    round: usize,
    offset: usize,
}

impl RackList {
    fn new(brokers: impl IntoIterator<Item = UsableBroker>, random: &mut Random) -> Self {
        let mut by_name: BTreeMap<Option<ByteString>, Rack> = BTreeMap::new();
        let (mut total_brokers, mut unfenced_brokers) = (0, 0);
        for broker in brokers {
            let rack = by_name.entry(broker.rack).or_default();
            let list = if broker.fenced { &mut rack.fenced } else { &mut rack.unfenced };
            list.brokers.push(broker.id);
            total_brokers += 1;
            unfenced_brokers += usize::from(!broker.fenced);
        }
        let mut racks: Vec<Rack> = by_name.into_values().collect();
        for rack in &mut racks {
            rack.fenced.initialize(random);
            rack.unfenced.initialize(random);
        }
        let offset = if racks.is_empty() { 0 } else { random.below(racks.len()) };
        Self { racks, total_brokers, unfenced_brokers, round: 0, offset }
    }

    fn place(&mut self, replicas: usize, random: &mut Random) -> Vec<BrokerId> {
        self.shuffle_after_full_circle(random);
        if self.offset == self.racks.len() {
            self.offset = 0;
        }
        let (leader, leader_rack) = self.next_leader();
        let mut brokers = vec![leader];
        let mut rack = self.offset;
        // The leader's rack already has a replica, so it is skipped once.
        let mut pass_over = Some(leader_rack);
        while brokers.len() < replicas {
            if pass_over == Some(rack) {
                pass_over = None;
            } else if let Some(broker) = self.racks[rack].next(self.round) {
                brokers.push(broker);
            }
            rack = (rack + 1) % self.racks.len();
        }
        self.round += 1;
        self.offset += 1;
        brokers
    }

    /// After as many partitions as there are unfenced brokers, shuffles the order, so that the same assignments do not
    /// repeat. A single broker has no other order.
    fn shuffle_after_full_circle(&mut self, random: &mut Random) {
        if self.round != self.unfenced_brokers || self.unfenced_brokers <= 1 {
            return;
        }
        random.shuffle(&mut self.racks);
        for rack in &mut self.racks {
            random.shuffle(&mut rack.fenced.brokers);
            random.shuffle(&mut rack.unfenced.brokers);
        }
        self.round = 0;
    }

    /// The first unfenced broker from the rack at the offset on, and its rack.
    fn next_leader(&mut self) -> (BrokerId, usize) {
        let mut rack = self.offset;
        loop {
            if let Some(broker) = self.racks[rack].unfenced.next(self.round) {
                return (broker, rack);
            }
            rack = (rack + 1) % self.racks.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn broker(id: BrokerId, rack: Option<&str>, fenced: bool) -> UsableBroker {
        UsableBroker { id, rack: rack.map(ByteString::from), fenced }
    }

    fn random() -> Random {
        Random::from_seed([7; 32])
    }

    #[test]
    fn impossible_placements_say_why() {
        let one = [broker(1, None, false)];
        let error = |brokers: &[UsableBroker], factor| {
            place(brokers.to_vec(), 1, factor, &mut random()).unwrap_err()
        };
        assert_eq!(error(&one, 0), PlacementError::NotPositive { wanted: 0 });
        assert_eq!(error(&one, -3), PlacementError::NotPositive { wanted: -3 });
        assert_eq!(error(&[], 1), PlacementError::NoUnfencedBroker);
        assert_eq!(error(&[broker(1, None, true)], 1), PlacementError::NoUnfencedBroker);
        assert_eq!(error(&one, 2), PlacementError::TooFewBrokers { wanted: 2, usable: 1 });
    }

    #[test]
    fn one_broker_gets_everything() {
        let placed = place([broker(4, None, false)], 5, 1, &mut random()).unwrap();
        assert_eq!(placed, vec![vec![4]; 5]);
    }

    #[test]
    fn replicas_are_distinct_and_leaders_take_turns() {
        let brokers: Vec<_> = (0..5).map(|id| broker(id, None, false)).collect();
        let placed = place(brokers, 100, 3, &mut random()).unwrap();
        let mut led = [0; 5];
        for replicas in &placed {
            assert_eq!(replicas.iter().collect::<BTreeSet<_>>().len(), 3);
            led[usize::try_from(replicas[0]).unwrap()] += 1;
        }
        assert_eq!(led, [20; 5]);
    }

    #[test]
    fn every_partition_uses_every_rack_before_any_twice() {
        let racks = ["a", "a", "b", "b", "c", "c"];
        let brokers: Vec<_> =
            (0i32..).zip(racks).map(|(id, rack)| broker(id, Some(rack), false)).collect();
        for replicas in place(brokers, 50, 3, &mut random()).unwrap() {
            let used: BTreeSet<_> = replicas.iter().map(|id| id / 2).collect();
            assert_eq!(used.len(), 3, "{replicas:?}");
        }
    }

    #[test]
    fn fenced_brokers_never_lead_and_come_last() {
        let brokers = [broker(1, None, false), broker(2, None, true), broker(3, None, false)];
        for replicas in place(brokers.clone(), 20, 2, &mut random()).unwrap() {
            assert!(!replicas.contains(&2), "{replicas:?}");
        }
        for replicas in place(brokers, 20, 3, &mut random()).unwrap() {
            assert_eq!(replicas[2], 2);
        }
    }
}
