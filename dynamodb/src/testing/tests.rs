//! The connector does what it says, and what it does means what `failure` says.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity};
use duologue_proto::ids::UnixMillis;
use duologue_runtime::clock::ManualClock;

use super::{Connector, Engine, Fault, Faults};
use crate::client::{DynamoDb, Options};
use crate::deadline::send_while;
use crate::failure::{Failure, classify};
use crate::tables::{Key, KeyKind, TableSpec, create};

const TABLE: TableSpec = TableSpec {
    name: "things",
    partition: Key {
        name: "p",
        kind: KeyKind::Text,
    },
    sort: None,
    time_to_live: None,
};
const NOON: UnixMillis = UnixMillis(1_800_000_000_000);

struct World {
    faults: Arc<Faults>,
    way: Connector,
    database: DynamoDb,
    engine: Arc<Engine>,
}

impl World {
    async fn new() -> Self {
        let engine = Arc::new(Engine::new());
        let faults = Arc::new(Faults::none());
        let clock = Arc::new(ManualClock::at(NOON));
        let way = Connector::with(Arc::clone(&engine), Arc::clone(&faults), clock);
        let database = way.client(Options::default());
        create(&database, &[TABLE]).await.unwrap();
        Self {
            faults,
            way,
            database,
            engine,
        }
    }

    async fn put(&self, id: &str, allowed: bool) -> Result<(), Failure> {
        let put = self.database.once().put_item();
        let put = put
            .table_name("things")
            .item("p", AttributeValue::S(id.into()))
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .customize();
        let put = send_while(put, move || allowed);
        put.send().await.map(drop).map_err(|error| classify(&error))
    }

    async fn holds(&self, id: &str, consistent: bool) -> bool {
        let get = self.database.repeating().get_item();
        let get = get
            .table_name("things")
            .key("p", AttributeValue::S(id.into()))
            .consistent_read(consistent)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        get.send().await.unwrap().item.is_some()
    }
}

#[tokio::test(start_paused = true)]
async fn every_fault_is_told_as_what_it_may_have_done() {
    let world = World::new().await;
    let late = Duration::from_mins(2);
    let cases = [
        (Fault::Pass, None, true),
        (Fault::Delay(Duration::from_millis(100)), None, true),
        (Fault::FailBefore, Some("no outcome"), false),
        (Fault::LoseReply, Some("no outcome"), true),
        (Fault::Throttle, Some("throttled"), false),
        (
            Fault::ServerError { applied: true },
            Some("no outcome"),
            true,
        ),
        (
            Fault::ServerError { applied: false },
            Some("no outcome"),
            false,
        ),
        (Fault::Hang, Some("no outcome"), false),
        (Fault::Late(late), Some("no outcome"), false),
    ];
    for (number, (fault, told, applied)) in cases.into_iter().enumerate() {
        let id = number.to_string();
        world.faults.plan("PutItem", [fault]);
        let put = world
            .put(&id, true)
            .await
            .map_err(|failure| failure.to_string());
        match told {
            None => assert_eq!(put, Ok(()), "{fault:?}"),
            Some(told) => assert!(put.unwrap_err().starts_with(told), "{fault:?}"),
        }
        assert_eq!(world.holds(&id, true).await, applied, "{fault:?}");
    }
    tokio::time::sleep(late).await;
    assert!(world.holds("8", true).await, "it arrives late");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_too_late_is_not_sent() {
    let world = World::new().await;
    assert_eq!(world.put("a", false).await, Err(Failure::TooLate));
    assert!(!world.holds("a", true).await);
}

/// A machine that slept, and its clock with it: the SDK learns how much is missing, and
/// signs a put that was made before as if it were new.
#[tokio::test(start_paused = true)]
async fn a_request_with_a_deadline_is_signed_by_the_sender_s_own_clock() {
    let (server, own) = (ManualClock::at(NOON), ManualClock::at(NOON));
    let (engine, faults) = (Arc::new(Engine::new()), Arc::new(Faults::none()));
    let clocks = (Arc::new(server.clone()), Arc::new(own));
    let way = Connector::signing_by(Arc::clone(&engine), Arc::clone(&faults), clocks.0, clocks.1);
    let database = way.client(Options::default());
    create(&database, &[TABLE]).await.unwrap();
    let world = World {
        faults,
        way,
        database,
        engine,
    };
    assert_eq!(world.put("before", true).await, Ok(()));
    server.advance(Duration::from_mins(10));
    let plain = || {
        let put = world.database.once().put_item().table_name("things");
        put.item("p", AttributeValue::S("plain".into()))
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
    };
    assert!(!world.holds("plain", true).await, "reads go on");
    // The first is refused, which is how the SDK learns the time.
    let _ = plain().send().await;
    assert!(plain().send().await.is_ok(), "the SDK has learned the time");
    let refused = world.put("late", true).await;
    assert!(matches!(refused, Err(Failure::Refused(_))), "{refused:?}");
    assert!(!world.holds("late", true).await);
}

#[tokio::test(start_paused = true)]
async fn reads_are_repeated_and_conditional_puts_are_not() {
    let world = World::new().await;
    world
        .faults
        .plan("GetItem", [Fault::Throttle, Fault::FailBefore]);
    assert!(!world.holds("a", true).await);
    world.faults.plan("PutItem", [Fault::FailBefore]);
    assert!(world.put("a", true).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_ask_what_it_costs_is_refused() {
    let world = World::new().await;
    let put = world.database.once().put_item().table_name("things");
    let put = put.item("p", AttributeValue::S("a".into())).send().await;
    assert_eq!(
        put.map(drop).map_err(|error| classify(&error)),
        Err(Failure::Refused("ValidationException".into()))
    );
    assert_eq!(world.way.ledger().uncounted(), ["PutItem"]);
}

#[tokio::test(start_paused = true)]
async fn capacity_is_counted_by_operation_and_consistency() {
    let world = World::new().await;
    world.put("a", true).await.unwrap();
    let cost = |operation: &str| {
        let counted = world.way.ledger().counted();
        counted[&(operation.to_owned(), "things".to_owned())].units
    };
    assert!((cost("PutItem") - 1.0).abs() < f64::EPSILON);
    world.holds("a", true).await;
    assert!((cost("GetItem") - 1.0).abs() < f64::EPSILON);
    world.holds("a", false).await;
    assert!((cost("GetItem") - 1.5).abs() < f64::EPSILON);
}

#[tokio::test(start_paused = true)]
async fn reads_without_consistency_may_miss_what_is_there() {
    let world = World::new().await;
    let clock = Arc::new(ManualClock::at(NOON));
    let faults = Arc::new(Faults::seeded(1, 0));
    let way = Connector::with(Arc::clone(&world.engine), faults, clock);
    let reader = World {
        faults: Arc::default(),
        database: way.client(Options::default()),
        way,
        engine: Arc::clone(&world.engine),
    };
    let mut stale = 0;
    for id in 0..50 {
        let id = id.to_string();
        world.put(&id, true).await.unwrap();
        stale += usize::from(!reader.holds(&id, false).await);
        assert!(reader.holds(&id, true).await);
    }
    assert!((1..50).contains(&stale), "{stale}");
}

#[tokio::test(start_paused = true)]
async fn the_time_of_answers_is_learned() {
    let world = World::new().await;
    let time = world.database.server_time();
    let off = NOON.plus(Duration::from_mins(10));
    assert!(time.least_skew(off).unwrap() > Duration::from_mins(9));
    assert!(time.least_skew(NOON).unwrap() < Duration::from_secs(30));
}
