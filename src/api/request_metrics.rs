//! Counts the answered requests and the error codes of each API (Kafka's `RequestsPerSec` and `ErrorsPerSec`). SIGQUIT
//! shows them.

use std::sync::atomic::{AtomicU64, Ordering};

use klamm_protocol::messages::{APIS, Api};

/// The number of counters for error codes: -1 (UNKNOWN_SERVER_ERROR) and those from 0 on, with room for new ones.
const CODES: usize = 160;

/// Counters of one API.
struct ApiCounters {
    requests: AtomicU64,
    /// Indexed by the error code plus one.
    errors: Box<[AtomicU64; CODES]>,
}

/// The counters of all APIs, in the order of their keys.
pub(crate) struct RequestMetrics {
    apis: Vec<(&'static Api, ApiCounters)>,
}

/// The counts of one API.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ApiCounts {
    pub(crate) name: &'static str,
    pub(crate) requests: u64,
    /// The error codes, without 0, and the number of answers with each.
    pub(crate) errors: Vec<(i16, u64)>,
}

impl Default for RequestMetrics {
    fn default() -> Self {
        let zero = || ApiCounters {
            requests: AtomicU64::new(0),
            errors: Box::new([const { AtomicU64::new(0) }; CODES]),
        };
        let mut apis: Vec<_> = APIS.iter().map(|api| (api, zero())).collect();
        apis.sort_by_key(|(api, _)| api.key);
        Self { apis }
    }
}

impl RequestMetrics {
    /// Counts a request of an API and the error codes that `codes` reports.
    pub(crate) fn count(&self, api_key: i16, codes: impl FnOnce(&mut dyn FnMut(i16))) {
        let found = self.apis.binary_search_by_key(&api_key, |(api, _)| api.key);
        let (_, counters) = &self.apis[found.expect("a request names an API of the protocol")];
        counters.requests.fetch_add(1, Ordering::Relaxed);
        let mut successes = 0;
        codes(&mut |code| match code {
            0 => successes += 1,
            code => counters.count_error(code, 1),
        });
        if successes > 0 {
            counters.count_error(0, successes);
        }
    }

    /// The counts of the APIs that have had requests.
    pub(crate) fn counts(&self) -> impl Iterator<Item = ApiCounts> {
        self.apis.iter().filter_map(|(api, counters)| {
            let requests = counters.requests.load(Ordering::Relaxed);
            let codes = (-1_i16..).zip(counters.errors.iter());
            let errors = codes
                .filter(|(code, _)| *code != 0)
                .map(|(code, count)| (code, count.load(Ordering::Relaxed)))
                .filter(|(_, count)| *count > 0);
            let errors = errors.collect();
            (requests > 0).then_some(ApiCounts { name: api.name, requests, errors })
        })
    }
}

impl ApiCounters {
    fn count_error(&self, code: i16, times: u64) {
        // A code beyond the counters counts as UNKNOWN_SERVER_ERROR: there is none today.
        let place = usize::try_from(i32::from(code) + 1).unwrap_or_default();
        let counter = self.errors.get(place).unwrap_or(&self.errors[0]);
        counter.fetch_add(times, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::messages::metadata_response::{
        MetadataResponse, MetadataResponsePartition, MetadataResponseTopic,
    };
    use klamm_protocol::{ErrorCode, ResponseMessage};

    use super::*;

    #[test]
    fn every_error_code_of_an_answer_counts() {
        let partition = |code: ErrorCode| MetadataResponsePartition {
            error_code: code.code(),
            ..Default::default()
        };
        let topic = MetadataResponseTopic {
            error_code: ErrorCode::UnknownServerError.code(),
            partitions: vec![
                partition(ErrorCode::None),
                partition(ErrorCode::LeaderNotAvailable),
                partition(ErrorCode::LeaderNotAvailable),
            ],
            ..Default::default()
        };
        let answer = MetadataResponse { topics: vec![topic], ..Default::default() };
        let metrics = RequestMetrics::default();
        metrics.count(3, |count| answer.for_each_error_code(count));
        metrics.count(3, |_| ());
        let counted: Vec<_> = metrics.counts().collect();
        let errors = vec![(-1, 1), (ErrorCode::LeaderNotAvailable.code(), 2)];
        assert_eq!(counted, [ApiCounts { name: "Metadata", requests: 2, errors }]);
    }

    #[test]
    fn every_error_code_has_a_place() {
        let last = (0..i16::MAX).take_while(|code| ErrorCode::from_code(*code).is_some()).last();
        assert!(usize::try_from(last.unwrap()).unwrap() + 2 <= CODES);
    }
}
