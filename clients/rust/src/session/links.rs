//! When there is a link, and what follows from its end.

use std::time::Duration;

use super::{At, Handover, Phase, Session};
use crate::event::{Event, StopReason};

/// How a link ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkEnd {
    pub(crate) kind: EndKind,
    /// For a person.
    pub(crate) cause: String,
    pub(crate) retry_after: Option<Duration>,
}

/// What follows from the end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndKind {
    /// Connect again.
    Lost,
    /// Do not connect again by oneself.
    Superseded,
    /// Connect again with a new token.
    Unauthenticated,
    /// The source has no other token than the refused one.
    NoOtherToken,
    /// Forget the history, then connect again.
    HistoryChanged,
    /// The server does not take what `Hello` says.
    Refused,
}

impl LinkEnd {
    pub(crate) fn of(kind: EndKind, cause: impl Into<String>) -> Self {
        Self {
            kind,
            cause: cause.into(),
            retry_after: None,
        }
    }

    pub(crate) fn lost(cause: impl Into<String>) -> Self {
        Self::of(EndKind::Lost, cause)
    }
}

impl Session {
    /// The wanted link has ended, or could not be opened.
    pub(crate) fn ended(&mut self, end: LinkEnd, at: At) {
        let was_welcomed = self.is_welcomed();
        self.outbox.disconnected();
        self.abandons.clear();
        self.refuse_cursors();
        match end.kind {
            EndKind::Superseded => {
                self.phase = Phase::Stopped;
                self.emit(Event::Superseded, None);
            }
            EndKind::NoOtherToken => {
                let detail = self.refusal.clone();
                self.stop(StopReason::Unauthenticated { detail });
            }
            EndKind::Refused => {
                if self.says_less(was_welcomed) {
                    self.wait(end, at);
                } else {
                    self.stop(StopReason::Refused { detail: end.cause });
                }
            }
            EndKind::HistoryChanged => {
                self.forget_history();
                self.wait(end, at);
            }
            EndKind::Unauthenticated => {
                self.fresh_token = true;
                self.refusal.clone_from(&end.cause);
                self.wait(end, at);
            }
            EndKind::Lost => self.wait(end, at),
        }
    }

    pub(super) fn connect(&mut self, at: At) {
        let next = self.connect_number.saturating_add(1);
        self.connect_number = if self.trusts_clock {
            at.wall.0.max(next)
        } else {
            next
        };
        self.link += 1;
        self.phase = Phase::Opening;
        self.save_now = true;
    }

    fn wait(&mut self, end: LinkEnd, at: At) {
        let retry_in = self.backoff.next(end.retry_after, at.dice);
        self.phase = Phase::Waiting {
            until: at.now + retry_in,
        };
        let cause = end.cause;
        self.emit(Event::Disconnected { cause, retry_in }, None);
    }

    pub(super) fn stop(&mut self, reason: StopReason) {
        self.phase = Phase::Stopped;
        match reason {
            StopReason::OtherUser { .. } => self.fresh_token = true,
            // Whoever connects again may know that the server takes it by now.
            StopReason::Unauthenticated { .. } => self.fresh_token = false,
            StopReason::Refused { .. } | StopReason::Persistence { .. } => {}
        }
        self.emit(Event::Stopped(reason), None);
    }

    /// The server refused what `Hello` says: the next says less. The token can be done
    /// without: positions find everything, only slower. And a connect number from a
    /// clock that is more than a day ahead was never taken, so that one above the last
    /// that was will do. Returns whether there was anything to leave out.
    fn says_less(&mut self, was_welcomed: bool) -> bool {
        let had_token = !self.token.is_empty();
        if had_token {
            self.forget_token();
        }
        if was_welcomed || !self.trusts_clock {
            return had_token;
        }
        self.trusts_clock = false;
        self.connect_number = self.sure_number;
        true
    }

    fn forget_token(&mut self) {
        self.token.clear();
        self.kept_token.clear();
        self.handover
            .retain(|(_, handover)| !matches!(handover, Handover::Token(_)));
        self.save_now = true;
    }

    /// Drops everything that only has meaning in the history known so far; keeps
    /// what is not settled.
    fn forget_history(&mut self) {
        self.history_id.clear();
        self.forget_token();
        self.conversations.clear();
        self.cursors_due.clear();
        self.outbox.forget_history();
        self.handover.retain_mut(|(_, handover)| match handover {
            // Kept until the application knows it, and then sent to the other history.
            Handover::Settled(message) => {
                message.after_seq = 0;
                true
            }
            Handover::History => true,
            Handover::Position { .. }
            | Handover::Token(_)
            | Handover::OwnCursor { .. }
            | Handover::PeerCursor { .. } => false,
        });
        self.tell_history();
    }

    pub(super) fn tell_history(&mut self) {
        self.untaken_histories += 1;
        self.emit(Event::HistoryChanged, Some(Handover::History));
    }
}
