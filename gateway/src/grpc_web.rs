//! Calls of the chat service: gRPC-Web, and native gRPC over HTTP/2.
//!
//! What is refused here is what would be no call at all. Everything else is said by
//! a gRPC status, which pages can read.

use std::convert::Infallible;
use std::net::IpAddr;
use std::task::{Context, Poll};

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use duologue_runtime::listener::Peer;
use duologue_runtime::refusal::{Reason, Refusal};
use futures_util::future::{BoxFuture, Either, Ready, ready};
use http::{HeaderMap, Method, StatusCode, Version, header};
use tonic::body::Body;
use tonic_web::GrpcWebLayer;
use tower::{Layer as _, Service, ServiceExt as _};

use crate::body::{RequestBody, ResponseBody};
use crate::error::WebError;
use crate::router::Gateway;
use crate::upstream::Upstream;

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

/// Makes a call.
pub(crate) async fn call(State(gateway): State<Gateway>, request: Request) -> Response {
    if request.method() != Method::POST {
        return WebError::method("POST, OPTIONS").into_response();
    }
    let calls = Calls(gateway);
    let request = request.map(Body::new);
    let response = match (Protocol::of(request.headers()), request.version()) {
        (Some(Protocol::GrpcWeb), _) => GrpcWebLayer::new().layer(Web(calls)).oneshot(request).await,
        (Some(Protocol::Grpc), Version::HTTP_2) => calls.oneshot(request).await,
        (Some(Protocol::Grpc) | None, _) => return NOT_A_CALL.into_response(),
    };
    match response {
        Ok(response) => response.map(axum::body::Body::new),
        Err(never) => match never {},
    }
}

/// Between gRPC-Web and the calls: a request has one message, which comes in time,
/// and a response always ends with a status.
#[derive(Clone)]
struct Web(Calls);

impl Service<http::Request<Body>> for Web {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let calls = self.0.clone();
        Box::pin(async move {
            let request = request.map(|body| Body::new(RequestBody::new(body)));
            let response = calls.oneshot(request).await?;
            Ok(ResponseBody::complete(response))
        })
    }
}

/// Calls upstream, as often as an address may.
#[derive(Clone)]
struct Calls(Gateway);

impl Service<http::Request<Body>> for Calls {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Either<
        Ready<Result<http::Response<Body>, Infallible>>,
        <Upstream as Service<http::Request<Body>>>::Future,
    >;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self.0.admit(origin(request.extensions())) {
            Ok(()) => Either::Right(Service::call(&mut self.0.upstream().clone(), request)),
            Err(delay) => {
                let refusal = Refusal::new(
                    Reason::RateLimited,
                    "too many requests from this address: wait as long as the details say",
                );
                let status = refusal.retry_after(delay).into_status();
                Either::Left(ready(Ok(status.into_http())))
            }
        }
    }
}

/// The address that a request counts for.
pub(crate) fn origin(extensions: &http::Extensions) -> Option<IpAddr> {
    extensions.get::<Peer>().and_then(Peer::origin)
}
