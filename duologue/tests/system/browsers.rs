//! The listener for browsers of the whole system: sign in, call, watch, go away.

use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use duologue_proto::chat::v1::subscribe_response::Frame;
use duologue_proto::chat::v1::{
    GoodbyeReason, SendMessageRequest, SendMessageResponse, SubscribeRequest, SubscribeResponse,
};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::calls::{send, sent};
use crate::support::http::get;
use crate::support::{Place, Server, soon};

/// An answer on a connection of its own, as a page reads it.
struct Page {
    status: u16,
    body: Incoming,
    read: BytesMut,
    /// The connection ends with the page.
    _connection: JoinSet<()>,
}

impl Page {
    async fn post(server: &Server, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Self {
        let stream = soon(TcpStream::connect(server.web)).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let mut running = JoinSet::new();
        running.spawn(async move {
            // That it breaks off shows at the body.
            let _ = connection.await;
        });
        let mut request = Request::post(path)
            .header("host", server.web.to_string())
            .header("origin", format!("http://{}", server.web));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let answer = soon(sender.send_request(request)).await.unwrap();
        Self {
            status: answer.status().as_u16(),
            body: answer.into_body(),
            read: BytesMut::new(),
            _connection: running,
        }
    }

    async fn call(server: &Server, method: &str, token: &str, message: &impl Message) -> Self {
        let path = format!("/duologue.chat.v1.ChatService/{method}");
        let bearer = format!("Bearer {token}");
        let headers = [
            ("content-type", "application/grpc-web+proto"),
            ("authorization", &*bearer),
        ];
        let bytes = message.encode_to_vec();
        let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        Self::post(server, &path, &headers, [&[0][..], &length, &bytes].concat()).await
    }

    /// Asks for a development token.
    async fn sign_in(server: &Server, user: &str) -> Self {
        let headers = [("content-type", "application/json")];
        let asked = format!("{{\"user\":\"{user}\"}}");
        Self::post(server, "/dev/token", &headers, asked.into_bytes()).await
    }

    /// The next frame of a call: its kind, and what it holds.
    async fn frame(&mut self) -> (u8, Bytes) {
        loop {
            if let Some((prefix, rest)) = self.read.split_first_chunk::<5>() {
                let [kind, length @ ..] = *prefix;
                let length = usize::try_from(u32::from_be_bytes(length)).unwrap();
                if rest.len() >= length {
                    self.read.advance(5);
                    return (kind, self.read.split_to(length).freeze());
                }
            }
            let more = soon(self.body.frame()).await.expect("the answer has ended");
            self.read.extend_from_slice(&more.unwrap().into_data().unwrap());
        }
    }

    /// The next event of the wanted kind.
    async fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Frame {
        loop {
            let (kind, frame) = self.frame().await;
            assert_eq!(kind, 0, "{frame:?}");
            let event = SubscribeResponse::decode(frame).unwrap().frame.unwrap();
            if wanted(&event) {
                return event;
            }
        }
    }
}

async fn token(server: &Server, user: &str) -> String {
    let page = Page::sign_in(server, user).await;
    assert_eq!(page.status, 200);
    let body = soon(page.body.collect()).await.unwrap().to_bytes();
    let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
    json["token"].as_str().unwrap().to_owned()
}

async fn sessions(server: &Server) -> String {
    let metrics = get(server.admin, "/metrics").await.body;
    let mut lines = metrics.lines();
    let line = lines.find(|line| line.starts_with("duologue_chat_sessions "));
    line.unwrap().to_owned()
}

#[tokio::test]
async fn a_page_signs_in_sends_and_hears_what_native_clients_say() {
    let server = Server::start(&[]).await;
    let (alice, bob) = (token(&server, "alice").await, token(&server, "bob").await);
    let mut events = Page::call(&server, "Subscribe", &bob, &SubscribeRequest::default()).await;
    events.until(|frame| matches!(frame, Frame::CaughtUp(_))).await;

    let request: SendMessageRequest = send("bob", "from-a-page", "hello");
    let mut call = Page::call(&server, "SendMessage", &alice, &request).await;
    let (_, answer) = call.frame().await;
    assert_eq!(SendMessageResponse::decode(answer).unwrap().seq, 1);
    let (kind, trailers) = call.frame().await;
    assert_eq!(kind, 0x80);
    assert!(trailers.starts_with(b"grpc-status:0\r\n"), "{trailers:?}");
    sent(&mut server.chat("alice").await, "bob", "native", "hello again").await;

    for id in ["from-a-page", "native"] {
        let delivered = |frame: &Frame| matches!(frame, Frame::MessageDelivered(_));
        let Frame::MessageDelivered(delivered) = events.until(delivered).await else {
            unreachable!()
        };
        assert_eq!(delivered.message.unwrap().message_id, id);
    }
}

#[tokio::test]
async fn a_tab_that_is_closed_frees_its_session_at_once() {
    let server = Server::start(&[]).await;
    let token = server.token("alice");
    let mut events = Page::call(&server, "Subscribe", &token, &SubscribeRequest::default()).await;
    events.until(|frame| matches!(frame, Frame::CaughtUp(_))).await;
    assert_eq!(sessions(&server).await, "duologue_chat_sessions 1");
    drop(events);
    soon(async { while sessions(&server).await != "duologue_chat_sessions 0" {} }).await;
}

#[tokio::test]
async fn at_the_end_a_page_is_told_and_the_process_ends_well() {
    let mut server = Server::start(&[]).await;
    let token = server.token("alice");
    let mut events = Page::call(&server, "Subscribe", &token, &SubscribeRequest::default()).await;
    events.until(|frame| matches!(frame, Frame::CaughtUp(_))).await;
    server.signal("TERM").await;
    let goodbye = events.until(|frame| matches!(frame, Frame::Goodbye(_))).await;
    let Frame::Goodbye(goodbye) = goodbye else {
        unreachable!()
    };
    assert_eq!(goodbye.reason(), GoodbyeReason::ShuttingDown);
    let (kind, trailers) = events.frame().await;
    assert_eq!(kind, 0x80);
    let trailers = String::from_utf8(trailers.to_vec()).unwrap();
    assert!(trailers.contains("grpc-status:14\r\n"), "{trailers}");
    assert!(server.ended().await.success());
}

#[tokio::test]
async fn with_real_keys_nobody_signs_in_for_development() {
    let place = Place::new();
    let pair = rcgen::KeyPair::generate().unwrap();
    let key = place.path("public.pem");
    std::fs::write(&key, pair.public_key_pem()).unwrap();
    let server = place.serve(&["--jwt-public-key", key.to_str().unwrap()]).await;
    assert_eq!(get(server.web, "/config.json").await.body, "{\"devToken\":false}");
    assert_eq!(Page::sign_in(&server, "alice").await.status, 404);
}

#[tokio::test]
async fn the_listener_for_browsers_is_guarded_as_that_for_grpc() {
    let place = Place::new();
    let output = soon(place.command(&["--web-listen", "0.0.0.0:0"]).output()).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("--jwt-public-key"), "{error}");
    assert!(!place.data().exists());

    let output = soon(place.command(&["--allowed-origin", "chat.example.com"]).output()).await;
    let error = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(error.contains("scheme://host"), "{error}");
}

#[tokio::test]
async fn connections_of_both_listeners_count_together() {
    let server = Server::start(&["--connections-per-address", "1"]).await;
    let held = soon(TcpStream::connect(server.grpc)).await.unwrap();
    // It is let in when the server closes the next one at once.
    let closed = async {
        let mut stream = TcpStream::connect(server.web).await.unwrap();
        stream.read(&mut [0]).await.is_ok_and(|read| read == 0)
    };
    let closed = tokio::time::timeout(Duration::from_secs(5), closed).await;
    assert_eq!(closed, Ok(true));
    drop(held);
}
