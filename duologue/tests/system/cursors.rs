//! Cursor moves of a stream: forward only, never above the head, seen by others.

use duologue_proto::chat::v1::converse_request::Frame as Up;
use duologue_proto::chat::v1::converse_response::Frame;
use duologue_proto::chat::v1::{
    AdvanceCursor, Cursor, CursorRejected, CursorRejectedReason, Hello, ReceiptAdvanced,
};

use crate::support::calls::{self, sent_many};
use crate::support::frames::{advance, hello};
use crate::support::{Server, Session};

/// The answers to these moves. Half-closing makes the server write at once.
async fn answers(server: &Server, user: &str, moves: Vec<Up>) -> Vec<Frame> {
    let mut session = Session::open(&server.chat(user).await, hello()).await;
    for (number, frame) in (1..).zip(moves) {
        session.say(number, frame).await;
    }
    session.finish();
    let end = session.end().await;
    assert!(end.status.is_ok(), "{end:?}");
    let mut answers: Vec<_> = end
        .frames
        .into_iter()
        .filter(|frame| frame.r#ref > 0)
        .collect();
    answers.sort_by_key(|frame| frame.r#ref);
    answers
        .into_iter()
        .filter_map(|frame| frame.frame)
        .collect()
}

async fn stored(server: &Server, user: &str, frame: Up) -> Cursor {
    match answers(server, user, vec![frame]).await.as_slice() {
        [Frame::CursorStored(stored)] => stored.cursor.unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn rejected(server: &Server, user: &str, frame: Up) -> CursorRejected {
    match answers(server, user, vec![frame]).await.as_slice() {
        [Frame::CursorRejected(rejected)] => rejected.clone(),
        other => panic!("{other:?}"),
    }
}

fn cursor(delivered: u64, read: u64) -> Cursor {
    Cursor { delivered, read }
}

/// The next receipt.
async fn receipt(session: &mut Session) -> ReceiptAdvanced {
    session
        .until(|frame| match frame {
            Frame::ReceiptAdvanced(receipt) => Some(receipt),
            _ => None,
        })
        .await
}

/// Bob, to whom alice has sent so many messages.
async fn bob(server: &Server, messages: u64) -> Session {
    sent_many(&mut server.chat("alice").await, "bob", messages).await;
    Session::caught_up(&server.chat("bob").await, hello())
        .await
        .0
}

#[tokio::test]
async fn a_cursor_above_the_head_is_rejected_with_the_head() {
    let server = Server::start(&[]).await;
    drop(bob(&server, 2).await);
    for (delivered, read) in [(Some(3), None), (None, Some(3)), (Some(u64::MAX), None)] {
        let above = rejected(&server, "bob", advance("alice", delivered, read)).await;
        assert_eq!(above.reason(), CursorRejectedReason::AboveHead);
        assert_eq!((above.peer.as_str(), above.head), ("alice", Some(2)));
    }
    // A conversation that never was has the head 0.
    let above = rejected(&server, "bob", advance("carol", Some(1), None)).await;
    assert_eq!(
        (above.reason(), above.head),
        (CursorRejectedReason::AboveHead, Some(0))
    );
    assert_eq!(
        stored(&server, "bob", advance("alice", Some(2), None)).await,
        cursor(2, 0)
    );
}

#[tokio::test]
async fn a_cursor_that_moves_back_changes_nothing() {
    let server = Server::start(&[]).await;
    drop(bob(&server, 3).await);
    assert_eq!(
        stored(&server, "bob", advance("alice", None, Some(3))).await,
        cursor(3, 3)
    );
    let back = stored(&server, "bob", advance("alice", Some(1), Some(0))).await;
    assert_eq!(back, cursor(3, 3));
}

#[tokio::test]
async fn moves_that_are_written_together_are_answered_each() {
    let server = Server::start(&[]).await;
    drop(bob(&server, 3).await);
    let moves = (1..=3)
        .map(|seq| advance("alice", Some(seq), None))
        .collect();
    let answers = answers(&server, "bob", moves).await;
    assert_eq!(answers.len(), 3);
    for answer in answers {
        assert!(
            matches!(&answer, Frame::CursorStored(stored) if stored.cursor.unwrap().delivered >= 1),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn a_stream_that_stays_open_is_answered_after_the_next_write() {
    let server = Server::start(&[]).await;
    let mut bob = bob(&server, 1).await;
    match bob.ask(9, advance("alice", Some(1), None)).await {
        Frame::CursorStored(stored) => assert_eq!(stored.cursor, Some(cursor(1, 0))),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_was_read_was_delivered() {
    let server = Server::start(&[]).await;
    drop(bob(&server, 3).await);
    assert_eq!(
        stored(&server, "bob", advance("alice", Some(1), Some(2))).await,
        cursor(2, 2)
    );
}

#[tokio::test]
async fn a_cursor_move_outside_its_rules_is_rejected_and_the_field_named() {
    let server = Server::start(&[]).await;
    drop(bob(&server, 1).await);
    for (frame, field) in [
        (advance("", Some(1), None), "peer"),
        (advance("b b", Some(1), None), "peer"),
        (advance("alice", None, None), "delivered"),
    ] {
        let refused = rejected(&server, "bob", frame).await;
        assert_eq!(refused.reason(), CursorRejectedReason::Invalid);
        assert_eq!(refused.field, field);
    }
}

#[tokio::test]
async fn the_other_side_is_told_at_once_of_what_was_delivered_and_read() {
    let server = Server::start(&[]).await;
    let bob = bob(&server, 2).await;
    let mut alice = Session::caught_up(&server.chat("alice").await, hello())
        .await
        .0;
    bob.say(1, advance("alice", Some(2), None)).await;
    let told = receipt(&mut alice).await;
    assert_eq!((told.peer.as_str(), told.user.as_str()), ("bob", "bob"));
    assert_eq!(told.cursor, Some(cursor(2, 0)));
    bob.say(2, advance("alice", None, Some(1))).await;
    assert_eq!(receipt(&mut alice).await.cursor, Some(cursor(2, 1)));
}

#[tokio::test]
async fn a_user_s_other_devices_are_told_too() {
    let server = Server::start(&[]).await;
    let phone = bob(&server, 2).await;
    let mut laptop = Session::caught_up(&server.chat("bob").await, hello())
        .await
        .0;
    phone.say(1, advance("alice", Some(2), Some(2))).await;
    let told = receipt(&mut laptop).await;
    assert_eq!((told.peer.as_str(), told.user.as_str()), ("alice", "bob"));
    assert_eq!(told.cursor, Some(cursor(2, 2)));
}

#[tokio::test]
async fn an_absent_side_is_told_when_it_is_back() {
    let server = Server::start(&[]).await;
    drop(bob(&server, 2).await);
    let alice = server.chat("alice").await;
    let (_, _, token) = Session::caught_up(&alice, hello()).await;
    stored(&server, "bob", advance("alice", Some(2), Some(1))).await;
    let known = Hello {
        sync_token: token,
        ..hello()
    };
    let mut alice = Session::open(&alice, known).await;
    let told = receipt(&mut alice).await;
    assert_eq!(
        (told.user.as_str(), told.cursor),
        ("bob", Some(cursor(2, 1)))
    );
}

#[tokio::test]
async fn cursors_repeated_in_hello_are_answered_by_both_doors() {
    let server = Server::start(&[]).await;
    drop(bob(&server, 2).await);
    let repeated = |delivered| Hello {
        cursors: vec![AdvanceCursor {
            peer: "alice".into(),
            delivered: Some(delivered),
            read: None,
        }],
        ..hello()
    };
    let chat = server.chat("bob").await;
    let mut session = Session::open(&chat, repeated(1)).await;
    session.finish();
    let end = session.end().await;
    let answer = end.frames.iter().find_map(|frame| match &frame.frame {
        Some(Frame::CursorStored(stored)) => stored.cursor,
        _ => None,
    });
    assert_eq!(answer, Some(cursor(1, 0)));

    let mut watch = crate::support::Watch::open(&chat, repeated(9)).await;
    let refused = watch
        .until(|frame| match frame {
            duologue_proto::chat::v1::subscribe_response::Frame::CursorRejected(rejected) => {
                Some(rejected)
            }
            _ => None,
        })
        .await;
    assert_eq!(refused.reason(), CursorRejectedReason::AboveHead);
}

#[tokio::test]
async fn a_cursor_is_written_when_its_session_ends() {
    let server = Server::start(&[]).await;
    let mut bob = bob(&server, 2).await;
    bob.say(1, advance("alice", Some(2), Some(2))).await;
    bob.finish();
    assert!(bob.end().await.status.is_ok());
    let mut chat = server.chat("bob").await;
    let now = chat
        .advance_cursor(calls::advance("alice", Some(0), None))
        .await
        .unwrap();
    assert_eq!((now.get_ref().delivered, now.get_ref().read), (2, 2));
}
