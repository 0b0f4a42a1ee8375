//! Chat as several nodes elsewhere: each call goes to one that is up, as the user made
//! it. Nothing is added but for whom it is made.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use duologue_runtime::listener::{Peer, forward_for};
use duologue_runtime::refusal::{Reason, Refusal};
use duologue_runtime::upstream::UpstreamChannel;
use http::header::{AUTHORIZATION, CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, HeaderName, Request, Response};
use http_body_util::BodyExt as _;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

/// Headers that are the call's. All others, cookies among them, are the browser's.
const PASSED: [HeaderName; 5] = [
    AUTHORIZATION,
    CONTENT_TYPE,
    TE,
    USER_AGENT,
    HeaderName::from_static("traceparent"),
];
/// What other headers of calls begin with.
const OF_GRPC: &str = "grpc-";

/// The service of chat, as nodes elsewhere offer it.
#[derive(Debug, Clone)]
pub(crate) struct ChatNodes(UpstreamChannel);

impl ChatNodes {
    /// Unary calls may be made again: each says by its content what it replaces, a
    /// message by its id, or only reads. A stream is opened once.
    pub(crate) fn new(channel: UpstreamChannel) -> Self {
        Self(channel.idempotent())
    }
}

impl NamedService for ChatNodes {
    const NAME: &'static str = "duologue.chat.v1.ChatService";
}

impl Service<Request<Body>> for ChatNodes {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<Peer>().copied();
        let mut headers = passed(request.headers());
        forward_for(peer, &mut headers);
        *request.headers_mut() = headers;
        let called = self.0.call(request);
        Box::pin(async move {
            Ok(match called.await {
                Ok(response) => response.map(|body| Body::new(body.map_err(broken_off))),
                Err(status) => status.into_http(),
            })
        })
    }
}

fn passed(headers: &HeaderMap) -> HeaderMap {
    let is_passed = |name: &HeaderName| PASSED.contains(name) || name.as_str().starts_with(OF_GRPC);
    let passed = headers.iter().filter(|(name, _)| is_passed(name));
    passed
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// The node died, or the way to it: the client comes again, to another.
fn broken_off(error: tonic::Status) -> tonic::Status {
    tracing::debug!(%error, "an answer of chat broke off");
    Refusal::new(Reason::Unavailable, "the connection to chat broke off").into_status()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_of_the_call_is_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer x"),
            ("content-type", "application/grpc"),
            ("grpc-timeout", "1S"),
            ("traceparent", "00-1-2-01"),
            ("cookie", "secret=1"),
            ("origin", "http://localhost"),
            ("forwarded", "for=1.1.1.1"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-real-ip", "1.1.1.1"),
            ("connection", "close"),
            ("tracestate", "chosen=by-the-caller"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let passed = passed(&headers);
        let mut names: Vec<_> = passed.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let wanted = [
            "authorization",
            "content-type",
            "grpc-timeout",
            "traceparent",
        ];
        assert_eq!(names, wanted);
    }
}
