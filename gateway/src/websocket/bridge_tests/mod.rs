//! A WebSocket and its call, over memory and with a clock that the test owns.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks for some kinds of messages and takes no others"
)]

mod flow;
mod life;
mod support;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use duologue_proto::chat::v1::Ping;
use duologue_proto::chat::v1::converse_request::Frame as Up;
use duologue_runtime::refusal::Refusal;
use duologue_runtime::task;
use futures_util::{SinkExt as _, StreamExt as _};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Message;

use self::support::*;
use super::super::proto;
use super::*;

#[tokio::test(start_paused = true)]
async fn the_call_is_converse_with_the_token_the_trace_and_the_peer_of_the_upgrade() {
    let mut door = Door::new();
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [
        ("traceparent", traceparent),
        ("cookie", "secret"),
        ("x-other", "no"),
    ];
    let mut client = door.client(Protocol::Proto, &headers).await;
    client.send(binary(hello("a.b.c"))).await.unwrap();
    let mut called = door.called().await;
    assert_eq!(called.request.uri(), CONVERSE);
    assert_eq!(called.request.method(), Method::POST);
    let headers = called.request.headers();
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["authorization", "content-type", "te", "traceparent"]
    );
    assert_eq!(headers["authorization"], "Bearer a.b.c");
    assert!(headers["authorization"].is_sensitive());
    assert_eq!(headers["traceparent"], traceparent);
    let peer = called.request.extensions().get::<Peer>().unwrap();
    assert_eq!(peer.addr.unwrap().to_string(), "192.0.2.1:7");
    // The token is in no frame.
    assert_eq!(called.said().await.unwrap(), hello(""));
}

#[tokio::test(start_paused = true)]
async fn a_token_of_the_header_will_do_and_must_not_differ_from_that_of_hello() {
    let mut door = Door::new();
    let header = [("authorization", "Bearer one")];
    for token in ["", "one"] {
        let mut client = door.client(Protocol::Proto, &header).await;
        client.send(binary(hello(token))).await.unwrap();
        let mut called = door.called().await;
        assert_eq!(called.request.headers()["authorization"], "Bearer one");
        assert_eq!(called.said().await.unwrap(), hello(""));
    }
    let too_long = "x".repeat(MAX_TOKEN_BYTES + 1);
    let none: &[(&str, &str)] = &[];
    let basic = [("authorization", "Basic one")];
    let cases = [
        (
            &header[..],
            "two",
            "TOKEN_INVALID: the header and Hello.access_token differ",
        ),
        (
            none,
            "two\nlines",
            "TOKEN_INVALID: Hello.access_token is no token",
        ),
        (
            none,
            &too_long,
            "TOKEN_INVALID: Hello.access_token is no token",
        ),
        (
            &basic,
            "one",
            "TOKEN_INVALID: the authorization header has no bearer token",
        ),
        (
            none,
            "",
            "TOKEN_MISSING: give Hello.access_token or an authorization header",
        ),
    ];
    for (headers, token, reason) in cases {
        let mut client = door.client(Protocol::Proto, headers).await;
        client.send(binary(hello(token))).await.unwrap();
        assert_eq!(closed(&mut client).await, (4401, reason.to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_becomes_a_close_code_behind_what_was_said_before() {
    let cases = [
        (Status::ok(""), 1000),
        (refusal(Reason::ShuttingDown), 1001),
        (Refusal::field("frame", "is wrong").into_status(), 1007),
        (refusal(Reason::UnknownFrame), 1008),
        (refusal(Reason::Internal), 1011),
        (refusal(Reason::TooManySessions), 1013),
        (refusal(Reason::TokenExpired), 4401),
        (refusal(Reason::PresenceNotVisible), 4403),
        (refusal(Reason::HelloTimeout), 4408),
        (refusal(Reason::Superseded), 4409),
        (refusal(Reason::HistoryChanged), 4412),
        (refusal(Reason::RateLimited), 4429),
    ];
    for (status, code) in cases {
        let mut door = Door::new();
        let (mut client, called) = door.session().await;
        called.answer(&pong(7)).await;
        called.end(status.clone()).await;
        assert_eq!(heard(&mut client).await, pong(7));
        assert_eq!(closed(&mut client).await.0, code, "{status:?}");
        let series = format!("duologue_websocket_closes_total{{code=\"{code}\"}}");
        assert_eq!(door.number(&series), Some(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_without_a_response_is_a_close_code_too() {
    let door = Door::answering(|| refusal(Reason::TokenInvalid).into_http());
    let mut client = door.client(Protocol::Proto, &[]).await;
    client.send(binary(hello("t"))).await.unwrap();
    let reason = "TOKEN_INVALID: the token is not accepted".to_owned();
    assert_eq!(closed(&mut client).await, (4401, reason));
    let door = Door::answering(|| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    });
    let mut client = door.client(Protocol::Proto, &[]).await;
    client.send(binary(hello("t"))).await.unwrap();
    assert_eq!(closed(&mut client).await.0, 1013);
}

#[tokio::test(start_paused = true)]
async fn a_response_that_breaks_off_is_never_a_success() {
    let mut door = Door::new();
    // No trailers; half a message before an OK; bytes that are not gRPC's.
    let (mut client, called) = door.session().await;
    drop(called.down);
    assert_eq!(closed(&mut client).await.0, 1011);
    let (mut client, called) = door.session().await;
    called.chunk(Bytes::from_static(&[0, 0, 0])).await;
    called.end(Status::ok("")).await;
    assert_eq!(closed(&mut client).await.0, 1011);
    let (mut client, called) = door.session().await;
    called.chunk(Bytes::from_static(&[1, 0, 0, 0, 0])).await;
    assert_eq!(closed(&mut client).await.0, 1011);
    let (mut client, called) = door.session().await;
    let failed = Status::unavailable("reset");
    called.down.send(Err(failed)).await.unwrap();
    assert_eq!(closed(&mut client).await.0, 1013);
}

#[tokio::test(start_paused = true)]
async fn a_response_that_cannot_be_written_in_json_is_a_fault_of_the_server() {
    let mut door = Door::new();
    let mut client = door.client(Protocol::Json, &[]).await;
    client
        .send(text(r#"{"hello":{"accessToken":"t"}}"#))
        .await
        .unwrap();
    let called = door.called().await;
    called
        .chunk(Bytes::from_static(&[0, 0, 0, 0, 1, 0xFF]))
        .await;
    assert_eq!(closed(&mut client).await.0, 1011);
}

#[tokio::test(start_paused = true)]
async fn what_a_client_must_not_say_closes_with_its_code() {
    let proto = |frame: Vec<u8>| (Protocol::Proto, frame);
    let json = |frame: Vec<u8>| (Protocol::Json, frame);
    let mut unmasked = frame(0x82, b"");
    unmasked[1] = 0;
    let ping = frame_up(1, Up::Ping(Ping {})).encode_to_vec();
    let cases = [
        (proto(unmasked), 1002, "a frame is not masked"),
        (proto(frame(0x80, b"")), 1002, "nothing is to be continued"),
        (
            proto(frame(0x81, b"{}")),
            1003,
            "duologue.v1.json carries text messages, duologue.v1.proto binary ones",
        ),
        (
            json(frame(0x82, b"{}")),
            1003,
            "duologue.v1.json carries text messages, duologue.v1.proto binary ones",
        ),
        (
            proto(frame(0x82, &[0xFF])),
            1007,
            "INVALID_FIELD: the first message is not a ConverseRequest in protobuf",
        ),
        (
            json(frame(0x81, &[0xFF])),
            1007,
            "INVALID_FIELD: a text is not UTF-8",
        ),
        (
            json(frame(0x81, b"{\"hello\":")),
            1007,
            "INVALID_FIELD: is not JSON, at line 1, column 9",
        ),
        (
            proto(frame(0x82, &ping)),
            1008,
            "FIRST_FRAME_NOT_HELLO: the first frame must be Hello",
        ),
        (
            // The header says it, and no more is read.
            proto(vec![0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0]),
            1009,
            "INVALID_FIELD: a message is longer than 65536 bytes",
        ),
        (json(frame(0x88, &[3, 232])), 1000, "nothing was said"),
    ];
    for ((protocol, bytes), code, reason) in cases {
        let door = Door::new();
        let mut raw = door.raw(protocol, &[]);
        raw.write_all(&bytes).await.unwrap();
        let (said, told) = raw_close(&mut raw).await;
        assert_eq!((said, told.as_str()), (code, reason));
        drop(raw);
    }
}

/// The close frame, which is the first that comes.
async fn raw_close(raw: &mut tokio::io::DuplexStream) -> (u16, String) {
    assert_eq!(raw.read_u8().await.unwrap(), 0x88);
    let mut payload = vec![0; raw.read_u8().await.unwrap().into()];
    raw.read_exact(&mut payload).await.unwrap();
    let reason = String::from_utf8(payload.split_off(2)).unwrap();
    (u16::from_be_bytes([payload[0], payload[1]]), reason)
}

#[tokio::test(start_paused = true)]
async fn malformed_frames_after_the_first_end_the_session() {
    let mut door = Door::new();
    let (mut client, mut called) = door.session().await;
    client.send(text("{}")).await.unwrap();
    assert_eq!(closed(&mut client).await.0, 1003);
    // As if the connection had broken: not the client's own end.
    assert_eq!(called.broke_off().await.code(), Code::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_closes_gets_what_is_in_flight_and_then_the_close() {
    let mut door = Door::new();
    let (mut raw, mut called) = door.raw_session().await;
    raw.write_all(&frame(0x88, &[3, 232])).await.unwrap();
    // Its end is the request's end.
    assert_eq!(called.said().await, None);
    called.answer(&pong(9)).await;
    let mut message = vec![0; 2 + pong(9).encoded_len()];
    raw.read_exact(&mut message).await.unwrap();
    assert_eq!(message[2..], pong(9).encode_to_vec());
    called.end(Status::ok("")).await;
    let (code, reason) = raw_close(&mut raw).await;
    assert_eq!((code, reason.as_str()), (1000, "all is answered"));
    assert_eq!(raw.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_person_sees_these_texts() {
    let mut door = Door::new();
    let mut client = door.client(Protocol::Json, &[]).await;
    let hello = r#"{"ref": 1, "hello": {"clientName": "test", "accessToken": "t"}}"#;
    client.send(text(hello)).await.unwrap();
    let mut called = door.called().await;
    assert_eq!(called.said().await.unwrap(), support::hello(""));
    client.send(text(r#"{"ref":"2","ping":{}}"#)).await.unwrap();
    assert_eq!(called.said().await.unwrap(), frame_up(2, Up::Ping(Ping {})));
    called.answer(&pong(2)).await;
    match client.next().await.unwrap().unwrap() {
        Message::Text(text) => assert_eq!(text.as_str(), r#"{"ref":"2","pong":{}}"#),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn messages_pass_however_they_are_cut() {
    let mut door = Door::new();
    let (mut client, called) = door.session().await;
    let mut bytes = BytesMut::new();
    for number in 0..100 {
        proto::write(&pong(number).encode_to_vec(), &mut bytes);
    }
    let (mut bytes, down) = (bytes.freeze(), called.down.clone());
    task::spawn("answers", async move {
        let mut sizes = (1..30).cycle();
        while let Some(size) = sizes.next().filter(|_| !bytes.is_empty()) {
            let chunk = bytes.split_to(size.min(bytes.len()));
            down.send(Ok(Frame::data(chunk))).await.unwrap();
        }
    });
    for number in 0..100 {
        assert_eq!(heard(&mut client).await, pong(number));
    }
}

#[tokio::test]
async fn no_log_holds_a_token_or_a_text() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .finish();
    let watch = duologue_runtime::telemetry::watch(subscriber);
    let mut door = Door::new();
    let mut client = door.client(Protocol::Json, &[]).await;
    let hello = r#"{"hello":{"accessToken":"SECRET-token"}}"#;
    client.send(text(hello)).await.unwrap();
    door.called().await;
    let wrong = r#"{"sendMessage":{"peer":"bob","body":{"txet":"SECRET-text"}},"SECRET":1}"#;
    client.send(text(wrong)).await.unwrap();
    assert_eq!(closed(&mut client).await.0, 1007);
    drop(watch);
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("a WebSocket is closed"), "{log}");
    assert!(!log.contains("SECRET"), "{log}");
}
