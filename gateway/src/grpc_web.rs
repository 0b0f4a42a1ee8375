//! Calls of the chat service: gRPC-Web, and native gRPC over HTTP/2.
//!
//! What is refused here is what would be no call at all. Everything else is said by
//! a gRPC status, which pages can read.

use std::convert::Infallible;
use std::net::IpAddr;

use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use duologue_runtime::listener::Peer;
use duologue_runtime::refusal::{Reason, Refusal};
use http::{HeaderMap, Method, StatusCode, Uri, Version, header};
use tonic::body::Body;
use tonic_web::GrpcWebLayer;
use tower::{BoxError, Layer as _, ServiceExt as _, service_fn};

use crate::body::{RequestBody, ResponseBody};
use crate::error::WebError;
use crate::router::Gateway;

const NOT_A_CALL: WebError = WebError::new(
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    "unsupported_media_type",
    "a call has the content-type application/grpc-web, application/grpc-web+proto, \
     application/grpc-web-text or application/grpc-web-text+proto; over HTTP/2 also \
     application/grpc",
);

/// What a request speaks, by its content-type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    GrpcWeb,
    Grpc,
}

impl Protocol {
    fn of(headers: &HeaderMap) -> Option<Self> {
        match headers.get(header::CONTENT_TYPE)?.as_bytes() {
            b"application/grpc-web"
            | b"application/grpc-web+proto"
            | b"application/grpc-web-text"
            | b"application/grpc-web-text+proto" => Some(Self::GrpcWeb),
            b"application/grpc" | b"application/grpc+proto" => Some(Self::Grpc),
            _ => None,
        }
    }
}

/// Whether a path is that of a call.
pub(crate) fn is_call(uri: &Uri) -> bool {
    let method = uri.path().strip_prefix("/duologue.chat.v1.ChatService/");
    method.is_some_and(|method| !method.is_empty() && !method.contains('/'))
}

/// Makes a call.
pub(crate) async fn call<B>(gateway: &Gateway, request: http::Request<B>) -> Response
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    if request.method() != Method::POST {
        return WebError::method("POST, OPTIONS").into_response();
    }
    let request = request.map(Body::new);
    let response = match (Protocol::of(request.headers()), request.version()) {
        (Some(Protocol::GrpcWeb), _) => translated(gateway, request).await,
        (Some(Protocol::Grpc), Version::HTTP_2) => admitted(gateway, request).await,
        (Some(Protocol::Grpc) | None, _) => return NOT_A_CALL.into_response(),
    };
    response.map(axum::body::Body::new)
}

/// A call by gRPC-Web: its request has one message, which comes in time, and its
/// response ends with a status.
async fn translated(gateway: &Gateway, request: http::Request<Body>) -> http::Response<Body> {
    let inside = service_fn(async |request: http::Request<Body>| {
        let request = request.map(|body| Body::new(RequestBody::new(body)));
        let response = admitted(gateway, request).await;
        Ok::<_, Infallible>(ResponseBody::complete(response))
    });
    let Ok(response) = GrpcWebLayer::new().layer(inside).oneshot(request).await;
    response
}

/// Calls upstream, as often as an address may.
async fn admitted(gateway: &Gateway, request: http::Request<Body>) -> http::Response<Body> {
    let Err(delay) = gateway.admit(origin(request.extensions())) else {
        return gateway.upstream().call(request).await;
    };
    let text = "too many requests from this address: wait as long as the details say";
    let refusal = Refusal::new(Reason::RateLimited, text).retry_after(delay);
    refusal.into_status().into_http()
}

/// The address that a request counts for.
pub(crate) fn origin(extensions: &http::Extensions) -> Option<IpAddr> {
    extensions.get::<Peer>().and_then(Peer::origin)
}
