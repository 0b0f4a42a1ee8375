//! The presence service: rows of the directory, judged by what is known of
//! nodes, and the changes that follow.
//!
//! It adds no state of its own to the directory's but what watchers were told.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use duologue_proto::ids::{Incarnation, NodeId, UnixMillis, UserId};
use duologue_proto::presence::{Lease, PresenceError, Registered, Route, UserPresence};
use duologue_runtime::clock::Clock;
use duologue_runtime::lease::ReadTime;
use tokio::sync::broadcast;
use tokio::time::Instant;
use tracing::debug;

use crate::board::{Board, State};
use crate::directory::{Directory, UserRows};
use crate::lease::{Liveness, Observer, POLL_INTERVAL};
use crate::memory::MemoryDirectory;

/// Changes that a watcher may fall behind by before it is told to ask.
pub const MAX_WATCH_EVENTS: usize = 4_096;
/// Users whose reading failed and is made good later. Of those past it no change is
/// told before somebody asks for them.
pub const MAX_OWED_READINGS: usize = 131_072;
/// Users looked up in one call to the directory.
pub const MAX_LOOKUP_USERS: usize = 100;
/// Pages of so many users that are read again at the same time. If so many fail in a row,
/// the rest waits for the next poll.
pub const CONCURRENT_PAGES: usize = 4;

const MINUTE_MILLIS: u64 = 60_000;

/// What is known of nodes.
#[derive(Debug)]
pub enum Nodes {
    /// There is one process: who registered a route is who asks, and lives.
    OneProcess,
    /// Nodes are observed through their leases. Whoever runs the service runs
    /// [`Presence::watch_nodes`] with it.
    Observed(Mutex<Observer>),
}

/// Who is online, and where. Clones share everything.
#[derive(Clone)]
pub struct Presence(Arc<Inner>);

struct Inner {
    directory: Arc<dyn Directory>,
    nodes: Nodes,
    clock: Arc<dyn Clock>,
    board: Board,
}

impl Presence {
    /// Presence of a system that is one process.
    pub fn in_one_process(clock: Arc<dyn Clock>) -> Self {
        Self::new(Arc::new(MemoryDirectory::new()), Nodes::OneProcess, clock)
    }

    /// Presence over any directory.
    pub fn new(directory: Arc<dyn Directory>, nodes: Nodes, clock: Arc<dyn Clock>) -> Self {
        let max_owed = match nodes {
            // Nobody polls, and its directory does not fail.
            Nodes::OneProcess => 0,
            Nodes::Observed(_) => MAX_OWED_READINGS,
        };
        Self(Arc::new(Inner {
            directory,
            nodes,
            clock,
            board: Board::new(MAX_WATCH_EVENTS, max_owed),
        }))
    }

    /// Puts a route in force, unless a higher number is. Registering the same
    /// route again changes nothing. `replaced` names other sessions only, and again
    /// whenever the registration is repeated.
    pub async fn register(&self, route: Route) -> Result<Registered, PresenceError> {
        let registered = self.0.directory.register(&route).await;
        self.tell_changes(&route.user).await;
        registered
    }

    /// Removes a route, unless a higher number is in force. A registration with
    /// its number or a lower one that comes later is superseded.
    pub async fn release(&self, route: &Route) -> Result<(), PresenceError> {
        let at = self.0.clock.now();
        let released = self.0.directory.release(route, at).await;
        self.tell_changes(&route.user).await;
        released.map(|_| ())
    }

    /// The routes of a user, in order of device. Those of unknown nodes are among
    /// them; those of dead ones are not, and are cleaned up.
    pub async fn routes(&self, user: &UserId) -> Result<Vec<Route>, PresenceError> {
        let (rows, read_at) = self.lookup(std::slice::from_ref(user)).await?;
        let routes = rows.into_iter().flat_map(|rows| rows.routes);
        let (dead, routes): (Vec<_>, Vec<_>) =
            routes.partition(|route| self.liveness(route, read_at) == Liveness::Dead);
        if !dead.is_empty() {
            self.clean_up(user, &dead).await;
        }
        Ok(routes)
    }

    /// The presence of each of `users`, in their order. Last seen is rounded down
    /// to the minute.
    ///
    /// No answer contradicts the changes that follow it: what differs from it
    /// later is told to every watcher of then.
    pub async fn presence(&self, users: &[UserId]) -> Result<Vec<UserPresence>, PresenceError> {
        let mut found = Vec::with_capacity(users.len());
        for users in users.chunks(MAX_LOOKUP_USERS) {
            found.extend(self.read(users).await?);
        }
        let found: Option<_> = found.into_iter().collect();
        found.ok_or_else(|| not_known_yet(POLL_INTERVAL))
    }

    /// Users who are online, in order, after `after`; at most `max`.
    pub async fn online(
        &self,
        after: Option<&UserId>,
        max: usize,
    ) -> Result<Vec<UserPresence>, PresenceError> {
        let (mut online, mut after) = (Vec::new(), after.cloned());
        while online.len() < max {
            let wanted = (max - online.len()).min(MAX_LOOKUP_USERS);
            let users = self.0.directory.users(after.as_ref(), wanted).await?;
            let Some(last) = users.last() else { break };
            after = Some(last.clone());
            let presence = self.presence(&users).await?;
            online.extend(presence.into_iter().filter(|user| user.online));
        }
        Ok(online)
    }

    /// Changes from now on: one whenever a user comes online or goes offline, in
    /// order. A receiver that falls behind by more than [`MAX_WATCH_EVENTS`] is
    /// told so, and asks.
    pub fn watch(&self) -> broadcast::Receiver<UserPresence> {
        self.0.board.watch()
    }

    /// Reads the leases once and judges the nodes by them. Does nothing in one
    /// process.
    pub async fn observe(&self) -> Result<(), PresenceError> {
        if matches!(self.0.nodes, Nodes::OneProcess) {
            return Ok(());
        }
        self.observe_leases().await.map(|_| ())
    }

    /// Reads the leases, and judges the nodes by them.
    pub(crate) async fn observe_leases(&self) -> Result<Vec<Lease>, PresenceError> {
        let began = Instant::now();
        let leases = self.0.directory.leases().await?;
        let ended = Instant::now();
        if let Some(mut observer) = self.observer() {
            observer.observe(ReadTime { began, ended }, &leases);
        }
        Ok(leases)
    }

    pub(crate) fn directory(&self) -> &dyn Directory {
        &*self.0.directory
    }

    /// Who is to be read again: see [`Board::due`].
    pub(crate) fn due(&self, after: Option<&UserId>) -> Vec<UserId> {
        let mut over = self.0.board.starts();
        let Some(observer) = self.observer() else {
            return Vec::new();
        };
        over.retain(|(node, incarnation)| observer.is_over(node, incarnation));
        drop(observer);
        self.0.board.due(&over, after, MAX_LOOKUP_USERS)
    }

    /// Looks users up, and learns of nodes that started since the last look.
    /// Returns when the rows were there to be read.
    async fn lookup(&self, users: &[UserId]) -> Result<(Vec<UserRows>, Instant), PresenceError> {
        let rows = self.0.directory.lookup(users).await?;
        let read_at = Instant::now();
        if self.names_unfamiliar_nodes(&rows) {
            self.observe().await?;
        }
        Ok((rows, read_at))
    }

    /// What is shown of each of `users` from now on; none where that is open.
    pub(crate) async fn read(
        &self,
        users: &[UserId],
    ) -> Result<Vec<Option<UserPresence>>, PresenceError> {
        let readings: Vec<_> = users.iter().map(|user| self.0.board.begin(user)).collect();
        let (rows, read_at) = self.lookup(users).await?;
        let judged = rows.iter().map(|rows| self.judge(rows, read_at));
        let read = readings.into_iter().zip(judged);
        Ok(read
            .map(|(reading, state)| state.map(|state| reading.publish(state)))
            .collect())
    }

    /// One living node is enough to be online; an unknown one leaves it open.
    fn judge(&self, rows: &UserRows, read_at: Instant) -> Option<State> {
        let mut unknown = false;
        for route in &rows.routes {
            match self.liveness(route, read_at) {
                Liveness::Alive => return Some(self.online_by(route)),
                Liveness::Unknown => unknown = true,
                Liveness::Dead => {}
            }
        }
        (!unknown).then(|| State {
            online: false,
            by: None,
            last_seen: rows.last_seen.map(to_the_minute),
        })
    }

    fn online_by(&self, route: &Route) -> State {
        let observed = matches!(self.0.nodes, Nodes::Observed(_));
        State {
            online: true,
            by: observed.then(|| (route.node.clone(), route.incarnation.clone())),
            last_seen: None,
        }
    }

    /// After every change of this process, even one of unknown outcome, so that the
    /// last reading sees the last change. A failure here must not fail the change
    /// that is in force: the next reading of the user tells.
    pub(crate) async fn tell_changes(&self, user: &UserId) {
        if let Err(error) = self.presence(std::slice::from_ref(user)).await {
            debug!(user.id = %user, %error, "a change of presence was not told");
        }
    }

    /// By exact number: a session that has registered again since stays.
    async fn clean_up(&self, user: &UserId, dead: &[Route]) {
        for route in dead {
            if let Err(error) = self.remove_dead(route).await {
                debug!(user.id = %user, %error, "a route of a dead node was not removed");
            }
        }
        self.tell_changes(user).await;
    }

    /// Removes a route, and before that the lease that its incarnation has left behind:
    /// a node whose routes are gone must not find its lease in force. One that has
    /// renewed after all keeps both.
    pub(crate) async fn remove_dead(&self, route: &Route) -> Result<bool, PresenceError> {
        let nodes = self.observer();
        let left = nodes.and_then(|nodes| nodes.left_behind(&route.node, &route.incarnation));
        if let Some(lease) = left
            && !self.0.directory.forget(&lease).await?
            && self.holds(&lease).await?
        {
            return Ok(false);
        }
        self.0.directory.remove(route).await
    }

    /// Whether this incarnation has a lease now.
    async fn holds(&self, lease: &Lease) -> Result<bool, PresenceError> {
        let leases = self.observe_leases().await?;
        let same = |held: &Lease| held.node == lease.node && held.incarnation == lease.incarnation;
        Ok(leases.iter().any(same))
    }

    fn liveness(&self, route: &Route, read_at: Instant) -> Liveness {
        self.liveness_of(&route.node, &route.incarnation, read_at)
    }

    pub(crate) fn liveness_of(
        &self,
        node: &NodeId,
        incarnation: &Incarnation,
        read_at: Instant,
    ) -> Liveness {
        self.observer().map_or(Liveness::Alive, |observer| {
            observer.liveness(node, incarnation, read_at, Instant::now())
        })
    }

    fn names_unfamiliar_nodes(&self, rows: &[UserRows]) -> bool {
        let mut routes = rows.iter().flat_map(|rows| &rows.routes);
        self.observer().is_some_and(|observer| {
            routes.any(|route| observer.is_unfamiliar(&route.node, &route.incarnation))
        })
    }

    pub(crate) fn observer(&self) -> Option<MutexGuard<'_, Observer>> {
        match &self.0.nodes {
            Nodes::OneProcess => None,
            Nodes::Observed(observer) => {
                Some(observer.lock().unwrap_or_else(PoisonError::into_inner))
            }
        }
    }
}

impl std::fmt::Debug for Presence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Presence").finish_non_exhaustive()
    }
}

fn to_the_minute(time: UnixMillis) -> UnixMillis {
    UnixMillis(time.0 - time.0 % MINUTE_MILLIS)
}

fn not_known_yet(wait: Duration) -> PresenceError {
    PresenceError::Unavailable {
        retry_after: Some(wait),
    }
}
