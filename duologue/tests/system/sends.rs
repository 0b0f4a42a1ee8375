//! Sends of a stream: what is stored, what is refused for good, what is deferred.

use duologue_proto::chat::v1::converse_request::Frame as Up;
use duologue_proto::chat::v1::converse_response::Frame;
use duologue_proto::chat::v1::{
    Deferred, DeferredReason, GoodbyeReason, Rejected, RejectedReason, SendMessage, Stored,
};
use duologue_runtime::refusal::Reason;

use crate::support::calls::{history, sent_many, seqs, text_of};
use crate::support::frames::{abandon, hello, message, ping, send, send_after};
use crate::support::refused::assert_refused;
use crate::support::{Server, Session};

async fn alice(server: &Server) -> Session {
    Session::caught_up(&server.chat("alice").await, hello())
        .await
        .0
}

async fn stored(session: &mut Session, frame: Up) -> Stored {
    match session.ask(9, frame).await {
        Frame::Stored(stored) => stored,
        other => panic!("{other:?}"),
    }
}

async fn rejected(session: &mut Session, frame: Up) -> Rejected {
    match session.ask(9, frame).await {
        Frame::Rejected(rejected) => rejected,
        other => panic!("{other:?}"),
    }
}

async fn deferred(session: &mut Session, frame: Up) -> Deferred {
    match session.ask(9, frame).await {
        Frame::Deferred(deferred) => deferred,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn text_is_counted_in_bytes_and_may_be_exactly_at_the_limit() {
    let server = Server::start(&[]).await;
    let mut alice = alice(&server).await;
    let (ascii, accents) = ("x".repeat(8_192), "é".repeat(4_096));
    let emoji = "🦀".repeat(2_048);
    for (number, most) in [ascii, accents, emoji].iter().enumerate() {
        let id = format!("m{number}");
        stored(&mut alice, send("bob", &id, most)).await;
        let over = rejected(&mut alice, send("bob", "over", &format!("{most}x"))).await;
        assert_eq!(over.reason(), RejectedReason::TooLong);
        assert_eq!(
            (over.message_id.as_str(), over.peer.as_str()),
            ("over", "bob")
        );
        assert_eq!(over.field, "body.text");
        assert!(
            over.detail.contains("8193") && over.detail.contains("8192"),
            "{over:?}"
        );
    }
    let kept = history(&mut server.chat("bob").await, "alice").await;
    let lengths: Vec<_> = kept.iter().map(|one| text_of(one).len()).collect();
    assert_eq!(lengths, [8_192, 8_192, 8_192]);
}

#[tokio::test]
async fn a_server_may_allow_shorter_texts_only() {
    let server = Server::start(&["--max-text-bytes", "3"]).await;
    let mut alice = alice(&server).await;
    stored(&mut alice, send("bob", "m", "abc")).await;
    let over = rejected(&mut alice, send("bob", "n", "éé")).await;
    assert_eq!(over.reason(), RejectedReason::TooLong);
}

#[tokio::test]
async fn a_send_outside_its_rules_is_rejected_and_the_stream_goes_on() {
    let server = Server::start(&[]).await;
    let mut alice = alice(&server).await;
    let long = "x".repeat(65);
    let body = |body| SendMessage {
        body,
        ..message("bob", "m", "")
    };
    let empty = duologue_proto::chat::v1::Body { kind: None };
    for (said, field) in [
        (message("", "m", "hi"), "peer"),
        (message("b b", "m", "hi"), "peer"),
        (message("bob\u{e9}", "m", "hi"), "peer"),
        (message("bob/carol", "m", "hi"), "peer"),
        (message(&long, "m", "hi"), "peer"),
        (message("bob", "", "hi"), "message_id"),
        (message("bob", "a.b", "hi"), "message_id"),
        (message("bob", &long, "hi"), "message_id"),
        (message("bob", "m", ""), "body.text"),
        (body(None), "body"),
        (body(Some(empty)), "body.kind"),
    ] {
        let refused = rejected(&mut alice, Up::SendMessage(said.clone())).await;
        assert_eq!(refused.reason(), RejectedReason::Invalid, "{said:?}");
        assert_eq!(refused.field, field, "{said:?}");
        assert!(!refused.detail.is_empty());
        assert_eq!(Some(refused.message_id), said.message_id);
    }
    let most = "a-Z_9".repeat(12) + "last";
    let peer = "a.b_c-d@e+F9".to_owned();
    assert_eq!(
        stored(&mut alice, send(&peer, &most, "hi"))
            .await
            .message_id,
        most
    );
}

#[tokio::test]
async fn what_is_echoed_of_an_id_that_is_far_too_long_is_bounded() {
    let server = Server::start(&[]).await;
    let mut alice = alice(&server).await;
    let long = "é".repeat(10_000);
    let refused = rejected(&mut alice, send(&long, &long, "hi")).await;
    assert!(refused.peer.len() <= 128 && refused.message_id.len() <= 128);
    assert!(refused.peer.starts_with('é'));
}

#[tokio::test]
async fn a_retry_is_answered_with_the_original_and_says_so() {
    let server = Server::start(&[]).await;
    let mut alice = alice(&server).await;
    let first = stored(&mut alice, send("bob", "m", "hi")).await;
    stored(&mut alice, send("bob", "n", "there")).await;
    let again = stored(&mut alice, send("bob", "m", "hi")).await;
    assert!(!first.duplicate && again.duplicate);
    assert_eq!((first.seq, again.seq), (1, 1));
    assert_eq!(first.accepted_at, again.accepted_at);
    let kept = history(&mut server.chat("alice").await, "bob").await;
    assert_eq!(seqs(&kept), [1, 2]);
}

#[tokio::test]
async fn another_text_under_the_same_id_is_rejected() {
    let server = Server::start(&[]).await;
    let mut alice = alice(&server).await;
    stored(&mut alice, send("bob", "m", "hi")).await;
    let other = rejected(&mut alice, send("bob", "m", "hello")).await;
    assert_eq!(other.reason(), RejectedReason::MessageIdReused);
    assert_eq!(
        (other.message_id.as_str(), other.field.as_str()),
        ("m", "message_id")
    );
    // The id is the sender's: in bob's hands it is another one.
    let mut bob = Session::caught_up(&server.chat("bob").await, hello())
        .await
        .0;
    assert_eq!(stored(&mut bob, send("alice", "m", "hello")).await.seq, 2);
}

#[tokio::test]
async fn a_send_without_an_id_gets_one_and_a_retry_is_a_new_message() {
    let server = Server::start(&[]).await;
    let mut alice = alice(&server).await;
    let unnamed = SendMessage {
        message_id: None,
        after_seq: None,
        ..message("bob", "", "hi")
    };
    let one = stored(&mut alice, Up::SendMessage(unnamed.clone())).await;
    let two = stored(&mut alice, Up::SendMessage(unnamed)).await;
    assert_eq!((one.seq, two.seq), (1, 2));
    assert_ne!(one.message_id, two.message_id);
}

#[tokio::test]
async fn an_after_seq_above_the_head_is_deferred_with_the_head() {
    let server = Server::start(&[]).await;
    let mut alice = alice(&server).await;
    stored(&mut alice, send("bob", "m", "hi")).await;
    let ahead = deferred(&mut alice, send_after("bob", "n", "hi", 5)).await;
    assert_eq!(ahead.reason(), DeferredReason::AfterSeqAhead);
    assert_eq!(ahead.head, Some(1));
    assert_eq!(
        stored(&mut alice, send_after("bob", "n", "hi", 1))
            .await
            .seq,
        2
    );
}

#[tokio::test]
async fn an_after_seq_too_far_back_is_deferred_with_the_head() {
    let server = Server::start(&[]).await;
    sent_many(&mut server.chat("alice").await, "bob", 257).await;
    let mut alice = alice(&server).await;
    let old = deferred(&mut alice, send_after("bob", "n", "hi", 0)).await;
    assert_eq!(old.reason(), DeferredReason::AfterSeqTooOld);
    assert_eq!(old.head, Some(257));
    assert_eq!(
        stored(&mut alice, send_after("bob", "n", "hi", 1))
            .await
            .seq,
        258
    );
}

#[tokio::test]
async fn what_follows_a_deferred_message_waits_behind_it_so_that_order_is_kept() {
    let server = Server::start(&[]).await;
    let mut alice = alice(&server).await;
    deferred(&mut alice, send_after("bob", "a", "first", 7)).await;
    let behind = deferred(&mut alice, send("bob", "b", "second")).await;
    assert_eq!(behind.reason(), DeferredReason::BehindEarlier);
    // Another conversation is not concerned.
    stored(&mut alice, send("carol", "c", "other")).await;
    stored(&mut alice, send("bob", "a", "first")).await;
    stored(&mut alice, send("bob", "b", "second")).await;
    let kept = history(&mut server.chat("bob").await, "alice").await;
    assert_eq!(
        kept.iter().map(text_of).collect::<Vec<_>>(),
        ["first", "second"]
    );
}

#[tokio::test]
async fn an_abandoned_message_holds_up_nobody() {
    let server = Server::start(&[]).await;
    let mut alice = alice(&server).await;
    deferred(&mut alice, send_after("bob", "a", "first", 7)).await;
    alice.say(0, abandon("a")).await;
    alice.say(0, abandon("unknown")).await;
    stored(&mut alice, send("bob", "b", "second")).await;
    let kept = history(&mut server.chat("bob").await, "alice").await;
    assert_eq!(kept.iter().map(text_of).collect::<Vec<_>>(), ["second"]);
}

#[tokio::test]
async fn a_burst_far_beyond_what_may_be_in_flight_is_stored_in_order() {
    let server = Server::start(&["--sends", "10000/10000"]).await;
    let mut alice = alice(&server).await;
    let ids: Vec<_> = (1..=1_000_u64).map(|number| format!("m{number}")).collect();
    for (number, id) in (1..).zip(&ids) {
        let frame = Up::SendMessage(SendMessage {
            after_seq: None,
            ..message("bob", id, id)
        });
        alice.say(number, frame).await;
    }
    for number in 1..=1_000 {
        match alice.answer(number).await {
            Frame::Stored(stored) => assert_eq!((stored.seq, stored.duplicate), (number, false)),
            other => panic!("{other:?}"),
        }
    }
    alice.ask(2_000, ping()).await;
    let kept = history(&mut server.chat("bob").await, "alice").await;
    assert!(kept.iter().map(text_of).eq(ids.iter().map(String::as_str)));
}

#[tokio::test]
async fn the_same_message_by_several_streams_at_once_is_stored_once() {
    let server = Server::start(&[]).await;
    let mut streams = [
        alice(&server).await,
        alice(&server).await,
        alice(&server).await,
    ];
    for number in 1..=30_u64 {
        let id = format!("m{number}");
        for stream in &streams {
            stream
                .say(number, send_after("bob", &id, "hi", number - 1))
                .await;
        }
        let mut originals = 0;
        for stream in &mut streams {
            match stream.answer(number).await {
                Frame::Stored(stored) => {
                    assert_eq!(stored.seq, number);
                    originals += u64::from(!stored.duplicate);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(originals, 1);
    }
}

#[tokio::test]
async fn what_was_sent_by_a_device_that_vanished_is_stored_and_relayed() {
    let server = Server::start(&[]).await;
    let mut bob = Session::caught_up(&server.chat("bob").await, hello())
        .await
        .0;
    let alice = alice(&server).await;
    for number in 1..=20_u64 {
        alice
            .say(number, send("bob", &format!("m{number}"), "hi"))
            .await;
    }
    // What has left the device by now; the first has for certain.
    let mut alice = alice;
    alice.answer(1).await;
    drop(alice);
    assert_eq!(bob.messages(1).await[0].seq, 1);
    let mut chat = server.chat("alice").await;
    let last = crate::support::calls::sent(&mut chat, "bob", "last", "bye").await;
    let shown = bob.messages(usize::try_from(last).unwrap() - 1).await;
    assert_eq!(shown.last().map(|one| one.seq), Some(last));
}

#[tokio::test]
async fn a_session_keeps_1024_deferred_messages_and_ends_at_more() {
    let server = Server::start(&["--sends", "10000/10000"]).await;
    let mut alice = alice(&server).await;
    deferred(&mut alice, send_after("bob", "first", "hi", 7)).await;
    for number in 1..=1_024_u64 {
        alice
            .say(number, send("bob", &format!("m{number}"), "hi"))
            .await;
    }
    let end = alice.end().await;
    assert_eq!(end.goodbye().reason(), GoodbyeReason::Resync);
    assert_refused(end.status(), Reason::TooManyDeferred);
    let count = end
        .frames
        .iter()
        .filter(|frame| matches!(frame.frame, Some(Frame::Deferred(_))));
    assert_eq!(count.count(), 1_024);
    assert!(
        history(&mut server.chat("bob").await, "alice")
            .await
            .is_empty()
    );
}
