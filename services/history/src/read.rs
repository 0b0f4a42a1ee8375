//! Reading messages in order, strongly.

use duologue_proto::history::{HistoryError, ReadPage, ReadRequest, ReadStart};
use duologue_proto::ids::{ConversationId, Seq, UnixMillis};

use crate::error::unavailable;
use crate::history::{History, Shared};
use crate::store::{Consistency, SlotRange, StoreError, StoredMessage};

/// Messages in one answer at most, whatever is asked.
pub const MAX_READ_MESSAGES: usize = 1_024;
/// Bytes of envelopes in one answer at most, whatever is asked.
pub const MAX_READ_BYTES: usize = 1024 * 1024;

impl History {
    /// Reads messages in order, strongly. A page may end before the head, and
    /// then holds at least one message.
    pub async fn read(&self, request: ReadRequest) -> Result<ReadPage, HistoryError> {
        let start = request.start;
        let page = self.ask(|shared| async move { shared.page(&request).await });
        let page = page.await.map_err(unavailable)?;
        match start {
            ReadStart::After(position) if position > page.head => {
                Err(HistoryError::PositionAhead { head: page.head })
            }
            ReadStart::After(_) | ReadStart::AcceptedSince(_) => Ok(page),
        }
    }
}

impl Shared {
    /// Without messages if there are none, or if the start is above the head.
    async fn page(&self, request: &ReadRequest) -> Result<ReadPage, StoreError> {
        let conversation = ConversationId::of(&request.user, &request.peer);
        let Some(head) = self.store.head(&conversation).await? else {
            return Ok(ReadPage {
                after: Seq::ZERO,
                messages: Vec::new(),
                head: Seq::ZERO,
            });
        };
        let after = match request.start {
            ReadStart::After(position) => position,
            ReadStart::AcceptedSince(time) => self.last_before(&conversation, &head, time).await?,
        };
        let head_seq = head.envelope.seq;
        let messages = self.between(request, after, head).await?;
        Ok(ReadPage {
            after,
            messages: messages
                .into_iter()
                .map(|message| message.envelope)
                .collect(),
            head: head_seq,
        })
    }

    /// The messages after `after`, up to a head that was just read.
    async fn between(
        &self,
        request: &ReadRequest,
        after: Seq,
        head: StoredMessage,
    ) -> Result<Vec<StoredMessage>, StoreError> {
        if after >= head.envelope.seq {
            return Ok(Vec::new());
        }
        if after.next() == head.envelope.seq {
            return Ok(vec![head]);
        }
        self.some_slots(SlotRange {
            conversation: head.envelope.conversation(),
            first: after.next(),
            last: head.envelope.seq,
            backward: false,
            max_messages: request.max_messages.clamp(1, MAX_READ_MESSAGES),
            max_bytes: request.max_bytes.min(MAX_READ_BYTES),
            consistency: Consistency::Strong,
        })
        .await
    }

    /// Messages of a range that lies below the head, read strongly: at least
    /// one.
    pub(crate) async fn some_slots(
        &self,
        range: SlotRange,
    ) -> Result<Vec<StoredMessage>, StoreError> {
        let start = if range.backward {
            range.last
        } else {
            range.first
        };
        let messages = self.store.slots(range).await?;
        match messages.first() {
            Some(message) if message.envelope.seq == start => Ok(messages),
            _ => Err(missing(start)),
        }
    }

    /// The message of a slot that is known to be filled.
    pub(crate) async fn slot(
        &self,
        conversation: &ConversationId,
        seq: Seq,
    ) -> Result<StoredMessage, StoreError> {
        let found = self.slot_if_filled(conversation, seq).await?;
        found.ok_or_else(|| missing(seq))
    }

    /// The message of a slot, read strongly.
    pub(crate) async fn slot_if_filled(
        &self,
        conversation: &ConversationId,
        seq: Seq,
    ) -> Result<Option<StoredMessage>, StoreError> {
        let range = SlotRange {
            conversation: conversation.clone(),
            first: seq,
            last: seq,
            backward: false,
            max_messages: 1,
            max_bytes: MAX_READ_BYTES,
            consistency: Consistency::Strong,
        };
        let found = self.store.slots(range).await?;
        Ok(found
            .into_iter()
            .find(|message| message.envelope.seq == seq))
    }

    /// The last sequence accepted before `time`, by bisection: the accepted time
    /// never decreases. Looks near the head first, where syncs look.
    pub(crate) async fn last_before(
        &self,
        conversation: &ConversationId,
        head: &StoredMessage,
        time: UnixMillis,
    ) -> Result<Seq, StoreError> {
        if head.envelope.accepted_at < time {
            return Ok(head.envelope.seq);
        }
        // `low` is before `time`, `high` is not; slot 0 is before any time.
        let (mut low, mut high) = (0, head.envelope.seq.0);
        let mut step = 1;
        while high - low > 1 {
            let probe = if low == 0 && step < high {
                high - step
            } else {
                low.midpoint(high)
            };
            step = step.saturating_mul(2);
            let message = self.slot(conversation, Seq(probe)).await?;
            if message.envelope.accepted_at < time {
                low = probe;
            } else {
                high = probe;
            }
        }
        Ok(Seq(low))
    }
}

fn missing(seq: Seq) -> StoreError {
    StoreError::Corrupt(format!("slot {seq} below the head is missing"))
}
