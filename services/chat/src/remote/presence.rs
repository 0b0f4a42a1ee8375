//! Presence in other processes: any number of replicas over one directory.
//!
//! A replica tells its watchers of what it comes to know by itself or when it is
//! asked. So a node watches the replica that it asks, and asks the one that it
//! watches: its home. When the watch cannot be opened there, the next replica becomes
//! the home.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
use tokio::time::timeout;
use tonic::{Response, Status, Streaming};

use super::{Connection, OPEN_TIMEOUT, Replica, garbled, pause, timed};
use crate::ports;

/// Changes that wait to be told to this node's sessions; past it some are missed.
pub const MAX_CHANGES: usize = 4_096;

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
}

/// Asks the home replica.
macro_rules! ask {
    ($presence:expr, $call:ident, $request:expr) => {{
        let mut client = $presence.shared.home()?;
        answer(client.$call(timed($request)).await)
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
        ask!(self, take_lease, wire::TakeLeaseRequest { lease }).map(|_| ())
    }

    async fn renew_lease(&self, lease: &Lease) -> Result<Renewed, PresenceError> {
        let lease = Some(convert::write_lease(lease));
        let response = ask!(self, renew_lease, wire::RenewLeaseRequest { lease })?;
        Ok(convert::read_renewed(response))
    }

    async fn forget_lease(&self, lease: &Lease) -> Result<bool, PresenceError> {
        let lease = Some(convert::write_lease(lease));
        Ok(ask!(self, forget_lease, wire::ForgetLeaseRequest { lease })?.forgotten)
    }

    async fn nodes(&self) -> Result<Vec<NodeInfo>, PresenceError> {
        let response = ask!(self, list_nodes, wire::ListNodesRequest {})?;
        checked(convert::read_nodes(response))
    }

    async fn remove_route(&self, route: &Route) -> Result<bool, PresenceError> {
        let route = Some(convert::write_route(route));
        Ok(ask!(self, remove_route, wire::RemoveRouteRequest { route })?.removed)
    }
}

#[async_trait]
impl ports::Presence for RemotePresence {
    async fn register(&self, route: Route) -> Result<Registered, PresenceError> {
        let route = Some(convert::write_route(&route));
        let response = ask!(self, register, wire::RegisterRequest { route })?;
        checked(convert::read_registered(response))
    }

    async fn release(&self, route: &Route) -> Result<(), PresenceError> {
        let route = Some(convert::write_route(route));
        ask!(self, release, wire::ReleaseRequest { route }).map(|_| ())
    }

    async fn routes(&self, user: &UserId) -> Result<Vec<Route>, PresenceError> {
        let user = user.to_string();
        let response = ask!(self, get_routes, wire::GetRoutesRequest { user })?;
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

impl Shared {
    fn home(&self) -> Result<PresenceServiceClient<Connection>, PresenceError> {
        let homes = self.homes();
        let home = homes.replicas.get(homes.home);
        home.map(|(_, client)| client.clone())
            .ok_or(PresenceError::Unavailable { retry_after: None })
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
        if home.is_none() {
            // Who asks one and watches another would not be told.
            self.moved.notify_one();
        }
    }

    /// The replica after the home becomes the home.
    fn move_on(&self) {
        let mut homes = self.homes();
        homes.home = (homes.home + 1) % homes.replicas.len().max(1);
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
