//! The rows of users: activity, conversations, cursors.
//!
//! Activity and conversation rows are written blindly and never taken back; a cursor
//! only rises. So every write here may be repeated, and the SDK does it. But a cursor is
//! announced by its rows, and like a message not sent when they are too old.

use duologue_dynamodb::sdk::operation::update_item::UpdateItemError;
use duologue_dynamodb::sdk::types::{
    AttributeValue, ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure,
};
use duologue_dynamodb::{classify, send_while};
use duologue_proto::ids::{ConversationId, UserId};
use duologue_proto::message::Cursor;
use futures_util::future::{join_all, try_join};

use super::puts::Reading;
use super::schema::{self, PARTITION, SORT, bytes, rows_of};
use super::values::{self, FORMAT};
use super::{DynamoStore, unavailable};
use crate::store::{Activity, Cursors, StoreError, Window};

/// How often a cursor is raised at most that others raise at the same time.
pub const MAX_CURSOR_ROUNDS: usize = 8;
/// Rows asked for at once. (DynamoDB ends a page at 1 MB in any case.)
pub const MAX_PAGE_ROWS: usize = 1_024;

/// A row of a user that says no more than that it is there.
enum Row {
    Activity(UserId, Activity),
    Conversation(UserId, UserId),
}

impl DynamoStore {
    /// Writes both users' activity rows, and their conversation rows if it is new: all
    /// at once.
    pub(super) async fn mark(
        &self,
        conversation: &ConversationId,
        active: Option<Window>,
        new: bool,
    ) -> Result<(), StoreError> {
        let mut rows = Vec::with_capacity(4);
        for (user, peer) in conversation.sides() {
            if let Some(window) = active {
                let peer = peer.clone();
                rows.push(Row::Activity(user.clone(), Activity { window, peer }));
            }
            if new {
                rows.push(Row::Conversation(user, peer));
            }
        }
        let written = join_all(rows.iter().map(|row| self.write(row))).await;
        written.into_iter().collect()
    }

    async fn write(&self, row: &Row) -> Result<(), StoreError> {
        match row {
            Row::Activity(user, activity) => {
                let put = self.database.repeating().put_item();
                let put = put
                    .table_name(&self.users)
                    .item(PARTITION, rows_of(user))
                    .item(SORT, bytes(&schema::activity(activity)))
                    .return_consumed_capacity(ReturnConsumedCapacity::Total);
                let written = put.send().await.map_err(|error| classify(&error));
                written.map(drop).map_err(unavailable)
            }
            // It must leave a cursor as it is.
            Row::Conversation(user, peer) => {
                let update = self.database.repeating().update_item();
                let update = update
                    .table_name(&self.users)
                    .key(PARTITION, rows_of(user))
                    .key(SORT, bytes(&schema::conversation(peer)))
                    .update_expression("SET v = :v")
                    .expression_attribute_values(":v", number(u64::from(FORMAT)))
                    .return_consumed_capacity(ReturnConsumedCapacity::Total);
                let written = update.send().await.map_err(|error| classify(&error));
                written.map(drop).map_err(unavailable)
            }
        }
    }

    /// Raises a cursor to at least `asked`, position by position. Each round asks for
    /// no less than what is stored, so that a repeated one changes nothing.
    pub(super) async fn raise_to(
        &self,
        user: &UserId,
        peer: &UserId,
        asked: Cursor,
        reading: &Reading,
    ) -> Result<Cursor, StoreError> {
        let mut wanted = asked;
        for _ in 0..MAX_CURSOR_ROUNDS {
            let Some(held) = self.try_cursor(user, peer, wanted, reading).await? else {
                return Ok(wanted);
            };
            if held.covers(asked) {
                return Ok(held);
            }
            wanted = held.max(asked);
        }
        Err(StoreError::Unavailable("a cursor is contended".into()))
    }

    /// None if it is stored; else what is, of which a position is higher.
    async fn try_cursor(
        &self,
        user: &UserId,
        peer: &UserId,
        wanted: Cursor,
        reading: &Reading,
    ) -> Result<Option<Cursor>, StoreError> {
        let reading = reading.clone();
        let update = self.database.repeating().update_item();
        let update = update
            .table_name(&self.users)
            .key(PARTITION, rows_of(user))
            .key(SORT, bytes(&schema::conversation(peer)))
            .update_expression("SET v = :v, d = :d, r = :r")
            .condition_expression("attribute_not_exists(d) OR (d <= :d AND r <= :r)")
            .expression_attribute_values(":v", number(u64::from(FORMAT)))
            .expression_attribute_values(":d", number(wanted.delivered.0))
            .expression_attribute_values(":r", number(wanted.read.0))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .customize();
        let update = send_while(update, move || reading.is_young());
        let Err(error) = update.send().await else {
            return Ok(None);
        };
        let Some(UpdateItemError::ConditionalCheckFailedException(blocked)) =
            error.as_service_error()
        else {
            return Err(unavailable(classify(&error)));
        };
        let untold = || StoreError::Unavailable("what blocks a cursor was not told".into());
        values::cursor(blocked.item().ok_or_else(untold)?).map(Some)
    }

    /// Both users' rows are read at once.
    pub(super) async fn read_cursors(
        &self,
        user: &UserId,
        peer: &UserId,
    ) -> Result<Cursors, StoreError> {
        if user == peer {
            let own = self.read_cursor(user, peer).await?;
            return Ok(Cursors { own, peer: own });
        }
        let both = try_join(self.read_cursor(user, peer), self.read_cursor(peer, user));
        let (own, peer) = both.await?;
        Ok(Cursors { own, peer })
    }

    pub(super) async fn read_cursor(
        &self,
        user: &UserId,
        peer: &UserId,
    ) -> Result<Cursor, StoreError> {
        let get = self.database.repeating().get_item();
        let get = get
            .table_name(&self.users)
            .key(PARTITION, rows_of(user))
            .key(SORT, bytes(&schema::conversation(peer)))
            .consistent_read(true)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let found = get
            .send()
            .await
            .map_err(|error| unavailable(classify(&error)))?;
        found
            .item
            .as_ref()
            .map_or(Ok(Cursor::default()), values::cursor)
    }

    /// The rows of a user whose keys lie between two, in order or backward, behind
    /// `after`, which lies between them, too; read strongly.
    pub(super) async fn rows<T>(
        &self,
        range: RowRange<'_>,
        read: impl Fn(&[u8]) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let [first, last] = &range.between;
        let mut after = range.after.map(|sort| {
            let key = [(PARTITION, rows_of(range.user)), (SORT, bytes(&sort))];
            key.map(|(name, value)| (name.to_owned(), value)).into()
        });
        let mut rows: Vec<T> = Vec::new();
        while rows.len() < range.max {
            let room = (range.max - rows.len()).min(MAX_PAGE_ROWS);
            let query = self.database.repeating().query();
            let query = query
                .table_name(&self.users)
                .key_condition_expression("p = :p AND s BETWEEN :f AND :l")
                .expression_attribute_values(":p", rows_of(range.user))
                .expression_attribute_values(":f", bytes(first))
                .expression_attribute_values(":l", bytes(last))
                .scan_index_forward(!range.backward)
                .limit(i32::try_from(room).unwrap_or(i32::MAX))
                .set_exclusive_start_key(after.take())
                .consistent_read(true)
                .return_consumed_capacity(ReturnConsumedCapacity::Total);
            let page = query
                .send()
                .await
                .map_err(|error| unavailable(classify(&error)))?;
            for item in page.items() {
                rows.push(read(values::sort(item)?)?);
            }
            after = page.last_evaluated_key;
            if after.is_none() {
                break;
            }
        }
        Ok(rows)
    }
}

/// Asks for rows of a user.
pub(super) struct RowRange<'a> {
    pub(super) user: &'a UserId,
    pub(super) between: [Vec<u8>; 2],
    pub(super) after: Option<Vec<u8>>,
    pub(super) backward: bool,
    pub(super) max: usize,
}

fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}
