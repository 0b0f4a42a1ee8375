//! Browsers of the split system: gateways before several chat nodes, and what a page
//! sees when one of either goes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use duologue_proto::chat::v1::converse_response::Frame;
use duologue_proto::chat::v1::{
    Hello, ListConversationsRequest, SendMessageResponse, SubscribeRequest, Welcome,
};
use duologue_runtime::refusal::Reason;
use duologue_runtime::server::MAX_STREAMS_PER_CONNECTION;
use jsonwebtoken::EncodingKey;
use prost::Message as _;
use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream};
use tonic::Code;
use tonic::transport::Endpoint;

use super::programs::{
    SECRET, Served, as_user, chat, gateway, gateway_not_ready, history_at, make_key, presence,
    token, until_ready,
};
use crate::support::calls::send as send_request;
use crate::support::calls::{Bearer, client, history, sent, text_of};
use crate::support::frames::{hello, send};
use crate::support::http::get;
use crate::support::link::{Link, Way};
use crate::support::page::Page;
use crate::support::refused::assert_refused;
use crate::support::session::Session;
use crate::support::socket::Socket;
use crate::support::soon;

/// History, presence and two chat nodes.
struct System {
    _dir: TempDir,
    key: EncodingKey,
    _keepers: [Served; 2],
    nodes: Vec<Node>,
}

/// A chat node, and a way to it that can be cut.
struct Node {
    served: Served,
    users: SocketAddr,
    link: Link,
}

impl System {
    async fn start(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = make_key(dir.path());
        let keepers = [history_at(dir.path(), 0).await, presence(dir.path()).await];
        let [history, presence] = keepers.each_ref().map(|it| format!("http://{}", it.inner));
        let mut nodes = Vec::new();
        for name in ["--node=chat-1", "--node=chat-2"] {
            let mut flags = vec![name, "--presence-visibility=everyone"];
            flags.extend(more);
            let (served, users) = chat(dir.path(), &history, &presence, &flags).await;
            until_ready(served.admin, 200, "").await;
            let link = Link::to(users).await;
            nodes.push(Node {
                served,
                users,
                link,
            });
        }
        Self {
            _dir: dir,
            key,
            _keepers: keepers,
            nodes,
        }
    }

    fn token(&self, user: &str) -> String {
        token(&self.key, user)
    }

    /// A gateway before one node.
    async fn before(&self, node: usize) -> (Served, SocketAddr) {
        gateway(&format!("http://{}", self.nodes[node].users), &[]).await
    }

    /// A gateway before both nodes, by their links.
    async fn before_all(&self, more: &[&str]) -> (Served, SocketAddr) {
        let nodes = self.nodes.iter();
        let nodes: Vec<_> = nodes
            .map(|it| format!("http://{}", it.link.address))
            .collect();
        let (served, web) = gateway(&nodes.join(","), more).await;
        // Ready is who knows one of them.
        let both = async {
            while !get(served.admin, "/metrics")
                .await
                .body
                .contains("duologue_upstream_replicas_up{upstream=\"chat\"} 2")
            {
                tokio::task::yield_now().await;
            }
        };
        soon(both).await;
        (served, web)
    }

    /// The node that has the one session that there is.
    async fn node_in_use(&self) -> usize {
        for (index, node) in self.nodes.iter().enumerate() {
            let metrics = get(node.served.admin, "/metrics").await.body;
            if metrics.contains("duologue_chat_sessions 1\n") {
                return index;
            }
        }
        panic!("no node has a session");
    }
}

/// What a device needs to go on where it stopped.
fn resume(welcome: &Welcome, sync_token: String) -> Hello {
    Hello {
        history_id: welcome.history_id.clone(),
        sync_token,
        ..hello()
    }
}

/// A session by WebSocket that has caught up: its welcome, and its sync token.
async fn opened(web: SocketAddr, token: &str, hello: Hello) -> (Socket, Welcome, String) {
    let mut socket = Socket::open(web, token, hello).await;
    let welcome = socket
        .until(|frame| match frame {
            Frame::Welcome(welcome) => Some(welcome),
            _ => None,
        })
        .await;
    let (_, sync_token) = socket.caught_up().await;
    (socket, welcome, sync_token)
}

/// A connection from another address of this machine.
async fn from(ip: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((ip, 0))).unwrap();
    soon(socket.connect(to)).await.unwrap()
}

#[tokio::test]
async fn pages_of_two_gateways_and_two_nodes_talk() {
    let system = System::start(&[]).await;
    let (first, one) = system.before(0).await;
    let (second, two) = system.before(1).await;
    let (mut alice, ..) = opened(one, &system.token("alice"), hello()).await;
    let bob = system.token("bob");
    let mut events = Page::subscribed(two, &bob).await;

    alice.say(2, send("bob", "m1", "by WebSocket")).await;
    let message = events.message().await;
    assert_eq!((text_of(&message), message.seq), ("by WebSocket", 1));
    let answer = send_request("alice", "m2", "by gRPC-Web");
    let mut call = Page::call(two, "SendMessage", &bob, &answer).await;
    let (_, answer) = call.frame().await;
    assert_eq!(SendMessageResponse::decode(answer).unwrap().seq, 2);
    assert_eq!(call.status().await.0, 0);
    let message = alice.message().await;
    assert_eq!((text_of(&message), message.seq), ("by gRPC-Web", 2));

    // A gateway has nothing of a user: no session, no key, no page for signing in.
    let config = get(one, "/config.json").await;
    assert_eq!(config.body, "{\"devToken\":false}");
    for gateway in [first, second] {
        gateway.shutdown.trigger();
        soon(gateway.task).await.unwrap().unwrap();
    }
    let (code, reason) = alice.closed().await;
    assert_eq!(code, 1001, "{reason}");
    let (code, trailers) = events.status().await;
    assert_eq!(code, 14, "{trailers}");
}

#[tokio::test]
async fn a_native_client_is_answered_and_handed_on_by_a_gateway_that_goes_away() {
    let system = System::start(&[]).await;
    let (gateway, web) = system.before(0).await;
    let alice = as_user(web, &system.token("alice")).await;
    let (mut alice, ..) = Session::caught_up(&alice, hello()).await;
    for number in 1..=50 {
        let id = format!("m{number}");
        alice.say(number, send("bob", &id, "in flight")).await;
    }
    // By the first answer some are on their way.
    alice.answer_any().await;
    gateway.shutdown.trigger();
    let end = alice.end().await;
    assert_refused(end.status(), Reason::ShuttingDown);
    soon(gateway.task).await.unwrap().unwrap();

    // What was answered is kept; what was not may be sent again.
    let answered = end.frames.iter().filter(|it| it.r#ref > 0).count() + 1;
    let mut bob = as_user(system.nodes[0].users, &system.token("bob")).await;
    let kept = history(&mut bob, "alice").await.len();
    assert_eq!(kept, answered, "what was taken is answered");
}

#[tokio::test]
async fn a_page_whose_node_dies_goes_on_at_another_by_the_same_gateway() {
    let mut system = System::start(&[]).await;
    let (gateway, web) = system.before_all(&[]).await;
    let alice = system.token("alice");
    let (mut page, welcome, sync_token) = opened(web, &alice, hello()).await;
    let died = system.node_in_use().await;
    system.nodes[died].link.set(Way::Cut);
    let (code, reason) = page.closed().await;
    assert_eq!(code, 1013, "{reason}");
    assert!(reason.starts_with("UNAVAILABLE"), "{reason}");

    let other = 1 - died;
    let mut bob = as_user(system.nodes[other].users, &system.token("bob")).await;
    sent(&mut bob, "alice", "m1", "while she was away").await;
    let mut page = Socket::open(web, &alice, resume(&welcome, sync_token)).await;
    let (missed, _) = page.caught_up().await;
    let missed: Vec<_> = missed.iter().map(text_of).collect();
    assert_eq!(missed, ["while she was away"]);
    // Calls that only one node can take go there, and need not be made again.
    let request = send_request("bob", "m2", "by the node that is left");
    for _ in 0..4 {
        let mut call = Page::call(web, "SendMessage", &alice, &request).await;
        assert_eq!(call.status().await.0, 0);
    }

    // And one that goes away says so.
    system.nodes[died].link.set(Way::Open);
    system.nodes.remove(other).served.end().await;
    let (code, reason) = page.closed().await;
    assert_eq!(code, 1001, "{reason}");
    gateway.end().await;
}

#[tokio::test]
async fn a_page_whose_gateway_dies_goes_on_by_another_and_misses_nothing() {
    let system = System::start(&[]).await;
    let (first, one) = system.before_all(&[]).await;
    let (second, two) = system.before_all(&[]).await;
    let link = Link::to(one).await;
    let alice = system.token("alice");
    let (page, welcome, sync_token) = opened(one, &alice, hello()).await;
    drop(page);
    let stream = soon(TcpStream::connect(link.address)).await.unwrap();
    let subscribe = SubscribeRequest {
        history_id: welcome.history_id.clone(),
        sync_token: sync_token.clone(),
        ..Default::default()
    };
    let mut events = Page::call_on(stream, one, "Subscribe", &alice, &subscribe, &[]).await;
    events.caught_up().await;
    link.set(Way::Cut);
    assert!(soon(events.next_chunk()).await.is_none());

    let mut bob = Page::call(
        two,
        "SendMessage",
        &system.token("bob"),
        &send_request("alice", "m1", "while she was away"),
    )
    .await;
    assert_eq!(bob.status().await.0, 0);
    let mut page = Socket::open(two, &alice, resume(&welcome, sync_token)).await;
    let (missed, _) = page.caught_up().await;
    let missed: Vec<_> = missed.iter().map(text_of).collect();
    assert_eq!(missed, ["while she was away"]);
    page.say(2, send("bob", "m2", "here again")).await;
    let stored = page
        .until(|frame| match frame {
            Frame::Stored(stored) => Some(stored.seq),
            _ => None,
        })
        .await;
    assert_eq!(stored, 2);
    drop(page);
    first.end().await;
    second.end().await;
}

/// Whether a page gets a stream; the stream, so that it counts.
async fn subscribes(stream: TcpStream, web: SocketAddr, token: &str, said: &str) -> (bool, Page) {
    let request = SubscribeRequest::default();
    let more = [
        ("x-forwarded-for", said),
        ("forwarded", "for=198.51.100.99"),
    ];
    let page = Page::call_on(stream, web, "Subscribe", token, &request, &more).await;
    (page.refusal().is_none(), page)
}

#[tokio::test]
async fn pages_count_by_their_own_address_which_nobody_can_forge() {
    let limits = [
        "--sessions-per-address=1",
        "--connections-per-address=1",
        "--trusted-proxy=127.0.0.1",
    ];
    let system = System::start(&limits).await;
    let nodes = format!("http://{}", system.nodes[0].users);
    let (gateway, web) = gateway(&nodes, &["--trusted-proxy=127.0.0.9/32"]).await;
    let user = system.token("alice");
    let (near, far, proxy) = ([127, 0, 0, 2], [127, 0, 0, 3], [127, 0, 0, 9]);

    // Each address has one stream of its own, although all come by one gateway.
    let (held, _first) = subscribes(from(near, web).await, web, &user, "203.0.113.1").await;
    assert!(held);
    let (held, _second) = subscribes(from(far, web).await, web, &user, "203.0.113.1").await;
    assert!(held);
    // Saying that one is somebody else helps nobody.
    let (held, _) = subscribes(from(near, web).await, web, &user, "203.0.113.2").await;
    assert!(!held);
    // But to the proxy before the gateway, which says what it saw, at the end.
    let proxied = "203.0.113.3, 198.51.100.1";
    let (held, _third) = subscribes(from(proxy, web).await, web, &user, proxied).await;
    assert!(held);
    let again = "203.0.113.4, 198.51.100.1";
    let (held, _) = subscribes(from(proxy, web).await, web, &user, again).await;
    assert!(!held);
    let (held, _fourth) = subscribes(from(proxy, web).await, web, &user, "198.51.100.2").await;
    assert!(held);

    // Nor does chat believe those whom it does not know.
    let endpoint = Endpoint::from_shared(nodes).unwrap();
    let forger = |ip: [u8; 4]| {
        let endpoint = endpoint.clone();
        let endpoint = endpoint.local_address(Some(IpAddr::V4(Ipv4Addr::from(ip))));
        let bearer = Bearer::new(&user).and("x-forwarded-for", "203.0.113.5");
        async move { client(endpoint.connect().await.unwrap(), bearer) }
    };
    let mut chat = forger(near).await;
    let refused = chat.subscribe(SubscribeRequest::default()).await;
    let refused = refused.unwrap_err();
    assert_refused(&refused, Reason::TooManySessions);
    // Only of a proxy there may be more connections than of an address.
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut chat = forger([127, 0, 0, 1]).await;
        let list = ListConversationsRequest::default();
        chat.list_conversations(list).await.unwrap();
        held.push(chat);
    }
    gateway.end().await;
}

#[tokio::test]
async fn more_pages_come_by_a_gateway_than_a_connection_of_a_client_may_have_calls() {
    let system = System::start(&["--trusted-proxy=127.0.0.1"]).await;
    let (gateway, web) = system.before(0).await;
    let mut pages = Vec::new();
    for user in ["a", "b", "c", "d", "e"] {
        let token = system.token(user);
        for _ in 0..30 {
            pages.push(Socket::open(web, &token, hello()).await);
        }
    }
    for page in &mut pages {
        page.caught_up().await;
    }
    assert!(pages.len() > usize::try_from(MAX_STREAMS_PER_CONNECTION).unwrap());
    drop(pages);
    gateway.end().await;
}

#[tokio::test]
async fn a_gateway_knows_its_nodes_by_their_certificates() {
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let files = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let cert = write("cert.pem", pair.cert.pem());
    let key = write("key.pem", pair.signing_key.serialize_pem());
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let other = write("other.pem", other.cert.pem());
    let (cert_flag, key_flag) = (format!("--tls-cert={cert}"), format!("--tls-key={key}"));
    let system = System::start(&[&cert_flag, &key_flag]).await;
    let port = system.nodes[0].users.port();
    let trusts = format!("--chat-tls-ca={cert}");
    let request = send_request("bob", "m1", "hidden on its way");
    for nodes in [
        format!("https://localhost:{port}"),
        format!("dns://localhost:{port}"),
    ] {
        let (gateway, web) = gateway(&nodes, &[&trusts]).await;
        let mut call = Page::call(web, "SendMessage", &system.token("alice"), &request).await;
        let (code, trailers) = call.status().await;
        assert_eq!(code, 0, "{nodes}: {trailers}");
        gateway.end().await;
    }
    // Another authority, or another name: it is not called.
    for (nodes, ca) in [("localhost", &other), ("127.0.0.1", &cert)] {
        let nodes = format!("https://{nodes}:{port}");
        let (gateway, _) = gateway_not_ready(&nodes, &[&format!("--chat-tls-ca={ca}")]).await;
        until_ready(gateway.admin, 503, "certificate").await;
        gateway.end().await;
    }
}

#[tokio::test]
async fn nothing_of_services_is_reached_by_a_gateway() {
    let system = System::start(&[]).await;
    let (gateway, web) = system.before(0).await;
    let headers = [
        ("content-type", "application/grpc-web+proto"),
        ("authorization", &*format!("Bearer {SECRET}")),
    ];
    for path in [
        "/duologue.history.v1.HistoryService/GetHistory",
        "/duologue.presence.v1.PresenceService/GetRoutes",
        "/duologue.relay.v1.RelayService/Relay",
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/metrics",
        "/readyz",
    ] {
        let page = Page::post(web, path, &headers, vec![0; 5]).await;
        assert_eq!(page.status, 404, "{path}");
    }
    let request = send_request("bob", "m1", "by a service");
    for (method, token, code) in [
        ("SendMessage", SECRET, Code::Unauthenticated),
        ("Forget", SECRET, Code::Unimplemented),
        ("SendMessage", &system.token("alice"), Code::Ok),
    ] {
        let mut call = Page::call(web, method, token, &request).await;
        let (got, trailers) = call.status().await;
        assert_eq!(got, code as u32, "{method}: {trailers}");
    }
    gateway.end().await;
}

#[tokio::test]
async fn without_a_node_a_call_fails_at_once_and_the_gateway_is_not_ready() {
    let system = System::start(&[]).await;
    let (gateway, web) = system.before_all(&[]).await;
    for node in &system.nodes {
        node.link.set(Way::Cut);
    }
    until_ready(gateway.admin, 503, "chat").await;
    let alice = system.token("alice");
    let request = send_request("bob", "m1", "nobody hears this");
    let mut call = Page::call(web, "SendMessage", &alice, &request).await;
    let (code, trailers) = call.status().await;
    assert_eq!(code, Code::Unavailable as u32, "{trailers}");
    let (code, reason) = Socket::open(web, &alice, hello()).await.closed().await;
    assert_eq!(code, 1013, "{reason}");
    for node in &system.nodes {
        node.link.set(Way::Open);
    }
    until_ready(gateway.admin, 200, "").await;
    let mut call = Page::call(web, "SendMessage", &alice, &request).await;
    assert_eq!(call.status().await.0, 0);
    gateway.end().await;
}
