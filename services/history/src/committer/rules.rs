//! The rules that a commit applies, the same for every engine with one writer:
//! which slots of a group are filled, and what else is written with them.
//!
//! Nothing here writes. [`plan`] looks at what is stored, and at what the same
//! group did before, and says what to change in one step and what to answer.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
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

    /// The head of a conversation: its slots are filled up to it, and none behind
    /// it.
    fn head(&self, conversation: &ConversationId) -> Result<Seq, StoreError>;
}

/// What a group changes: to be made durable in one step, all or nothing.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Of each conversation the messages that fill the slots behind its head, in
    /// order; never none.
    pub runs: BTreeMap<ConversationId, Vec<StoredMessage>>,
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
        self.runs.is_empty()
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
        let first = match first_slot(&run) {
            Ok(first) => first,
            Err(refusal) => return stopped(0, PutStop::Failed(StoreError::Refused(refusal))),
        };
        let too_late = self.now.since(run.read_at) > MAX_READING_AGE;
        if too_late && !planted(Mutant::LatePutSent) {
            return stopped(0, PutStop::TooLate);
        }
        if run.rows.write {
            self.mark_active(&run.conversation, run.rows.window);
        }
        if run.rows.new_conversation {
            for (user, peer) in run.conversation.sides() {
                self.changes.conversations.insert((user, peer));
            }
        }
        self.raise_reading(run.read_at);
        if let Err(stop) = self.look_at_slot(&run.conversation, first) {
            return stopped(0, stop);
        }
        // The slots are consecutive, and behind the head all are absent.
        let stored = run.messages.len();
        self.fill_slots(run.conversation, run.messages);
        PutOutcome {
            stored,
            stopped: None,
        }
    }

    /// Whether the slot can be filled: it is the one behind the head.
    fn look_at_slot(&self, conversation: &ConversationId, seq: Seq) -> Result<(), PutStop> {
        let head = self.head(conversation).map_err(PutStop::Failed)?;
        if seq == head.next() || planted(Mutant::PutWithoutCondition) {
            return Ok(());
        }
        let refused = StoreError::Refused("the slot before is absent");
        if seq > head {
            return Err(PutStop::Failed(refused));
        }
        let missing = || StoreError::Corrupt(format!("slot {seq} below the head is missing"));
        let holder = self.message(conversation, seq).map_err(PutStop::Failed)?;
        let holder = holder.ok_or_else(|| PutStop::Failed(missing()))?;
        Err(PutStop::Occupied(Box::new(holder)))
    }

    fn fill_slots(&mut self, conversation: ConversationId, messages: Vec<StoredMessage>) {
        let accepted = messages.iter().map(|message| message.envelope.accepted_at);
        if let Some(latest) = accepted.max() {
            self.raise_reading(latest);
        }
        match self.changes.runs.entry(conversation) {
            Entry::Vacant(entry) => _ = entry.insert(messages),
            Entry::Occupied(entry) => entry.into_mut().extend(messages),
        }
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
        for (user, peer) in conversation.sides() {
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

    fn head(&self, conversation: &ConversationId) -> Result<Seq, StoreError> {
        let planned = self.changes.runs.get(conversation);
        match planned.and_then(|run| run.last()) {
            Some(last) => Ok(last.envelope.seq),
            None => self.stored.head(conversation),
        }
    }

    fn message(
        &self,
        conversation: &ConversationId,
        seq: Seq,
    ) -> Result<Option<StoredMessage>, StoreError> {
        let planned = self.changes.runs.get(conversation).into_iter().flatten();
        let mut planned = planned.filter(|message| message.envelope.seq == seq);
        match planned.next() {
            Some(message) => Ok(Some(message.clone())),
            None => self.stored.message(conversation, seq),
        }
    }
}

/// The first slot of a run; or why it is none.
pub(crate) fn first_slot(run: &PutRun) -> Result<Seq, &'static str> {
    let first = run.messages.first().ok_or("the run is empty")?;
    let first = first.envelope.seq;
    if first == Seq::ZERO {
        return Err("the first slot is 1");
    }
    let mut expected = first;
    for message in &run.messages {
        if message.envelope.seq != expected {
            return Err("the slots of the run are not consecutive");
        }
        if !message.is_of(&run.conversation) {
            return Err("a message is of another conversation");
        }
        expected = expected.next();
    }
    Ok(first)
}

fn stopped(stored: usize, stop: PutStop) -> PutOutcome {
    PutOutcome {
        stored,
        stopped: Some(stop),
    }
}
