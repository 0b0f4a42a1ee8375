//! What watchers are told of nodes that die, when nobody asks.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use duologue_presence::directory::{Lease, Renewed, UserRows};
use duologue_presence::lease::{FORGOTTEN_AFTER, Observer, POLL_INTERVAL};
use duologue_presence::{Directory, MemoryDirectory, Nodes, Presence};
use duologue_proto::ids::{Incarnation, NodeId, UnixMillis, UserId};
use duologue_proto::presence::{PresenceError, Registered, Route, UserPresence};
use duologue_runtime::clock::ManualClock;
use duologue_runtime::lease::RENEW_INTERVAL;
use support::{registered_again, route, user};
use tokio::sync::broadcast::Receiver;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// Design §7.
const OFFLINE_WITHIN: Duration = Duration::from_secs(15);

/// A directory whose reads take their time, and that can be cut off.
#[derive(Default)]
struct Remote {
    inner: MemoryDirectory,
    cut: AtomicBool,
    read_millis: AtomicU64,
    lookups: AtomicU64,
    /// Whoever asks for this user hears nothing of anybody.
    unreadable: Mutex<Option<UserId>>,
}

impl Remote {
    async fn read(&self) -> Result<(), PresenceError> {
        sleep(Duration::from_millis(
            self.read_millis.load(Ordering::SeqCst),
        ))
        .await;
        if self.cut.load(Ordering::SeqCst) {
            return Err(PresenceError::Unavailable { retry_after: None });
        }
        Ok(())
    }
}

#[async_trait]
impl Directory for Remote {
    async fn register(&self, route: &Route) -> Result<Registered, PresenceError> {
        self.inner.register(route).await
    }
    async fn release(&self, route: &Route, at: UnixMillis) -> Result<bool, PresenceError> {
        self.inner.release(route, at).await
    }
    async fn remove(&self, seen: &Route) -> Result<bool, PresenceError> {
        self.inner.remove(seen).await
    }
    async fn lookup(&self, users: &[UserId]) -> Result<Vec<UserRows>, PresenceError> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        self.read().await?;
        let unreadable = self.unreadable.lock().unwrap().clone();
        if unreadable.is_some_and(|unreadable| users.contains(&unreadable)) {
            return Err(PresenceError::OfUser);
        }
        self.inner.lookup(users).await
    }
    async fn users(
        &self,
        after: Option<&UserId>,
        max: usize,
    ) -> Result<Vec<UserId>, PresenceError> {
        self.read().await?;
        self.inner.users(after, max).await
    }
    async fn take(&self, lease: &Lease) -> Result<(), PresenceError> {
        self.inner.take(lease).await
    }
    async fn renew(&self, lease: &Lease) -> Result<Renewed, PresenceError> {
        self.inner.renew(lease).await
    }
    async fn forget(&self, seen: &Lease) -> Result<bool, PresenceError> {
        self.inner.forget(seen).await
    }
    async fn leases(&self) -> Result<Vec<Lease>, PresenceError> {
        self.read().await?;
        self.inner.leases().await
    }
}

/// Nodes over one directory, and a presence replica that watches them.
struct System {
    directory: Arc<Remote>,
    presence: Presence,
    nodes: BTreeMap<&'static str, JoinSet<()>>,
    _watching: JoinSet<()>,
}

impl System {
    fn start() -> Self {
        let directory = Arc::new(Remote::default());
        let nodes = Nodes::Observed(Mutex::new(Observer::default()));
        let clock = Arc::new(ManualClock::at(UnixMillis(1_700_000_000_000)));
        let presence = Presence::new(directory.clone(), nodes, clock);
        let (mut watching, watched) = (JoinSet::new(), presence.clone());
        watching.spawn(async move { watched.watch_nodes(|_| {}).await });
        Self {
            directory,
            presence,
            nodes: BTreeMap::new(),
            _watching: watching,
        }
    }

    async fn node(&mut self, name: &'static str) {
        self.start_of_node(name, "i0").await;
    }

    /// Starts a node, which renews its lease until it is killed or started again.
    async fn start_of_node(&mut self, name: &'static str, start: &str) {
        let directory = self.directory.clone();
        let mut lease = lease(name, start);
        self.nodes.remove(name);
        directory.take(&lease).await.unwrap();
        self.nodes.entry(name).or_default().spawn(async move {
            loop {
                sleep(RENEW_INTERVAL).await;
                lease.counter += 1;
                directory.renew(&lease).await.unwrap();
            }
        });
    }

    fn kill(&mut self, name: &str) {
        self.nodes.remove(name).unwrap();
    }

    async fn connect(&self, name: &str, device_name: &str, node: &str) {
        let route = on_node(route(name, device_name, 1), node, "i0");
        self.presence.register(route).await.unwrap();
    }

    fn cut(&self, cut: bool) {
        self.directory.cut.store(cut, Ordering::SeqCst);
    }
}

fn on_node(route: Route, node: &str, start: &str) -> Route {
    let lease = lease(node, start);
    Route {
        node: lease.node,
        incarnation: lease.incarnation,
        ..route
    }
}

fn lease(node: &str, start: &str) -> Lease {
    Lease {
        node: NodeId::parse(node).unwrap(),
        incarnation: Incarnation::parse(start).unwrap(),
        address: format!("{node}:1"),
        counter: 0,
    }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn told(watch: &mut Receiver<UserPresence>) -> Vec<(String, bool)> {
    std::iter::from_fn(|| watch.try_recv().ok())
        .map(|event| (event.user.to_string(), event.online))
        .collect()
}

fn change(name: &str, online: bool) -> (String, bool) {
    (name.to_owned(), online)
}

#[tokio::test(start_paused = true)]
async fn fifteen_seconds_after_a_kill_everyone_of_the_node_is_told_to_be_offline() {
    // At every moment between two renewals and two polls.
    for phase_millis in (0..4_000).step_by(250) {
        let mut system = System::start();
        system.directory.read_millis.store(20, Ordering::SeqCst);
        sleep(Duration::from_millis(phase_millis / 2)).await;
        system.node("n1").await;
        system.node("n2").await;
        for number in 0..1_000 {
            let node = if number % 2 == 0 { "n1" } else { "n2" };
            system.connect(&format!("u{number}"), "phone", node).await;
        }
        sleep(secs(10) + Duration::from_millis(phase_millis)).await;
        let mut watch = system.presence.watch();
        system.kill("n1");
        sleep(OFFLINE_WITHIN).await;
        let told = told(&mut watch);
        assert_eq!(told.len(), 500, "{phase_millis}");
        let of_n1 = |name: &str| name[1..].parse::<u32>().unwrap() % 2 == 0;
        assert!(told.iter().all(|(name, online)| !online && of_n1(name)));
    }
}

#[tokio::test(start_paused = true)]
async fn one_whose_rows_cannot_be_read_holds_up_nobody_else() {
    let mut system = System::start();
    system.node("n1").await;
    for number in 0..1_000 {
        let name = format!("u{number:03}");
        system.connect(&name, "phone", "n1").await;
    }
    sleep(secs(10)).await;
    *system.directory.unreadable.lock().unwrap() = Some(user("u000"));
    let mut watch = system.presence.watch();
    system.kill("n1");
    sleep(OFFLINE_WITHIN).await;
    assert_eq!(told(&mut watch).len(), 999);
    *system.directory.unreadable.lock().unwrap() = None;
    sleep(POLL_INTERVAL * 2).await;
    assert_eq!(told(&mut watch), [change("u000", false)]);
}

#[tokio::test(start_paused = true)]
async fn a_user_of_two_nodes_is_offline_when_the_last_has_died() {
    let mut system = System::start();
    system.node("n1").await;
    system.node("n2").await;
    sleep(secs(5)).await;
    system.connect("alice", "phone", "n1").await;
    system.connect("alice", "tablet", "n2").await;
    let mut watch = system.presence.watch();
    system.kill("n1");
    sleep(secs(30)).await;
    assert_eq!(told(&mut watch), []);
    system.kill("n2");
    sleep(OFFLINE_WITHIN).await;
    assert_eq!(told(&mut watch), [change("alice", false)]);
}

#[tokio::test(start_paused = true)]
async fn who_connects_to_a_node_that_is_not_known_yet_is_told_online_once_it_is() {
    let mut system = System::start();
    sleep(secs(10)).await;
    system.node("n1").await;
    let mut watch = system.presence.watch();
    system.connect("alice", "phone", "n1").await;
    assert_eq!(told(&mut watch), []);
    sleep(RENEW_INTERVAL + POLL_INTERVAL + Duration::from_millis(1)).await;
    assert_eq!(told(&mut watch), [change("alice", true)]);
}

#[tokio::test(start_paused = true)]
async fn who_is_registered_again_by_a_node_under_a_new_start_stays_online() {
    let mut system = System::start();
    system.node("n1").await;
    sleep(secs(5)).await;
    let first = on_node(route("alice", "phone", 1), "n1", "i0");
    system.presence.register(first.clone()).await.unwrap();
    let mut watch = system.presence.watch();
    system.start_of_node("n1", "i1").await;
    let again = on_node(registered_again(&first, 1), "n1", "i1");
    system.presence.register(again).await.unwrap();
    sleep(secs(60)).await;
    assert_eq!(told(&mut watch), []);
    system.kill("n1");
    sleep(OFFLINE_WITHIN).await;
    assert_eq!(told(&mut watch), [change("alice", false)]);
}

#[tokio::test(start_paused = true)]
async fn an_outage_tells_nothing_and_what_happened_in_it_is_told_after_it() {
    let mut system = System::start();
    system.node("n1").await;
    system.node("n2").await;
    sleep(secs(5)).await;
    system.connect("alice", "phone", "n1").await;
    system.connect("bob", "phone", "n2").await;
    let mut watch = system.presence.watch();
    system.cut(true);
    system.kill("n1");
    // Registered, but the reading that would tell of it fails.
    system.connect("carol", "phone", "n2").await;
    sleep(secs(60)).await;
    assert_eq!(told(&mut watch), []);
    system.cut(false);
    sleep(OFFLINE_WITHIN).await;
    let mut told = told(&mut watch);
    told.sort();
    assert_eq!(told, [change("alice", false), change("carol", true)]);
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_ends_before_the_nodes_have_renewed_takes_nobody_offline() {
    let mut system = System::start();
    system.node("n1").await;
    sleep(secs(5)).await;
    system.connect("alice", "phone", "n1").await;
    let mut watch = system.presence.watch();
    // Neither side reaches the directory.
    system.cut(true);
    system.kill("n1");
    sleep(secs(30)).await;
    system.cut(false);
    // The first reads find everything as it was before.
    sleep(secs(4)).await;
    system.start_of_node("n1", "i1").await;
    sleep(secs(3)).await;
    let first = on_node(route("alice", "phone", 1), "n1", "i0");
    let again = on_node(registered_again(&first, 1), "n1", "i1");
    system.presence.register(again).await.unwrap();
    sleep(secs(60)).await;
    assert_eq!(told(&mut watch), []);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_come_back_when_the_node_has_started_again_is_soon_offline() {
    for pause in 0..10 {
        let mut system = System::start();
        system.node("n1").await;
        sleep(secs(5)).await;
        system.connect("alice", "phone", "n1").await;
        let mut watch = system.presence.watch();
        system.kill("n1");
        let killed = Instant::now();
        sleep(secs(pause)).await;
        system.start_of_node("n1", "i1").await;
        sleep_until(killed + OFFLINE_WITHIN).await;
        assert_eq!(told(&mut watch), [change("alice", false)], "{pause}");
    }
}

#[tokio::test(start_paused = true)]
async fn slow_reads_of_users_do_not_hold_up_the_reading_of_leases() {
    let mut system = System::start();
    system.node("n1").await;
    system.node("n2").await;
    sleep(secs(5)).await;
    for number in 0..500 {
        system.connect(&format!("u{number}"), "phone", "n1").await;
    }
    system.connect("zoe", "phone", "n2").await;
    system.kill("n1");
    // Five pages: leases that were read behind them would be too old to go by.
    system.directory.read_millis.store(1_500, Ordering::SeqCst);
    let killed = Instant::now();
    for seconds in 1..60 {
        sleep_until(killed + secs(seconds)).await;
        let asked = system.presence.presence(&[user("zoe")]).await;
        assert!(asked.unwrap()[0].online, "after {seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn users_of_living_nodes_are_not_read_again() {
    let mut system = System::start();
    system.node("n1").await;
    sleep(secs(5)).await;
    system.connect("alice", "phone", "n1").await;
    let before = system.directory.lookups.load(Ordering::SeqCst);
    sleep(secs(60)).await;
    assert_eq!(system.directory.lookups.load(Ordering::SeqCst), before);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_never_returns_is_forgotten_and_what_it_left_stays_dead() {
    let mut system = System::start();
    system.node("n1").await;
    system.node("n2").await;
    sleep(secs(5)).await;
    system.connect("alice", "phone", "n1").await;
    system.kill("n1");
    sleep(FORGOTTEN_AFTER.saturating_sub(secs(10))).await;
    let nodes = async || {
        let leases = system.directory.leases().await.unwrap();
        let names = leases.iter().map(|lease| lease.node.to_string());
        names.collect::<Vec<_>>()
    };
    assert_eq!(nodes().await, ["n1", "n2"]);
    sleep(secs(20)).await;
    assert_eq!(nodes().await, ["n2"]);
    let asked = system.presence.presence(&[user("alice")]).await;
    assert!(!asked.unwrap()[0].online);
    let mut late = lease("n1", "i0");
    late.counter = 1_000;
    assert_eq!(system.directory.renew(&late).await, Ok(Renewed::Lost));
}

#[tokio::test(start_paused = true)]
async fn routes_of_a_dead_node_are_cleaned_up_only_once_its_lease_is_gone() {
    for renews in [false, true] {
        let mut system = System::start();
        system.node("n1").await;
        sleep(secs(5)).await;
        system.connect("alice", "phone", "n1").await;
        system.kill("n1");
        sleep(OFFLINE_WITHIN).await;
        let mut late = lease("n1", "i0");
        late.counter = 1_000;
        if renews {
            system.directory.renew(&late).await.unwrap();
            late.counter += 1;
        }
        let alice = user("alice");
        assert_eq!(system.presence.routes(&alice).await.unwrap(), []);
        let rows = system.directory.lookup(std::slice::from_ref(&alice)).await;
        let kept = rows.unwrap()[0].routes.len();
        let renewed = system.directory.renew(&late).await.unwrap();
        let whole = if renews {
            (1, Renewed::InForce)
        } else {
            (0, Renewed::Lost)
        };
        assert_eq!((kept, renewed), whole);
    }
}

#[tokio::test]
async fn in_one_process_there_is_nothing_to_watch() {
    let clock = Arc::new(ManualClock::at(UnixMillis(0)));
    Presence::in_one_process(clock).watch_nodes(|_| {}).await;
}
