//! The requests of brokers and controllers to the active controller: how each is decided, wherever it comes from.

use klamm_metadata::controller::Controller;
use klamm_metadata::controller::broker_registration::RegistrationError;
use klamm_metadata::controller::create_topics::CreateTopicsAccess;
use klamm_metadata::controller::outcome::Outcome;
use klamm_metadata::random::Random;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::allocate_producer_ids_request::AllocateProducerIdsRequest;
use klamm_protocol::messages::allocate_producer_ids_response::AllocateProducerIdsResponse;
use klamm_protocol::messages::alter_configs_request::AlterConfigsRequest;
use klamm_protocol::messages::alter_configs_response::{self, AlterConfigsResponse};
use klamm_protocol::messages::alter_partition_request::{AlterPartitionRequest, BrokerState};
use klamm_protocol::messages::alter_partition_response::AlterPartitionResponse;
use klamm_protocol::messages::assign_replicas_to_dirs_request::AssignReplicasToDirsRequest;
use klamm_protocol::messages::assign_replicas_to_dirs_response::AssignReplicasToDirsResponse;
use klamm_protocol::messages::broker_heartbeat_request::BrokerHeartbeatRequest;
use klamm_protocol::messages::broker_heartbeat_response::BrokerHeartbeatResponse;
use klamm_protocol::messages::broker_registration_request::BrokerRegistrationRequest;
use klamm_protocol::messages::broker_registration_response::BrokerRegistrationResponse;
use klamm_protocol::messages::controller_registration_request::ControllerRegistrationRequest;
use klamm_protocol::messages::controller_registration_response::ControllerRegistrationResponse;
use klamm_protocol::messages::create_topics_request::CreateTopicsRequest;
use klamm_protocol::messages::create_topics_response::{
    CreatableTopicResult, CreateTopicsResponse,
};
use klamm_protocol::messages::incremental_alter_configs_request::IncrementalAlterConfigsRequest;
use klamm_protocol::messages::incremental_alter_configs_response::{
    self, IncrementalAlterConfigsResponse,
};
use tracing::{debug, info, warn};

use super::channel::ControllerRequest;
use super::deadline;
use super::handle::{DecisionContext, HeldUntil};
use crate::random;

/// The first version of BrokerRegistration that says whether the broker had stopped cleanly (KIP-966).
const FIRST_REGISTRATION_WITH_PREVIOUS_EPOCH: i16 = 3;
/// The first version of AlterPartition that names the ISR's brokers with their epochs.
const FIRST_ALTER_PARTITION_WITH_EPOCHS: i16 = 3;

fn error(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError)
}

impl ControllerRequest for BrokerRegistrationRequest {
    type Response = BrokerRegistrationResponse;

    fn decide(
        &self,
        version: i16,
        controller: &mut Controller,
        context: &DecisionContext,
    ) -> Outcome<Self::Response> {
        let clean = version >= FIRST_REGISTRATION_WITH_PREVIOUS_EPOCH;
        let (next_offset, now_ms) = (context.next_offset, context.now_ms);
        let Outcome { records, atomic, response } =
            controller.on_broker_registration(self, clean, next_offset, now_ms);
        let response = match response {
            Ok(response) => {
                let (id, epoch) = (self.broker_id, response.broker_epoch);
                info!("broker {id} registers with epoch {epoch}");
                response
            }
            Err(refusal) => {
                // The answer has no room for a reason: it is told here. A broker that has to wait for the end of its
                // former life asks many times, and says so itself.
                let id = self.broker_id;
                match refusal {
                    RegistrationError::DuplicateBroker => debug!("broker {id}: {refusal}"),
                    _ => warn!("the registration of broker {id} is refused: {refusal}"),
                }
                self.refused(refusal.code())
            }
        };
        Outcome { records, atomic, response }
    }

    fn refused(&self, error: ErrorCode) -> Self::Response {
        let error_code = error.code();
        BrokerRegistrationResponse { error_code, broker_epoch: -1, ..Default::default() }
    }

    fn error_of(response: &Self::Response) -> ErrorCode {
        error(response.error_code)
    }
}

impl ControllerRequest for BrokerHeartbeatRequest {
    type Response = BrokerHeartbeatResponse;

    fn decide(
        &self,
        _: i16,
        controller: &mut Controller,
        context: &DecisionContext,
    ) -> Outcome<Self::Response> {
        controller.on_broker_heartbeat(self, context.now_ms)
    }

    fn refused(&self, error: ErrorCode) -> Self::Response {
        BrokerHeartbeatResponse { error_code: error.code(), ..Default::default() }
    }

    fn error_of(response: &Self::Response) -> ErrorCode {
        error(response.error_code)
    }
}

impl ControllerRequest for ControllerRegistrationRequest {
    type Response = ControllerRegistrationResponse;

    fn decide(
        &self,
        _: i16,
        controller: &mut Controller,
        _: &DecisionContext,
    ) -> Outcome<Self::Response> {
        controller.on_controller_registration(self)
    }

    fn refused(&self, error: ErrorCode) -> Self::Response {
        ControllerRegistrationResponse {
            error_code: error.code(),
            error_message: deadline::text_of(error),
            ..Default::default()
        }
    }

    fn error_of(response: &Self::Response) -> ErrorCode {
        error(response.error_code)
    }
}

impl ControllerRequest for AllocateProducerIdsRequest {
    type Response = AllocateProducerIdsResponse;

    fn decide(
        &self,
        _: i16,
        controller: &mut Controller,
        _: &DecisionContext,
    ) -> Outcome<Self::Response> {
        controller.on_allocate_producer_ids(self)
    }

    fn refused(&self, error: ErrorCode) -> Self::Response {
        AllocateProducerIdsResponse { error_code: error.code(), ..Default::default() }
    }

    fn error_of(response: &Self::Response) -> ErrorCode {
        error(response.error_code)
    }
}

impl ControllerRequest for AlterPartitionRequest {
    type Response = AlterPartitionResponse;

    fn decide(
        &self,
        version: i16,
        controller: &mut Controller,
        _: &DecisionContext,
    ) -> Outcome<Self::Response> {
        if version >= FIRST_ALTER_PARTITION_WITH_EPOCHS {
            return controller.on_alter_partition(self);
        }
        let mut lowered = self.clone();
        for partition in lowered.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            let isr = std::mem::take(&mut partition.new_isr).into_iter();
            partition.new_isr_with_epochs =
                isr.map(|broker_id| BrokerState { broker_id, broker_epoch: -1 }).collect();
        }
        controller.on_alter_partition(&lowered)
    }

    fn refused(&self, error: ErrorCode) -> Self::Response {
        AlterPartitionResponse { error_code: error.code(), ..Default::default() }
    }

    fn error_of(response: &Self::Response) -> ErrorCode {
        error(response.error_code)
    }
}

impl ControllerRequest for AssignReplicasToDirsRequest {
    type Response = AssignReplicasToDirsResponse;

    fn decide(
        &self,
        _: i16,
        controller: &mut Controller,
        _: &DecisionContext,
    ) -> Outcome<Self::Response> {
        controller.on_assign_replicas_to_dirs(self)
    }

    fn refused(&self, error: ErrorCode) -> Self::Response {
        AssignReplicasToDirsResponse { error_code: error.code(), ..Default::default() }
    }

    fn error_of(response: &Self::Response) -> ErrorCode {
        error(response.error_code)
    }
}

/// Topics that a broker creates because somebody asked for them.
impl ControllerRequest for CreateTopicsRequest {
    type Response = CreateTopicsResponse;

    const HELD_UNTIL: HeldUntil = HeldUntil::Published;

    fn decide(
        &self,
        _: i16,
        controller: &mut Controller,
        _: &DecisionContext,
    ) -> Outcome<Self::Response> {
        let mut random = Random::from_seed(random::bytes());
        controller.on_create_topics(self, CreateTopicsAccess::ALL, &mut random)
    }

    fn refused(&self, error: ErrorCode) -> Self::Response {
        let topics = self.topics.iter().map(|topic| CreatableTopicResult {
            name: topic.name.clone(),
            error_code: error.code(),
            ..Default::default()
        });
        CreateTopicsResponse { topics: topics.collect(), ..Default::default() }
    }

    /// A controller that is not the active one says so of every topic.
    fn error_of(response: &Self::Response) -> ErrorCode {
        response.topics.first().map_or(ErrorCode::None, |topic| error(topic.error_code))
    }
}

impl ControllerRequest for IncrementalAlterConfigsRequest {
    type Response = IncrementalAlterConfigsResponse;

    const HELD_UNTIL: HeldUntil = HeldUntil::Published;

    fn decide(
        &self,
        _: i16,
        controller: &mut Controller,
        _: &DecisionContext,
    ) -> Outcome<Self::Response> {
        controller.on_incremental_alter_configs(self, true)
    }

    fn refused(&self, error: ErrorCode) -> Self::Response {
        let responses = self.resources.iter().map(|resource| {
            incremental_alter_configs_response::AlterConfigsResourceResponse {
                error_code: error.code(),
                error_message: deadline::text_of(error),
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.clone(),
            }
        });
        IncrementalAlterConfigsResponse { responses: responses.collect(), ..Default::default() }
    }

    fn error_of(response: &Self::Response) -> ErrorCode {
        response.responses.first().map_or(ErrorCode::None, |resource| error(resource.error_code))
    }
}

impl ControllerRequest for AlterConfigsRequest {
    type Response = AlterConfigsResponse;

    const HELD_UNTIL: HeldUntil = HeldUntil::Published;

    fn decide(
        &self,
        _: i16,
        controller: &mut Controller,
        _: &DecisionContext,
    ) -> Outcome<Self::Response> {
        controller.on_alter_configs(self, true)
    }

    fn refused(&self, error: ErrorCode) -> Self::Response {
        let responses = self.resources.iter().map(|resource| {
            alter_configs_response::AlterConfigsResourceResponse {
                error_code: error.code(),
                error_message: deadline::text_of(error),
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.clone(),
            }
        });
        AlterConfigsResponse { responses: responses.collect(), ..Default::default() }
    }

    fn error_of(response: &Self::Response) -> ErrorCode {
        response.responses.first().map_or(ErrorCode::None, |resource| error(resource.error_code))
    }
}
