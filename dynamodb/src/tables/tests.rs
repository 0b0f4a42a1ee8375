//! Tables are made, described and checked.

use std::sync::Arc;

use duologue_runtime::clock::SystemClock;
use tokio::time::Instant;

use super::{
    CreateError, Created, Key, KeyKind, Problem, Recovery, TableSpec, check, create, describe,
};
use crate::client::{DynamoDb, Options};
use crate::limits::CREATE_POLL;
use crate::testing::{Connector, Engine, Fault, Faults};

const MESSAGES: TableSpec = TableSpec {
    name: "messages",
    partition: Key {
        name: "p",
        kind: KeyKind::Bytes,
    },
    sort: Some(Key {
        name: "s",
        kind: KeyKind::Number,
    }),
    time_to_live: None,
};
const RELEASED: TableSpec = TableSpec {
    name: "released",
    partition: Key {
        name: "d",
        kind: KeyKind::Text,
    },
    sort: None,
    time_to_live: Some("x"),
};

fn database(engine: &Arc<Engine>, prefix: &str) -> DynamoDb {
    Connector::new(Arc::clone(engine)).client(Options {
        table_prefix: prefix.into(),
        home_region: None,
    })
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_reported_and_what_was_made_is_not() {
    let engine = Arc::new(Engine::new());
    let database = database(&engine, "chat-");
    let specs = [MESSAGES, RELEASED];
    let report = check(&database, &specs).await.unwrap_err();
    assert_eq!(
        report.to_string(),
        "tables in Region eu-test-1 cannot be used:\n\
         - chat-messages is not there; make it with `duologue tables create`, or look at Region and prefix\n\
         - chat-released is not there; make it with `duologue tables create`, or look at Region and prefix"
    );
    let made = |name: &str, new| Created {
        name: name.into(),
        new,
        recovery: Recovery::NotOffered,
    };
    for new in [true, false] {
        let both = vec![made("chat-messages", new), made("chat-released", new)];
        assert_eq!(create(&database, &specs).await, Ok(both));
    }
    let tables = check(&database, &specs).await.unwrap();
    let lines: Vec<String> = tables.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "chat-messages: partition p (B), sort s (N); deletion protection on",
            "chat-released: partition d (S); time to live by x; deletion protection on",
        ]
    );
    assert!(tables[0].id.is_some() && tables[0].id != tables[1].id);
}

/// Amazon's DynamoDB refuses it for some seconds after a table is made.
#[tokio::test(start_paused = true)]
async fn recovery_is_turned_on_as_soon_as_a_new_table_can_have_it() {
    let faults = Arc::new(Faults::none());
    let clock = Arc::new(SystemClock);
    let way = Connector::with(Arc::new(Engine::new()), Arc::clone(&faults), clock);
    let database = way.client(Options::default());
    let not_yet = |times| vec![Fault::Refuse("ContinuousBackupsUnavailableException"); times];
    faults.plan("UpdateContinuousBackups", not_yet(9));
    let began = Instant::now();
    let made = create(&database, &[MESSAGES]).await.unwrap();
    // In the end this one says that it does not know what that is.
    assert_eq!(made[0].recovery, Recovery::NotOffered);
    assert!(began.elapsed() >= CREATE_POLL * 9);

    faults.plan("UpdateContinuousBackups", not_yet(999));
    let refused = create(&database, &[MESSAGES]).await.unwrap_err();
    assert!(matches!(refused, CreateError::Failed { .. }), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_table_of_another_schema_is_neither_used_nor_changed() {
    let engine = Arc::new(Engine::new());
    let database = database(&engine, "");
    let other = TableSpec {
        sort: None,
        ..MESSAGES
    };
    create(&database, &[other]).await.unwrap();
    let problem = Problem::OtherSchema {
        found: "partition p (B)".into(),
        wanted: "partition p (B), sort s (N)".into(),
    };
    let report = check(&database, &[MESSAGES]).await.unwrap_err();
    assert_eq!(report.problems, [("messages".into(), problem)]);
    assert!(create(&database, &[MESSAGES]).await.is_err());
    let found = describe(&database, &[other]).await;
    assert_eq!(found[0].1.as_ref().unwrap().schema, "partition p (B)");
}
