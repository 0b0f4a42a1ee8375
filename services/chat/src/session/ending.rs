//! How a session ends: half-close, drain, and every goodbye.
//!
//! Whatever the reason, what is in flight is awaited before the end, so that a
//! message that gets stored is also relayed, and a cursor that was moved is
//! written. Nothing is told after a goodbye.

use duologue_runtime::refusal::{Reason, Refusal};
use duologue_runtime::server::COMES_BACK_AFTER;

use super::cursors::Cursors;
use super::sends::Sends;
use super::{Effect, Phase, RETRY_PAUSE, Session};
use crate::frame::{Down, GoodbyeReason};

/// Why no more frames are taken.
#[derive(Debug, Default)]
pub(super) enum Ending {
    /// They are.
    #[default]
    Open,
    /// The device half-closed: answer everything, catch up, then OK.
    HalfClosed,
    /// The node stops: answer what is in flight, then goodbye.
    Draining,
    /// The goodbye was said, or nobody is left to say it to.
    Done(Option<Refusal>),
}

impl Ending {
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    pub(super) fn drain(&mut self) {
        if !matches!(self, Self::Done(_)) {
            *self = Self::Draining;
        }
    }
}

impl Session {
    pub(super) fn on_up_closed(&mut self) {
        if self.phase == Phase::AwaitingHello {
            return self.break_off(Refusal::new(
                Reason::FirstFrameNotHello,
                "the stream was closed before hello",
            ));
        }
        if self.ending.is_open() {
            self.ending = Ending::HalfClosed;
        }
    }

    /// The device cannot be told anything: it is offline at once, while what it
    /// sent is still settled.
    pub(super) fn on_gone(&mut self) {
        if !matches!(self.phase, Phase::Closing | Phase::Ended) {
            self.close(None);
        }
    }

    /// Says goodbye and stops. `refusal` becomes the status of the call.
    pub(super) fn end(&mut self, reason: GoodbyeReason, refusal: Refusal) {
        if matches!(self.phase, Phase::Closing | Phase::Ended) {
            return;
        }
        let (detail, retry_after) = (refusal.message(), refusal.delay());
        self.push(
            0,
            Down::Goodbye {
                reason,
                detail,
                retry_after,
            },
        );
        self.close(Some(refusal));
    }

    fn close(&mut self, refusal: Option<Refusal>) {
        self.phase = Phase::Closing;
        self.ending = Ending::Done(refusal);
        self.register_due = None;
        self.sync.stop();
        self.catch_up.stop();
        if self.route.take().is_some() {
            self.effects.push(Effect::Release);
        }
    }

    /// The client broke the contract.
    pub(super) fn break_off(&mut self, refusal: Refusal) {
        self.end(GoodbyeReason::ProtocolError, refusal);
    }

    pub(super) fn end_history_changed(&mut self, refusal: Refusal) {
        self.end(GoodbyeReason::HistoryChanged, refusal);
    }

    pub(super) fn end_unavailable(&mut self) {
        let refusal = Refusal::new(Reason::Unavailable, "history cannot be reached; try again")
            .retry_after(RETRY_PAUSE);
        self.end(GoodbyeReason::Internal, refusal);
    }

    pub(super) fn end_full(&mut self, what: &str) {
        let message = format!("{what}; connect again with token and positions");
        self.end(
            GoodbyeReason::Resync,
            Refusal::new(Reason::SessionFull, message),
        );
    }

    pub(super) fn end_without_hello(&mut self) {
        self.end(
            GoodbyeReason::Idle,
            Refusal::new(Reason::HelloTimeout, "no hello within 5 seconds"),
        );
    }

    pub(super) fn end_expired(&mut self) {
        self.end(
            GoodbyeReason::Unauthenticated,
            Refusal::new(
                Reason::TokenExpired,
                "the token has expired; connect with a new one",
            ),
        );
    }

    /// What is in flight takes too long: its answers will find nobody.
    pub(super) fn give_up(&mut self) {
        self.sends = Sends::default();
        self.cursors = Cursors::default();
        self.closing_due = None;
    }

    /// Ends when everything that must come before has come.
    pub(super) fn proceed_ending(&mut self) {
        let settled = self.sends.is_idle();
        match &mut self.ending {
            Ending::Open => {}
            Ending::HalfClosed => {
                if self.phase == Phase::Live
                    && settled
                    && self.cursors.is_idle()
                    && self.sync.is_idle()
                    && self.hints.is_empty()
                    && self.catch_up.is_level()
                {
                    self.close(None);
                    self.proceed_ending();
                }
            }
            Ending::Draining => {
                if settled {
                    let refusal = Refusal::new(
                        Reason::ShuttingDown,
                        "this node is stopping; connect to another one",
                    )
                    .retry_after(COMES_BACK_AFTER);
                    self.end(GoodbyeReason::ShuttingDown, refusal);
                    self.proceed_ending();
                }
            }
            Ending::Done(refusal) => {
                if self.phase == Phase::Closing && settled && self.cursors.is_idle() {
                    self.phase = Phase::Ended;
                    self.closing_due = None;
                    self.effects.push(Effect::End(refusal.take()));
                }
            }
        }
    }
}
