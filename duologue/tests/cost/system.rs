//! Two chat nodes over DynamoDB in the process, connected by streams in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use duologue::ports::{LocalHistory, LocalPresence};
use duologue_chat::ports::{Dial, channel};
use duologue_chat::{Chat, ChatConfig, OtherNodes, Parts, Visibility};
use duologue_dynamodb::Options;
use duologue_dynamodb::tables::{TableSpec, create};
use duologue_dynamodb::testing::{Connector, Engine, Faults};
use duologue_history::dynamodb::{self, DynamoStore};
use duologue_history::history::History;
use duologue_presence::lease::Observer;
use duologue_presence::{DynamoDirectory, Nodes, Presence};
use duologue_proto::chat::v1::chat_service_client::ChatServiceClient;
use duologue_proto::ids::{NodeId, UnixMillis, UserId};
use duologue_proto::presence::PresenceError;
use duologue_runtime::auth::{AuthError, Identity, bearer};
use duologue_runtime::clock::{Clock, SeededRandom};
use duologue_runtime::metrics::{BuildInfo, Metrics};
use duologue_runtime::rate::RateLimit;
use duologue_runtime::server::{self, Methods, Stack};
use duologue_runtime::shutdown::Shutdown;
use duologue_runtime::task;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint, Server};

use crate::divided::{DividedDirectory, DividedHistory};
use crate::report::Table;

/// How many nodes there are.
pub(crate) const NODES: usize = 2;
/// When it all begins.
const START: UnixMillis = UnixMillis(1_800_000_000_000);

/// The system, and where its requests are counted.
pub(crate) struct System {
    nodes: Vec<Node>,
    history: Connector,
    routes: Connector,
    syncs: Connector,
    leases: Connector,
}

struct Node {
    _chat: Chat,
    devices: Door,
}

/// Time as tokio has it: it goes on only when nothing is to be done.
struct TestClock(Instant);

impl Clock for TestClock {
    fn now(&self) -> UnixMillis {
        START.plus(self.0.elapsed())
    }
}

impl System {
    pub(crate) async fn start() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(TestClock(Instant::now()));
        let random = Arc::new(SeededRandom::new(5));
        let engine = Arc::new(Engine::new());
        let way = || Connector::with(Arc::clone(&engine), Arc::new(Faults::none()), clock.clone());
        let (history, syncs, routes, leases) = (way(), way(), way(), way());
        create(&history.client(Options::default()), &tables())
            .await
            .unwrap();
        let replica = async |way: &Connector| {
            let database = way.client(Options::default());
            let store = DynamoStore::open(database, clock.clone(), &*random);
            History::new(Arc::new(store.await.unwrap()), clock.clone())
        };
        let (messages, syncing) = (replica(&history).await, replica(&syncs).await);

        let doors: [_; NODES] = std::array::from_fn(|_| Door::new());
        let relays = doors.each_ref().map(|(door, _)| door.clone());
        let mut nodes = Vec::new();
        for (number, (_, relay)) in doors.into_iter().enumerate() {
            let directory = |way: &Connector| {
                let database = way.client(Options::default());
                DynamoDirectory::new(database, clock.clone(), random.clone())
            };
            let directory = Arc::new(DividedDirectory {
                routes: directory(&routes),
                leases: directory(&leases),
            });
            let presence = Arc::new(LocalPresence(watching(directory, clock.clone())));
            let metrics = Metrics::new(BuildInfo::of("test"), START);
            let parts = Parts {
                history: Arc::new(DividedHistory {
                    messages: LocalHistory(messages.clone()),
                    syncs: LocalHistory(syncing.clone()),
                }),
                presence: presence.clone(),
                relay: Some(OtherNodes {
                    nodes: presence,
                    address: number.to_string(),
                    dial: dial(&relays),
                }),
                clock: clock.clone(),
                random: random.clone(),
                metrics: metrics.clone(),
            };
            let node = NodeId::parse(&format!("node-{number}")).unwrap();
            let chat = Chat::start(config(node), parts).await.unwrap();
            let served = Server::builder()
                .add_service(chat.relay_server())
                .serve_with_incoming(relay);
            task::spawn("relay server", async move { served.await.unwrap() });
            let devices = serve(&chat, &metrics, clock.clone());
            nodes.push(Node {
                _chat: chat,
                devices,
            });
        }
        Self {
            nodes,
            history,
            routes,
            syncs,
            leases,
        }
    }

    /// A client of a node.
    pub(crate) fn client(&self, node: usize) -> ChatServiceClient<Channel> {
        ChatServiceClient::new(self.nodes[node].devices.channel())
    }

    pub(crate) fn forget_costs(&self) {
        for way in [&self.history, &self.syncs, &self.routes, &self.leases] {
            way.ledger().clear();
        }
    }

    /// What passed since costs were forgotten, beside syncs and leases, for so many of
    /// what is counted.
    pub(crate) fn table(&self, count: u64) -> Table {
        Table::of(count, &[&self.history, &self.routes])
    }

    /// The same, syncs included.
    pub(crate) fn table_with_syncs(&self, count: u64) -> Table {
        Table::of(count, &[&self.history, &self.routes, &self.syncs])
    }

    /// What the syncs of sessions cost.
    pub(crate) fn syncs(&self, count: u64) -> Table {
        Table::of(count, &[&self.syncs])
    }

    /// What the leases of nodes cost.
    pub(crate) fn leases(&self, count: u64) -> Table {
        Table::of(count, &[&self.leases])
    }

    /// Table and operation of all that passed.
    pub(crate) fn asked(&self) -> BTreeSet<(String, String)> {
        let ways = [&self.history, &self.syncs, &self.routes, &self.leases];
        let counted = ways.map(|way| way.ledger().counted());
        let keys = counted.into_iter().flat_map(BTreeMap::into_keys);
        keys.map(|(operation, table)| (table, operation)).collect()
    }
}

/// Every table.
pub(crate) fn tables() -> Vec<TableSpec> {
    let mut tables = dynamodb::TABLES.to_vec();
    tables.push(duologue_presence::dynamodb::TABLE);
    tables
}

/// The way into a server.
#[derive(Clone)]
struct Door(mpsc::Sender<io::Result<DuplexStream>>);

impl Door {
    fn new() -> (Self, ReceiverStream<io::Result<DuplexStream>>) {
        let (door, incoming) = mpsc::channel(64);
        (Self(door), ReceiverStream::new(incoming))
    }

    fn channel(&self) -> Channel {
        /// What a stream in memory may hold.
        const BUFFER_BYTES: usize = 64 * 1024;
        let door = self.0.clone();
        let connect = tower::service_fn(move |_| {
            let door = door.clone();
            async move {
                let (near, far) = tokio::io::duplex(BUFFER_BYTES);
                let sent = door.send(Ok(far)).await;
                sent.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
                Ok::<_, io::Error>(TokioIo::new(near))
            }
        });
        Endpoint::from_static("http://memory").connect_with_connector_lazy(connect)
    }
}

/// A replica of presence that watches the nodes.
fn watching(directory: Arc<DividedDirectory>, clock: Arc<dyn Clock>) -> Presence {
    let known = Nodes::Observed(Mutex::new(Observer::default()));
    let presence = Presence::new(directory, known, clock);
    let watching = presence.clone();
    task::spawn("observer", async move {
        let told = |_: &Result<(), PresenceError>| ();
        watching.watch_nodes(told).await;
    });
    presence
}

fn dial(relays: &[Door; NODES]) -> Dial {
    let relays = relays.clone();
    Arc::new(move |address| {
        let number: usize = address.parse().unwrap();
        Ok(channel(relays[number].channel()))
    })
}

fn serve(chat: &Chat, metrics: &Metrics, clock: Arc<dyn Clock>) -> Door {
    let (door, incoming) = Door::new();
    let methods = Methods::standard().unwrap();
    let shutdown = Shutdown::new(Duration::ZERO);
    let identity = move |headers: &tonic::codegen::http::HeaderMap| {
        let user = UserId::parse(bearer(headers)?).map_err(AuthError::BadSubject)?;
        let expires_at = clock.now().plus(Duration::from_hours(24));
        Ok::<_, AuthError>(Identity { user, expires_at })
    };
    let stack = Stack::new(methods, metrics, Arc::new(identity), shutdown);
    let serve = server::serve(stack, Routes::new(chat.server()), incoming.fuse());
    task::spawn("node", async move { serve.await.unwrap() });
    door
}

fn config(node: NodeId) -> ChatConfig {
    let rate = RateLimit {
        per_second: 10_000,
        burst: 10_000,
    };
    ChatConfig {
        node,
        max_text_bytes: 8_192,
        visibility: Visibility::Shared,
        sends: rate,
        connects: rate,
        sessions_per_user: 32,
        sessions_per_address: 1_000,
    }
}
