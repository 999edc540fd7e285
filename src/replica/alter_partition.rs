//! Sends the ISR changes of this broker's leaders to the controller (AlterPartition, KIP-497; Kafka's
//! `DefaultAlterPartitionManager`).
//!
//! One request is under way at a time and carries everything that was proposed since the last one. A request without a
//! response may have been applied: the same proposal is sent again until the controller answers it or newer metadata
//! makes it obsolete.

use klamm_protocol::ids::TopicIdPartition;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{BrokerId, or_minus_one};
use klamm_protocol::messages::alter_partition_request::{
    AlterPartitionRequest, BrokerState, PartitionData, TopicData,
};
use klamm_protocol::messages::alter_partition_response::{self, AlterPartitionResponse};
use klamm_replication::partition::{CommittedIsr, IsrProposal, ProposalOutcome};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::partition::Partition;
use crate::controller::channel::{ChannelError, ControllerChannel};

/// The pause before a retry (`DefaultAlterPartitionManager`).
const RETRY_BACKOFF: Duration = Duration::from_millis(50);
/// Failed attempts before one is logged: the election of a controller takes a few.
const FAILURES_UNTIL_LOGGED: u64 = 100;

/// A partition and what its leader proposes.
type Proposed = (Arc<Partition>, IsrProposal);

/// The proposals that wait to be sent: the newest one of each partition that this broker leads.
#[derive(Debug, Default)]
pub(crate) struct AlterPartitions {
    waiting: Mutex<BTreeMap<TopicIdPartition, Proposed>>,
    news: Notify,
}

impl AlterPartitions {
    /// Queues a proposal for the next AlterPartition request.
    pub(crate) fn propose(&self, partition: Arc<Partition>, proposal: IsrProposal) {
        let key = partition.key();
        self.lock().insert(key, (partition, proposal));
        self.news.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TopicIdPartition, Proposed>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all waiting proposals. Drops those that newer metadata has made obsolete.
    fn take(&self) -> BTreeMap<TopicIdPartition, Proposed> {
        let mut taken = std::mem::take(&mut *self.lock());
        taken.retain(|_, (partition, proposal)| partition.is_proposing(proposal));
        taken
    }

    /// Puts unanswered proposals back, unless the partition has a newer one.
    fn put_back(&self, unanswered: BTreeMap<TopicIdPartition, Proposed>) {
        let mut waiting = self.lock();
        for (key, proposed) in unanswered {
            waiting.entry(key).or_insert(proposed);
        }
    }

    /// Sends the proposals, for as long as it is polled. `epoch` returns this broker's epoch.
    pub(crate) async fn run(
        &self,
        broker_id: BrokerId,
        channel: &ControllerChannel,
        epoch: impl Fn() -> Option<i64>,
    ) {
        let mut failures = 0_u64;
        loop {
            let proposed = self.take();
            if proposed.is_empty() {
                self.news.notified().await;
                continue;
            }
            let request = request(broker_id, epoch(), &proposed);
            let answered = channel.ask(&request).await;
            failures = match &answered {
                Ok(_) => 0,
                Err(error) => {
                    if failures == FAILURES_UNTIL_LOGGED {
                        warn!(
                            "AlterPartition gets no response from the controller and is retried: {error}"
                        );
                    }
                    failures + 1
                }
            };
            let unanswered = on_answered(proposed, answered);
            if !unanswered.is_empty() {
                self.put_back(unanswered);
                tokio::time::sleep(RETRY_BACKOFF).await;
            }
        }
    }
}

fn request(
    broker_id: BrokerId,
    broker_epoch: Option<i64>,
    proposed: &BTreeMap<TopicIdPartition, Proposed>,
) -> AlterPartitionRequest {
    let mut topics: Vec<TopicData> = Vec::new();
    for (TopicIdPartition { topic_id, partition: index }, (_, proposal)) in proposed {
        let isr = proposal.new_isr.iter();
        let partition = PartitionData {
            partition_index: *index,
            leader_epoch: proposal.leader_epoch,
            new_isr_with_epochs: isr
                .map(|&(broker_id, epoch)| BrokerState {
                    broker_id,
                    broker_epoch: or_minus_one(epoch),
                })
                .collect(),
            partition_epoch: proposal.partition_epoch,
            ..Default::default()
        };
        match topics.last_mut().filter(|topic| topic.topic_id == *topic_id) {
            Some(topic) => topic.partitions.push(partition),
            None => topics.push(TopicData { topic_id: *topic_id, partitions: vec![partition] }),
        }
    }
    AlterPartitionRequest { broker_id, broker_epoch: or_minus_one(broker_epoch), topics }
}

/// Applies the response to the partitions; returns the proposals to send again.
fn on_answered(
    mut proposed: BTreeMap<TopicIdPartition, Proposed>,
    answered: Result<AlterPartitionResponse, ChannelError>,
) -> BTreeMap<TopicIdPartition, Proposed> {
    let response = match answered {
        Ok(response) if response.error_code == ErrorCode::None.code() => response,
        Ok(response) => {
            warn!("AlterPartition failed and is retried: {}", error_of(response.error_code));
            return proposed;
        }
        Err(_) => return proposed,
    };
    let mut again = BTreeMap::new();
    for topic in response.topics {
        for data in topic.partitions {
            let key = TopicIdPartition::new(topic.topic_id, data.partition_index);
            let Some((partition, proposal)) = proposed.remove(&key) else { continue };
            if on_partition_answered(&partition, &proposal, data) == ProposalOutcome::Retry {
                again.insert(key, (partition, proposal));
            }
        }
    }
    // Proposals that the response does not name have no answer.
    again.extend(proposed);
    again
}

fn on_partition_answered(
    partition: &Partition,
    proposal: &IsrProposal,
    data: alter_partition_response::PartitionData,
) -> ProposalOutcome {
    let (topic, index) = (partition.topic(), partition.index());
    let answer = match error_of(data.error_code) {
        ErrorCode::None => Ok(CommittedIsr {
            leader_epoch: data.leader_epoch,
            partition_epoch: data.partition_epoch,
            isr: data.isr.into_iter().collect(),
        }),
        error => Err(error),
    };
    match &answer {
        Ok(committed) => {
            info!(%topic, partition = index, "{topic}-{index}: the controller committed the ISR {:?}", committed.isr)
        }
        Err(error) => {
            info!(%topic, partition = index, "{topic}-{index}: the controller refused to change the ISR ({:?}): {error}", proposal.change)
        }
    }
    partition.on_proposal_answered(proposal, answer)
}

fn error_of(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError)
}
