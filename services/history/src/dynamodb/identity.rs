//! Which history the tables hold: one row, made once.
//!
//! It is bound to the table that it stands in. A table that was restored is another
//! one, with another id of DynamoDB's: so the history in it is another one, too, as
//! clients must be told.

use duologue_dynamodb::sdk::operation::put_item::PutItemError;
use duologue_dynamodb::sdk::types::{AttributeValue, ReturnConsumedCapacity};
use duologue_dynamodb::tables::TableFacts;
use duologue_dynamodb::{DynamoDb, Failure, classify};
use duologue_proto::ids::{HistoryId, Seq};
use duologue_runtime::clock::Random;

use super::schema::{MESSAGES, PARTITION, SORT, corrupt, history, slot};
use super::unavailable;
use super::values::Item;
use crate::store::{StoreError, new_history_id};

/// Several replicas may start at once: one makes the row, the others find it.
pub const MAX_IDENTITY_ROUNDS: usize = 5;
const ID: &str = "i";
const TABLE_ID: &str = "t";

/// The id of the history in these tables, made if there is none.
pub(super) async fn establish(
    database: &DynamoDb,
    messages: &TableFacts,
    random: &dyn Random,
) -> Result<HistoryId, StoreError> {
    // The replicas of a table have ids of their own, and hold one history.
    let bound = messages.replicas.is_empty();
    let table_id = messages.id.as_deref().filter(|_| bound).unwrap_or_default();
    for _ in 0..MAX_IDENTITY_ROUNDS {
        let held = find(database, true).await?;
        let (held_table, held_id) = match &held {
            Some(item) => (text(item, TABLE_ID)?, Some(text(item, ID)?)),
            None => ("", None),
        };
        if let Some(id) = held_id
            && (held_table == table_id || !bound)
        {
            return HistoryId::parse(id).map_err(|_| corrupt("the history id"));
        }
        make(database, table_id, held.as_ref(), random).await?;
    }
    Err(StoreError::Unavailable("the history has no id yet".into()))
}

/// The row that names the history.
pub(super) async fn find(database: &DynamoDb, strong: bool) -> Result<Option<Item>, StoreError> {
    let get = database.repeating().get_item();
    let get = get
        .table_name(database.table(&MESSAGES))
        .key(PARTITION, history())
        .key(SORT, slot(Seq::ZERO))
        .consistent_read(strong)
        .return_consumed_capacity(ReturnConsumedCapacity::Total);
    let found = get
        .send()
        .await
        .map_err(|error| unavailable(classify(&error)))?;
    Ok(found.item)
}

/// Writes the row, unless somebody else did. What became of it is read, whatever is
/// known of it.
async fn make(
    database: &DynamoDb,
    table_id: &str,
    held: Option<&Item>,
    random: &dyn Random,
) -> Result<(), StoreError> {
    let id = new_history_id(random);
    let put = database.once().put_item();
    let put = put
        .table_name(database.table(&MESSAGES))
        .item(PARTITION, history())
        .item(SORT, slot(Seq::ZERO))
        .item(ID, AttributeValue::S(id.as_str().into()))
        .item(TABLE_ID, AttributeValue::S(table_id.into()))
        .return_consumed_capacity(ReturnConsumedCapacity::Total);
    let put = match held.and_then(|held| held.get(TABLE_ID)) {
        None => put.condition_expression("attribute_not_exists(p)"),
        Some(held) => put
            .condition_expression("t = :held")
            .expression_attribute_values(":held", held.clone()),
    };
    let Err(error) = put.send().await else {
        return Ok(());
    };
    let service = error.as_service_error();
    if service.is_some_and(PutItemError::is_conditional_check_failed_exception) {
        return Ok(());
    }
    let failure = classify(&error);
    if matches!(failure, Failure::Unknown(_)) {
        return Ok(());
    }
    Err(unavailable(failure))
}

fn text<'a>(item: &'a Item, name: &str) -> Result<&'a str, StoreError> {
    let text = item.get(name).and_then(|value| value.as_s().ok());
    text.map(String::as_str)
        .ok_or_else(|| corrupt("the row of the history"))
}
