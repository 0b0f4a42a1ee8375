//! SIGTERM: everybody is told, everything under way is answered, then exit.

use duologue_proto::chat::v1::GoodbyeReason;
use std::time::Duration;

use duologue_proto::chat::v1::converse_request::Frame as Up;
use duologue_proto::chat::v1::converse_response::Frame;
use duologue_proto::chat::v1::subscribe_response::Frame as SubscribeFrame;
use duologue_runtime::refusal::Reason;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::support::calls::{history, sent};
use crate::support::frames::{hello, ping, send};
use crate::support::http::get;
use crate::support::refused::assert_refused;
use crate::support::{Server, Session, Watch, soon};

#[tokio::test]
async fn every_session_is_told_with_how_long_to_wait_and_the_process_ends_well() {
    let mut server = Server::start(&[]).await;
    let (mut alice, ..) = Session::caught_up(&server.chat("alice").await, hello()).await;
    let mut bob = Watch::open(&server.chat("bob").await, hello()).await;
    bob.caught_up().await;
    let mut silent = Session::connect(&server.chat("carol").await).await;
    server.signal("TERM").await;
    for end in [alice.end().await, silent.end().await] {
        assert_eq!(end.goodbye().reason(), GoodbyeReason::ShuttingDown);
        assert!(end.goodbye().retry_after.is_some());
        assert_refused(end.status(), Reason::ShuttingDown);
        assert_eq!(end.status().code(), tonic::Code::Unavailable);
    }
    let (frames, status) = bob.end().await;
    assert_refused(&status.unwrap_err(), Reason::ShuttingDown);
    let last = frames.last().and_then(|frame| frame.frame.clone());
    assert!(matches!(last, Some(SubscribeFrame::Goodbye(_))), "{last:?}");
    assert!(server.ended().await.success());
}

#[tokio::test]
async fn sessions_are_sent_away_one_after_the_other_and_served_until_then() {
    let mut server = Server::start(&["--drain-spread", "2s"]).await;
    let mut sessions = JoinSet::new();
    for number in 0..4_u64 {
        let chat = server.chat(&format!("user{number}")).await;
        let mut session = Session::caught_up(&chat, hello()).await.0;
        sessions.spawn(async move {
            // Whoever is still there is served.
            let mut answers = 0;
            while session.is_answered(answers + 1, ping()).await {
                answers += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            (Instant::now(), answers)
        });
    }
    let signalled = Instant::now();
    server.signal("TERM").await;
    let mut ends = Vec::new();
    while let Some(end) = sessions.join_next().await {
        ends.push(end.unwrap());
    }
    ends.sort_unstable();
    let (last, answers) = ends[3];
    assert!(last - signalled >= Duration::from_millis(1_400), "{ends:?}");
    assert!(answers > ends[0].1, "{ends:?}");
    assert!(server.ended().await.success());
}

#[tokio::test]
async fn before_it_drains_it_serves_on_for_the_delay_and_is_not_ready() {
    let mut server = Server::start(&["--drain-delay", "5s"]).await;
    server.signal("TERM").await;
    let leaving = async { while get(server.admin, "/readyz").await.code == 200 {} };
    soon(leaving).await;
    // A balancer that has not noticed sends somebody, who is served.
    let (mut alice, ..) = Session::caught_up(&server.chat("alice").await, hello()).await;
    let stored = alice.ask(1, send("bob", "m", "hi")).await;
    assert!(matches!(stored, Frame::Stored(_)), "{stored:?}");
    alice.end().await.goodbye();
    assert!(server.ended().await.success());
}

#[tokio::test]
async fn appends_under_way_are_answered_and_what_was_answered_is_there_after() {
    let mut server = Server::start(&[]).await;
    let (mut alice, ..) = Session::caught_up(&server.chat("alice").await, hello()).await;
    for number in 1..=100_u64 {
        alice
            .say(number, send("bob", &format!("m{number}"), "hi"))
            .await;
    }
    // At least the first is known to be under way.
    alice.answer(1).await;
    server.signal("TERM").await;
    let end = alice.end().await;
    end.goodbye();
    let stored = end.frames.iter().filter_map(|frame| match &frame.frame {
        Some(Frame::Stored(stored)) => Some(stored.seq),
        _ => None,
    });
    let answered: Vec<_> = [1].into_iter().chain(stored).collect();
    assert!(server.ended().await.success());

    let server = server.place.clone().serve(&[]).await;
    let kept = history(&mut server.chat("bob").await, "alice").await;
    assert!(kept.iter().map(|one| one.seq).eq(answered), "{kept:?}");
}

#[tokio::test]
async fn an_idle_connection_holds_nothing_up() {
    let mut server = Server::start(&[]).await;
    // One that says nothing at all, one whose calls have ended.
    let mut silent = TcpStream::connect(server.grpc).await.unwrap();
    let mut chat = server.chat("alice").await;
    sent(&mut chat, "bob", "m", "hi").await;
    // A stream that nobody but the server ends.
    let mut health = HealthClient::new(server.channel().await);
    let request = HealthCheckRequest {
        service: String::new(),
    };
    let mut watching = health.watch(request).await.unwrap().into_inner();
    soon(watching.message()).await.unwrap();
    server.signal("TERM").await;
    assert!(server.ended().await.success());
    let mut rest = Vec::new();
    // Closed, in whichever way.
    let _ = soon(silent.read_to_end(&mut rest)).await;
}

/// A stream whose goodbye is never read, behind more than the client takes.
async fn stuck(server: &Server) -> Session {
    let chat = server.chat_with_small_window("alice").await;
    let stuck = Session::open(&chat, hello()).await;
    let mut bob = server.chat("bob").await;
    let long = "x".repeat(8_192);
    for number in 0..30 {
        sent(&mut bob, "alice", &format!("m{number}"), &long).await;
    }
    stuck
}

#[tokio::test]
async fn a_client_that_does_not_go_is_cut_off_after_the_grace_period() {
    let mut server = Server::start(&["--grace", "1s"]).await;
    let stuck = stuck(&server).await;
    let began = Instant::now();
    server.signal("TERM").await;
    let status = server.ended().await;
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert!(status.success(), "{status:?} {}", server.place.log());
    drop(stuck);
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once() {
    let mut server = Server::start(&["--grace", "1h"]).await;
    let stuck = stuck(&server).await;
    server.signal("TERM").await;
    let draining = async { while get(server.admin, "/readyz").await.code == 200 {} };
    soon(draining).await;
    server.signal("TERM").await;
    assert_eq!(server.ended().await.code(), Some(130));
    drop(stuck);
}

#[tokio::test]
async fn a_stream_that_opens_while_draining_is_told_at_once() {
    let mut server = Server::start(&[]).await;
    let chat = server.chat("alice").await;
    let (mut first, ..) = Session::caught_up(&chat, hello()).await;
    let mut second = Session::connect(&chat).await;
    server.signal("TERM").await;
    first.end().await.goodbye();
    second.say(0, Up::Hello(hello())).await;
    let end = second.end().await;
    assert_eq!(end.goodbye().reason(), GoodbyeReason::ShuttingDown);
    assert!(server.ended().await.success());
}
