//! Messages and cursors by unary calls.

use duologue_proto::chat::v1::SendMessageRequest;
use duologue_runtime::refusal::Reason;

use crate::support::calls::{advance, history, send, sent_many, seqs};
use crate::support::refused::{assert_refused, metadata};
use crate::support::{Chat, Server};

fn after(seq: u64, id: &str) -> SendMessageRequest {
    SendMessageRequest {
        after_seq: Some(seq),
        ..send("bob", id, "hi")
    }
}

#[tokio::test]
async fn a_retry_is_answered_with_the_original_and_says_so() {
    let server = Server::start(&[]).await;
    let mut alice = server.chat("alice").await;
    let first = alice
        .send_message(send("bob", "m", "hi"))
        .await
        .unwrap()
        .into_inner();
    let again = alice
        .send_message(send("bob", "m", "hi"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((first.seq, first.duplicate), (1, false));
    assert_eq!((again.seq, again.duplicate), (1, true));
    assert_eq!(
        (&again.message_id, &again.accepted_at),
        (&first.message_id, &first.accepted_at)
    );
    assert_eq!(seqs(&history(&mut alice, "bob").await), [1]);
}

#[tokio::test]
async fn another_text_under_the_same_id_already_exists() {
    let server = Server::start(&[]).await;
    let mut alice = server.chat("alice").await;
    alice.send_message(send("bob", "m", "hi")).await.unwrap();
    let status = alice
        .send_message(send("bob", "m", "hello"))
        .await
        .unwrap_err();
    assert_refused(&status, Reason::MessageIdReused);
    assert_eq!(status.code(), tonic::Code::AlreadyExists);
}

#[tokio::test]
async fn an_after_seq_above_the_head_is_refused_with_the_head() {
    let server = Server::start(&[]).await;
    let mut alice = server.chat("alice").await;
    sent_many(&mut alice, "bob", 3).await;
    for seq in [4, u64::MAX] {
        let status = alice.send_message(after(seq, "n")).await.unwrap_err();
        assert_refused(&status, Reason::AfterSeqAhead);
        assert_eq!(metadata(&status)["head"], "3");
    }
    assert_eq!(
        alice
            .send_message(after(3, "n"))
            .await
            .unwrap()
            .get_ref()
            .seq,
        4
    );
}

#[tokio::test]
async fn an_after_seq_with_more_than_256_messages_behind_it_is_out_of_range() {
    let server = Server::start(&[]).await;
    let mut alice = server.chat("alice").await;
    sent_many(&mut alice, "bob", 256).await;
    // 256 may be searched.
    assert_eq!(
        alice
            .send_message(after(0, "n"))
            .await
            .unwrap()
            .get_ref()
            .seq,
        257
    );
    let status = alice.send_message(after(0, "o")).await.unwrap_err();
    assert_refused(&status, Reason::AfterSeqTooOld);
    assert_eq!(metadata(&status)["head"], "257");
    assert_eq!(status.code(), tonic::Code::OutOfRange);
    assert_eq!(
        alice
            .send_message(after(1, "o"))
            .await
            .unwrap()
            .get_ref()
            .seq,
        258
    );
}

#[tokio::test]
async fn a_send_that_names_neither_id_nor_after_seq_is_a_new_message_each_time() {
    let server = Server::start(&[]).await;
    let mut alice = server.chat("alice").await;
    let request = SendMessageRequest {
        message_id: None,
        after_seq: None,
        ..send("bob", "", "hi")
    };
    let one = alice
        .send_message(request.clone())
        .await
        .unwrap()
        .into_inner();
    let two = alice.send_message(request).await.unwrap().into_inner();
    assert_eq!((one.seq, two.seq), (1, 2));
    assert!(!one.message_id.is_empty() && one.message_id != two.message_id);
}

#[tokio::test]
async fn many_senders_at_once_share_one_gapless_order() {
    let server = Server::start(&[]).await;
    let say = |mut chat: Chat, peer: &'static str, name: &'static str| async move {
        let mut seqs = Vec::new();
        for number in 0..50 {
            let request = SendMessageRequest {
                after_seq: None,
                ..send(peer, &format!("{name}{number}"), "hi")
            };
            seqs.push(chat.send_message(request).await.unwrap().into_inner().seq);
        }
        assert!(seqs.is_sorted());
        seqs
    };
    let (alice, bob) = (server.chat("alice").await, server.chat("bob").await);
    let (one, two, three) = tokio::join!(
        say(alice.clone(), "bob", "a"),
        say(alice.clone(), "bob", "b"),
        say(bob, "alice", "c"),
    );
    let mut all = [one, two, three].concat();
    all.sort_unstable();
    assert_eq!(all, (1..=150).collect::<Vec<_>>());
    let mut alice = alice;
    assert_eq!(seqs(&history(&mut alice, "bob").await), all);
}

#[tokio::test]
async fn a_cursor_above_the_head_is_refused_with_the_head() {
    let server = Server::start(&[]).await;
    let mut bob = server.chat("bob").await;
    sent_many(&mut server.chat("alice").await, "bob", 2).await;
    for request in [
        advance("alice", Some(3), None),
        advance("alice", None, Some(u64::MAX)),
    ] {
        let status = bob.advance_cursor(request).await.unwrap_err();
        assert_refused(&status, Reason::CursorAboveHead);
        assert_eq!(metadata(&status)["head"], "2");
    }
    let stranger = bob
        .advance_cursor(advance("carol", Some(1), None))
        .await
        .unwrap_err();
    assert_eq!(metadata(&stranger)["head"], "0");
}

#[tokio::test]
async fn a_cursor_only_moves_forward_and_what_is_read_is_delivered() {
    let server = Server::start(&[]).await;
    let mut bob = server.chat("bob").await;
    sent_many(&mut server.chat("alice").await, "bob", 3).await;
    let mut stored = Vec::new();
    for (delivered, read) in [
        (Some(1), None),
        (None, Some(2)),
        (Some(0), Some(0)),
        (Some(3), None),
    ] {
        let request = advance("alice", delivered, read);
        let now = bob.advance_cursor(request).await.unwrap().into_inner();
        stored.push((now.delivered, now.read));
    }
    assert_eq!(stored, [(1, 0), (2, 2), (2, 2), (3, 2)]);
}
