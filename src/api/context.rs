//! What a handler knows about a request besides its body.

use std::sync::Arc;

use bytestring::ByteString;

use super::request::RequestHead;
use super::services::Services;
use crate::controller::request::{ControllerRequest, RequestOrigin};
use crate::net::service::{ConnectionInfo, ListenerKind};
use crate::security::principal::Requester;

/// The origin of a request, and the services that answer it (Kafka's `RequestContext`).
#[derive(Clone)]
pub(crate) struct RequestContext {
    pub(crate) services: Arc<Services>,
    /// The connection of the request; of a forwarded request, that of the broker which forwarded it.
    pub(crate) connection: Arc<ConnectionInfo>,
    /// Of a forwarded request: the client of the broker that forwarded it.
    pub(crate) requester: Requester,
    pub(crate) head: RequestHead,
    /// The request's client id. A slice of the received frame: a request that waits must drop it, or it keeps the whole
    /// frame.
    pub(crate) client_id: Option<ByteString>,
    /// The request came in an Envelope: a broker has checked it and forwards it for its client.
    pub(crate) is_forwarded: bool,
}

impl RequestContext {
    /// The kind of the request's listener.
    pub(crate) fn kind(&self) -> ListenerKind {
        self.connection.kind
    }

    /// The name of the request's listener.
    pub(crate) fn listener(&self) -> &str {
        &self.connection.listener
    }

    /// The version of the request and of its response.
    pub(crate) fn version(&self) -> i16 {
        self.head.version
    }

    /// Sends a request to this node's controller. If another node is the active controller or the request's timeout is
    /// over, returns a response of the request's type with that error.
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

    /// The client id, or an empty string.
    pub(crate) fn client_id(&self) -> &str {
        self.client_id.as_deref().unwrap_or_default()
    }
}
