//! The system: chat over memory, behind a gateway that listens on a free port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use duologue::ports::{LocalHistory, LocalPresence};
use duologue_chat::{Chat, ChatConfig, Parts, Visibility};
use duologue_gateway::websocket::{DEFAULT_MAX_WAITING_PER_ADDRESS, WebSocketConfig, WebSockets};
use duologue_gateway::{Gateway, GatewayParts, Origins, Upstream};
use duologue_history::history::History;
use duologue_history::memory::MemoryStore;
use duologue_presence::Presence;
use duologue_proto::ids::{NodeId, UnixMillis, UserId};
use duologue_runtime::auth::{AuthError, Identity, bearer};
use duologue_runtime::clock::{Clock, SystemClock, SystemRandom};
use duologue_runtime::listener::{self, GuardConfig, Seats};
use duologue_runtime::metrics::{BuildInfo, Metrics};
use duologue_runtime::rate::RateLimit;
use duologue_runtime::server::{Methods, Stack};
use duologue_runtime::shutdown::Shutdown;
use duologue_runtime::task;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::codegen::http::HeaderMap;
use tonic::service::Routes;

/// How long it has to drain.
const GRACE: Duration = Duration::from_secs(20);

pub(crate) struct System {
    pub(crate) addr: SocketAddr,
    pub(crate) chat: Chat,
    pub(crate) shutdown: Shutdown,
    pub(crate) metrics: Metrics,
    pub(crate) served: JoinHandle<()>,
}

impl System {
    pub(crate) async fn start() -> Self {
        Self::with(config()).await
    }

    pub(crate) async fn with(config: ChatConfig) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = MemoryStore::new(Arc::clone(&clock), &SystemRandom);
        let metrics = Metrics::new(BuildInfo::of("test"), UnixMillis(0));
        let shutdown = Shutdown::new(GRACE);
        let parts = Parts {
            history: Arc::new(LocalHistory(History::new(Arc::new(store), clock))),
            presence: Arc::new(LocalPresence(Presence::in_one_process(Arc::new(
                SystemClock,
            )))),
            relay: None,
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            metrics: metrics.clone(),
        };
        let chat = Chat::start(config, parts).await.unwrap();
        let methods = Methods::standard().unwrap();
        let stack = Stack::new(methods, &metrics, Arc::new(identity), shutdown.clone());
        let upstream = Upstream::new(stack.service(Routes::new(chat.server())));
        let sockets = WebSockets::new(WebSocketConfig {
            upstream: upstream.clone(),
            metrics: metrics.clone(),
            max_waiting_per_address: DEFAULT_MAX_WAITING_PER_ADDRESS,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let gateway = Gateway::new(GatewayParts {
            upstream,
            sockets: sockets.unwrap(),
            origins: Origins::own(addr, false),
            proxies: duologue_runtime::listener::Proxies::default(),
            requests_per_address: RateLimit {
                per_second: 10_000,
                burst: 10_000,
            },
            dev_tokens: None,
        });
        let guard = GuardConfig {
            seats: Seats::new(20_000, 20_000),
            ..GuardConfig::default()
        };
        let incoming = listener::guard(listener::accepted(listener), guard);
        let serving = duologue_gateway::serve(gateway, incoming, shutdown.clone());
        Self {
            addr,
            chat,
            shutdown,
            metrics,
            served: task::spawn("gateway", serving),
        }
    }

    /// The value of a series of the metrics.
    pub(crate) fn number(&self, series: &str) -> u64 {
        let text = self.metrics.encode().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.map_or(0, |value| value.trim().parse().unwrap())
    }
}

/// Users say who they are: tokens are another matter.
fn identity(headers: &HeaderMap) -> Result<Identity, AuthError> {
    let user = UserId::parse(bearer(headers)?).map_err(AuthError::BadSubject)?;
    let expires_at = SystemClock.now().plus(Duration::from_hours(1));
    Ok(Identity { user, expires_at })
}

pub(crate) fn config() -> ChatConfig {
    let rate = RateLimit {
        per_second: 10_000,
        burst: 10_000,
    };
    ChatConfig {
        node: NodeId::parse("node").unwrap(),
        max_text_bytes: 8_192,
        visibility: Visibility::Everyone,
        sends: rate,
        connects: rate,
        sessions_per_user: 10_000,
        sessions_per_address: 20_000,
    }
}
