//! What `Presence` promises to who asks and to who watches.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use duologue_presence::directory::{Lease, Renewed, UserRows};
use duologue_presence::lease::{Observer, POLL_INTERVAL, REPLACED_GRACE};
use duologue_presence::presence::MAX_WATCH_EVENTS;
use duologue_presence::{Directory, MemoryDirectory, Nodes, Presence};
use duologue_proto::ids::{Incarnation, NodeId, UnixMillis, UserId};
use duologue_proto::presence::{PresenceError, Registered, Route, UserPresence};
use duologue_runtime::clock::ManualClock;
use support::{device, registered_again, route, user};
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::task::JoinSet;

const MINUTE: UnixMillis = UnixMillis(1_700_000_040_000);

fn clock() -> ManualClock {
    ManualClock::at(MINUTE.plus(Duration::from_millis(12_345)))
}

fn one_process() -> Presence {
    Presence::in_one_process(Arc::new(clock()))
}

async fn is_online(presence: &Presence, name: &str) -> bool {
    presence.presence(&[user(name)]).await.unwrap()[0].online
}

fn told(watch: &mut Receiver<UserPresence>) -> Vec<(String, bool)> {
    std::iter::from_fn(|| watch.try_recv().ok())
        .map(|event| (event.user.to_string(), event.online))
        .collect()
}

fn names(users: &[UserPresence]) -> Vec<&str> {
    users.iter().map(|user| user.user.as_str()).collect()
}

#[tokio::test]
async fn a_user_is_online_while_any_device_has_a_route() {
    let presence = one_process();
    let (phone, laptop) = (route("alice", "phone", 1), route("alice", "laptop", 1));
    assert!(!is_online(&presence, "alice").await);
    presence.register(phone.clone()).await.unwrap();
    presence.register(laptop.clone()).await.unwrap();
    presence.release(&phone).await.unwrap();
    assert!(is_online(&presence, "alice").await);
    let routes = presence.routes(&user("alice")).await.unwrap();
    assert_eq!(routes, std::slice::from_ref(&laptop));
    presence.release(&laptop).await.unwrap();
    assert!(!is_online(&presence, "alice").await);
    assert_eq!(presence.routes(&user("alice")).await.unwrap(), []);
}

#[tokio::test]
async fn last_seen_is_told_to_the_minute_and_only_while_offline() {
    let presence = one_process();
    let mut watch = presence.watch();
    let of_alice = |online, last_seen| UserPresence {
        user: user("alice"),
        online,
        last_seen,
    };
    let never = presence.presence(&[user("alice")]).await.unwrap();
    assert_eq!(never, [of_alice(false, None)]);
    for connect in 1..=2 {
        let route = route("alice", "phone", connect);
        presence.register(route.clone()).await.unwrap();
        let online = presence.presence(&[user("alice")]).await.unwrap();
        assert_eq!(online, [of_alice(true, None)]);
        presence.release(&route).await.unwrap();
        let gone = presence.presence(&[user("alice")]).await.unwrap();
        assert_eq!(gone, [of_alice(false, Some(MINUTE))]);
        assert_eq!(watch.try_recv(), Ok(online[0].clone()));
        assert_eq!(watch.try_recv(), Ok(gone[0].clone()));
    }
}

#[tokio::test]
async fn presence_answers_in_the_order_of_the_question() {
    let presence = one_process();
    presence.register(route("bob", "phone", 1)).await.unwrap();
    let asked: Vec<UserId> = (0..250).map(|number| user(&format!("u{number}"))).collect();
    let asked = [asked, vec![user("bob"), user("alice"), user("bob")]].concat();
    let found = presence.presence(&asked).await.unwrap();
    let order: Vec<UserId> = found.iter().map(|found| found.user.clone()).collect();
    assert_eq!(order, asked);
    let online: Vec<bool> = found[250..].iter().map(|found| found.online).collect();
    assert_eq!(online, [true, false, true]);
}

#[tokio::test]
async fn a_superseding_session_or_a_second_device_makes_no_flap() {
    let presence = one_process();
    let mut watch = presence.watch();
    let (old, new) = (route("alice", "phone", 1), route("alice", "phone", 2));
    presence.register(old.clone()).await.unwrap();
    let replaced = presence.register(new.clone()).await.unwrap();
    assert_eq!(
        replaced,
        Registered::InForce {
            replaced: vec![old.clone()]
        }
    );
    presence.release(&old).await.unwrap();
    let late = presence.register(old).await.unwrap();
    assert_eq!(late, Registered::Superseded);
    let again = registered_again(&new, 1);
    presence.register(again.clone()).await.unwrap();
    presence
        .register(route("alice", "laptop", 1))
        .await
        .unwrap();
    presence.release(&again).await.unwrap();
    assert_eq!(told(&mut watch), [("alice".to_owned(), true)]);
    presence
        .release(&route("alice", "laptop", 1))
        .await
        .unwrap();
    assert_eq!(told(&mut watch), [("alice".to_owned(), false)]);
}

#[tokio::test]
async fn online_lists_in_order_of_user_page_by_page() {
    let presence = one_process();
    for number in (0..250).rev() {
        let route = route(&format!("u{number:03}"), "phone", 1);
        presence.register(route.clone()).await.unwrap();
        if number % 5 == 0 {
            presence.release(&route).await.unwrap();
        }
    }
    let all = presence.online(None, usize::MAX).await.unwrap();
    assert_eq!(all.len(), 200);
    assert!(names(&all).is_sorted());
    let page = presence.online(Some(&user("u001")), 4).await.unwrap();
    assert_eq!(names(&page), ["u002", "u003", "u004", "u006"]);
    assert_eq!(presence.online(Some(&user("u249")), 9).await, Ok(vec![]));
    assert_eq!(presence.online(None, 0).await, Ok(vec![]));
}

#[tokio::test]
async fn a_watcher_that_falls_behind_is_told_so() {
    let presence = one_process();
    let mut watch = presence.watch();
    for number in 0..=MAX_WATCH_EVENTS {
        let route = route(&format!("u{number}"), "phone", 1);
        presence.register(route).await.unwrap();
    }
    assert_eq!(watch.recv().await, Err(RecvError::Lagged(1)));
    assert_eq!(watch.recv().await.unwrap().user, user("u1"));
}

/// A directory whose calls take their time before and after they take effect,
/// so that they overtake each other; and that can be cut off.
struct Slow {
    inner: MemoryDirectory,
    turn: AtomicU64,
    cut: AtomicBool,
}

impl Slow {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryDirectory::new(),
            turn: AtomicU64::new(0),
            cut: AtomicBool::new(false),
        })
    }

    async fn pause(&self) -> Result<(), PresenceError> {
        let turn = self.turn.fetch_add(1, Ordering::SeqCst);
        for _ in 0..turn.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 60 {
            tokio::task::yield_now().await;
        }
        if self.cut.load(Ordering::SeqCst) {
            return Err(PresenceError::Unavailable { retry_after: None });
        }
        Ok(())
    }
}

macro_rules! slowly {
    ($self:ident, $call:expr) => {{
        $self.pause().await?;
        let answer = $call.await?;
        $self.pause().await?;
        Ok(answer)
    }};
}

#[async_trait]
impl Directory for Slow {
    async fn register(&self, route: &Route) -> Result<Registered, PresenceError> {
        slowly!(self, self.inner.register(route))
    }
    async fn release(&self, route: &Route, at: UnixMillis) -> Result<bool, PresenceError> {
        slowly!(self, self.inner.release(route, at))
    }
    async fn remove(&self, seen: &Route) -> Result<bool, PresenceError> {
        slowly!(self, self.inner.remove(seen))
    }
    async fn lookup(&self, users: &[UserId]) -> Result<Vec<UserRows>, PresenceError> {
        slowly!(self, self.inner.lookup(users))
    }
    async fn users(
        &self,
        after: Option<&UserId>,
        max: usize,
    ) -> Result<Vec<UserId>, PresenceError> {
        slowly!(self, self.inner.users(after, max))
    }
    async fn take(&self, lease: &Lease) -> Result<(), PresenceError> {
        slowly!(self, self.inner.take(lease))
    }
    async fn renew(&self, lease: &Lease) -> Result<Renewed, PresenceError> {
        slowly!(self, self.inner.renew(lease))
    }
    async fn forget(&self, seen: &Lease) -> Result<bool, PresenceError> {
        slowly!(self, self.inner.forget(seen))
    }
    async fn leases(&self) -> Result<Vec<Lease>, PresenceError> {
        slowly!(self, self.inner.leases())
    }
}

/// Devices of two users come and go, others ask; returns once all are done.
async fn come_and_go(presence: &Presence, round: u64) {
    let mut tasks = JoinSet::new();
    for number in 0..8 {
        let presence = presence.clone();
        tasks.spawn(async move {
            let (name, device) = (format!("u{}", number % 2), format!("d{}", number % 4));
            for connect in 1..=5 {
                let connect = round * 100 + connect * 10 + number;
                let route = route(&name, &device, connect);
                presence.register(route.clone()).await.unwrap();
                if !(connect + number).is_multiple_of(7) {
                    presence.release(&route).await.unwrap();
                }
            }
        });
    }
    for _ in 0..4 {
        let presence = presence.clone();
        tasks.spawn(async move {
            for _ in 0..10 {
                presence.presence(&[user("u0"), user("u1")]).await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

async fn changes_add_up(presence: Presence) {
    let mut watch = presence.watch();
    let mut shown = [false, false];
    for round in 0..60 {
        come_and_go(&presence, round).await;
        for (name, online) in told(&mut watch) {
            let shown = &mut shown[usize::from(name == "u1")];
            assert_ne!(*shown, online, "a change that changes nothing was told");
            *shown = online;
        }
        for (name, shown) in [("u0", shown[0]), ("u1", shown[1])] {
            let routes = presence.routes(&user(name)).await.unwrap();
            assert_eq!(shown, !routes.is_empty(), "{name} in round {round}");
            assert_eq!(shown, is_online(&presence, name).await);
        }
        assert_eq!(watch.try_recv(), Err(TryRecvError::Empty));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_changes_told_add_up_to_what_is_answered_with_many_threads() {
    changes_add_up(one_process()).await;
}

#[tokio::test]
async fn the_changes_told_add_up_to_what_is_answered_when_calls_overtake_each_other() {
    changes_add_up(Presence::new(
        Slow::new(),
        Nodes::OneProcess,
        Arc::new(clock()),
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_was_answered_is_followed_by_the_changes_that_correct_it() {
    let presence = Presence::new(Slow::new(), Nodes::OneProcess, Arc::new(clock()));
    for round in 0..30 {
        let mut askers = JoinSet::new();
        for _ in 0..8 {
            let presence = presence.clone();
            askers.spawn(async move {
                // As a new session does: watch first, then ask.
                let watch = presence.watch();
                (is_online(&presence, "u0").await, watch)
            });
        }
        come_and_go(&presence, round).await;
        let at_last = is_online(&presence, "u0").await;
        while let Some(asked) = askers.join_next().await {
            let (answered, mut watch) = asked.unwrap();
            let last = told(&mut watch).into_iter().rfind(|(name, _)| name == "u0");
            assert_eq!(last.map_or(answered, |(_, online)| online), at_last);
        }
    }
}

#[tokio::test]
async fn an_outage_is_an_error_and_not_offline_and_a_change_made_in_it_is_told_after_it() {
    let directory = Slow::new();
    let presence = Presence::new(directory.clone(), Nodes::OneProcess, Arc::new(clock()));
    let mut watch = presence.watch();
    let route = route("alice", "phone", 1);
    presence.register(route.clone()).await.unwrap();
    directory.cut.store(true, Ordering::SeqCst);
    assert!(presence.presence(&[user("alice")]).await.is_err());
    assert!(presence.routes(&user("alice")).await.is_err());
    assert!(presence.online(None, 10).await.is_err());
    assert!(presence.register(route.clone()).await.is_err());
    assert!(presence.release(&route).await.is_err());
    directory.inner.release(&route, MINUTE).await.unwrap();
    assert_eq!(told(&mut watch), [("alice".to_owned(), true)]);
    directory.cut.store(false, Ordering::SeqCst);
    assert!(!is_online(&presence, "alice").await);
    assert_eq!(told(&mut watch), [("alice".to_owned(), false)]);
}

/// Nodes n1 and n2 over one directory, and an observer.
struct Cluster {
    directory: Arc<MemoryDirectory>,
    presence: Presence,
    counter: u64,
}

fn lease(node: &str, start: &str, counter: u64) -> Lease {
    Lease {
        node: NodeId::parse(node).unwrap(),
        incarnation: Incarnation::parse(start).unwrap(),
        address: format!("{node}:1"),
        counter,
    }
}

fn on_node(route: Route, node: &str, start: &str) -> Route {
    let Lease {
        node, incarnation, ..
    } = lease(node, start, 0);
    Route {
        node,
        incarnation,
        ..route
    }
}

impl Cluster {
    async fn start() -> Self {
        let directory = Arc::new(MemoryDirectory::new());
        for node in ["n1", "n2"] {
            directory.take(&lease(node, "i0", 0)).await.unwrap();
        }
        let nodes = Nodes::Observed(Mutex::new(Observer::default()));
        Self {
            presence: Presence::new(directory.clone(), nodes, Arc::new(clock())),
            directory,
            counter: 0,
        }
    }

    /// So many polls, before each of which the nodes named renew their leases.
    async fn polls(&mut self, count: usize, renewing: &[&str]) {
        for _ in 0..count {
            tokio::time::advance(POLL_INTERVAL).await;
            self.counter += 1;
            for node in renewing {
                let renewal = lease(node, "i0", self.counter);
                self.directory.renew(&renewal).await.unwrap();
            }
            self.presence.observe().await.unwrap();
        }
    }

    async fn register(&self, name: &str, node: &str, start: &str) -> Route {
        let route = on_node(route(name, "phone", 1), node, start);
        self.presence.register(route.clone()).await.unwrap();
        route
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_node_is_an_error_to_who_asks_and_alive_to_who_routes() {
    let mut cluster = Cluster::start().await;
    let route = cluster.register("alice", "n1", "i0").await;
    cluster.polls(1, &[]).await;
    let asked = cluster.presence.presence(&[user("alice")]).await;
    assert_eq!(
        asked,
        Err(PresenceError::Unavailable {
            retry_after: Some(POLL_INTERVAL)
        })
    );
    assert!(cluster.presence.online(None, 10).await.is_err());
    let routes = cluster.presence.routes(&user("alice")).await;
    assert_eq!(routes, Ok(vec![route]));
    cluster.polls(1, &["n1", "n2"]).await;
    assert!(is_online(&cluster.presence, "alice").await);
}

#[tokio::test(start_paused = true)]
async fn one_living_node_is_enough_to_be_online() {
    let mut cluster = Cluster::start().await;
    cluster.register("alice", "n1", "i0").await;
    let other = Route {
        device: device("laptop"),
        ..on_node(route("alice", "laptop", 1), "n2", "i0")
    };
    cluster.presence.register(other).await.unwrap();
    cluster.polls(2, &["n2"]).await;
    assert!(is_online(&cluster.presence, "alice").await);
}

#[tokio::test(start_paused = true)]
async fn fifteen_seconds_after_a_kill_its_users_are_offline_and_the_others_online() {
    let mut cluster = Cluster::start().await;
    cluster.register("alice", "n1", "i0").await;
    cluster.register("bob", "n2", "i0").await;
    let mut watch = cluster.presence.watch();
    cluster.polls(3, &["n1", "n2"]).await;
    let online = cluster.presence.online(None, 10).await.unwrap();
    assert_eq!(names(&online), ["alice", "bob"]);
    cluster.polls(7, &["n2"]).await;
    let online = cluster.presence.online(None, 10).await.unwrap();
    assert_eq!(names(&online), ["bob"]);
    let expected = [("alice", true), ("bob", true), ("alice", false)];
    assert_eq!(
        told(&mut watch),
        expected.map(|(name, online)| (name.to_owned(), online))
    );
}

#[tokio::test(start_paused = true)]
async fn routes_of_a_dead_node_are_not_given_and_are_cleaned_up() {
    let mut cluster = Cluster::start().await;
    let route = cluster.register("alice", "n1", "i0").await;
    cluster.polls(3, &["n1"]).await;
    assert!(is_online(&cluster.presence, "alice").await);
    let mut watch = cluster.presence.watch();
    cluster.polls(7, &[]).await;
    assert_eq!(
        cluster.presence.routes(&user("alice")).await,
        Ok(Vec::new())
    );
    assert_eq!(told(&mut watch), [("alice".to_owned(), false)]);
    let rows = cluster.directory.lookup(&[user("alice")]).await.unwrap();
    assert_eq!(rows, [UserRows::default()]);
    let late = cluster.presence.register(route.clone()).await;
    assert_eq!(late, Ok(Registered::Superseded));
    let again = registered_again(&on_node(route, "n1", "i1"), 1);
    let back = cluster.presence.register(again).await;
    assert_eq!(
        back,
        Ok(Registered::InForce {
            replaced: Vec::new(),
        })
    );
}

#[tokio::test(start_paused = true)]
async fn a_restarted_node_does_not_revive_its_old_routes() {
    let mut cluster = Cluster::start().await;
    cluster.register("alice", "n1", "i0").await;
    cluster.polls(3, &["n1"]).await;
    let restarted = lease("n1", "i1", 1_000);
    cluster.directory.take(&restarted).await.unwrap();
    tokio::time::advance(POLL_INTERVAL).await;
    cluster.presence.observe().await.unwrap();
    // The session may be about to be registered again.
    assert!(cluster.presence.presence(&[user("alice")]).await.is_err());
    tokio::time::advance(REPLACED_GRACE).await;
    cluster.presence.observe().await.unwrap();
    assert!(!is_online(&cluster.presence, "alice").await);
    assert_eq!(
        cluster.presence.routes(&user("alice")).await,
        Ok(Vec::new())
    );
}

#[tokio::test(start_paused = true)]
async fn routes_of_a_node_that_started_since_the_last_poll_are_not_taken_for_dead() {
    let mut cluster = Cluster::start().await;
    cluster.polls(2, &["n1"]).await;
    tokio::time::advance(Duration::from_millis(10)).await;
    cluster.directory.take(&lease("n3", "i0", 1)).await.unwrap();
    let route = cluster.register("alice", "n3", "i0").await;
    let routes = cluster.presence.routes(&user("alice")).await;
    assert_eq!(routes, Ok(vec![route]));
    assert!(cluster.presence.presence(&[user("alice")]).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_route_of_a_start_that_no_lease_names_is_dead_at_the_first_question() {
    let mut cluster = Cluster::start().await;
    // A replica that has just begun to look does not know what was before.
    cluster.polls(4, &["n1"]).await;
    tokio::time::advance(Duration::from_millis(10)).await;
    cluster.register("alice", "n1", "long-ago").await;
    assert!(!is_online(&cluster.presence, "alice").await);
}
