//! A page's WebSocket, with the frames of `Converse` in protobuf.

use std::net::SocketAddr;

use duologue_proto::chat::v1::converse_request::Frame as Up;
use duologue_proto::chat::v1::converse_response::Frame;
use duologue_proto::chat::v1::{ConverseResponse, Envelope, Hello};
use futures_util::{SinkExt as _, StreamExt as _};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::frames::numbered;
use super::session::delivered;
use super::soon;

/// A session by WebSocket.
pub(crate) struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    /// Connects as a page does, and says hello with a token; the answers are not awaited.
    pub(crate) async fn open(web: SocketAddr, token: &str, hello: Hello) -> Self {
        let mut stream = soon(TcpStream::connect(web)).await.unwrap();
        let request = format!(
            "GET /ws HTTP/1.1\r\nhost: {web}\r\norigin: http://{web}\r\n\
             connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             sec-websocket-protocol: duologue.v1.proto\r\n\r\n"
        );
        soon(stream.write_all(request.as_bytes())).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(soon(stream.read_u8()).await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "));
        let stream = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
        let mut socket = Self(stream);
        let access_token = token.to_owned();
        let hello = Hello {
            access_token,
            ..hello
        };
        socket.say(1, Up::Hello(hello)).await;
        socket
    }

    pub(crate) async fn say(&mut self, reference: u64, frame: Up) {
        let bytes = numbered(reference, frame).encode_to_vec();
        soon(self.0.send(Message::binary(bytes))).await.unwrap();
    }

    /// The next frame, or the code and reason with which the connection is closed.
    pub(crate) async fn hear(&mut self) -> Result<Frame, (u16, String)> {
        loop {
            match soon(self.0.next()).await.unwrap().unwrap() {
                Message::Binary(bytes) => {
                    if let Some(frame) = ConverseResponse::decode(bytes).unwrap().frame {
                        return Ok(frame);
                    }
                }
                Message::Close(close) => {
                    let close = close.unwrap();
                    return Err((close.code.into(), close.reason.as_str().to_owned()));
                }
                _ => {}
            }
        }
    }

    /// The first frame that `pick` takes something of.
    pub(crate) async fn until<T>(&mut self, pick: impl Fn(Frame) -> Option<T>) -> T {
        loop {
            if let Some(picked) = pick(self.hear().await.unwrap()) {
                return picked;
            }
        }
    }

    /// Reads on until it has caught up: the messages of it, and the sync token.
    pub(crate) async fn caught_up(&mut self) -> (Vec<Envelope>, String) {
        let mut messages = Vec::new();
        loop {
            match self.hear().await.unwrap() {
                Frame::CaughtUp(caught_up) => return (messages, caught_up.sync_token),
                other => messages.extend(delivered(other)),
            }
        }
    }

    /// The next message.
    pub(crate) async fn message(&mut self) -> Envelope {
        self.until(delivered).await
    }

    /// How the connection is closed, whatever comes before.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        loop {
            if let Err(close) = self.hear().await {
                return close;
            }
        }
    }
}
