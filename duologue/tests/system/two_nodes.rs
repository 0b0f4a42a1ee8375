//! The seam to many nodes: two chat nodes over one history and one presence,
//! connected by nothing but [`Relay`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use duologue::ports::{LocalHistory, LocalPresence};
use duologue_chat::ports::{Announcement, Presence as _, Relay};
use duologue_chat::{Chat as Node, ChatConfig, Parts, Visibility};
use duologue_history::history::History;
use duologue_history::memory::MemoryStore;
use duologue_presence::Presence;
use duologue_proto::chat::v1::converse_response::Frame;
use duologue_proto::chat::v1::{Availability, GoodbyeReason};
use duologue_proto::ids::{NodeId, UnixMillis, UserId};
use duologue_runtime::auth::{AuthError, Identity, bearer};
use duologue_runtime::clock::{Clock, SystemClock, SystemRandom};
use duologue_runtime::metrics::{BuildInfo, Metrics};
use duologue_runtime::rate::RateLimit;
use duologue_runtime::refusal::Reason;
use duologue_runtime::server::{self, Methods, Stack};
use duologue_runtime::shutdown::Shutdown;
use duologue_runtime::task;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::transport::Endpoint;

use crate::support::calls::{Bearer, client, history, sent, seqs};
use crate::support::frames::{advance, device, hello, ping, send};
use crate::support::refused::assert_refused;
use crate::support::{Chat, Session};

/// What the nodes share.
struct Cluster {
    history: History,
    presence: Presence,
    nodes: Mutex<BTreeMap<NodeId, Node>>,
}

impl Cluster {
    fn new() -> Arc<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = MemoryStore::new(Arc::clone(&clock), &SystemRandom);
        Arc::new(Self {
            history: History::new(Arc::new(store), Arc::clone(&clock)),
            presence: Presence::in_one_process(clock),
            nodes: Mutex::default(),
        })
    }

    /// Starts a node; returns where it listens.
    async fn start(self: &Arc<Self>, name: &str) -> SocketAddr {
        let name = NodeId::parse(name).unwrap();
        let metrics = Metrics::new(BuildInfo::of("test"), UnixMillis(0));
        let parts = Parts {
            history: Arc::new(LocalHistory(self.history.clone())),
            presence: Arc::new(LocalPresence(self.presence.clone())),
            relay: Some(Arc::new(Link {
                from: name.clone(),
                cluster: Arc::clone(self),
            })),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            metrics: metrics.clone(),
        };
        let node = Node::start(config(name.clone()), parts).await.unwrap();
        let routes = Routes::new(node.server());
        self.nodes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name, node);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let methods = Methods::standard().unwrap();
        let shutdown = Shutdown::new(Duration::ZERO);
        let stack = Stack::new(methods, &metrics, Arc::new(identity), shutdown);
        let serve = server::serve(stack, routes, TcpListenerStream::new(listener));
        task::spawn("node", async move { serve.await.unwrap() });
        address
    }

    /// Tells every other node that holds a session of the users concerned.
    async fn carry(&self, from: &NodeId, announcement: Announcement) {
        let to = match &announcement {
            Announcement::Messages(run) => {
                let users: Vec<_> = run[0].conversation().users().cloned().collect();
                self.nodes_of(&users).await
            }
            Announcement::Cursor { user, peer, .. } => {
                self.nodes_of(&[user.clone(), peer.clone()]).await
            }
            Announcement::Superseded(route) => BTreeSet::from([route.node.clone()]),
        };
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        for node in to.iter().filter(|node| *node != from) {
            nodes[node].deliver(&announcement);
        }
    }

    async fn nodes_of(&self, users: &[UserId]) -> BTreeSet<NodeId> {
        let presence = LocalPresence(self.presence.clone());
        let mut nodes = BTreeSet::new();
        for user in users {
            let routes = presence.routes(user).await.unwrap();
            nodes.extend(routes.into_iter().map(|route| route.node));
        }
        nodes
    }
}

/// The way from one node to the others. It looks up routes after it was called:
/// what it carries is durable by then.
struct Link {
    from: NodeId,
    cluster: Arc<Cluster>,
}

impl Relay for Link {
    fn relay(&self, announcement: Announcement) {
        let (from, cluster) = (self.from.clone(), Arc::clone(&self.cluster));
        task::spawn(
            "relay",
            async move { cluster.carry(&from, announcement).await },
        );
    }
}

/// Users say who they are: tokens are another matter.
fn identity(headers: &tonic::codegen::http::HeaderMap) -> Result<Identity, AuthError> {
    let user = UserId::parse(bearer(headers)?).map_err(AuthError::BadSubject)?;
    let expires_at = SystemClock.now().plus(Duration::from_hours(1));
    Ok(Identity { user, expires_at })
}

fn config(node: NodeId) -> ChatConfig {
    let rate = RateLimit {
        per_second: 10_000,
        burst: 10_000,
    };
    ChatConfig {
        node,
        max_text_bytes: 8_192,
        visibility: Visibility::Everyone,
        sends: rate,
        connects: rate,
        sessions_per_user: 32,
        sessions_per_address: 1_000,
    }
}

async fn chat(node: SocketAddr, user: &str) -> Chat {
    let endpoint = Endpoint::from_shared(format!("http://{node}")).unwrap();
    client(endpoint.connect().await.unwrap(), Bearer::new(user))
}

async fn online(node: SocketAddr, user: &str) -> Session {
    Session::caught_up(&chat(node, user).await, hello()).await.0
}

#[tokio::test]
async fn users_on_two_nodes_talk_as_if_they_were_on_one() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.start("one").await, cluster.start("two").await);
    let mut alice = online(one, "alice").await;
    let mut bob = online(two, "bob").await;
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
    let kept = history(&mut chat(one, "bob").await, "alice").await;
    assert_eq!(seqs(&kept), (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn every_session_of_both_on_every_node_is_told_of_a_unary_send() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.start("one").await, cluster.start("two").await);
    let mut sessions = Vec::new();
    for node in [one, two] {
        for user in ["alice", "bob"] {
            sessions.push(online(node, user).await);
        }
    }
    assert_eq!(
        sent(&mut chat(two, "alice").await, "bob", "m", "hi").await,
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
    sent(&mut chat(one, "alice").await, "bob", "m", "hi").await;
    let mut alice = online(one, "alice").await;
    let bob = online(two, "bob").await;
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
    let (mut old, ..) = Session::caught_up(&chat(one, "alice").await, device("phone", 1)).await;
    let (mut new, ..) = Session::caught_up(&chat(two, "alice").await, device("phone", 2)).await;
    let end = old.end().await;
    assert_eq!(end.goodbye().reason(), GoodbyeReason::Superseded);
    assert_refused(end.status(), Reason::Superseded);
    new.ask(1, ping()).await;
    // And cannot come back with the number that it had.
    let late = crate::support::frames::device("phone", 1);
    let hello = duologue_proto::chat::v1::converse_request::Frame::Hello(late);
    let end = Session::end_of(&chat(one, "alice").await, hello).await;
    assert_eq!(end.goodbye().reason(), GoodbyeReason::Superseded);
    sent(&mut chat(one, "bob").await, "alice", "m", "hi").await;
    assert_eq!(seqs(&new.messages(1).await), [1]);
}

#[tokio::test]
async fn presence_is_seen_across_nodes() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.start("one").await, cluster.start("two").await);
    let mut alice = online(one, "alice").await;
    let mut bob = online(two, "bob").await;
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
