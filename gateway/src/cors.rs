//! Pages of which origins may call, and what they may read of the answers.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::assets;
use crate::error::WebError;
use crate::limits::CORS_MAX_AGE;
use crate::router::Gateway;

/// What gRPC-Web clients send beside what every page may.
const ALLOWED_HEADERS: &str = "authorization, content-type, grpc-timeout, traceparent, tracestate, \
    x-grpc-web, x-user-agent";
/// How a call ended.
const EXPOSED_HEADERS: &str = "grpc-status, grpc-message, grpc-status-details-bin";
/// What is called from pages.
const ALLOWED_METHODS: &str = "GET, POST";

pub(crate) const ORIGIN_NOT_ALLOWED: WebError = WebError::new(
    StatusCode::FORBIDDEN,
    "origin_not_allowed",
    "pages of this origin may not call: see --allowed-origin",
);

/// Refuses foreign pages, answers preflights, and lets allowed pages read. Programs,
/// which send no `Origin`, pass.
pub(crate) async fn check(
    State(gateway): State<Gateway>,
    request: Request,
    next: Next,
) -> Response {
    let origins: Vec<_> = request.headers().get_all(header::ORIGIN).iter().collect();
    let allowed = match origins[..] {
        [] => return varying(next.run(request).await),
        [origin] if gateway.origins().allow(origin) => origin.clone(),
        _ if assets::is_static(request.uri().path()) => return varying(next.run(request).await),
        _ => return varying(ORIGIN_NOT_ALLOWED.into_response()),
    };
    let mut response = if is_preflight(&request) {
        preflight()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static(EXPOSED_HEADERS),
    );
    varying(response)
}

fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The same for every path: what a page may call tells it the rest.
fn preflight() -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static(ALLOWED_METHODS),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static(ALLOWED_HEADERS),
    );
    headers.insert(
        header::ACCESS_CONTROL_MAX_AGE,
        CORS_MAX_AGE.as_secs().into(),
    );
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// Caches must not give one origin's answer to another.
fn varying(mut response: Response) -> Response {
    let origin = HeaderValue::from_static("origin");
    response.headers_mut().append(header::VARY, origin);
    response
}
