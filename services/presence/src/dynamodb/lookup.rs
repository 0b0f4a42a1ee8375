//! What is asked for by user. Strong reads: who looks routes up has stored a message,
//! and must find everyone who registered before (design §4).

use duologue_dynamodb::sdk::types::{ReturnConsumedCapacity, Select};
use duologue_proto::ids::{UnixMillis, UserId};
use duologue_proto::presence::PresenceError;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tracing::error;

use super::DynamoDirectory;
use super::call::failed;
use super::rows::{
    Item, SEEN_AT, SEEN_ROW, SESSION, SORT, is_over, read_number, read_route, read_text, second,
    text,
};
use crate::directory::UserRows;

/// Users read at the same time by one lookup.
pub const CONCURRENT_LOOKUPS: usize = 16;
/// Pages of a user's rows, 1 MB each: thousands of devices in an hour.
pub const MAX_USER_PAGES: usize = 16;

impl DynamoDirectory {
    /// In their order; so many at the same time.
    pub(super) async fn rows_of_all(
        &self,
        users: &[UserId],
    ) -> Result<Vec<UserRows>, PresenceError> {
        let reads: Vec<_> = users.iter().map(|user| self.rows_of(user)).collect();
        stream::iter(reads)
            .buffered(CONCURRENT_LOOKUPS)
            .try_collect()
            .await
    }

    pub(super) async fn rows_of(&self, user: &UserId) -> Result<UserRows, PresenceError> {
        let rows = self.legible_rows_of(user).await?;
        rows.ok_or(PresenceError::OfUser)
    }

    /// None: there are too many, or one that cannot be read, which asking again does not
    /// mend.
    pub(super) async fn legible_rows_of(
        &self,
        user: &UserId,
    ) -> Result<Option<UserRows>, PresenceError> {
        let now = self.clock.now();
        let mut rows = UserRows::default();
        let mut next = None;
        for _ in 0..MAX_USER_PAGES {
            let query = self.db.repeating().query().table_name(&self.table);
            let query = query
                .key_condition_expression("p = :p")
                // "Gone, number" is paid for, but not sent.
                .filter_expression("attribute_exists(e) OR attribute_exists(a)")
                .expression_attribute_values(":p", text(user.as_str()))
                .consistent_read(true)
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .set_exclusive_start_key(next.take());
            let page = query.send().await.map_err(|error| failed(&error))?;
            for item in page.items() {
                if add(&mut rows, user, item, now).is_none() {
                    return Ok(None);
                }
            }
            next = page.last_evaluated_key;
            if next.is_none() {
                return Ok(Some(rows));
            }
        }
        error!(user.id = %user, "a user has too many rows");
        Ok(None)
    }

    /// How many rows of a user's devices pass a filter, which may know the time as
    /// `:now`.
    pub(super) async fn device_rows(
        &self,
        user: &UserId,
        filter: &str,
    ) -> Result<usize, PresenceError> {
        let (mut count, mut next) = (0, None);
        for _ in 0..MAX_USER_PAGES {
            let query = self.db.repeating().query().table_name(&self.table);
            let query = query
                .key_condition_expression("p = :p")
                .filter_expression(filter)
                .expression_attribute_values(":p", text(user.as_str()))
                .select(Select::Count)
                .consistent_read(true)
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .set_exclusive_start_key(next.take());
            let query = if filter.contains(":now") {
                query.expression_attribute_values(":now", second(self.clock.now()))
            } else {
                query
            };
            let page = query.send().await.map_err(|error| failed(&error))?;
            count += usize::try_from(page.count).unwrap_or_default();
            next = page.last_evaluated_key;
            if next.is_none() {
                return Ok(count);
            }
        }
        Ok(usize::MAX)
    }

    /// How many rows the first page of a partition has.
    pub(super) async fn count(&self, partition: &str) -> Result<usize, PresenceError> {
        let query = self.db.repeating().query().table_name(&self.table);
        let query = query
            .key_condition_expression("p = :p")
            .expression_attribute_values(":p", text(partition))
            .select(Select::Count)
            .consistent_read(true)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let page = query.send().await.map_err(|error| failed(&error))?;
        Ok(usize::try_from(page.count).unwrap_or_default())
    }
}

/// None: it cannot be read, which is not to be taken for "offline".
fn add(rows: &mut UserRows, user: &UserId, item: &Item, now: UnixMillis) -> Option<()> {
    if read_text(item, SORT) == Some(SEEN_ROW) {
        // Expired rows are there until DynamoDB removes them.
        rows.last_seen = read_number(item, SEEN_AT)
            .filter(|_| !is_over(item, now))
            .map(UnixMillis);
    } else if item.contains_key(SESSION) {
        let route = read_route(user, item);
        if route.is_none() {
            error!(user.id = %user, "a route cannot be read");
        }
        rows.routes.push(route?);
    }
    Some(())
}
