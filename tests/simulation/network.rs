//! The network: while there are faults it loses, delays, doubles and reorders, and links fail one way.

use crate::message::Address;
use crate::random::Random;
use klamm_protocol::ids::BrokerId;
use std::collections::{BTreeMap, BTreeSet};

/// In a hundred messages, how many come twice, and how many take long.
const DOUBLED: u64 = 2;
const SLOW: u64 = 3;
const MAX_DELAY_MS: i64 = 8;
const MAX_SLOW_DELAY_MS: i64 = 900;

#[derive(Debug)]
pub(crate) struct Network {
    /// In a hundred messages, how many are lost.
    loss: u64,
    faults: bool,
    /// Directed links that carry nothing.
    blocked: BTreeSet<(Address, Address)>,
    /// When the last message of a connection that keeps order arrives.
    connections: BTreeMap<(Address, Address), i64>,
}

impl Network {
    pub(crate) fn new(loss: u64) -> Self {
        Self { loss, faults: true, blocked: BTreeSet::new(), connections: BTreeMap::new() }
    }

    /// When the copies of a message arrive: none, one or two.
    pub(crate) fn delays(
        &self,
        from: Address,
        to: Address,
        random: &mut Random,
    ) -> [Option<i64>; 2] {
        if from == to {
            return [Some(0), None];
        }
        let usual = random.between(1, MAX_DELAY_MS);
        if !self.faults {
            return [Some(usual), None];
        }
        if self.blocked.contains(&(from, to)) || random.chance(self.loss) {
            return [None, None];
        }
        let slow_ms = random.between(1, MAX_SLOW_DELAY_MS);
        let first = if random.chance(SLOW) { slow_ms } else { usual };
        [Some(first), random.chance(DOUBLED).then_some(slow_ms)]
    }

    /// How long a message takes that would take `delay_ms`, behind those before it.
    pub(crate) fn in_order(
        &mut self,
        from: Address,
        to: Address,
        now_ms: i64,
        delay_ms: i64,
    ) -> i64 {
        let last_ms = self.connections.entry((from, to)).or_insert(now_ms);
        *last_ms = (*last_ms).max(now_ms + delay_ms);
        *last_ms - now_ms
    }

    /// Cuts links between one node and the others, each way by chance.
    pub(crate) fn cut(&mut self, victim: BrokerId, nodes: &[BrokerId], random: &mut Random) {
        let victim = Address::Node(victim);
        let (inwards, outwards) = (random.between(0, 100), random.between(0, 100));
        for other in nodes.iter().map(|id| Address::Node(*id)).filter(|other| *other != victim) {
            self.cut_link(other, victim, inwards, random);
            self.cut_link(victim, other, outwards, random);
        }
    }

    fn cut_link(&mut self, from: Address, to: Address, percent: i64, random: &mut Random) {
        if random.between(0, 99) < percent {
            self.blocked.insert((from, to));
        }
    }

    pub(crate) fn mend(&mut self) {
        self.blocked.clear();
    }

    /// From now on the network is a good one.
    pub(crate) fn heal(&mut self) {
        self.faults = false;
        self.mend();
    }
}
