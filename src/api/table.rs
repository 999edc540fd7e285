//! The one table of APIs: what is served, what is advertised, and who answers.
//!
//! Dispatch, ApiVersions and `docs/compatibility.md` come from it. A row keeps the versions that are
//! *served* apart from those that are *advertised*: Produce is advertised from 0, or librdkafka
//! sends its batches uncompressed.

use std::future::Future;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::LazyLock;

use klamm_protocol::messages::allocate_producer_ids_request::AllocateProducerIdsRequest;
use klamm_protocol::messages::alter_partition_request::AlterPartitionRequest;
use klamm_protocol::messages::assign_replicas_to_dirs_request::AssignReplicasToDirsRequest;
use klamm_protocol::messages::broker_heartbeat_request::BrokerHeartbeatRequest;
use klamm_protocol::messages::broker_registration_request::BrokerRegistrationRequest;
use klamm_protocol::messages::controller_registration_request::ControllerRegistrationRequest;
use klamm_protocol::messages::{self, Api};

use crate::api::context::Context;
use crate::api::forwarding;
use crate::api::handlers;
use crate::api::request::{Request, RequestError};
use crate::api::serving;
use crate::net::response::Response;
use crate::net::service::{Begun, ListenerKind};

pub(crate) const PRODUCE: i16 = 0;
pub(crate) const API_VERSIONS: i16 = 18;

type Answer = Result<Response, RequestError>;
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
    Pipelined(fn(&Context, &Request) -> Result<Handled, RequestError>),
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
    /// Only the active controller can answer it: a broker passes it on (KIP-590).
    pub(crate) forwarded: bool,
}

impl Row {
    fn new(key: i16, handler: Handler) -> Self {
        let schema = messages::APIS
            .iter()
            .find(|api| api.key == key)
            .expect("rows name APIs of the schemas");
        let (first, last) = schema.versions;
        let last = if schema.latest_unstable { last - 1 } else { last };
        Self { schema, served: first..=last, advertised_from: first, handler, forwarded: false }
    }

    fn advertised_from(self, version: i16) -> Self {
        Self { advertised_from: version, ..self }
    }

    fn forwarded(self) -> Self {
        Self { forwarded: true, ..self }
    }

    /// Whether the next request of a connection has to wait for the answer to this one.
    fn is_exclusive(&self) -> bool {
        self.forwarded || matches!(self.handler, Handler::Exclusive(_))
    }
}

macro_rules! exclusive {
    ($api:ident) => {
        Handler::Exclusive(|context, request| Box::pin(handlers::$api::handle(context, request)))
    };
}

macro_rules! decided {
    ($request:ty) => {
        Handler::Exclusive(|context, request| {
            Box::pin(serving::decided::<$request>(context, request))
        })
    };
}

macro_rules! replica {
    ($api:ident) => {
        Handler::Exclusive(|context, request| Box::pin(serving::$api(context, request)))
    };
}

/// All APIs that brokers answer, in the order of their keys.
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
        Row::new(19, exclusive!(create_topics)).forwarded(),
        Row::new(20, exclusive!(delete_topics)).forwarded(),
        Row::new(21, exclusive!(delete_records)),
        Row::new(22, exclusive!(init_producer_id)),
        Row::new(23, Now(handlers::offset_for_leader_epoch::handle)),
        Row::new(32, exclusive!(describe_configs)),
        Row::new(33, exclusive!(alter_configs)),
        Row::new(34, exclusive!(alter_replica_log_dirs)),
        Row::new(35, exclusive!(describe_log_dirs)),
        Row::new(37, exclusive!(create_partitions)).forwarded(),
        Row::new(42, exclusive!(delete_groups)),
        Row::new(43, exclusive!(elect_leaders)).forwarded(),
        Row::new(44, exclusive!(incremental_alter_configs)),
        Row::new(45, exclusive!(alter_partition_reassignments)).forwarded(),
        Row::new(46, Now(handlers::list_partition_reassignments::handle)).forwarded(),
        Row::new(47, exclusive!(offset_delete)),
        Row::new(55, exclusive!(describe_quorum)).forwarded(),
        Row::new(57, exclusive!(update_features)).forwarded(),
        Row::new(60, Now(handlers::describe_cluster::handle)),
        Row::new(61, Now(handlers::describe_producers::handle)),
        Row::new(64, exclusive!(unregister_broker)).forwarded(),
        Row::new(74, Now(handlers::list_config_resources::handle)),
        Row::new(75, Now(handlers::describe_topic_partitions::handle)),
        Row::new(80, exclusive!(add_raft_voter)).forwarded(),
        Row::new(81, exclusive!(remove_raft_voter)).forwarded(),
    ]
});

/// All APIs that controllers answer on their own listeners, in the order of their keys.
pub(crate) static CONTROLLER_TABLE: LazyLock<Vec<Row>> = LazyLock::new(|| {
    use Handler::Now;
    vec![
        Row::new(1, replica!(fetch)),
        Row::new(API_VERSIONS, Now(handlers::api_versions::handle)),
        Row::new(19, exclusive!(create_topics)).forwarded(),
        Row::new(20, exclusive!(delete_topics)).forwarded(),
        Row::new(32, exclusive!(describe_configs)),
        Row::new(
            33,
            Handler::Exclusive(|context, request| {
                Box::pin(handlers::alter_configs::handle_on_controller(context, request))
            }),
        )
        .forwarded(),
        Row::new(37, exclusive!(create_partitions)).forwarded(),
        Row::new(43, exclusive!(elect_leaders)).forwarded(),
        Row::new(
            44,
            Handler::Exclusive(|context, request| {
                Box::pin(handlers::incremental_alter_configs::handle_on_controller(
                    context, request,
                ))
            }),
        )
        .forwarded(),
        Row::new(45, exclusive!(alter_partition_reassignments)).forwarded(),
        Row::new(46, Now(handlers::list_partition_reassignments::handle)).forwarded(),
        Row::new(52, replica!(vote)),
        Row::new(53, replica!(begin_quorum_epoch)),
        Row::new(54, replica!(end_quorum_epoch)),
        Row::new(55, exclusive!(describe_quorum)).forwarded(),
        Row::new(56, decided!(AlterPartitionRequest)),
        Row::new(57, exclusive!(update_features)).forwarded(),
        Row::new(
            58,
            Handler::Exclusive(|context, request| {
                Box::pin(forwarding::on_envelope(context, request))
            }),
        ),
        Row::new(59, replica!(fetch_snapshot)),
        Row::new(60, Now(handlers::describe_cluster::handle)),
        Row::new(62, decided!(BrokerRegistrationRequest)),
        Row::new(63, decided!(BrokerHeartbeatRequest)),
        Row::new(64, exclusive!(unregister_broker)).forwarded(),
        Row::new(67, decided!(AllocateProducerIdsRequest)),
        Row::new(70, decided!(ControllerRegistrationRequest)),
        Row::new(73, decided!(AssignReplicasToDirsRequest)),
        Row::new(80, exclusive!(add_raft_voter)).forwarded(),
        Row::new(81, exclusive!(remove_raft_voter)).forwarded(),
        Row::new(82, replica!(update_raft_voter)),
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

/// Finds out who answers a request, and begins to.
pub(crate) fn handle(context: &Context, request: Request) -> Result<Begun, RequestError> {
    let row =
        api(context.kind, request.api_key).expect("a parsed request names an API of the table");
    if !row.served.contains(&request.version) {
        // A client of the future asks ApiVersions first and must learn what it can fall back to.
        if request.api_key == API_VERSIONS {
            return handlers::api_versions::unsupported(&request).map(Begun::Answered);
        }
        let (api, version) = (row.schema.name, request.version);
        return Err(RequestError::UnsupportedVersion { api, version });
    }
    let is_broker = context.kind == ListenerKind::Broker;
    let handled = if row.forwarded && is_broker && !context.services.controller.is_active() {
        Handled::Waiting(Box::pin(forwarding::forward(context.clone(), request)))
    } else {
        begin(row, context, request)?
    };
    Ok(match handled {
        Handled::Answered(response) => Begun::Answered(response),
        Handled::Unanswered => Begun::Unanswered,
        Handled::Waiting(answer) => Begun::Waiting {
            response: Box::pin(async { Ok(answer.await?) }),
            holds_up: row.is_exclusive(),
        },
    })
}

/// Begins to answer a request here, whoever is the controller.
pub(crate) fn begin(
    row: &Row,
    context: &Context,
    request: Request,
) -> Result<Handled, RequestError> {
    match row.handler {
        Handler::Now(handle) => handle(context, &request).map(Handled::Answered),
        Handler::Pipelined(handle) => handle(context, &request),
        Handler::Exclusive(handle) => Ok(Handled::Waiting(handle(context.clone(), request))),
    }
}
