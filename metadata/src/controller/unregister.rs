//! UnregisterBroker (API 64): removes the registration of a broker that will not come back (KIP-631).

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::unregister_broker_record::UnregisterBrokerRecord;
use klamm_protocol::messages::unregister_broker_request::UnregisterBrokerRequest;
use klamm_protocol::messages::unregister_broker_response::UnregisterBrokerResponse;
use klamm_protocol::metadata_record::MetadataRecord;

use super::Controller;
use super::leader_and_isr::BrokerEvent;
use super::outcome::Outcome;

impl Controller {
    /// Removes a broker's registration. Its replicas stay assigned, offline, until they are reassigned.
    pub fn on_unregister_broker(
        &mut self,
        request: &UnregisterBrokerRequest,
    ) -> Outcome<UnregisterBrokerResponse> {
        let broker_id = request.broker_id;
        let Some(broker) = self.image().brokers.get(broker_id) else {
            let text = format!("Broker ID {broker_id} is not currently registered");
            return Outcome::answer(UnregisterBrokerResponse {
                error_code: ErrorCode::BrokerIdNotRegistered.code(),
                error_message: Some(text.into()),
                ..Default::default()
            });
        };
        let broker_epoch = broker.epoch;
        let mut records = Vec::new();
        self.update_partitions(BrokerEvent::Unregistered(broker_id), &mut records);
        let record = UnregisterBrokerRecord { broker_id, broker_epoch };
        records.push(MetadataRecord::UnregisterBroker(record));
        self.heartbeats_mut().remove(broker_id);
        // On success Kafka's message is empty, which is the schema's default.
        Outcome::spread(records, UnregisterBrokerResponse::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::testing::Testbed;

    fn unregister(testbed: &mut Testbed, broker_id: i32) -> UnregisterBrokerResponse {
        let outcome =
            testbed.controller.on_unregister_broker(&UnregisterBrokerRequest { broker_id });
        testbed.apply(outcome)
    }

    #[test]
    fn a_forgotten_broker_is_in_no_isr_but_keeps_its_place_among_the_replicas() {
        let mut testbed = Testbed::with_brokers([1, 2]);
        testbed.create("t", &[&[1, 2]], &[("min.insync.replicas", "2")]);
        let answer = unregister(&mut testbed, 1);
        assert_eq!((answer.error_code, answer.error_message.as_deref()), (0, Some("")));
        let partition = testbed.partition("t", 0);
        assert_eq!(partition.replicas, [1, 2]);
        assert_eq!((partition.leader, &*partition.isr), (Some(2), &[2][..]));
        assert!(testbed.controller.image().brokers.get(1).is_none());
        assert_eq!(testbed.controller.loader().registration_offset(1), None);
    }

    #[test]
    fn an_unknown_broker_is_refused() {
        let answer = unregister(&mut Testbed::with_brokers([1]), 77);
        assert_eq!(answer.error_code, ErrorCode::BrokerIdNotRegistered.code());
        let text = "Broker ID 77 is not currently registered";
        assert_eq!(answer.error_message.as_deref(), Some(text));
    }
}
