//! Filling slots: one conditional put for each, one after another.
//!
//! A put is sent once, while its reading is young, and only after the rows that
//! announce it are durable. It must not move on while its outcome is not known.

use std::sync::Arc;
use std::time::Duration;

use duologue_dynamodb::sdk::operation::put_item::PutItemError;
use duologue_dynamodb::sdk::types::{ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure};
use duologue_dynamodb::{Failure, SendWhile, classify};
use duologue_proto::ids::UnixMillis;
use duologue_runtime::clock::Clock;
use duologue_runtime::faults::{Mutant, planted};
use tokio::time::Instant;

use super::schema::{MESSAGE, PARTITION, SORT, bytes, messages_of, slot};
use super::{DynamoStore, unavailable, values};
use crate::committer::rules::{MAX_READING_AGE, first_slot};
use crate::store::{PutOutcome, PutRun, PutStop, StoreError, StoredMessage};

impl DynamoStore {
    pub(super) async fn fill(&self, run: PutRun) -> PutOutcome {
        let mut stored = 0;
        let stopped = self.fill_slots(&run, &mut stored).await.err();
        PutOutcome { stored, stopped }
    }

    async fn fill_slots(&self, run: &PutRun, stored: &mut usize) -> Result<(), PutStop> {
        let refused = |rule| PutStop::Failed(StoreError::Refused(rule));
        first_slot(run).map_err(refused)?;
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
            .customize()
            .interceptor(SendWhile(move || reading.is_young()));
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
/// second while the machine sleeps.
#[derive(Clone)]
struct Reading {
    clock: Arc<dyn Clock>,
    at: UnixMillis,
    age: Duration,
    since: Instant,
}

impl Reading {
    fn of(store: &DynamoStore, at: UnixMillis) -> Self {
        let now = store.clock.now().max(store.reading());
        Self {
            clock: Arc::clone(&store.clock),
            at,
            age: now.since(at),
            since: Instant::now(),
        }
    }

    fn is_young(&self) -> bool {
        let by_clock = self.clock.now().since(self.at);
        let age = by_clock.max(self.age + self.since.elapsed());
        age <= MAX_READING_AGE || planted(Mutant::LatePutSent)
    }
}
