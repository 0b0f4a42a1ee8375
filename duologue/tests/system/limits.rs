//! Rates and caps: refusals that say how long to wait.

use std::time::Duration;

use duologue_proto::chat::v1::converse_response::Frame;
use duologue_proto::chat::v1::{DeferredReason, ListConversationsRequest, SendMessageRequest};
use duologue_runtime::refusal::Reason;
use tonic::Status;

use crate::support::calls::send;
use crate::support::frames::{self, hello};
use crate::support::refused::{assert_refused, retry_after};
use crate::support::{Chat, Server, Session};

fn assert_rate_limited(status: &Status) {
    assert_refused(status, Reason::RateLimited);
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    assert!(retry_after(status) > Duration::ZERO);
}

async fn converse(chat: &Chat) -> Result<(), Status> {
    let mut chat = chat.clone();
    chat.converse(tokio_stream::pending()).await.map(|_| ())
}

#[tokio::test]
async fn sends_above_the_rate_are_refused_but_a_retry_of_what_is_stored_is_answered() {
    let server = Server::start(&["--sends", "1/2"]).await;
    let mut alice = server.chat("alice").await;
    let mut refused = None;
    for number in 0..20 {
        let request = SendMessageRequest {
            after_seq: None,
            ..send("bob", &format!("m{number}"), "hi")
        };
        if let Err(status) = alice.send_message(request).await {
            refused = Some(status);
            break;
        }
    }
    assert_rate_limited(&refused.expect("nothing was refused"));
    let again = alice.send_message(send("bob", "m0", "hi")).await.unwrap();
    assert!(again.get_ref().duplicate);
    // Another user has a rate of their own.
    let mut bob = server.chat("bob").await;
    bob.send_message(send("carol", "m", "hi")).await.unwrap();
}

#[tokio::test]
async fn sends_of_a_stream_above_the_rate_are_deferred_with_a_time_to_wait() {
    let server = Server::start(&["--sends", "1/2"]).await;
    let (mut alice, ..) = Session::caught_up(&server.chat("alice").await, hello()).await;
    let deferred = async {
        for number in 1..=20 {
            let frame = frames::send_after("bob", &format!("m{number}"), "hi", 0);
            match alice.ask(number, frame).await {
                Frame::Deferred(deferred) => return deferred,
                Frame::Stored(_) => {}
                other => panic!("{other:?}"),
            }
        }
        panic!("nothing was deferred")
    };
    let deferred = deferred.await;
    assert_eq!(deferred.reason(), DeferredReason::RateLimited);
    assert!(deferred.retry_after.is_some());
}

#[tokio::test]
async fn calls_above_the_rate_are_refused() {
    let server = Server::start(&["--calls", "1/3"]).await;
    let mut alice = server.chat("alice").await;
    let mut refused = None;
    for _ in 0..20 {
        let list = ListConversationsRequest::default();
        if let Err(status) = alice.list_conversations(list).await {
            refused = Some(status);
            break;
        }
    }
    assert_rate_limited(&refused.expect("nothing was refused"));
}

#[tokio::test]
async fn streams_opened_above_the_rate_are_refused() {
    let server = Server::start(&["--connects", "1/2"]).await;
    let alice = server.chat("alice").await;
    let mut refused = None;
    for _ in 0..20 {
        if let Err(status) = converse(&alice).await {
            refused = Some(status);
            break;
        }
    }
    assert_rate_limited(&refused.expect("nothing was refused"));
    converse(&server.chat("bob").await).await.unwrap();
}

#[tokio::test]
async fn a_user_has_so_many_sessions_and_a_place_is_free_when_one_ends() {
    let server = Server::start(&["--sessions-per-user", "2"]).await;
    let alice = server.chat("alice").await;
    let (mut one, ..) = Session::caught_up(&alice, hello()).await;
    let (_two, ..) = Session::caught_up(&alice, hello()).await;
    let status = converse(&alice).await.unwrap_err();
    assert_refused(&status, Reason::TooManySessions);
    assert!(status.message().contains('2'), "{status:?}");
    Session::caught_up(&server.chat("bob").await, hello()).await;
    one.finish();
    one.end().await;
    // The end of the stream is seen a moment before its place is free.
    let free = async { while converse(&alice).await.is_err() {} };
    crate::support::soon(free).await;
}

#[tokio::test]
async fn an_address_has_so_many_sessions() {
    let server = Server::start(&["--sessions-per-address", "1"]).await;
    let (_one, ..) = Session::caught_up(&server.chat("alice").await, hello()).await;
    let status = converse(&server.chat("bob").await).await.unwrap_err();
    assert_refused(&status, Reason::TooManySessions);
}

#[tokio::test]
async fn a_connection_has_100_calls_at_most_and_others_wait() {
    let server = Server::start(&["--connects", "1000/1000", "--sessions-per-user", "1000"]).await;
    let alice = server.chat("alice").await;
    let mut sessions = Vec::new();
    for _ in 0..100 {
        sessions.push(Session::open(&alice, hello()).await);
    }
    let mut waiting = std::pin::pin!(Session::open(&alice, hello()));
    // Another connection is not held up.
    let elsewhere = server.chat("alice").await;
    let ready = tokio::select! {
        biased;
        _ = &mut waiting => true,
        _ = Session::open(&elsewhere, hello()) => false,
    };
    assert!(!ready);
    sessions.pop();
    waiting.await;
}
