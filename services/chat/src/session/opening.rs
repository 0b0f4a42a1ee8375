//! How a session opens: `Hello`, the route, `Welcome`.
//!
//! The route is registered and that is confirmed before catch-up starts (design
//! §4), so that a message stored in between is either found by the read or
//! announced. Presence that cannot be reached does not keep anybody from their
//! messages: the session goes on unregistered, tries again, and then syncs.

use std::time::Duration;

use duologue_proto::ids::{DeviceId, Incarnation};
use duologue_proto::limits::MAX_CONNECT_NUMBER_AHEAD;
use duologue_proto::presence::{ConnectNumber, PresenceError, Registered, Route};
use duologue_runtime::faults::{Mutant, planted};
use duologue_runtime::refusal::{Reason, Refusal};

use tokio::time::Instant;

use super::{Effect, Now, Phase, RETRY_PAUSE, Session};
use crate::frame::{Down, GoodbyeReason, Hello, Up, Welcome};

impl Session {
    pub(super) fn on_first_frame(&mut self, up: Up, now: Now) {
        match up {
            Up::Hello(Ok(hello)) => self.open(*hello, now),
            Up::Hello(Err(refusal)) | Up::Broken(refusal) => self.break_off(refusal),
            Up::Send(_)
            | Up::InvalidSend(_)
            | Up::Abandon(_)
            | Up::Advance(_)
            | Up::InvalidAdvance(_)
            | Up::Ping => self.break_off(Refusal::new(
                Reason::FirstFrameNotHello,
                "the first frame must be hello",
            )),
        }
    }

    fn open(&mut self, hello: Hello, now: Now) {
        if hello
            .history_id
            .as_ref()
            .is_some_and(|id| *id != self.about.history_id)
        {
            return self.end_history_changed(Refusal::new(
                Reason::HistoryChanged,
                "the history is not the one that the client knows: drop the sync token, \
                 positions and after_seq, keep what is not yet sent, and connect again",
            ));
        }
        let (device, connect) = match self.device(&hello, now) {
            Ok(device) => device,
            Err(refusal) => return self.break_off(refusal),
        };
        let route = Route {
            user: self.about.user.clone(),
            device,
            number: ConnectNumber {
                connect,
                registration: 0,
            },
            session: self.about.session.clone(),
            node: self.about.node.clone(),
            incarnation: self.about.incarnation.clone(),
        };
        self.route = Some(Box::new(route.clone()));
        self.sync.begin_with(hello.sync_token, hello.positions);
        self.cursors.repeat(hello.cursors);
        if planted(Mutant::ReadBeforeRegistration) {
            self.register_due = Some(now.instant + RETRY_PAUSE);
            return self.welcome(now);
        }
        self.registering = true;
        self.effects.push(Effect::Register(Box::new(route)));
        self.phase = Phase::Registering;
    }

    /// The device and its connect number: the client's, or a fresh device.
    fn device(&self, hello: &Hello, now: Now) -> Result<(DeviceId, u64), Refusal> {
        let Some((device, number)) = &hello.device else {
            return Ok((self.about.fresh_device.clone(), now.wall.0));
        };
        let highest = now.wall.plus(MAX_CONNECT_NUMBER_AHEAD).0;
        if *number > highest {
            return Err(Refusal::field(
                "connect_number",
                format_args!(
                    "is more than a day ahead of the server's clock (at most {highest} now); \
                     use milliseconds since 1970"
                ),
            ));
        }
        Ok((device.clone(), *number))
    }

    pub(super) fn on_registered(&mut self, result: Result<Registered, PresenceError>, now: Now) {
        self.registering = false;
        let waiting = self.phase == Phase::Registering;
        if !waiting && self.phase != Phase::Live {
            return;
        }
        match result {
            Ok(Registered::Superseded) => return self.on_superseded(),
            // Announcements may have been lost while there was no route.
            Ok(Registered::InForce { .. })
                if !waiting
                    && !planted(Mutant::NoSyncAfterReregistration)
                    && !planted(Mutant::ReadBeforeRegistration) =>
            {
                self.sync.request();
            }
            Ok(Registered::InForce { .. }) => {}
            Err(error) => {
                // Sessions that were refused together do not come back together.
                let pause = self.sync.jittered(pause(error.retry_after()));
                self.register_due = Some(now.instant + pause);
                if self.confirming {
                    self.sync.request();
                }
            }
        }
        self.confirming = false;
        if waiting {
            self.welcome(now);
        }
    }

    fn welcome(&mut self, now: Now) {
        let Some(route) = &self.route else { return };
        let welcome = Welcome {
            user: self.about.user.clone(),
            device: route.device.clone(),
            session: self.about.session.clone(),
            node: self.about.node.clone(),
            history_id: self.about.history_id.clone(),
            server_time: now.wall,
            max_text_bytes: self.about.max_text_bytes,
        };
        self.phase = Phase::Live;
        self.push(0, Down::Welcome(Box::new(welcome)));
    }

    /// The route is to be registered again: the node has a new incarnation, or what
    /// is in force is not known.
    pub(super) fn on_register_again(&mut self, incarnation: Option<Incarnation>, due: Instant) {
        if let Some(incarnation) = incarnation {
            self.about.incarnation = incarnation.clone();
            if let Some(route) = &mut self.route {
                route.incarnation = incarnation;
            }
        }
        if self.route.is_some() {
            self.register_due = Some(self.register_due.map_or(due, |known| known.min(due)));
        }
    }

    /// Confirms the route and syncs after that, whether or not it could be confirmed:
    /// a route that was removed in error is missed no longer than to the next sync.
    pub(super) fn confirm_and_sync(&mut self, now: Now) {
        self.confirming = true;
        let due = self.register_due.unwrap_or(now.instant);
        self.register_due = Some(due.min(now.instant));
        self.proceed_register(now);
    }

    /// Registers what is to be registered again, each time with a number of its own: a
    /// clean-up may have left "gone" with the number of the last.
    pub(super) fn proceed_register(&mut self, now: Now) {
        if self.phase != Phase::Live
            || self.registering
            || self.register_due.is_none_or(|due| due > now.instant)
        {
            return;
        }
        self.register_due = None;
        if let Some(route) = &mut self.route {
            route.number.registration = route.number.registration.saturating_add(1);
            self.registering = true;
            self.effects.push(Effect::Register(route.clone()));
        }
    }

    pub(super) fn on_superseded(&mut self) {
        self.end(
            GoodbyeReason::Superseded,
            Refusal::new(
                Reason::Superseded,
                "a newer session of this device took over; connect again only if the person asks",
            ),
        );
    }
}

/// How long to wait after a refusal that may have named a time.
pub(super) fn pause(retry_after: Option<Duration>) -> Duration {
    retry_after.unwrap_or(RETRY_PAUSE).max(RETRY_PAUSE)
}
