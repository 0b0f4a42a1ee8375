//! Chat as several nodes elsewhere: each call goes to one that is up, as the user made
//! it. Nothing is added but for whom it is made.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use duologue_proto::limits::MAX_REQUEST_BYTES;
use duologue_runtime::listener::{Peer, forward_for};
use duologue_runtime::refusal::{Reason, Refusal};
use duologue_runtime::shutdown::Shutdown;
use duologue_runtime::upstream::UpstreamChannel;
use http::header::{AUTHORIZATION, CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, HeaderName, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use tokio::time::{Instant, timeout};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use crate::body::PREFIX_BYTES;
use crate::hand_on::HandOn;
use crate::limits::{OPEN_TIMEOUT, OPEN_WARNING_INTERVAL};
use crate::upstream::CONVERSE;

/// Headers that are the call's. All others, cookies among them, are the browser's.
const PASSED: [HeaderName; 5] = [
    AUTHORIZATION,
    CONTENT_TYPE,
    TE,
    USER_AGENT,
    HeaderName::from_static("traceparent"),
];
/// The other call that lasts, of which a connection may have only so many.
const SUBSCRIBE: &str = "/duologue.chat.v1.ChatService/Subscribe";
/// The one call that makes something new.
const SEND_MESSAGE: &str = "/duologue.chat.v1.ChatService/SendMessage";
/// What other headers of calls begin with.
const OF_GRPC: &str = "grpc-";

/// The service of chat, as nodes elsewhere offer it.
#[derive(Debug, Clone)]
pub(crate) struct ChatNodes {
    channel: UpstreamChannel,
    shutdown: Shutdown,
    /// When it was logged last that a node leaves streams unopened.
    warned: Arc<Mutex<Option<Instant>>>,
}

impl ChatNodes {
    /// Over this channel, until this process drains.
    pub(crate) fn new(channel: UpstreamChannel, shutdown: Shutdown) -> Self {
        Self {
            channel,
            shutdown,
            warned: Arc::default(),
        }
    }

    /// Makes a call. Unary calls may be made again, since they only read, or move what
    /// only moves forward; but for a send: its client knows best which of its tries the
    /// answer's `duplicate` is about. A stream is opened once.
    async fn make(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let Self {
            mut channel,
            shutdown,
            warned,
        } = self;
        match request.uri().path() {
            CONVERSE => {
                let (hand_on, request) = HandOn::request(request, &shutdown);
                let opened = opened(channel.call(request)).await;
                let response = opened.unwrap_or_else(|| Err(unopened(Some(&warned))))?;
                return Ok(hand_on.response(response.map(Body::new)));
            }
            SUBSCRIBE => {
                // Who holds back a request of this call is a client, and no node.
                let opened = opened(channel.call(request)).await;
                return opened.unwrap_or_else(|| Err(unopened(None)));
            }
            SEND_MESSAGE => {}
            _ => channel = channel.idempotent(),
        }
        let (head, body) = request.into_parts();
        let body = Limited::new(body, PREFIX_BYTES + MAX_REQUEST_BYTES);
        let body = body.collect().await.map_err(unreadable)?.to_bytes();
        let body = Body::new(Full::new(body));
        channel.call(Request::from_parts(head, body)).await
    }
}

/// A stream that is opened in time; HTTP/2 lets one wait for its turn without a word.
async fn opened(
    call: impl Future<Output = Result<Response<Body>, Status>>,
) -> Option<Result<Response<Body>, Status>> {
    timeout(OPEN_TIMEOUT, call).await.ok()
}

/// What is said of a stream that is not. `warned`: of a node's fault, when it was logged
/// last.
fn unopened(warned: Option<&Mutex<Option<Instant>>>) -> Status {
    if let Some(warned) = warned {
        let mut warned = warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|at| at.elapsed() >= OPEN_WARNING_INTERVAL) {
            *warned = Some(Instant::now());
            tracing::warn!(
                "a chat node does not open a stream: it hangs, or has none to spare for this \
                 connection, which has 100 if the gateway is not its --trusted-proxy"
            );
        }
    }
    let text = "no chat node has opened the stream in time";
    Refusal::new(Reason::Unavailable, text).into_status()
}

/// As chat would have it; of a body that is no error of ours, it breaks off here.
fn unreadable(error: Box<dyn std::error::Error + Send + Sync>) -> Status {
    match error.downcast::<Status>() {
        Ok(status) => *status,
        Err(_) => Refusal::field(
            "request",
            format!("is longer than {MAX_REQUEST_BYTES} bytes, or cut off"),
        )
        .into_status(),
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
        let called = self.clone().make(request);
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
fn broken_off(error: Status) -> Status {
    tracing::debug!(%error, "an answer of chat broke off");
    Refusal::new(Reason::Unavailable, "the connection to chat broke off").into_status()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_not_opened_is_not_waited_for() {
        let started = tokio::time::Instant::now();
        assert!(opened(std::future::pending()).await.is_none());
        assert_eq!(started.elapsed(), OPEN_TIMEOUT);
        let warned = Mutex::default();
        assert_eq!(unopened(Some(&warned)).code(), tonic::Code::Unavailable);
    }

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
