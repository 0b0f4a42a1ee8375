//! A WebSocket over memory, and a call behind it that a test plays.

use std::sync::Mutex;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use duologue_proto::chat::v1::converse_request::Frame as Up;
use duologue_proto::chat::v1::converse_response::Frame as Down;
use duologue_proto::chat::v1::{ConverseRequest, ConverseResponse, Hello, Pong};
use duologue_proto::ids::UnixMillis;
use duologue_runtime::metrics::{BuildInfo, Metrics};
use duologue_runtime::refusal::{Reason, Refusal};
use duologue_runtime::task;
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, StreamBody};
use prost::Message as _;
use tokio::io::{AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::super::super::{
    DEFAULT_MAX_WAITING_PER_ADDRESS, WebSocketConfig, WebSockets, no_hello, proto,
};
use super::super::*;
use crate::Upstream;

/// What the memory between client and server holds, each way.
pub(super) const PIPE_BYTES: usize = 4 * 1024;

pub(super) type Client = WebSocketStream<DuplexStream>;

/// A door whose calls the test answers.
pub(super) struct Door {
    pub(super) sockets: WebSockets,
    pub(super) metrics: Metrics,
    calls: mpsc::Receiver<Called>,
    /// How much a client has room for that reads nothing.
    pub(super) pipe_bytes: usize,
}

/// A call as it came.
pub(super) struct Called {
    pub(super) request: Request<()>,
    body: Body,
    messages: Messages,
    /// What is answered; frames of the body.
    pub(super) down: mpsc::Sender<Result<Frame<Bytes>, Status>>,
}

impl Door {
    pub(super) fn new() -> Self {
        let (sender, calls) = mpsc::channel(16);
        let upstream = Upstream::new(tower::service_fn(move |request: Request<Body>| {
            let sender = sender.clone();
            async move {
                let (down, frames) = mpsc::channel(1);
                let (parts, body) = request.into_parts();
                let called = Called {
                    request: Request::from_parts(parts, ()),
                    body,
                    messages: Messages::default(),
                    down,
                };
                let _ = sender.send(called).await;
                let body = StreamBody::new(ReceiverStream::new(frames));
                Ok(Response::new(Body::new(body)))
            }
        }));
        Self::of(upstream, calls)
    }

    /// A door whose every call is answered with this alone.
    pub(super) fn answering(answer: impl Fn() -> Response<Body> + Send + Sync + 'static) -> Self {
        let answer = Arc::new(answer);
        let upstream = Upstream::new(tower::service_fn(move |_: Request<Body>| {
            let answer = Arc::clone(&answer);
            async move { Ok(answer()) }
        }));
        Self::of(upstream, mpsc::channel(1).1)
    }

    fn of(upstream: Upstream, calls: mpsc::Receiver<Called>) -> Self {
        let metrics = Metrics::new(BuildInfo::of("test"), UnixMillis(0));
        let config = WebSocketConfig {
            upstream,
            metrics: metrics.clone(),
            max_waiting_per_address: DEFAULT_MAX_WAITING_PER_ADDRESS,
        };
        Self {
            sockets: WebSockets::new(config).unwrap(),
            metrics,
            calls,
            pipe_bytes: PIPE_BYTES,
        }
    }

    /// The other end of a connection that was upgraded by a request with these
    /// headers.
    pub(super) fn raw(&self, protocol: Protocol, headers: &[(&str, &str)]) -> DuplexStream {
        let (near, far) = tokio::io::duplex(self.pipe_bytes);
        let mut request = Request::new(());
        for (name, value) in headers {
            let name = HeaderName::try_from(*name).unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        let peer = Peer {
            addr: Some("192.0.2.1:7".parse().unwrap()),
        };
        request.extensions_mut().insert(peer);
        let shared = Arc::clone(&self.sockets.0);
        let limit = (Instant::now() + Duration::from_secs(5), no_hello());
        let counted = shared.metrics.opened(protocol);
        let socket = Socket::new(near, protocol.kind(), limit);
        let head = Box::new(Head::new(&request, None));
        let mut bridge = Bridge::new(shared, protocol, socket, head, counted);
        task::spawn("websocket", async move { bridge.run().await });
        far
    }

    pub(super) async fn client(&self, protocol: Protocol, headers: &[(&str, &str)]) -> Client {
        WebSocketStream::from_raw_socket(self.raw(protocol, headers), Role::Client, None).await
    }

    /// A client whose hello has reached a call.
    pub(super) async fn session(&mut self) -> (Client, Called) {
        let mut client = self.client(Protocol::Proto, &[]).await;
        client.send(binary(hello("t"))).await.unwrap();
        let mut called = self.called().await;
        assert_eq!(called.said().await.unwrap(), hello(""));
        (client, called)
    }

    /// The same, as bare bytes.
    pub(super) async fn raw_session(&mut self) -> (DuplexStream, Called) {
        let mut raw = self.raw(Protocol::Proto, &[]);
        let hello = frame(0x82, &hello("t").encode_to_vec());
        raw.write_all(&hello).await.unwrap();
        let mut called = self.called().await;
        called.said().await.unwrap();
        (raw, called)
    }

    pub(super) async fn called(&mut self) -> Called {
        self.calls.recv().await.unwrap()
    }

    /// A line of the metrics.
    pub(super) fn number(&self, series: &str) -> Option<u64> {
        let text = self.metrics.encode().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series))?;
        line.trim().parse().ok()
    }
}

impl Called {
    /// The next message of the request; none at its end.
    pub(super) async fn said(&mut self) -> Option<ConverseRequest> {
        loop {
            if let Some(message) = self.messages.next().unwrap() {
                return Some(ConverseRequest::decode(message).unwrap());
            }
            let frame = self.body.frame().await?.unwrap();
            self.messages.push(frame.into_data().unwrap());
        }
    }

    /// How the request ends that nothing more is said in.
    pub(super) async fn broke_off(&mut self) -> Status {
        self.body.frame().await.unwrap().unwrap_err()
    }

    pub(super) async fn answer(&self, response: &ConverseResponse) {
        let mut bytes = BytesMut::new();
        proto::write(&response.encode_to_vec(), &mut bytes);
        self.chunk(bytes.freeze()).await;
    }

    pub(super) async fn chunk(&self, bytes: Bytes) {
        self.down.send(Ok(Frame::data(bytes))).await.unwrap();
    }

    pub(super) async fn end(self, status: Status) {
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers).unwrap();
        let _ = self.down.send(Ok(Frame::trailers(trailers))).await;
    }
}

pub(super) fn hello(token: &str) -> ConverseRequest {
    frame_up(
        1,
        Up::Hello(Hello {
            client_name: "test".to_owned(),
            access_token: token.to_owned(),
            ..Hello::default()
        }),
    )
}

pub(super) fn frame_up(reference: u64, frame: Up) -> ConverseRequest {
    ConverseRequest {
        r#ref: reference,
        frame: Some(frame),
    }
}

pub(super) fn pong(reference: u64) -> ConverseResponse {
    ConverseResponse {
        r#ref: reference,
        frame: Some(Down::Pong(Pong {})),
    }
}

pub(super) fn binary(request: ConverseRequest) -> Message {
    Message::binary(request.encode_to_vec())
}

pub(super) fn text(json: &str) -> Message {
    Message::text(json.to_owned())
}

/// The code and reason with which a connection ends, whatever comes before.
pub(super) async fn closed(client: &mut Client) -> (u16, String) {
    loop {
        match client.next().await {
            Some(Ok(Message::Close(Some(frame)))) => {
                return (frame.code.into(), frame.reason.as_str().to_owned());
            }
            Some(Ok(_)) => {}
            other => panic!("{other:?} instead of a close frame"),
        }
    }
}

/// The next message.
pub(super) async fn heard(client: &mut Client) -> ConverseResponse {
    loop {
        match client.next().await {
            Some(Ok(Message::Binary(bytes))) => return ConverseResponse::decode(bytes).unwrap(),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            other => panic!("{other:?} instead of a message"),
        }
    }
}

/// A masked frame; the mask is zero.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    let mut bytes = match u8::try_from(length) {
        Ok(short) if short < 126 => vec![first, short + 0x80],
        _ => {
            let [high, low] = length.to_be_bytes();
            vec![first, 0xFE, high, low]
        }
    };
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

pub(super) fn refusal(reason: Reason) -> Status {
    Refusal::new(reason, "why").into_status()
}

/// A place for what a log writes.
#[derive(Clone, Default)]
pub(super) struct Log(pub(super) Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
