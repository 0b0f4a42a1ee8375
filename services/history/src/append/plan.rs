//! Searching for earlier copies, and choosing what to put.
//!
//! It must not choose a draft before every slot from its `after_seq` up to the
//! head that the put goes behind was seen.

use std::collections::{BTreeMap, BTreeSet};

use duologue_proto::history::{Appended, Intent, UnsettledReason};
use duologue_proto::ids::Seq;
use duologue_proto::limits::MAX_SEARCH;
use duologue_proto::message::Envelope;
use duologue_runtime::faults::{Mutant, planted};

use super::batch::{Batch, Entry};
use super::tail::Tail;
use super::unsettled;
use crate::store::{Consistency, SlotRange, StoreError};

/// Messages of one put at most.
pub const MAX_PUT: usize = 256;
/// Slots of one read.
pub const READ_SLOTS: usize = 256;
/// Bytes of envelopes of one read.
pub const READ_BYTES: usize = 1024 * 1024;

/// What to put behind the head.
#[derive(Default)]
pub(super) struct Plan {
    /// Entries, in the order of the slots that they shall fill.
    pub(super) chosen: Vec<usize>,
    /// Entries with the id of a chosen one: found as soon as that is stored.
    pub(super) copies: BTreeMap<usize, Vec<usize>>,
    /// Callers whose later drafts are only searched for.
    held: BTreeSet<usize>,
}

impl Plan {
    /// What is left to put when the first `stored` of it are stored.
    pub(super) fn without_first(mut self, stored: usize) -> Self {
        self.chosen.drain(..stored.min(self.chosen.len()));
        self
    }
}

/// What a search of (`after_seq`, head] finds.
enum Search {
    Found(Envelope),
    Absent,
    TooOld,
    Ahead,
}

impl Batch<'_> {
    /// Answers what the search decides, and chooses what to put.
    pub(super) async fn plan(&mut self) -> Result<Plan, StoreError> {
        loop {
            let plan = self.plan_at_head().await?;
            if let Some(plan) = plan {
                return Ok(plan);
            }
            self.refresh().await?;
        }
    }

    /// None if an answer needs a strong read of the head first.
    async fn plan_at_head(&mut self) -> Result<Option<Plan>, StoreError> {
        let mut plan = Plan::default();
        for index in 0..self.entries.len() {
            let entry = &self.entries[index];
            let request = entry.request;
            if entry.answer.is_some() {
                if entry.holds_back() {
                    plan.held.insert(request);
                }
                continue;
            }
            if plan.chosen.len() == MAX_PUT {
                break;
            }
            if let Some(first) = self.chosen_before(&plan, entry) {
                plan.copies.entry(first).or_default().push(index);
                continue;
            }
            let may_store = entry.draft.intent == Intent::Store && !plan.held.contains(&request);
            match self.search(index).await? {
                Search::Absent if may_store => {
                    plan.chosen.push(index);
                    continue;
                }
                Search::Absent | Search::Ahead if !self.fresh => return Ok(None),
                Search::Absent => self.leave(index, UnsettledReason::NotFound),
                Search::Ahead => self.leave(index, UnsettledReason::AfterSeqAhead),
                Search::TooOld => self.leave(index, UnsettledReason::AfterSeqTooOld),
                Search::Found(stored) => {
                    let entry = &mut self.entries[index];
                    entry.answer = Some(entry.found(&stored));
                }
            }
            if self.entries[index].holds_back() {
                plan.held.insert(request);
            }
        }
        Ok(Some(plan))
    }

    /// The chosen entry with the same sender and id. Of so few, comparing a number
    /// with each is the quickest.
    fn chosen_before(&self, plan: &Plan, entry: &Entry) -> Option<usize> {
        let same = |index: &&usize| {
            let chosen = &self.entries[**index];
            chosen.key == entry.key
                && chosen.draft.message_id == entry.draft.message_id
                && chosen.sender == entry.sender
        };
        plan.chosen.iter().find(same).copied()
    }

    /// The newest 256 slots are searched in any case. That the slot `after_seq`
    /// exists follows from the head, since there are no gaps.
    async fn search(&mut self, index: usize) -> Result<Search, StoreError> {
        let head = self.loaded().await?.head();
        let after = self.entries[index].draft.after_seq;
        if after.is_some_and(|after| after > head) && !planted(Mutant::AfterSeqNotChecked) {
            return Ok(Search::Ahead);
        }
        let floor = Seq(head.0.saturating_sub(MAX_SEARCH));
        let start = after.map_or(floor, |after| after.max(floor));
        self.cover(start).await?;
        Ok(match self.find(index, start).await? {
            Some(stored) => Search::Found(stored),
            None if after.is_some_and(|after| after < floor) => Search::TooOld,
            None => Search::Absent,
        })
    }

    /// The message above `after`, if it is stored.
    async fn find(&self, index: usize, after: Seq) -> Result<Option<Envelope>, StoreError> {
        let entry = &self.entries[index];
        let tail = self.tail.iter();
        for seq in tail.flat_map(|tail| tail.candidates(after, entry.key)) {
            let stored = self.shared.slot(self.conversation, seq).await?;
            if entry.is(&stored.envelope) {
                return Ok(Some(stored.envelope));
            }
        }
        Ok(None)
    }

    fn leave(&mut self, index: usize, reason: UnsettledReason) {
        let head = self.tail.as_ref().map(Tail::head);
        self.entries[index].answer = Some(unsettled(reason, head));
    }

    /// What the chosen entry's copies are told once it is stored.
    pub(super) fn answer_copies(&mut self, plan: &Plan, index: usize) {
        let Some(Appended::Stored { envelope, .. }) = &self.entries[index].answer else {
            return;
        };
        let envelope = envelope.clone();
        for &copy in plan.copies.get(&index).into_iter().flatten() {
            let entry = &mut self.entries[copy];
            entry.answer = Some(entry.found(&envelope));
        }
    }

    async fn loaded(&mut self) -> Result<&Tail, StoreError> {
        if self.tail.is_none() {
            self.refresh().await?;
        }
        Ok(self.tail.get_or_insert_default())
    }

    /// Reads the head strongly. What was seen below it is kept if the run stays
    /// unbroken.
    pub(super) async fn refresh(&mut self) -> Result<(), StoreError> {
        let head = self.shared.store.head(self.conversation).await?;
        self.fresh = true;
        let seq = head.as_ref().map_or(Seq::ZERO, |head| head.envelope.seq);
        match (&mut self.tail, &head) {
            (Some(tail), _) if tail.head() == seq => {}
            (Some(tail), Some(head)) if tail.head().next() == seq => {
                tail.push(head, &self.shared.keys);
            }
            (tail, head) => *tail = Some(Tail::at(head.as_ref(), &self.shared.keys)),
        }
        Ok(())
    }

    /// Sees every slot above `after` up to the head. What an eventual read finds
    /// is true; what it misses is read strongly.
    async fn cover(&mut self, after: Seq) -> Result<(), StoreError> {
        let Some(tail) = &mut self.tail else {
            return Ok(());
        };
        let mut consistency = Consistency::Eventual;
        while tail.seen_after() > after {
            let last = tail.seen_after();
            let range = SlotRange {
                conversation: self.conversation.clone(),
                first: after.next(),
                last,
                backward: true,
                max_messages: READ_SLOTS,
                max_bytes: READ_BYTES,
                consistency,
            };
            for message in self.shared.store.slots(range).await? {
                tail.extend_down(&message, &self.shared.keys);
            }
            match (tail.seen_after() == last, consistency) {
                (false, _) => {}
                (true, Consistency::Eventual) if planted(Mutant::StaleMissingIsFinal) => break,
                (true, Consistency::Eventual) => consistency = Consistency::Strong,
                (true, Consistency::Strong) => {
                    let text = format!("slot {last} below the head is missing");
                    return Err(StoreError::Corrupt(text));
                }
            }
        }
        Ok(())
    }
}
