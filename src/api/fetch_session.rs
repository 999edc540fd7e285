//! Incremental fetch sessions (KIP-227): the partitions that a client fetches, kept between its requests.
//!
//! A session names partitions as its requests do: by topic id from version 13 on, by name before. The cache is bounded
//! by `max.incremental.fetch.session.cache.slots`; when it is full, a new session evicts one that is idle or smaller,
//! as in Kafka (`FetchSessionCacheShard`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytestring::ByteString;
use indexmap::IndexMap;
use klamm_protocol::ids::LeaderEpoch;
use klamm_protocol::messages::fetch_response::{EpochEndOffset, PartitionData};
use klamm_protocol::{ErrorCode, Uuid};

/// The minimum age or idle time of a session before a larger one may evict it
/// (`FetchSession.MIN_INCREMENTAL_FETCH_SESSION_EVICTION_MS`).
const MIN_EVICTION_MS: i64 = 120_000;
/// The request asks for a new session.
const INITIAL_EPOCH: i32 = 0;
/// The request has no session, and closes the one that it names.
const FINAL_EPOCH: i32 = -1;
/// No session.
const NO_SESSION: i32 = 0;

/// How a fetch request names a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum TopicKey {
    Name(ByteString),
    Id(Uuid),
}

/// One partition of a fetch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct FetchKey {
    pub(crate) topic: TopicKey,
    pub(crate) partition: i32,
}

/// The fetch parameters of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FetchTarget {
    pub(crate) fetch_offset: i64,
    pub(crate) log_start_offset: i64,
    pub(crate) max_bytes: i32,
    pub(crate) current_leader_epoch: Option<LeaderEpoch>,
    pub(crate) last_fetched_epoch: Option<LeaderEpoch>,
    /// The name of a topic given by its id, at the partition's first request: a session continues to fetch that name
    /// (`FetchSession.CachedPartition`).
    pub(crate) resolved_name: Option<ByteString>,
    /// The high watermark in the session's last answer, -1 if that had none. `None` without a session.
    pub(crate) sent_high_watermark: Option<i64>,
}

/// The session fields of a fetch request.
#[derive(Debug)]
pub(crate) struct SessionRequest {
    pub(crate) session_id: i32,
    pub(crate) session_epoch: i32,
    pub(crate) uses_topic_ids: bool,
    pub(crate) is_follower: bool,
    pub(crate) targets: IndexMap<FetchKey, FetchTarget>,
    pub(crate) forgotten: Vec<FetchKey>,
}

/// One partition's answer, with the length of its records.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) key: FetchKey,
    pub(crate) data: PartitionData,
    pub(crate) records_len: usize,
}

#[derive(Debug)]
struct CachedPartition {
    target: FetchTarget,
    /// As last sent to the client, in the answer's own terms; -1 after an error, so that it is sent again.
    high_watermark: i64,
    log_start_offset: i64,
}

impl CachedPartition {
    fn new(target: FetchTarget) -> Self {
        Self { target, high_watermark: -1, log_start_offset: -1 }
    }

    /// Stores an answer; returns whether the response must include the partition.
    fn update(&mut self, fetched: &Fetched) -> bool {
        let data = &fetched.data;
        let failed = data.error_code != ErrorCode::None.code();
        let news = fetched.records_len > 0
            || self.high_watermark != data.high_watermark
            || self.log_start_offset != data.log_start_offset
            || data.preferred_read_replica != -1
            || data.diverging_epoch != EpochEndOffset::default()
            || failed;
        self.high_watermark = if failed { -1 } else { data.high_watermark };
        self.log_start_offset = data.log_start_offset;
        news
    }
}

#[derive(Debug)]
struct Session {
    partitions: IndexMap<FetchKey, CachedPartition>,
    uses_topic_ids: bool,
    is_follower: bool,
    created_ms: i64,
    last_used_ms: i64,
    /// The epoch that the next request must have.
    epoch: i32,
}

fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

/// A fetch request resolved with its session.
#[derive(Debug)]
pub(crate) struct FetchContext {
    kind: Kind,
    /// The partitions to fetch, in order.
    pub(crate) targets: Vec<(FetchKey, FetchTarget)>,
}

#[derive(Debug)]
enum Kind {
    Sessionless,
    /// A full answer; starts a session if the cache has room.
    Full {
        uses_topic_ids: bool,
        is_follower: bool,
    },
    Incremental {
        id: i32,
        session: Arc<Mutex<Session>>,
        epoch: i32,
    },
}

/// The session fields of the response, and the partitions that it includes.
#[derive(Debug)]
pub(crate) struct SessionAnswer {
    pub(crate) session_id: i32,
    pub(crate) error: ErrorCode,
    pub(crate) fetched: Vec<Fetched>,
}

/// All sessions of this broker.
#[derive(Debug)]
pub(crate) struct FetchSessions {
    slots: usize,
    sessions: Mutex<HashMap<i32, Arc<Mutex<Session>>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FetchSessions {
    pub(crate) fn new(slots: usize) -> Self {
        Self { slots, sessions: Mutex::default() }
    }

    /// The number of sessions.
    pub(crate) fn len(&self) -> usize {
        lock(&self.sessions).len()
    }

    /// Resolves a request with its session into the partitions to fetch. `name_of` returns the current name of a topic
    /// id.
    pub(crate) fn begin(
        &self,
        request: SessionRequest,
        name_of: impl Fn(Uuid) -> Option<ByteString>,
        now_ms: i64,
    ) -> Result<FetchContext, ErrorCode> {
        let id = request.session_id;
        if request.session_epoch == FINAL_EPOCH || request.session_epoch == INITIAL_EPOCH {
            if id != NO_SESSION {
                lock(&self.sessions).remove(&id);
            }
            let kind = match request.session_epoch {
                FINAL_EPOCH => Kind::Sessionless,
                _ => Kind::Full {
                    uses_topic_ids: request.uses_topic_ids,
                    is_follower: request.is_follower,
                },
            };
            let targets =
                request.targets.into_iter().map(|(key, target)| resolved(key, target, &name_of));
            return Ok(FetchContext { kind, targets: targets.collect() });
        }
        let session = lock(&self.sessions).get(&id).map(Arc::clone);
        let session = session.ok_or(ErrorCode::FetchSessionIdNotFound)?;
        let mut open = lock(&session);
        if open.epoch != request.session_epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if open.uses_topic_ids != request.uses_topic_ids {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        open.update(&request);
        open.last_used_ms = now_ms;
        if open.partitions.is_empty() {
            // The cache is always locked before its sessions.
            drop(open);
            lock(&self.sessions).remove(&id);
            // Partitions that the request names and forgets at once are answered all the same.
            let targets =
                request.targets.into_iter().map(|(key, target)| resolved(key, target, &name_of));
            return Ok(FetchContext { kind: Kind::Sessionless, targets: targets.collect() });
        }
        let targets = open.targets(&name_of);
        open.epoch = next_epoch(open.epoch);
        let epoch = open.epoch;
        drop(open);
        Ok(FetchContext { kind: Kind::Incremental { id, session, epoch }, targets })
    }

    /// The response's session fields, and which of the fetched partitions it includes.
    pub(crate) fn answer(
        &self,
        context: FetchContext,
        fetched: Vec<Fetched>,
        now_ms: i64,
    ) -> SessionAnswer {
        let answer =
            |session_id, fetched| SessionAnswer { session_id, error: ErrorCode::None, fetched };
        match context.kind {
            Kind::Sessionless => answer(NO_SESSION, fetched),
            Kind::Full { uses_topic_ids, is_follower } => {
                let partitions = context.targets.into_iter().zip(&fetched);
                let partitions = partitions.map(|((key, target), fetched)| {
                    let mut cached = CachedPartition::new(target);
                    cached.update(fetched);
                    (key, cached)
                });
                let session = Session {
                    partitions: partitions.collect(),
                    uses_topic_ids,
                    is_follower,
                    created_ms: now_ms,
                    last_used_ms: now_ms,
                    epoch: next_epoch(INITIAL_EPOCH),
                };
                answer(self.insert(session, now_ms), fetched)
            }
            Kind::Incremental { id, session, epoch } => {
                let mut session = lock(&session);
                if session.epoch != epoch {
                    let error = ErrorCode::InvalidFetchSessionEpoch;
                    return SessionAnswer { session_id: id, error, fetched: Vec::new() };
                }
                answer(id, session.keep_news(fetched))
            }
        }
    }

    /// Adds a session if the cache has room or can evict one; returns its id, or 0.
    fn insert(&self, session: Session, now_ms: i64) -> i32 {
        let mut sessions = lock(&self.sessions);
        if sessions.len() >= self.slots && !evict_for(&session, &mut sessions, now_ms) {
            return NO_SESSION;
        }
        loop {
            let id = i32::from_be_bytes(crate::random::bytes()) & i32::MAX;
            if id != NO_SESSION && !sessions.contains_key(&id) {
                sessions.insert(id, Arc::new(Mutex::new(session)));
                return id;
            }
        }
    }
}

/// A partition to fetch, with the name of its topic if that is known.
fn resolved(
    key: FetchKey,
    mut target: FetchTarget,
    name_of: impl Fn(Uuid) -> Option<ByteString>,
) -> (FetchKey, FetchTarget) {
    if let (TopicKey::Id(id), None) = (&key.topic, &target.resolved_name) {
        target.resolved_name = name_of(*id);
    }
    (key, target)
}

impl Session {
    /// Updates the session's partitions from a request, and drops those it forgets.
    fn update(&mut self, request: &SessionRequest) {
        for (key, target) in &request.targets {
            match self.partitions.get_mut(key) {
                Some(cached) => {
                    let resolved_name = cached.target.resolved_name.take();
                    cached.target = FetchTarget { resolved_name, ..target.clone() };
                }
                None => {
                    let cached = CachedPartition::new(target.clone());
                    self.partitions.insert(key.clone(), cached);
                }
            }
        }
        for key in &request.forgotten {
            self.partitions.shift_remove(key);
        }
    }

    /// All partitions to fetch, in order. Stores topic names that were unknown before.
    fn targets(
        &mut self,
        name_of: impl Fn(Uuid) -> Option<ByteString>,
    ) -> Vec<(FetchKey, FetchTarget)> {
        let targets = self.partitions.iter_mut().map(|(key, cached)| {
            let mut target = resolved(key.clone(), cached.target.clone(), &name_of);
            target.1.sent_high_watermark = Some(cached.high_watermark);
            cached.target.resolved_name.clone_from(&target.1.resolved_name);
            target
        });
        targets.collect()
    }

    /// Drops partitions without changes for the client. Partitions with records move to the end of the session, so that
    /// the others come first next time.
    fn keep_news(&mut self, fetched: Vec<Fetched>) -> Vec<Fetched> {
        let mut news = Vec::with_capacity(fetched.len());
        for fetched in fetched {
            let Some(index) = self.partitions.get_index_of(&fetched.key) else { continue };
            if self.partitions[index].update(&fetched) {
                if fetched.records_len > 0 {
                    self.partitions.move_index(index, self.partitions.len() - 1);
                }
                news.push(fetched);
            }
        }
        news
    }
}

/// Evicts a session for `newcomer`: the one that is idle longest, if for long enough; otherwise the smallest one that
/// is old enough, if it is smaller. Sessions of followers are evicted before those of consumers.
fn evict_for(
    newcomer: &Session,
    sessions: &mut HashMap<i32, Arc<Mutex<Session>>>,
    now_ms: i64,
) -> bool {
    let mut idlest: Option<(i64, i32)> = None;
    let mut smallest: Option<((bool, usize), i32)> = None;
    for (id, session) in sessions.iter() {
        let session = lock(session);
        if idlest.is_none_or(|(last_used, _)| session.last_used_ms < last_used) {
            idlest = Some((session.last_used_ms, *id));
        }
        let rank = (session.is_follower, session.partitions.len());
        let old = now_ms - session.created_ms > MIN_EVICTION_MS;
        let yields = (!session.is_follower && newcomer.is_follower) || old;
        if yields && smallest.is_none_or(|(least, _)| rank < least) {
            smallest = Some((rank, *id));
        }
    }
    let rank = (newcomer.is_follower, newcomer.partitions.len());
    let victim = match (idlest, smallest) {
        (Some((last_used, id)), _) if now_ms - last_used > MIN_EVICTION_MS => id,
        (_, Some((least, id))) if least < rank => id,
        _ => return false,
    };
    sessions.remove(&victim).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: FetchTarget = FetchTarget {
        fetch_offset: 0,
        log_start_offset: -1,
        max_bytes: 100,
        current_leader_epoch: None,
        last_fetched_epoch: None,
        resolved_name: None,
        sent_high_watermark: None,
    };

    fn unknown(_: Uuid) -> Option<ByteString> {
        None
    }

    fn key(partition: i32) -> FetchKey {
        FetchKey { topic: TopicKey::Name("t".into()), partition }
    }

    fn request(id: i32, epoch: i32, partitions: &[i32]) -> SessionRequest {
        SessionRequest {
            session_id: id,
            session_epoch: epoch,
            uses_topic_ids: false,
            is_follower: false,
            targets: partitions.iter().map(|p| (key(*p), TARGET)).collect(),
            forgotten: Vec::new(),
        }
    }

    fn fetched(partition: i32, high_watermark: i64, records_len: usize) -> Fetched {
        let data = PartitionData {
            partition_index: partition,
            high_watermark,
            log_start_offset: 0,
            ..Default::default()
        };
        Fetched { key: key(partition), data, records_len }
    }

    fn open(sessions: &FetchSessions, partitions: &[i32], now_ms: i64) -> i32 {
        let context = sessions.begin(request(0, 0, partitions), unknown, now_ms).unwrap();
        let answers = partitions.iter().map(|p| fetched(*p, 0, 0)).collect();
        sessions.answer(context, answers, now_ms).session_id
    }

    #[test]
    fn an_incremental_answer_leaves_out_what_is_known() {
        let sessions = FetchSessions::new(10);
        let id = open(&sessions, &[0, 1], 0);
        let context = sessions.begin(request(id, 1, &[]), unknown, 0).unwrap();
        assert_eq!(context.targets.len(), 2);
        let answer = sessions.answer(context, vec![fetched(0, 0, 0), fetched(1, 5, 0)], 0);
        assert_eq!(answer.session_id, id);
        assert_eq!(answer.fetched.len(), 1);
        assert_eq!(answer.fetched[0].key, key(1));
    }

    #[test]
    fn a_session_knows_the_high_watermarks_that_it_told() {
        let sessions = FetchSessions::new(10);
        let first = sessions.begin(request(0, 0, &[0, 1]), unknown, 0).unwrap();
        let sent = |context: &FetchContext| {
            let targets = context.targets.iter();
            targets.map(|(_, target)| target.sent_high_watermark).collect::<Vec<_>>()
        };
        assert_eq!(sent(&first), [None, None], "the first answer tells everything");
        let answer = sessions.answer(first, vec![fetched(0, 5, 0), fetched(1, 7, 0)], 0);
        let id = answer.session_id;
        let second = sessions.begin(request(id, 1, &[2]), unknown, 0).unwrap();
        assert_eq!(sent(&second), [Some(5), Some(7), Some(-1)]);
        sessions.answer(second, vec![fetched(0, 6, 0), fetched(1, 7, 0), fetched(2, 1, 0)], 0);
        let third = sessions.begin(request(id, 2, &[]), unknown, 0).unwrap();
        assert_eq!(sent(&third), [Some(6), Some(7), Some(1)]);
    }

    #[test]
    fn a_wrong_epoch_leaves_the_session_alive() {
        let sessions = FetchSessions::new(10);
        let id = open(&sessions, &[0], 0);
        let refused = sessions.begin(request(id, 5, &[]), unknown, 0).unwrap_err();
        assert_eq!(refused, ErrorCode::InvalidFetchSessionEpoch);
        assert!(sessions.begin(request(id, 1, &[]), unknown, 0).is_ok());
    }

    #[test]
    fn a_session_without_partitions_left_is_closed() {
        let sessions = FetchSessions::new(10);
        let id = open(&sessions, &[0], 0);
        let forget = SessionRequest { forgotten: vec![key(0)], ..request(id, 1, &[]) };
        let context = sessions.begin(forget, unknown, 0).unwrap();
        assert_eq!(sessions.answer(context, Vec::new(), 0).session_id, 0);
        let refused = sessions.begin(request(id, 2, &[]), unknown, 0).unwrap_err();
        assert_eq!(refused, ErrorCode::FetchSessionIdNotFound);
    }

    #[test]
    fn what_is_named_and_forgotten_at_once_is_answered_when_nothing_else_is_left() {
        let sessions = FetchSessions::new(10);
        let id = open(&sessions, &[0], 0);
        let both = SessionRequest { forgotten: vec![key(0)], ..request(id, 1, &[0]) };
        let context = sessions.begin(both, unknown, 0).unwrap();
        assert_eq!(context.targets, [(key(0), TARGET)]);
        let answer = sessions.answer(context, vec![fetched(0, 0, 0)], 0);
        assert_eq!((answer.session_id, answer.fetched.len()), (0, 1));
    }

    #[test]
    fn an_answer_that_comes_after_the_next_request_names_the_session() {
        let sessions = FetchSessions::new(10);
        let id = open(&sessions, &[0], 0);
        let late = sessions.begin(request(id, 1, &[]), unknown, 0).unwrap();
        sessions.begin(request(id, 2, &[]), unknown, 0).unwrap();
        let answer = sessions.answer(late, vec![fetched(0, 0, 0)], 0);
        assert_eq!((answer.session_id, answer.error), (id, ErrorCode::InvalidFetchSessionEpoch));
    }

    #[test]
    fn the_name_of_an_id_stays_with_the_session_once_it_is_known() {
        let sessions = FetchSessions::new(10);
        let by_id = FetchKey { topic: TopicKey::Id(Uuid::from_bytes([7; 16])), partition: 0 };
        let first = SessionRequest {
            uses_topic_ids: true,
            targets: [(by_id.clone(), TARGET)].into_iter().collect(),
            ..request(0, 0, &[])
        };
        let context = sessions.begin(first, unknown, 0).unwrap();
        assert_eq!(context.targets[0].1.resolved_name, None);
        let data = PartitionData::default();
        let fetched = vec![Fetched { key: by_id, data, records_len: 0 }];
        let id = sessions.answer(context, fetched, 0).session_id;
        let name_at = |epoch, name: Option<&'static str>| {
            let next = SessionRequest { uses_topic_ids: true, ..request(id, epoch, &[]) };
            let context = sessions.begin(next, |_| name.map(ByteString::from), 0).unwrap();
            context.targets[0].1.resolved_name.clone()
        };
        assert_eq!(name_at(1, Some("t")).as_deref(), Some("t"));
        assert_eq!(name_at(2, None).as_deref(), Some("t"), "the topic was deleted meanwhile");
    }

    #[test]
    fn names_and_ids_do_not_mix_in_one_session() {
        let sessions = FetchSessions::new(10);
        let id = open(&sessions, &[0], 0);
        let by_id = SessionRequest { uses_topic_ids: true, ..request(id, 1, &[]) };
        assert_eq!(
            sessions.begin(by_id, unknown, 0).unwrap_err(),
            ErrorCode::FetchSessionTopicIdError
        );
    }

    #[test]
    fn an_error_is_told_again_in_every_answer() {
        let sessions = FetchSessions::new(10);
        let id = open(&sessions, &[0], 0);
        for epoch in 1..4 {
            let context = sessions.begin(request(id, epoch, &[]), unknown, 0).unwrap();
            let mut failed = fetched(0, -1, 0);
            failed.data.error_code = ErrorCode::UnknownTopicOrPartition.code();
            assert_eq!(sessions.answer(context, vec![failed], 0).fetched.len(), 1);
        }
    }

    #[test]
    fn a_full_cache_gives_the_place_of_an_idle_or_smaller_old_session_only() {
        let sessions = FetchSessions::new(1);
        let first = open(&sessions, &[0, 1], 0);
        assert_eq!(open(&sessions, &[0, 1, 2], 1), 0, "the holder is too young");
        let later = MIN_EVICTION_MS + 1;
        sessions.begin(request(first, 1, &[]), unknown, later).unwrap();
        assert_eq!(open(&sessions, &[0], later), 0, "the newcomer is smaller");
        assert_ne!(open(&sessions, &[0, 1, 2], later), 0);
    }
}
