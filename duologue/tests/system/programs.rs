//! The split system: chat, history and presence as the thin programs serve them, over
//! sockets, with a shared secret; and what a user sees when one of them goes.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use clap::Parser as _;
use duologue_proto::chat::v1::converse_response::Frame;
use duologue_runtime::clock::{Clock as _, SystemClock};
use duologue_runtime::process::{InnerListeners, ProcessError};
use duologue_runtime::shutdown::Shutdown;
use duologue_runtime::task;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::transport::Endpoint;

use crate::support::calls::{Bearer, Chat, client, history, sent, seqs, text_of};
use crate::support::frames::{hello, send};
use crate::support::http::get;
use crate::support::{Session, soon};

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";
const GRACE: Duration = Duration::from_secs(5);

/// One program that serves.
pub(crate) struct Served {
    pub(crate) inner: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) shutdown: Shutdown,
    pub(crate) task: JoinHandle<Result<(), ProcessError>>,
}

impl Served {
    pub(crate) async fn end(self) {
        self.shutdown.trigger();
        soon(self.task).await.unwrap().unwrap();
    }
}

async fn listen(port: u16) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// What every program is told.
fn flags(dir: &Path, more: &[&str]) -> Vec<String> {
    let file = dir.join("secret");
    std::fs::write(&file, SECRET).unwrap();
    let secret = file.display().to_string();
    let common = [
        "program",
        "--internal-listen=127.0.0.1:0",
        "--internal-secret",
        &secret,
    ];
    common.iter().chain(more).map(|&it| it.to_owned()).collect()
}

pub(crate) async fn history_at(dir: &Path, port: u16) -> Served {
    use duologue_history::serve::{ServeConfig, serve};
    let data = dir.display().to_string();
    let config = ServeConfig::parse_from(flags(dir, &["--data", &data]));
    inside("history", port, |listeners, shutdown| {
        serve(config, listeners, shutdown)
    })
    .await
}

pub(crate) async fn presence(dir: &Path) -> Served {
    use duologue_presence::serve::{ServeConfig, serve};
    let config = ServeConfig::parse_from(flags(dir, &[]));
    inside("presence", 0, |listeners, shutdown| {
        serve(config, listeners, shutdown)
    })
    .await
}

/// A service that only other services call.
async fn inside<F>(
    name: &'static str,
    port: u16,
    serve: impl FnOnce(InnerListeners, Shutdown) -> F,
) -> Served
where
    F: Future<Output = Result<(), ProcessError>> + Send + 'static,
{
    let ((internal, inner), (watched, admin)) = (listen(port).await, listen(0).await);
    let shutdown = Shutdown::new(GRACE);
    let listeners = InnerListeners {
        inner: internal,
        admin: watched,
    };
    let task = task::spawn(name, serve(listeners, shutdown.clone()));
    Served {
        inner,
        admin,
        shutdown,
        task,
    }
}

/// A chat node, and where users reach it.
pub(crate) async fn chat(
    dir: &Path,
    history: &str,
    presence: &str,
    more: &[&str],
) -> (Served, SocketAddr) {
    use duologue_chat::serve::{Listeners, ServeConfig, serve};
    let key = dir.join("public.pem").display().to_string();
    let mut all = vec!["--history", history, "--presence", presence];
    all.extend(["--jwt-public-key", &key, "--drain-spread=10ms"]);
    all.extend(more);
    let config = ServeConfig::parse_from(flags(dir, &all));
    config.check().unwrap();
    let ((public, users), (internal, inner)) = (listen(0).await, listen(0).await);
    let (watched, admin) = listen(0).await;
    let shutdown = Shutdown::new(GRACE);
    let listeners = Listeners {
        public,
        inner: internal,
        admin: watched,
    };
    let task = task::spawn("chat", serve(config, listeners, shutdown.clone()));
    let served = Served {
        inner,
        admin,
        shutdown,
        task,
    };
    (served, users)
}

/// A gateway that is ready, before these nodes, and where browsers reach it.
pub(crate) async fn gateway(chat: &str, more: &[&str]) -> (Served, SocketAddr) {
    let (served, pages) = gateway_not_ready(chat, more).await;
    until_ready(served.admin, 200, "").await;
    (served, pages)
}

/// A gateway that may never be ready.
pub(crate) async fn gateway_not_ready(chat: &str, more: &[&str]) -> (Served, SocketAddr) {
    use duologue_gateway::serve::{Listeners, ServeConfig, serve};
    let config = ServeConfig::parse_from(["program", "--chat", chat].iter().chain(more));
    config.check().unwrap();
    let ((web, pages), (watched, admin)) = (listen(0).await, listen(0).await);
    let shutdown = Shutdown::new(GRACE);
    let listeners = Listeners {
        web,
        admin: watched,
    };
    let task = task::spawn("gateway", serve(config, listeners, shutdown.clone()));
    let served = Served {
        inner: pages,
        admin,
        shutdown,
        task,
    };
    (served, pages)
}

/// The key that signs tokens; its public part is a file.
pub(crate) fn make_key(dir: &Path) -> EncodingKey {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    std::fs::write(dir.join("public.pem"), pair.public_key_pem()).unwrap();
    EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).unwrap()
}

pub(crate) fn token(key: &EncodingKey, user: &str) -> String {
    let claims = json!({"sub": user, "exp": SystemClock.now().0 / 1_000 + 3_600});
    jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, key).unwrap()
}

pub(crate) async fn as_user(users: SocketAddr, token: &str) -> Chat {
    let endpoint = Endpoint::from_shared(format!("http://{users}")).unwrap();
    client(endpoint.connect().await.unwrap(), Bearer::new(token))
}

/// Until the program says so of itself. `text`: what the answer must hold.
pub(crate) async fn until_ready(admin: SocketAddr, code: u16, text: &str) {
    let waiting = async {
        loop {
            let answer = get(admin, "/readyz").await;
            if answer.code == code && answer.body.contains(text) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(waiting).await;
}

#[tokio::test]
async fn users_talk_over_three_programs_and_go_on_when_history_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let key = make_key(dir.path());
    let keeper = history_at(dir.path(), 0).await;
    let directory = presence(dir.path()).await;
    let port = keeper.inner.port();
    let at = |served: &Served| format!("http://{}", served.inner);
    let (node, users) = chat(dir.path(), &at(&keeper), &at(&directory), &[]).await;
    for served in [&keeper, &directory, &node] {
        until_ready(served.admin, 200, "").await;
    }

    let mut alice = as_user(users, &token(&key, "alice")).await;
    let bob = as_user(users, &token(&key, "bob")).await;
    let (mut speaking, ..) = Session::caught_up(&alice, hello()).await;
    let (mut listening, ..) = Session::caught_up(&bob, hello()).await;
    let stored = speaking.ask(1, send("bob", "m1", "over the wire")).await;
    assert!(matches!(stored, Frame::Stored(stored) if stored.seq == 1 && !stored.duplicate));
    assert_eq!(text_of(&listening.messages(1).await[0]), "over the wire");
    assert_eq!(sent(&mut alice, "bob", "m2", "again").await, 2);

    // Without history nothing is acknowledged, and the node says why it is not ready.
    keeper.end().await;
    until_ready(node.admin, 503, "history").await;
    let refused = speaking
        .ask(2, send("bob", "m3", "nobody keeps this"))
        .await;
    assert!(matches!(refused, Frame::Deferred(_)), "{refused:?}");

    let keeper = history_at(dir.path(), port).await;
    until_ready(node.admin, 200, "").await;
    let waiting = async {
        loop {
            let again = speaking
                .ask(3, send("bob", "m3", "nobody keeps this"))
                .await;
            match again {
                Frame::Stored(stored) => return stored.seq,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    assert_eq!(soon(waiting).await, 3);
    assert_eq!(seqs(&history(&mut alice, "bob").await), [1, 2, 3]);

    drop((speaking, listening));
    for served in [node, directory, keeper] {
        served.end().await;
    }
}

#[tokio::test]
async fn no_token_opens_a_program_that_only_services_call() {
    use duologue_proto::history::v1::GetHistoryRequest;
    use duologue_proto::history::v1::history_service_client::HistoryServiceClient;
    let dir = tempfile::tempdir().unwrap();
    let key = make_key(dir.path());
    let keeper = history_at(dir.path(), 0).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", keeper.inner)).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let token = token(&key, "alice");
    for (bearer, code) in [
        (Bearer::none(), Code::Unauthenticated),
        (Bearer::new(&token), Code::Unauthenticated),
        (Bearer::new(SECRET), Code::Ok),
    ] {
        let mut history = HistoryServiceClient::with_interceptor(channel.clone(), bearer);
        let answer = history.get_history(GetHistoryRequest {}).await;
        let got = answer.map_or_else(|status| status.code(), |_| Code::Ok);
        assert_eq!(got, code);
    }
    keeper.end().await;
}

#[tokio::test]
async fn a_node_that_finds_no_history_waits_and_can_be_ended() {
    let dir = tempfile::tempdir().unwrap();
    make_key(dir.path());
    let (node, _) = chat(dir.path(), "http://127.0.0.1:1", "http://127.0.0.1:1", &[]).await;
    until_ready(node.admin, 503, "serving").await;
    until_ready(node.admin, 503, "127.0.0.1:1").await;
    assert!(!node.task.is_finished());
    node.end().await;
}
