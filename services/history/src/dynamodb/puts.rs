//! Filling slots: one conditional put for each, one after another.
//!
//! A put is sent once, while its reading is young, and only after the rows that
//! announce it are durable. It must not move on while its outcome is not known.

use std::sync::Arc;
use std::time::Duration;

use duologue_dynamodb::sdk::operation::put_item::PutItemError;
use duologue_dynamodb::sdk::types::{ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure};
use duologue_dynamodb::{Failure, ServerTime, classify, send_while};
use duologue_proto::ids::UnixMillis;
use duologue_runtime::clock::Clock;
use duologue_runtime::faults::{Mutant, planted};
use tokio::time::Instant;

use super::schema::{MESSAGE, PARTITION, SORT, bytes, messages_of, slot};
use super::{DynamoStore, MAX_SKEW, unavailable, values};
use crate::committer::rules::{MAX_READING_AGE, first_slot};
use crate::store::{PutOutcome, PutRun, PutStop, Store as _, StoreError, StoredMessage};

impl DynamoStore {
    pub(super) async fn fill(&self, run: PutRun) -> PutOutcome {
        let mut stored = 0;
        let stopped = self.fill_slots(&run, &mut stored).await.err();
        PutOutcome { stored, stopped }
    }

    async fn fill_slots(&self, run: &PutRun, stored: &mut usize) -> Result<(), PutStop> {
        let refused = |rule| PutStop::Failed(StoreError::Refused(rule));
        first_slot(run).map_err(refused)?;
        let now = self.clock.now().max(self.reading());
        self.check_time(now).await.map_err(PutStop::Failed)?;
        let reading = Reading::of(self, run.read_at);
        if !reading.is_young() {
            return Err(PutStop::TooLate);
        }
        let window = run.rows.write.then_some(run.rows.window);
        self.mark(&run.conversation, window, run.rows.new_conversation)
            .await
            .map_err(PutStop::Failed)?;
        self.raise_reading(run.read_at);
        for message in &run.messages {
            self.fill_slot(run, message, reading.clone()).await?;
            self.raise_reading(message.envelope.accepted_at);
            *stored += 1;
        }
        Ok(())
    }

    async fn fill_slot(
        &self,
        run: &PutRun,
        message: &StoredMessage,
        reading: Reading,
    ) -> Result<(), PutStop> {
        let condition = "attribute_not_exists(p)".to_owned();
        let put = self.database.once().put_item();
        let put = put
            .table_name(&self.messages)
            .item(PARTITION, messages_of(&run.conversation))
            .item(SORT, slot(message.envelope.seq))
            .item(MESSAGE, bytes(&values::encode(message)))
            .set_condition_expression((!planted(Mutant::PutWithoutCondition)).then_some(condition))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .customize();
        let put = send_while(put, move || reading.is_young());
        let Err(error) = put.send().await else {
            return Ok(());
        };
        if let Some(PutItemError::ConditionalCheckFailedException(blocked)) =
            error.as_service_error()
        {
            // Whose it is must be known.
            let holder = blocked.item().ok_or(PutStop::Unknown)?;
            let holder = values::message(&run.conversation, holder);
            let holder = holder.map_err(PutStop::Failed)?;
            return Err(PutStop::Occupied(Box::new(holder)));
        }
        Err(match classify(&error) {
            Failure::TooLate => PutStop::TooLate,
            Failure::Unknown(text) => {
                tracing::debug!(error = %text, "a put has no outcome");
                PutStop::Unknown
            }
            failure @ (Failure::NotSent(_) | Failure::Throttled(_) | Failure::Refused(_)) => {
                PutStop::Failed(unavailable(failure))
            }
        })
    }
}

/// The reading that a put's rows come from, and how old it is: by history's time and
/// by the monotonic clock, since the first stands while the clock is set back, and the
/// second while the machine sleeps. Where a whole machine stood still, so did both: then
/// the clock no longer agrees with DynamoDB's, as soon as that has answered anything.
#[derive(Clone)]
pub(super) struct Reading {
    clock: Arc<dyn Clock>,
    server_time: Arc<ServerTime>,
    at: UnixMillis,
    age: Duration,
    since: Instant,
}

impl Reading {
    pub(super) fn of(store: &DynamoStore, at: UnixMillis) -> Self {
        let now = store.clock.now().max(store.reading());
        Self {
            clock: Arc::clone(&store.clock),
            server_time: Arc::clone(store.database.server_time()),
            at,
            age: now.since(at),
            since: Instant::now(),
        }
    }

    pub(super) fn is_young(&self) -> bool {
        let now = self.clock.now();
        let age = now.since(self.at).max(self.age + self.since.elapsed());
        let skew = self.server_time.least_skew(now);
        let in_time = skew.is_some_and(|skew| skew <= MAX_SKEW);
        (age <= MAX_READING_AGE && in_time) || planted(Mutant::LatePutSent)
    }
}
