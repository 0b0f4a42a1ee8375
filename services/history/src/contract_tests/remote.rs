//! The engine on DynamoDB, without faults and with them.
//!
//! With faults an outcome may be unknown, which the contract knows nothing of: so
//! [`Settling`] stands in front, which tries again until it is known, as the rules above
//! a store do.

use std::sync::Arc;

use async_trait::async_trait;
use duologue_dynamodb::testing::{Connector, Engine, Faults};
use duologue_dynamodb::{DynamoDb, Options, tables};
use duologue_proto::ids::{ConversationId, HistoryId, Seq, UnixMillis, UserId};
use duologue_proto::message::Cursor;
use duologue_runtime::clock::{Clock, ManualClock, RandomExt as _, SeededRandom, SystemRandom};

use super::{Fixture, START};
use crate::committer::rules::MAX_READING_AGE;
use crate::dynamodb::DynamoStore;
use crate::dynamodb::schema::TABLES;
use crate::store::{
    Activity, Cursors, PutOutcome, PutRun, PutStop, SlotRange, Store, StoreError, StoredMessage,
    Window,
};

/// Seeds that each promise is tried with.
const SEEDS: u64 = 4;
/// Of a thousand requests so many meet a fault.
const FAULTS_PER_THOUSAND: u64 = 80;
/// By then an operation is done, whatever fails.
const MAX_TRIES: usize = 60;

/// An engine with the tables of history.
pub(crate) async fn engine() -> Arc<Engine> {
    let engine = Arc::new(Engine::new());
    let database = Connector::new(Arc::clone(&engine)).client(Options::default());
    tables::create(&database, &TABLES).await.unwrap();
    engine
}

/// A client of an engine; `clock` is DynamoDB's.
pub(crate) fn client(
    engine: &Arc<Engine>,
    faults: &Arc<Faults>,
    clock: &Arc<dyn Clock>,
) -> DynamoDb {
    let way = Connector::with(Arc::clone(engine), Arc::clone(faults), Arc::clone(clock));
    way.client(Options::default())
}

/// A replica's store. It is tried until it opens.
pub(crate) async fn open(database: DynamoDb, clock: &Arc<dyn Clock>, seed: u64) -> DynamoStore {
    let random = SeededRandom::new(seed);
    for _ in 0..MAX_TRIES {
        let opened = DynamoStore::open(database.clone(), Arc::clone(clock), &random).await;
        if let Ok(store) = opened {
            return store;
        }
    }
    panic!("the store does not open");
}

pub(super) async fn make() -> [Fixture; 1] {
    let clock = ManualClock::at(START);
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    let database = client(&engine().await, &Arc::default(), &shared);
    [Fixture {
        store: Arc::new(open(database, &shared, 1).await),
        clock,
        _directory: None,
    }]
}

/// On the DynamoDB that the environment names; its tables get a prefix of their own, and
/// stay.
pub(super) async fn make_elsewhere() -> [Fixture; 1] {
    let clock = ManualClock::at(START);
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    let options = Options {
        table_prefix: format!("test-{}-", SystemRandom.id()),
        home_region: None,
    };
    let database = DynamoDb::from_environment(options).await.unwrap();
    database.server_time().follow(clock.clone());
    tables::create(&database, &TABLES).await.unwrap();
    // It may be slow, so that a run is cut by its deadline.
    let settling = Settling {
        faulty: open(database.clone(), &shared, 1).await,
        truth: open(database, &shared, 1).await,
        clock: clock.clone(),
    };
    [Fixture {
        store: Arc::new(settling),
        clock,
        _directory: None,
    }]
}

pub(super) async fn make_faulty() -> Vec<Fixture> {
    let mut fixtures = Vec::new();
    for seed in 0..SEEDS {
        let clock = ManualClock::at(START);
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let engine = engine().await;
        let faults = Arc::new(Faults::seeded(seed, FAULTS_PER_THOUSAND));
        let failing = open(client(&engine, &faults, &shared), &shared, seed).await;
        let truth = open(client(&engine, &Arc::default(), &shared), &shared, seed).await;
        fixtures.push(Fixture {
            store: Arc::new(Settling {
                faulty: failing,
                truth,
                clock: clock.clone(),
            }),
            clock,
            _directory: None,
        });
    }
    fixtures
}

/// Tries again until an outcome is known.
struct Settling {
    faulty: DynamoStore,
    /// The same tables, without faults.
    truth: DynamoStore,
    clock: ManualClock,
}

/// Repeats what the store is not available for.
macro_rules! settled {
    ($operation:expr) => {{
        let mut last = Err(StoreError::Unavailable("never tried".into()));
        for _ in 0..MAX_TRIES {
            last = $operation.await;
            if !matches!(last, Err(StoreError::Unavailable(_))) {
                break;
            }
        }
        last
    }};
}

impl Settling {
    async fn filled(&self, conversation: &ConversationId) -> Seq {
        let head = settled!(self.truth.head(conversation)).unwrap();
        head.map_or(Seq::ZERO, |head| head.envelope.seq)
    }
}

#[async_trait]
impl Store for Settling {
    fn history_id(&self) -> &HistoryId {
        self.faulty.history_id()
    }

    fn highest_reading(&self) -> UnixMillis {
        self.faulty.highest_reading()
    }

    fn writable(&self) -> Result<(), StoreError> {
        self.faulty.writable()
    }

    async fn store_reading(&self, reading: UnixMillis) -> Result<(), StoreError> {
        self.faulty.store_reading(reading).await
    }

    /// A slot that was free before, and holds the message after a try without outcome,
    /// was filled by that try.
    async fn put_run(&self, mut run: PutRun) -> PutOutcome {
        let filled = self.filled(&run.conversation).await;
        let (mut stored, mut unknown) = (0, false);
        for _ in 0..MAX_TRIES {
            let outcome = self.faulty.put_run(run.clone()).await;
            stored += outcome.stored;
            run.messages.drain(..outcome.stored);
            unknown &= outcome.stored == 0;
            match outcome.stopped {
                Some(PutStop::Unknown) => unknown = true,
                Some(PutStop::Failed(StoreError::Unavailable(_))) => {}
                // It only took long.
                Some(PutStop::TooLate)
                    if self.clock.now().since(run.read_at) <= MAX_READING_AGE => {}
                Some(PutStop::Occupied(by))
                    if unknown && run.messages[0] == *by && by.envelope.seq > filled =>
                {
                    stored += 1;
                    unknown = false;
                    run.messages.remove(0);
                    if run.messages.is_empty() {
                        return super::stored(stored);
                    }
                }
                stopped => return PutOutcome { stored, stopped },
            }
        }
        panic!("a put has no outcome");
    }

    async fn put_activity(
        &self,
        conversation: &ConversationId,
        window: Window,
    ) -> Result<(), StoreError> {
        settled!(self.faulty.put_activity(conversation, window))
    }

    async fn put_cursor(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        cursor: Cursor,
        read_at: UnixMillis,
    ) -> Result<Cursor, StoreError> {
        settled!(self.faulty.put_cursor(conversation, user, cursor, read_at))
    }

    async fn head(
        &self,
        conversation: &ConversationId,
    ) -> Result<Option<StoredMessage>, StoreError> {
        settled!(self.faulty.head(conversation))
    }

    async fn slots(&self, range: SlotRange) -> Result<Vec<StoredMessage>, StoreError> {
        settled!(self.faulty.slots(range.clone()))
    }

    async fn cursors(&self, user: &UserId, peer: &UserId) -> Result<Cursors, StoreError> {
        settled!(self.faulty.cursors(user, peer))
    }

    async fn conversations(
        &self,
        user: &UserId,
        after: Option<&UserId>,
        max: usize,
    ) -> Result<Vec<UserId>, StoreError> {
        settled!(self.faulty.conversations(user, after, max))
    }

    async fn activity_from(
        &self,
        user: &UserId,
        first: Window,
        after: Option<&Activity>,
        max: usize,
    ) -> Result<Vec<Activity>, StoreError> {
        settled!(self.faulty.activity_from(user, first, after, max))
    }

    async fn activity_back(
        &self,
        user: &UserId,
        before: Option<&Activity>,
        max: usize,
    ) -> Result<Vec<Activity>, StoreError> {
        settled!(self.faulty.activity_back(user, before, max))
    }
}
