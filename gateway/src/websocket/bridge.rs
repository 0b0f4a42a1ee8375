//! One WebSocket as one `Converse` call: what the client says becomes the request,
//! what the response says goes to the client, and the end of either ends both.
//!
//! It decides nothing about a conversation, and holds nothing but what is on its
//! way: each direction is read only while the other end takes it.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use duologue_runtime::auth::{AuthError, MAX_TOKEN_BYTES, bearer};
use duologue_runtime::listener::Peer;
use duologue_runtime::rate::SlotGuard;
use duologue_runtime::refusal::Reason;
use futures_util::future::BoxFuture;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::{Body as _, Frame};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tonic::{Code, Status};

use super::Shared;
use super::close::{Close, CloseCode};
use super::handshake::Protocol;
use super::metrics::Counted;
use super::proto::{First, Messages};
use super::socket::{Lost, Socket};
use super::up::{Up, up};
use crate::upstream::CONVERSE;

/// Headers of the upgrade that are the call's, too.
const FORWARDED: [HeaderName; 2] = [
    HeaderName::from_static("traceparent"),
    http::header::USER_AGENT,
];
/// What a connection counts as that ends without a close frame.
const ABNORMAL: &str = "1006";

/// What the upgrade says about the call that is to come.
pub(super) struct Head {
    headers: HeaderMap,
    peer: Option<Peer>,
    /// The place among those of whom no message has come yet.
    _waiting: Option<SlotGuard<IpAddr>>,
}

impl Head {
    /// Takes what the call needs; the rest of the upgrade is dropped.
    pub(super) fn new<B>(request: &Request<B>, waiting: Option<SlotGuard<IpAddr>>) -> Self {
        let mut headers = HeaderMap::new();
        for name in FORWARDED.into_iter().chain([AUTHORIZATION]) {
            for value in request.headers().get_all(&name) {
                headers.append(name.clone(), value.clone());
            }
        }
        Self {
            headers,
            peer: request.extensions().get().copied(),
            _waiting: waiting,
        }
    }

    /// The call, with the token of the header or of `Hello`, which must be one if
    /// there are both.
    fn into_request(mut self, token: Option<String>, body: Body) -> Result<Request<Body>, Close> {
        let unauthenticated = |reason, text| Close::of(CloseCode::Unauthenticated, reason, text);
        let invalid = |text| unauthenticated(Reason::TokenInvalid, text);
        match (bearer(&self.headers), token) {
            (Ok(_), None) => {}
            (Ok(header), Some(token)) if header == token => {}
            (Ok(_), Some(_)) => {
                return Err(invalid("the header and Hello.access_token differ"));
            }
            (Err(AuthError::Missing), Some(token)) => {
                let value = bearer_value(&token);
                let value = value.ok_or_else(|| invalid("Hello.access_token is no token"))?;
                self.headers.insert(AUTHORIZATION, value);
            }
            (Err(AuthError::Missing), None) => {
                let text = "give Hello.access_token or an authorization header";
                return Err(unauthenticated(Reason::TokenMissing, text));
            }
            (Err(_), _) => return Err(invalid("the authorization header has no bearer token")),
        }
        let headers = &mut self.headers;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = http::Uri::from_static(CONVERSE);
        *request.headers_mut() = self.headers;
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(peer);
        }
        Ok(request)
    }
}

/// A token as the header has it; no log shows it.
fn bearer_value(token: &str) -> Option<HeaderValue> {
    if token.len() > MAX_TOKEN_BYTES {
        return None;
    }
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// How far the call is.
enum Call {
    /// No message has come.
    Awaited(Box<Head>),
    /// The response's head has not come.
    Asked(BoxFuture<'static, Response<Body>>),
    /// The response comes.
    Answered(Body),
}

/// One WebSocket and its call.
pub(super) struct Bridge<IO> {
    shared: Arc<Shared>,
    protocol: Protocol,
    socket: Socket<IO>,
    call: Call,
    /// None once nothing follows from the client.
    up: Option<Up>,
    messages: Messages,
    _counted: Counted,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Bridge<IO> {
    pub(super) fn new(
        shared: Arc<Shared>,
        protocol: Protocol,
        socket: Socket<IO>,
        head: Box<Head>,
        counted: Counted,
    ) -> Self {
        Self {
            shared,
            protocol,
            socket,
            call: Call::Awaited(head),
            up: None,
            messages: Messages::default(),
            _counted: counted,
        }
    }

    /// Runs to the end of both. By reference: a future that takes a value has room for
    /// it twice.
    pub(super) async fn run(&mut self) {
        let lost = poll_fn(|cx| self.poll(cx)).await;
        // Before the client is waited for: its session is over.
        self.up = None;
        self.call = Call::Answered(Body::empty());
        match lost {
            Lost::Gone => {
                self.shared.metrics.closed(ABNORMAL);
                tracing::debug!("a WebSocket broke off");
            }
            Lost::Close(close) => {
                self.shared.metrics.closed(close.code.as_str());
                tracing::debug!(
                    close.code = close.code as u16,
                    close.reason = close.stable,
                    "a WebSocket is closed"
                );
                self.socket.close(&close).await;
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        loop {
            let moved = self.step(cx);
            match moved {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(lost) => return Poll::Ready(lost),
            }
        }
    }

    /// Moves what can be moved; says whether there may be more.
    fn step(&mut self, cx: &mut Context<'_>) -> Result<bool, Lost> {
        let read = self.read(cx)?;
        let was_full = !self.socket.has_room();
        let answered = self.answer(cx)?;
        if let Poll::Ready(lost) = self.socket.poll_life(cx) {
            return Err(lost);
        }
        let flushed = self.socket.poll_flush(cx)?.is_ready();
        // An answer is flushed at once; with room made, there may be another. Nobody
        // wakes for one that was not asked for while there was no room.
        Ok(read || flushed && (answered || was_full))
    }

    /// Takes what the client says, if the call has room for it.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, Lost> {
        if let Some(up) = &self.up
            && up.poll_room(cx).is_pending()
        {
            self.socket.pause();
            return Ok(false);
        }
        match self.socket.poll_message(cx)? {
            Poll::Pending => return Ok(false),
            Poll::Ready(Some(message)) => self.say(message).map_err(Lost::Close)?,
            Poll::Ready(None) if matches!(self.call, Call::Awaited(_)) => {
                let close = Close::plain(CloseCode::Done, "nothing was said");
                return Err(Lost::Close(close));
            }
            Poll::Ready(None) => {
                if let Some(up) = self.up.take() {
                    up.close();
                }
            }
        }
        Ok(true)
    }

    /// Says a message to the call; the first one makes it.
    fn say(&mut self, message: Vec<u8>) -> Result<(), Close> {
        let message = match self.protocol {
            Protocol::Proto => message,
            Protocol::Json => self
                .shared
                .json
                .read(&message)
                .map_err(|why| Close::malformed(&why))?,
        };
        if let Some(up) = &self.up {
            up.push(&message);
        } else if matches!(self.call, Call::Awaited(_)) {
            self.open(message)?;
        }
        Ok(())
    }

    fn open(&mut self, message: Vec<u8>) -> Result<(), Close> {
        let first = First::take(message).map_err(|_| {
            Close::malformed("the first message is not a ConverseRequest in protobuf")
        })?;
        let (up, body) = up();
        let call = std::mem::replace(&mut self.call, Call::Answered(Body::empty()));
        let Call::Awaited(head) = call else {
            return Ok(());
        };
        if !first.is_hello && matches!(bearer(&head.headers), Err(AuthError::Missing)) {
            // Nobody to ask for: what chat would say is said here.
            let text = "the first frame must be Hello";
            return Err(Close::of(
                CloseCode::Policy,
                Reason::FirstFrameNotHello,
                text,
            ));
        }
        let request = head.into_request(first.token, Body::new(body))?;
        up.push(&first.message);
        let upstream = self.shared.upstream.clone();
        self.call = Call::Asked(Box::pin(async move { upstream.call(request).await }));
        self.up = Some(up);
        self.socket.is_under_way();
        Ok(())
    }

    /// Takes what the call says, if there is room for it.
    fn answer(&mut self, cx: &mut Context<'_>) -> Result<bool, Lost> {
        match &mut self.call {
            Call::Awaited(_) => Ok(false),
            Call::Asked(asked) => match asked.as_mut().poll(cx) {
                Poll::Pending => Ok(false),
                Poll::Ready(response) => {
                    self.call = Call::Answered(Self::opened(response)?);
                    Ok(true)
                }
            },
            Call::Answered(_) if !self.socket.has_room() => Ok(false),
            Call::Answered(body) => match Pin::new(body).poll_frame(cx) {
                Poll::Pending => Ok(false),
                Poll::Ready(Some(Ok(frame))) => self.hear(frame).map(|()| true),
                Poll::Ready(Some(Err(status))) => Err(ended(&status)),
                Poll::Ready(None) => Err(ended(&without_status())),
            },
        }
    }

    fn opened(response: Response<Body>) -> Result<Body, Lost> {
        if let Some(status) = Status::from_header_map(response.headers()) {
            return Err(ended(&status));
        }
        if response.status() != StatusCode::OK {
            return Err(ended(&Status::unavailable("not an answer of gRPC")));
        }
        Ok(response.into_body())
    }

    /// Hands messages on, or the end.
    fn hear(&mut self, frame: Frame<bytes::Bytes>) -> Result<(), Lost> {
        let frame = match frame.into_data() {
            Ok(data) => {
                self.messages.push(data);
                return self.hand_on();
            }
            Err(frame) => frame,
        };
        let Ok(trailers) = frame.into_trailers() else {
            return Ok(());
        };
        let status = Status::from_header_map(&trailers).unwrap_or_else(without_status);
        if status.code() == Code::Ok && !self.messages.is_whole() {
            return Err(ended(&without_status()));
        }
        Err(ended(&status))
    }

    fn hand_on(&mut self) -> Result<(), Lost> {
        let internal = |()| Lost::Close(Close::of_status(&without_status()));
        while let Some(message) = self.messages.next().map_err(|_| internal(()))? {
            match self.protocol {
                Protocol::Proto => self.socket.write(&message),
                Protocol::Json => {
                    let text = self.shared.json.write(message).map_err(|_| internal(()))?;
                    self.socket.write(&text);
                }
            }
        }
        Ok(())
    }
}

/// How the call ended.
fn ended(status: &Status) -> Lost {
    Lost::Close(Close::of_status(status))
}

/// A response that breaks off is never a success.
fn without_status() -> Status {
    Status::internal("the response ended without a status")
}

#[cfg(test)]
#[path = "bridge_tests/mod.rs"]
mod tests;
