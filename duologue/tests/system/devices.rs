//! One session per device: the newer one takes over, an older one cannot.

use duologue_proto::chat::v1::converse_request::Frame as Up;
use duologue_proto::chat::v1::subscribe_response::Frame as SubscribeFrame;
use duologue_proto::chat::v1::{Availability, GetPresenceRequest, GoodbyeReason};
use duologue_runtime::refusal::Reason;

use crate::support::frames::{device, hello, ping, send};
use crate::support::refused::assert_refused;
use crate::support::{End, Server, Session, Watch};

fn assert_superseded(end: &End) {
    assert_eq!(end.goodbye().reason(), GoodbyeReason::Superseded);
    assert_refused(end.status(), Reason::Superseded);
    assert_eq!(end.status().code(), tonic::Code::Aborted);
}

#[tokio::test]
async fn a_newer_session_of_a_device_takes_over() {
    let server = Server::start(&[]).await;
    let chat = server.chat("alice").await;
    let (mut old, ..) = Session::caught_up(&chat, device("phone", 1)).await;
    let (mut new, ..) = Session::caught_up(&chat, device("phone", 2)).await;
    assert_superseded(&old.end().await);
    new.ask(1, ping()).await;
    let user = "alice".to_owned();
    let presence = server
        .chat("bob")
        .await
        .get_presence(GetPresenceRequest { user })
        .await;
    let presence = presence.unwrap().into_inner().presence.unwrap();
    assert_eq!(presence.availability(), Availability::Online);
}

#[tokio::test]
async fn the_session_that_took_over_is_told_what_follows() {
    let server = Server::start(&[]).await;
    let chat = server.chat("alice").await;
    let (mut old, ..) = Session::caught_up(&chat, device("phone", 1)).await;
    let (mut new, ..) = Session::caught_up(&chat, device("phone", 2)).await;
    old.end().await;
    let (mut bob, ..) = Session::caught_up(&server.chat("bob").await, hello()).await;
    bob.ask(1, send("alice", "m", "hi")).await;
    assert_eq!(new.messages(1).await[0].seq, 1);
}

#[tokio::test]
async fn a_lower_or_equal_connect_number_is_refused() {
    let server = Server::start(&[]).await;
    let chat = server.chat("alice").await;
    let (mut living, ..) = Session::caught_up(&chat, device("phone", 5)).await;
    for number in [0, 4, 5] {
        let end = Session::end_of(&chat, Up::Hello(device("phone", number))).await;
        assert_superseded(&end);
    }
    living.ask(1, ping()).await;
}

#[tokio::test]
async fn devices_of_the_same_name_of_two_users_have_nothing_to_do_with_each_other() {
    let server = Server::start(&[]).await;
    let (mut alice, ..) = Session::caught_up(&server.chat("alice").await, device("phone", 5)).await;
    let (mut bob, ..) = Session::caught_up(&server.chat("bob").await, device("phone", 9)).await;
    alice.ask(1, ping()).await;
    bob.ask(1, ping()).await;
}

#[tokio::test]
async fn a_device_may_come_back_by_the_other_door() {
    let server = Server::start(&[]).await;
    let chat = server.chat("alice").await;
    let (mut old, ..) = Session::caught_up(&chat, device("phone", 1)).await;
    let mut watch = Watch::open(&chat, device("phone", 2)).await;
    watch.caught_up().await;
    assert_superseded(&old.end().await);
    let (_new, ..) = Session::caught_up(&chat, device("phone", 3)).await;
    let (frames, status) = watch.end().await;
    assert_refused(&status.unwrap_err(), Reason::Superseded);
    match frames.last().and_then(|frame| frame.frame.clone()) {
        Some(SubscribeFrame::Goodbye(goodbye)) => {
            assert_eq!(goodbye.reason(), GoodbyeReason::Superseded);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_session_that_has_ended_cannot_be_brought_back_with_its_number() {
    let server = Server::start(&[]).await;
    let chat = server.chat("alice").await;
    let (mut gone, ..) = Session::caught_up(&chat, device("phone", 5)).await;
    gone.finish();
    assert!(gone.end().await.status.is_ok());
    assert_superseded(&Session::end_of(&chat, Up::Hello(device("phone", 5))).await);
    Session::caught_up(&chat, device("phone", 6)).await;
}

#[tokio::test]
async fn of_many_sessions_of_one_device_at_once_the_highest_number_stays() {
    let server = Server::start(&[]).await;
    let chat = server.chat("alice").await;
    let mut streams = Vec::new();
    // Neither rising nor falling.
    for index in 0..20_u64 {
        let number = (index * 7) % 20 + 1;
        let session = Session::connect(&chat).await;
        session.say(0, Up::Hello(device("phone", number))).await;
        streams.push((number, session));
    }
    for (number, session) in &mut streams {
        if *number < 20 {
            assert_superseded(&session.end().await);
        } else {
            session.ask(1, ping()).await;
        }
    }
}
