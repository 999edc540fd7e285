//! The one table of APIs: the served and the advertised versions, and the handlers.
//!
//! Dispatch, ApiVersions and `docs/compatibility.md` come from it. A row keeps the versions that are
//! *served* apart from those that are *advertised*: Produce is advertised from 0, or librdkafka
//! sends its batches uncompressed.

use std::future::Future;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

use klamm_protocol::ApiMessage;
use klamm_protocol::Message;
use klamm_protocol::messages::api_versions_request::ApiVersionsRequest;
use klamm_protocol::messages::{self, Api};

use super::context::RequestContext;
use super::forwarding;
use super::handlers;
use super::reply::{self, Reply};
use super::request::{Request, RequestError};
use crate::net::service::{Begun, ListenerKind};

/// The result of the first phase of a handler with two phases; an error closes the connection.
pub(crate) type FirstPhase<R, F> = Result<Phase<R, F>, RequestError>;

/// See [`FirstPhase`].
pub(crate) enum Phase<R, F> {
    Replied(R),
    /// acks=0: there is no answer.
    Unanswered,
    Waiting(F),
}

/// Begins a request of one API.
type Begin = Box<dyn Fn(RequestContext, &Request) -> Result<Begun, RequestError> + Send + Sync>;

/// Answered at once, on the connection's task.
fn now<Q: Message + 'static, R: Reply>(handle: fn(&RequestContext, Q) -> R) -> Begin {
    let begin = move |context: RequestContext, request: &Request| {
        let reply = handle(&context, request.decode()?);
        reply::respond(&context, reply).map(Begun::Answered)
    };
    Box::new(begin)
}

/// Begun at once, in the order of the requests; answered when its condition holds. The connection's next request begins
/// meanwhile.
fn pipelined<Q: Message + 'static, R: Reply, F: Future<Output = R> + Send + 'static>(
    handle: fn(&RequestContext, Q) -> FirstPhase<R, F>,
) -> Begin {
    let begin = move |mut context: RequestContext, request: &Request| {
        Ok(match handle(&context, request.decode()?)? {
            Phase::Replied(reply) => Begun::Answered(reply::respond(&context, reply)?),
            Phase::Unanswered => Begun::Unanswered,
            Phase::Waiting(reply) => {
                // A slice would keep the received frame while the answer waits.
                context.client_id = None;
                let response = async move { Ok(reply::respond(&context, reply.await)?) };
                Begun::Waiting { response: Box::pin(response), holds_up: false }
            }
        })
    };
    Box::new(begin)
}

/// Completed before the connection's next request begins.
fn exclusive<Q, R, F>(handle: fn(RequestContext, Q) -> F) -> Begin
where
    Q: Message + 'static,
    R: Reply,
    F: Future<Output = R> + Send + 'static,
{
    let begin = move |context: RequestContext, request: &Request| {
        let reply = handle(context.clone(), request.decode()?);
        let response = async move { Ok(reply::respond(&context, reply.await)?) };
        Ok(Begun::Waiting { response: Box::pin(response), holds_up: true })
    };
    Box::new(begin)
}

/// One API.
pub(crate) struct Row {
    pub(crate) schema: &'static Api,
    /// The versions that are answered.
    pub(crate) served: RangeInclusive<i16>,
    /// The first version that ApiVersions advertises.
    pub(crate) advertised_from: i16,
    begin: Begin,
    /// Only the active controller can answer it: a broker forwards it (KIP-590).
    pub(crate) forwarded: bool,
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Row").field(&self.schema.name).finish()
    }
}

impl Row {
    fn new(key: i16, begin: Begin) -> Self {
        let schema = messages::APIS
            .iter()
            .find(|api| api.key == key)
            .expect("rows name APIs of the schemas");
        let (first, last) = schema.versions;
        let last = if schema.latest_unstable { last - 1 } else { last };
        Self { schema, served: first..=last, advertised_from: first, begin, forwarded: false }
    }

    fn advertised_from(self, version: i16) -> Self {
        Self { advertised_from: version, ..self }
    }

    fn forwarded(self) -> Self {
        Self { forwarded: true, ..self }
    }
}

/// All APIs that brokers answer, in the order of their keys.
pub(crate) static TABLE: LazyLock<Vec<Row>> = LazyLock::new(|| {
    vec![
        Row::new(0, pipelined(handlers::produce::handle)).advertised_from(0),
        Row::new(1, pipelined(handlers::fetch::handle)),
        Row::new(2, exclusive(handlers::list_offsets::handle)),
        Row::new(3, exclusive(handlers::metadata::handle)),
        Row::new(8, exclusive(handlers::offset_commit::handle)),
        Row::new(9, exclusive(handlers::offset_fetch::handle)),
        Row::new(10, exclusive(handlers::find_coordinator::handle)),
        Row::new(11, exclusive(handlers::join_group::handle)),
        Row::new(12, now(handlers::heartbeat::handle)),
        Row::new(13, exclusive(handlers::leave_group::handle)),
        Row::new(14, exclusive(handlers::sync_group::handle)),
        Row::new(15, now(handlers::describe_groups::handle)),
        Row::new(16, now(handlers::list_groups::handle)),
        Row::new(18, now(handlers::api_versions::handle)),
        Row::new(19, exclusive(handlers::create_topics::handle)).forwarded(),
        Row::new(20, exclusive(handlers::delete_topics::handle)).forwarded(),
        Row::new(21, exclusive(handlers::delete_records::handle)),
        Row::new(22, exclusive(handlers::init_producer_id::handle)),
        Row::new(23, now(handlers::offset_for_leader_epoch::handle)),
        Row::new(32, exclusive(handlers::describe_configs::handle)),
        Row::new(33, exclusive(handlers::alter_configs::handle)),
        Row::new(34, exclusive(handlers::alter_replica_log_dirs::handle)),
        Row::new(35, exclusive(handlers::describe_log_dirs::handle)),
        Row::new(37, exclusive(handlers::create_partitions::handle)).forwarded(),
        Row::new(42, exclusive(handlers::delete_groups::handle)),
        Row::new(43, exclusive(handlers::elect_leaders::handle)).forwarded(),
        Row::new(44, exclusive(handlers::incremental_alter_configs::handle)),
        Row::new(45, exclusive(handlers::alter_partition_reassignments::handle)).forwarded(),
        Row::new(46, now(handlers::list_partition_reassignments::handle)).forwarded(),
        Row::new(47, exclusive(handlers::offset_delete::handle)),
        Row::new(55, exclusive(handlers::describe_quorum::handle)).forwarded(),
        Row::new(57, exclusive(handlers::update_features::handle)).forwarded(),
        Row::new(60, now(handlers::describe_cluster::handle)),
        Row::new(61, now(handlers::describe_producers::handle)),
        Row::new(64, exclusive(handlers::unregister_broker::handle)).forwarded(),
        Row::new(74, now(handlers::list_config_resources::handle)),
        Row::new(75, now(handlers::describe_topic_partitions::handle)),
        Row::new(80, exclusive(handlers::add_raft_voter::handle)).forwarded(),
        Row::new(81, exclusive(handlers::remove_raft_voter::handle)).forwarded(),
    ]
});

/// All APIs that controllers answer on their own listeners, in the order of their keys.
pub(crate) static CONTROLLER_TABLE: LazyLock<Vec<Row>> = LazyLock::new(|| {
    vec![
        Row::new(1, exclusive(handlers::fetch::metadata_log::handle)),
        Row::new(18, now(handlers::api_versions::handle)),
        Row::new(19, exclusive(handlers::create_topics::handle)).forwarded(),
        Row::new(20, exclusive(handlers::delete_topics::handle)).forwarded(),
        Row::new(32, exclusive(handlers::describe_configs::handle)),
        Row::new(33, exclusive(handlers::alter_configs::handle_on_controller)).forwarded(),
        Row::new(37, exclusive(handlers::create_partitions::handle)).forwarded(),
        Row::new(43, exclusive(handlers::elect_leaders::handle)).forwarded(),
        Row::new(44, exclusive(handlers::incremental_alter_configs::handle_on_controller))
            .forwarded(),
        Row::new(45, exclusive(handlers::alter_partition_reassignments::handle)).forwarded(),
        Row::new(46, now(handlers::list_partition_reassignments::handle)).forwarded(),
        Row::new(52, exclusive(handlers::vote::handle)),
        Row::new(53, exclusive(handlers::begin_quorum_epoch::handle)),
        Row::new(54, exclusive(handlers::end_quorum_epoch::handle)),
        Row::new(55, exclusive(handlers::describe_quorum::handle)).forwarded(),
        Row::new(56, exclusive(handlers::alter_partition::handle)),
        Row::new(57, exclusive(handlers::update_features::handle)).forwarded(),
        Row::new(58, exclusive(handlers::envelope::handle)),
        Row::new(59, exclusive(handlers::fetch_snapshot::handle)),
        Row::new(60, now(handlers::describe_cluster::handle)),
        Row::new(62, exclusive(handlers::broker_registration::handle)),
        Row::new(63, exclusive(handlers::broker_heartbeat::handle)),
        Row::new(64, exclusive(handlers::unregister_broker::handle)).forwarded(),
        Row::new(67, exclusive(handlers::allocate_producer_ids::handle)),
        Row::new(70, exclusive(handlers::controller_registration::handle)),
        Row::new(73, exclusive(handlers::assign_replicas_to_dirs::handle)),
        Row::new(80, exclusive(handlers::add_raft_voter::handle)).forwarded(),
        Row::new(81, exclusive(handlers::remove_raft_voter::handle)).forwarded(),
        Row::new(82, exclusive(handlers::update_raft_voter::handle)),
    ]
});

/// The APIs that are answered on a kind of listener.
pub(crate) fn table(kind: ListenerKind) -> &'static [Row] {
    match kind {
        ListenerKind::Broker => &TABLE,
        ListenerKind::Controller => &CONTROLLER_TABLE,
    }
}

/// The row of an API, if it is answered on that kind of listener.
pub(crate) fn api(kind: ListenerKind, key: i16) -> Option<&'static Row> {
    let table = table(kind);
    table.binary_search_by_key(&key, |row| row.schema.key).ok().map(|index| &table[index])
}

/// Begins a request: by its handler here, or by forwarding it to the active controller.
pub(crate) fn handle(context: RequestContext, request: &Request) -> Result<Begun, RequestError> {
    let row = request.row;
    if !row.served.contains(&request.head.version) {
        // A newer client sends ApiVersions first and needs the supported versions to fall back to.
        if request.head.api_key == ApiVersionsRequest::API_KEY {
            return handlers::api_versions::unsupported(&context).map(Begun::Answered);
        }
        let (api, version) = (row.schema.name, request.head.version);
        return Err(RequestError::UnsupportedVersion { api, version });
    }
    let is_broker = context.kind() == ListenerKind::Broker;
    let is_forwarded = row.forwarded && is_broker && !context.services.controller.is_active();
    if is_forwarded {
        let response = Box::pin(forwarding::forward(context, request.clone()));
        return Ok(Begun::Waiting { response, holds_up: true });
    }
    begin(context, request)
}

/// Begins a request by its handler on this node, without forwarding.
pub(crate) fn begin(context: RequestContext, request: &Request) -> Result<Begun, RequestError> {
    (request.row.begin)(context, request)
}
