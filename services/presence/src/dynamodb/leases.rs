//! Leases: one row per node, in one partition.

use duologue_dynamodb::sdk::operation::delete_item::DeleteItemError;
use duologue_dynamodb::sdk::operation::update_item::UpdateItemError;
use duologue_dynamodb::sdk::types::{ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure};
use duologue_proto::presence::PresenceError;
use tracing::error;

use super::DynamoDirectory;
use super::call::{Outcome, failed, settle, unavailable};
use super::rows::{
    INCARNATION, NODES_PARTITION, PARTITION, SORT, lease_item, number, read_lease, read_text, text,
};
use crate::directory::{Lease, MAX_NODES, Renewed};

impl DynamoDirectory {
    /// Over whatever another start has, so that the last start wins. Of the same start
    /// only over a lower counter: a late try lowers nothing.
    pub(super) async fn take_lease(&self, lease: &Lease) -> Result<(), PresenceError> {
        if self.count(NODES_PARTITION).await? >= MAX_NODES {
            let leases = self.all_leases().await?;
            if !leases.iter().any(|held| held.node == lease.node) {
                return Err(unavailable());
            }
        }
        let put = self.db.once().put_item().table_name(&self.table);
        let put = put
            .set_item(Some(lease_item(lease)))
            .condition_expression("attribute_not_exists(p) OR i <> :i OR c < :c")
            .expression_attribute_values(":i", text(lease.incarnation.as_str()))
            .expression_attribute_values(":c", number(lease.counter))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        settle(&*self.random, || put.clone().send()).await?;
        Ok(())
    }

    pub(super) async fn renew_lease(&self, lease: &Lease) -> Result<Renewed, PresenceError> {
        let update = self.db.once().update_item().table_name(&self.table);
        let update = update
            .key(PARTITION, text(NODES_PARTITION))
            .key(SORT, text(lease.node.as_str()))
            .update_expression("SET c = :c, t = :t")
            .condition_expression("i = :i AND c < :c")
            .expression_attribute_values(":c", number(lease.counter))
            .expression_attribute_values(":t", text(&lease.address))
            .expression_attribute_values(":i", text(lease.incarnation.as_str()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let outcome = settle(&*self.random, || update.clone().send()).await?;
        let Outcome::Blocked { error, .. } = outcome else {
            return Ok(Renewed::InForce);
        };
        // A late or repeated renewal, or another start, or nothing.
        let UpdateItemError::ConditionalCheckFailedException(failed) = error else {
            return Err(unavailable());
        };
        let held = failed.item.unwrap_or_default();
        let own = read_text(&held, INCARNATION) == Some(lease.incarnation.as_str());
        Ok(if own { Renewed::InForce } else { Renewed::Lost })
    }

    pub(super) async fn forget_lease(&self, seen: &Lease) -> Result<bool, PresenceError> {
        let delete = self.db.once().delete_item().table_name(&self.table);
        let delete = delete
            .key(PARTITION, text(NODES_PARTITION))
            .key(SORT, text(seen.node.as_str()))
            .condition_expression("i = :i AND c = :c AND t = :t")
            .expression_attribute_values(":i", text(seen.incarnation.as_str()))
            .expression_attribute_values(":c", number(seen.counter))
            .expression_attribute_values(":t", text(&seen.address))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        Ok(
            match settle(&*self.random, || delete.clone().send()).await? {
                Outcome::Applied(_) => true,
                // An earlier try may have removed it; if it was another's, it is as gone.
                Outcome::Blocked { error, doubtful } => doubtful && found_nothing(error),
            },
        )
    }

    pub(super) async fn all_leases(&self) -> Result<Vec<Lease>, PresenceError> {
        let mut leases = Vec::new();
        let mut next = None;
        // There are not many, see MAX_NODES: a page or two.
        loop {
            let query = self.db.repeating().query().table_name(&self.table);
            let query = query
                .key_condition_expression("p = :p")
                .expression_attribute_values(":p", text(NODES_PARTITION))
                .consistent_read(true)
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .set_exclusive_start_key(next.take());
            let page = query.send().await.map_err(|error| failed(&error))?;
            for item in page.items() {
                let Some(lease) = read_lease(item) else {
                    error!("a lease cannot be read");
                    return Err(unavailable());
                };
                leases.push(lease);
            }
            next = page.last_evaluated_key;
            if next.is_none() {
                return Ok(leases);
            }
        }
    }
}

fn found_nothing(error: DeleteItemError) -> bool {
    matches!(
        error,
        DeleteItemError::ConditionalCheckFailedException(failed) if failed.item.is_none()
    )
}
