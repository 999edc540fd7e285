//! AllocateProducerIds (API 67): allocates blocks of producer ids to brokers (KIP-730).

use klamm_protocol::ErrorCode;
use klamm_protocol::ids::ProducerId;
use klamm_protocol::messages::allocate_producer_ids_request::AllocateProducerIdsRequest;
use klamm_protocol::messages::allocate_producer_ids_response::AllocateProducerIdsResponse;
use klamm_protocol::messages::producer_ids_record::ProducerIdsRecord;
use klamm_protocol::metadata_record::MetadataRecord;

use super::Controller;
use super::outcome::Outcome;

/// The number of ids in a block.
pub const PRODUCER_ID_BLOCK_SIZE: i32 = 1_000;

impl Controller {
    /// Gives the next block of producer ids to a broker.
    pub fn on_allocate_producer_ids(
        &self,
        request: &AllocateProducerIdsRequest,
    ) -> Outcome<AllocateProducerIdsResponse> {
        let refused = |code: ErrorCode| {
            let error_code = code.code();
            Outcome::answer(AllocateProducerIdsResponse { error_code, ..Default::default() })
        };
        if let Err(error) = self.check_broker_epoch(request.broker_id, request.broker_epoch) {
            return refused(error.code());
        }
        let start = self.image().next_producer_id.unwrap_or(0);
        let Some(next_producer_id) = start.checked_add(ProducerId::from(PRODUCER_ID_BLOCK_SIZE))
        else {
            return refused(ErrorCode::UnknownServerError);
        };
        let record = ProducerIdsRecord {
            broker_id: request.broker_id,
            broker_epoch: request.broker_epoch,
            next_producer_id,
        };
        let response = AllocateProducerIdsResponse {
            producer_id_start: start,
            producer_id_len: PRODUCER_ID_BLOCK_SIZE,
            ..Default::default()
        };
        Outcome::spread(vec![MetadataRecord::ProducerIds(record)], response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::testing::Testbed;

    fn draw(testbed: &mut Testbed, broker_epoch: i64) -> AllocateProducerIdsResponse {
        let request = AllocateProducerIdsRequest { broker_id: 1, broker_epoch };
        let outcome = testbed.controller.on_allocate_producer_ids(&request);
        testbed.apply(outcome)
    }

    #[test]
    fn blocks_follow_one_another() {
        let mut testbed = Testbed::with_brokers([1]);
        let epoch = testbed.controller.image().brokers.get(1).unwrap().epoch;
        let first = draw(&mut testbed, epoch);
        let second = draw(&mut testbed, epoch);
        assert_eq!((first.producer_id_start, first.producer_id_len), (0, 1_000));
        assert_eq!((second.error_code, second.producer_id_start), (0, 1_000));
        assert_eq!(testbed.controller.image().next_producer_id, Some(2_000));
    }

    #[test]
    fn a_broker_of_another_life_gets_none_and_neither_does_anybody_when_they_run_out() {
        let mut testbed = Testbed::with_brokers([1]);
        let epoch = testbed.controller.image().brokers.get(1).unwrap().epoch;
        let stale = draw(&mut testbed, epoch + 1);
        assert_eq!(stale.error_code, ErrorCode::StaleBrokerEpoch.code());
        let next_producer_id = ProducerId::MAX - 999;
        let last = ProducerIdsRecord { next_producer_id, ..Default::default() };
        testbed.apply(Outcome::spread(vec![MetadataRecord::ProducerIds(last)], ()));
        assert_eq!(draw(&mut testbed, epoch).error_code, ErrorCode::UnknownServerError.code());
    }
}
