//! The engine of many replicas: rows in one table of DynamoDB.
//!
//! A replica keeps nothing: each question is a read of the table, each change one
//! conditional write of one row, and the condition is the rule. What a row is stands
//! in `rows`; `routes` is the rising number, `lookup` the questions, `listing` the list
//! of users, `leases` the nodes, `call` what a failed request means.

mod call;
mod leases;
mod listing;
mod lookup;
mod routes;
mod rows;

use std::sync::Arc;

use async_trait::async_trait;
use duologue_dynamodb::DynamoDb;
use duologue_proto::ids::{UnixMillis, UserId};
use duologue_proto::presence::{PresenceError, Registered, Route};
use duologue_runtime::clock::{Clock, Random};

use crate::directory::{Directory, Lease, Renewed, UserRows};

pub use self::call::{MAX_TRIES, RETRY_AFTER, RETRY_PAUSE};
pub use self::listing::{LIST_BUCKETS, MAX_HINTS};
pub use self::lookup::{CONCURRENT_LOOKUPS, MAX_USER_PAGES};
pub use self::routes::MAX_ROWS_PER_USER;
pub use self::rows::TABLE;

/// Routes and leases in DynamoDB.
#[derive(Clone)]
pub struct DynamoDirectory {
    db: DynamoDb,
    table: String,
    /// Only to know when rows that are kept for a time are over.
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl DynamoDirectory {
    /// The directory in [`TABLE`], which must be there.
    pub fn new(db: DynamoDb, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self {
            table: db.table(&TABLE),
            db,
            clock,
            random,
        }
    }
}

impl std::fmt::Debug for DynamoDirectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DynamoDirectory")
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Directory for DynamoDirectory {
    async fn register(&self, route: &Route) -> Result<Registered, PresenceError> {
        self.put_in_force(route).await
    }

    async fn release(&self, route: &Route, at: UnixMillis) -> Result<bool, PresenceError> {
        self.make_gone(route, at).await
    }

    async fn remove(&self, seen: &Route) -> Result<bool, PresenceError> {
        self.clean_up(seen).await
    }

    async fn lookup(&self, users: &[UserId]) -> Result<Vec<UserRows>, PresenceError> {
        self.rows_of_all(users).await
    }

    async fn users(
        &self,
        after: Option<&UserId>,
        max: usize,
    ) -> Result<Vec<UserId>, PresenceError> {
        self.listed(after, max).await
    }

    async fn take(&self, lease: &Lease) -> Result<(), PresenceError> {
        self.take_lease(lease).await
    }

    async fn renew(&self, lease: &Lease) -> Result<Renewed, PresenceError> {
        self.renew_lease(lease).await
    }

    async fn forget(&self, seen: &Lease) -> Result<bool, PresenceError> {
        self.forget_lease(seen).await
    }

    async fn leases(&self) -> Result<Vec<Lease>, PresenceError> {
        self.all_leases().await
    }
}
