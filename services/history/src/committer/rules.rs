//! The rules that a commit applies, the same for every engine with one writer:
//! which slots of a group are filled, and what else is written with them.
//!
//! Nothing here writes. [`plan`] looks at what is stored, and at what the same
//! group did before, and says what to change in one step and what to answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use duologue_proto::ids::{ConversationId, Seq, UnixMillis, UserId};
use duologue_proto::message::Cursor;
use duologue_runtime::faults::{Mutant, planted};

use super::{Operation, Outcome};
use crate::store::{Activity, PutOutcome, PutRun, PutStop, StoreError, StoredMessage, Window};

/// A put is not applied later than this after the reading that its rows come from.
pub const MAX_READING_AGE: Duration = Duration::from_secs(10);

/// What the writer itself reads: everything that earlier groups stored.
pub trait Stored {
    /// The message in a slot.
    fn message(
        &self,
        conversation: &ConversationId,
        seq: Seq,
    ) -> Result<Option<StoredMessage>, StoreError>;

    /// A user's cursor; zeros if there is none.
    fn cursor(&self, conversation: &ConversationId, user: &UserId) -> Result<Cursor, StoreError>;

    /// The highest reading.
    fn reading(&self) -> UnixMillis;

    /// The head of a conversation where it is known without a look at the messages:
    /// its slots are filled up to it, and none behind it.
    fn known_head(&self, _conversation: &ConversationId) -> Option<Seq> {
        None
    }
}

/// What a group changes: to be made durable in one step, all or nothing.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Messages; their slots are absent in the store.
    pub messages: BTreeMap<(ConversationId, Seq), StoredMessage>,
    /// The heads that follow from these.
    pub heads: BTreeMap<ConversationId, Seq>,
    /// Activity rows of users.
    pub activity: BTreeSet<(UserId, Activity)>,
    /// Conversation rows: (user, peer).
    pub conversations: BTreeSet<(UserId, UserId)>,
    /// Cursors, each at least what is stored.
    pub cursors: BTreeMap<(ConversationId, UserId), Cursor>,
    /// The highest reading, if it rises.
    pub reading: Option<UnixMillis>,
}

impl Changes {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.activity.is_empty()
            && self.conversations.is_empty()
            && self.cursors.is_empty()
            && self.reading.is_none()
    }
}

/// Plans a group in its order: what to change, and one outcome per operation that
/// holds once the changes are durable.
pub fn plan(
    stored: &impl Stored,
    group: Vec<Operation>,
    clock: UnixMillis,
) -> (Changes, Vec<Outcome>) {
    let mut plan = Plan {
        stored,
        // History's time, so that a clock that stepped back hides no delay.
        now: clock.max(stored.reading()),
        changes: Changes::default(),
    };
    let outcomes = group
        .into_iter()
        .map(|operation| plan.apply(operation))
        .collect();
    (plan.changes, outcomes)
}

struct Plan<'a, S> {
    stored: &'a S,
    now: UnixMillis,
    changes: Changes,
}

impl<S: Stored> Plan<'_, S> {
    fn apply(&mut self, operation: Operation) -> Outcome {
        match operation {
            Operation::PutRun(run) => Outcome::Run(self.put_run(run)),
            Operation::PutActivity {
                conversation,
                window,
            } => {
                self.mark_active(&conversation, window);
                Outcome::Done(Ok(()))
            }
            Operation::PutCursor {
                conversation,
                user,
                cursor,
                window,
            } => Outcome::Cursor(self.put_cursor(&conversation, &user, cursor, window)),
            Operation::StoreReading(reading) => {
                self.raise_reading(reading);
                Outcome::Done(Ok(()))
            }
        }
    }

    /// The rows come first: they are written even if no slot is filled, so that
    /// whatever holds the slots is found from them.
    fn put_run(&mut self, run: PutRun) -> PutOutcome {
        if let Some(refusal) = refusal(&run) {
            return stopped(0, PutStop::Failed(StoreError::Refused(refusal)));
        }
        let too_late = self.now.since(run.read_at) > MAX_READING_AGE;
        if too_late && !planted(Mutant::LatePutSent) {
            return stopped(0, PutStop::TooLate);
        }
        if run.rows.write {
            self.mark_active(&run.conversation, run.rows.window);
        }
        if run.rows.new_conversation {
            for (user, peer) in sides(&run.conversation) {
                self.changes.conversations.insert((user, peer));
            }
        }
        self.raise_reading(run.read_at);
        let known = self.changes.heads.get(&run.conversation).copied();
        let mut head = known.or_else(|| self.stored.known_head(&run.conversation));
        let (mut stored, mut stop) = (0, None);
        for message in run.messages {
            let seq = message.envelope.seq;
            // Behind a known head there is nothing to look at.
            if head.map(Seq::next) != Some(seq)
                && let Err(why) = self.look_at_slot(&run.conversation, seq)
            {
                stop = Some(why);
                break;
            }
            self.fill_slot(&run.conversation, message);
            head = Some(seq);
            stored += 1;
        }
        if let (Some(head), true) = (head, stored > 0) {
            self.changes.heads.insert(run.conversation, head);
        }
        PutOutcome {
            stored,
            stopped: stop,
        }
    }

    /// Whether the slot can be filled: it is absent, and the one before is not.
    fn look_at_slot(&self, conversation: &ConversationId, seq: Seq) -> Result<(), PutStop> {
        if let Some(holder) = self.message(conversation, seq).map_err(PutStop::Failed)? {
            if planted(Mutant::PutWithoutCondition) {
                return Ok(());
            }
            return Err(PutStop::Occupied(Box::new(holder)));
        }
        let before = Seq(seq.0.saturating_sub(1));
        if before != Seq::ZERO
            && self
                .message(conversation, before)
                .map_err(PutStop::Failed)?
                .is_none()
        {
            return Err(PutStop::Failed(StoreError::Refused(
                "the slot before is absent",
            )));
        }
        Ok(())
    }

    fn fill_slot(&mut self, conversation: &ConversationId, message: StoredMessage) {
        self.raise_reading(message.envelope.accepted_at);
        let slot = (conversation.clone(), message.envelope.seq);
        self.changes.messages.insert(slot, message);
    }

    fn put_cursor(
        &mut self,
        conversation: &ConversationId,
        user: &UserId,
        cursor: Cursor,
        window: Window,
    ) -> Result<Cursor, StoreError> {
        if conversation.side_of(user).is_none() {
            return Err(StoreError::Refused("the user is not of the conversation"));
        }
        let key = (conversation.clone(), user.clone());
        let held = match self.changes.cursors.get(&key) {
            Some(cursor) => *cursor,
            None => self.stored.cursor(conversation, user)?,
        };
        let cursor = if planted(Mutant::CursorLowered) {
            cursor
        } else {
            held.max(cursor)
        };
        self.mark_active(conversation, window);
        if cursor != held {
            self.changes.cursors.insert(key, cursor);
        }
        Ok(cursor)
    }

    fn mark_active(&mut self, conversation: &ConversationId, window: Window) {
        for (user, peer) in sides(conversation) {
            self.changes
                .activity
                .insert((user, Activity { window, peer }));
        }
        self.raise_reading(window.start());
    }

    fn raise_reading(&mut self, reading: UnixMillis) {
        let held = self.changes.reading.unwrap_or(self.stored.reading());
        if reading > held {
            self.changes.reading = Some(reading);
        }
    }

    fn message(
        &self,
        conversation: &ConversationId,
        seq: Seq,
    ) -> Result<Option<StoredMessage>, StoreError> {
        match self.changes.messages.get(&(conversation.clone(), seq)) {
            Some(message) => Ok(Some(message.clone())),
            None => self.stored.message(conversation, seq),
        }
    }
}

/// Each user of a conversation with the other one; once in a conversation with
/// oneself.
fn sides(conversation: &ConversationId) -> impl Iterator<Item = (UserId, UserId)> {
    let (low, high) = (conversation.low(), conversation.high());
    let second = (!conversation.is_with_oneself()).then(|| (high.clone(), low.clone()));
    std::iter::once((low.clone(), high.clone())).chain(second)
}

/// Why a run is not one; none if it is.
fn refusal(run: &PutRun) -> Option<&'static str> {
    let Some(first) = run.messages.first() else {
        return Some("the run is empty");
    };
    if first.envelope.seq == Seq::ZERO {
        return Some("the first slot is 1");
    }
    let mut expected = first.envelope.seq;
    for message in &run.messages {
        if message.envelope.seq != expected {
            return Some("the slots of the run are not consecutive");
        }
        if message.envelope.conversation() != run.conversation {
            return Some("a message is of another conversation");
        }
        expected = expected.next();
    }
    None
}

fn stopped(stored: usize, stop: PutStop) -> PutOutcome {
    PutOutcome {
        stored,
        stopped: Some(stop),
    }
}
