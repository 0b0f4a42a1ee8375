//! Two people talking, with any number of devices.

use std::collections::BTreeMap;

use duologue_proto::chat::v1::converse_response::Frame;
use duologue_proto::chat::v1::{Conversation, Hello, ListConversationsRequest};

use crate::support::calls::{advance, history, sent, sent_many, seqs, text_of};
use crate::support::frames::{hello, ping, position, send};
use crate::support::session::delivered;
use crate::support::{Chat, Server, Session, Watch};

async fn online(server: &Server, user: &str) -> Session {
    Session::caught_up(&server.chat(user).await, hello())
        .await
        .0
}

async fn conversations(chat: &mut Chat) -> Vec<Conversation> {
    let page = chat
        .list_conversations(ListConversationsRequest::default())
        .await;
    page.unwrap().into_inner().conversations
}

#[tokio::test]
async fn every_device_of_both_is_shown_every_message_once_and_in_one_order() {
    let server = Server::start(&[]).await;
    let mut phone = online(&server, "alice").await;
    let mut laptop = online(&server, "alice").await;
    let mut bob = online(&server, "bob").await;
    for number in 0..20_u64 {
        phone
            .say(1, send("bob", &format!("p{number}"), "from the phone"))
            .await;
        bob.say(1, send("alice", &format!("b{number}"), "from bob"))
            .await;
        laptop
            .say(1, send("bob", &format!("l{number}"), "from the laptop"))
            .await;
    }
    let mut orders = Vec::new();
    for session in [&mut phone, &mut laptop, &mut bob] {
        orders.push(order(session, 60).await);
    }
    assert_eq!(orders[0], orders[1]);
    assert_eq!(orders[1], orders[2]);
}

/// So many messages as one device has them, by their place: its own as stored, and
/// all that it is shown, which must come in order and each once.
async fn order(session: &mut Session, count: usize) -> BTreeMap<u64, String> {
    let mut order = BTreeMap::new();
    let mut shown = 0;
    while order.len() < count {
        let next = |frame| match frame {
            Frame::Stored(stored) => Some((false, stored.seq, stored.message_id)),
            other => delivered(other).map(|one| (true, one.seq, one.message_id)),
        };
        let (is_shown, seq, id) = session.until(next).await;
        if is_shown {
            assert!(seq > shown, "{seq} after {shown}");
            shown = seq;
        }
        assert_eq!(order.entry(seq).or_insert_with(|| id.clone()), &id);
    }
    assert!(order.keys().copied().eq(1..=count as u64));
    order
}

#[tokio::test]
async fn own_sends_reach_the_other_devices_but_not_the_one_that_sent() {
    let server = Server::start(&[]).await;
    let mut phone = online(&server, "alice").await;
    let mut laptop = online(&server, "alice").await;
    phone.ask(1, send("bob", "m", "hi")).await;
    let shown = laptop.messages(1).await.remove(0);
    assert_eq!(
        (shown.sender.as_str(), shown.recipient.as_str()),
        ("alice", "bob")
    );
    assert_eq!((shown.seq, shown.message_id.as_str()), (1, "m"));
    phone.finish();
    let rest = phone.end().await;
    assert!(rest.status.is_ok());
    let shown = rest
        .frames
        .into_iter()
        .filter_map(|frame| frame.frame.and_then(delivered));
    assert_eq!(shown.count(), 0);
}

#[tokio::test]
async fn a_unary_send_reaches_every_session_of_both_the_sending_device_included() {
    let server = Server::start(&[]).await;
    let mut chat = server.chat("alice").await;
    let mut watch = Watch::open(&chat, hello()).await;
    watch.caught_up().await;
    let mut laptop = online(&server, "alice").await;
    let mut bob = online(&server, "bob").await;
    let seq = sent(&mut chat, "bob", "m", "hi").await;
    for shown in [
        watch.message().await,
        laptop.messages(1).await.remove(0),
        bob.messages(1).await.remove(0),
    ] {
        assert_eq!((shown.seq, shown.message_id.as_str()), (seq, "m"));
        assert_eq!(text_of(&shown), "hi");
        assert!(shown.counts_unread);
    }
}

#[tokio::test]
async fn nobody_else_learns_of_a_conversation() {
    let server = Server::start(&[]).await;
    let mut mallory = online(&server, "mallory").await;
    let mut alice = server.chat("alice").await;
    sent(&mut alice, "bob", "m", "private").await;
    server
        .chat("bob")
        .await
        .advance_cursor(advance("alice", Some(1), Some(1)))
        .await
        .unwrap();
    // Everything that was announced to mallory would come before the pong.
    mallory.say(7, ping()).await;
    loop {
        let heard = mallory.hear().await;
        if heard.r#ref == 7 {
            break;
        }
        let frame = heard.frame.unwrap();
        assert!(matches!(frame, Frame::PresenceChanged(_)), "{frame:?}");
    }
    let mut mallory = server.chat("mallory").await;
    assert!(conversations(&mut mallory).await.is_empty());
    for peer in ["alice", "bob"] {
        assert!(history(&mut mallory, peer).await.is_empty());
    }
}

#[tokio::test]
async fn conversations_are_listed_by_recency_with_last_message_unread_and_cursors() {
    let server = Server::start(&[]).await;
    let (mut alice, mut bob) = (server.chat("alice").await, server.chat("bob").await);
    sent_many(&mut alice, "bob", 3).await;
    sent(&mut bob, "alice", "r1", "reply").await;
    sent(&mut alice, "bob", "m4", "more").await;
    sent(&mut server.chat("carol").await, "bob", "c", "hello").await;
    bob.advance_cursor(advance("alice", Some(4), Some(2)))
        .await
        .unwrap();
    alice
        .advance_cursor(advance("bob", Some(5), Some(5)))
        .await
        .unwrap();

    let listed = conversations(&mut bob).await;
    assert_eq!(listed.len(), 2);
    let (first, second) = (&listed[0], &listed[1]);
    assert_eq!(
        (first.peer.as_str(), first.head, first.unread),
        ("carol", 1, 1)
    );
    assert_eq!((second.peer.as_str(), second.head), ("alice", 5));
    // Messages 3 and 5 are alice's; 4 is his own.
    assert_eq!(second.unread, 2);
    assert_eq!(text_of(second.last_message.as_ref().unwrap()), "more");
    let own = second.own_cursor.unwrap();
    assert_eq!((own.delivered, own.read), (4, 2));
    let peer = second.peer_cursor.unwrap();
    assert_eq!((peer.delivered, peer.read), (5, 5));

    let listed = conversations(&mut alice).await;
    assert_eq!((listed[0].peer.as_str(), listed[0].unread), ("bob", 0));
}

#[tokio::test]
async fn notes_to_oneself_are_a_conversation_on_one_side() {
    let server = Server::start(&[]).await;
    let mut phone = online(&server, "alice").await;
    let mut laptop = online(&server, "alice").await;
    phone.ask(1, send("alice", "m1", "milk")).await;
    let shown = laptop.messages(1).await.remove(0);
    assert_eq!(
        (shown.sender.as_str(), shown.recipient.as_str()),
        ("alice", "alice")
    );
    let mut chat = server.chat("alice").await;
    assert_eq!(sent(&mut chat, "alice", "m2", "bread").await, 2);
    // Once, though alice is both of its users.
    assert_eq!(seqs(&laptop.messages(1).await), [2]);
    laptop.ask(2, ping()).await;
    let listed = conversations(&mut chat).await;
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].peer.as_str(), listed[0].head, listed[0].unread),
        ("alice", 2, 0)
    );
    let moved = chat
        .advance_cursor(advance("alice", None, Some(2)))
        .await
        .unwrap();
    assert_eq!(moved.get_ref().read, 2);
    let all = Hello {
        positions: vec![position("alice", 0)],
        ..hello()
    };
    assert_eq!(seqs(&Session::caught_up(&chat, all).await.1), [1, 2]);
}

#[tokio::test]
async fn an_unknown_peer_has_an_empty_conversation() {
    let server = Server::start(&[]).await;
    let mut alice = server.chat("alice").await;
    assert!(history(&mut alice, "nobody").await.is_empty());
    assert!(conversations(&mut alice).await.is_empty());
}

#[tokio::test]
async fn times_never_go_back_within_a_conversation() {
    let server = Server::start(&[]).await;
    let mut alice = server.chat("alice").await;
    sent_many(&mut alice, "bob", 30).await;
    let kept = history(&mut alice, "bob").await;
    let times: Vec<_> = kept.iter().map(|one| one.accepted_at.unwrap()).collect();
    assert!(times.is_sorted_by_key(|time| (time.seconds, time.nanos)));
    assert!(times.iter().all(|time| time.nanos % 1_000_000 == 0));
}
