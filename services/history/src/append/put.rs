//! Putting the chosen drafts behind the head.
//!
//! A put whose outcome is unknown is tried again, identical to the byte, or the
//! same slot is read strongly. It must not move on while it is unknown.

use std::time::Duration;

use duologue_proto::history::Appended;
use duologue_proto::message::Envelope;
use duologue_runtime::faults::{Mutant, planted};

use super::batch::Batch;
use super::plan::Plan;
use super::tail::Tail;
use crate::store::{ActivityRows, PutRun, PutStop, StoreError, StoredMessage};
use crate::time::Reading;

/// How often a put without outcome is tried again.
pub const MAX_RETRIES: u32 = 4;
/// Before the first of these; doubled before each further one.
pub const FIRST_RETRY_DELAY: Duration = Duration::from_millis(20);

/// What became of the chosen entries.
pub(super) struct Put {
    /// So many, from the first on, are stored and answered.
    pub(super) stored: usize,
    /// Why the next one is not; none if all are.
    pub(super) stopped: Option<Stopped>,
}

/// Why a put ended early.
pub(super) enum Stopped {
    /// The slot holds this message, which is not ours.
    Blocked(Box<StoredMessage>),
    /// The reading became too old; nothing was sent.
    TooLate,
    /// It is not stored.
    Failed(StoreError),
    /// It may be stored, or become so.
    Unknown,
}

impl Batch<'_> {
    /// Puts the chosen entries into the slots behind the head. What is stored is
    /// answered.
    pub(super) async fn put(&mut self, plan: &Plan) -> Put {
        let reading = match self.shared.time.reading().await {
            Ok(reading) => reading,
            Err(error) => {
                return Put {
                    stored: 0,
                    stopped: Some(Stopped::Failed(error)),
                };
            }
        };
        let messages = self.seal(plan, reading);
        let mut attempt = Attempt {
            reading,
            messages: &messages,
            stored: 0,
            unknown: 0,
        };
        let stopped = loop {
            if attempt.rest().is_empty() {
                break None;
            }
            match self.try_put(plan, &mut attempt).await {
                None => {}
                Some(Stopped::Unknown) if attempt.may_retry() => attempt.pause().await,
                Some(stopped) => break Some(stopped),
            }
        };
        Put {
            stored: attempt.stored,
            stopped,
        }
    }

    /// One put. None: go on with the rest, if there is one.
    async fn try_put(&mut self, plan: &Plan, attempt: &mut Attempt<'_>) -> Option<Stopped> {
        let [next, ..] = attempt.rest() else {
            return None;
        };
        let window = attempt.reading.window();
        let run = PutRun {
            conversation: self.conversation.clone(),
            rows: ActivityRows {
                window,
                write: !self.shared.rows.contains(self.conversation, window)
                    && !planted(Mutant::PutBeforeRows),
                new_conversation: next.envelope.seq.0 == 1,
            },
            read_at: attempt.reading.at,
            messages: attempt.rest().to_vec(),
        };
        let outcome = self.shared.store.put_run(run).await;
        self.stored(plan, attempt, outcome.stored);
        // A put that stops must say why; one that does not has no outcome.
        let stop = match outcome.stopped {
            Some(stop) => stop,
            None if attempt.rest().is_empty() => return None,
            None => PutStop::Unknown,
        };
        match (stop, attempt.unknown > 0) {
            (PutStop::Unknown, _) => {
                attempt.unknown += 1;
                Some(Stopped::Unknown)
            }
            (PutStop::Occupied(by), false) => Some(Stopped::Blocked(by)),
            (PutStop::Occupied(by), true) => self.occupied(plan, attempt, by),
            (PutStop::TooLate, false) => Some(Stopped::TooLate),
            (PutStop::Failed(error), false) => Some(Stopped::Failed(error)),
            (PutStop::TooLate | PutStop::Failed(_), true) => self.look(plan, attempt).await,
        }
    }

    /// An earlier put of these bytes has no outcome: the slot may hold ours. (An
    /// equal message that another replica put in the same millisecond is taken
    /// for ours too; whichever of the two it was, it is stored once.)
    fn occupied(
        &mut self,
        plan: &Plan,
        attempt: &mut Attempt<'_>,
        by: Box<StoredMessage>,
    ) -> Option<Stopped> {
        let ours = attempt.rest().first() == Some(&*by);
        if !ours || planted(Mutant::OwnBlockTakenForLoss) {
            return Some(Stopped::Blocked(by));
        }
        self.stored(plan, attempt, 1);
        None
    }

    /// The put cannot be tried again: reads the same slot strongly. An empty one
    /// proves nothing, since the put may still be on its way.
    async fn look(&mut self, plan: &Plan, attempt: &mut Attempt<'_>) -> Option<Stopped> {
        let seq = attempt.rest().first()?.envelope.seq;
        let found = self.shared.slot_if_filled(self.conversation, seq).await;
        if let Ok(Some(by)) = found {
            return self.occupied(plan, attempt, Box::new(by));
        }
        attempt.unknown = MAX_RETRIES + 1;
        Some(Stopped::Unknown)
    }

    /// The next `count` messages are stored by this try, and their rows.
    fn stored(&mut self, plan: &Plan, attempt: &mut Attempt<'_>, count: usize) {
        if count == 0 {
            return;
        }
        if !planted(Mutant::PutBeforeRows) {
            let window = attempt.reading.window();
            self.shared.rows.remember(self.conversation, window);
            self.rows = Some(attempt.reading);
        }
        for message in attempt.rest().iter().take(count) {
            let index = plan.chosen[attempt.stored];
            if let Some(tail) = &mut self.tail {
                tail.push_known(message, self.entries[index].key);
            }
            let seq = message.envelope.seq;
            self.shared.rows.saw_message(self.conversation, seq);
            self.entries[index].answer = Some(Appended::Stored {
                envelope: message.envelope.clone(),
                duplicate: false,
            });
            self.answer_copies(plan, index);
            attempt.stored += 1;
        }
    }

    /// The accepted time is not before that of the message before.
    fn seal(&self, plan: &Plan, reading: Reading) -> Vec<StoredMessage> {
        let tail = self.tail.as_ref();
        let accepted_at = tail.map(Tail::accepted_at).max(Some(reading.at));
        let accepted_at = accepted_at.unwrap_or(reading.at);
        let mut seq = tail.map(Tail::head).unwrap_or_default();
        let mut sent = tail.map(Tail::sent).unwrap_or_default();
        let messages = plan.chosen.iter().map(|&index| {
            let entry = &self.entries[index];
            seq = seq.next();
            if let Some(side) = self.conversation.side_of(&entry.sender) {
                sent[side] += 1;
            }
            let envelope = Envelope::seal(
                seq,
                entry.draft.message_id.clone(),
                entry.sender.clone(),
                entry.recipient.clone(),
                accepted_at,
                &entry.draft.body,
            );
            StoredMessage { envelope, sent }
        });
        messages.collect()
    }
}

/// A put and what is known of it.
struct Attempt<'a> {
    reading: Reading,
    messages: &'a [StoredMessage],
    stored: usize,
    /// Puts of these bytes that had no outcome.
    unknown: u32,
}

impl<'a> Attempt<'a> {
    fn rest(&self) -> &'a [StoredMessage] {
        &self.messages[self.stored..]
    }

    fn may_retry(&self) -> bool {
        self.unknown <= MAX_RETRIES && !planted(Mutant::NextSlotAfterUnknown)
    }

    async fn pause(&self) {
        let doubled = 1 << self.unknown.min(MAX_RETRIES);
        tokio::time::sleep(FIRST_RETRY_DELAY * doubled / 2).await;
    }
}
