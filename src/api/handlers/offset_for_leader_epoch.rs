//! OffsetForLeaderEpoch (key 23): the end offset of a leader epoch (KIP-101, KIP-320).

use klamm_log::leader_epoch_cache::{EpochOffset, LeaderEpochCache};
use klamm_protocol::ErrorCode;
use klamm_protocol::ids::{Offset, PartitionIndex, none_if_minus_one, or_minus_one};
use klamm_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition,
};
use klamm_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};

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
            answer(wanted.partition, found)
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
) -> Result<Option<EpochOffset>, ErrorCode> {
    let partition = services.replicas.replica(image, topic, wanted.partition)?;
    partition.check_epoch(none_if_minus_one(wanted.current_leader_epoch), true)?;
    let view = partition.view().ok_or(ErrorCode::NotLeaderOrFollower)?;
    Ok(end_of(view.leader_epochs(), wanted.leader_epoch, view.log_end()))
}

/// The end of an epoch, in the request's terms, in a log with these epochs.
fn end_of(epochs: &LeaderEpochCache, requested: i32, log_end: Offset) -> Option<EpochOffset> {
    epochs.end_offset_for(none_if_minus_one(requested)?, log_end)
}

fn answer(
    partition: PartitionIndex,
    found: Result<Option<EpochOffset>, ErrorCode>,
) -> EpochEndOffset {
    let end = found.ok().flatten();
    EpochEndOffset {
        error_code: found.err().unwrap_or(ErrorCode::None).code(),
        partition,
        leader_epoch: or_minus_one(end.map(|end| end.epoch)),
        end_offset: or_minus_one(end.map(|end| end.offset)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_epoch_has_no_end_offset() {
        let epochs = LeaderEpochCache::from_entries([(2, 10), (4, 20)]);
        let answered = |requested| {
            let answer = answer(0, Ok(end_of(&epochs, requested, 50)));
            (answer.leader_epoch, answer.end_offset)
        };
        assert_eq!(answered(2), (2, 20));
        assert_eq!(answered(5), (-1, -1), "newer than all");
        assert_eq!(answered(-1), (-1, -1));
        assert_eq!(answered(-2), (-2, 10), "older than all, as Kafka answers");
        let refused = answer(0, Err(ErrorCode::FencedLeaderEpoch));
        assert_eq!((refused.leader_epoch, refused.end_offset), (-1, -1));
    }
}
