//! What only this engine promises: outcomes that are not known, time, tables.

use std::sync::Arc;
use std::time::Duration;

use duologue_dynamodb::tables::{Problem, TableSpec, create};
use duologue_dynamodb::testing::{Connector, Engine, Fault, Faults};
use duologue_dynamodb::{DynamoDb, Options};
use duologue_proto::history::{
    Appended, Draft, Intent, Run, SyncRequest, Unsettled, UnsettledReason,
};
use duologue_proto::ids::{MessageId, Seq, UnixMillis};
use duologue_proto::message::Cursor;
use duologue_runtime::clock::{Clock, ManualClock, SeededRandom};
use futures_util::future::join_all;

use super::schema::{MESSAGES, TABLES, USERS};
use super::{DynamoStore, OpenError};
use crate::contract_tests::{
    START, all, between, message, remote, run_at, sized_message, stored, user, waits,
};
use crate::history::History;
use crate::store::{PutOutcome, PutStop, Store, StoreError, Window};
use crate::watch::{PROBE_INTERVAL, REFUSING_KEPT, Watch};

struct World {
    engine: Arc<Engine>,
    faults: Arc<Faults>,
    way: Connector,
    clock: ManualClock,
    server: ManualClock,
    store: DynamoStore,
}

impl World {
    async fn new() -> Self {
        let engine = remote::engine().await;
        let faults = Arc::new(Faults::none());
        let (clock, server) = (ManualClock::at(START), ManualClock::at(START));
        let way = Connector::with(
            Arc::clone(&engine),
            Arc::clone(&faults),
            Arc::new(server.clone()),
        );
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let store = remote::open(way.client(Options::default()), &shared, 1).await;
        Self {
            engine,
            faults,
            way,
            clock,
            server,
            store,
        }
    }

    async fn put(&self, seqs: std::ops::RangeInclusive<u64>) -> PutOutcome {
        let conversation = between("alice", "bob");
        let messages = seqs.map(|seq| message(&conversation, seq, &format!("m{seq}")));
        self.store
            .put_run(run_at(self.clock.now(), messages.collect()))
            .await
    }

    async fn seqs(&self) -> Vec<u64> {
        let messages = self.store.slots(all(&between("alice", "bob"))).await;
        let messages = messages.unwrap().into_iter();
        messages.map(|message| message.envelope.seq.0).collect()
    }

    /// Requests and capacity units so far: of writes, and of reads.
    fn cost(&self) -> (f64, f64) {
        let counted = self.way.ledger().counted();
        let units = |reads: bool| {
            let counted = counted.iter();
            let counted = counted.filter(|((operation, _), _)| {
                ["Query", "GetItem"].contains(&operation.as_str()) == reads
            });
            counted.map(|(_, counted)| counted.units).sum()
        };
        assert_eq!(self.way.ledger().uncounted(), Vec::<String>::new());
        (units(false), units(true))
    }
}

fn stopped(stored: usize, stop: PutStop) -> PutOutcome {
    PutOutcome {
        stored,
        stopped: Some(stop),
    }
}

fn holder(seq: u64) -> PutStop {
    let conversation = between("alice", "bob");
    PutStop::Occupied(Box::new(message(&conversation, seq, &format!("m{seq}"))))
}

/// The requests of a run's rows and of its first put: both activity rows, then it.
fn on_message(nth: usize, fault: Fault) -> Vec<Fault> {
    let mut faults = vec![Fault::Pass; 2 + nth];
    faults.push(fault);
    faults
}

#[tokio::test(start_paused = true)]
async fn a_put_whose_reply_is_lost_is_unknown_and_found_when_it_is_tried_again() {
    let lost = [Fault::LoseReply, Fault::ServerError { applied: true }];
    for fault in lost {
        let world = World::new().await;
        world.faults.plan("PutItem", on_message(1, fault));
        assert_eq!(world.put(1..=3).await, stopped(1, PutStop::Unknown));
        assert_eq!(
            world.seqs().await,
            [1, 2],
            "nothing behind the unknown slot"
        );
        assert_eq!(world.put(2..=3).await, stopped(0, holder(2)));
        assert_eq!(world.put(3..=3).await, stored(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_put_that_was_not_applied_is_unknown_too_and_can_be_tried_again() {
    let lost = [
        Fault::FailBefore,
        Fault::Hang,
        Fault::ServerError { applied: false },
    ];
    for fault in lost {
        let world = World::new().await;
        world.faults.plan("PutItem", on_message(0, fault));
        assert_eq!(world.put(1..=2).await, stopped(0, PutStop::Unknown));
        assert_eq!(world.seqs().await, Vec::<u64>::new());
        assert_eq!(world.put(1..=2).await, stored(2));
    }
}

/// It arrives when the slot was filled by its own second try.
#[tokio::test(start_paused = true)]
async fn a_put_that_lands_late_changes_nothing_that_is_stored() {
    let world = World::new().await;
    let late = Duration::from_mins(3);
    world
        .faults
        .plan("PutItem", on_message(0, Fault::Late(late)));
    assert_eq!(world.put(1..=1).await, stopped(0, PutStop::Unknown));
    assert_eq!(world.put(1..=2).await, stored(2));
    tokio::time::sleep(late).await;
    assert_eq!(world.seqs().await, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn what_is_throttled_is_not_stored_and_not_called_so() {
    let world = World::new().await;
    world.faults.plan("PutItem", on_message(0, Fault::Throttle));
    let outcome = world.put(1..=2).await;
    let unavailable = PutStop::Failed(StoreError::Unavailable(
        "throttled: ProvisionedThroughputExceededException".into(),
    ));
    assert_eq!(outcome, stopped(0, unavailable));
    assert_eq!(world.seqs().await, Vec::<u64>::new());
}

#[tokio::test(start_paused = true)]
async fn without_its_rows_no_message_is_sent() {
    let world = World::new().await;
    world.faults.plan("UpdateItem", [Fault::Hang; 6]);
    let outcome = world.put(1..=1).await;
    assert!(matches!(
        outcome.stopped,
        Some(PutStop::Failed(StoreError::Unavailable(_)))
    ));
    assert_eq!(world.seqs().await, Vec::<u64>::new());
}

/// The rows take so long that the reading is too old for the put; the clock stands, as
/// it does for history while it was set back.
#[tokio::test(start_paused = true)]
async fn a_put_is_not_sent_when_its_rows_took_too_long() {
    let world = World::new().await;
    world.clock.advance(Duration::from_secs(9));
    let conversation = between("alice", "bob");
    let run = run_at(START, vec![message(&conversation, 1, "m1")]);
    let slow = Fault::Delay(Duration::from_millis(1_500));
    world.faults.plan("PutItem", [slow, slow]);
    let outcome = world.store.put_run(run.clone()).await;
    assert_eq!(outcome, stopped(0, PutStop::TooLate));
    assert_eq!(world.seqs().await, Vec::<u64>::new());
    let bob = user("bob");
    let rows = world.store.activity_from(&bob, Window(0), None, 9);
    assert_eq!(rows.await.unwrap().len(), 1, "rows stay");
    assert_eq!(world.store.put_run(run).await, stored(1));
}

/// Nobody waits any longer; a put that was under way is there or is not, whole.
#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_leaves_a_slot_filled_or_free() {
    for fault in [
        Fault::Hang,
        Fault::Late(Duration::from_secs(1)),
        Fault::Pass,
    ] {
        let world = World::new().await;
        world.faults.plan("PutItem", on_message(0, fault));
        let mut abandoned = Box::pin(world.put(1..=1));
        waits(abandoned.as_mut()).await;
        drop(abandoned);
        tokio::time::sleep(Duration::from_mins(1)).await;
        let outcome = world.put(1..=1).await;
        assert!(outcome == stored(1) || outcome == stopped(0, holder(1)));
        assert_eq!(world.seqs().await, [1]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_beyond_a_megabyte_goes_on() {
    let world = World::new().await;
    let conversation = between("alice", "bob");
    let messages: Vec<_> = (1..=40)
        .map(|seq| sized_message(&conversation, seq, 60_000))
        .collect();
    let run = run_at(START, messages.clone());
    assert_eq!(world.store.put_run(run).await, stored(40));
    assert_eq!(world.store.slots(all(&conversation)).await, Ok(messages));
    let queries = |world: &World| {
        let counted = world.way.ledger().counted();
        counted[&("Query".to_owned(), "messages".to_owned())].requests
    };
    assert_eq!(queries(&world), 3);
}

#[tokio::test(start_paused = true)]
async fn a_message_costs_one_write_and_its_rows_one_each() {
    let world = World::new().await;
    world.way.ledger().clear();
    assert_eq!(world.put(1..=1).await, stored(1));
    assert_eq!(world.cost(), (5.0, 0.0), "two rows of each user");
    world.way.ledger().clear();
    let conversation = between("alice", "bob");
    let messages = (2..=11).map(|seq| message(&conversation, seq, "m"));
    let mut run = run_at(START, messages.collect());
    run.rows.write = false;
    assert_eq!(world.store.put_run(run).await, stored(10));
    assert_eq!(world.cost(), (10.0, 0.0));
    world.way.ledger().clear();
    assert!(world.store.head(&conversation).await.unwrap().is_some());
    assert_eq!(world.cost(), (0.0, 1.0));
    world.way.ledger().clear();
    assert_eq!(world.put(1..=1).await.stored, 0);
    assert_eq!(world.cost(), (5.0, 0.0), "a failed condition is paid for");
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_time_is_off_is_told_so_until_it_is_right() {
    let world = World::new().await;
    let near = [
        START.plus(Duration::from_secs(29)),
        START.minus(Duration::from_secs(29)),
    ];
    for now in near {
        assert_eq!(world.store.check_time(now).await, Ok(()));
    }
    let far = [
        START.plus(Duration::from_secs(40)),
        START.minus(Duration::from_secs(40)),
    ];
    for now in far {
        let refused = world.store.check_time(now).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))));
    }
    // It slept, with its monotonic clock, and DynamoDB tells the time.
    let later = START.plus(Duration::from_hours(1));
    world.server.set(later);
    assert_eq!(world.store.check_time(later).await, Ok(()));
    // Where there is no answer, nothing is known.
    world.server.set(START);
    world.faults.plan("GetItem", [Fault::FailBefore; 3]);
    assert!(world.store.check_time(START).await.is_err());
}

/// It stores nothing, and names no time to sync from, until its clock is right.
#[tokio::test(start_paused = true)]
async fn a_history_whose_clock_is_off_refuses_to_append_and_to_sync() {
    let world = World::new().await;
    let store: Arc<dyn Store> = Arc::new(world.store);
    let history = History::new(Arc::clone(&store), Arc::new(world.clock.clone()));
    let request = SyncRequest {
        user: user("bob"),
        token: String::new(),
        named: Vec::new(),
        after: None,
        max_conversations: 10,
    };
    for off in [Duration::from_mins(10), Duration::from_secs(45)] {
        world.server.set(START.plus(off));
        let refused = history.append(run("a")).await;
        assert!(matches!(
            refused[..],
            [Appended::Unsettled(Unsettled {
                reason: UnsettledReason::Unavailable,
                ..
            })]
        ));
        assert!(history.sync(request.clone()).await.is_err());
        let cursor = Cursor::asked(Some(Seq(0)), None);
        let (bob, alice) = (user("bob"), user("alice"));
        let moved = history.advance_cursor(&bob, &alice, cursor);
        assert!(moved.await.is_ok(), "what changes nothing needs no time");
    }
    world.server.set(START);
    let stored = history.append(run("a")).await;
    assert!(matches!(
        stored[..],
        [Appended::Stored {
            duplicate: false,
            ..
        }]
    ));
    assert_eq!(history.sync(request).await.unwrap().conversations.len(), 1);
}

/// What a history once took for the time counts only if it was found good.
#[tokio::test(start_paused = true)]
async fn a_clock_that_was_wrong_once_harms_nothing_when_it_is_right_again() {
    let world = World::new().await;
    let history = History::new(Arc::new(world.store), Arc::new(world.clock.clone()));
    world.clock.set(START.plus(Duration::from_hours(1)));
    let refused = history.append(run("a")).await;
    assert!(matches!(refused[..], [Appended::Unsettled(_)]));
    world.clock.set(START);
    let stored = history.append(run("a")).await;
    let [Appended::Stored { envelope, .. }] = &stored[..] else {
        panic!("{stored:?}");
    };
    assert_eq!(envelope.accepted_at, START);
}

/// The clocks of a machine that was suspended stand still, both of them: only DynamoDB
/// knows how late it is.
#[tokio::test(start_paused = true)]
async fn a_machine_that_stood_still_sends_no_put_of_before() {
    let world = World::new().await;
    let slow = Fault::Delay(Duration::from_secs(1));
    world.faults.plan("PutItem", [slow, slow]);
    let mut put = Box::pin(world.put(1..=1));
    waits(put.as_mut()).await;
    world.server.advance(Duration::from_hours(1));
    assert_eq!(put.await, stopped(0, PutStop::TooLate));
    assert_eq!(world.seqs().await, Vec::<u64>::new());
}

/// The rows that announce a message that was found are of before.
#[tokio::test(start_paused = true)]
async fn a_machine_that_stood_still_answers_nothing_as_stored_by_rows_of_before() {
    let world = World::new().await;
    let store: Arc<dyn Store> = Arc::new(world.store);
    let open = || History::new(Arc::clone(&store), Arc::new(world.clock.clone()));
    assert!(matches!(
        open().append(run("m1")).await[..],
        [Appended::Stored { .. }]
    ));
    let history = open();
    let slow = Fault::Delay(Duration::from_secs(1));
    world.faults.plan("PutItem", [slow, slow]);
    let mut found = Box::pin(history.append(run("m1")));
    let half = tokio::time::timeout(Duration::from_millis(500), found.as_mut());
    assert!(half.await.is_err(), "its rows are on their way");
    world.server.advance(Duration::from_hours(1));
    let answers = found.await;
    assert!(
        matches!(answers[..], [Appended::Unsettled(_)]),
        "{answers:?}"
    );
}

/// A replica that cannot work, while others can, says so and is asked again when it can.
#[tokio::test(start_paused = true)]
async fn a_replica_that_refuses_leaves_the_rotation_and_comes_back() {
    use duologue_runtime::admin::Readiness;
    use duologue_runtime::server::Health;
    use duologue_runtime::shutdown::Shutdown;
    use duologue_runtime::task;

    let world = World::new().await;
    let history = History::new(Arc::new(world.store), Arc::new(world.clock.clone()));
    let readiness = Readiness::default();
    let watch = Watch {
        history: history.clone(),
        health: Health::new(&["history"]).await,
        readiness: readiness.register("store"),
        shutdown: Shutdown::new(Duration::from_secs(1)),
    };
    watch.readiness.set_ready();
    task::spawn("watch", watch.run());
    let state = || (readiness.failing().is_empty(), *history.refusing().borrow());
    let half = PROBE_INTERVAL / 2;
    tokio::time::sleep(PROBE_INTERVAL + half).await;
    assert_eq!(state(), (true, false));
    for off in [Duration::from_mins(10), Duration::from_secs(45)] {
        world.clock.set(START.plus(off));
        tokio::time::sleep(PROBE_INTERVAL).await;
        assert_eq!(state(), (false, false), "it is not ready at once");
        tokio::time::sleep(REFUSING_KEPT).await;
        assert_eq!(state(), (false, true));
        world.clock.set(START);
        tokio::time::sleep(PROBE_INTERVAL).await;
        assert_eq!(state(), (true, false));
    }
    // It alone does not reach DynamoDB.
    world.faults.plan("GetItem", [Fault::FailBefore; 30]);
    // A probe is repeated with pauses, which are random.
    tokio::time::sleep(PROBE_INTERVAL * 10).await;
    assert!(!state().0);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(state(), (true, false));
}

fn run(id: &str) -> Run {
    Run {
        sender: user("alice"),
        peer: user("bob"),
        drafts: vec![Draft {
            message_id: MessageId::parse(id).unwrap(),
            after_seq: Some(Seq(0)),
            body: bytes::Bytes::from_static(b"body"),
            intent: Intent::Store,
        }],
    }
}

#[tokio::test(start_paused = true)]
async fn a_cursor_whose_reply_is_lost_is_stored_once_and_never_lower() {
    let world = World::new().await;
    let (conversation, bob) = (between("alice", "bob"), user("bob"));
    let at = |n| Cursor::asked(Some(Seq(n)), Some(Seq(n / 2)));
    world.faults.plan("UpdateItem", [Fault::LoseReply]);
    let raised = world.store.put_cursor(&conversation, &bob, at(8), START);
    assert_eq!(raised.await, Ok(at(8)));
    // This one arrives when another has raised it further.
    let late = Duration::from_secs(30);
    world.faults.plan("UpdateItem", [Fault::Late(late)]);
    let raised = world.store.put_cursor(&conversation, &bob, at(9), START);
    assert_eq!(raised.await, Ok(at(9)));
    let raised = world.store.put_cursor(&conversation, &bob, at(20), START);
    assert_eq!(raised.await, Ok(at(20)));
    tokio::time::sleep(late).await;
    let held = world.store.cursors(&bob, &user("alice")).await.unwrap();
    assert_eq!(held.own, at(20));
}

/// Its rows are of before, as a message's would be.
#[tokio::test(start_paused = true)]
async fn a_cursor_is_not_sent_when_its_rows_took_too_long() {
    let world = World::new().await;
    let (conversation, bob) = (between("alice", "bob"), user("bob"));
    let cursor = Cursor::asked(Some(Seq(1)), None);
    let slow = Fault::Delay(Duration::from_millis(1_500));
    for suspended in [false, true] {
        world.faults.plan("PutItem", [slow, slow]);
        let read_at = if suspended {
            world.clock.now()
        } else {
            world.clock.now().minus(Duration::from_secs(9))
        };
        let put = world.store.put_cursor(&conversation, &bob, cursor, read_at);
        let mut put = Box::pin(put);
        waits(put.as_mut()).await;
        if suspended {
            world.server.advance(Duration::from_hours(1));
        }
        let late = StoreError::Unavailable("too late to be sent".into());
        assert_eq!(put.await, Err(late));
        let held = world.store.cursors(&bob, &user("alice")).await.unwrap();
        assert_eq!(held.own, Cursor::default());
    }
}

fn database(engine: &Arc<Engine>) -> DynamoDb {
    Connector::new(Arc::clone(engine)).client(Options::default())
}

async fn open(engine: &Arc<Engine>, seed: u64) -> Result<DynamoStore, OpenError> {
    let clock = Arc::new(ManualClock::at(START));
    DynamoStore::open(database(engine), clock, &SeededRandom::new(seed)).await
}

#[tokio::test(start_paused = true)]
async fn replicas_that_start_at_once_agree_on_the_history() {
    let world = World::new().await;
    let engine = remote::engine().await;
    let opened = join_all((0..8).map(|seed| open(&engine, seed))).await;
    let ids: Vec<_> = opened
        .into_iter()
        .map(|store| store.unwrap().history_id().clone())
        .collect();
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_ne!(ids[0], *world.store.history_id());
    let again = open(&world.engine, 99).await.unwrap();
    assert_eq!(again.history_id(), world.store.history_id());
}

#[tokio::test(start_paused = true)]
async fn without_its_tables_or_with_others_there_is_no_store() {
    let engine = Arc::new(Engine::new());
    create(&database(&engine), &[USERS]).await.unwrap();
    let Err(OpenError::Tables(report)) = open(&engine, 1).await else {
        panic!("it opens");
    };
    assert_eq!(report.problems, [("messages".into(), Problem::Missing)]);
    let other = TableSpec {
        sort: None,
        ..MESSAGES
    };
    create(&database(&engine), &[other]).await.unwrap();
    let Err(OpenError::Tables(report)) = open(&engine, 1).await else {
        panic!("it opens");
    };
    assert!(matches!(
        report.problems[..],
        [(_, Problem::OtherSchema { .. })]
    ));
    assert_eq!(TABLES.len(), 2);
}

/// The highest reading is this replica's own: another's says nothing of its clock.
#[tokio::test(start_paused = true)]
async fn a_replica_begins_without_a_reading() {
    let world = World::new().await;
    assert_eq!(world.put(1..=1).await, stored(1));
    let other = open(&world.engine, 2).await.unwrap();
    assert_eq!(other.highest_reading(), UnixMillis(0));
}
