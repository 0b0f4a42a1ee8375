//! Two chat nodes over one history and one directory, connected by the relay: neither
//! their users nor their devices can tell.

mod cluster;
#[cfg(feature = "faults")]
mod mutants;
mod rules;

use duologue_proto::chat::v1::converse_response::Frame;
use duologue_proto::chat::v1::{Availability, GoodbyeReason};
use duologue_runtime::refusal::Reason;

use self::cluster::{Cluster, Running};
use crate::support::Session;
use crate::support::calls::{history, sent, seqs};
use crate::support::frames::{advance, device, hello, ping, send};
use crate::support::refused::assert_refused;

async fn online(node: &Running, user: &str) -> Session {
    Session::caught_up(&node.chat(user).await, hello()).await.0
}

#[tokio::test]
async fn users_on_two_nodes_talk_as_if_they_were_on_one() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.start("one").await, cluster.start("two").await);
    let mut alice = online(&one, "alice").await;
    let mut bob = online(&two, "bob").await;
    assert_eq!(
        (alice.welcome.node_id.as_str(), bob.welcome.node_id.as_str()),
        ("one", "two")
    );
    assert_eq!(alice.welcome.history_id, bob.welcome.history_id);
    for number in 1..=20_u64 {
        let (speaker, listener, peer) = match number % 2 {
            0 => (&mut bob, &mut alice, "alice"),
            _ => (&mut alice, &mut bob, "bob"),
        };
        let stored = speaker
            .ask(number, send(peer, &format!("m{number}"), "hi"))
            .await;
        assert!(matches!(stored, Frame::Stored(stored) if stored.seq == number));
        // Its own first message may be shown to the speaker too.
        let shown =
            |frame| crate::support::session::delivered(frame).filter(|one| one.seq == number);
        listener.until(shown).await;
    }
    let kept = history(&mut one.chat("bob").await, "alice").await;
    assert_eq!(seqs(&kept), (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn every_session_of_both_on_every_node_is_told_of_a_unary_send() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.start("one").await, cluster.start("two").await);
    let mut sessions = Vec::new();
    for node in [&one, &two] {
        for user in ["alice", "bob"] {
            sessions.push(online(node, user).await);
        }
    }
    assert_eq!(
        sent(&mut two.chat("alice").await, "bob", "m", "hi").await,
        1
    );
    for session in &mut sessions {
        assert_eq!(seqs(&session.messages(1).await), [1]);
    }
}

#[tokio::test]
async fn receipts_reach_the_other_node() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.start("one").await, cluster.start("two").await);
    sent(&mut one.chat("alice").await, "bob", "m", "hi").await;
    let mut alice = online(&one, "alice").await;
    let bob = online(&two, "bob").await;
    bob.say(1, advance("alice", Some(1), Some(1))).await;
    let receipt = |frame| match frame {
        Frame::ReceiptAdvanced(receipt) => receipt.cursor,
        _ => None,
    };
    let cursor = alice.until(receipt).await;
    assert_eq!((cursor.delivered, cursor.read), (1, 1));
}

#[tokio::test]
async fn a_device_that_moves_to_another_node_supersedes_its_session_on_the_first() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.start("one").await, cluster.start("two").await);
    let (mut old, ..) = Session::caught_up(&one.chat("alice").await, device("phone", 1)).await;
    let (mut new, ..) = Session::caught_up(&two.chat("alice").await, device("phone", 2)).await;
    let end = old.end().await;
    assert_eq!(end.goodbye().reason(), GoodbyeReason::Superseded);
    assert_refused(end.status(), Reason::Superseded);
    new.ask(1, ping()).await;
    // And cannot come back with the number that it had.
    let late = crate::support::frames::device("phone", 1);
    let hello = duologue_proto::chat::v1::converse_request::Frame::Hello(late);
    let end = Session::end_of(&one.chat("alice").await, hello).await;
    assert_eq!(end.goodbye().reason(), GoodbyeReason::Superseded);
    sent(&mut one.chat("bob").await, "alice", "m", "hi").await;
    assert_eq!(seqs(&new.messages(1).await), [1]);
}

#[tokio::test]
async fn presence_is_seen_across_nodes() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.start("one").await, cluster.start("two").await);
    let mut alice = online(&one, "alice").await;
    let mut bob = online(&two, "bob").await;
    let changed = |frame| match frame {
        Frame::PresenceChanged(changed) => changed.presence,
        _ => None,
    };
    let presence = alice.until(changed).await;
    assert_eq!(
        (presence.user.as_str(), presence.availability()),
        ("bob", Availability::Online)
    );
    bob.finish();
    bob.end().await;
    let presence = alice.until(changed).await;
    assert_eq!(presence.availability(), Availability::Offline);
}
