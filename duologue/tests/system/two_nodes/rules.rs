//! The rules that only several nodes can break, each with what breaks it: a link that
//! is cut, a lease that is lost, a row that is stale, a writer that dies.

use std::sync::atomic::Ordering;
use std::time::Duration;

use duologue_presence::directory::Directory as _;
use duologue_proto::chat::v1::GoodbyeReason;
use duologue_proto::ids::{NodeId, SessionId};
use duologue_proto::presence::Route;
use duologue_runtime::task;

use super::cluster::{Cluster, Running, Wire};
use super::online;
use crate::support::calls::{sent, seqs};
use crate::support::frames::{device, hello};
use crate::support::session::delivered;
use crate::support::{Session, soon};

/// Long enough for everything that is told at once, or after a new lease; far shorter
/// than the interval at which sessions sync by themselves.
const TOLD: Duration = Duration::from_secs(12);

/// Whether a session is shown this message in time.
async fn is_shown(session: &mut Session, seq: u64) -> bool {
    let shown = session.until(|frame| delivered(frame).filter(|message| message.seq == seq));
    tokio::time::timeout(TOLD, shown).await.is_ok()
}

/// Waits until something holds.
async fn holds(what: impl AsyncFn() -> bool) {
    let held = async {
        while !what().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(held).await;
}

/// Runs a rule on a thread of its own, so that a fault planted there is planted
/// everywhere.
fn on_this_thread(rule: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(rule);
}

#[tokio::test]
async fn a_link_that_is_cut_and_healed_loses_nothing_the_last_message_included() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.start("one").await, cluster.start("two").await);
    let mut bob = online(&two, "bob").await;
    let mut alice = one.chat("alice").await;
    for number in 1..=5 {
        sent(&mut alice, "bob", &format!("before{number}"), "hi").await;
    }
    assert_eq!(seqs(&bob.messages(5).await), (1..=5).collect::<Vec<_>>());
    two.wire.send_replace(Wire::Cut);
    for number in 1..=20 {
        sent(&mut alice, "bob", &format!("cut{number}"), "hi").await;
    }
    two.wire.send_replace(Wire::Whole);
    let shown = bob.messages(20).await;
    assert_eq!(seqs(&shown), (6..=25).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stream_that_died_in_silence_is_replaced_and_loses_nothing() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.start("one").await, cluster.start("two").await);
    let mut bob = online(&two, "bob").await;
    let mut alice = one.chat("alice").await;
    sent(&mut alice, "bob", "m1", "hi").await;
    assert!(is_shown(&mut bob, 1).await);
    two.wire.send_replace(Wire::Silent);
    sent(&mut alice, "bob", "m2", "hi").await;
    two.wire.send_replace(Wire::Whole);
    assert!(is_shown(&mut bob, 2).await, "the last message is lost");
}

#[tokio::test]
async fn a_node_that_could_not_renew_is_told_nothing_and_then_misses_nothing() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.start("one").await, cluster.start("two").await);
    let mut bob = online(&two, "bob").await;
    let mut alice = one.chat("alice").await;
    let before = cluster.routes("bob").await.remove(0);
    two.gate.renews.store(false, Ordering::SeqCst);
    holds(async || !two.node.is_found()).await;
    sent(&mut alice, "bob", "m", "hi").await;
    // Nobody who is told so believes in the row any longer.
    holds(async || cluster.routes("bob").await.is_empty()).await;
    two.gate.renews.store(true, Ordering::SeqCst);
    assert!(is_shown(&mut bob, 1).await, "bob was dropped");
    let after = cluster.routes("bob").await.remove(0);
    assert_eq!(after.session, before.session);
    assert_ne!(after.incarnation, before.incarnation);
    assert_eq!(after.number.registration, before.number.registration + 1);
    sent(&mut alice, "bob", "m2", "hi").await;
    assert!(is_shown(&mut bob, 2).await, "bob is not found any more");
}

/// Its lease was taken away, and its row, before the last message was announced.
#[test]
pub(super) fn sessions_of_a_node_that_lost_its_lease_sync_once_they_are_registered_again() {
    on_this_thread(async {
        let cluster = Cluster::new();
        let (one, two) = (cluster.start("one").await, cluster.start("two").await);
        let mut bob = online(&two, "bob").await;
        lose(&cluster, "two", "bob").await;
        sent(&mut one.chat("alice").await, "bob", "m", "hi").await;
        assert!(is_shown(&mut bob, 1).await, "the last message is lost");
    });
}

/// Takes a node's lease and a user's rows away.
async fn lose(cluster: &Cluster, node: &str, user: &str) {
    let node = NodeId::parse(node).unwrap();
    // A renewal may come in between.
    holds(async || {
        let leases = cluster.directory.leases().await.unwrap();
        let lease = leases.iter().find(|lease| lease.node == node);
        match lease {
            Some(lease) => cluster.directory.forget(lease).await.unwrap(),
            None => true,
        }
    })
    .await;
    for route in cluster.routes(user).await {
        assert!(cluster.directory.remove(&route).await.unwrap());
    }
}

#[tokio::test]
async fn a_session_replaced_while_its_node_had_no_lease_ends_when_it_registers_again() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.start("one").await, cluster.start("two").await);
    let chat = two.chat("alice").await;
    let (mut old, ..) = Session::caught_up(&chat, device("phone", 1)).await;
    lose(&cluster, "two", "alice").await;
    let chat = one.chat("alice").await;
    let (mut new, ..) = Session::caught_up(&chat, device("phone", 2)).await;
    let end = old.end().await;
    assert_eq!(end.goodbye().reason(), GoodbyeReason::Superseded);
    sent(&mut two.chat("bob").await, "alice", "m", "hi").await;
    assert!(is_shown(&mut new, 1).await);
}

#[tokio::test]
async fn a_row_that_its_node_does_not_know_is_removed_and_no_other() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.start("one").await, cluster.start("two").await);
    let mut bob = online(&two, "bob").await;
    let living = cluster.routes("bob").await.remove(0);
    let stale = Route {
        device: "lost".parse().unwrap(),
        session: SessionId::parse("gone").unwrap(),
        ..living.clone()
    };
    cluster.directory.register(&stale).await.unwrap();
    sent(&mut one.chat("alice").await, "bob", "m", "hi").await;
    assert_eq!(seqs(&bob.messages(1).await), [1]);
    holds(async || cluster.routes("bob").await == [living.clone()]).await;
}

#[test]
pub(super) fn whoever_came_since_the_message_before_is_told_of_the_next() {
    on_this_thread(async {
        let cluster = Cluster::new();
        let (one, two) = (cluster.start("one").await, cluster.start("two").await);
        let mut alice = one.chat("alice").await;
        sent(&mut alice, "bob", "m1", "hi").await;
        let mut bob = online(&two, "bob").await;
        sent(&mut alice, "bob", "m2", "hi").await;
        assert!(is_shown(&mut bob, 2).await, "bob was looked up too early");
    });
}

/// The row is in force, and that is not confirmed yet, when a message is relayed.
#[test]
pub(super) fn a_relay_does_not_meet_not_here_for_a_session_that_is_registering() {
    on_this_thread(async {
        let cluster = Cluster::new();
        let (one, two) = (cluster.start("one").await, cluster.start("two").await);
        let mut alice = one.chat("alice").await;
        two.gate.confirms.send_replace(false);
        let chat = two.chat("bob").await;
        let bob = task::spawn(
            "bob",
            async move { Session::caught_up(&chat, hello()).await.0 },
        );
        holds(async || !cluster.routes("bob").await.is_empty()).await;
        let before = one.acknowledged();
        sent(&mut alice, "bob", "m1", "hi").await;
        holds(async || one.acknowledged() > before).await;
        two.gate.confirms.send_replace(true);
        let mut bob = bob.await.unwrap();
        sent(&mut alice, "bob", "m2", "hi").await;
        assert!(is_shown(&mut bob, 2).await, "bob's row was removed");
    });
}

/// It was stored through a node that relayed nothing, and nothing comes after it.
#[test]
pub(super) fn a_retry_relays_what_its_first_writer_did_not() {
    on_this_thread(async {
        let cluster = Cluster::new();
        let (one, two) = (cluster.start("one").await, cluster.start("two").await);
        let dead = cluster.start_mute("dead").await;
        let mut bob = online(&two, "bob").await;
        assert_eq!(sent_once(&dead).await, 1);
        assert_eq!(sent_once(&one).await, 1);
        assert!(is_shown(&mut bob, 1).await, "the message is not relayed");
    });
}

async fn sent_once(node: &Running) -> u64 {
    sent(&mut node.chat("alice").await, "bob", "m", "hi").await
}

#[tokio::test]
async fn a_node_that_drains_leaves_neither_routes_nor_a_lease() {
    let cluster = Cluster::new();
    let (_one, two) = (cluster.start("one").await, cluster.start("two").await);
    let mut bob = online(&two, "bob").await;
    soon(two.node.drain(Duration::ZERO)).await;
    assert_eq!(
        bob.end().await.goodbye().reason(),
        GoodbyeReason::ShuttingDown
    );
    assert_eq!(cluster.routes("bob").await, []);
    let leases = cluster.directory.leases().await.unwrap();
    let nodes: Vec<_> = leases.iter().map(|lease| lease.node.as_str()).collect();
    assert_eq!(nodes, ["one"]);
}
