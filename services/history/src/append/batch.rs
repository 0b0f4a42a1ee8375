//! The append rule, applied to what queued for one conversation.
//!
//! The invariant: **slot s is tried only after every slot in (`after_seq`, s − 1]
//! was seen and none holds the message; a filled slot never changes.** Then at
//! most one copy of a message exists, with any number of writers.
//!
//! A batch goes round: plan (search, and choose what to put), put, and again
//! until every draft has its answer. Nothing is answered as stored before the
//! put has succeeded and the activity rows of the present are durable, on the
//! duplicate path too.

use std::collections::BTreeSet;

use duologue_proto::history::{Appended, Draft, Intent, OnAppended, UnsettledReason};
use duologue_proto::ids::{ConversationId, UserId};
use duologue_proto::message::Envelope;
use duologue_runtime::faults::{Mutant, planted};
use tokio::sync::OwnedSemaphorePermit;

use super::plan::Plan;
use super::put::Stopped;
use super::tail::{Key, Keys, Tail};
use super::{Request, unsettled};
use crate::history::Shared;
use crate::store::{StoreError, StoredMessage, Window};
use crate::time::Reading;

/// Blocked puts in a row, after which the drafts are contended.
pub const MAX_BLOCKED: usize = 8;
/// Puts in a row that came too late, after which the drafts are unavailable.
pub const MAX_LATE: usize = 3;

/// Appends what is asked, and answers. Returns what is known of the tail; none
/// if it must be read again.
pub(super) async fn append(
    shared: &Shared,
    conversation: &ConversationId,
    tail: Option<Tail>,
    requests: Vec<Request>,
) -> Option<Tail> {
    let (callers, entries) = take_apart(requests, &shared.keys);
    let mut batch = Batch {
        shared,
        conversation,
        tail,
        entries,
        fresh: false,
        rows: None,
    };
    if let Err(error) = batch.settle().await {
        batch.give_up(&error);
    }
    if let Err(error) = batch.mark().await {
        batch.take_back(&error);
    }
    batch.answer(callers);
    batch.tail
}

/// The drafts of several callers, in the order in which they came, on their way
/// to their answers.
pub(super) struct Batch<'a> {
    pub(super) shared: &'a Shared,
    pub(super) conversation: &'a ConversationId,
    /// None: not read yet.
    pub(super) tail: Option<Tail>,
    pub(super) entries: Vec<Entry>,
    /// Whether the head was read strongly during this batch.
    pub(super) fresh: bool,
    /// The last reading whose rows are durable.
    pub(super) rows: Option<Reading>,
}

/// One draft.
pub(super) struct Entry {
    /// Which caller's.
    pub(super) request: usize,
    pub(super) sender: UserId,
    pub(super) recipient: UserId,
    pub(super) draft: Draft,
    /// Of sender and id.
    pub(super) key: Key,
    pub(super) answer: Option<Appended>,
}

impl Entry {
    /// Whether a stored message has the draft's sender and id.
    pub(super) fn is(&self, stored: &Envelope) -> bool {
        stored.message_id == self.draft.message_id && stored.sender == self.sender
    }

    /// The answer to a draft whose id was found stored.
    pub(super) fn found(&self, stored: &Envelope) -> Appended {
        if stored.body() == self.draft.body {
            Appended::Stored {
                envelope: stored.clone(),
                duplicate: true,
            }
        } else {
            Appended::MessageIdReused
        }
    }

    /// Whether later drafts of its run are only searched for.
    pub(super) fn holds_back(&self) -> bool {
        self.draft.intent == Intent::Store && matches!(self.answer, Some(Appended::Unsettled(_)))
    }
}

impl Batch<'_> {
    /// Decides every entry, unless the store fails a read or leaves the outcome
    /// of a put unknown.
    async fn settle(&mut self) -> Result<(), StoreError> {
        let (mut blocked, mut late) = (0, 0);
        let mut unsearched = None;
        loop {
            let plan = match unsearched.take() {
                Some(plan) => plan,
                None => self.plan().await?,
            };
            if plan.chosen.is_empty() {
                return Ok(());
            }
            if blocked == MAX_BLOCKED {
                self.refuse(&plan, UnsettledReason::Contended);
                continue;
            }
            let put = self.put(&plan).await;
            if put.stored > 0 {
                (blocked, late) = (0, 0);
            }
            match put.stopped {
                None => {}
                Some(Stopped::Blocked(by)) => {
                    blocked += 1;
                    self.learn(&by).await?;
                    let next = plan.without_first(put.stored);
                    unsearched = self.goes_on_unsearched(&next, &by).then_some(next);
                }
                Some(Stopped::TooLate) if late < MAX_LATE => late += 1,
                Some(Stopped::TooLate) => self.refuse(&plan, UnsettledReason::Unavailable),
                Some(Stopped::Failed(error)) => {
                    self.log(&error);
                    self.refuse(&plan, UnsettledReason::Unavailable);
                }
                Some(Stopped::Unknown) if planted(Mutant::NextSlotAfterUnknown) => {
                    self.refresh().await?;
                    unsearched = Some(plan.without_first(put.stored));
                }
                Some(Stopped::Unknown) => {
                    return Err(StoreError::Unavailable("a put has no outcome".into()));
                }
            }
        }
    }

    /// Whether a planted fault leaves out the search that must follow a block.
    fn goes_on_unsearched(&self, next: &Plan, by: &StoredMessage) -> bool {
        let blocked = next.chosen.first().map(|&index| &self.entries[index]);
        let by_itself = blocked.is_some_and(|entry| {
            (&entry.sender, &entry.draft.message_id)
                == (&by.envelope.sender, &by.envelope.message_id)
        });
        planted(Mutant::OwnBlockTakenForLoss) && by_itself
            || planted(Mutant::NoSearchAfterBlock) && !by_itself
    }

    /// Remembers the message that blocked a put, and what follows it.
    async fn learn(&mut self, by: &StoredMessage) -> Result<(), StoreError> {
        if let Some(tail) = &mut self.tail {
            tail.push(by, &self.shared.keys);
        }
        self.refresh().await
    }

    /// Leaves the first chosen draft of each caller unsettled. Those behind it
    /// are then only searched for, by the next plan.
    fn refuse(&mut self, plan: &Plan, reason: UnsettledReason) {
        let head = self.tail.as_ref().map(Tail::head);
        let mut refused = BTreeSet::new();
        for &index in &plan.chosen {
            let entry = &mut self.entries[index];
            if entry.answer.is_none() && refused.insert(entry.request) {
                entry.answer = Some(unsettled(reason, head));
            }
        }
    }

    /// Makes the rows of the present durable, if anything is stored.
    async fn mark(&self) -> Result<(), StoreError> {
        let is_stored = |entry: &Entry| matches!(entry.answer, Some(Appended::Stored { .. }));
        if !self.entries.iter().any(is_stored) {
            return Ok(());
        }
        if planted(Mutant::RetryMarksStoredWindow)
            && let Some(stored) = self.a_duplicate()
        {
            let window = Window::of(stored.accepted_at);
            let store = &self.shared.store;
            return store.put_activity(self.conversation, window).await;
        }
        let durable = self.rows;
        self.shared.mark_active(self.conversation, durable).await
    }

    fn a_duplicate(&self) -> Option<&Envelope> {
        self.entries.iter().find_map(|entry| match &entry.answer {
            Some(Appended::Stored {
                envelope,
                duplicate: true,
            }) => Some(envelope),
            _ => None,
        })
    }

    /// What is not decided is not settled. The tail is read again by the next
    /// batch.
    fn give_up(&mut self, error: &StoreError) {
        self.log(error);
        self.tail = None;
        for entry in &mut self.entries {
            let unavailable = || unsettled(UnsettledReason::Unavailable, None);
            entry.answer.get_or_insert_with(unavailable);
        }
    }

    /// What is stored but not marked must not be answered as stored.
    fn take_back(&mut self, error: &StoreError) {
        self.log(error);
        for entry in &mut self.entries {
            if matches!(entry.answer, Some(Appended::Stored { .. })) {
                entry.answer = Some(unsettled(UnsettledReason::Unavailable, None));
            }
        }
    }

    fn log(&self, error: &StoreError) {
        let conversation = self.conversation;
        tracing::warn!(conversation.id = %conversation, error = %error, "messages are not settled");
    }

    fn answer(&mut self, callers: Vec<Caller>) {
        let mut entries = self.entries.drain(..).peekable();
        for (request, caller) in callers.into_iter().enumerate() {
            let mut appended = Vec::new();
            while let Some(entry) = entries.next_if(|entry| entry.request == request) {
                let unanswered = || unsettled(UnsettledReason::Unavailable, None);
                appended.push(entry.answer.unwrap_or_else(unanswered));
            }
            caller.answered.call(appended);
        }
    }
}

/// Who is to be answered, with the room that the run holds until then.
struct Caller {
    answered: OnAppended,
    _room: OwnedSemaphorePermit,
}

fn take_apart(requests: Vec<Request>, keys: &Keys) -> (Vec<Caller>, Vec<Entry>) {
    let mut callers = Vec::with_capacity(requests.len());
    let mut entries = Vec::new();
    for (index, request) in requests.into_iter().enumerate() {
        callers.push(Caller {
            answered: request.answered,
            _room: request.room,
        });
        let run = request.run;
        entries.extend(run.drafts.into_iter().map(|draft| Entry {
            request: index,
            key: keys.of(&run.sender, &draft.message_id),
            sender: run.sender.clone(),
            recipient: run.peer.clone(),
            draft,
            answer: None,
        }));
    }
    (callers, entries)
}
