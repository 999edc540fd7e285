//! InitProducerId (key 22): ids for idempotent producers (KIP-98).
//!
//! Transactional producers are not supported yet. They get UNSUPPORTED_VERSION, a fatal error: with a retriable one
//! clients would wait for a coordinator that never comes.

use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{ProducerId, none_if_minus_one, or_minus_one};
use klamm_protocol::messages::init_producer_id_request::InitProducerIdRequest;
use klamm_protocol::messages::init_producer_id_response::InitProducerIdResponse;

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;

message_replies!(InitProducerIdResponse);

pub(crate) async fn handle(
    context: RequestContext,
    body: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let max_timeout_ms = context.services.config.transactions.max_timeout_ms;
    let given = match check(&body, max_timeout_ms) {
        Ok(()) => context.services.producer_ids.next().await,
        Err(code) => Err(code),
    };
    answer(given)
}

/// Checks the request in Kafka's order (KafkaApis, then TransactionCoordinator.handleInitProducerId).
fn check(body: &InitProducerIdRequest, max_timeout_ms: i32) -> Result<(), ErrorCode> {
    let producer_id = none_if_minus_one(body.producer_id);
    let producer_epoch = none_if_minus_one(body.producer_epoch);
    if producer_id.is_some() != producer_epoch.is_some() {
        return Err(ErrorCode::InvalidRequest);
    }
    let Some(transactional_id) = &body.transactional_id else { return Ok(()) };
    if transactional_id.is_empty() {
        return Err(ErrorCode::InvalidRequest);
    }
    if !(1..=max_timeout_ms).contains(&body.transaction_timeout_ms) {
        return Err(ErrorCode::InvalidTransactionTimeout);
    }
    Err(ErrorCode::UnsupportedVersion)
}

fn answer(given: Result<ProducerId, ErrorCode>) -> InitProducerIdResponse {
    InitProducerIdResponse {
        error_code: given.err().unwrap_or(ErrorCode::None).code(),
        producer_id: or_minus_one(given.ok()),
        producer_epoch: or_minus_one(given.ok().map(|_| 0)),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Message;

    use super::*;

    fn asks(transactional_id: Option<&str>, timeout_ms: i32) -> InitProducerIdRequest {
        InitProducerIdRequest {
            transactional_id: transactional_id.map(Into::into),
            transaction_timeout_ms: timeout_ms,
            ..Default::default()
        }
    }

    #[test]
    fn an_idempotent_producer_gets_an_id_whatever_timeout_it_names() {
        assert_eq!(check(&asks(None, -7), 1000), Ok(()));
        let known = InitProducerIdRequest { producer_id: 5, producer_epoch: 2, ..asks(None, 0) };
        assert_eq!(check(&known, 1000), Ok(()));
    }

    #[test]
    fn an_id_without_an_epoch_is_refused_and_the_other_way_round() {
        let id = InitProducerIdRequest { producer_id: 5, ..asks(None, 0) };
        let epoch = InitProducerIdRequest { producer_epoch: 5, ..asks(None, 0) };
        assert_eq!(check(&id, 1000), Err(ErrorCode::InvalidRequest));
        assert_eq!(check(&epoch, 1000), Err(ErrorCode::InvalidRequest));
    }

    #[test]
    fn transactional_producers_are_told_what_is_wrong() {
        assert_eq!(check(&asks(Some(""), 10), 1000), Err(ErrorCode::InvalidRequest));
        for timeout_ms in [0, -1, 1001] {
            let code = check(&asks(Some("x"), timeout_ms), 1000);
            assert_eq!(code, Err(ErrorCode::InvalidTransactionTimeout));
        }
        assert_eq!(check(&asks(Some("x"), 1000), 1000), Err(ErrorCode::UnsupportedVersion));
    }

    #[test]
    fn every_version_carries_the_answer() {
        for version in InitProducerIdResponse::VERSIONS {
            answer(Ok(7)).encoded(version).unwrap();
            answer(Err(ErrorCode::InvalidRequest)).encoded(version).unwrap();
        }
    }
}
