//! The order of what a device sends (design §5, "order within a session").
//!
//! Sends to one conversation are appended one run after another. The ids that
//! were deferred are kept in order; while there are any, only the first of them
//! is accepted, and anything else is searched for, deferred and appended to the
//! list. A run may take several in the order of the list, since of a run always a
//! prefix is stored.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use duologue_proto::history::{Appended, Draft, Intent, Run, Unsettled, UnsettledReason};
use duologue_proto::ids::{MessageId, UserId};
use duologue_proto::limits::{MAX_DEFERRED, MAX_SENDS_IN_FLIGHT};
use duologue_runtime::faults::{Mutant, planted};
use duologue_runtime::refusal::{Reason, Refusal};

use super::{Effect, Now, Session};
use crate::frame::{DeferredReason, Down, GoodbyeReason, Ref, RejectedReason, Rejection, Send};

/// A message behind a deferred one is not sent again before this, since it would
/// only be deferred again.
pub const BEHIND_PAUSE: Duration = Duration::from_millis(100);

/// Everything that the device sends and that is not settled.
#[derive(Debug, Default)]
pub(super) struct Sends {
    lanes: BTreeMap<UserId, Lane>,
    /// Sends without an answer, in all lanes.
    unanswered: usize,
    /// Ids on the lists of all lanes.
    deferred: usize,
}

/// The sends to one conversation.
#[derive(Debug, Default)]
struct Lane {
    queue: VecDeque<(Ref, Send)>,
    in_flight: Vec<InFlight>,
    /// Deferred ids, the oldest first.
    deferred: VecDeque<MessageId>,
}

/// A send whose run is being stored.
#[derive(Debug)]
struct InFlight {
    reference: Ref,
    message_id: MessageId,
    /// What to say if it is not found: none for one that was to be stored.
    held: Option<Held>,
    /// It was given up meanwhile: it must not hold up others.
    abandoned: bool,
}

/// Why a send is only searched for.
#[derive(Debug)]
enum Held {
    /// It will be deferred.
    Back(DeferredReason, Duration),
    /// Its text is longer than is allowed now; an earlier try may have come before
    /// the limit was lowered.
    TooLong(Box<Rejection>),
}

impl Sends {
    pub(super) fn room(&self) -> usize {
        MAX_SENDS_IN_FLIGHT.saturating_sub(self.unanswered)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.unanswered == 0
    }

    pub(super) fn queue(&mut self, reference: Ref, send: Send) {
        self.unanswered += 1;
        self.lanes
            .entry(send.peer.clone())
            .or_default()
            .queue
            .push_back((reference, send));
    }

    pub(super) fn abandon(&mut self, message_id: &MessageId) {
        for lane in self.lanes.values_mut() {
            self.deferred -= lane.settle(message_id);
            self.unanswered -= lane.give_up(message_id);
        }
        self.lanes.retain(|_, lane| !lane.is_empty());
    }

    /// The next run of each conversation that has none in flight.
    fn next_runs(&mut self, sender: &UserId) -> Vec<Run> {
        let ready = self.lanes.iter_mut().filter(|(_, lane)| lane.is_ready());
        ready
            .map(|(peer, lane)| {
                let drafts = lane.next_run();
                Run {
                    sender: sender.clone(),
                    peer: peer.clone(),
                    drafts,
                }
            })
            .collect()
    }
}

impl Lane {
    fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_empty() && self.deferred.is_empty()
    }

    fn is_ready(&self) -> bool {
        self.in_flight.is_empty() && !self.queue.is_empty()
    }

    /// Takes an id off the list; returns how many were taken off: 0 or 1.
    fn settle(&mut self, message_id: &MessageId) -> usize {
        let found = self.deferred.iter().position(|id| id == message_id);
        usize::from(found.is_some_and(|index| self.deferred.remove(index).is_some()))
    }

    /// Forgets a send that waits, and does not hold others back for one in
    /// flight. Returns how many were forgotten.
    fn give_up(&mut self, message_id: &MessageId) -> usize {
        for entry in self
            .in_flight
            .iter_mut()
            .filter(|entry| entry.message_id == *message_id)
        {
            entry.abandoned = true;
        }
        let before = self.queue.len();
        self.queue
            .retain(|(_, send)| send.message_id != *message_id);
        before - self.queue.len()
    }

    /// Puts an id on the list; returns how many were put on: 0 or 1.
    fn defer(&mut self, message_id: MessageId) -> usize {
        if self.deferred.contains(&message_id) {
            return 0;
        }
        self.deferred.push_back(message_id);
        1
    }

    /// Moves the queue in flight. A send is to be stored if everything on the
    /// list before it is to be stored by this very run; the others are only
    /// searched for, since an earlier try may have stored them.
    fn next_run(&mut self) -> Vec<Draft> {
        let mut accepted = 0;
        let mut behind = false;
        let mut drafts = Vec::with_capacity(self.queue.len());
        for (reference, send) in self.queue.drain(..) {
            let place = self.deferred.iter().position(|id| *id == send.message_id);
            let in_order = match place {
                Some(place) => place == accepted,
                None => {
                    accepted == self.deferred.len() && !behind
                        || planted(Mutant::OnlyQueuedDeferred)
                }
            };
            let held = if let Some(rejection) = send.too_long {
                Some(Held::TooLong(rejection))
            } else if let Some(wait) = send.over_rate {
                Some(Held::Back(DeferredReason::RateLimited, wait))
            } else if in_order {
                None
            } else {
                Some(Held::Back(DeferredReason::BehindEarlier, BEHIND_PAUSE))
            };
            match (place, held.is_some()) {
                (Some(_), false) => accepted += 1,
                // It will join the end of the list.
                (None, true) => behind = true,
                _ => {}
            }
            let intent = if held.is_some() {
                Intent::FindOnly
            } else {
                Intent::Store
            };
            drafts.push(Draft {
                message_id: send.message_id.clone(),
                after_seq: send.after_seq,
                body: send.body,
                intent,
            });
            self.in_flight.push(InFlight {
                reference,
                message_id: send.message_id,
                held,
                abandoned: false,
            });
        }
        drafts
    }
}

impl Session {
    pub(super) fn proceed_sends(&mut self) {
        for run in self.sends.next_runs(&self.about.user) {
            self.effects.push(Effect::Append(run));
        }
    }

    pub(super) fn on_appended(&mut self, peer: &UserId, answers: Vec<Appended>, now: Now) {
        let Some(lane) = self.sends.lanes.get_mut(peer) else {
            return;
        };
        let in_flight = std::mem::take(&mut lane.in_flight);
        self.sends.unanswered -= in_flight.len();
        let mut answers = answers.into_iter();
        for entry in in_flight {
            let answer = answers.next().unwrap_or(Appended::Unsettled(Unsettled {
                reason: UnsettledReason::Unavailable,
                head: None,
                retry_after: None,
            }));
            self.answer(peer, entry, answer, now);
        }
        self.sends.lanes.retain(|_, lane| !lane.is_empty());
        if self.sends.deferred > MAX_DEFERRED {
            self.end(
                GoodbyeReason::Resync,
                Refusal::new(
                    Reason::TooManyDeferred,
                    format!("more than {MAX_DEFERRED} sends are deferred; resend the oldest first"),
                ),
            );
        }
    }

    /// Tells the device what became of a send. Only here is a message
    /// acknowledged: history has answered that it is durable.
    fn answer(&mut self, peer: &UserId, entry: InFlight, answer: Appended, now: Now) {
        match answer {
            Appended::Stored {
                envelope,
                duplicate,
            } => {
                self.settle(peer, &entry.message_id);
                let stored = Down::Stored {
                    message_id: entry.message_id,
                    peer: peer.clone(),
                    seq: envelope.seq,
                    duplicate,
                    accepted_at: envelope.accepted_at,
                };
                self.push(entry.reference, stored);
                self.on_own_stored(peer, &envelope, duplicate, now);
            }
            Appended::MessageIdReused => {
                self.settle(peer, &entry.message_id);
                let rejection = Rejection {
                    message_id: entry.message_id.to_string(),
                    peer: peer.to_string(),
                    reason: RejectedReason::MessageIdReused,
                    field: "message_id",
                    detail: "another body is stored under this id; use a new id".into(),
                };
                self.push(entry.reference, Down::Rejected(Box::new(rejection)));
            }
            Appended::Unsettled(unsettled) => self.unsettled(peer, entry, &unsettled),
        }
    }

    fn settle(&mut self, peer: &UserId, message_id: &MessageId) {
        if let Some(lane) = self.sends.lanes.get_mut(peer) {
            self.sends.deferred -= lane.settle(message_id);
        }
    }

    fn unsettled(&mut self, peer: &UserId, entry: InFlight, unsettled: &Unsettled) {
        let (reason, retry_after) = match (unsettled.reason, entry.held) {
            (UnsettledReason::NotFound, Some(Held::TooLong(rejection))) => {
                self.settle(peer, &entry.message_id);
                return self.push(entry.reference, Down::Rejected(rejection));
            }
            (UnsettledReason::NotFound, Some(Held::Back(reason, wait))) => (reason, Some(wait)),
            // It was to be stored, but one before it in its run was not.
            (UnsettledReason::NotFound, None) => {
                (DeferredReason::BehindEarlier, Some(BEHIND_PAUSE))
            }
            (UnsettledReason::AfterSeqTooOld, _) => (DeferredReason::AfterSeqTooOld, None),
            (UnsettledReason::AfterSeqAhead, _) => (DeferredReason::AfterSeqAhead, None),
            (UnsettledReason::Contended, _) => (DeferredReason::Contended, unsettled.retry_after),
            (UnsettledReason::Unavailable, _) => {
                (DeferredReason::Unavailable, unsettled.retry_after)
            }
        };
        if let Some(lane) = self.sends.lanes.get_mut(peer).filter(|_| !entry.abandoned) {
            self.sends.deferred += lane.defer(entry.message_id.clone());
        }
        let deferred = Down::Deferred {
            message_id: entry.message_id,
            peer: peer.clone(),
            reason,
            retry_after,
            head: unsettled.head,
        };
        self.push(entry.reference, deferred);
    }
}
