//! Calls of another service, which has several replicas that come and go.
//!
//! An [`Upstream`] keeps one connection to each replica and knows which of them
//! can be called. Calls go round those, or to the one that a key belongs to. With
//! nobody to ask they fail at once, while the keepers of the connections go on
//! trying: that is the circuit. A call is bound by the deadline of the call on
//! whose behalf it is made, carries its trace and our credentials, and is tried
//! again only where it may be, within a budget.
//!
//! It knows nothing of what is asked.

mod address;
mod call;
mod keeper;
mod metrics;
mod network;
mod replicas;
mod retry;
mod view;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use crate::admin::ReadinessHandle;
use crate::clock::Random;
use crate::inner::{Credentials, InnerError};
use crate::server::Methods;
use crate::task;
pub use address::{Address, Addresses, MAX_ENDPOINTS};
use call::Call;
use keeper::Keepers;
pub use metrics::UpstreamMetrics;
use network::Way;
pub use network::{Io, Network, Tcp, Windows};
use retry::RetryBudget;
pub use retry::{MAX_TRIES, RETRY_MAX, RETRY_PERCENT, RETRY_RESERVE_PER_SECOND};
use view::{By, Choice, View};

/// How long connecting to a replica may take, TLS included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that is silent for this long is asked whether it lives.
pub const UPSTREAM_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// A connection that does not answer for this long is closed.
pub const UPSTREAM_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a replica is asked whether it serves.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// A replica that does not say for this long is not called.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// How often the addresses of a name are looked up.
pub const RESOLVE_INTERVAL: Duration = Duration::from_secs(5);
/// They are not looked up again sooner, whatever fails.
pub const RESOLVE_PAUSE: Duration = Duration::from_secs(1);
/// The longest wait before a replica is first tried again; it doubles.
const RECONNECT_BASE: Duration = Duration::from_millis(100);
/// The longest wait before a replica is tried again; none if its connection lasted as long
/// and ended well.
pub const RECONNECT_MAX: Duration = Duration::from_secs(2);
/// Longest request and longest answer of a unary call, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// How long a unary call may take, unless configured otherwise.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);

/// Which service, and how it is called.
#[derive(Debug, Clone)]
pub struct UpstreamConfig {
    /// What it is called in logs, metrics and readiness.
    pub name: &'static str,
    /// Where it is.
    pub addresses: Addresses,
    /// How long a unary call may take, retries included.
    pub deadline: Duration,
    /// What may be in flight towards us.
    pub windows: Windows,
}

impl UpstreamConfig {
    /// With the usual deadline and windows.
    pub fn new(name: &'static str, addresses: Addresses) -> Self {
        Self {
            name,
            addresses,
            deadline: DEFAULT_DEADLINE,
            windows: Windows::default(),
        }
    }
}

/// What upstreams share.
#[derive(Clone)]
pub struct UpstreamParts {
    /// What is shown to the other service, and asked of it.
    pub credentials: Credentials,
    /// The methods that services offer each other.
    pub methods: Arc<Methods>,
    /// Where calls are counted.
    pub metrics: UpstreamMetrics,
    /// What replicas are reached over.
    pub network: Arc<dyn Network>,
    /// For jitter.
    pub random: Arc<dyn Random>,
}

impl fmt::Debug for UpstreamParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamParts")
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

/// Why a service cannot be called by this configuration.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The addresses do not fit the credentials.
    #[error("--{0} {1}")]
    Addresses(&'static str, String),
    /// The credentials cannot be used.
    #[error(transparent)]
    Credentials(#[from] InnerError),
}

/// Another service. Clones share its connections, which end with the last of them.
#[derive(Debug, Clone)]
pub struct Upstream {
    shared: Arc<Shared>,
    running: Arc<Running>,
}

struct Shared {
    name: &'static str,
    deadline: Duration,
    credentials: Credentials,
    methods: Arc<Methods>,
    metrics: UpstreamMetrics,
    random: Arc<dyn Random>,
    budget: RetryBudget,
    turn: AtomicUsize,
    view: watch::Receiver<View>,
}

#[derive(Debug)]
struct Running([JoinHandle<()>; 2]);

impl Drop for Running {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl Upstream {
    /// Begins to connect; it does not wait.
    pub fn start(config: UpstreamConfig, parts: UpstreamParts) -> Result<Self, UpstreamError> {
        let tls = parts.credentials.client_tls()?;
        let UpstreamConfig {
            name,
            addresses,
            deadline,
            windows,
        } = config;
        addresses
            .check(tls.is_some(), parts.credentials.tls_flag())
            .map_err(|error| UpstreamError::Addresses(name, error))?;
        let (sender, view) = watch::channel(View::of(&addresses));
        let keepers = Arc::new(Keepers {
            name,
            network: parts.network,
            credentials: parts.credentials.clone(),
            way: Way::of(&addresses, tls, windows),
            random: Arc::clone(&parts.random),
            view: sender,
            failed: Notify::new(),
        });
        let shown = show(name, parts.metrics.clone(), view.clone());
        let running = Running([
            task::spawn("upstream", replicas::run(keepers, addresses)),
            task::spawn("upstream metrics", shown),
        ]);
        let shared = Shared {
            name,
            deadline,
            credentials: parts.credentials,
            methods: parts.methods,
            metrics: parts.metrics,
            random: parts.random,
            budget: RetryBudget::new(),
            turn: AtomicUsize::new(0),
            view,
        };
        Ok(Self {
            shared: Arc::new(shared),
            running: Arc::new(running),
        })
    }

    /// For calls that any replica may answer: what generated clients are made of.
    pub fn channel(&self) -> UpstreamChannel {
        self.to(Target::Any)
    }

    /// The replica that a key belongs to, among those that are up; the same one on
    /// every node that sees the same replicas.
    pub fn pick(&self, key: &[u8]) -> Result<Replica, Status> {
        match self.shared.view.borrow().choose(By::Key(key)) {
            Choice::Call(address, _) => Ok(self.replica(&address)),
            Choice::Wait | Choice::Fail => Err(self.shared.unreachable()),
        }
    }

    /// Every replica that is up.
    pub fn up(&self) -> Vec<Replica> {
        let view = self.shared.view.borrow();
        view.up()
            .map(|(address, _)| self.replica(address))
            .collect()
    }

    /// Every replica that is known: of a list all from the start, of a name those
    /// that it means now.
    pub fn known(&self) -> Vec<Replica> {
        let view = self.shared.view.borrow();
        view.addresses().map(|it| self.replica(it)).collect()
    }

    /// Waits until a replica can be called.
    pub async fn ready(&self) {
        let mut view = self.shared.view.clone();
        // It ends only with the upstream, which this borrows.
        let _ = view.wait_for(|view| view.trouble().is_none()).await;
    }

    /// Waits until something changes about the replicas.
    pub fn changes(&self) -> Changes {
        Changes(self.shared.view.clone())
    }

    /// Reports on the service for as long as it is polled: ready while a replica
    /// can be called.
    pub fn keep_readiness(
        &self,
        readiness: ReadinessHandle,
    ) -> impl Future<Output = ()> + Send + use<> {
        let mut view = self.shared.view.clone();
        async move {
            loop {
                match view.borrow_and_update().trouble() {
                    None => readiness.set_ready(),
                    Some(trouble) => readiness.set_failing(trouble),
                }
                if view.changed().await.is_err() {
                    return;
                }
            }
        }
    }

    fn replica(&self, address: &Address) -> Replica {
        Replica {
            address: address.clone(),
            channel: self.to(Target::One(address.clone())),
        }
    }

    fn to(&self, target: Target) -> UpstreamChannel {
        UpstreamChannel {
            call: Call {
                shared: Arc::clone(&self.shared),
                target,
                idempotent: false,
            },
            _running: Arc::clone(&self.running),
        }
    }
}

impl Shared {
    fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

async fn show(name: &'static str, metrics: UpstreamMetrics, mut view: watch::Receiver<View>) {
    loop {
        metrics.show(name, view.borrow_and_update().count());
        if view.changed().await.is_err() {
            return;
        }
    }
}

/// One replica.
#[derive(Debug, Clone)]
pub struct Replica {
    /// Which one.
    pub address: Address,
    /// Calls it and nobody else, over whichever connection there is to it.
    pub channel: UpstreamChannel,
}

/// Tells of changes among the replicas.
#[derive(Debug)]
pub struct Changes(watch::Receiver<View>);

impl Changes {
    /// Ends at the next change, or at once if there was one since the last; false
    /// once the upstream is gone.
    pub async fn next(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

/// Whom a channel calls.
#[derive(Debug, Clone)]
enum Target {
    Any,
    One(Address),
}

/// What a generated client makes its calls by: `HistoryServiceClient::new(channel)`.
#[derive(Debug, Clone)]
pub struct UpstreamChannel {
    call: Call,
    _running: Arc<Running>,
}

impl UpstreamChannel {
    /// Lets unary calls be made more than once, if it is not known whether they
    /// took effect. Only for calls where that changes nothing.
    #[must_use]
    pub fn idempotent(mut self) -> Self {
        self.call.idempotent = true;
        self
    }
}

impl Service<Request<Body>> for UpstreamChannel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.call.clone().run(request))
    }
}
