//! `duologue.presence.v1.PresenceService`: converts, and nothing more.
//!
//! Whoever serves it must have checked that the caller is a service: the users and
//! nodes in the requests are believed.

use std::pin::Pin;

use duologue_proto::limits::MAX_INTERNAL_BYTES;
use duologue_proto::presence::v1 as wire;
use duologue_proto::presence::v1::presence_service_server::{
    PresenceService, PresenceServiceServer,
};
use duologue_proto::presence::v1::watch_response::Event;
use duologue_proto::presence::{PresenceError, UserPresence};
use duologue_proto::wire::{InvalidField, presence as convert};
use duologue_runtime::refusal::services::presence_refusal;
use duologue_runtime::refusal::{Reason, Refusal};
use duologue_runtime::shutdown::Shutdown;
use duologue_runtime::task;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tonic::{Request, Response, Status};

use crate::presence::Presence;

/// One replica's service.
#[derive(Clone)]
pub struct PresenceServer {
    presence: Presence,
    shutdown: Shutdown,
}

impl PresenceServer {
    /// The service over a presence, for a server's routes. Its streams end when the
    /// process drains.
    pub fn over(presence: Presence, shutdown: Shutdown) -> PresenceServiceServer<Self> {
        PresenceServiceServer::new(Self { presence, shutdown })
            .max_decoding_message_size(MAX_INTERNAL_BYTES)
            .max_encoding_message_size(MAX_INTERNAL_BYTES)
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl PresenceService for PresenceServer {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<wire::WatchResponse, Status>> + Send>>;

    async fn register(
        &self,
        request: Request<wire::RegisterRequest>,
    ) -> Answer<wire::RegisterResponse> {
        let route = convert::read_route(request.into_inner().route).map_err(at_fault)?;
        let presence = self.presence.clone();
        let registered = whole(async move { presence.register(route).await }).await?;
        Ok(Response::new(convert::write_registered(&registered)))
    }

    async fn release(
        &self,
        request: Request<wire::ReleaseRequest>,
    ) -> Answer<wire::ReleaseResponse> {
        let route = convert::read_route(request.into_inner().route).map_err(at_fault)?;
        let presence = self.presence.clone();
        whole(async move { presence.release(&route).await }).await?;
        Ok(Response::new(wire::ReleaseResponse {}))
    }

    async fn remove_route(
        &self,
        request: Request<wire::RemoveRouteRequest>,
    ) -> Answer<wire::RemoveRouteResponse> {
        let route = convert::read_route(request.into_inner().route).map_err(at_fault)?;
        let presence = self.presence.clone();
        let removed = whole(async move { presence.remove_route(&route).await }).await?;
        Ok(Response::new(wire::RemoveRouteResponse { removed }))
    }

    async fn get_routes(
        &self,
        request: Request<wire::GetRoutesRequest>,
    ) -> Answer<wire::GetRoutesResponse> {
        let user = convert::read_user(&request.get_ref().user).map_err(at_fault)?;
        let routes = self.presence.routes(&user).await.map_err(refused)?;
        Ok(Response::new(convert::write_routes(&routes)))
    }

    async fn get_presence(
        &self,
        request: Request<wire::GetPresenceRequest>,
    ) -> Answer<wire::GetPresenceResponse> {
        let users = convert::read_get_presence(request.get_ref()).map_err(at_fault)?;
        let found = self.presence.presence(&users).await.map_err(refused)?;
        Ok(Response::new(wire::GetPresenceResponse {
            users: convert::write_presences(&found),
        }))
    }

    async fn list_online(
        &self,
        request: Request<wire::ListOnlineRequest>,
    ) -> Answer<wire::ListOnlineResponse> {
        let (after, max) = convert::read_list_online(request.get_ref()).map_err(at_fault)?;
        let online = self.presence.online(after.as_ref(), max).await;
        Ok(Response::new(wire::ListOnlineResponse {
            users: convert::write_presences(&online.map_err(refused)?),
        }))
    }

    async fn watch(&self, _: Request<wire::WatchRequest>) -> Answer<Self::WatchStream> {
        let changes = changes(self.presence.watch());
        // Whoever has `started` is subscribed: that was done above.
        let started = stream::once(async { Event::Started(wire::Started {}) });
        let shutdown = self.shutdown.clone();
        let events = started
            .chain(changes)
            .map(|event| Ok(wire::WatchResponse { event: Some(event) }));
        let end = stream::once(async move { Err(draining(&shutdown)) });
        let events = events.take_until(self.shutdown.draining()).chain(end);
        Ok(Response::new(Box::pin(events)))
    }

    async fn take_lease(
        &self,
        request: Request<wire::TakeLeaseRequest>,
    ) -> Answer<wire::TakeLeaseResponse> {
        let lease = convert::read_lease(request.into_inner().lease).map_err(at_fault)?;
        self.presence.take_lease(&lease).await.map_err(refused)?;
        Ok(Response::new(wire::TakeLeaseResponse {}))
    }

    async fn renew_lease(
        &self,
        request: Request<wire::RenewLeaseRequest>,
    ) -> Answer<wire::RenewLeaseResponse> {
        let lease = convert::read_lease(request.into_inner().lease).map_err(at_fault)?;
        let renewed = self.presence.renew_lease(&lease).await.map_err(refused)?;
        Ok(Response::new(convert::write_renewed(renewed)))
    }

    async fn forget_lease(
        &self,
        request: Request<wire::ForgetLeaseRequest>,
    ) -> Answer<wire::ForgetLeaseResponse> {
        let lease = convert::read_lease(request.into_inner().lease).map_err(at_fault)?;
        let forgotten = self.presence.forget_lease(&lease).await.map_err(refused)?;
        Ok(Response::new(wire::ForgetLeaseResponse { forgotten }))
    }

    async fn list_nodes(
        &self,
        _: Request<wire::ListNodesRequest>,
    ) -> Answer<wire::ListNodesResponse> {
        let nodes = self.presence.nodes().await.map_err(refused)?;
        Ok(Response::new(convert::write_nodes(nodes)))
    }
}

/// A change that goes on without its caller: what took effect is told to watchers.
async fn whole<T: Send + 'static>(
    change: impl Future<Output = Result<T, PresenceError>> + Send + 'static,
) -> Result<T, Status> {
    let changed = task::spawn("presence change", change).await;
    changed
        .map_err(|_| Refusal::internal().into_status())?
        .map_err(refused)
}

/// What a receiver gets, until there can be no more changes.
fn changes(receiver: broadcast::Receiver<UserPresence>) -> impl Stream<Item = Event> + Send {
    stream::unfold(receiver, async |mut receiver| {
        let event = match receiver.recv().await {
            Ok(change) => Event::Changed(convert::write_presence(&change)),
            Err(RecvError::Lagged(_)) => Event::Missed(wire::Missed {}),
            Err(RecvError::Closed) => return None,
        };
        Some((event, receiver))
    })
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is passed to map_err by name"
)]
fn refused(error: PresenceError) -> Status {
    presence_refusal(&error).into_status()
}

fn at_fault(fault: InvalidField) -> Status {
    Refusal::from(fault).into_status()
}

fn draining(shutdown: &Shutdown) -> Status {
    Refusal::new(Reason::ShuttingDown, "the replica is shutting down")
        .retry_after(shutdown.grace())
        .into_status()
}

#[cfg(test)]
mod tests {
    use duologue_proto::ids::UserId;

    use super::*;

    #[tokio::test]
    async fn a_watcher_that_falls_behind_is_told_so_in_the_place_of_what_it_missed() {
        let (sender, receiver) = broadcast::channel(2);
        let change = |name: &str| UserPresence {
            user: UserId::parse(name).unwrap(),
            online: true,
            last_seen: None,
        };
        for name in ["a", "b", "c"] {
            sender.send(change(name)).unwrap();
        }
        drop(sender);
        let events: Vec<_> = changes(receiver).collect().await;
        let changed = |name| Event::Changed(convert::write_presence(&change(name)));
        let missed = Event::Missed(wire::Missed {});
        assert_eq!(events, [missed, changed("b"), changed("c")]);
    }
}
