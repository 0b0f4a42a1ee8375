//! The inner door over sockets: who gets in, who does not, and that the public
//! door knows nothing of it.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use duologue_proto::chat::v1::chat_service_client::ChatServiceClient;
use duologue_proto::chat::v1::chat_service_server::ChatServiceServer;
use duologue_proto::ids::{UnixMillis, UserId};
use duologue_runtime::auth::{DevKey, TokenRules, Verifier};
use duologue_runtime::clock::{SeededRandom, SystemClock, SystemRandom};
use duologue_runtime::inner::{Credentials, InnerConfig, mutual_tls_files};
use duologue_runtime::listener::{GuardConfig, accepted, bind, guard};
use duologue_runtime::metrics::{BuildInfo, Metrics};
use duologue_runtime::server::{
    Door, Health, Methods, Stack, authenticate_by_token, count_connections, serve,
};
use duologue_runtime::shutdown::Shutdown;
use duologue_runtime::task;
use duologue_runtime::upstream::{
    Tcp, Upstream, UpstreamConfig, UpstreamError, UpstreamMetrics, UpstreamParts,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use support::{CHAT, GRACE, Stub, presence_of};
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const WAIT: Duration = Duration::from_secs(10);

/// A process with both doors.
struct Process {
    public: SocketAddr,
    inner: SocketAddr,
    key: DevKey,
    metrics: Metrics,
    shutdown: Shutdown,
    stub: Stub,
    served: [JoinHandle<()>; 2],
}

impl Process {
    async fn start(credentials: &Credentials) -> Self {
        let key = DevKey::ephemeral(&SeededRandom::new(1));
        let keys = vec![key.verifier_key()];
        let verifier = Verifier::new(keys, TokenRules::default(), Arc::new(SystemClock));
        let metrics = Metrics::new(BuildInfo::of("test"), UnixMillis(0));
        let shutdown = Shutdown::new(GRACE);
        let methods = || Methods::standard().unwrap();
        let users = authenticate_by_token(verifier);
        let public = Stack::new(methods(), &metrics, users, shutdown.clone());
        let inner = Stack::inner(methods(), &metrics, credentials.clone(), shutdown.clone());
        let stub = Stub::named("a service");
        let (public, outer_served) = open(public, Door::Public, None, &metrics, &stub).await;
        let (inner, inner_served) =
            open(inner, Door::Inner, Some(credentials), &metrics, &stub).await;
        Self {
            public,
            inner,
            key,
            metrics,
            shutdown,
            stub,
            served: [outer_served, inner_served],
        }
    }

    fn token(&self) -> String {
        let user = UserId::parse("alice").unwrap();
        self.key.sign(&user, Duration::from_hours(1), &SystemClock)
    }

    fn upstream(&self, scheme: &str, credentials: &Credentials) -> Upstream {
        let addresses = format!("{scheme}://{}", self.inner).parse().unwrap();
        let config = UpstreamConfig::new("history", addresses);
        Upstream::start(config, parts(credentials)).unwrap()
    }
}

async fn open(
    stack: Stack,
    door: Door,
    credentials: Option<&Credentials>,
    metrics: &Metrics,
    stub: &Stub,
) -> (SocketAddr, JoinHandle<()>) {
    let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = GuardConfig {
        tls: credentials.and_then(|it| it.tls().unwrap()),
        on_event: count_connections(metrics, door),
        ..GuardConfig::default()
    };
    let incoming = guard(accepted(listener), config);
    let health = Health::new(&[CHAT]).await;
    health.set(true).await;
    let routes = health.add_to(Routes::new(ChatServiceServer::new(stub.clone())));
    let served = task::spawn("server", async move {
        serve(stack, routes, incoming).await.unwrap();
    });
    (address, served)
}

fn parts(credentials: &Credentials) -> UpstreamParts {
    let metrics = Metrics::new(BuildInfo::of("test"), UnixMillis(0));
    UpstreamParts {
        credentials: credentials.clone(),
        methods: Arc::new(Methods::standard().unwrap()),
        metrics: UpstreamMetrics::new(&metrics),
        network: Arc::new(Tcp),
        random: Arc::new(SystemRandom),
    }
}

fn with_secret(dir: &Path, text: &str) -> Credentials {
    let file = dir.join(format!("secret-{}", text.len()));
    std::fs::write(&file, text).unwrap();
    let secret = Some(file);
    let config = InnerConfig {
        secret,
        ..InnerConfig::default()
    };
    Credentials::load(config).unwrap()
}

/// A call without anything that this crate adds.
async fn bare(addr: SocketAddr, headers: &[(&'static str, &str)]) -> Result<String, Status> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).unwrap();
    let channel: Channel = endpoint.connect().await.unwrap();
    let mut request = Request::new(presence_of("bob"));
    for (name, value) in headers {
        request.metadata_mut().append(*name, value.parse().unwrap());
    }
    let answer = ChatServiceClient::new(channel).get_presence(request).await;
    Ok(answer?.into_inner().presence.unwrap().user)
}

async fn ask(upstream: &Upstream) -> Result<String, Status> {
    let mut client = ChatServiceClient::new(upstream.channel());
    let answer = client.get_presence(presence_of("bob")).await;
    Ok(answer?.into_inner().presence.unwrap().user)
}

/// Asks once the upstream is up.
async fn reach(upstream: &Upstream) -> Result<String, Status> {
    tokio::time::timeout(WAIT, upstream.ready()).await.unwrap();
    ask(upstream).await
}

/// Asks until the answer is that nobody can be reached.
async fn is_refused(upstream: &Upstream) {
    let mut changes = upstream.changes();
    while ask(upstream).await.unwrap_err().message() != "history cannot be reached now" {
        tokio::time::timeout(WAIT, changes.next()).await.unwrap();
    }
}

fn reason(status: &Status) -> String {
    status
        .get_error_details()
        .error_info()
        .unwrap()
        .reason
        .clone()
}

#[tokio::test]
async fn who_knows_the_secret_gets_in_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let ours = with_secret(dir.path(), SECRET);
    let process = Process::start(&ours).await;
    assert_eq!(
        reach(&process.upstream("http", &ours)).await.unwrap(),
        "a service"
    );
    // While it is being changed, either secret opens.
    let next = with_secret(dir.path(), &format!("{SECRET}-next\n{SECRET}\n"));
    let changing = Process::start(&next).await;
    assert_eq!(
        reach(&changing.upstream("http", &ours)).await.unwrap(),
        "a service"
    );
    assert_eq!(
        reach(&changing.upstream("http", &next)).await.unwrap(),
        "a service"
    );

    let calls = process.stub.calls();
    is_refused(&process.upstream("http", &Credentials::none())).await;
    let other = with_secret(dir.path(), &SECRET.replace('0', "f").repeat(2));
    is_refused(&process.upstream("http", &other)).await;
    let token = process.token();
    for headers in [
        vec![],
        vec![("authorization", format!("Bearer {token}"))],
        vec![("authorization", SECRET.to_owned())],
        vec![("authorization", format!("Bearer {SECRET}x"))],
        vec![("authorization", format!("Bearer {SECRET}")); 2],
        vec![
            ("x-user-id", "alice".to_owned()),
            ("x-service", "chat".to_owned()),
        ],
    ] {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, it)| (*name, it.as_str()))
            .collect();
        let refused = bare(process.inner, &headers).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{headers:?}");
        assert_eq!(reason(&refused), "NOT_A_SERVICE");
        assert!(!refused.message().contains(SECRET), "{refused:?}");
    }
    assert_eq!(process.stub.calls(), calls, "no handler was reached");
}

#[tokio::test]
async fn the_public_door_takes_tokens_only_whatever_headers_claim() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(&with_secret(dir.path(), SECRET)).await;
    let token = format!("Bearer {}", process.token());
    let claims = [
        ("x-user-id", "bob"),
        ("x-forwarded-user", "bob"),
        ("user", "bob"),
    ];
    let mut headers = vec![("authorization", token.as_str())];
    headers.extend(claims);
    assert_eq!(bare(process.public, &headers).await.unwrap(), "alice");

    let secret = format!("Bearer {SECRET}");
    headers[0].1 = &secret;
    let refused = bare(process.public, &headers).await.unwrap_err();
    assert_eq!(reason(&refused), "TOKEN_INVALID");
    let refused = bare(process.public, &claims).await.unwrap_err();
    assert_eq!(reason(&refused), "TOKEN_MISSING");
}

#[tokio::test]
async fn a_token_opens_nothing_on_a_listener_that_asks_for_nothing() {
    let process = Process::start(&Credentials::none()).await;
    let forged = [("x-user-id", "alice")];
    assert_eq!(bare(process.inner, &forged).await.unwrap(), "a service");
    let token = format!("Bearer {}", process.token());
    let refused = bare(process.inner, &[("authorization", &token)]).await;
    assert_eq!(reason(&refused.unwrap_err()), "NOT_A_SERVICE");
}

#[tokio::test]
async fn certificates_open_the_inner_door_and_are_counted_there() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ours = with_certificates(dir.path());
    let process = Process::start(&ours).await;
    assert_eq!(
        reach(&process.upstream("https", &ours)).await.unwrap(),
        "a service"
    );

    let calls = process.stub.calls();
    let stranger = with_certificates(other.path());
    is_refused(&process.upstream("https", &stranger)).await;
    is_refused(&process.upstream("http", &Credentials::none())).await;
    assert_eq!(process.stub.calls(), calls);
    // The scheme says whether TLS is meant.
    let plain = format!("http://{}", process.inner).parse().unwrap();
    let refused = Upstream::start(UpstreamConfig::new("history", plain), parts(&ours));
    assert!(matches!(
        refused.unwrap_err(),
        UpstreamError::Addresses("history", _)
    ));

    // Both doors drain with the process, each with numbers of its own.
    process.shutdown.trigger();
    for served in process.served {
        tokio::time::timeout(WAIT, served).await.unwrap().unwrap();
    }
    let text = process.metrics.encode().unwrap();
    let ok = "{service=\"duologue.chat.v1.ChatService\",method=\"GetPresence\",code=\"OK\"} 1\n";
    assert!(
        text.contains(&format!("duologue_inner_grpc_calls_total{ok}")),
        "{text}"
    );
    assert!(!text.contains("duologue_grpc_calls_total{"), "{text}");
    assert!(
        text.contains("duologue_inner_connections_open 0\n"),
        "{text}"
    );
    let failed = "duologue_inner_connections_total{event=\"handshake_failed\"} ";
    assert!(text.contains(failed), "{text}");
}

fn with_certificates(dir: &Path) -> Credentials {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let name = "services.internal".to_owned();
    let params = CertificateParams::new(vec![name.clone()]).unwrap();
    let cert = params.signed_by(&key, &authority).unwrap();
    let write = |file: &str, text: String| {
        let file = dir.join(file);
        std::fs::write(&file, text).unwrap();
        Some(file)
    };
    let tls = mutual_tls_files(
        write("cert.pem", cert.pem()),
        write("key.pem", key.serialize_pem()),
        write("ca.pem", authority.pem()),
    );
    let config = InnerConfig {
        tls,
        peers: vec![name],
        secret: None,
    };
    Credentials::load(config).unwrap()
}
