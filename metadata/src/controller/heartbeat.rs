//! BrokerHeartbeat (API 63): fencing, unfencing and controlled shutdown of brokers (Kafka's
//! BrokerHeartbeatManager.calculateNextBrokerState and processBrokerHeartbeat).

use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, Offset};
use klamm_protocol::messages::broker_heartbeat_request::BrokerHeartbeatRequest;
use klamm_protocol::messages::broker_heartbeat_response::BrokerHeartbeatResponse;
use klamm_protocol::messages::broker_registration_change_record::BrokerRegistrationChangeRecord;
use klamm_protocol::metadata_record::MetadataRecord;

use super::Controller;
use super::broker_registration::BrokerEpochError;
use super::leader_and_isr::BrokerEvent;
use super::outcome::Outcome;

/// The state of a broker (KIP-631).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BrokerControlState {
    Fenced,
    Unfenced,
    ControlledShutdown,
    ShutdownNow,
}

impl Controller {
    /// Answers a heartbeat.
    pub fn on_broker_heartbeat(
        &mut self,
        request: &BrokerHeartbeatRequest,
        now_ms: i64,
    ) -> Outcome<BrokerHeartbeatResponse> {
        let broker = request.broker_id;
        if let Err(error) = self.check_broker_epoch(broker, request.broker_epoch) {
            let error_code = error.code().code();
            return Outcome::answer(BrokerHeartbeatResponse { error_code, ..Default::default() });
        }
        self.heartbeats_mut().on_contact(broker, request.broker_epoch, now_ms);
        let registered_at = self
            .loader
            .registration_offset(broker)
            .expect("a registered broker has a registration in the log");
        let (current, next) = self.next_state(request, registered_at);
        let mut records = Vec::new();
        if current != next {
            self.record_transition(request, next, &mut records);
        }
        self.record_directories(request, &mut records);
        self.note_session(request, next, records.len());
        let response = BrokerHeartbeatResponse {
            error_code: ErrorCode::None.code(),
            is_caught_up: request.current_metadata_offset >= registered_at,
            is_fenced: matches!(next, BrokerControlState::Fenced | BrokerControlState::ShutdownNow),
            should_shut_down: next == BrokerControlState::ShutdownNow,
            ..Default::default()
        };
        Outcome::spread(records, response)
    }

    /// No process listens at the broker's registered address: unless the broker sends a heartbeat within the grace
    /// period, it is fenced.
    pub fn on_process_gone(&mut self, broker: BrokerId, epoch: i64, now_ms: i64) -> Outcome<()> {
        self.heartbeats_mut().on_process_gone(broker, epoch, now_ms);
        Outcome::answer(())
    }

    /// The previous leader of the quorum was lost without resigning: if it is also a broker, it must send a heartbeat
    /// within the grace period.
    pub fn on_node_lost(&mut self, id: BrokerId, now_ms: i64) {
        if let Some(epoch) = self.image().brokers.get(id).map(|broker| broker.epoch) {
            self.heartbeats_mut().on_process_gone(id, epoch, now_ms);
        }
    }

    /// Checks that a request has the broker's current epoch.
    pub(super) fn check_broker_epoch(
        &self,
        broker: BrokerId,
        epoch: i64,
    ) -> Result<(), BrokerEpochError> {
        match self.image().brokers.get(broker) {
            None => Err(BrokerEpochError::NotRegistered { broker }),
            Some(registered) if registered.epoch != epoch => {
                Err(BrokerEpochError::Stale { current: registered.epoch, given: epoch })
            }
            Some(_) => Ok(()),
        }
    }

    fn next_state(
        &self,
        request: &BrokerHeartbeatRequest,
        registered_at: Offset,
    ) -> (BrokerControlState, BrokerControlState) {
        use BrokerControlState::{ControlledShutdown, Fenced, ShutdownNow, Unfenced};
        let broker = request.broker_id;
        let shutdown_offset = self.heartbeats().controlled_shutdown_offset(broker);
        if let Some(offset) = shutdown_offset {
            let brokers = &self.image().brokers;
            let lowest = self.heartbeats().lowest_offset(|id| brokers.is_alive(id));
            let may_stop = !self.has_leaderships(broker) && offset <= lowest;
            let next = if may_stop { ShutdownNow } else { ControlledShutdown };
            return (ControlledShutdown, next);
        }
        if !self.image().brokers.is_alive(broker) {
            let caught_up = request.current_metadata_offset >= registered_at;
            let next = match (request.want_shut_down, request.want_fence) {
                (true, _) => ShutdownNow,
                // Late, of a process that is ending: it would lead again, and be missed for a whole session.
                (false, false) if self.heartbeats().may_have_ended(broker) => Fenced,
                (false, false) if caught_up => Unfenced,
                (false, _) => Fenced,
            };
            return (Fenced, next);
        }
        let next = match (request.want_fence, request.want_shut_down) {
            (true, true) => ShutdownNow,
            (true, false) => Fenced,
            (false, true) if self.has_leaderships(broker) => ControlledShutdown,
            (false, true) => ShutdownNow,
            (false, false) => Unfenced,
        };
        (Unfenced, next)
    }

    fn has_leaderships(&self, broker: BrokerId) -> bool {
        self.image()
            .topics
            .all_partitions()
            .any(|(_, _, partition)| partition.leader == Some(broker))
    }

    fn record_transition(
        &self,
        request: &BrokerHeartbeatRequest,
        next: BrokerControlState,
        records: &mut Vec<MetadataRecord>,
    ) {
        let broker = request.broker_id;
        match next {
            BrokerControlState::Fenced | BrokerControlState::ShutdownNow => {
                self.fence(broker, records);
            }
            BrokerControlState::Unfenced => {
                records.push(registration_change(request, |change| change.fenced = -1));
                let failed = &request.offline_log_dirs;
                self.update_partitions(BrokerEvent::Unfenced { broker, failed }, records);
            }
            BrokerControlState::ControlledShutdown => {
                let registered = self.image().brokers.get(broker).expect("its epoch was checked");
                if !registered.in_controlled_shutdown {
                    let set = |change: &mut BrokerRegistrationChangeRecord| {
                        change.in_controlled_shutdown = 1;
                    };
                    records.push(registration_change(request, set));
                }
                self.update_partitions(BrokerEvent::Leaves(broker), records);
            }
        }
    }

    /// Fences a broker and removes it from all ISRs.
    pub(super) fn fence(&self, broker: BrokerId, records: &mut Vec<MetadataRecord>) {
        let registered =
            self.image().brokers.get(broker).expect("only a registered broker is fenced");
        self.update_partitions(BrokerEvent::Leaves(broker), records);
        records.push(MetadataRecord::BrokerRegistrationChange(BrokerRegistrationChangeRecord {
            broker_id: broker,
            broker_epoch: registered.epoch,
            fenced: 1,
            ..Default::default()
        }));
    }

    fn note_session(
        &mut self,
        request: &BrokerHeartbeatRequest,
        next: BrokerControlState,
        records: usize,
    ) {
        let broker = request.broker_id;
        let records = Offset::try_from(records).expect("a decision's records can be counted");
        let last_offset = self.loader.end_offset() + records - 1;
        let heartbeats = self.heartbeats_mut();
        heartbeats.on_metadata_offset(broker, request.current_metadata_offset);
        match next {
            BrokerControlState::Fenced => heartbeats.on_fenced(broker),
            BrokerControlState::ShutdownNow => {
                heartbeats.on_fenced(broker);
                heartbeats.on_shut_down(broker);
            }
            BrokerControlState::ControlledShutdown => {
                heartbeats.on_controlled_shutdown(broker, last_offset);
            }
            BrokerControlState::Unfenced if !self.image().brokers.is_alive(broker) => {
                self.heartbeats_mut().on_unfenced(broker);
            }
            BrokerControlState::Unfenced => {}
        }
    }
}

/// A change record for the registration of the heartbeat's broker.
pub(super) fn registration_change(
    request: &BrokerHeartbeatRequest,
    set: impl FnOnce(&mut BrokerRegistrationChangeRecord),
) -> MetadataRecord {
    let mut change = BrokerRegistrationChangeRecord {
        broker_id: request.broker_id,
        broker_epoch: request.broker_epoch,
        ..Default::default()
    };
    set(&mut change);
    MetadataRecord::BrokerRegistrationChange(change)
}

#[cfg(test)]
mod tests;
