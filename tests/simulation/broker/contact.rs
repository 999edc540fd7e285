//! The broker's contact with the controller: registration and heartbeats (KIP-631).

use super::Broker;
use super::proposals::committed_isr;
use crate::batch::PARTITIONS;
use crate::disk::Disk;
use crate::log_directories::Availability;
use crate::message::{Address, CallId, ControllerAnswer, ControllerRequest, Message};
use crate::metadata_driver::{MetadataDriver, NodeStep};
use crate::node::NodeTimer;
use crate::plant::Plant;
use crate::scenario::{CALL_TIMEOUT_MS, CLUSTER_ID, HEARTBEAT_MS, supported_features};
use klamm_protocol::ids::BrokerId;
use klamm_protocol::messages::assign_replicas_to_dirs_request::{
    AssignReplicasToDirsRequest, DirectoryData, PartitionData, TopicData,
};
use klamm_protocol::messages::broker_heartbeat_request::BrokerHeartbeatRequest;
use klamm_protocol::messages::broker_registration_request::{
    BrokerRegistrationRequest, Feature, Listener,
};
use klamm_protocol::{ErrorCode, Uuid};

impl Broker {
    pub(crate) fn on_contact_timer(
        &mut self,
        metadata: &MetadataDriver,
        disk: &Disk,
        step: &mut NodeStep<'_>,
    ) {
        step.after(HEARTBEAT_MS, NodeTimer::Contact);
        if self.contact.is_some() {
            return;
        }
        let Some(controller) = metadata.quorum.leader_id() else { return };
        if metadata.controller.committed().stable().features.metadata_version().is_none() {
            return;
        }
        let call = self.next_call();
        let silent = step.plant == Plant::FailedDirectoryNotReported;
        let failed = disk.logs.with(Availability::Failed).filter(|_| !silent).collect();
        let online: Vec<Uuid> = disk.logs.with(Availability::Online).collect();
        let request = match self.epoch {
            None => ControllerRequest::Register(self.registration(disk)),
            // A directory is back that the registration does not name: the same life registers again.
            Some(_) if !online.iter().all(|directory| self.registered.contains(directory)) => {
                ControllerRequest::Register(self.registration(disk))
            }
            Some(epoch) => ControllerRequest::Heartbeat(BrokerHeartbeatRequest {
                broker_id: self.life.0,
                broker_epoch: epoch,
                current_metadata_offset: metadata.controller.committed().end_offset() - 1,
                want_fence: false,
                want_shut_down: self.stopping,
                offline_log_dirs: failed,
                ..Default::default()
            }),
        };
        self.named = online;
        self.contact = Some(call);
        step.after(CALL_TIMEOUT_MS, NodeTimer::ContactTimeout(call));
        step.ask(Address::Node(controller), Message::Controller { call, request });
        self.assign_directories(controller, metadata, step);
    }

    /// Says where the replicas are that are looked for elsewhere (KIP-858), with every heartbeat until the metadata
    /// know it.
    fn assign_directories(
        &mut self,
        controller: BrokerId,
        metadata: &MetadataDriver,
        step: &mut NodeStep<'_>,
    ) {
        let Some(broker_epoch) = self.epoch.filter(|_| !self.misplaced.is_empty()) else { return };
        let directories = self.misplaced.iter().filter_map(|(id, directory)| {
            let (topic, partition_index) = PARTITIONS[*id];
            let topic_id = metadata.controller.committed().stable().topics.by_name(topic)?.id;
            let partitions = vec![PartitionData { partition_index }];
            let topics = vec![TopicData { topic_id, partitions }];
            Some(DirectoryData { id: *directory, topics })
        });
        let directories = directories.collect();
        let broker_id = self.life.0;
        let request = AssignReplicasToDirsRequest { broker_id, broker_epoch, directories };
        let (call, request) = (self.next_call(), ControllerRequest::AssignDirectories(request));
        step.ask(Address::Node(controller), Message::Controller { call, request });
    }

    pub(super) fn registration(&self, disk: &Disk) -> BrokerRegistrationRequest {
        let features = supported_features().into_iter().map(|(name, range)| Feature {
            name,
            min_supported_version: range.min,
            max_supported_version: range.max,
        });
        BrokerRegistrationRequest {
            broker_id: self.life.0,
            cluster_id: CLUSTER_ID.into(),
            incarnation_id: self.incarnation_id,
            listeners: vec![Listener {
                name: "PLAINTEXT".into(),
                host: "localhost".into(),
                port: 9092,
                security_protocol: 0,
            }],
            features: features.collect(),
            log_dirs: disk.logs.with(Availability::Online).collect(),
            previous_broker_epoch: self.previous_epoch,
            ..Default::default()
        }
    }

    pub(crate) fn on_contact_timeout(&mut self, call: CallId) {
        if self.contact == Some(call) {
            self.contact = None;
        }
    }

    pub(crate) fn on_controller_answer(
        &mut self,
        call: CallId,
        answer: Result<ControllerAnswer, ErrorCode>,
        disk: &mut Disk,
        step: &mut NodeStep<'_>,
    ) {
        if self.contact == Some(call) {
            self.contact = None;
            match answer {
                Ok(ControllerAnswer::Registered(Ok(epoch))) => {
                    self.epoch = Some(epoch);
                    self.registered = std::mem::take(&mut self.named);
                }
                // A registration of an earlier life came late and took this one's place.
                Ok(ControllerAnswer::Heartbeat(answer)) if answer.error_code != 0 => {
                    self.epoch = None;
                }
                Ok(ControllerAnswer::Heartbeat(answer)) => {
                    self.may_stop = answer.should_shut_down;
                    self.confirmed_ms = step.now_ms;
                }
                _ => {}
            }
            return;
        }
        let asked = self.replicas.values().find_map(|replica| match &replica.proposal {
            Some((asked, _)) if *asked == call => Some(replica.partition),
            _ => None,
        });
        if let Some(partition) = asked {
            let answer = answer.and_then(committed_isr);
            self.on_proposal_answer(partition, answer, disk, step);
        }
    }
}
