//! The one table of APIs: what is served, what is advertised, and who answers.
//!
//! Dispatch, ApiVersions and `docs/compatibility.md` come from it. A row keeps the versions that are
//! *served* apart from those that are *advertised*: Produce is advertised from 0, or librdkafka
//! sends its batches uncompressed.

use std::future::Future;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::LazyLock;

use klamm_protocol::messages::{self, Api};

use crate::handlers;
use crate::net::connection::Context;
use crate::net::request::{ConnectionError, Request};
use crate::net::response::Response;

pub(crate) const PRODUCE: i16 = 0;
pub(crate) const API_VERSIONS: i16 = 18;

type Answer = Result<Response, ConnectionError>;
pub(crate) type FutureAnswer = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What became of a request after its first phase.
pub(crate) enum Handled {
    Answered(Response),
    /// acks=0: there is no answer.
    Unanswered,
    /// The answer waits for something; the connection's next request is taken meanwhile.
    Waiting(FutureAnswer),
}

/// How an API is answered.
#[derive(Clone, Copy)]
pub(crate) enum Handler {
    /// At once, on the connection's task.
    Now(fn(&Context, &Request) -> Answer),
    /// Begun at once, in the order of the requests; answered when its condition holds.
    Pipelined(fn(&Context, &Request) -> Result<Handled, ConnectionError>),
    /// Carried through before the connection's next request is looked at.
    Exclusive(fn(Context, Request) -> FutureAnswer),
}

/// One API.
pub(crate) struct Row {
    pub(crate) schema: &'static Api,
    /// The versions that are answered.
    pub(crate) served: RangeInclusive<i16>,
    /// The first version that ApiVersions names.
    pub(crate) advertised_from: i16,
    pub(crate) handler: Handler,
}

impl Row {
    fn new(key: i16, handler: Handler) -> Self {
        let schema = messages::APIS
            .iter()
            .find(|api| api.key == key)
            .expect("rows name APIs of the schemas");
        let (first, last) = schema.versions;
        let last = if schema.latest_unstable { last - 1 } else { last };
        Self { schema, served: first..=last, advertised_from: first, handler }
    }

    fn advertised_from(self, version: i16) -> Self {
        Self { advertised_from: version, ..self }
    }
}

macro_rules! exclusive {
    ($api:ident) => {
        Handler::Exclusive(|context, request| Box::pin(handlers::$api::handle(context, request)))
    };
}

/// All APIs that are answered, in the order of their keys.
pub(crate) static TABLE: LazyLock<Vec<Row>> = LazyLock::new(|| {
    use Handler::{Now, Pipelined};
    vec![
        Row::new(PRODUCE, Pipelined(handlers::produce::handle)).advertised_from(0),
        Row::new(1, Pipelined(handlers::fetch::handle)),
        Row::new(2, exclusive!(list_offsets)),
        Row::new(3, exclusive!(metadata)),
        Row::new(8, exclusive!(offset_commit)),
        Row::new(9, exclusive!(offset_fetch)),
        Row::new(10, exclusive!(find_coordinator)),
        Row::new(11, exclusive!(join_group)),
        Row::new(12, Now(handlers::heartbeat::handle)),
        Row::new(13, exclusive!(leave_group)),
        Row::new(14, exclusive!(sync_group)),
        Row::new(15, Now(handlers::describe_groups::handle)),
        Row::new(16, Now(handlers::list_groups::handle)),
        Row::new(API_VERSIONS, Now(handlers::api_versions::handle)),
        Row::new(19, exclusive!(create_topics)),
        Row::new(20, exclusive!(delete_topics)),
        Row::new(21, Now(handlers::delete_records::handle)),
        Row::new(22, exclusive!(init_producer_id)),
        Row::new(23, Now(handlers::offset_for_leader_epoch::handle)),
        Row::new(32, exclusive!(describe_configs)),
        Row::new(33, exclusive!(alter_configs)),
        Row::new(34, exclusive!(alter_replica_log_dirs)),
        Row::new(35, exclusive!(describe_log_dirs)),
        Row::new(37, exclusive!(create_partitions)),
        Row::new(42, exclusive!(delete_groups)),
        Row::new(43, exclusive!(elect_leaders)),
        Row::new(44, exclusive!(incremental_alter_configs)),
        Row::new(45, exclusive!(alter_partition_reassignments)),
        Row::new(46, Now(handlers::list_partition_reassignments::handle)),
        Row::new(47, exclusive!(offset_delete)),
        Row::new(55, exclusive!(describe_quorum)),
        Row::new(57, exclusive!(update_features)),
        Row::new(60, Now(handlers::describe_cluster::handle)),
        Row::new(61, Now(handlers::describe_producers::handle)),
        Row::new(64, exclusive!(unregister_broker)),
        Row::new(74, Now(handlers::list_config_resources::handle)),
        Row::new(75, Now(handlers::describe_topic_partitions::handle)),
    ]
});

/// The row of an API, if it is answered.
pub(crate) fn api(key: i16) -> Option<&'static Row> {
    TABLE.binary_search_by_key(&key, |row| row.schema.key).ok().map(|index| &TABLE[index])
}

/// Finds out who answers a request, and begins to.
pub(crate) fn handle(context: &Context, request: Request) -> Result<Handled, ConnectionError> {
    let row = api(request.api_key).expect("a parsed request names an API of the table");
    if !row.served.contains(&request.version) {
        // A client of the future asks ApiVersions first and must learn what it can fall back to.
        if request.api_key == API_VERSIONS {
            return handlers::api_versions::unsupported(&request).map(Handled::Answered);
        }
        let (api, version) = (row.schema.name, request.version);
        return Err(ConnectionError::UnsupportedVersion { api, version });
    }
    match row.handler {
        Handler::Now(handle) => handle(context, &request).map(Handled::Answered),
        Handler::Pipelined(handle) => handle(context, &request),
        Handler::Exclusive(handle) => Ok(Handled::Waiting(handle(context.clone(), request))),
    }
}

/// Whether the next request of a connection has to wait for the answer to this one.
pub(crate) fn is_exclusive(api_key: i16) -> bool {
    api(api_key).is_some_and(|row| matches!(row.handler, Handler::Exclusive(_)))
}
