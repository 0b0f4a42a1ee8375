//! The listener for browsers of the whole system: sign in, call, watch, go away.

use duologue_proto::chat::v1::subscribe_response::Frame;
use duologue_proto::chat::v1::{GoodbyeReason, SendMessageRequest, SendMessageResponse};
use http_body_util::BodyExt as _;
use prost::Message as _;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::support::calls::{send, sent};
use crate::support::http::get;
use crate::support::page::Page;
use crate::support::{Place, Server, soon};

/// Asks for a development token.
async fn sign_in(server: &Server, user: &str) -> Page {
    let headers = [("content-type", "application/json")];
    let asked = format!("{{\"user\":\"{user}\"}}");
    Page::post(server.web, "/dev/token", &headers, asked.into_bytes()).await
}

async fn token(server: &Server, user: &str) -> String {
    let page = sign_in(server, user).await;
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
    let mut events = Page::subscribed(server.web, &bob).await;

    let request: SendMessageRequest = send("bob", "from-a-page", "hello");
    let mut call = Page::call(server.web, "SendMessage", &alice, &request).await;
    let (_, answer) = call.frame().await;
    assert_eq!(SendMessageResponse::decode(answer).unwrap().seq, 1);
    let (kind, trailers) = call.frame().await;
    assert_eq!(kind, 0x80);
    assert!(trailers.starts_with(b"grpc-status:0\r\n"), "{trailers:?}");
    sent(
        &mut server.chat("alice").await,
        "bob",
        "native",
        "hello again",
    )
    .await;

    for id in ["from-a-page", "native"] {
        let delivered = |frame: &Frame| matches!(frame, Frame::MessageDelivered(_));
        let Frame::MessageDelivered(delivered) = events.until(delivered).await else {
            unreachable!()
        };
        assert_eq!(delivered.envelope.unwrap().message_id, id);
    }
}

#[tokio::test]
async fn a_tab_that_is_closed_frees_its_session_at_once() {
    let server = Server::start(&[]).await;
    let token = server.token("alice");
    let events = Page::subscribed(server.web, &token).await;
    assert_eq!(sessions(&server).await, "duologue_chat_sessions 1");
    drop(events);
    soon(async { while sessions(&server).await != "duologue_chat_sessions 0" {} }).await;
}

#[tokio::test]
async fn at_the_end_a_page_is_told_and_the_process_ends_well() {
    let mut server = Server::start(&[]).await;
    let token = server.token("alice");
    let mut events = Page::subscribed(server.web, &token).await;
    server.signal("TERM").await;
    let goodbye = events
        .until(|frame| matches!(frame, Frame::Goodbye(_)))
        .await;
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
    let server = place
        .serve(&["--jwt-public-key", key.to_str().unwrap()])
        .await;
    assert_eq!(
        get(server.web, "/config.json").await.body,
        "{\"devToken\":false}"
    );
    assert_eq!(sign_in(&server, "alice").await.status, 404);
}

#[tokio::test]
async fn the_listener_for_browsers_is_guarded_as_that_for_grpc() {
    let place = Place::new();
    let output = soon(place.command(&["--web-listen", "0.0.0.0:0"]).output())
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("--jwt-public-key"), "{error}");
    assert!(!place.data().exists());

    let output = soon(
        place
            .command(&["--allowed-origin", "chat.example.com"])
            .output(),
    )
    .await;
    let error = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(error.contains("scheme://host"), "{error}");
}

#[tokio::test]
async fn connections_of_both_listeners_count_together() {
    let server = Server::start(&["--connections-per-address", "1"]).await;
    let mut held = server.chat("alice").await;
    sent(&mut held, "bob", "m1", "let in").await;
    let mut stream = soon(TcpStream::connect(server.web)).await.unwrap();
    assert_eq!(soon(stream.read(&mut [0])).await.unwrap(), 0);
    drop(held);
}
