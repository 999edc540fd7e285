//! OffsetForLeaderEpoch (key 23): the end offset of a leader epoch (KIP-101, KIP-320).

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition,
};
use klamm_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};
use klamm_replication::OffsetAndEpoch;
use klamm_replication::partition::epoch_end_offset;

use crate::api::context::RequestContext;
use crate::api::reply::message_replies;
use crate::api::services::Services;
use crate::metadata_cache::PublishedImage;

message_replies!(OffsetForLeaderEpochResponse);

pub(crate) fn handle(
    context: &RequestContext,
    body: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let image = context.services.metadata_cache.image();
    let topics = body.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let found = find(&context.services, &image, &topic.topic, wanted);
            let error_code = found.err().unwrap_or(ErrorCode::None).code();
            let (leader_epoch, end_offset) = found.unwrap_or((-1, -1));
            EpochEndOffset { error_code, partition: wanted.partition, leader_epoch, end_offset }
        });
        let partitions = partitions.collect();
        OffsetForLeaderTopicResult { topic: topic.topic, partitions }
    });
    let topics = topics.collect();
    OffsetForLeaderEpochResponse { topics, ..Default::default() }
}

fn find(
    services: &Services,
    image: &PublishedImage,
    topic: &str,
    wanted: &OffsetForLeaderPartition,
) -> Result<(i32, i64), ErrorCode> {
    let partition = services.replicas.replica(image, topic, wanted.partition)?;
    partition.check_epoch(wanted.current_leader_epoch, true)?;
    let view = partition.view().ok_or(ErrorCode::NotLeaderOrFollower)?;
    let end = view.leader_epochs().end_offset_for(wanted.leader_epoch, view.log_end());
    let end = end.map(|end| OffsetAndEpoch { offset: end.offset, epoch: end.epoch });
    Ok(epoch_end_offset(end))
}
