//! A node whose services are the test's: its lease, and what becomes of what it has to
//! tell. History is away.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use duologue_proto::ids::{
    DeviceId, HistoryId, Incarnation, NodeId, SessionId, UnixMillis, UserId,
};
use duologue_proto::presence::{
    ConnectNumber, Lease, Liveness, NodeInfo, PresenceError, Registered, Renewed, Route,
    UserPresence,
};
use duologue_runtime::clock::{ManualClock, Random, SeededRandom};
use duologue_runtime::lease::{DEAD_AFTER, RENEW_INTERVAL};
use duologue_runtime::metrics::{BuildInfo, Metrics};
use duologue_runtime::rate::RateLimit;
use duologue_runtime::task;
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::{Instant, sleep};

use crate::core::{ChatConfig, Core, OtherNodes, Parts, Visibility};
use crate::node::{Keeper, TAKE_PAUSE};
use crate::ports::{Channel, InvalidAddress, Nodes, Presence};
use crate::remote::RemoteHistory;

/// What a node asked about its lease, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Take(bool),
    Renew(bool),
}

/// A directory of presence that is up or away, and whose look-ups can be held up.
pub(crate) struct Directory {
    up: AtomicBool,
    asked: Mutex<Vec<(Asked, Instant)>>,
    /// Where everybody's sessions are.
    routes: Vec<Route>,
    held_up: AtomicBool,
    released: Notify,
    /// Whether nobody answers which nodes there are.
    pub(crate) nodes_hang: watch::Sender<bool>,
    /// Questions for them that are not answered.
    pub(crate) hanging: AtomicUsize,
    /// Nodes whose addresses were called.
    called: Mutex<Vec<String>>,
    /// Where all of them lead.
    pub(crate) reached: Mutex<Option<Channel>>,
    changes: broadcast::Sender<UserPresence>,
}

impl Directory {
    pub(crate) fn new(routes: Vec<Route>) -> Arc<Self> {
        Arc::new(Self {
            up: AtomicBool::new(true),
            asked: Mutex::default(),
            routes,
            held_up: AtomicBool::new(false),
            released: Notify::new(),
            nodes_hang: watch::Sender::new(false),
            hanging: AtomicUsize::new(0),
            called: Mutex::default(),
            reached: Mutex::default(),
            changes: broadcast::channel(1).0,
        })
    }

    fn answer<T>(&self, answer: T) -> Result<T, PresenceError> {
        let up = self.up.load(Ordering::SeqCst);
        up.then_some(answer)
            .ok_or(PresenceError::Unavailable { retry_after: None })
    }

    fn note(&self, asked: impl FnOnce(bool) -> Asked) {
        let asked = asked(self.up.load(Ordering::SeqCst));
        self.asked.lock().unwrap().push((asked, Instant::now()));
    }

    fn hold_up(&self, held_up: bool) {
        self.held_up.store(held_up, Ordering::SeqCst);
        self.released.notify_waiters();
    }
}

#[async_trait]
impl Nodes for Directory {
    async fn nodes(&self) -> Result<Vec<NodeInfo>, PresenceError> {
        let mut hang = self.nodes_hang.subscribe();
        if *hang.borrow_and_update() {
            self.hanging.fetch_add(1, Ordering::SeqCst);
            hang.wait_for(|hang| !hang).await.unwrap();
        }
        let nodes = self.routes.iter().map(|route| NodeInfo {
            node: route.node.clone(),
            incarnation: route.incarnation.clone(),
            address: route.node.to_string(),
            liveness: Liveness::Alive,
        });
        self.answer(nodes.collect())
    }

    async fn take_lease(&self, _: &Lease) -> Result<(), PresenceError> {
        self.note(Asked::Take);
        self.answer(())
    }

    async fn renew_lease(&self, _: &Lease) -> Result<Renewed, PresenceError> {
        self.note(Asked::Renew);
        self.answer(Renewed::InForce)
    }

    async fn forget_lease(&self, _: &Lease) -> Result<bool, PresenceError> {
        self.answer(true)
    }

    async fn remove_route(&self, _: &Route) -> Result<bool, PresenceError> {
        self.answer(true)
    }
}

#[async_trait]
impl Presence for Directory {
    async fn register(&self, _: Route) -> Result<Registered, PresenceError> {
        self.answer(Registered::InForce {
            replaced: Vec::new(),
        })
    }

    async fn release(&self, _: &Route) -> Result<(), PresenceError> {
        self.answer(())
    }

    async fn routes(&self, user: &UserId) -> Result<Vec<Route>, PresenceError> {
        let released = self.released.notified();
        if self.held_up.load(Ordering::SeqCst) {
            released.await;
        }
        let routes = self.routes.iter().filter(|route| route.user == *user);
        self.answer(routes.cloned().collect())
    }

    async fn presence(&self, _: &[UserId]) -> Result<Vec<UserPresence>, PresenceError> {
        self.answer(Vec::new())
    }

    async fn online(
        &self,
        _: Option<&UserId>,
        _: usize,
    ) -> Result<Vec<UserPresence>, PresenceError> {
        self.answer(Vec::new())
    }

    fn watch(&self) -> broadcast::Receiver<UserPresence> {
        self.changes.subscribe()
    }
}

/// The node "one", which calls the others in vain, unless they are reached.
pub(crate) fn core(directory: &Arc<Directory>) -> Arc<Core> {
    let random: Arc<dyn Random> = Arc::new(SeededRandom::new(7));
    let rate = RateLimit {
        per_second: 1,
        burst: 1,
    };
    let config = ChatConfig {
        node: NodeId::parse("one").unwrap(),
        max_text_bytes: 1,
        visibility: Visibility::Everyone,
        sends: rate,
        connects: rate,
        sessions_per_user: 1,
        sessions_per_address: 1,
    };
    let calls = Arc::clone(directory);
    let others = OtherNodes {
        nodes: directory.clone(),
        address: "127.0.0.1:1".to_owned(),
        dial: Arc::new(move |address| {
            calls.called.lock().unwrap().push(address.to_owned());
            calls.reached.lock().unwrap().clone().ok_or(InvalidAddress)
        }),
    };
    let parts = Parts {
        history: Arc::new(RemoteHistory::new(Vec::new(), &random)),
        presence: directory.clone(),
        relay: Some(others),
        clock: Arc::new(ManualClock::at(UnixMillis(0))),
        random,
        metrics: Metrics::new(BuildInfo::of("test"), UnixMillis(0)),
    };
    let history_id = HistoryId::parse("h").unwrap();
    let incarnation = Incarnation::parse("i1").unwrap();
    Arc::new(Core::new(config, history_id, incarnation, parts))
}

pub(crate) fn route(user: &str, node: &str) -> Route {
    Route {
        user: UserId::parse(user).unwrap(),
        device: DeviceId::parse("d").unwrap(),
        number: ConnectNumber {
            connect: 1,
            registration: 0,
        },
        session: SessionId::parse("s").unwrap(),
        node: NodeId::parse(node).unwrap(),
        incarnation: Incarnation::parse("i1").unwrap(),
    }
}

/// Whether `future` is over within a minute.
pub(crate) async fn ends(future: impl Future) -> bool {
    let minute = Duration::from_mins(1);
    tokio::time::timeout(minute, future).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_lost_is_never_renewed_and_soon_replaced() {
    let directory = Directory::new(Vec::new());
    let core = core(&directory);
    let keeper = Keeper::new(core.clone(), directory.clone(), "a:1".to_owned());
    keeper.start().await;
    let (stop, stopped) = watch::channel(false);
    let running = task::spawn("keeper", keeper.run(stopped));
    let first = core.tenure.incarnation();
    sleep(2 * RENEW_INTERVAL + Duration::from_millis(1)).await;
    directory.up.store(false, Ordering::SeqCst);
    let confirmed = Instant::now();
    sleep(Duration::from_mins(1)).await;
    assert!(!core.tenure.is_held(Instant::now()));
    directory.up.store(true, Ordering::SeqCst);
    let back = Instant::now();
    sleep(TAKE_PAUSE).await;
    assert!(core.tenure.is_held(back + TAKE_PAUSE), "at once");
    assert_ne!(core.tenure.incarnation(), first);
    sleep(2 * RENEW_INTERVAL).await;

    let asked = directory.asked.lock().unwrap().clone();
    let lost = confirmed + DEAD_AFTER;
    let while_lost = |at: Instant| at >= lost && at < back;
    let while_lost: Vec<_> = asked.iter().filter(|(_, at)| while_lost(*at)).collect();
    assert!(while_lost.len() > 50, "{}", while_lost.len());
    assert!(
        while_lost
            .iter()
            .all(|(what, _)| *what == Asked::Take(false))
    );
    let after: Vec<_> = asked.iter().filter(|(_, at)| *at >= back).collect();
    assert_eq!(after[0].0, Asked::Take(true));
    assert!(
        after[1..]
            .iter()
            .all(|(what, _)| *what == Asked::Renew(true))
    );
    // One that cannot be regained does not keep the node from leaving.
    directory.up.store(false, Ordering::SeqCst);
    sleep(2 * DEAD_AFTER).await;
    stop.send_replace(true);
    assert!(ends(running).await);
}

#[tokio::test(start_paused = true)]
async fn a_node_is_idle_when_it_has_looked_up_what_it_has_to_tell() {
    let directory = Directory::new(Vec::new());
    let core = core(&directory);
    assert!(ends(core.router.idle()).await);
    directory.hold_up(true);
    core.router.presence(&UserId::parse("alice").unwrap());
    assert!(ends(core.router.idle()).await, "only users are held up");
    let cursor = duologue_proto::message::Cursor::default();
    let (alice, bob) = (
        UserId::parse("alice").unwrap(),
        UserId::parse("bob").unwrap(),
    );
    core.router.cursor(&alice, &bob, cursor, None);
    let held_up = tokio::time::timeout(Duration::from_secs(3), core.router.idle());
    assert!(held_up.await.is_err());
    directory.hold_up(false);
    assert!(ends(core.router.idle()).await);
}

#[tokio::test(start_paused = true)]
async fn a_node_is_not_idle_while_another_has_not_answered() {
    let directory = Directory::new(vec![route("bob", "two")]);
    let core = core(&directory);
    let cursor = duologue_proto::message::Cursor::default();
    let (alice, bob) = (
        UserId::parse("alice").unwrap(),
        UserId::parse("bob").unwrap(),
    );
    core.router.cursor(&alice, &bob, cursor, None);
    assert!(!ends(core.router.idle()).await);
    assert!(directory.called.lock().unwrap().contains(&"two".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_session_of_this_node_that_was_replaced_is_not_told_over_a_link() {
    let own = route("alice", "one");
    let directory = Directory::new(vec![own.clone(), route("bob", "two")]);
    let core = core(&directory);
    core.router.supersede(own);
    assert!(ends(core.router.idle()).await);
    assert!(directory.called.lock().unwrap().is_empty());
    core.router.supersede(route("bob", "two"));
    assert!(!ends(core.router.idle()).await);
    assert!(directory.called.lock().unwrap().contains(&"two".to_owned()));
}
