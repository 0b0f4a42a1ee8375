//! Presence in other processes: any number of replicas over one directory.
//!
//! A replica tells its watchers of what it comes to know by itself or when it is
//! asked. So a node watches the replica that it asks, and asks the one that it
//! watches: its home. When the watch cannot be opened there, or it cannot do what it is
//! asked, the next replica becomes the home.
//!
//! Leases, nodes and stale routes are the directory's alone: any replica serves, and
//! where one cannot another is asked, so that no replica can cost a node its lease.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use duologue_proto::ids::UserId;
use duologue_proto::limits::MAX_INTERNAL_BYTES;
use duologue_proto::presence::v1 as wire;
use duologue_proto::presence::v1::presence_service_client::PresenceServiceClient;
use duologue_proto::presence::v1::watch_response::Event;
use duologue_proto::presence::{
    Lease, NodeInfo, PresenceError, Registered, Renewed, Route, UserPresence,
};
use duologue_proto::wire::{Read, presence as convert};
use duologue_runtime::clock::Random;
use duologue_runtime::refusal::services::presence_error;
use duologue_runtime::task;
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tonic::{Response, Status, Streaming};

use super::{Connection, OPEN_TIMEOUT, Replica, garbled, pause, timed};
use crate::ports;

/// Changes that wait to be told to this node's sessions; past it some are missed.
pub const MAX_CHANGES: usize = 4_096;

/// One try at one replica, where another can be asked after it: a lease's renewal has
/// time for two.
pub const TRY_TIMEOUT: Duration = Duration::from_millis(900);
/// So often in a row the home cannot do what it is asked before it is left.
pub const MAX_HOME_FAILURES: u32 = 2;
/// A home is not left sooner after the last for what it cannot do: it may be that no
/// replica can.
pub const HOME_STAY: Duration = Duration::from_secs(5);

/// Presence, as chat asks for it.
pub struct RemotePresence {
    shared: Arc<Shared>,
    watch: JoinHandle<()>,
}

struct Shared {
    homes: Mutex<Homes>,
    /// The home is another one.
    moved: Notify,
    /// Closed, and replaced, whenever changes were missed.
    changes: Mutex<broadcast::Sender<UserPresence>>,
}

/// The replicas that there are, and which of them is asked and watched.
#[derive(Default)]
struct Homes {
    replicas: Vec<(String, PresenceServiceClient<Connection>)>,
    home: usize,
    /// In a row.
    failures: u32,
    left_at: Option<Instant>,
    /// Which is asked first what any can answer.
    any: usize,
}

/// Asks the home replica.
macro_rules! ask {
    ($presence:expr, $call:ident, $request:expr) => {{
        let mut client = $presence.shared.home()?;
        answer(client.$call(timed($request)).await)
    }};
}

/// Has the home read or change rows, which it can unless it is broken or they are.
macro_rules! use_rows {
    ($presence:expr, $call:ident, $request:expr) => {{
        let (home, mut client) = $presence.shared.named_home()?;
        let answer = answer(client.$call(timed($request)).await);
        let did = matches!(answer, Ok(_) | Err(PresenceError::OfUser));
        $presence.shared.answered(&home, did);
        answer
    }};
}

/// Asks one replica after the other until one answers, beginning with the one that
/// answered last. The call may be made more than once.
macro_rules! ask_any {
    ($presence:expr, $call:ident, $request:expr) => {{
        let request = $request;
        let mut last = Err(PresenceError::Unavailable { retry_after: None });
        for (name, mut client) in $presence.shared.all() {
            let mut asked = timed(request.clone());
            asked.set_timeout(TRY_TIMEOUT);
            let late = |_| Err(Status::deadline_exceeded("the replica does not answer"));
            let tried = timeout(TRY_TIMEOUT, client.$call(asked)).await;
            last = answer(tried.unwrap_or_else(late));
            if last.is_ok() {
                break;
            }
            $presence.shared.try_another(&name);
        }
        last
    }};
}

impl RemotePresence {
    /// Presence at these replicas, of which it watches one: to be called in a runtime.
    pub fn new(replicas: Vec<Replica>, random: Arc<dyn Random>) -> Self {
        let shared = Arc::new(Shared {
            homes: Mutex::default(),
            moved: Notify::new(),
            changes: Mutex::new(broadcast::channel(MAX_CHANGES).0),
        });
        shared.set_replicas(replicas);
        let watch = task::spawn("presence watch", watch(Arc::clone(&shared), random));
        Self { shared, watch }
    }

    /// From now on presence is at these replicas. The home stays, if it is one of them.
    pub fn set_replicas(&self, replicas: Vec<Replica>) {
        self.shared.set_replicas(replicas);
    }
}

impl Drop for RemotePresence {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

#[async_trait]
impl ports::Nodes for RemotePresence {
    async fn take_lease(&self, lease: &Lease) -> Result<(), PresenceError> {
        let lease = Some(convert::write_lease(lease));
        ask_any!(self, take_lease, wire::TakeLeaseRequest { lease }).map(|_| ())
    }

    async fn renew_lease(&self, lease: &Lease) -> Result<Renewed, PresenceError> {
        let lease = Some(convert::write_lease(lease));
        let response = ask_any!(self, renew_lease, wire::RenewLeaseRequest { lease })?;
        Ok(convert::read_renewed(response))
    }

    async fn forget_lease(&self, lease: &Lease) -> Result<bool, PresenceError> {
        let lease = Some(convert::write_lease(lease));
        Ok(ask_any!(self, forget_lease, wire::ForgetLeaseRequest { lease })?.forgotten)
    }

    async fn nodes(&self) -> Result<Vec<NodeInfo>, PresenceError> {
        let response = ask_any!(self, list_nodes, wire::ListNodesRequest {})?;
        checked(convert::read_nodes(response))
    }

    async fn remove_route(&self, route: &Route) -> Result<bool, PresenceError> {
        let route = Some(convert::write_route(route));
        Ok(ask_any!(self, remove_route, wire::RemoveRouteRequest { route })?.removed)
    }
}

#[async_trait]
impl ports::Presence for RemotePresence {
    async fn register(&self, route: Route) -> Result<Registered, PresenceError> {
        let route = Some(convert::write_route(&route));
        let response = use_rows!(self, register, wire::RegisterRequest { route })?;
        checked(convert::read_registered(response))
    }

    async fn release(&self, route: &Route) -> Result<(), PresenceError> {
        let route = Some(convert::write_route(route));
        use_rows!(self, release, wire::ReleaseRequest { route }).map(|_| ())
    }

    async fn routes(&self, user: &UserId) -> Result<Vec<Route>, PresenceError> {
        let user = user.to_string();
        let response = use_rows!(self, get_routes, wire::GetRoutesRequest { user })?;
        checked(convert::read_routes(response))
    }

    async fn presence(&self, users: &[UserId]) -> Result<Vec<UserPresence>, PresenceError> {
        let response = ask!(self, get_presence, convert::write_get_presence(users))?;
        let found = checked(convert::read_presences(response.users))?;
        let asked_for = found.iter().map(|presence| &presence.user);
        if asked_for.eq(users) {
            Ok(found)
        } else {
            tracing::error!("presence answers for others than it was asked");
            Err(PresenceError::Unavailable { retry_after: None })
        }
    }

    async fn online(
        &self,
        after: Option<&UserId>,
        max: usize,
    ) -> Result<Vec<UserPresence>, PresenceError> {
        let request = convert::write_list_online(after, max);
        let response = ask!(self, list_online, request)?;
        checked(convert::read_presences(response.users))
    }

    fn watch(&self) -> broadcast::Receiver<UserPresence> {
        self.shared.with_changes(|changes| changes.subscribe())
    }
}

impl Homes {
    fn move_on(&mut self) {
        self.home = (self.home + 1) % self.replicas.len().max(1);
        self.failures = 0;
    }
}

impl Shared {
    fn home(&self) -> Result<PresenceServiceClient<Connection>, PresenceError> {
        self.named_home().map(|(_, client)| client)
    }

    fn named_home(&self) -> Result<(String, PresenceServiceClient<Connection>), PresenceError> {
        let homes = self.homes();
        let home = homes.replicas.get(homes.home).cloned();
        home.ok_or(PresenceError::Unavailable { retry_after: None })
    }

    /// The home, if it still is, did what it was asked or could not.
    fn answered(&self, home: &str, did: bool) {
        let mut homes = self.homes();
        if homes
            .replicas
            .get(homes.home)
            .is_none_or(|(name, _)| name != home)
        {
            return;
        }
        homes.failures = if did { 0 } else { homes.failures + 1 };
        let now = Instant::now();
        let may_leave = homes.replicas.len() > 1
            && homes
                .left_at
                .is_none_or(|left| now.saturating_duration_since(left) >= HOME_STAY);
        if homes.failures >= MAX_HOME_FAILURES && may_leave {
            homes.move_on();
            homes.left_at = Some(now);
            drop(homes);
            self.moved.notify_one();
        }
    }

    /// Every replica, the one that answered last first.
    fn all(&self) -> Vec<(String, PresenceServiceClient<Connection>)> {
        let homes = self.homes();
        let (before, from) = homes.replicas.split_at(homes.any.min(homes.replicas.len()));
        from.iter().chain(before).cloned().collect()
    }

    /// That one did not answer: the next is asked first, unless that was changed already.
    fn try_another(&self, failed: &str) {
        let mut homes = self.homes();
        let first = homes.replicas.get(homes.any);
        if first.is_some_and(|(name, _)| name == failed) {
            homes.any = (homes.any + 1) % homes.replicas.len().max(1);
        }
    }

    fn set_replicas(&self, replicas: Vec<Replica>) {
        let clients = replicas.into_iter().map(|replica| {
            let client = PresenceServiceClient::new(replica.connection)
                .max_decoding_message_size(MAX_INTERNAL_BYTES)
                .max_encoding_message_size(MAX_INTERNAL_BYTES);
            (replica.name, client)
        });
        let mut homes = self.homes();
        let before = homes.replicas.get(homes.home).map(|(name, _)| name.clone());
        homes.replicas = clients.collect();
        let same = |(name, _): &(String, _)| Some(name) == before.as_ref();
        let home = homes.replicas.iter().position(same);
        homes.home = home.unwrap_or(0);
        homes.any = 0;
        if home.is_none() {
            homes.failures = 0;
            // Who asks one and watches another would not be told.
            self.moved.notify_one();
        }
    }

    /// The replica after the home becomes the home.
    fn move_on(&self) {
        self.homes().move_on();
    }

    fn homes(&self) -> MutexGuard<'_, Homes> {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_changes<T>(&self, take: impl FnOnce(&mut broadcast::Sender<UserPresence>) -> T) -> T {
        take(&mut self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes were missed: receivers find themselves closed, watch anew, and then
    /// ask. Not before the replica tells changes again: it would be in vain.
    fn missed(&self) {
        self.with_changes(|changes| *changes = broadcast::channel(MAX_CHANGES).0);
    }

    fn tell(&self, change: UserPresence) {
        // An error says that nobody watches.
        let _ = self.with_changes(|changes| changes.send(change));
    }

    /// Tells what the home tells until that is over. Returns why, and whether it had
    /// begun.
    async fn follow(&self) -> (Status, bool) {
        let mut events = match open(self.home()).await {
            Ok(events) => events,
            Err(status) => return (status, false),
        };
        self.missed();
        loop {
            let event = match events.message().await {
                Ok(Some(response)) => response.event,
                Ok(None) => return (Status::unavailable("the watch ended"), true),
                Err(status) => return (status, true),
            };
            match event {
                Some(Event::Changed(change)) => match convert::read_presence(&change) {
                    Ok(change) => self.tell(change),
                    Err(fault) => return (garbled("presence", &fault), true),
                },
                // What is not understood may be a change.
                Some(Event::Missed(_) | Event::Started(_)) | None => self.missed(),
            }
        }
    }
}

/// Watches for as long as the node lives.
async fn watch(shared: Arc<Shared>, random: Arc<dyn Random>) {
    let mut failures = 0;
    loop {
        let (status, began) = tokio::select! {
            biased;
            () = shared.moved.notified() => continue,
            ended = shared.follow() => ended,
        };
        tracing::warn!(error = %status.code(), "the watch of presence is broken");
        if began {
            failures = 0;
        } else {
            failures += 1;
            shared.move_on();
        }
        tokio::time::sleep(pause(failures, &*random)).await;
    }
}

/// Opens a watch: it has begun when this returns.
async fn open(
    home: Result<PresenceServiceClient<Connection>, PresenceError>,
) -> Result<Streaming<wire::WatchResponse>, Status> {
    let mut home = home.map_err(|_| Status::unavailable("presence has no replica"))?;
    let opening = async {
        let mut events = home.watch(wire::WatchRequest {}).await?.into_inner();
        match events.message().await?.and_then(|first| first.event) {
            Some(Event::Started(_)) => Ok(events),
            Some(Event::Changed(_) | Event::Missed(_)) | None => {
                Err(Status::internal("a watch does not begin as it must"))
            }
        }
    };
    let late = |_| Status::deadline_exceeded("the watch does not begin");
    timeout(OPEN_TIMEOUT, opening).await.map_err(late)?
}

fn answer<T>(answer: Result<Response<T>, Status>) -> Result<T, PresenceError> {
    answer.map(Response::into_inner).map_err(|status| {
        tracing::warn!(code = %status.code(), "presence does not answer");
        presence_error(&status)
    })
}

fn checked<T>(read: Read<T>) -> Result<T, PresenceError> {
    read.map_err(|fault| presence_error(&garbled("presence", &fault)))
}
