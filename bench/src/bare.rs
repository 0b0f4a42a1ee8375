//! The relay to compare with: it hands each message to the peer's stream and
//! acknowledges it to the sender. It knows nobody, stores nothing, orders nothing.
//!
//! What carries it is as Duologue has it: the same limits of the server, the same
//! messages, buffers and joining of frames.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use anyhow::Result;
use duologue_proto::chat::v1::{
    CaughtUp, ConverseRequest, ConverseResponse, Envelope, MessageDelivered, SendMessage, Stored,
    converse_request, converse_response,
};
use duologue_runtime::server::{
    CONNECTION_WINDOW_BYTES, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, MAX_HEADER_LIST_BYTES,
    MAX_STREAMS_PER_CONNECTION, STREAM_WINDOW_BYTES,
};
use duologue_runtime::task;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::body::Body;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, NamedService};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// Frames that wait for one stream.
const MAX_WAITING: usize = 256;
/// First size of a stream's buffers, as Duologue has it.
const BUFFER_BYTES: usize = 1024;
/// Frames are written together up to so many bytes, as Duologue does.
const WRITE_BYTES: usize = 16 * 1024;

/// Serves until the process ends.
pub(crate) async fn serve(listener: TcpListener) -> Result<()> {
    let incoming = TcpListenerStream::new(listener).map(|accepted| {
        accepted.inspect(|stream| {
            // As Duologue does; a connection that is gone shows it at its first read.
            let _ = stream.set_nodelay(true);
        })
    });
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .http2_max_header_list_size(MAX_HEADER_LIST_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_adaptive_window(Some(false))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_service(Relay::default())
        .serve_with_incoming(incoming)
        .await?;
    Ok(())
}

type Outbox = mpsc::Sender<Result<ConverseResponse, Status>>;

/// The streams, by user.
#[derive(Clone, Default)]
struct Relay(Arc<Mutex<HashMap<String, Outbox>>>);

impl NamedService for Relay {
    const NAME: &'static str = "duologue.chat.v1.ChatService";
}

impl tower::Service<http::Request<Body>> for Relay {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let relay = self.clone();
        let converse = tower::service_fn(move |request| relay.clone().converse(request));
        Box::pin(async move { Ok(Grpc::new(Frames).streaming(converse, request).await) })
    }
}

impl Relay {
    #[expect(clippy::unused_async, reason = "a call is a future")]
    async fn converse(
        self,
        request: Request<Streaming<ConverseRequest>>,
    ) -> Result<Response<ReceiverStream<Result<ConverseResponse, Status>>>, Status> {
        let user = request.metadata().get("authorization");
        let user = user
            .and_then(|name| name.to_str().ok())
            .and_then(|name| name.strip_prefix("Bearer "))
            .ok_or_else(|| Status::unauthenticated("who is it?"))?
            .to_owned();
        let (outbox, stream) = mpsc::channel(MAX_WAITING);
        self.users().insert(user.clone(), outbox.clone());
        task::spawn("stream", self.relay(user, request.into_inner(), outbox));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn relay(self, user: String, mut frames: Streaming<ConverseRequest>, outbox: Outbox) {
        while let Ok(Some(request)) = frames.message().await {
            let answer = match request.frame {
                Some(converse_request::Frame::Hello(_)) => {
                    converse_response::Frame::CaughtUp(CaughtUp::default())
                }
                Some(converse_request::Frame::SendMessage(send)) => self.deliver(&user, send).await,
                _ => continue,
            };
            if outbox.send(frame(request.r#ref, answer)).await.is_err() {
                break;
            }
        }
        self.users().remove(&user);
    }

    /// Hands a message to its recipient, who may be gone.
    async fn deliver(&self, sender: &str, send: SendMessage) -> converse_response::Frame {
        let message_id = send.message_id.unwrap_or_default();
        let peer = self.users().get(&send.peer).cloned();
        if let Some(peer) = peer {
            let envelope = Envelope {
                seq: 1,
                message_id: message_id.clone(),
                sender: sender.to_owned(),
                recipient: send.peer.clone(),
                accepted_at: None,
                body: send.body,
                counts_unread: true,
            };
            let delivered = converse_response::Frame::MessageDelivered(MessageDelivered {
                envelope: Some(envelope),
            });
            let _ = peer.send(frame(0, delivered)).await;
        }
        converse_response::Frame::Stored(Stored {
            message_id,
            peer: send.peer,
            seq: 1,
            duplicate: false,
            accepted_at: None,
        })
    }

    fn users(&self) -> std::sync::MutexGuard<'_, HashMap<String, Outbox>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::unnecessary_wraps, reason = "what a stream is made of")]
fn frame(r#ref: u64, frame: converse_response::Frame) -> Result<ConverseResponse, Status> {
    Ok(ConverseResponse {
        r#ref,
        frame: Some(frame),
    })
}

/// prost, with the buffers of Duologue.
struct Frames;

impl Codec for Frames {
    type Encode = ConverseResponse;
    type Decode = ConverseRequest;
    type Encoder = Coder<ConverseResponse>;
    type Decoder = Coder<ConverseRequest>;

    fn encoder(&mut self) -> Self::Encoder {
        Coder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        Coder(PhantomData)
    }
}

struct Coder<T>(PhantomData<fn() -> T>);

impl<T: Message> Encoder for Coder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, bytes: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message
            .encode(bytes)
            .map_err(|_| Status::internal("a message does not fit"))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, WRITE_BYTES)
    }
}

impl<T: Message + Default> Decoder for Coder<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        T::decode(bytes)
            .map(Some)
            .map_err(|_| Status::invalid_argument("not a frame"))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, WRITE_BYTES)
    }
}
