//! What is behind the gateway, as one value: every door makes its calls by it.
//!
//! In one process it is chat inside the public stack; beside the system it is a
//! channel to the chat nodes. It knows neither browsers nor origins.

use std::convert::Infallible;
use std::fmt;

use http::{Request, Response};
use tonic::body::Body;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt as _};

/// The stream of both directions.
pub(crate) const CONVERSE: &str = "/duologue.chat.v1.ChatService/Converse";

/// The service that is called. A call that fails is a response that says so.
///
/// The caller's [`Peer`](duologue_runtime::listener::Peer) is among the extensions
/// of a request, and the user's token in its headers: nothing is added here.
#[derive(Clone)]
pub struct Upstream(BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>);

impl Upstream {
    /// Calls `service`.
    pub fn new<S>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        Self(BoxCloneSyncService::new(service))
    }

    /// Makes one call.
    pub async fn call(&self, request: Request<Body>) -> Response<Body> {
        match self.0.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").finish_non_exhaustive()
    }
}
