//! The directory on DynamoDB where the contract of every engine does not reach:
//! answers that are lost, rows whose time is over, and what a call costs.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use duologue_dynamodb::Options;
use duologue_dynamodb::sdk::types::{AttributeValue, ReturnConsumedCapacity};
use duologue_dynamodb::tables::create;
use duologue_dynamodb::testing::{Connector, Engine, Fault, Faults};
use duologue_presence::directory::{GONE_KEPT, LAST_SEEN_KEPT, Lease, Renewed};
use duologue_presence::dynamodb::{MAX_ROWS_PER_USER, MAX_TRIES, RETRY_AFTER, TABLE};
use duologue_presence::{Directory, DynamoDirectory};
use duologue_proto::ids::{Incarnation, NodeId, UnixMillis};
use duologue_proto::presence::{PresenceError, Registered, Route};
use duologue_runtime::clock::{Clock as _, ManualClock, SeededRandom};
use support::{registered_again, route, user};

const NOON: UnixMillis = UnixMillis(1_800_000_000_000);
const IN_FORCE: Registered = Registered::InForce {
    replaced: Vec::new(),
};
const UNAVAILABLE: PresenceError = PresenceError::Unavailable {
    retry_after: Some(RETRY_AFTER),
};

struct World {
    directory: DynamoDirectory,
    faults: Arc<Faults>,
    way: Connector,
    clock: ManualClock,
}

impl World {
    async fn new() -> Self {
        let (faults, clock) = (Arc::new(Faults::none()), ManualClock::at(NOON));
        let tables = Arc::new(Engine::new());
        let way = Connector::with(tables, faults.clone(), Arc::new(clock.clone()));
        let db = way.client(Options::default());
        create(&db, &[TABLE]).await.unwrap();
        let random = Arc::new(SeededRandom::new(1));
        Self {
            directory: DynamoDirectory::new(db, Arc::new(clock.clone()), random),
            faults,
            way,
            clock,
        }
    }

    async fn register(&self, route: &Route) -> Registered {
        self.directory.register(route).await.unwrap()
    }

    async fn routes(&self, name: &str) -> Vec<Route> {
        let mut rows = self.directory.lookup(&[user(name)]).await.unwrap();
        rows.remove(0).routes
    }

    async fn last_seen(&self, name: &str) -> Option<UnixMillis> {
        let mut rows = self.directory.lookup(&[user(name)]).await.unwrap();
        rows.remove(0).last_seen
    }

    async fn release(&self, route: &Route) -> bool {
        let at = self.clock.now();
        self.directory.release(route, at).await.unwrap()
    }

    /// How many rows a user has, whatever they say.
    async fn rows(&self, name: &str) -> i32 {
        let db = self.way.client(Options::default());
        let query = db.repeating().query().table_name(db.table(&TABLE));
        let query = query
            .key_condition_expression("p = :p")
            .expression_attribute_values(":p", AttributeValue::S(name.to_owned()))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        query.send().await.unwrap().count
    }

    /// Write and read units of what follows.
    async fn units(&self, call: impl Future<Output = ()>) -> (f64, f64) {
        self.way.ledger().clear();
        call.await;
        assert_eq!(self.way.ledger().uncounted(), Vec::<String>::new());
        let counted = self.way.ledger().counted();
        let of = |write: bool| {
            let reads = |operation: &str| matches!(operation, "Query" | "GetItem");
            let operations = counted
                .iter()
                .filter(|((operation, _), _)| reads(operation) != write);
            operations.fold(0.0, |units, (_, counted)| units + counted.units)
        };
        (of(true), of(false))
    }
}

fn replaced(route: Route) -> Registered {
    Registered::InForce {
        replaced: vec![route],
    }
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_loses_its_answer_is_told_whom_it_replaced_when_it_is_tried_again() {
    for lost in [Fault::LoseReply, Fault::ServerError { applied: true }] {
        let world = World::new().await;
        let (old, new) = (route("alice", "phone", 1), route("alice", "phone", 2));
        world.register(&old).await;
        world.faults.plan("UpdateItem", [lost]);
        assert_eq!(world.register(&new).await, replaced(old));
        assert_eq!(world.routes("alice").await, [new]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_is_given_up_is_told_whom_it_replaced_when_it_is_asked_for_again() {
    let world = World::new().await;
    let (old, new) = (route("alice", "phone", 1), route("alice", "phone", 2));
    world.register(&old).await;
    let tries = usize::try_from(MAX_TRIES).unwrap();
    world
        .faults
        .plan("UpdateItem", vec![Fault::LoseReply; tries]);
    assert_eq!(world.directory.register(&new).await, Err(UNAVAILABLE));
    assert_eq!(world.register(&new).await, replaced(old.clone()));
    // And also when the session is registered under another start first.
    let again = registered_again(&new, 1);
    assert_eq!(world.register(&again).await, replaced(old));
}

/// The one in between has had no answer, so that it has told nobody; asking again it is
/// superseded. Whoever came after it has lost an answer, too.
#[tokio::test(start_paused = true)]
async fn who_registers_after_one_without_an_answer_is_told_whom_that_one_replaced() {
    let world = World::new().await;
    let [first, second, third] = [1, 2, 3].map(|number| route("alice", "phone", number));
    world.register(&first).await;
    for unanswered in [&second, &third] {
        let tries = usize::try_from(MAX_TRIES).unwrap();
        let lost = vec![Fault::LoseReply; tries];
        world.faults.plan("UpdateItem", lost);
        let given_up = world.directory.register(unanswered).await;
        assert_eq!(given_up, Err(UNAVAILABLE));
    }
    assert_eq!(world.register(&second).await, Registered::Superseded);
    let replaced = vec![second, first];
    assert_eq!(
        world.register(&third).await,
        Registered::InForce { replaced }
    );
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_arrives_after_its_session_has_left_changes_nothing() {
    let world = World::new().await;
    let late = route("alice", "phone", 1);
    let by = Duration::from_mins(1);
    let tries = [Fault::Late(by), Fault::FailBefore, Fault::FailBefore];
    world.faults.plan("UpdateItem", tries);
    assert_eq!(world.directory.register(&late).await, Err(UNAVAILABLE));
    assert!(!world.release(&late).await);
    tokio::time::sleep(by).await;
    assert_eq!(world.routes("alice").await, []);
    assert_eq!(world.register(&late).await, Registered::Superseded);
}

#[tokio::test(start_paused = true)]
async fn a_registration_is_not_answered_before_its_user_is_listed() {
    let world = World::new().await;
    let route = route("alice", "phone", 1);
    let tries = usize::try_from(MAX_TRIES).unwrap();
    world.faults.plan("PutItem", vec![Fault::FailBefore; tries]);
    assert_eq!(world.directory.register(&route).await, Err(UNAVAILABLE));
    assert_eq!(world.routes("alice").await, std::slice::from_ref(&route));
    assert_eq!(world.register(&route).await, IN_FORCE);
    let listed = world.directory.users(None, 9).await.unwrap();
    assert_eq!(listed, [user("alice")]);
}

#[tokio::test(start_paused = true)]
async fn a_release_that_stopped_halfway_is_finished_when_it_is_repeated() {
    let world = World::new().await;
    let route = route("alice", "phone", 1);
    world.register(&route).await;
    let tries = usize::try_from(MAX_TRIES).unwrap();
    // The last seen time.
    world.faults.plan("PutItem", vec![Fault::FailBefore; tries]);
    let failed = world.directory.release(&route, NOON).await;
    assert_eq!(failed, Err(UNAVAILABLE));
    assert_eq!(world.last_seen("alice").await, None);
    let later = NOON.plus(Duration::from_secs(30));
    assert_eq!(world.directory.release(&route, later).await, Ok(false));
    assert_eq!(world.last_seen("alice").await, Some(NOON));
    assert_eq!(world.directory.users(None, 9).await, Ok(Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_throttled_or_failing_read_is_an_error_and_not_offline() {
    let world = World::new().await;
    world.register(&route("alice", "phone", 1)).await;
    let error = Fault::ServerError { applied: false };
    for fault in [Fault::Throttle, error, Fault::FailBefore, Fault::Hang] {
        world.faults.plan("Query", vec![fault; 3]);
        let asked = world.directory.lookup(&[user("alice")]).await;
        assert_eq!(asked, Err(UNAVAILABLE), "{fault:?}");
    }
    assert_eq!(world.routes("alice").await.len(), 1);
}

/// Who is another device every time leaves rows that every look-up reads.
#[tokio::test(start_paused = true)]
async fn devices_that_are_gone_take_room_until_their_time_is_over() {
    let world = World::new().await;
    let device = |number: usize| route("alice", &format!("d{number}"), 1);
    for number in 0..MAX_ROWS_PER_USER {
        assert_eq!(world.register(&device(number)).await, IN_FORCE);
        assert!(world.release(&device(number)).await);
    }
    let new = device(MAX_ROWS_PER_USER);
    let (refused, rows) = (Err(PresenceError::OfUser), world.rows("alice").await);
    assert_eq!(world.directory.register(&new).await, refused);
    // Its session releases it all the same, and leaves nothing.
    assert!(!world.release(&new).await);
    assert_eq!(world.directory.register(&new).await, refused);
    assert_eq!(world.rows("alice").await, rows);
    // One that has a row comes back.
    assert_eq!(world.register(&route("alice", "d7", 2)).await, IN_FORCE);
    let other = route("bob", "phone", 1);
    assert_eq!(
        world.register(&other).await,
        IN_FORCE,
        "another user's room"
    );
    world.clock.advance(GONE_KEPT);
    assert_eq!(world.register(&new).await, IN_FORCE);
}

#[tokio::test(start_paused = true)]
async fn a_user_whose_rows_cannot_be_read_is_not_listed_and_hides_nobody() {
    let world = World::new().await;
    for name in ["alice", "bob", "carol"] {
        world.register(&route(name, "phone", 1)).await;
    }
    // A row of another version.
    let db = world.way.client(Options::default());
    let spoil = db.once().update_item().table_name(db.table(&TABLE));
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let spoilt = spoil
        .key("p", text("bob"))
        .key("s", text("phone"))
        .update_expression("REMOVE h")
        .return_consumed_capacity(ReturnConsumedCapacity::Total)
        .send();
    assert!(spoilt.await.is_ok());
    let listed = world.directory.users(None, 9).await.unwrap();
    assert_eq!(listed, [user("alice"), user("carol")]);
    let asked = world.directory.lookup(&[user("bob")]).await;
    assert_eq!(asked, Err(PresenceError::OfUser), "that is not offline");
    world.faults.plan("Query", vec![Fault::FailBefore; 99]);
    assert_eq!(world.directory.users(None, 9).await, Err(UNAVAILABLE));
}

#[tokio::test(start_paused = true)]
async fn gone_counts_for_an_hour_although_its_row_stays() {
    let world = World::new().await;
    let route = route("alice", "phone", 1);
    world.register(&route).await;
    assert!(world.release(&route).await);
    world
        .clock
        .advance(GONE_KEPT.checked_sub(Duration::from_secs(1)).unwrap());
    assert_eq!(world.register(&route).await, Registered::Superseded);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.register(&route).await, IN_FORCE);
    // A row in force is never over.
    world.clock.advance(LAST_SEEN_KEPT);
    assert_eq!(world.routes("alice").await, std::slice::from_ref(&route));
    assert_eq!(world.register(&route).await, IN_FORCE);
}

#[tokio::test(start_paused = true)]
async fn last_seen_is_forgotten_after_its_time_although_its_row_stays() {
    let world = World::new().await;
    let route = route("alice", "phone", 1);
    world.register(&route).await;
    world.release(&route).await;
    world
        .clock
        .advance(LAST_SEEN_KEPT.checked_sub(Duration::from_secs(1)).unwrap());
    assert_eq!(world.last_seen("alice").await, Some(NOON));
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.last_seen("alice").await, None);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_loses_its_answer_is_in_force() {
    let world = World::new().await;
    let mut lease = Lease {
        node: NodeId::parse("n1").unwrap(),
        incarnation: Incarnation::parse("i0").unwrap(),
        address: "n1:1".to_owned(),
        counter: 0,
    };
    world.directory.take(&lease).await.unwrap();
    lease.counter = 1;
    world.faults.plan("UpdateItem", [Fault::LoseReply]);
    let renewed = world.directory.renew(&lease).await;
    assert_eq!(renewed, Ok(Renewed::InForce));
    assert_eq!(world.directory.leases().await, Ok(vec![lease]));
}

#[tokio::test(start_paused = true)]
async fn what_calls_cost() {
    let world = World::new().await;
    let (old, new) = (route("alice", "phone", 1), route("alice", "phone", 2));
    let register = world.units(async { _ = world.register(&old).await });
    // The route and the hint; whether there is room.
    assert_eq!(register.await, (2.0, 1.0));
    let lookup = world.units(async { _ = world.routes("alice").await });
    assert_eq!(lookup.await, (0.0, 1.0));
    let again = registered_again(&old, 1);
    let register = world.units(async { _ = world.register(&again).await });
    assert_eq!(register.await, (2.0, 0.0));
    let register = world.units(async { _ = world.register(&new).await });
    assert_eq!(register.await, (2.0, 1.0));
    // A failed condition is paid for.
    let late = world.units(async { _ = world.register(&old).await });
    assert_eq!(late.await, (1.0, 1.0));
    // The route, the time, the hint; and what is left.
    let release = world.units(async { _ = world.release(&new).await });
    assert_eq!(release.await, (3.0, 2.0));
}
