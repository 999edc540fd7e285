//! The fetcher's end of an incremental fetch session (KIP-227; Kafka's `FetchSessionHandler`): a request carries only
//! the partitions that have changed since the last one.
//!
//! Invariant: `known` equals the leader's state of the session. After any event that leaves this in doubt the follower
//! starts a new session.

use std::collections::BTreeMap;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};

use klamm_protocol::ids::{LeaderEpoch, TopicIdPartition, or_minus_one};

/// The request asks for a new session.
const INITIAL_EPOCH: i32 = 0;
/// No session.
const NO_SESSION: i32 = 0;

/// The fetch parameters of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) fetch_offset: i64,
    pub(super) log_start_offset: i64,
    pub(super) current_leader_epoch: LeaderEpoch,
    pub(super) last_fetched_epoch: Option<LeaderEpoch>,
    pub(super) max_bytes: i32,
}

/// The fields of a fetch request that depend on the session.
#[derive(Debug, PartialEq)]
pub(super) struct InSession {
    pub(super) id: i32,
    pub(super) epoch: i32,
    pub(super) topics: Vec<FetchTopic>,
    pub(super) forgotten: Vec<ForgottenTopic>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Session {
    id: i32,
    epoch: i32,
    known: BTreeMap<TopicIdPartition, Wanted>,
}

impl Default for Session {
    fn default() -> Self {
        Self { id: NO_SESSION, epoch: INITIAL_EPOCH, known: BTreeMap::new() }
    }
}

impl Session {
    /// Whether the error concerns the session only: the partitions may be fetched again in a new one.
    pub(super) fn is_about_session(error: ErrorCode) -> bool {
        matches!(
            error,
            ErrorCode::FetchSessionIdNotFound
                | ErrorCode::InvalidFetchSessionEpoch
                | ErrorCode::FetchSessionTopicIdError
        )
    }

    /// The session fields of a request by which the leader answers for all of `wanted`.
    pub(super) fn request(&mut self, wanted: BTreeMap<TopicIdPartition, Wanted>) -> InSession {
        let is_full = self.epoch == INITIAL_EPOCH;
        let news = wanted.iter().filter(|(key, wanted)| {
            is_full || self.known.get(key).is_none_or(|known| known != *wanted)
        });
        let mut topics: Vec<FetchTopic> = Vec::new();
        for (TopicIdPartition { topic_id, partition: index }, wanted) in news {
            let partition = FetchPartition {
                partition: *index,
                current_leader_epoch: wanted.current_leader_epoch,
                fetch_offset: wanted.fetch_offset,
                last_fetched_epoch: or_minus_one(wanted.last_fetched_epoch),
                log_start_offset: wanted.log_start_offset,
                partition_max_bytes: wanted.max_bytes,
                ..Default::default()
            };
            match topics.last_mut().filter(|topic| topic.topic_id == *topic_id) {
                Some(topic) => topic.partitions.push(partition),
                None => topics.push(FetchTopic {
                    topic_id: *topic_id,
                    partitions: vec![partition],
                    ..Default::default()
                }),
            }
        }
        let gone = self.known.keys().filter(|key| !is_full && !wanted.contains_key(key));
        let forgotten = forgotten(gone);
        self.known = wanted;
        InSession { id: self.id, epoch: self.epoch, topics, forgotten }
    }

    /// The leader has answered the last request.
    pub(super) fn on_answer(&mut self, error: ErrorCode, session_id: i32) {
        if error == ErrorCode::FetchSessionIdNotFound {
            *self = Self::default();
            return;
        }
        if error != ErrorCode::None {
            self.reset();
            return;
        }
        if session_id == NO_SESSION {
            *self = Self::default();
            return;
        }
        self.id = session_id;
        self.epoch = if self.epoch == i32::MAX { 1 } else { self.epoch + 1 };
    }

    /// The leader's state of the session is in doubt: the next request closes the session and starts another.
    pub(super) fn reset(&mut self) {
        self.epoch = INITIAL_EPOCH;
        self.known.clear();
    }
}

fn forgotten<'a>(gone: impl Iterator<Item = &'a TopicIdPartition>) -> Vec<ForgottenTopic> {
    let mut topics: Vec<ForgottenTopic> = Vec::new();
    for TopicIdPartition { topic_id, partition: index } in gone {
        match topics.last_mut().filter(|topic| topic.topic_id == *topic_id) {
            Some(topic) => topic.partitions.push(*index),
            None => topics.push(ForgottenTopic {
                topic_id: *topic_id,
                partitions: vec![*index],
                ..Default::default()
            }),
        }
    }
    topics
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Uuid;

    use super::*;

    const TOPIC: Uuid = Uuid::from_bytes([1; 16]);

    fn wanted(partitions: &[(i32, i64)]) -> BTreeMap<TopicIdPartition, Wanted> {
        let wanted = partitions.iter().map(|&(index, fetch_offset)| {
            let wanted = Wanted {
                fetch_offset,
                log_start_offset: 0,
                current_leader_epoch: 3,
                last_fetched_epoch: Some(3),
                max_bytes: 100,
            };
            (TopicIdPartition::new(TOPIC, index), wanted)
        });
        wanted.collect()
    }

    fn sent(request: &InSession) -> Vec<(i32, i64)> {
        let partitions = request.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.map(|partition| (partition.partition, partition.fetch_offset)).collect()
    }

    #[test]
    fn only_what_has_changed_is_sent_again() {
        let mut session = Session::default();
        let request = session.request(wanted(&[(0, 5), (1, 6)]));
        assert_eq!((request.id, request.epoch), (0, 0));
        assert_eq!(sent(&request), [(0, 5), (1, 6)]);
        session.on_answer(ErrorCode::None, 77);
        let request = session.request(wanted(&[(0, 5), (1, 7), (2, 0)]));
        assert_eq!((request.id, request.epoch), (77, 1));
        assert_eq!(sent(&request), [(1, 7), (2, 0)]);
        session.on_answer(ErrorCode::None, 77);
        let request = session.request(wanted(&[(1, 7)]));
        assert_eq!((request.epoch, sent(&request)), (2, vec![]));
        assert_eq!(request.forgotten[0].partitions, [0, 2]);
    }

    #[test]
    fn a_session_in_doubt_is_ended_and_begun_anew() {
        let mut session = Session::default();
        session.request(wanted(&[(0, 5)]));
        session.on_answer(ErrorCode::None, 77);
        session.reset();
        let request = session.request(wanted(&[(0, 5)]));
        assert_eq!((request.id, request.epoch), (77, 0));
        assert_eq!(sent(&request), [(0, 5)]);
        session.on_answer(ErrorCode::FetchSessionIdNotFound, 0);
        let request = session.request(wanted(&[(0, 5)]));
        assert_eq!((request.id, request.epoch, sent(&request).len()), (0, 0, 1));
    }

    #[test]
    fn a_leader_without_a_place_for_a_session_is_told_everything_each_time() {
        let mut session = Session::default();
        for _ in 0..3 {
            let request = session.request(wanted(&[(0, 5)]));
            assert_eq!((request.id, request.epoch, sent(&request).len()), (0, 0, 1));
            session.on_answer(ErrorCode::None, 0);
        }
    }
}
