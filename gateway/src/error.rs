//! What a request gets that is refused before it is a call: JSON, with a code for
//! programs and a sentence for people.
//!
//! It must not repeat anything of the request: a URL may hold a token.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

/// A refusal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WebError {
    pub(crate) status: StatusCode,
    /// Stable.
    pub(crate) code: &'static str,
    pub(crate) message: &'static str,
    /// What may be done instead, or how long to wait, by header.
    header: Option<Header>,
}

#[derive(Debug, Clone, Copy)]
enum Header {
    Allow(&'static str),
    RetryAfter(Duration),
}

impl WebError {
    pub(crate) const fn new(
        status: StatusCode,
        code: &'static str,
        message: &'static str,
    ) -> Self {
        Self {
            status,
            code,
            message,
            header: None,
        }
    }

    /// The path knows other methods only.
    pub(crate) const fn method(allowed: &'static str) -> Self {
        let mut this = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "this path has other methods: see the header `allow`",
        );
        this.header = Some(Header::Allow(allowed));
        this
    }

    /// Waiting helps.
    pub(crate) fn retry_after(mut self, delay: Duration) -> Self {
        self.header = Some(Header::RetryAfter(delay));
        self
    }
}

impl IntoResponse for WebError {
    fn into_response(self) -> Response {
        tracing::debug!(code = self.code, "request refused");
        let body = json!({"error": {"code": self.code, "message": self.message}});
        let mut response = json_response(self.status, &body);
        match self.header {
            Some(Header::Allow(methods)) => {
                let methods = HeaderValue::from_static(methods);
                response.headers_mut().insert(header::ALLOW, methods);
            }
            Some(Header::RetryAfter(delay)) => {
                // Whole seconds, rounded up.
                let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
                response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            }
            None => {}
        }
        response
    }
}

/// JSON that nobody keeps.
pub(crate) fn json_response(status: StatusCode, body: &serde_json::Value) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, body.to_string()).into_response()
}
