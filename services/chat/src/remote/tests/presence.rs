//! What becomes of a watch.

use duologue_proto::presence::v1 as wire;
use duologue_proto::presence::v1::presence_service_server::{
    PresenceService, PresenceServiceServer,
};
use duologue_proto::presence::v1::watch_response::Event;
use std::sync::atomic::{AtomicU8, AtomicU32};

use duologue_proto::ids::{Incarnation, NodeId};
use duologue_proto::presence::{Lease, PresenceError, Renewed, UserPresence};
use duologue_proto::wire::presence as convert;
use duologue_runtime::refusal::services::presence_refusal;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tonic::Response;

use super::*;
use crate::ports::{Nodes as _, Presence as _};

type Events = mpsc::Sender<Result<wire::WatchResponse, Status>>;

/// A replica whose watches are fed by the test; every user is online.
struct Scripted {
    opened: mpsc::Sender<Events>,
    rows: Arc<Rows>,
}

/// Whether a replica reaches the rows, and how often it was asked for them.
#[derive(Default)]
struct Rows {
    /// What the replica does not do, though it is up.
    broken: AtomicU8,
    asked: AtomicU32,
}

const WORKS: u8 = 0;
const FAILS: u8 = 1;
const HANGS: u8 = 2;
const REFUSES: u8 = 3;

impl Rows {
    fn set(&self, state: u8) {
        self.broken.store(state, Ordering::SeqCst);
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }

    async fn ask<T>(&self, answer: T) -> Answer<T> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match self.broken.load(Ordering::SeqCst) {
            WORKS => Ok(Response::new(answer)),
            HANGS => std::future::pending().await,
            REFUSES => Err(presence_refusal(&PresenceError::OfUser).into_status()),
            _ => Err(Status::unavailable("the directory cannot be reached")),
        }
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn never<T>() -> Answer<T> {
    Err(Status::unimplemented("not scripted"))
}

#[tonic::async_trait]
impl PresenceService for Scripted {
    type WatchStream = ReceiverStream<Result<wire::WatchResponse, Status>>;

    async fn register(&self, _: Request<wire::RegisterRequest>) -> Answer<wire::RegisterResponse> {
        never()
    }

    async fn release(&self, _: Request<wire::ReleaseRequest>) -> Answer<wire::ReleaseResponse> {
        never()
    }

    async fn remove_route(
        &self,
        _: Request<wire::RemoveRouteRequest>,
    ) -> Answer<wire::RemoveRouteResponse> {
        never()
    }

    async fn get_routes(
        &self,
        _: Request<wire::GetRoutesRequest>,
    ) -> Answer<wire::GetRoutesResponse> {
        self.rows.ask(wire::GetRoutesResponse::default()).await
    }

    async fn get_presence(
        &self,
        request: Request<wire::GetPresenceRequest>,
    ) -> Answer<wire::GetPresenceResponse> {
        let users = request.into_inner().users.into_iter();
        // It answers for one only.
        let users = users.take(1).map(|user| wire::UserPresence {
            user,
            online: true,
            last_seen_millis: None,
        });
        Ok(Response::new(wire::GetPresenceResponse {
            users: users.collect(),
        }))
    }

    async fn list_online(
        &self,
        _: Request<wire::ListOnlineRequest>,
    ) -> Answer<wire::ListOnlineResponse> {
        never()
    }

    async fn watch(&self, _: Request<wire::WatchRequest>) -> Answer<Self::WatchStream> {
        let (events, sent) = mpsc::channel(64);
        let _ = self.opened.send(events).await;
        Ok(Response::new(ReceiverStream::new(sent)))
    }

    async fn take_lease(
        &self,
        _: Request<wire::TakeLeaseRequest>,
    ) -> Answer<wire::TakeLeaseResponse> {
        never()
    }

    async fn renew_lease(
        &self,
        _: Request<wire::RenewLeaseRequest>,
    ) -> Answer<wire::RenewLeaseResponse> {
        let renewed = convert::write_renewed(Renewed::InForce);
        self.rows.ask(renewed).await
    }

    async fn forget_lease(
        &self,
        _: Request<wire::ForgetLeaseRequest>,
    ) -> Answer<wire::ForgetLeaseResponse> {
        never()
    }

    async fn list_nodes(
        &self,
        _: Request<wire::ListNodesRequest>,
    ) -> Answer<wire::ListNodesResponse> {
        never()
    }
}

fn replica(name: &str) -> (Place, mpsc::Receiver<Events>) {
    let (place, watches, _) = replica_over_rows(name);
    (place, watches)
}

fn replica_over_rows(name: &str) -> (Place, mpsc::Receiver<Events>, Arc<Rows>) {
    let (opened, watches) = mpsc::channel(8);
    let rows = Arc::new(Rows::default());
    let scripted = Scripted {
        opened,
        rows: Arc::clone(&rows),
    };
    let routes = Routes::new(PresenceServiceServer::new(scripted));
    (Place::new(name, routes), watches, rows)
}

fn lease() -> Lease {
    Lease {
        node: NodeId::parse("n1").unwrap(),
        incarnation: Incarnation::parse("i1").unwrap(),
        address: "127.0.0.1:1".to_owned(),
        counter: 2,
    }
}

fn presence(places: &[&Place]) -> RemotePresence {
    let replicas = places.iter().map(|place| place.replica.clone());
    RemotePresence::new(replicas.collect(), random())
}

async fn tell(events: &Events, event: Event) {
    let event = Some(event);
    soon(events.send(Ok(wire::WatchResponse { event })))
        .await
        .unwrap();
}

async fn begin(watches: &mut mpsc::Receiver<Events>) -> Events {
    let events = soon(watches.recv()).await.unwrap();
    tell(&events, Event::Started(wire::Started {})).await;
    events
}

fn came(user: &str) -> Event {
    Event::Changed(wire::UserPresence {
        user: user.to_owned(),
        online: true,
        last_seen_millis: None,
    })
}

async fn heard(receiver: &mut Receiver<UserPresence>) -> Result<String, RecvError> {
    let heard = soon(receiver.recv()).await;
    heard.map(|presence| presence.user.to_string())
}

/// A receiver that is of the watch that has just begun.
async fn watching(
    presence: &RemotePresence,
    before: &mut Receiver<UserPresence>,
) -> Receiver<UserPresence> {
    assert_eq!(heard(before).await, Err(RecvError::Closed));
    presence.watch()
}

#[tokio::test(start_paused = true)]
async fn changes_are_told_and_a_break_closes_the_receiver_once_the_next_watch_has_begun() {
    let (place, mut watches) = replica("one");
    let presence = presence(&[&place]);
    let mut receiver = presence.watch();
    let events = begin(&mut watches).await;
    // What changed before the watch began is not known.
    let mut receiver = watching(&presence, &mut receiver).await;
    tell(&events, came("bob")).await;
    assert_eq!(heard(&mut receiver).await.unwrap(), "bob");

    place.kill();
    place.revive();
    let events = soon(watches.recv()).await.unwrap();
    // Whoever asked now would ask before anything is told.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(
        receiver
            .try_recv()
            .is_err_and(|error| error.to_string().contains("empty"))
    );
    tell(&events, Event::Started(wire::Started {})).await;
    let mut receiver = watching(&presence, &mut receiver).await;
    tell(&events, came("carol")).await;
    assert_eq!(heard(&mut receiver).await.unwrap(), "carol");
}

#[tokio::test(start_paused = true)]
async fn what_the_replica_missed_is_missed_here_in_the_same_place() {
    let (place, mut watches) = replica("one");
    let presence = presence(&[&place]);
    let mut receiver = presence.watch();
    let events = begin(&mut watches).await;
    let mut receiver = watching(&presence, &mut receiver).await;
    tell(&events, came("bob")).await;
    tell(&events, Event::Missed(wire::Missed {})).await;
    assert_eq!(heard(&mut receiver).await.unwrap(), "bob");
    let mut receiver = watching(&presence, &mut receiver).await;
    tell(&events, came("carol")).await;
    assert_eq!(heard(&mut receiver).await.unwrap(), "carol");
}

#[tokio::test(start_paused = true)]
async fn the_replica_that_is_watched_is_the_one_that_is_asked() {
    let ((one, mut of_one), (two, mut of_two)) = (replica("one"), replica("two"));
    let presence = presence(&[&one, &two]);
    let mut receiver = presence.watch();
    begin(&mut of_one).await;
    let mut receiver = watching(&presence, &mut receiver).await;
    assert!(presence.presence(&[user("bob")]).await.unwrap()[0].online);
    one.kill();
    let events = begin(&mut of_two).await;
    let mut receiver = watching(&presence, &mut receiver).await;
    assert!(presence.presence(&[user("bob")]).await.unwrap()[0].online);
    tell(&events, came("bob")).await;
    assert_eq!(heard(&mut receiver).await.unwrap(), "bob");
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_an_error_and_so_is_an_answer_for_somebody_else() {
    let (place, mut watches) = replica("one");
    let presence = presence(&[&place]);
    begin(&mut watches).await;
    let is_unavailable = |error| matches!(error, PresenceError::Unavailable { .. });
    let both = presence.presence(&[user("bob"), user("carol")]).await;
    assert!(both.is_err_and(is_unavailable));
    place.kill();
    let asked = soon(presence.presence(&[user("bob")])).await;
    assert!(asked.is_err_and(is_unavailable));
    let asked = soon(presence.routes(&user("bob"))).await;
    assert!(asked.is_err_and(is_unavailable));
}

#[tokio::test(start_paused = true)]
async fn a_home_that_is_no_replica_any_more_is_neither_asked_nor_watched() {
    let ((one, mut of_one), (two, mut of_two)) = (replica("one"), replica("two"));
    let presence = RemotePresence::new(Vec::new(), random());
    let asked = presence.presence(&[user("bob")]).await;
    assert!(asked.is_err_and(|error| matches!(error, PresenceError::Unavailable { .. })));
    presence.set_replicas(vec![one.replica.clone()]);
    let _watched = begin(&mut of_one).await;
    // It stays where it is, as long as it can.
    presence.set_replicas(vec![two.replica.clone(), one.replica.clone()]);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(of_two.try_recv().is_err());
    presence.set_replicas(vec![two.replica.clone()]);
    let _watched = begin(&mut of_two).await;
    assert!(presence.presence(&[user("bob")]).await.unwrap()[0].online);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_cannot_reach_the_rows_costs_no_node_its_lease() {
    for state in [FAILS, HANGS] {
        let (one, mut of_one, rows_of_one) = replica_over_rows("one");
        let (two, mut of_two, rows_of_two) = replica_over_rows("two");
        let presence = presence(&[&one, &two]);
        let _watched = begin(&mut of_one).await;
        rows_of_one.set(state);
        for _ in 0..3 {
            let began = tokio::time::Instant::now();
            assert_eq!(presence.renew_lease(&lease()).await, Ok(Renewed::InForce));
            assert!(began.elapsed() < crate::node::LEASE_TIMEOUT);
        }
        // Whoever answered is asked first from then on.
        assert_eq!((rows_of_one.asked(), rows_of_two.asked()), (1, 3));
        rows_of_two.set(state);
        rows_of_one.set(WORKS);
        assert_eq!(presence.renew_lease(&lease()).await, Ok(Renewed::InForce));
        // The watch is where it was.
        assert!(of_two.try_recv().is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_of_one_user_says_nothing_of_the_home() {
    let (one, mut of_one, rows_of_one) = replica_over_rows("one");
    let (two, mut of_two, _) = replica_over_rows("two");
    let presence = presence(&[&one, &two]);
    let _watched = begin(&mut of_one).await;
    rows_of_one.set(REFUSES);
    for _ in 0..20 {
        let refused = presence.routes(&user("bob")).await;
        assert_eq!(refused, Err(PresenceError::OfUser));
    }
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(of_two.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_home_that_cannot_reach_the_rows_is_left_after_two_failures_in_a_row() {
    let (one, mut of_one, rows_of_one) = replica_over_rows("one");
    let (two, mut of_two, rows_of_two) = replica_over_rows("two");
    let presence = presence(&[&one, &two]);
    let _watched = begin(&mut of_one).await;
    let bob = user("bob");
    let routes = async || presence.routes(&bob).await.is_ok();
    for works in [FAILS, WORKS, FAILS] {
        rows_of_one.set(works);
        assert_eq!(routes().await, works == WORKS);
    }
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(of_two.try_recv().is_err(), "they were not in a row");
    assert!(!routes().await);
    let _watched = begin(&mut of_two).await;
    assert!(routes().await);
    // Where no replica can, it is not changed with every question.
    rows_of_two.set(FAILS);
    for _ in 0..20 {
        assert!(!routes().await);
    }
    assert_eq!(rows_of_two.asked(), 21);
    tokio::time::sleep(HOME_STAY).await;
    assert!(!routes().await);
    begin(&mut of_one).await;
}
