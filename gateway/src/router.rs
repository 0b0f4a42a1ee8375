//! What is where, and what every request passes on its way there.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use duologue_runtime::listener::Proxies;
use duologue_runtime::rate::{RateLimit, RateLimiter};
use http::StatusCode;
use serde_json::json;
use tokio::time::Instant;

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

    /// Every path, behind what every request passes, from the bottom to the top.
    pub(crate) fn router(&self) -> Router {
        // Calls are admitted where their refusal can be a gRPC status.
        let calls = Router::new().route(
            "/duologue.chat.v1.ChatService/{method}",
            any(grpc_web::call),
        );
        let others = Router::new()
            .route("/ws", any(socket))
            .route("/config.json", get(config))
            .route("/dev/token", any(dev_token::answer))
            .with_state(self.clone())
            .merge(assets::router())
            .fallback(async || NOT_FOUND.into_response())
            .layer(middleware::from_fn_with_state(self.clone(), limit));
        calls
            .with_state(self.clone())
            .merge(others)
            // Before anything is done for a page: whose it is.
            .layer(middleware::from_fn_with_state(self.clone(), cors::check))
            // Before anything looks at the URL.
            .layer(middleware::from_fn(headers::refuse_tokens))
            // Last, so first: whatever is answered has them.
            .layer(middleware::from_fn(headers::protect))
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
