//! Brokers lose power and come back.

use super::{Brokers, offset};
use klamm_protocol::ids::BrokerId;
use klamm_replication::partition::{BrokerStatus, Replica};

impl Brokers {
    /// The power fails. What was not synced may be lost, and so is what was known of the high watermark.
    pub(super) fn crash(&mut self, id: BrokerId) {
        let is_last = self.registration.isr == [id];
        let broker = self.brokers.get_mut(&id).expect("a broker");
        if broker.replica.is_none() || (is_last && !self.flush_before_ack) {
            return;
        }
        broker.replica = None;
        let unsynced = u64::try_from(broker.log.len() - broker.flushed).expect("a length");
        let kept = usize::try_from(self.random.below(unsynced + 1)).expect("a length");
        broker.truncate(offset(broker.flushed + kept));
        broker.checkpoint = self.random.between(0, broker.checkpoint);
        self.statuses.get_mut(&id).expect("registered").fenced = true;
        self.elect_without(id);
        if self.random.chance(40) {
            // It is back before what was under way has arrived.
            self.restart(id);
        }
    }

    pub(super) fn restart(&mut self, id: BrokerId) {
        let broker = self.brokers.get_mut(&id).expect("a broker");
        if broker.replica.is_some() {
            return;
        }
        broker.flushed = broker.log.len();
        broker.replica = Some(Replica::new(broker.checkpoint.min(broker.end())));
        broker.broker_epoch += 10;
        let broker_epoch = broker.broker_epoch;
        let status = BrokerStatus { broker_epoch, fenced: false, in_controlled_shutdown: false };
        self.statuses.insert(id, status);
        if self.leader.is_none() && self.registration.isr.contains(&id) {
            self.leader = Some(id);
            self.registration.leader_epoch += 1;
            self.registration.partition_epoch += 1;
        }
        self.publish(id);
    }
}
