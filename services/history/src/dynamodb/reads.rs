//! Reading messages.

use duologue_dynamodb::classify;
use duologue_dynamodb::sdk::types::ReturnConsumedCapacity;
use duologue_proto::ids::{ConversationId, Seq};

use super::schema::{messages_of, slot};
use super::{DynamoStore, unavailable, values};
use crate::store::{Consistency, SlotRange, StoreError, StoredMessage};

/// Slots asked for at once. (DynamoDB ends a page at 1 MB in any case.)
pub const MAX_PAGE_SLOTS: usize = 256;

impl DynamoStore {
    pub(super) async fn last_message(
        &self,
        conversation: &ConversationId,
    ) -> Result<Option<StoredMessage>, StoreError> {
        let range = SlotRange {
            conversation: conversation.clone(),
            first: Seq(1),
            last: Seq(u64::MAX),
            backward: true,
            max_messages: 1,
            max_bytes: usize::MAX,
            consistency: Consistency::Strong,
        };
        Ok(self.messages(range).await?.pop())
    }

    /// Page by page, until the range or its maxima are reached.
    pub(super) async fn messages(
        &self,
        range: SlotRange,
    ) -> Result<Vec<StoredMessage>, StoreError> {
        let mut taking = Taking::of(&range);
        while let Some((first, last)) = taking.rest() {
            let page = self.page(&range, first, last, taking.room()).await?;
            if !taking.take(page)? {
                break;
            }
        }
        Ok(taking.taken)
    }

    /// The slots that one query finds, from the end that the range starts at, and
    /// whether there may be more.
    async fn page(
        &self,
        range: &SlotRange,
        first: Seq,
        last: Seq,
        max: usize,
    ) -> Result<(Vec<StoredMessage>, bool), StoreError> {
        let query = self.database.repeating().query();
        let query = query
            .table_name(&self.messages)
            .key_condition_expression("p = :p AND s BETWEEN :f AND :l")
            .expression_attribute_values(":p", messages_of(&range.conversation))
            .expression_attribute_values(":f", slot(first))
            .expression_attribute_values(":l", slot(last))
            .scan_index_forward(!range.backward)
            .limit(i32::try_from(max.min(MAX_PAGE_SLOTS)).unwrap_or(i32::MAX))
            .consistent_read(range.consistency == Consistency::Strong)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let found = query
            .send()
            .await
            .map_err(|error| unavailable(classify(&error)))?;
        let more = found.last_evaluated_key().is_some();
        let messages = found.items().iter();
        let messages = messages.map(|item| values::message(&range.conversation, item));
        Ok((messages.collect::<Result<_, _>>()?, more))
    }
}

/// What was taken of a range so far.
struct Taking<'a> {
    range: &'a SlotRange,
    taken: Vec<StoredMessage>,
    bytes: usize,
}

impl<'a> Taking<'a> {
    fn of(range: &'a SlotRange) -> Self {
        Self {
            range,
            taken: Vec::new(),
            bytes: 0,
        }
    }

    fn room(&self) -> usize {
        self.range.max_messages.saturating_sub(self.taken.len())
    }

    /// The slots that are still wanted.
    fn rest(&self) -> Option<(Seq, Seq)> {
        let (mut first, mut last) = (self.range.first.max(Seq(1)), self.range.last);
        if let Some(end) = self.taken.last() {
            let end = end.envelope.seq;
            if self.range.backward {
                last = Seq(end.0.saturating_sub(1));
            } else {
                first = end.next();
            }
        }
        (first <= last && self.room() > 0).then_some((first, last))
    }

    /// Takes what fits; false if nothing more is to be asked for. Only an unbroken run
    /// counts. A read that may lag can miss any slot; a strong one in ascending order
    /// can miss one that was filled while it read, and find the next one.
    fn take(&mut self, (page, more): (Vec<StoredMessage>, bool)) -> Result<bool, StoreError> {
        for message in page {
            let seq = message.envelope.seq;
            if !self.follows(seq) {
                if self.range.backward && self.range.consistency == Consistency::Strong {
                    let text = format!("a slot above {seq} is missing");
                    return Err(StoreError::Corrupt(text));
                }
                return Ok(false);
            }
            self.bytes = self.bytes.saturating_add(message.envelope.wire().len());
            if self.bytes > self.range.max_bytes && !self.taken.is_empty() {
                return Ok(false);
            }
            self.taken.push(message);
        }
        Ok(more)
    }

    fn follows(&self, seq: Seq) -> bool {
        let range = self.range;
        match self.taken.last() {
            Some(last) if range.backward => seq.next() == last.envelope.seq,
            Some(last) => seq == last.envelope.seq.next(),
            None if !range.backward => seq == range.first.max(Seq(1)),
            // Backward, a strong read begins at the head, if that is below the range.
            None => range.consistency == Consistency::Strong || seq == range.last,
        }
    }
}
