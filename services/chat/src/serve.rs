//! One chat node as a process of its own, beside history and presence.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use duologue_proto::ids::UserId;
use duologue_runtime::admin::ReadinessHandle;
use duologue_runtime::auth::{TokenRules, Verifier, load_keys};
use duologue_runtime::clock::{Random, SystemClock, SystemRandom};
use duologue_runtime::inner::Credentials;
use duologue_runtime::listener;
use duologue_runtime::metrics::BuildInfo;
use duologue_runtime::process::{InnerDoor, Process, ProcessError, bind, print_ready};
use duologue_runtime::rate::RateLimiter;
use duologue_runtime::server::{self, Door, Health, Methods, Stack};
use duologue_runtime::shutdown::Shutdown;
use duologue_runtime::task;
use duologue_runtime::upstream::{
    Addresses, Tcp, Upstream, UpstreamConfig, UpstreamMetrics, UpstreamParts,
};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::chat::Chat;
pub use crate::config::ServeConfig;
use crate::core::{OtherNodes, Parts};
use crate::ports::{Channel, Dial, InvalidAddress, Nodes};
use crate::remote::{RemoteHistory, RemotePresence, Replica};

/// Which program this is.
pub const BUILD: BuildInfo = BuildInfo::of("duologue-chat");
/// The service as health names it.
const SERVICE: &str = "duologue.chat.v1.ChatService";
/// How soon history is asked again for its id, which a node needs to begin.
const START_PAUSE: Duration = Duration::from_secs(1);
/// How soon a lost lease shows in readiness.
const LEASE_LOOK: Duration = Duration::from_secs(1);

/// Where a process is called.
#[derive(Debug)]
pub struct Listeners {
    /// By users.
    pub public: TcpListener,
    /// By other nodes.
    pub inner: TcpListener,
    /// By operators.
    pub admin: TcpListener,
}

/// Listens, and serves until a signal.
pub async fn run(config: ServeConfig, shutdown: Shutdown) -> Result<(), ProcessError> {
    let listeners = Listeners {
        public: bind(config.public.grpc_listen).await?,
        inner: bind(config.inner.internal_listen).await?,
        admin: bind(config.process.admin_listen).await?,
    };
    Box::pin(serve(config, listeners, shutdown)).await
}

/// Serves until the process has drained, in this order: not ready, sessions moved on,
/// calls ended, numbers last.
pub async fn serve(
    config: ServeConfig,
    listeners: Listeners,
    shutdown: Shutdown,
) -> Result<(), ProcessError> {
    config.public.warn();
    let credentials = config.inner.credentials()?;
    let process = Process::new(BUILD, shutdown);
    let services = Services::start(&config, &credentials, &process)?;
    let places = places(&listeners)?;
    // Before the others are there: who waits for this node sees what it waits for.
    let served = CancellationToken::new();
    let admin = process.admin(listeners.admin, served.clone());
    let mut beside = services.beside();
    let address = config.internal_advertise.clone();
    let address = address.unwrap_or_else(|| places[1].1.clone());
    let result = match begin(&config, &services, &address).await {
        Some((chat, _followers)) => {
            let doors = Doors {
                public: listeners.public,
                inner: listeners.inner,
                credentials,
            };
            print_ready(BUILD, &places);
            doors.serve(&config, &process, chat).await
        }
        None => Ok(()),
    };
    beside.shutdown().await;
    served.cancel();
    admin.await?;
    tracing::info!("ended");
    result
}

fn places(listeners: &Listeners) -> Result<[(&'static str, String); 3], ProcessError> {
    Ok([
        ("gRPC", listeners.public.local_addr()?.to_string()),
        ("internal", listeners.inner.local_addr()?.to_string()),
        ("admin", format!("http://{}", listeners.admin.local_addr()?)),
    ])
}

/// The services that a node calls.
struct Services {
    history: Upstream,
    presence: Upstream,
    process: Process,
    /// For calls of other nodes.
    calls: UpstreamParts,
}

impl Services {
    fn start(
        config: &ServeConfig,
        credentials: &Credentials,
        process: &Process,
    ) -> Result<Self, ProcessError> {
        let parts = UpstreamParts {
            credentials: credentials.clone(),
            methods: Arc::new(Methods::inner()?),
            metrics: UpstreamMetrics::new(&process.metrics),
            network: Arc::new(Tcp),
            random: Arc::new(SystemRandom),
        };
        let start = |name, addresses: &Addresses| {
            let upstream = UpstreamConfig::new(name, addresses.clone());
            Upstream::start(upstream, parts.clone())
        };
        Ok(Self {
            history: start("history", &config.history)?,
            presence: start("presence", &config.presence)?,
            process: process.clone(),
            calls: parts.clone(),
        })
    }

    /// What reports on them, until it is dropped.
    fn beside(&self) -> JoinSet<()> {
        let mut beside = JoinSet::new();
        for (name, upstream) in [("history", &self.history), ("presence", &self.presence)] {
            let readiness = self.process.readiness.register(name);
            beside.spawn(upstream.keep_readiness(readiness));
        }
        beside
    }

    /// What the node is made of, and what keeps it told where the services are.
    fn parts(&self, address: &str) -> (Parts, JoinSet<()>) {
        let random: Arc<dyn Random> = Arc::new(SystemRandom);
        let history = Arc::new(RemoteHistory::new(replicas(&self.history), &random));
        let presence = Arc::new(RemotePresence::new(
            replicas(&self.presence),
            Arc::clone(&random),
        ));
        let mut followers = JoinSet::new();
        let follower = Arc::clone(&history);
        followers.spawn(follow(self.history.clone(), move |replicas| {
            follower.set_replicas(replicas);
        }));
        let follower = Arc::clone(&presence);
        followers.spawn(follow(self.presence.clone(), move |replicas| {
            follower.set_replicas(replicas);
        }));
        let others = OtherNodes {
            nodes: Arc::clone(&presence) as Arc<dyn Nodes>,
            address: address.to_owned(),
            dial: self.dial(),
        };
        let parts = Parts {
            history,
            presence,
            relay: Some(others),
            clock: Arc::new(SystemClock),
            random,
            metrics: self.process.metrics.clone(),
        };
        (parts, followers)
    }

    /// The way to another node, with what services show each other.
    fn dial(&self) -> Dial {
        let parts = self.calls.clone();
        Arc::new(move |address| {
            let addresses = Addresses::at(address).ok_or(InvalidAddress)?;
            let config = UpstreamConfig::new("chat", addresses);
            let node = Upstream::start(config, parts.clone()).map_err(|_| InvalidAddress)?;
            Ok(Channel::new(node.channel()))
        })
    }
}

/// Tells which replicas there are, and again whenever there are others.
async fn follow(upstream: Upstream, tell: impl Fn(Vec<Replica>) + Send) {
    let names = |replicas: &[Replica]| {
        let names = replicas.iter().map(|replica| replica.name.clone());
        names.collect::<Vec<_>>()
    };
    let mut changes = upstream.changes();
    let mut told = Vec::new();
    loop {
        let now = replicas(&upstream);
        if names(&now) != told {
            told = names(&now);
            tell(now);
        }
        if !changes.next().await {
            return;
        }
    }
}

/// Unary calls of both services may be repeated: each says by its content what it
/// replaces, and does nothing the second time.
fn replicas(upstream: &Upstream) -> Vec<Replica> {
    let known = upstream.known().into_iter().map(|replica| Replica {
        name: replica.address.to_string(),
        connection: replica.channel.idempotent(),
    });
    known.collect()
}

/// The node, once history says which history it is; none if the process is to end
/// before that.
async fn begin(
    config: &ServeConfig,
    services: &Services,
    address: &str,
) -> Option<(Chat, JoinSet<()>)> {
    let chat_config = config.chat.config(false);
    let beginning = async {
        loop {
            services.history.ready().await;
            let (parts, followers) = services.parts(address);
            match Chat::start(chat_config.clone(), parts).await {
                Ok(chat) => return (chat, followers),
                Err(error) => tracing::warn!(%error, "history does not say which it is yet"),
            }
            tokio::time::sleep(START_PAUSE).await;
        }
    };
    tokio::select! {
        begun = beginning => Some(begun),
        () = services.process.shutdown.leaving() => None,
    }
}

/// Both doors of a node.
struct Doors {
    public: TcpListener,
    inner: TcpListener,
    credentials: Credentials,
}

impl Doors {
    async fn serve(
        self,
        config: &ServeConfig,
        process: &Process,
        chat: Chat,
    ) -> Result<(), ProcessError> {
        let (outer, inner) = (Health::new(&[SERVICE]).await, Health::new(&[]).await);
        let door = InnerDoor {
            listener: self.inner,
            credentials: self.credentials,
            routes: inner.add_to(Routes::new(chat.relay_server())),
        };
        let drain = task::spawn(
            "drain",
            drain(
                process.clone(),
                chat.clone(),
                [outer.clone(), inner.clone()],
                config.chat.drain_spread,
            ),
        );
        let found = process.readiness.register("lease");
        let finding = task::spawn("lease readiness", watch_lease(chat.clone(), found));
        let public = public(config, process, &chat, &outer, self.public)?;
        process.open(&[&outer, &inner]).await;
        let served = tokio::join!(public, door.serve(&config.process, process));
        // They may have ended by themselves.
        process.shutdown.trigger();
        drain.await?;
        finding.abort();
        served.0.and(served.1)
    }
}

/// Whether other nodes find this one shows in readiness: else its users miss what is
/// relayed until they are synced.
async fn watch_lease(chat: Chat, readiness: ReadinessHandle) {
    loop {
        if chat.is_found() {
            readiness.set_ready();
        } else {
            readiness.set_failing("the node's lease is lost");
        }
        tokio::time::sleep(LEASE_LOOK).await;
    }
}

/// The door for users.
fn public(
    config: &ServeConfig,
    process: &Process,
    chat: &Chat,
    health: &Health,
    listener: TcpListener,
) -> Result<impl Future<Output = Result<(), ProcessError>>, ProcessError> {
    let public = &config.public;
    let rules = TokenRules {
        issuers: public.jwt_issuer.clone(),
        audiences: public.jwt_audience.clone(),
    };
    let keys = load_keys(&public.jwt_public_key)?;
    let verifier = Verifier::new(keys, rules, Arc::new(SystemClock));
    let stack = Stack::new(
        Methods::standard()?,
        &process.metrics,
        server::authenticate_by_token(verifier),
        process.shutdown.clone(),
    )
    .behind(public.door.proxies())
    .admit(server::admit_by_rate(RateLimiter::<UserId>::new(
        public.calls,
    )))
    .unary_deadline(config.process.unary_deadline);
    let mut routes = health.add_to(Routes::new(chat.server()));
    if !public.no_reflection {
        routes = server::add_reflection(routes)?;
    }
    let tls = public.door.tls()?;
    let fresh = tls
        .as_ref()
        .map(|tls| task::spawn("tls reload", tls.keep_fresh()));
    let seats = public.door.seats(config.process.connections);
    let guard = process.guard(seats, Door::Public, tls);
    let incoming = listener::guard(listener::accepted(listener), guard);
    Ok(async move {
        let served = server::serve_behind(stack, routes, incoming).await;
        if let Some(fresh) = fresh {
            fresh.abort();
        }
        Ok(served?)
    })
}

/// Moves the sessions on when the process is told to end, for at most the grace
/// period.
async fn drain(process: Process, chat: Chat, health: [Health; 2], spread: Duration) {
    let [outer, inner] = health;
    process.close(&[&outer]).await;
    // Until here other nodes had something to tell.
    inner.set(false).await;
    let spread = process.shutdown.within(spread);
    tokio::select! {
        biased;
        () = chat.drain(spread) => tracing::info!("every session has ended"),
        () = process.shutdown.stopped() => {
            tracing::warn!(sessions = chat.sessions(), "the grace period is over");
        }
    }
}
