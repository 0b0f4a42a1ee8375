//! What is asked for by user. Strong reads: who looks routes up has stored a message,
//! and must find everyone who registered before (design §4).

use duologue_dynamodb::sdk::types::{ReturnConsumedCapacity, Select};
use duologue_proto::ids::{UnixMillis, UserId};
use duologue_proto::presence::PresenceError;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tracing::error;

use super::DynamoDirectory;
use super::call::{failed, unavailable};
use super::rows::{
    Item, SEEN_AT, SEEN_ROW, SESSION, SORT, is_over, read_number, read_route, read_text, text,
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
                add(&mut rows, user, item, now)?;
            }
            next = page.last_evaluated_key;
            if next.is_none() {
                return Ok(rows);
            }
        }
        error!(user.id = %user, "a user has too many rows");
        Err(unavailable())
    }

    /// How many rows of the first page of a partition pass a filter.
    pub(super) async fn count(
        &self,
        partition: &str,
        filter: Option<&str>,
    ) -> Result<usize, PresenceError> {
        let query = self.db.repeating().query().table_name(&self.table);
        let query = query
            .key_condition_expression("p = :p")
            .set_filter_expression(filter.map(str::to_owned))
            .expression_attribute_values(":p", text(partition))
            .select(Select::Count)
            .consistent_read(true)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let page = query.send().await.map_err(|error| failed(&error))?;
        Ok(usize::try_from(page.count).unwrap_or_default())
    }
}

fn add(
    rows: &mut UserRows,
    user: &UserId,
    item: &Item,
    now: UnixMillis,
) -> Result<(), PresenceError> {
    if read_text(item, SORT) == Some(SEEN_ROW) {
        // Expired rows are there until DynamoDB removes them.
        rows.last_seen = read_number(item, SEEN_AT)
            .filter(|_| !is_over(item, now))
            .map(UnixMillis);
        return Ok(());
    }
    if !item.contains_key(SESSION) {
        return Ok(());
    }
    let Some(route) = read_route(user, item) else {
        // Not to be taken for "offline".
        error!(user.id = %user, "a route cannot be read");
        return Err(unavailable());
    };
    rows.routes.push(route);
    Ok(())
}
