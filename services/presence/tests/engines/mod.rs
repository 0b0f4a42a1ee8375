//! The engines that the contract of `Directory` runs over.

mod persistent;

use std::sync::Arc;

use duologue_dynamodb::tables::create;
use duologue_dynamodb::testing::{Connector, Engine as Tables, Faults};
use duologue_dynamodb::{DynamoDb, Options};
use duologue_presence::dynamodb::TABLE;
use duologue_presence::{Directory, DynamoDirectory, MemoryDirectory};
use duologue_runtime::clock::{Random, RandomExt as _, SeededRandom, SystemClock, SystemRandom};

use self::persistent::Persistent;

pub(crate) type Engine = Arc<dyn Directory>;

/// Runs of each promise with faults.
pub(crate) const SEEDS: u64 = 12;
/// Requests of a thousand that meet a fault.
const FAULTS_PER_THOUSAND: u64 = 120;

pub(crate) fn memory() -> Engine {
    Arc::new(MemoryDirectory::new())
}

/// DynamoDB in the process, which never fails.
pub(crate) async fn dynamodb() -> Engine {
    let way = Connector::new(Arc::new(Tables::new()));
    with_table(way.client(Options::default())).await
}

/// The same with the faults of a seed, asked by somebody who does not give up.
pub(crate) async fn dynamodb_with_faults(seed: u64) -> Engine {
    let tables = Arc::new(Tables::new());
    let sound = Connector::new(tables.clone()).client(Options::default());
    let sound = with_table(sound).await;
    let faults = Arc::new(Faults::seeded(seed, FAULTS_PER_THOUSAND));
    let way = Connector::with(tables, faults, Arc::new(SystemClock));
    let random = Arc::new(SeededRandom::new(seed));
    let failing = directory(way.client(Options::default()), random);
    Arc::new(Persistent { failing, sound })
}

/// A DynamoDB that the environment names; a table of its own every time.
pub(crate) async fn dynamodb_elsewhere() -> Engine {
    let endpoint = std::env::var_os("AWS_ENDPOINT_URL_DYNAMODB");
    assert!(
        endpoint.is_some(),
        "`cargo xtask dynamodb-contract` runs this"
    );
    let options = Options {
        table_prefix: format!("{}-", SystemRandom.id()),
        ..Options::default()
    };
    with_table(DynamoDb::from_environment(options).await.unwrap()).await
}

async fn with_table(db: DynamoDb) -> Engine {
    create(&db, &[TABLE]).await.unwrap();
    directory(db, Arc::new(SystemRandom))
}

fn directory(db: DynamoDb, random: Arc<dyn Random>) -> Engine {
    Arc::new(DynamoDirectory::new(db, Arc::new(SystemClock), random))
}
