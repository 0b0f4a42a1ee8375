//! Several chat nodes over one history and one directory, each with a presence of its
//! own, connected by nothing but the relay over sockets that a test can cut.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use duologue::ports::{LocalHistory, LocalPresence};
use duologue_chat::ports::{self, Dial, InvalidAddress, Nodes, channel};
use duologue_chat::{Chat as Node, OtherNodes, Parts};
use duologue_history::history::History;
use duologue_history::memory::MemoryStore;
use duologue_presence::directory::{Directory, Lease, Renewed};
use duologue_presence::lease::{Observer, POLL_INTERVAL};
use duologue_presence::{MemoryDirectory, Nodes as Known, Presence};
use duologue_proto::ids::{NodeId, UnixMillis, UserId};
use duologue_proto::presence::{NodeInfo, PresenceError, Registered, Route, UserPresence};
use duologue_runtime::clock::{Clock, SystemClock, SystemRandom};
use duologue_runtime::metrics::{BuildInfo, Metrics};
use duologue_runtime::server::{self, Methods, Stack};
use duologue_runtime::shutdown::Shutdown;
use duologue_runtime::task;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::transport::{Endpoint, Server};

use crate::support::Chat;
use crate::support::node::{chat_at, config, identity};

/// What the nodes share.
pub(super) struct Cluster {
    pub(super) history: History,
    pub(super) directory: Arc<MemoryDirectory>,
}

/// One node, and the switches of a test.
pub(super) struct Running {
    /// Where devices connect.
    pub(super) address: SocketAddr,
    pub(super) node: Node,
    /// How others reach this node.
    pub(super) wire: Arc<watch::Sender<Wire>>,
    pub(super) gate: Arc<Gate>,
    metrics: Metrics,
}

/// The way to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    Whole,
    /// Connections end, and there are no new ones.
    Cut,
    /// Nothing is carried, and nobody is told: connections of now stay so for good.
    Silent,
}

/// Presence as a node meets it, with switches.
pub(super) struct Gate {
    presence: LocalPresence,
    /// Whether leases are taken and renewed.
    pub(super) renews: AtomicBool,
    /// Whether registrations are confirmed: what is in force is so before.
    pub(super) confirms: watch::Sender<bool>,
}

impl Cluster {
    pub(super) fn new() -> Arc<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = MemoryStore::new(Arc::clone(&clock), &SystemRandom);
        Arc::new(Self {
            history: History::new(Arc::new(store), clock),
            directory: Arc::new(MemoryDirectory::new()),
        })
    }

    /// Starts a node.
    pub(super) async fn start(&self, name: &str) -> Running {
        self.start_as(name, true).await
    }

    /// Starts a node that relays nothing: as one that is killed after each append.
    pub(super) async fn start_mute(&self, name: &str) -> Running {
        self.start_as(name, false).await
    }

    async fn start_as(&self, name: &str, relays: bool) -> Running {
        let known = Known::Observed(Mutex::new(Observer::default()));
        let directory: Arc<dyn Directory> = self.directory.clone();
        let presence = Presence::new(directory, known, Arc::new(SystemClock));
        task::spawn("observer", observe(presence.clone()));
        let gate = Arc::new(Gate {
            presence: LocalPresence(presence),
            renews: AtomicBool::new(true),
            confirms: watch::Sender::new(true),
        });
        let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let wire = Arc::new(watch::Sender::new(Wire::Whole));
        let relay_address = wired(relay.local_addr().unwrap(), Arc::clone(&wire)).await;
        let others = OtherNodes {
            nodes: Arc::clone(&gate) as Arc<dyn Nodes>,
            address: relay_address.to_string(),
            dial: dial(),
        };
        let metrics = Metrics::new(BuildInfo::of("test"), UnixMillis(0));
        let parts = Parts {
            history: Arc::new(LocalHistory(self.history.clone())),
            presence: Arc::clone(&gate) as Arc<dyn ports::Presence>,
            relay: relays.then_some(others),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            metrics: metrics.clone(),
        };
        let node = NodeId::parse(name).unwrap();
        let node = Node::start(config(node), parts).await.unwrap();
        let relayed = Server::builder()
            .add_service(node.relay_server())
            .serve_with_incoming(TcpListenerStream::new(relay));
        task::spawn("relay server", async move { relayed.await.unwrap() });
        Running {
            address: serve(&node, &metrics).await,
            node,
            wire,
            gate,
            metrics,
        }
    }

    /// The routes of a user, as the rows have them.
    pub(super) async fn routes(&self, user: &str) -> Vec<Route> {
        let users = [UserId::parse(user).unwrap()];
        let mut rows = self.directory.lookup(&users).await.unwrap();
        rows.remove(0).routes
    }
}

impl Running {
    /// A client of this node.
    pub(super) async fn chat(&self, user: &str) -> Chat {
        chat_at(self.address, user).await
    }

    /// How many batches the other nodes have acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        let metrics = self.metrics.encode().unwrap();
        let lines = metrics.lines().filter_map(|line| line.split_once(' '));
        let mut values = lines.filter(|(name, _)| *name == "duologue_chat_relay_batches_total");
        values.next().map_or(0, |(_, value)| value.parse().unwrap())
    }
}

/// Serves devices.
async fn serve(node: &Node, metrics: &Metrics) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let methods = Methods::standard().unwrap();
    let shutdown = Shutdown::new(Duration::ZERO);
    let stack = Stack::new(methods, metrics, Arc::new(identity), shutdown);
    let routes = Routes::new(node.server());
    let serve = server::serve(stack, routes, TcpListenerStream::new(listener));
    task::spawn("node", async move { serve.await.unwrap() });
    address
}

async fn observe(presence: Presence) {
    loop {
        presence.observe().await.unwrap();
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The way to another node, in the clear.
fn dial() -> Dial {
    Arc::new(|address| {
        let endpoint = Endpoint::from_shared(format!("http://{address}"));
        let endpoint = endpoint.map_err(|_| InvalidAddress)?;
        Ok(channel(endpoint.connect_lazy()))
    })
}

/// An address in front of another.
async fn wired(target: SocketAddr, wire: Arc<watch::Sender<Wire>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    task::spawn("wire", async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let mut wire = wire.subscribe();
            task::spawn("connection", async move {
                let carried = async {
                    let mut to = TcpStream::connect(target).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                };
                let broken = async {
                    let wire = wire.wait_for(|wire| *wire != Wire::Whole).await;
                    wire.map_or(Wire::Cut, |wire| *wire)
                };
                let wire = tokio::select! {
                    biased;
                    wire = broken => wire,
                    () = carried => Wire::Cut,
                };
                if wire == Wire::Silent {
                    std::future::pending::<()>().await;
                }
                drop(from);
            });
        }
    });
    address
}

fn unavailable() -> PresenceError {
    PresenceError::Unavailable { retry_after: None }
}

impl Gate {
    fn renews(&self) -> Result<(), PresenceError> {
        let renews = self.renews.load(Ordering::SeqCst);
        renews.then_some(()).ok_or_else(unavailable)
    }
}

#[async_trait]
impl Nodes for Gate {
    async fn nodes(&self) -> Result<Vec<NodeInfo>, PresenceError> {
        self.presence.nodes().await
    }

    async fn take_lease(&self, lease: &Lease) -> Result<(), PresenceError> {
        self.renews()?;
        self.presence.take_lease(lease).await
    }

    async fn renew_lease(&self, lease: &Lease) -> Result<Renewed, PresenceError> {
        self.renews()?;
        self.presence.renew_lease(lease).await
    }

    async fn forget_lease(&self, lease: &Lease) -> Result<bool, PresenceError> {
        self.presence.forget_lease(lease).await
    }

    async fn remove_route(&self, route: &Route) -> Result<bool, PresenceError> {
        self.presence.remove_route(route).await
    }
}

#[async_trait]
impl ports::Presence for Gate {
    async fn register(&self, route: Route) -> Result<Registered, PresenceError> {
        let registered = self.presence.register(route).await;
        let mut confirms = self.confirms.subscribe();
        confirms.wait_for(|confirms| *confirms).await.unwrap();
        registered
    }

    async fn release(&self, route: &Route) -> Result<(), PresenceError> {
        self.presence.release(route).await
    }

    async fn routes(&self, user: &UserId) -> Result<Vec<Route>, PresenceError> {
        self.presence.routes(user).await
    }

    async fn presence(&self, users: &[UserId]) -> Result<Vec<UserPresence>, PresenceError> {
        self.presence.presence(users).await
    }

    async fn online(
        &self,
        after: Option<&UserId>,
        max: usize,
    ) -> Result<Vec<UserPresence>, PresenceError> {
        self.presence.online(after, max).await
    }

    fn watch(&self) -> broadcast::Receiver<UserPresence> {
        self.presence.watch()
    }
}
