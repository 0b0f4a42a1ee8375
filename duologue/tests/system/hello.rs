//! How a stream opens, and how it does not.

use duologue_proto::chat::v1::converse_request::Frame as Up;
use duologue_proto::chat::v1::{
    AdvanceCursor, GoodbyeReason, Hello, SubscribeRequest, SubscribeResponse,
};
use duologue_proto::limits;
use duologue_runtime::clock::{Clock as _, SystemClock};
use duologue_runtime::refusal::Reason;
use http::uri::PathAndQuery;
use tokio::time::Instant;
use tonic_prost::ProstCodec;

use crate::support::frames::{self, device, hello, position};
use crate::support::refused::{assert_field, assert_refused};
use crate::support::{Server, Session};

#[tokio::test]
async fn a_welcome_says_who_is_served_and_by_what_rules() {
    let server = Server::start(&["--max-text-bytes", "100", "--node", "n7"]).await;
    let session = Session::open(&server.chat("alice").await, device("phone", 1)).await;
    let welcome = &session.welcome;
    assert_eq!(
        (welcome.user.as_str(), welcome.device_id.as_str()),
        ("alice", "phone")
    );
    assert_eq!(welcome.node_id, "n7");
    assert!(
        server.banner.contains(&welcome.history_id),
        "{}",
        server.banner
    );
    let limits = welcome.limits.unwrap();
    assert_eq!(limits.max_text_bytes, 100);
    assert_eq!(limits.max_frame_bytes, 65_536);
    assert_eq!(limits.max_sends_in_flight, 256);
    assert_eq!(limits.max_positions, 500);
    assert_eq!(limits.max_search, 256);
    assert_eq!(welcome.heartbeat_interval.unwrap().seconds, 25);
    assert!(!welcome.server_version.is_empty());
}

#[tokio::test]
async fn a_client_that_names_no_device_gets_a_fresh_one_each_time() {
    let server = Server::start(&[]).await;
    let chat = server.chat("alice").await;
    let (mut one, ..) = Session::caught_up(&chat, hello()).await;
    let (mut other, ..) = Session::caught_up(&chat, hello()).await;
    assert_ne!(one.welcome.device_id, other.welcome.device_id);
    assert_ne!(one.welcome.session_id, other.welcome.session_id);
    // Neither superseded the other.
    one.ask(1, frames::ping()).await;
    other.ask(1, frames::ping()).await;
}

#[tokio::test]
async fn the_first_frame_must_be_hello() {
    let server = Server::start(&[]).await;
    let chat = server.chat("alice").await;
    let others = [
        frames::ping(),
        frames::send("bob", "m", "hi"),
        frames::abandon("m"),
        frames::advance("bob", Some(1), None),
    ];
    for first in others {
        let end = Session::end_of(&chat, first).await;
        assert_eq!(end.goodbye().reason(), GoodbyeReason::ProtocolError);
        assert_refused(end.status(), Reason::FirstFrameNotHello);
    }
}

#[tokio::test]
async fn a_stream_that_is_closed_before_hello_is_told_so() {
    let server = Server::start(&[]).await;
    let mut session = Session::connect(&server.chat("alice").await).await;
    session.finish();
    let end = session.end().await;
    assert_eq!(end.goodbye().reason(), GoodbyeReason::ProtocolError);
    assert_refused(end.status(), Reason::FirstFrameNotHello);
}

#[tokio::test]
async fn hello_must_come_within_five_seconds() {
    let server = Server::start(&[]).await;
    let chat = server.chat("alice").await;
    let began = Instant::now();
    let end = Session::connect(&chat).await.end().await;
    assert!(began.elapsed() >= limits::HELLO_TIMEOUT);
    assert_eq!(end.goodbye().reason(), GoodbyeReason::Idle);
    assert_refused(end.status(), Reason::HelloTimeout);
}

#[tokio::test]
async fn a_subscriber_that_does_not_say_what_it_wants_is_not_waited_for() {
    let server = Server::start(&[]).await;
    let mut call = tonic::client::Grpc::new(server.channel().await);
    call.ready().await.unwrap();
    let mut request = tonic::Request::new(tokio_stream::pending::<SubscribeRequest>());
    let bearer = format!("Bearer {}", server.token("alice"));
    let bearer = bearer.parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    let path = PathAndQuery::from_static("/duologue.chat.v1.ChatService/Subscribe");
    let codec = ProstCodec::<SubscribeRequest, SubscribeResponse>::default();
    let began = Instant::now();
    let refused = call.streaming(request, path, codec).await.unwrap_err();
    assert!(began.elapsed() >= limits::HELLO_TIMEOUT);
    assert_refused(&refused, Reason::HelloTimeout);
}

#[tokio::test]
async fn hello_may_be_said_only_once() {
    let server = Server::start(&[]).await;
    let mut session = Session::open(&server.chat("alice").await, hello()).await;
    session.say(1, Up::Hello(hello())).await;
    let end = session.end().await;
    assert_eq!(end.goodbye().reason(), GoodbyeReason::ProtocolError);
    assert_field(end.status(), "hello");
}

/// Hellos that break one rule each, and the field that is named.
fn broken() -> Vec<(Hello, &'static str)> {
    let long = |bytes: usize| "x".repeat(bytes);
    let now = SystemClock.now().0;
    let day = 24 * 60 * 60 * 1_000;
    let half = |device: Option<&str>, connect_number| Hello {
        device_id: device.map(str::to_owned),
        connect_number,
        ..hello()
    };
    vec![
        (
            Hello {
                client_name: long(65),
                ..hello()
            },
            "hello.client_name",
        ),
        (
            Hello {
                client_version: long(65),
                ..hello()
            },
            "hello.client_version",
        ),
        (
            Hello {
                features: vec![long(65)],
                ..hello()
            },
            "hello.features",
        ),
        (
            Hello {
                features: vec![String::new(); 17],
                ..hello()
            },
            "hello.features",
        ),
        (
            Hello {
                sync_token: long(513),
                ..hello()
            },
            "hello.sync_token",
        ),
        (
            Hello {
                history_id: "no spaces".into(),
                ..hello()
            },
            "hello.history_id",
        ),
        (
            Hello {
                positions: vec![position("b", 0); 501],
                ..hello()
            },
            "hello.positions",
        ),
        (
            Hello {
                positions: vec![position("b b", 0)],
                ..hello()
            },
            "hello.positions.peer",
        ),
        (
            Hello {
                cursors: vec![AdvanceCursor::default(); 501],
                ..hello()
            },
            "hello.cursors",
        ),
        (
            Hello {
                access_token: "t".into(),
                ..hello()
            },
            "hello.access_token",
        ),
        (half(Some("phone"), None), "hello.connect_number"),
        (half(None, Some(1)), "hello.device_id"),
        (device("", 1), "hello.device_id"),
        (device("a.b", 1), "hello.device_id"),
        (device(&long(65), 1), "hello.device_id"),
        (device("phone", now + 2 * day), "connect_number"),
        (device("phone", u64::MAX), "connect_number"),
    ]
}

#[tokio::test]
async fn a_hello_outside_its_rules_is_refused_by_both_doors_and_the_field_named() {
    let server = Server::start(&["--connects", "1000/1000"]).await;
    let mut chat = server.chat("alice").await;
    for (hello, field) in broken() {
        let end = Session::end_of(&chat, Up::Hello(hello.clone())).await;
        assert_eq!(
            end.goodbye().reason(),
            GoodbyeReason::ProtocolError,
            "{field}"
        );
        assert!(end.goodbye().detail.contains(field), "{end:?}");
        assert_field(end.status(), field);
        if !hello.access_token.is_empty() {
            continue; // This call has no such field.
        }
        let request = crate::support::session::subscribe(hello);
        let refused = match chat.subscribe(request).await {
            Err(status) => status,
            Ok(stream) => first_status(stream.into_inner()).await,
        };
        assert_field(&refused, field.trim_start_matches("hello."));
    }
}

async fn first_status<T>(mut stream: tonic::Streaming<T>) -> tonic::Status {
    loop {
        if let Err(status) = crate::support::soon(stream.message()).await {
            return status;
        }
    }
}

#[tokio::test]
async fn a_hello_at_every_limit_is_welcome() {
    let server = Server::start(&[]).await;
    let now = SystemClock.now().0;
    let most = Hello {
        client_name: "n".repeat(64),
        client_version: "v".repeat(64),
        features: vec!["f".repeat(64); 16],
        positions: (0..500).map(|n| position(&format!("peer{n}"), 0)).collect(),
        cursors: vec![AdvanceCursor::default(); 500],
        ..device(&"d".repeat(64), now + 23 * 60 * 60 * 1_000)
    };
    let (_, shown, token) = Session::caught_up(&server.chat("alice").await, most).await;
    assert!(shown.is_empty());
    assert!(!token.is_empty());
}
