//! `Converse` as a `WebSocket`: the messages of the request's body are its messages,
//! its messages are those of the response's body, and its close code is the status.
//! The token of the metadata goes into the first message. All other calls go by
//! gRPC-Web.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, Stream as _, StreamExt as _};
use http::header::{
    AUTHORIZATION, CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body::Frame;
use http_body_util::BodyExt as _;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Service, ServiceExt as _};

use super::json::Json;
use super::web::Http;
use super::{Carrier, Error, close, frames};

/// The call that becomes a `WebSocket`.
const CONVERSE: &str = "/duologue.chat.v1.ChatService/Converse";
/// A key and what must be answered to it, of RFC 6455.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// How messages are written.
#[derive(Debug, Clone)]
pub(super) enum Protocol {
    Proto,
    Json(Json),
}

impl Protocol {
    const fn name(&self) -> &'static str {
        match self {
            Self::Proto => "duologue.v1.proto",
            Self::Json(_) => "duologue.v1.json",
        }
    }

    fn write(&self, message: Bytes) -> Result<Message, Status> {
        match self {
            Self::Proto => Ok(Message::Binary(message)),
            Self::Json(json) => Ok(Message::text(json.write(message)?)),
        }
    }

    fn read(&self, message: &Message) -> Result<Bytes, Status> {
        match (self, message) {
            (Self::Proto, Message::Binary(message)) => Ok(message.clone()),
            (Self::Json(json), Message::Text(text)) => json.read(text.as_str()),
            _ => Err(Status::data_loss("a message of the wrong kind")),
        }
    }
}

/// Carries calls.
#[derive(Clone)]
pub(super) struct Sockets {
    client: Http,
    calls: Carrier,
    protocol: Protocol,
}

impl Sockets {
    pub(super) fn new(client: Http, calls: Carrier, protocol: Protocol) -> Self {
        Self {
            client,
            calls,
            protocol,
        }
    }

    async fn converse(self, request: Request<Body>) -> Result<Response<Body>, Error> {
        let (head, body) = request.into_parts();
        let upgrade = upgrade(&head.uri, self.protocol.name())?;
        let response = self.client.request(upgrade).await?;
        if let Some(status) = refused(&response, self.protocol.name()) {
            return Ok(status.into_http());
        }
        let io = TokioIo::new(hyper::upgrade::on(response).await?);
        let socket = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
        let (up, down) = socket.split();
        let mut pump = JoinSet::new();
        pump.spawn(say(self.protocol.clone(), token(&head.headers), body, up));
        let response = Body::new(Down {
            socket: down,
            protocol: self.protocol,
            ended: false,
            _pump: pump,
        });
        let response = Response::builder()
            .header(http::header::CONTENT_TYPE, "application/grpc")
            .body(response)?;
        Ok(response)
    }
}

impl Service<Request<Body>> for Sockets {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path() == CONVERSE {
            Box::pin(self.clone().converse(request))
        } else {
            Box::pin(self.calls.clone().oneshot(request))
        }
    }
}

/// Asks for a `WebSocket` at the authority of a call.
fn upgrade(call: &Uri, protocol: &str) -> Result<Request<Body>, Error> {
    let authority = call.authority().map_or("", |authority| authority.as_str());
    let request = Request::builder()
        .method(Method::GET)
        .uri(format!("http://{authority}/ws"))
        .header(HOST, authority)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, KEY)
        .header(SEC_WEBSOCKET_PROTOCOL, protocol)
        .body(Body::empty())?;
    Ok(request)
}

/// Why a response is no upgrade to this protocol, if it is none.
fn refused<T>(response: &Response<T>, protocol: &str) -> Option<Status> {
    let is = |name, wanted: &str| {
        let value = response.headers().get(name);
        value.is_some_and(|value| value.as_bytes() == wanted.as_bytes())
    };
    let code = match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => {
            let granted = is(SEC_WEBSOCKET_ACCEPT, ACCEPT) && is(SEC_WEBSOCKET_PROTOCOL, protocol);
            return (!granted).then(|| Status::internal("an upgrade to something else"));
        }
        StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY => Code::Unavailable,
        _ => Code::Internal,
    };
    Some(Status::new(
        code,
        format!("no upgrade: {}", response.status()),
    ))
}

fn token(headers: &HeaderMap) -> String {
    let value = headers.get(AUTHORIZATION);
    let value = value.and_then(|value| value.to_str().ok());
    let token = value.and_then(|value| value.strip_prefix("Bearer "));
    token.unwrap_or_default().to_owned()
}

/// Says what a body holds, and then that nothing follows.
async fn say(
    protocol: Protocol,
    token: String,
    mut body: Body,
    mut up: SplitSink<Socket, Message>,
) {
    let mut read = BytesMut::new();
    let mut token = Some(token);
    while let Some(frame) = body.frame().await {
        // The call was given up.
        let Ok(frame) = frame else { return };
        read.extend_from_slice(&frame.into_data().unwrap_or_default());
        while let Some(message) = frames::take(&mut read) {
            let message = match token.take() {
                Some(token) => frames::with_token(&message, &token),
                None => Ok(message),
            };
            // What cannot be written is our own fault, and shows as a lost connection.
            let Ok(message) = message.and_then(|message| protocol.write(message)) else {
                return;
            };
            // How it ended is heard at the other half.
            if up.send(message).await.is_err() {
                return;
            }
        }
    }
    let _ = up.send(Message::Close(None)).await;
}

/// What is heard. Dropped, the connection is gone.
struct Down {
    socket: SplitStream<Socket>,
    protocol: Protocol,
    ended: bool,
    _pump: JoinSet<()>,
}

impl http_body::Body for Down {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        loop {
            let heard = std::task::ready!(Pin::new(&mut self.socket).poll_next(context));
            let status = match heard {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Close(frame))) => {
                    // By the next reading the answer is written.
                    let _ = Pin::new(&mut self.socket).poll_next(context);
                    close::status(frame.as_ref())
                }
                Some(Ok(message)) => match self.protocol.read(&message) {
                    Ok(message) => {
                        let message = frames::framed(&message);
                        return Poll::Ready(Some(Ok(Frame::data(message))));
                    }
                    Err(status) => status,
                },
                Some(Err(error)) => Status::unavailable(format!("connection lost: {error}")),
                None => Status::unavailable("connection lost"),
            };
            self.ended = true;
            let mut trailers = HeaderMap::new();
            let end = status.add_header(&mut trailers);
            return Poll::Ready(Some(end.map(|()| Frame::trailers(trailers))));
        }
    }
}
