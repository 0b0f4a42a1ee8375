//! Chat nodes whose ports lead to history and presence elsewhere: the same promises
//! as within one process, and what becomes of them when a way between is cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use duologue_chat::ports::{Channel, InvalidAddress, Nodes, Presence as _};
use duologue_chat::remote::{RemoteHistory, RemotePresence, Replica};
use duologue_chat::{Chat as Node, OtherNodes, Parts};
use duologue_history::HistoryServer;
use duologue_history::history::History;
use duologue_history::memory::MemoryStore;
use duologue_history::store::Store;
use duologue_presence::{Presence, PresenceServer};
use duologue_proto::chat::v1::converse_response::Frame;
use duologue_proto::chat::v1::{Availability, DeferredReason, GetPresenceRequest, Stored};
use duologue_proto::ids::{DeviceId, Incarnation, NodeId, SessionId, UnixMillis, UserId};
use duologue_proto::presence::{ConnectNumber, Lease, NodeInfo, Registered, Renewed, Route};
use duologue_proto::{DESCRIPTOR_SET, INTERNAL_DESCRIPTOR_SET};
use duologue_runtime::auth::{AuthError, Identity};
use duologue_runtime::clock::{Clock, Random, SystemClock, SystemRandom};
use duologue_runtime::inner::Credentials;
use duologue_runtime::metrics::{BuildInfo, Metrics};
use duologue_runtime::refusal::Reason;
use duologue_runtime::server::{self, Authenticate, Methods, Stack};
use duologue_runtime::shutdown::Shutdown;
use duologue_runtime::task;
use duologue_runtime::upstream::{
    Addresses, Tcp, Upstream, UpstreamConfig, UpstreamMetrics, UpstreamParts,
};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;

use crate::support::calls::{history, seqs, text_of};
use crate::support::frames::{advance, hello, send, send_after};
use crate::support::link::{Link, Way};
use crate::support::node::{chat_at, config, identity};
use crate::support::refused::assert_refused;
use crate::support::session::delivered;
use crate::support::{Chat, Session, soon};

/// History and presence, and the chat nodes.
struct Cluster {
    store: Arc<dyn Store>,
    /// The ways to the replicas of history, which every node takes.
    histories: Vec<Link>,
    presence: SocketAddr,
}

/// A node and its own way to presence.
struct Started {
    address: SocketAddr,
    _node: Node,
    presence: Link,
}

impl Cluster {
    async fn new(replicas: usize) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::clone(&clock), &SystemRandom));
        let shutdown = Shutdown::new(Duration::ZERO);
        let mut histories = Vec::new();
        for _ in 0..replicas {
            let history = History::new(Arc::clone(&store), Arc::clone(&clock));
            let routes = Routes::new(HistoryServer::over(history, shutdown.clone()));
            histories.push(Link::to(serve_inside(routes).await).await);
        }
        let presence = Presence::in_one_process(clock);
        let routes = Routes::new(PresenceServer::over(presence, shutdown));
        Self {
            store,
            histories,
            presence: serve_inside(routes).await,
        }
    }

    async fn start(&self, name: &str) -> Started {
        let random: Arc<dyn Random> = Arc::new(SystemRandom);
        let histories = self.histories.iter().enumerate();
        let histories = histories.map(|(index, link)| replica(&format!("h{index}"), link.address));
        let presence = Link::to(self.presence).await;
        let name = NodeId::parse(name).unwrap();
        let metrics = metrics();
        let presences = vec![replica("p", presence.address)];
        let remote = Arc::new(RemotePresence::new(presences, Arc::clone(&random)));
        let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let others = OtherNodes {
            nodes: Arc::clone(&remote) as Arc<dyn Nodes>,
            address: relay.local_addr().unwrap().to_string(),
            dial: Arc::new(|address| {
                let addresses = Addresses::at(address).ok_or(InvalidAddress)?;
                Ok(Channel::new(upstream(addresses).channel()))
            }),
        };
        let parts = Parts {
            history: Arc::new(RemoteHistory::new(histories.collect(), &random)),
            presence: remote,
            relay: Some(others),
            clock: Arc::new(SystemClock),
            random,
            metrics: metrics.clone(),
        };
        let node = Node::start(config(name), parts).await.unwrap();
        serve_inside_on(relay, Routes::new(node.relay_server()));
        let methods = Methods::from_descriptor_sets(&[DESCRIPTOR_SET]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Routes::new(node.server());
        serve(listener, routes, methods, &metrics, Arc::new(identity));
        Started {
            address,
            _node: node,
            presence,
        }
    }

    /// Waits until history has a message between two users.
    async fn has_stored(&self, one: &str, other: &str) {
        let user = |name| UserId::parse(name).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let history = History::new(Arc::clone(&self.store), clock);
        let stored = async {
            while !history
                .share_conversation(&user(one), &user(other))
                .await
                .unwrap()
            {
                tokio::task::yield_now().await;
            }
        };
        soon(stored).await;
    }
}

fn metrics() -> Metrics {
    Metrics::new(BuildInfo::of("test"), UnixMillis(0))
}

fn replica(name: &str, address: SocketAddr) -> Replica {
    Replica {
        name: name.to_owned(),
        connection: upstream(Addresses::one(address.into())).channel(),
    }
}

fn upstream(addresses: Addresses) -> Upstream {
    let parts = UpstreamParts {
        credentials: Credentials::none(),
        methods: Arc::new(Methods::inner().unwrap()),
        metrics: UpstreamMetrics::new(&metrics()),
        network: Arc::new(Tcp),
        random: Arc::new(SystemRandom),
    };
    Upstream::start(UpstreamConfig::new("replica", addresses), parts).unwrap()
}

/// Serves what services say to each other. Who they are is another matter.
async fn serve_inside(routes: Routes) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    serve_inside_on(listener, routes);
    address
}

fn serve_inside_on(listener: TcpListener, routes: Routes) {
    let methods = Methods::from_descriptor_sets(&[INTERNAL_DESCRIPTOR_SET]).unwrap();
    let service = |_: &tonic::codegen::http::HeaderMap| {
        Ok(Identity {
            user: UserId::parse("service").map_err(AuthError::BadSubject)?,
            expires_at: UnixMillis(u64::MAX),
        })
    };
    serve(listener, routes, methods, &metrics(), Arc::new(service));
}

fn serve(
    listener: TcpListener,
    routes: Routes,
    methods: Methods,
    metrics: &Metrics,
    authenticate: Authenticate,
) {
    let shutdown = Shutdown::new(Duration::ZERO);
    let stack = Stack::new(methods, metrics, authenticate, shutdown);
    let incoming = TcpListenerStream::new(listener).map(|connection| {
        let connection = connection?;
        connection.set_nodelay(true)?;
        Ok::<_, std::io::Error>(connection)
    });
    let serve = server::serve(stack, routes, incoming);
    task::spawn("server", async move { serve.await.unwrap() });
}

async fn chat(node: &Started, user: &str) -> Chat {
    chat_at(node.address, user).await
}

async fn online(node: &Started, user: &str) -> Session {
    Session::caught_up(&chat(node, user).await, hello()).await.0
}

/// Sends again until it is stored, as every client does.
async fn until_stored(session: &mut Session, peer: &str, id: &str) -> Stored {
    let stored = async {
        for reference in 1_000.. {
            match session.ask(reference, send(peer, id, "hi")).await {
                Frame::Stored(stored) => return Some(stored),
                Frame::Deferred(deferred) => {
                    assert_eq!(deferred.reason(), DeferredReason::Unavailable);
                    tokio::task::yield_now().await;
                }
                other => panic!("{other:?}"),
            }
        }
        None
    };
    soon(stored).await.unwrap()
}

/// The deferral of the one message that is not settled.
async fn deferred(session: &mut Session, id: &str) {
    let deferred = |frame| match frame {
        Frame::Deferred(deferred) => Some(deferred),
        Frame::Stored(stored) => panic!("{stored:?}"),
        _ => None,
    };
    let deferred = session.until(deferred).await;
    assert_eq!(deferred.message_id, id);
    assert_eq!(deferred.reason(), DeferredReason::Unavailable);
}

#[tokio::test]
async fn a_conversation_across_nodes_goes_as_within_one_process() {
    let cluster = Cluster::new(1).await;
    let (one, two) = (cluster.start("one").await, cluster.start("two").await);
    let mut alice = online(&one, "alice").await;
    let mut bob = online(&two, "bob").await;
    assert_eq!(alice.welcome.history_id, bob.welcome.history_id);
    for number in 1..=20_u64 {
        let (speaker, listener, peer) = match number % 2 {
            0 => (&mut bob, &mut alice, "alice"),
            _ => (&mut alice, &mut bob, "bob"),
        };
        let id = format!("m{number}");
        let stored = speaker
            .ask(number, send_after(peer, &id, "hi", number - 1))
            .await;
        assert!(matches!(stored, Frame::Stored(stored) if stored.seq == number));
        let shown = |frame| delivered(frame).filter(|one| one.seq == number);
        listener.until(shown).await;
    }
    bob.say(100, advance("alice", Some(20), Some(20))).await;
    let receipt = |frame| match frame {
        Frame::ReceiptAdvanced(receipt) => receipt.cursor.filter(|cursor| cursor.read == 20),
        _ => None,
    };
    assert_eq!(alice.until(receipt).await.delivered, 20);
    // A cursor is stored at the end of its session, if not before.
    bob.finish();
    assert!(bob.end().await.status.is_ok());
    let kept = history(&mut chat(&one, "bob").await, "alice").await;
    assert_eq!(seqs(&kept), (1..=20).collect::<Vec<_>>());
    // And on devices that were not there: from the user's cursor on.
    let (_, shown, _) = Session::caught_up(&chat(&two, "alice").await, hello()).await;
    assert_eq!(seqs(&shown), (1..=20).collect::<Vec<_>>());
    let (_, shown, _) = Session::caught_up(&chat(&one, "bob").await, hello()).await;
    assert!(shown.is_empty(), "{shown:?}");
    let conversations = chat(&two, "bob")
        .await
        .list_conversations(duologue_proto::chat::v1::ListConversationsRequest::default())
        .await
        .unwrap()
        .into_inner()
        .conversations;
    assert_eq!((conversations[0].head, conversations[0].unread), (20, 0));
}

#[tokio::test]
async fn a_burst_of_long_messages_is_stored_in_its_order() {
    const COUNT: usize = 200;
    let cluster = Cluster::new(1).await;
    let node = cluster.start("one").await;
    let mut alice = online(&node, "alice").await;
    let mut bob = online(&node, "bob").await;
    let long = "x".repeat(8_000);
    for number in 1..=COUNT {
        let id = format!("m{number}");
        let first = send_after("bob", &id, &format!("{id} {long}"), 0);
        alice.say(u64::try_from(number).unwrap(), first).await;
    }
    for seq in 1..=u64::try_from(COUNT).unwrap() {
        let answer = alice.answer(seq).await;
        assert!(matches!(answer, Frame::Stored(stored) if stored.seq == seq));
    }
    for (index, shown) in bob.messages(COUNT).await.iter().enumerate() {
        assert_eq!(shown.seq, u64::try_from(index).unwrap() + 1);
        assert!(text_of(shown).starts_with(&format!("m{} ", shown.seq)));
    }
}

/// Whatever is sent from now on is in mid-run when the way breaks.
async fn open_append_stream(node: &Started) {
    let mut carol = online(node, "carol").await;
    until_stored(&mut carol, "dave", "m").await;
}

/// Breaks the way to history in a send; returns what the message got when it was sent
/// again.
async fn broken_in_mid_send(how: Way, stored_before: bool) -> Stored {
    let cluster = Cluster::new(1).await;
    let node = cluster.start("one").await;
    let mut alice = online(&node, "alice").await;
    let mut bob = online(&node, "bob").await;
    open_append_stream(&node).await;
    cluster.histories[0].set(how);
    alice.say(1, send("bob", "m1", "hi")).await;
    if stored_before {
        cluster.has_stored("alice", "bob").await;
    }
    cluster.histories[0].set(Way::Cut);
    deferred(&mut alice, "m1").await;
    cluster.histories[0].set(Way::Open);
    let stored = until_stored(&mut alice, "bob", "m1").await;
    assert_eq!(stored.seq, 1);
    assert_eq!(seqs(&bob.messages(1).await), [1]);
    let kept = history(&mut chat(&node, "bob").await, "alice").await;
    assert_eq!(seqs(&kept), [1]);
    stored
}

#[tokio::test]
async fn a_send_whose_answer_is_lost_is_deferred_and_found_stored_once() {
    assert!(broken_in_mid_send(Way::Silent, true).await.duplicate);
}

#[tokio::test]
async fn a_send_that_is_lost_is_deferred_and_stored_once_when_it_is_sent_again() {
    assert!(!broken_in_mid_send(Way::Deaf, false).await.duplicate);
}

#[tokio::test]
async fn an_order_that_was_broken_off_is_kept() {
    const COUNT: u64 = 50;
    let cluster = Cluster::new(1).await;
    let node = cluster.start("one").await;
    let mut alice = online(&node, "alice").await;
    let mut bob = online(&node, "bob").await;
    open_append_stream(&node).await;
    cluster.histories[0].set(Way::Silent);
    for number in 1..=COUNT {
        alice
            .say(number, send("bob", &format!("m{number}"), "hi"))
            .await;
    }
    cluster.has_stored("alice", "bob").await;
    cluster.histories[0].set(Way::Cut);
    let mut waiting = Vec::new();
    for _ in 1..=COUNT {
        match alice.answer_any().await {
            Frame::Deferred(deferred) => waiting.push(deferred.message_id),
            other => panic!("{other:?}"),
        }
    }
    let in_order: Vec<_> = (1..=COUNT).map(|number| format!("m{number}")).collect();
    assert_eq!(waiting, in_order);
    cluster.histories[0].set(Way::Open);
    for (seq, id) in (1..).zip(&waiting) {
        assert_eq!(until_stored(&mut alice, "bob", id).await.seq, seq);
    }
    let shown = bob.messages(waiting.len()).await;
    assert_eq!(seqs(&shown), (1..=COUNT).collect::<Vec<_>>());
    assert!(shown.iter().map(|one| &one.message_id).eq(&in_order));
}

#[tokio::test]
async fn with_one_of_two_replicas_gone_every_conversation_goes_on() {
    const PEERS: u64 = 20;
    let cluster = Cluster::new(2).await;
    let node = cluster.start("one").await;
    let mut alice = online(&node, "alice").await;
    for number in 0..PEERS {
        let stored = until_stored(&mut alice, &format!("u{number}"), "m1").await;
        assert_eq!(stored.seq, 1);
    }
    cluster.histories[1].set(Way::Cut);
    for number in 0..PEERS {
        let stored = until_stored(&mut alice, &format!("u{number}"), "m2").await;
        assert_eq!(stored.seq, 2);
    }
    let kept = history(&mut chat(&node, "alice").await, "u7").await;
    assert_eq!(seqs(&kept), [1, 2]);
}

#[tokio::test]
async fn presence_is_seen_across_nodes() {
    let cluster = Cluster::new(1).await;
    let (one, two) = (cluster.start("one").await, cluster.start("two").await);
    let mut alice = online(&one, "alice").await;
    let mut bob = online(&two, "bob").await;
    assert_eq!(change_of(&mut alice, "bob").await, Availability::Online);
    bob.finish();
    bob.end().await;
    assert_eq!(change_of(&mut alice, "bob").await, Availability::Offline);
}

/// The next change of a user's presence.
async fn change_of(session: &mut Session, user: &str) -> Availability {
    let changed = |frame| match frame {
        Frame::PresenceChanged(changed) => changed.presence.filter(|one| one.user == user),
        _ => None,
    };
    session.until(changed).await.availability()
}

#[tokio::test]
async fn an_outage_of_presence_is_an_error_and_what_was_missed_is_told_after_it() {
    let cluster = Cluster::new(1).await;
    let (one, two) = (cluster.start("one").await, cluster.start("two").await);
    let mut alice = online(&one, "alice").await;
    let mut bob = online(&two, "bob").await;
    let mut carol = online(&two, "carol").await;
    assert_eq!(change_of(&mut alice, "carol").await, Availability::Online);
    one.presence.set(Way::Cut);
    let user = "bob".to_owned();
    let asked = chat(&one, "alice")
        .await
        .get_presence(GetPresenceRequest { user })
        .await;
    assert_refused(&asked.unwrap_err(), Reason::Unavailable);
    // Storing does not need it, and relaying is tried until it is back.
    assert_eq!(until_stored(&mut alice, "carol", "m1").await.seq, 1);
    bob.finish();
    bob.end().await;
    one.presence.set(Way::Open);
    // From here on alice takes nobody for online but those whom she is told of.
    let reset = |frame| matches!(frame, Frame::PresenceReset(_)).then_some(());
    alice.until(reset).await;
    assert_eq!(change_of(&mut alice, "carol").await, Availability::Online);
    assert_eq!(seqs(&carol.messages(1).await), [1]);
    let user = "bob".to_owned();
    let asked = chat(&one, "alice")
        .await
        .get_presence(GetPresenceRequest { user })
        .await;
    let presence = asked.unwrap().into_inner().presence.unwrap();
    assert_eq!(presence.availability(), Availability::Offline);
    drop(carol);
    assert_eq!(change_of(&mut alice, "carol").await, Availability::Offline);
}

#[tokio::test]
async fn leases_nodes_and_routes_are_kept_over_the_wire() {
    let cluster = Cluster::new(1).await;
    let random: Arc<dyn Random> = Arc::new(SystemRandom);
    let presence = RemotePresence::new(vec![replica("p", cluster.presence)], random);
    let lease = |incarnation: &str, counter| Lease {
        node: NodeId::parse("one").unwrap(),
        incarnation: Incarnation::parse(incarnation).unwrap(),
        address: "http://127.0.0.1:7003".into(),
        counter,
    };
    presence.take_lease(&lease("first", 1)).await.unwrap();
    let renewed = presence.renew_lease(&lease("first", 2)).await;
    assert_eq!(renewed, Ok(Renewed::InForce));
    let lost = presence.renew_lease(&lease("second", 3)).await;
    assert_eq!(lost, Ok(Renewed::Lost));
    let nodes = presence.nodes().await.unwrap();
    let known = |node: &NodeInfo| (node.incarnation.to_string(), node.address.clone());
    let expected = ("first".to_owned(), "http://127.0.0.1:7003".to_owned());
    assert_eq!(nodes.iter().map(known).collect::<Vec<_>>(), [expected]);
    assert_eq!(presence.forget_lease(&lease("first", 1)).await, Ok(false));
    assert_eq!(presence.forget_lease(&lease("first", 2)).await, Ok(true));
    assert_eq!(presence.nodes().await, Ok(Vec::new()));

    let route = |connect| Route {
        user: UserId::parse("alice").unwrap(),
        device: DeviceId::parse("phone").unwrap(),
        number: ConnectNumber {
            connect,
            registration: 0,
        },
        session: SessionId::parse(&format!("s{connect}")).unwrap(),
        node: NodeId::parse("one").unwrap(),
        incarnation: Incarnation::parse("first").unwrap(),
    };
    let in_force = |replaced| Ok(Registered::InForce { replaced });
    assert_eq!(presence.register(route(1)).await, in_force(Vec::new()));
    assert_eq!(presence.register(route(2)).await, in_force(vec![route(1)]));
    assert_eq!(
        presence.register(route(1)).await,
        Ok(Registered::Superseded)
    );
    let alice = route(2).user;
    assert_eq!(presence.routes(&alice).await, Ok(vec![route(2)]));
    // Only the very route that was seen.
    assert_eq!(presence.remove_route(&route(1)).await, Ok(false));
    assert_eq!(presence.remove_route(&route(2)).await, Ok(true));
    assert_eq!(presence.routes(&alice).await, Ok(Vec::new()));
}

#[test]
fn the_public_contract_names_nothing_internal() {
    let set = prost_types::FileDescriptorSet::decode(DESCRIPTOR_SET).unwrap();
    let packages: Vec<_> = set
        .file
        .iter()
        .map(prost_types::FileDescriptorProto::package)
        .collect();
    assert!(packages.contains(&"duologue.chat.v1"));
    let internal =
        |package: &&str| !package.starts_with("duologue.chat.") && !package.starts_with("google.");
    assert_eq!(packages.into_iter().filter(internal).count(), 0);
    let methods = Methods::standard().unwrap();
    assert!(methods.is_known("/duologue.chat.v1.ChatService/Converse"));
    for path in [
        "/duologue.history.v1.HistoryService/Append",
        "/duologue.presence.v1.PresenceService/Watch",
    ] {
        assert!(!methods.is_known(path), "{path}");
        let inside = Methods::from_descriptor_sets(&[INTERNAL_DESCRIPTOR_SET]).unwrap();
        assert!(inside.at(path).is_streaming(), "{path}");
    }
}
