//! The engine of one process: rows behind one lock, gone with the process.
//!
//! No call waits for anything while it holds the lock, so each is atomic and
//! none can be cancelled halfway.

use std::collections::BTreeMap;
use std::iter;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use duologue_proto::ids::{DeviceId, NodeId, UnixMillis, UserId};
use duologue_proto::presence::{ConnectNumber, PresenceError, Registered, Route};
use duologue_runtime::faults::{Mutant, planted};
use tokio::time::Instant;

use crate::directory::{
    Directory, GONE_KEPT, LAST_SEEN_KEPT, Lease, MAX_NODES, MAX_REPLACED, MAX_ROUTES_PER_USER,
    Renewed, UserRows,
};
use crate::expiring::Expiring;

/// Rows "gone, number" at most, about 40 MB; past it the oldest is forgotten
/// before its hour.
pub const MAX_GONE_ROWS: usize = 131_072;
/// Users whose last seen time is kept; past it the oldest is forgotten.
pub const MAX_LAST_SEEN_ROWS: usize = 131_072;

/// Routes and leases in memory. Routes in force are as many as there are
/// sessions, which chat bounds.
#[derive(Debug)]
pub struct MemoryDirectory(Mutex<Rows>);

#[derive(Debug)]
struct Rows {
    routes: BTreeMap<UserId, BTreeMap<DeviceId, Held>>,
    gone: Expiring<(UserId, DeviceId), ConnectNumber>,
    last_seen: Expiring<UserId, UnixMillis>,
    leases: BTreeMap<NodeId, Lease>,
}

#[derive(Debug)]
struct Held {
    route: Route,
    /// Of other sessions, as [`Registered`] names them.
    replaced: Vec<Route>,
}

impl MemoryDirectory {
    /// An empty directory.
    pub fn new() -> Self {
        Self(Mutex::new(Rows {
            routes: BTreeMap::new(),
            gone: Expiring::new(GONE_KEPT, MAX_GONE_ROWS),
            last_seen: Expiring::new(LAST_SEEN_KEPT, MAX_LAST_SEEN_ROWS),
            leases: BTreeMap::new(),
        }))
    }

    /// Nothing panics while it holds the lock; if something did, each row would
    /// still be whole.
    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryDirectory {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Directory for MemoryDirectory {
    async fn register(&self, route: &Route) -> Result<Registered, PresenceError> {
        self.rows().register(route, Instant::now())
    }

    async fn release(&self, route: &Route, at: UnixMillis) -> Result<bool, PresenceError> {
        Ok(self.rows().release(route, at, Instant::now()))
    }

    async fn remove(&self, seen: &Route) -> Result<bool, PresenceError> {
        let mut rows = self.rows();
        let held = rows.in_force(seen);
        let exact = if planted(Mutant::CleanUpBySession) {
            held.is_some_and(|held| held.session == seen.session)
        } else {
            held == Some(seen)
        };
        if exact {
            rows.make_gone(seen, None, Instant::now());
        }
        Ok(exact)
    }

    async fn lookup(&self, users: &[UserId]) -> Result<Vec<UserRows>, PresenceError> {
        let (rows, now) = (self.rows(), Instant::now());
        Ok(users.iter().map(|user| rows.of_user(user, now)).collect())
    }

    async fn users(
        &self,
        after: Option<&UserId>,
        max: usize,
    ) -> Result<Vec<UserId>, PresenceError> {
        let first = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.rows();
        let users = rows.routes.range((first, Bound::Unbounded));
        Ok(users.take(max).map(|(user, _)| user.clone()).collect())
    }

    async fn take(&self, lease: &Lease) -> Result<(), PresenceError> {
        let leases = &mut self.rows().leases;
        if leases.len() >= MAX_NODES && !leases.contains_key(&lease.node) {
            return Err(PresenceError::Unavailable { retry_after: None });
        }
        leases.insert(lease.node.clone(), lease.clone());
        Ok(())
    }

    async fn renew(&self, lease: &Lease) -> Result<Renewed, PresenceError> {
        let leases = &mut self.rows().leases;
        let held = leases.get_mut(&lease.node);
        let Some(held) = held.filter(|held| held.incarnation == lease.incarnation) else {
            return Ok(Renewed::Lost);
        };
        if held.counter < lease.counter {
            held.clone_from(lease);
        }
        Ok(Renewed::InForce)
    }

    async fn forget(&self, seen: &Lease) -> Result<bool, PresenceError> {
        let leases = &mut self.rows().leases;
        let exact = leases.get(&seen.node) == Some(seen);
        if exact {
            leases.remove(&seen.node);
        }
        Ok(exact)
    }

    async fn leases(&self) -> Result<Vec<Lease>, PresenceError> {
        Ok(self.rows().leases.values().cloned().collect())
    }
}

impl Rows {
    fn register(&mut self, route: &Route, now: Instant) -> Result<Registered, PresenceError> {
        let key = (route.user.clone(), route.device.clone());
        if let Some(gone) = self.gone.get(&key, now)
            && *gone >= route.number
        {
            return Ok(Registered::Superseded);
        }
        if let Some(held) = self.held(route) {
            if held.route == *route {
                return Ok(held.answer());
            }
            if held.route.number >= route.number && !planted(Mutant::LowerConnectNumberWins) {
                if planted(Mutant::LateRegistrationWins) {
                    self.put_in_force(route)?;
                    return Ok(Registered::InForce {
                        replaced: Vec::new(),
                    });
                }
                return Ok(Registered::Superseded);
            }
        }
        self.put_in_force(route).inspect(|_| self.gone.remove(&key))
    }

    fn put_in_force(&mut self, route: &Route) -> Result<Registered, PresenceError> {
        let devices = self.routes.entry(route.user.clone()).or_default();
        if devices.len() >= MAX_ROUTES_PER_USER && !devices.contains_key(&route.device) {
            return Err(PresenceError::OfUser);
        }
        let replaced = match devices.remove(&route.device) {
            // A session that registers again replaces nobody; whom it has replaced
            // may not have been told yet.
            Some(before) if before.route.session == route.session => before.replaced,
            Some(before) => {
                let both = iter::once(before.route).chain(before.replaced);
                both.take(MAX_REPLACED).collect()
            }
            None => Vec::new(),
        };
        let held = Held {
            route: route.clone(),
            replaced,
        };
        let answer = held.answer();
        devices.insert(route.device.clone(), held);
        Ok(answer)
    }

    fn release(&mut self, route: &Route, at: UnixMillis, now: Instant) -> bool {
        if planted(Mutant::ReleaseJustDeletes) {
            let devices = self.routes.get_mut(&route.user);
            return devices.is_some_and(|devices| devices.remove(&route.device).is_some());
        }
        if let Some(held) = self.in_force(route)
            && held.number >= route.number
            && held != route
        {
            return false;
        }
        let key = (route.user.clone(), route.device.clone());
        if let Some(gone) = self.gone.get(&key, now)
            && *gone >= route.number
        {
            return false;
        }
        self.make_gone(route, Some(at), now)
    }

    /// Returns whether a route was in force.
    fn make_gone(&mut self, route: &Route, at: Option<UnixMillis>, now: Instant) -> bool {
        let key = (route.user.clone(), route.device.clone());
        self.gone.put(key, route.number, now);
        let Some(devices) = self.routes.get_mut(&route.user) else {
            return false;
        };
        let went = devices.remove(&route.device).is_some();
        if devices.is_empty() {
            self.routes.remove(&route.user);
            self.last_seen.remove(&route.user);
            if let Some(at) = at {
                self.last_seen.put(route.user.clone(), at, now);
            }
        }
        went
    }

    fn in_force(&self, route: &Route) -> Option<&Route> {
        self.held(route).map(|held| &held.route)
    }

    fn held(&self, route: &Route) -> Option<&Held> {
        self.routes.get(&route.user)?.get(&route.device)
    }

    fn of_user(&self, user: &UserId, now: Instant) -> UserRows {
        let devices = self.routes.get(user).into_iter();
        UserRows {
            routes: devices
                .flat_map(BTreeMap::values)
                .map(|held| held.route.clone())
                .collect(),
            last_seen: self.last_seen.get(user, now).copied(),
        }
    }
}

impl Held {
    fn answer(&self) -> Registered {
        let others = self.replaced.iter();
        let others = others.filter(|replaced| replaced.session != self.route.session);
        Registered::InForce {
            replaced: others.cloned().collect(),
        }
    }
}
