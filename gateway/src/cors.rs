//! Pages of which origins may call, and what they may read of the answers.

use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};

use crate::assets;
use crate::error::WebError;
use crate::limits::CORS_MAX_AGE;
use crate::origin::Origins;

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

/// Whose pages may read an answer.
pub(crate) struct Readers(Option<HeaderValue>);

/// Passes requests of allowed pages, and of programs, which send no `Origin`. Foreign
/// pages are refused and preflights answered.
#[expect(
    clippy::result_large_err,
    reason = "it is the answer, and goes out at once"
)]
pub(crate) fn check<B>(origins: &Origins, request: &Request<B>) -> Result<Readers, Response> {
    let mut headers = request.headers().get_all(header::ORIGIN).iter();
    let readers = match (headers.next(), headers.next()) {
        (None, _) => return Ok(Readers(None)),
        (Some(origin), None) if origins.allow(origin) => Readers(Some(origin.clone())),
        _ if assets::is_static(request.uri().path()) => return Ok(Readers(None)),
        _ => return Err(Readers(None).of(ORIGIN_NOT_ALLOWED.into_response())),
    };
    if is_preflight(request) {
        return Err(readers.of(preflight()));
    }
    Ok(readers)
}

impl Readers {
    /// Tells the browser.
    pub(crate) fn tell(self, headers: &mut HeaderMap) {
        if let Some(origin) = self.0 {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(
                header::ACCESS_CONTROL_EXPOSE_HEADERS,
                HeaderValue::from_static(EXPOSED_HEADERS),
            );
        }
        // Caches must not give one origin's answer to another.
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }

    fn of(self, mut response: Response) -> Response {
        self.tell(response.headers_mut());
        response
    }
}

fn is_preflight<B>(request: &Request<B>) -> bool {
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
