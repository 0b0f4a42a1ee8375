//! A session as a pure state machine: one device's stream, from `Hello` to
//! `Goodbye`.
//!
//! Inputs and the time go in, effects come out. No clock, no channel and no
//! await is in here; whatever it wants done is an [`Effect`], and every result
//! comes back as an [`Input`]. The rules stand in the modules below: `sends` (the
//! order of what the device sends), `catch_up` (what it has been shown), `sync`
//! (what changed while it was away), `cursors`, `hints` (receipts and presence),
//! `opening` and `ending`.

mod catch_up;
mod cursors;
mod ending;
mod hints;
mod opening;
mod sends;
mod sync;
#[cfg(test)]
mod tests;

pub use self::catch_up::{GAP_WAIT, HELD_BYTES, MAX_GAPS, MAX_READS, READ_BYTES, READ_MESSAGES};
pub use self::cursors::{MAX_CURSOR_WRITES, MAX_MOVES, MAX_RESTING_LANES};
use self::hints::HINT_BYTES;
pub use self::hints::{MAX_PRESENCE, MAX_RECEIPTS, PresencePage};
pub use self::sends::BEHIND_PAUSE;
pub use self::sync::{KEPT_LEVEL, PAGE_BYTES, PAGE_CONVERSATIONS};

use std::sync::Arc;
use std::time::Duration;

use duologue_proto::history::{
    Appended, CursorAdvanced, HistoryError, ReadPage, ReadRequest, Run, SyncPage, SyncRequest,
};
use duologue_proto::ids::{
    DeviceId, HistoryId, Incarnation, NodeId, Seq, SessionId, UnixMillis, UserId,
};
use duologue_proto::limits::HEARTBEAT_INTERVAL;
use duologue_proto::message::{Cursor, Envelope};
use duologue_proto::presence::{PresenceError, Registered, Route, UserPresence};
use duologue_runtime::refusal::Refusal;
use tokio::time::Instant;

use crate::frame::{Down, Ref, Up};

/// Bytes that may wait for a device that reads slowly. Above it nothing is
/// pushed but answers, and the rest is read from history later.
pub const OUTBOX_BYTES: usize = 128 * 1024;
/// Bytes that may wait at all: with so many, the server stops reading the stream.
pub const OUTBOX_HARD_BYTES: usize = 2 * OUTBOX_BYTES;
/// Pause before something that history or presence could not do is tried again.
pub const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// After a send above the rate the stream is not read for this long, so that
/// sending on regardless costs the server little.
pub const OVER_RATE_PAUSE: Duration = Duration::from_millis(50);

/// A session ends after this long even if its token lives longer.
pub const MAX_SESSION: Duration = Duration::from_hours(30 * 24);

/// After its goodbye a session waits at most this long for what is in flight.
pub const CLOSING_TIMEOUT: Duration = Duration::from_secs(30);

/// What a session is told when it is made.
#[derive(Debug, Clone)]
pub struct About {
    /// The caller, from the token.
    pub user: UserId,
    /// When the token expires.
    pub expires_at: UnixMillis,
    /// The session's fresh id.
    pub session: SessionId,
    /// The device if the client names none.
    pub fresh_device: DeviceId,
    /// The node.
    pub node: NodeId,
    /// The node's start.
    pub incarnation: Incarnation,
    /// The history.
    pub history_id: HistoryId,
    /// The longest text in force.
    pub max_text_bytes: usize,
    /// Spreads the times of later syncs.
    pub jitter: u64,
}

/// The time, as both clocks have it.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For intervals and deadlines.
    pub instant: Instant,
    /// The wall clock.
    pub wall: UnixMillis,
}

/// What happens to a session.
#[derive(Debug)]
pub enum Input {
    /// The device says something.
    Up(Ref, Up),
    /// The device has half-closed: it says nothing more.
    UpClosed,
    /// The device is gone: nothing can be told to it.
    Gone,
    /// The answer to [`Effect::Register`].
    Registered(Result<Registered, PresenceError>),
    /// The answer to [`Effect::Append`].
    Appended(UserId, Vec<Appended>),
    /// The answer to [`Effect::Read`].
    Read(UserId, Result<ReadPage, HistoryError>),
    /// The answer to [`Effect::Sync`].
    Synced(Result<SyncPage, HistoryError>),
    /// The answer to [`Effect::WriteCursor`].
    CursorWritten(UserId, Result<CursorAdvanced, HistoryError>),
    /// Messages of one conversation were stored through another session.
    Announced(Arc<[Envelope]>),
    /// The conversation with this user has messages up to this one.
    Raised(UserId, Seq),
    /// A cursor of the conversation with the first user moved: the second's.
    Receipt(UserId, UserId, Cursor),
    /// A user went online or offline.
    Presence(UserPresence),
    /// Changes of presence were missed.
    PresenceLost,
    /// The answer to [`Effect::AskPresence`] with the same number; none if it failed.
    PresencePage(u64, Option<PresencePage>),
    /// So many bytes wait in the outbox now.
    Outbox(usize),
    /// What was announced may have been lost: sync.
    Resync,
    /// Register again, after this time: with this incarnation, which the node has
    /// taken, or to confirm the route that there is.
    RegisterAgain(Option<Incarnation>, Duration),
    /// A newer session of the device took over.
    Superseded,
    /// The node stops.
    Drain,
    /// Time has passed.
    Tick,
}

/// What a session wants done.
#[derive(Debug)]
pub enum Effect {
    /// Tell the device. The number is echoed; 0: none.
    Push(Ref, Down),
    /// Enter the session in the node's table, then in the directory.
    Register(Box<Route>),
    /// Leave the directory and the node's table.
    Release,
    /// Store a run, and relay what is stored of it.
    Append(Run),
    /// Read from history.
    Read(ReadRequest),
    /// Ask what changed.
    Sync(SyncRequest),
    /// Write this user's cursor in the conversation with the one named.
    WriteCursor(UserId, Cursor),
    /// Relay a cursor of this user in the conversation with the one named.
    AnnounceCursor(UserId, Cursor),
    /// Ask who is online and visible to the user, in order, after this user.
    AskPresence(u64, Option<UserId>),
    /// The last effect: end the stream, with OK or with a refusal.
    End(Option<Refusal>),
}

/// How far the session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing was said yet.
    AwaitingHello,
    /// The route is being registered.
    Registering,
    /// `Welcome` was said.
    Live,
    /// Nothing more is told; what is in flight is awaited.
    Closing,
    /// [`Effect::End`] was given.
    Ended,
}

/// One device's session.
#[derive(Debug)]
pub struct Session {
    about: About,
    phase: Phase,
    hello_due: Instant,
    expires: Instant,
    closing_due: Option<Instant>,
    heartbeat_due: Instant,
    not_reading_until: Option<Instant>,
    outbox_bytes: usize,
    route: Option<Box<Route>>,
    register_due: Option<Instant>,
    /// One registration at a time: the answer to an older one would be taken for
    /// that of its successor.
    registering: bool,
    /// The sync that is due waits until the route is confirmed.
    confirming: bool,
    catch_up: catch_up::CatchUp,
    sync: sync::Sync,
    sends: sends::Sends,
    cursors: cursors::Cursors,
    hints: hints::Hints,
    ending: ending::Ending,
    effects: Vec<Effect>,
}

impl Session {
    /// A session that waits for its `Hello`.
    pub fn new(about: About, now: Now) -> Self {
        let expires = now.instant + about.expires_at.since(now.wall).min(MAX_SESSION);
        Self {
            phase: Phase::AwaitingHello,
            hello_due: now.instant + duologue_proto::limits::HELLO_TIMEOUT,
            expires,
            closing_due: None,
            heartbeat_due: now.instant + HEARTBEAT_INTERVAL,
            not_reading_until: None,
            outbox_bytes: 0,
            route: None,
            register_due: None,
            registering: false,
            confirming: false,
            catch_up: catch_up::CatchUp::default(),
            sync: sync::Sync::new(about.jitter),
            sends: sends::Sends::default(),
            cursors: cursors::Cursors::default(),
            hints: hints::Hints::default(),
            ending: ending::Ending::default(),
            effects: Vec::new(),
            about,
        }
    }

    /// Takes what has happened, in order, and says what to do, in order.
    pub fn handle(&mut self, inputs: impl IntoIterator<Item = Input>, now: Now) -> Vec<Effect> {
        for input in inputs {
            self.take(input, now);
        }
        self.proceed(now);
        std::mem::take(&mut self.effects)
    }

    /// When to give [`Input::Tick`], if nothing happens before.
    pub fn next_deadline(&self) -> Option<Instant> {
        let is = |phase| self.phase == phase;
        let deadlines = [
            is(Phase::AwaitingHello).then_some(self.hello_due),
            is(Phase::Live).then_some(self.heartbeat_due),
            (!is(Phase::Closing) && !is(Phase::Ended)).then_some(self.expires),
            self.closing_due,
            self.not_reading_until,
            self.register_due
                .filter(|_| is(Phase::Live) && !self.registering),
            self.sync.deadline(),
            self.catch_up.deadline(),
            self.cursors.deadline(),
            // With room only, or it would not rest until the device reads.
            self.hints
                .deadline()
                .filter(|_| self.has_room_for(HINT_BYTES)),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// How many frames from the device may be given now, the end of its frames
    /// counted as one. What comes early is not queued here: it is not read.
    pub fn input_room(&self) -> usize {
        match self.phase {
            Phase::AwaitingHello => 1,
            Phase::Live
                if self.ending.is_open()
                    && self.not_reading_until.is_none()
                    && self.outbox_bytes < OUTBOX_HARD_BYTES =>
            {
                self.sends.room().min(self.cursors.room())
            }
            Phase::Live | Phase::Registering | Phase::Closing | Phase::Ended => 0,
        }
    }

    /// How many bytes wait in the outbox, as far as the session knows.
    pub fn outbox_bytes(&self) -> usize {
        self.outbox_bytes
    }

    /// Whether [`Effect::End`] was given.
    pub fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    fn take(&mut self, input: Input, now: Now) {
        match input {
            Input::Up(reference, up) => self.on_up(reference, up, now),
            Input::UpClosed => self.on_up_closed(),
            Input::Gone => self.on_gone(),
            Input::Registered(result) => self.on_registered(result, now),
            Input::Appended(peer, answers) => self.on_appended(&peer, answers, now),
            Input::Read(peer, result) => self.on_read(&peer, result, now),
            Input::Synced(result) => self.on_synced(result, now),
            Input::CursorWritten(peer, result) => self.on_cursor_written(&peer, result, now),
            // Nothing more is told, so nothing more is noted.
            Input::Announced(_)
            | Input::Raised(..)
            | Input::Receipt(..)
            | Input::Presence(_)
            | Input::PresenceLost
            | Input::PresencePage(..)
                if matches!(self.phase, Phase::Closing | Phase::Ended) => {}
            Input::Announced(run) => self.on_announced(&run, now),
            Input::Raised(peer, seq) => self.on_raised(&peer, seq),
            Input::Receipt(peer, user, cursor) => self.on_receipt(peer, user, cursor),
            Input::Presence(presence) => self.on_presence(presence),
            Input::PresenceLost => self.hints.lose_presence(),
            Input::PresencePage(number, page) => self.on_presence_page(number, page, now),
            Input::Outbox(bytes) => self.outbox_bytes = bytes,
            Input::Resync => self.sync.request(),
            Input::RegisterAgain(incarnation, delay) => {
                self.on_register_again(incarnation, now.instant + delay);
            }
            Input::Superseded => self.on_superseded(),
            Input::Drain => self.ending.drain(),
            Input::Tick => {}
        }
    }

    /// Does whatever the state allows by now; a call more changes nothing.
    fn proceed(&mut self, now: Now) {
        self.check_deadlines(now);
        self.proceed_register(now);
        self.proceed_shown(now);
        self.proceed_sends();
        self.proceed_cursors(now);
        self.proceed_ending();
        self.proceed_heartbeat(now);
        if self.phase == Phase::Closing && self.closing_due.is_none() {
            self.closing_due = Some(now.instant + CLOSING_TIMEOUT);
        }
    }

    /// What one of these has done may let another go on.
    fn proceed_shown(&mut self, now: Now) {
        let mut done = usize::MAX;
        while self.phase == Phase::Live && done != self.effects.len() {
            done = self.effects.len();
            self.proceed_hints(now);
            self.proceed_sync(now);
            self.proceed_reads(now);
            self.proceed_caught_up(now);
        }
    }

    fn on_up(&mut self, reference: Ref, up: Up, now: Now) {
        if self.phase == Phase::AwaitingHello {
            return self.on_first_frame(up, now);
        }
        if self.phase != Phase::Live {
            return;
        }
        match up {
            Up::Send(send) => {
                if send.over_rate.is_some() {
                    self.not_reading_until = Some(now.instant + OVER_RATE_PAUSE);
                }
                self.sends.queue(reference, send);
            }
            Up::InvalidSend(rejection) => {
                self.push(reference, Down::Rejected(Box::new(rejection)));
            }
            Up::Abandon(message_id) => self.sends.abandon(&message_id),
            Up::Advance(advance) => self.on_advance(reference, advance, now),
            Up::InvalidAdvance(rejection) => {
                self.push(reference, Down::CursorRejected(Box::new(rejection)));
            }
            Up::Ping => self.push(reference, Down::Pong),
            Up::Hello(_) => self.break_off(Refusal::field(
                "hello",
                "may be said only once, as the first frame of a stream",
            )),
            Up::Broken(refusal) => self.break_off(refusal),
        }
    }

    /// Tells the device, unless nothing more may be told.
    fn push(&mut self, reference: Ref, down: Down) {
        if matches!(self.phase, Phase::Closing | Phase::Ended) {
            return;
        }
        self.outbox_bytes += down.cost();
        self.effects.push(Effect::Push(reference, down));
    }

    /// Whether so many bytes more may be pushed to a device that reads.
    fn has_room_for(&self, bytes: usize) -> bool {
        self.outbox_bytes + self.catch_up.reserved_bytes() + bytes <= OUTBOX_BYTES
    }

    fn check_deadlines(&mut self, now: Now) {
        if self
            .not_reading_until
            .is_some_and(|until| until <= now.instant)
        {
            self.not_reading_until = None;
        }
        if self.phase == Phase::AwaitingHello && self.hello_due <= now.instant {
            self.end_without_hello();
        }
        if self.expires <= now.instant {
            self.end_expired();
        }
        if self.closing_due.is_some_and(|due| due <= now.instant) {
            self.give_up();
        }
    }

    /// A stream that is silent for long looks dead to browsers and balancers.
    /// While something waits in the outbox, a heartbeat would only wait behind.
    fn proceed_heartbeat(&mut self, now: Now) {
        let pushed = self
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::Push(..)));
        if self.phase != Phase::Live {
            return;
        }
        if pushed {
            self.heartbeat_due = now.instant + HEARTBEAT_INTERVAL;
        } else if self.heartbeat_due <= now.instant {
            self.heartbeat_due = now.instant + HEARTBEAT_INTERVAL;
            if self.outbox_bytes == 0 {
                self.push(0, Down::Heartbeat);
            }
        }
    }
}
