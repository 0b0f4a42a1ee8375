//! The remote ports against replicas that do what a test says, over connections that
//! are no sockets: so that time can be paused.

mod append;
mod presence;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use duologue_proto::ids::{UnixMillis, UserId};
use duologue_runtime::clock::SeededRandom;
use duologue_runtime::inner::Credentials;
use duologue_runtime::metrics::{BuildInfo, Metrics};
use duologue_runtime::server::Methods;
use duologue_runtime::task;
use duologue_runtime::upstream::{
    Address, Io, Network, Upstream, UpstreamConfig, UpstreamMetrics, UpstreamParts,
};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::transport::Server;

use super::*;

/// Bytes on their way in one direction.
const WIRE_BYTES: usize = 64 * 1024;

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn random() -> Arc<dyn Random> {
    Arc::new(SeededRandom::new(7))
}

/// What must not take for ever, in paused time.
async fn soon<F: Future>(future: F) -> F::Output {
    let ended = tokio::time::timeout(Duration::from_hours(1), future).await;
    ended.expect("it ends")
}

/// A server that can be cut off from its clients, and reached again.
struct Place {
    replica: Replica,
    up: Arc<AtomicBool>,
    /// What carries the bytes of each connection.
    carriers: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Place {
    fn new(name: &str, routes: Routes) -> Self {
        let (connections, incoming) = mpsc::channel::<std::io::Result<DuplexStream>>(8);
        task::spawn("replica", async move {
            let server = Server::builder().add_routes(routes);
            let incoming = ReceiverStream::new(incoming);
            server.serve_with_incoming(incoming).await.unwrap();
        });
        let up = Arc::new(AtomicBool::new(true));
        let carriers = Arc::<Mutex<Vec<_>>>::default();
        let network = Cable {
            connections,
            up: Arc::clone(&up),
            carriers: Arc::clone(&carriers),
        };
        let addresses = format!("http://{name}:1").parse().unwrap();
        let upstream = Upstream::start(UpstreamConfig::new("replica", addresses), parts(network));
        let replica = Replica {
            name: name.to_owned(),
            connection: upstream.unwrap().channel(),
        };
        Self {
            replica,
            up,
            carriers,
        }
    }

    /// Cuts every connection; there are no new ones until it is up.
    fn kill(&self) {
        self.up.store(false, Ordering::SeqCst);
        let mut carriers = self.carriers.lock().unwrap_or_else(PoisonError::into_inner);
        carriers.drain(..).for_each(|carrier| carrier.abort());
    }

    fn revive(&self) {
        self.up.store(true, Ordering::SeqCst);
    }
}

/// The way to a place.
struct Cable {
    connections: mpsc::Sender<std::io::Result<DuplexStream>>,
    up: Arc<AtomicBool>,
    carriers: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

#[tonic::async_trait]
impl Network for Cable {
    async fn connect(&self, _address: &Address) -> std::io::Result<Box<dyn Io>> {
        if !self.up.load(Ordering::SeqCst) {
            return Err(std::io::Error::other("nobody listens"));
        }
        let (client, mut near) = tokio::io::duplex(WIRE_BYTES);
        let (mut far, server) = tokio::io::duplex(WIRE_BYTES);
        self.connections.send(Ok(server)).await.unwrap();
        let carrier = task::spawn("carrier", async move {
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
        let mut carriers = self.carriers.lock().unwrap_or_else(PoisonError::into_inner);
        carriers.push(carrier);
        Ok(Box::new(client))
    }

    async fn resolve(&self, _name: &str) -> std::io::Result<Vec<SocketAddr>> {
        Err(std::io::Error::other("there are no names"))
    }
}

fn parts(network: Cable) -> UpstreamParts {
    let metrics = Metrics::new(BuildInfo::of("test"), UnixMillis(0));
    UpstreamParts {
        credentials: Credentials::none(),
        methods: Arc::new(Methods::inner().unwrap()),
        metrics: UpstreamMetrics::new(&metrics),
        network: Arc::new(network),
        random: random(),
    }
}

#[test]
fn pauses_are_spread_below_a_bound_that_doubles_up_to_a_limit() {
    let random = SeededRandom::new(1);
    let longest = |failures| {
        let pauses = (0..1_000).map(|_| pause(failures, &random));
        pauses.max().unwrap()
    };
    for (failures, bound_ms) in [(0, 50), (1, 100), (5, 1_600), (6, 2_000), (u32::MAX, 2_000)] {
        let (bound, longest) = (Duration::from_millis(bound_ms), longest(failures));
        assert!(longest <= bound && longest > bound * 9 / 10, "{longest:?}");
    }
}
