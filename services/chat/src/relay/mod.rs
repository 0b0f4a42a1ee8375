//! The relay between chat nodes: hands what is durable to the nodes that hold a
//! session of the users concerned.
//!
//! It looks routes up only after it was told (`lookups`), keeps what is on its way to
//! each incarnation of a node until that has answered (`link`), and widens what finds
//! no room (`news`). It must not decide what a session does with any of it.

mod link;
mod lookups;
mod news;
mod peer;
mod server;
#[cfg(test)]
pub(crate) mod tests;
mod wire;

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use duologue_proto::ids::{Incarnation, NodeId, UserId};
use duologue_proto::presence::{Liveness, NodeInfo, PresenceError, Route};
use duologue_runtime::backoff::full_jitter;
use duologue_runtime::clock::{Random, RandomExt as _};
use duologue_runtime::faults::{Mutant, planted};
use duologue_runtime::task;
use duologue_runtime::telemetry::TRACED;
use duologue_runtime::telemetry::propagation::within;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, watch};
use tokio::task::{Id, JoinError, JoinHandle, JoinSet};
use tokio::time::Instant;
use tracing::Instrument as _;

use self::link::Link;
pub use self::link::{ANSWER_TIMEOUT, BATCH_BYTES, LINK_PAUSE, MAX_IN_FLIGHT, MAX_LINK_PAUSE};
use self::lookups::{ForAll, Lookup, Lookups};
pub use self::lookups::{
    LOOKUP_PAUSE, MAX_HINTS, MAX_LOOKUP_PAUSE, MAX_LOOKUPS, MAX_RECEIPT_ROUTES, RECEIPT_ROUTES_AGE,
};
pub(crate) use self::news::{Announcement, News};
pub use self::news::{MAX_NEWS_PER_USER, RELAY_BYTES, RELAY_MESSAGE_BYTES};
pub use self::peer::{IDLE_CHECK, LINK_OPEN_TIMEOUT};
use self::peer::{LinkTask, Peer};
pub use self::server::RelayServer;
pub(crate) use self::server::server;
pub use self::wire::RELAY_REQUEST_BYTES;
use crate::metrics::RelayMetrics;
use crate::ports::{Dial, Nodes, Presence};
use crate::timer::Timer;

/// A question to presence takes at most so long.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Stale rows that wait to be removed; further ones are removed when they are next
/// met.
pub const MAX_STALE: usize = 1_024;
/// Stale rows that are removed at the same time.
pub const MAX_REMOVALS: usize = 8;

/// How often it is looked whether everything was answered, while a node waits for that.
const IDLE_LOOK: Duration = Duration::from_millis(50);

/// Reaches the other nodes. Its tasks end with it.
#[derive(Debug)]
pub(crate) struct Relay {
    shared: Arc<Shared>,
    driver: JoinHandle<()>,
}

/// What the relay is made of.
pub(crate) struct RelayParts {
    pub(crate) node: NodeId,
    pub(crate) presence: Arc<dyn Presence>,
    pub(crate) nodes: Arc<dyn Nodes>,
    pub(crate) dial: Dial,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) metrics: RelayMetrics,
}

struct Shared {
    parts: RelayParts,
    lookups: Mutex<Lookups>,
    /// Rows that their nodes do not know.
    stale: Mutex<Vec<Route>>,
    /// Raised when something was announced.
    announced: Notify,
    /// Whether nothing is on its way, while somebody waits for that.
    idle: watch::Sender<bool>,
}

impl Relay {
    pub(crate) fn start(parts: RelayParts) -> Self {
        let shared = Arc::new(Shared {
            parts,
            lookups: Mutex::default(),
            stale: Mutex::default(),
            announced: Notify::new(),
            idle: watch::Sender::new(false),
        });
        let driver = Driver::new(Arc::clone(&shared)).run();
        Self {
            shared,
            driver: task::spawn("relay", driver),
        }
    }

    /// Takes an announcement for every other node that holds a session of the users
    /// concerned. Returns at once; what finds no room is widened, never left out.
    pub(crate) fn relay(&self, announcement: Announcement) {
        let widened = self.shared.lookups().announce(announcement);
        self.shared.parts.metrics.widened(widened);
        self.shared.announced.notify_one();
    }

    /// Waits until everything that was announced has been looked up, sent and answered.
    pub(crate) async fn idle(&self) {
        let mut idle = self.shared.idle.subscribe();
        // Of an earlier time, or not yet looked at.
        self.shared.idle.send_replace(false);
        self.shared.announced.notify_one();
        // It errs only when the sender is gone, which is here.
        let _ = idle.wait_for(|idle| *idle).await;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Shared {
    fn lookups(&self) -> MutexGuard<'_, Lookups> {
        // What waits is a hint: were a panic to leave it short, a sync repairs it.
        self.lookups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has rows removed that their node does not know.
    fn remove(&self, routes: Vec<Route>) {
        let mut stale = self.stale.lock().unwrap_or_else(PoisonError::into_inner);
        for route in routes {
            if stale.len() < MAX_STALE && !stale.contains(&route) {
                stale.push(route);
            }
        }
        drop(stale);
        self.announced.notify_one();
    }

    fn pop_stale(&self) -> Option<Route> {
        let mut stale = self.stale.lock().unwrap_or_else(PoisonError::into_inner);
        stale.pop()
    }

    /// Asks which nodes there are; what is answered was read after the call.
    async fn nodes(&self) -> Result<Vec<NodeInfo>, PresenceError> {
        let nodes = tokio::time::timeout(ASK_TIMEOUT, self.parts.nodes.nodes()).await;
        nodes.unwrap_or(Err(PresenceError::Unavailable { retry_after: None }))
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay")
            .field("node", &self.parts.node)
            .finish_non_exhaustive()
    }
}

/// One start of another node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct PeerId {
    node: NodeId,
    incarnation: Incarnation,
}

impl PeerId {
    fn of(route: &Route) -> Self {
        Self {
            node: route.node.clone(),
            incarnation: route.incarnation.clone(),
        }
    }
}

/// What a question brought.
enum Answer {
    Routes(UserId, Result<Vec<Route>, PresenceError>),
    Nodes(Result<Vec<NodeInfo>, PresenceError>),
    Removed,
}

type Question = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// The task that looks up and hands to the links, each of which has its own.
struct Driver {
    shared: Arc<Shared>,
    questions: FuturesUnordered<Question>,
    peers: BTreeMap<PeerId, Arc<Peer>>,
    links: JoinSet<()>,
    ids: HashMap<Id, PeerId>,
    removals: usize,
    /// For a fault that is planted: what the look-up before has found.
    earlier: BTreeMap<UserId, Vec<Route>>,
}

impl Driver {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            questions: FuturesUnordered::new(),
            peers: BTreeMap::new(),
            links: JoinSet::new(),
            ids: HashMap::new(),
            removals: 0,
            earlier: BTreeMap::new(),
        }
    }

    async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut timer = Timer::new();
        loop {
            let due = self.begin();
            tokio::select! {
                () = shared.announced.notified() => {}
                Some(answer) = self.questions.next() => self.take(answer),
                Some(ended) = self.links.join_next_with_id() => self.link_ended(ended),
                () = timer.reach(due) => {}
            }
        }
    }

    /// Begins what may be begun; returns when there may be more.
    fn begin(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let (superseded, to_known, due) = {
            let mut lookups = self.shared.lookups();
            let superseded: Vec<_> = lookups.take_superseded().collect();
            while let Some(lookup) = lookups.next(now) {
                let trace = lookups.trace_of(&lookup);
                let look_up = || tracing::info_span!(target: TRACED, parent: None, "look up");
                let asking = ask(Arc::clone(&self.shared), lookup);
                let asking = asking.instrument(within(trace, look_up));
                self.questions.push(Box::pin(asking));
            }
            let due = lookups.due().filter(|due| *due > now);
            (superseded, lookups.take_to_known(), due)
        };
        for found in to_known {
            self.hand_over(&found.user, &found.news, found.routes);
        }
        // One of this node's was told already.
        let own = self.shared.parts.node.clone();
        for route in superseded.into_iter().filter(|route| route.node != own) {
            let news = News::of_superseded(route.session.clone());
            self.hand(&PeerId::of(&route), &route.user, news, Vec::new());
        }
        while self.removals < MAX_REMOVALS
            && let Some(route) = self.shared.pop_stale()
        {
            self.removals += 1;
            self.questions.push(remove(Arc::clone(&self.shared), route));
        }
        self.look_whether_idle(now, due)
    }

    /// While somebody waits for it, says whether nothing is on its way; returns when to
    /// look again, or `due`.
    fn look_whether_idle(&self, now: Instant, due: Option<Instant>) -> Option<Instant> {
        if self.shared.idle.receiver_count() == 0 {
            return due;
        }
        let is_idle = self.questions.is_empty()
            && self.shared.lookups().is_idle()
            && self.peers.values().all(|peer| peer.is_idle());
        self.shared.idle.send_replace(is_idle);
        let look = now + IDLE_LOOK;
        Some(due.map_or(look, |due| due.min(look)))
    }

    fn take(&mut self, answer: Answer) {
        let (now, random) = (Instant::now(), self.shared.parts.random.number());
        match answer {
            Answer::Routes(user, Ok(routes)) => {
                self.shared.parts.metrics.looked_up(true);
                let news = self.shared.lookups().found(&user, &routes, now);
                let routes = if planted(Mutant::LookupBeforeAppend) {
                    let earlier = self.earlier.insert(user.clone(), routes);
                    earlier.unwrap_or_default()
                } else {
                    routes
                };
                self.hand_over(&user, &news, routes);
            }
            Answer::Nodes(Ok(nodes)) => {
                self.shared.parts.metrics.looked_up(true);
                let for_all = self.shared.lookups().found_nodes();
                self.hand_to_all(&for_all, nodes);
            }
            // Nobody is found by it, now or later, until the user has fewer devices: the
            // sessions are to sync, which they do by themselves.
            Answer::Routes(user, Err(PresenceError::OfUser)) => {
                self.shared.parts.metrics.looked_up(false);
                tracing::warn!(user.id = %user, "a user's routes cannot be looked up");
                self.shared.lookups().found(&user, &[], now);
            }
            Answer::Routes(user, Err(error)) => {
                self.shared.parts.metrics.looked_up(false);
                tracing::debug!(user.id = %user, %error, "routes were not looked up");
                let lookup = Lookup::User(user);
                self.shared.lookups().failed(&lookup, now, random);
            }
            Answer::Nodes(Err(error)) => {
                self.shared.parts.metrics.looked_up(false);
                tracing::debug!(%error, "nodes were not looked up");
                self.shared.lookups().failed(&Lookup::Nodes, now, random);
            }
            Answer::Removed => self.removals -= 1,
        }
    }

    /// Hands a user's news to every other node that has sessions of the user.
    fn hand_over(&mut self, user: &UserId, news: &News, routes: Vec<Route>) {
        let mut peers: BTreeMap<PeerId, Vec<Route>> = BTreeMap::new();
        // This node's sessions were told already.
        let own = self.shared.parts.node.clone();
        for route in routes.into_iter().filter(|route| route.node != own) {
            peers.entry(PeerId::of(&route)).or_default().push(route);
        }
        for (peer, routes) in peers {
            self.hand(&peer, user, news.clone(), routes);
        }
    }

    fn hand_to_all(&mut self, for_all: &ForAll, nodes: Vec<NodeInfo>) {
        let own = self.shared.parts.node.clone();
        let others = nodes
            .into_iter()
            .filter(|info| info.node != own && info.liveness != Liveness::Dead);
        for info in others {
            let peer = PeerId {
                node: info.node,
                incarnation: info.incarnation,
            };
            if for_all.everyone {
                self.peer(&peer).change(Link::add_everyone);
            }
            for user in &for_all.hints {
                self.hand(&peer, user, News::of_presence(), Vec::new());
            }
        }
    }

    fn hand(&mut self, peer: &PeerId, user: &UserId, news: News, routes: Vec<Route>) {
        let widened = self.peer(peer).change(|link| link.add(user, news, routes));
        self.shared.parts.metrics.widened(widened);
    }

    fn peer(&mut self, id: &PeerId) -> Arc<Peer> {
        if let Some(peer) = self.peers.get(id) {
            return Arc::clone(peer);
        }
        let peer = Arc::new(Peer::default());
        self.peers.insert(id.clone(), Arc::clone(&peer));
        let link = LinkTask {
            shared: Arc::clone(&self.shared),
            id: id.clone(),
            peer: Arc::clone(&peer),
        };
        self.ids
            .insert(self.links.spawn(link.run()).id(), id.clone());
        peer
    }

    /// An incarnation is over, and with it all that was for it: its sessions register
    /// anew and sync, if they live. The rows of before are stale.
    fn link_ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let task = match &ended {
            Ok((task, ())) => *task,
            Err(error) => error.id(),
        };
        let Some(id) = self.ids.remove(&task) else {
            return;
        };
        let peer = self.peers.remove(&id);
        if ended.is_ok() {
            let link = peer.map(|peer| peer.take());
            self.shared
                .remove(link.map(Link::into_routes).unwrap_or_default());
        } else {
            tracing::error!("a link to another node panicked: its sessions are to sync");
            self.peer(&id).change(Link::add_everyone);
        }
    }
}

async fn ask(shared: Arc<Shared>, lookup: Lookup) -> Answer {
    match lookup {
        Lookup::User(user) => {
            let asked = shared.parts.presence.routes(&user);
            let routes = tokio::time::timeout(ASK_TIMEOUT, asked).await;
            let late = PresenceError::Unavailable { retry_after: None };
            Answer::Routes(user, routes.unwrap_or(Err(late)))
        }
        Lookup::Nodes => Answer::Nodes(shared.nodes().await),
    }
}

/// Removes a row that its node does not know, by its exact number. If that fails, it
/// is done when the row is next met.
fn remove(shared: Arc<Shared>, route: Route) -> Question {
    Box::pin(async move {
        let removal = shared.parts.nodes.remove_route(&route);
        let removed = tokio::time::timeout(ASK_TIMEOUT, removal).await;
        tracing::debug!(user.id = %route.user, removed = ?removed, "a stale route");
        Answer::Removed
    })
}

/// How long to wait after so many failures; never nothing, or a driver would not rest.
fn backoff(random: u64, first: Duration, max: Duration, failures: u32) -> Duration {
    full_jitter(random, first, max, failures).max(Duration::from_millis(1))
}
