//! Signing in for development: a token for whatever name is given.
//!
//! It exists only with the development key, on loopback, and answers only pages of
//! allowed origins that were reached by an allowed host: other pages in the browser
//! of a developer, and names that were rebound to loopback, get nothing.

use std::fmt;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use duologue_proto::ids::UserId;
use duologue_runtime::auth::DevKey;
use duologue_runtime::clock::Clock;
use duologue_runtime::listener::Peer;
use http::{Method, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use prost_types::Timestamp;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use crate::cors::ORIGIN_NOT_ALLOWED;
use crate::error::{WebError, json_response};
use crate::limits::{BODY_TIMEOUT, DEV_TOKEN_LIFETIME, MAX_DEV_TOKEN_REQUEST_BYTES};
use crate::router::Gateway;

const NO_KEY: WebError = WebError::new(
    StatusCode::NOT_FOUND,
    "no_development_key",
    "tokens come from elsewhere: the development key is not in use",
);
const HOST_NOT_ALLOWED: WebError = WebError::new(
    StatusCode::FORBIDDEN,
    "host_not_allowed",
    "the request was sent to a host that is of no allowed origin",
);
const NOT_LOOPBACK: WebError = WebError::new(
    StatusCode::FORBIDDEN,
    "not_loopback",
    "development tokens are for this machine only",
);
/// What proxies add.
const PROXIED: [&str; 6] = [
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
];
const NOT_JSON: WebError = WebError::new(
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    "unsupported_media_type",
    "the content-type must be application/json",
);
const TOO_LARGE: WebError = WebError::new(
    StatusCode::PAYLOAD_TOO_LARGE,
    "too_large",
    "the request is longer than a user's name may be",
);
const TOO_SLOW: WebError = WebError::new(
    StatusCode::REQUEST_TIMEOUT,
    "timeout",
    "the request did not come in time",
);
const MALFORMED: WebError = WebError::new(
    StatusCode::BAD_REQUEST,
    "malformed",
    "the request must be JSON such as {\"user\":\"alice\"}",
);
const INVALID_USER: WebError = WebError::new(
    StatusCode::BAD_REQUEST,
    "invalid_user",
    "a user is 1 to 64 of letters, digits and . _ - @ +",
);

/// What signs development tokens.
#[derive(Clone)]
pub struct DevTokens {
    key: Arc<DevKey>,
    clock: Arc<dyn Clock>,
}

impl DevTokens {
    /// Signs with `key`.
    pub fn new(key: Arc<DevKey>, clock: Arc<dyn Clock>) -> Self {
        Self { key, clock }
    }

    /// A token, and when it ends.
    fn sign(&self, user: &UserId) -> (String, String) {
        let now = self.clock.now();
        let token = self.key.sign(user, DEV_TOKEN_LIFETIME, &*self.clock);
        let seconds = i64::try_from(now.0 / 1_000 + DEV_TOKEN_LIFETIME.as_secs());
        let expires = Timestamp {
            seconds: seconds.unwrap_or(i64::MAX),
            nanos: 0,
        };
        (token, expires.to_string())
    }
}

impl fmt::Debug for DevTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevTokens").finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    user: String,
}

/// Answers `POST /dev/token`.
pub(crate) async fn answer(State(gateway): State<Gateway>, request: Request) -> Response {
    match token(&gateway, request).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn token(gateway: &Gateway, request: Request) -> Result<Response, WebError> {
    let dev = gateway.dev_tokens().ok_or(NO_KEY)?;
    if request.method() != Method::POST {
        return Err(WebError::method("POST, OPTIONS"));
    }
    check_caller(gateway, &request)?;
    let user = user(request).await?;
    let (token, expires_at) = dev.sign(&user);
    let body = json!({"token": token, "expiresAt": expires_at});
    Ok(json_response(StatusCode::OK, &body))
}

fn check_caller(gateway: &Gateway, request: &Request) -> Result<(), WebError> {
    let headers = request.headers();
    // Whoever is behind a proxy only seems to be on this machine.
    if PROXIED.iter().any(|name| headers.contains_key(*name)) {
        return Err(NOT_LOOPBACK);
    }
    // One that is there was found to be allowed.
    if !headers.contains_key(header::ORIGIN) {
        return Err(ORIGIN_NOT_ALLOWED);
    }
    // Over HTTP/2 it is part of the URL.
    let named = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let host = request.uri().authority().map(http::uri::Authority::as_str);
    let hosts = [named, host].into_iter().flatten();
    if hosts.clone().count() == 0
        || !hosts
            .into_iter()
            .all(|host| gateway.origins().allow_host(host))
    {
        return Err(HOST_NOT_ALLOWED);
    }
    let peer = request
        .extensions()
        .get::<Peer>()
        .and_then(|peer| peer.addr);
    if !peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback()) {
        return Err(NOT_LOOPBACK);
    }
    Ok(())
}

async fn user(request: Request) -> Result<UserId, WebError> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    // Anything else could be sent by a form.
    let kind = kind.split(';').next().unwrap_or_default();
    if !kind.trim().eq_ignore_ascii_case("application/json") {
        return Err(NOT_JSON);
    }
    let body = Limited::new(request.into_body(), MAX_DEV_TOKEN_REQUEST_BYTES);
    let read = timeout(BODY_TIMEOUT, body.collect()).await;
    let body = read.map_err(|_| TOO_SLOW)?.map_err(|_| TOO_LARGE)?;
    let wanted: Wanted = serde_json::from_slice(&body.to_bytes()).map_err(|_| MALFORMED)?;
    UserId::parse(&wanted.user).map_err(|_| INVALID_USER)
}
