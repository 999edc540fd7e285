//! What a handler knows of a request besides its body.

use std::sync::Arc;

use bytestring::ByteString;

use super::request::RequestHead;
use super::services::Services;
use crate::controller::request::{ControllerRequest, RequestOrigin};
use crate::net::service::{ConnectionInfo, ListenerKind};
use crate::security::principal::Requester;

/// A request's way here, and the services that answer it (Kafka's `RequestContext`).
#[derive(Clone)]
pub(crate) struct RequestContext {
    pub(crate) services: Arc<Services>,
    /// The connection that the request came by; of a forwarded request that of the broker which passed it on.
    pub(crate) connection: Arc<ConnectionInfo>,
    /// Of a forwarded request: the client of the broker that forwarded it.
    pub(crate) requester: Requester,
    pub(crate) head: RequestHead,
    /// The client's name for itself. A slice of the request: what waits long should not keep it.
    pub(crate) client_id: Option<ByteString>,
    /// A broker has checked the request and passes it on for its client.
    pub(crate) is_forwarded: bool,
}

impl RequestContext {
    /// Which listener the request came by.
    pub(crate) fn kind(&self) -> ListenerKind {
        self.connection.kind
    }

    /// The name of the listener that the request came by.
    pub(crate) fn listener(&self) -> &str {
        &self.connection.listener
    }

    /// The version of the request and of its response.
    pub(crate) fn version(&self) -> i16 {
        self.head.version
    }

    /// Has the controller of this node decide on a request, or refuses it in its own form: another node is the active
    /// controller, or the time that the request allows has passed.
    pub(crate) async fn decide<Q: ControllerRequest>(&self, body: Q) -> Q::Response {
        let body = Arc::new(body);
        let decided = self.services.controller.decide_request(Arc::clone(&body), self.origin());
        decided.await.unwrap_or_else(|error| body.refused(error.code()))
    }

    /// The origin of this request, for a decision of the controller.
    pub(crate) fn origin(&self) -> RequestOrigin {
        RequestOrigin {
            requester: self.requester.clone(),
            version: self.version(),
            is_forwarded: self.is_forwarded,
        }
    }

    /// The client's name for itself, or an empty one.
    pub(crate) fn client_id(&self) -> &str {
        self.client_id.as_deref().unwrap_or_default()
    }
}
