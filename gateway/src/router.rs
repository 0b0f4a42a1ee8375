//! What is where, and what every request passes on its way there.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use bytes::Bytes;
use duologue_runtime::listener::Proxies;
use duologue_runtime::rate::{RateLimit, RateLimiter};
use http::{Method, StatusCode};
use serde_json::json;
use tokio::time::Instant;
use tower::{BoxError, ServiceExt as _};

use crate::dev_token::{self, DevTokens};
use crate::error::{WebError, json_response};
use crate::origin::Origins;
use crate::upstream::Upstream;
use crate::websocket::WebSockets;
use crate::{assets, cors, grpc_web, headers};

const NOT_FOUND: WebError = WebError::new(
    StatusCode::NOT_FOUND,
    "not_found",
    "nothing is here: calls are below /duologue.chat.v1.ChatService/",
);
const TOO_MANY: WebError = WebError::new(
    StatusCode::TOO_MANY_REQUESTS,
    "rate_limited",
    "too many requests from this address: wait as long as `retry-after` says",
);

/// What a gateway is made of.
#[derive(Debug)]
pub struct GatewayParts {
    /// What is called.
    pub upstream: Upstream,
    /// The door of WebSockets, which calls the same.
    pub sockets: WebSockets,
    /// Whose pages may call.
    pub origins: Origins,
    /// Who is believed for whom it asks.
    pub proxies: Proxies,
    /// Requests from one address.
    pub requests_per_address: RateLimit,
    /// What signs development tokens, where the development key is in use.
    pub dev_tokens: Option<DevTokens>,
}

/// A gateway. It keeps nothing of a user. Clones are the same.
#[derive(Clone)]
pub struct Gateway(Arc<Shared>);

struct Shared {
    upstream: Upstream,
    sockets: WebSockets,
    origins: Origins,
    proxies: Proxies,
    requests: RateLimiter<IpAddr>,
    dev_tokens: Option<DevTokens>,
}

impl Gateway {
    /// A gateway of these parts.
    pub fn new(parts: GatewayParts) -> Self {
        Self(Arc::new(Shared {
            upstream: parts.upstream,
            sockets: parts.sockets,
            origins: parts.origins,
            proxies: parts.proxies,
            requests: RateLimiter::new(parts.requests_per_address),
            dev_tokens: parts.dev_tokens,
        }))
    }

    pub(crate) fn upstream(&self) -> &Upstream {
        &self.0.upstream
    }

    pub(crate) fn sockets(&self) -> &WebSockets {
        &self.0.sockets
    }

    pub(crate) fn origins(&self) -> &Origins {
        &self.0.origins
    }

    pub(crate) fn proxies(&self) -> &Proxies {
        &self.0.proxies
    }

    pub(crate) fn dev_tokens(&self) -> Option<&DevTokens> {
        self.0.dev_tokens.as_ref()
    }

    /// Admits a request from an address, or says how long to wait.
    pub(crate) fn admit(&self, address: Option<IpAddr>) -> Result<(), Duration> {
        match address {
            Some(address) => self.0.requests.take(&address, Instant::now()),
            None => Ok(()),
        }
    }

    /// Every path.
    pub(crate) fn paths(&self) -> Paths {
        let others = Router::new()
            .route("/ws", any(socket))
            .route("/config.json", get(config))
            .route("/dev/token", any(dev_token::answer))
            .with_state(self.clone())
            .merge(assets::router())
            .fallback(async || NOT_FOUND.into_response())
            .layer(middleware::from_fn_with_state(self.clone(), limit));
        Paths {
            gateway: self.clone(),
            others,
        }
    }
}

/// Every path, and what every request passes on its way there. Clones are the same.
///
/// Calls do not pass the router: what it allocates for one would be felt.
#[derive(Clone)]
pub(crate) struct Paths {
    gateway: Gateway,
    others: Router,
}

impl Paths {
    /// Answers any request.
    pub(crate) async fn answer<B>(self, request: http::Request<B>) -> Response
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let is_hashed = headers::is_hashed(request.uri());
        let is_head = request.method() == Method::HEAD;
        let mut response = self.checked(request).await;
        // Whatever is answered has them.
        headers::protect(response.headers_mut(), is_hashed);
        if is_head {
            // HTTP/2 would send it.
            *response.body_mut() = Body::empty();
        }
        response
    }

    async fn checked<B>(self, request: http::Request<B>) -> Response
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        // Before anything looks at the URL.
        if headers::holds_token(request.uri()) {
            return headers::TOKEN_IN_URL.into_response();
        }
        // Before anything is done for a page: whose it is.
        let readers = match cors::check(self.gateway.origins(), &request) {
            Ok(readers) => readers,
            Err(answer) => return answer,
        };
        let mut response = if grpc_web::is_call(request.uri()) {
            // It is admitted where its refusal can be a gRPC status.
            grpc_web::call(&self.gateway, request).await
        } else {
            let Ok(response) = self.others.oneshot(request.map(Body::new)).await;
            response
        };
        readers.tell(response.headers_mut());
        response
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway")
            .field("origins", &self.0.origins)
            .finish_non_exhaustive()
    }
}

/// Makes the connection a WebSocket.
async fn socket(State(gateway): State<Gateway>, request: Request) -> Response {
    gateway.sockets().upgrade(request).into_response()
}

/// Bounds how often one address asks for anything.
async fn limit(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    match gateway.admit(grpc_web::origin(request.extensions())) {
        Ok(()) => next.run(request).await,
        Err(delay) => TOO_MANY.retry_after(delay).into_response(),
    }
}

/// What the page must know of this deployment.
async fn config(State(gateway): State<Gateway>) -> Response {
    let config = json!({"devToken": gateway.dev_tokens().is_some()});
    json_response(StatusCode::OK, &config)
}
