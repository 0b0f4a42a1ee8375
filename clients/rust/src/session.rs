//! The client's decisions, as a pure state machine: what it is told goes in as
//! method calls with the time, what it wants is asked of it. No I/O, no clock, no
//! randomness, no await.
//!
//! Rules that the driver keeps:
//!
//! - While [`Session::must_save`], the state is saved before anything else is
//!   done with what the session wants; it offers no frame and no link until then.
//!   So a message is on disk before it is first sent, and a connect number before
//!   it is used.
//! - Frames are read only while no event waits ([`Session::has_event`]), so that
//!   the queue of events is bounded by what one frame can cause.

mod cursors;
mod frames;
mod hello;
mod keep;
mod links;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use duologue_proto::chat::v1 as wire;
use duologue_proto::chat::v1::converse_request::Frame;
use duologue_proto::ids::{DeviceId, MessageId, Seq, UnixMillis, UserId};
use duologue_proto::limits::{HEARTBEAT_INTERVAL, MAX_TEXT_BYTES};
use duologue_proto::message::Cursor;

pub(crate) use self::links::{EndKind, LinkEnd};
use crate::backoff::Backoff;
use crate::conversations::Conversations;
use crate::event::Event;
use crate::limits::{MAX_OUTBOX, SAVE_INTERVAL, SILENT_HEARTBEATS, WELCOME_TIMEOUT};
use crate::outbox::{Outbox, Scan};
use crate::saved::SavedMessage;

/// The time of an input, and a random number for what it decides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    /// Since the client started; never goes back.
    pub(crate) now: Duration,
    /// The wall clock.
    pub(crate) wall: UnixMillis,
    /// A fresh random number.
    pub(crate) dice: u64,
}

/// What the application decides.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Move the delivered cursor when a message has been handed over.
    pub(crate) mark_delivered: bool,
    pub(crate) client_name: String,
    pub(crate) client_version: String,
}

/// Why a message is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTaken {
    Empty,
    TooLong,
    Full,
}

#[derive(Debug)]
enum Phase {
    Waiting { until: Duration },
    Opening,
    Open { welcomed: bool, heard: Duration },
    Stopped,
}

/// What follows when the application has taken an event.
#[derive(Debug)]
enum Handover {
    Position {
        peer: UserId,
        seq: Seq,
        deliver: bool,
    },
    Token(String),
    OwnCursor {
        peer: UserId,
        cursor: Cursor,
    },
    PeerCursor {
        peer: UserId,
        cursor: Cursor,
    },
    Settled(SavedMessage),
    History,
}

/// The state of one device of one user.
#[derive(Debug)]
pub(crate) struct Session {
    options: Options,
    device: DeviceId,
    user: Option<UserId>,
    connect_number: u64,
    /// The last connect number that a server is known to have taken.
    sure_number: u64,
    /// False once the server has found the wall clock to be too far ahead.
    trusts_clock: bool,
    history_id: String,
    /// Changes of the history that the application does not know of yet.
    untaken_histories: usize,
    /// The newest token whose predecessors are in events, and the newest whose
    /// predecessors the application has taken.
    token: String,
    kept_token: String,
    conversations: Conversations,
    outbox: Outbox,

    phase: Phase,
    /// Names the link that is wanted, so that an old one is not taken for it.
    link: u64,
    backoff: Backoff,
    fresh_token: bool,
    /// What the server said of the last token that it refused.
    refusal: String,
    silence: Duration,
    /// Given up while on the server's list of deferred messages.
    abandons: VecDeque<MessageId>,
    cursors_due: BTreeSet<UserId>,
    cursors_at: Duration,

    events: VecDeque<(u64, Event)>,
    last_event: u64,
    handover: VecDeque<(u64, Handover)>,
    save_now: bool,
    save_at: Option<Duration>,
}

impl Session {
    /// Takes a message into the outbox. It is safe once the state is saved.
    pub(crate) fn send(
        &mut self,
        peer: &UserId,
        id: MessageId,
        text: String,
    ) -> Result<(), NotTaken> {
        if text.is_empty() {
            return Err(NotTaken::Empty);
        }
        if text.len() > MAX_TEXT_BYTES {
            return Err(NotTaken::TooLong);
        }
        if self.outbox.is_full() {
            return Err(NotTaken::Full);
        }
        self.conversations.touch(peer);
        let known = self.conversations.known(peer);
        self.outbox.push(peer, id, known, text, false);
        self.save_now = true;
        Ok(())
    }

    /// Gives a message up. It may have been stored nevertheless. Returns whether
    /// it was known.
    pub(crate) fn abandon(&mut self, id: &MessageId) -> bool {
        let Some(tell) = self.outbox.abandon(id) else {
            return false;
        };
        if tell {
            self.abandon_on_server(id.clone());
        }
        self.save_now = true;
        true
    }

    /// Connects now instead of later, or after a stop.
    pub(crate) fn reconnect(&mut self, now: Duration) {
        match self.phase {
            Phase::Waiting { .. } | Phase::Stopped => {
                self.backoff.reset();
                self.phase = Phase::Waiting { until: now };
            }
            Phase::Opening | Phase::Open { .. } => {}
        }
    }

    /// Messages that are not settled.
    pub(crate) fn unsettled(&self) -> usize {
        self.outbox.len()
    }

    /// Whether nothing waits to be sent or answered.
    pub(crate) fn is_idle(&self) -> bool {
        self.outbox.len() == 0 && self.abandons.is_empty() && self.cursors_due.is_empty()
    }

    /// Whether a server knows everything that the user has read.
    pub(crate) fn is_read_known(&self) -> bool {
        self.conversations.is_read_known()
    }

    /// Whether the session will do nothing more by itself.
    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.phase, Phase::Stopped)
    }

    /// The link that shall be there, by a number that changes with every connect.
    pub(crate) fn wanted_link(&self) -> Option<u64> {
        match self.phase {
            Phase::Opening if self.save_now => None,
            Phase::Opening | Phase::Open { .. } => Some(self.link),
            Phase::Waiting { .. } | Phase::Stopped => None,
        }
    }

    /// Whether the next link needs another token than the last.
    pub(crate) fn needs_fresh_token(&self) -> bool {
        self.fresh_token
    }

    /// The wanted link is open.
    pub(crate) fn opened(&mut self, at: At) {
        self.fresh_token = false;
        self.phase = Phase::Open {
            welcomed: false,
            heard: at.now,
        };
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, at: At) {
        if self.save_at.is_some_and(|due| due <= at.now) {
            self.save_now = true;
        }
        match self.phase {
            Phase::Waiting { until } if until <= at.now => self.connect(at),
            Phase::Open { .. } if self.silent_at().is_some_and(|due| due <= at.now) => {
                self.ended(LinkEnd::lost("the server is silent"), at);
            }
            Phase::Waiting { .. } | Phase::Opening | Phase::Open { .. } | Phase::Stopped => {}
        }
    }

    /// When [`Self::tick`] has something to do, or a frame held back may go.
    pub(crate) fn next_deadline(&self, now: Duration) -> Option<Duration> {
        let phase = match self.phase {
            Phase::Waiting { until } => Some(until),
            Phase::Open { .. } => self.silent_at(),
            Phase::Opening | Phase::Stopped => None,
        };
        let cursors = (self.is_welcomed() && !self.cursors_due.is_empty() && self.cursors_at > now)
            .then_some(self.cursors_at);
        let held = self.outbox.next_deadline(now);
        [phase, cursors, held, self.save_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether [`Self::next_frame`] has something.
    pub(crate) fn has_frame(&self, now: Duration) -> bool {
        self.is_welcomed()
            && !self.save_now
            && (!self.abandons.is_empty()
                || (!self.cursors_due.is_empty() && self.cursors_at <= now)
                || self.outbox.is_ready(now))
    }

    /// The next frame to send on the open link.
    pub(crate) fn next_frame(&mut self, now: Duration) -> Option<wire::ConverseRequest> {
        if !self.is_welcomed() || self.save_now {
            return None;
        }
        let abandon = self.abandons.pop_front().map(|id| {
            Frame::Abandon(wire::Abandon {
                message_id: id.as_str().to_owned(),
            })
        });
        let frame = abandon
            .or_else(|| self.next_cursor(now).map(Frame::AdvanceCursor))
            .or_else(|| self.next_message(now).map(Frame::SendMessage))?;
        Some(wire::ConverseRequest {
            r#ref: 0,
            frame: Some(frame),
        })
    }

    /// A look through a conversation that is wanted; answered by
    /// [`Self::scanned`].
    pub(crate) fn next_scan(&mut self, now: Duration) -> Option<Scan> {
        if self.is_welcomed() {
            self.outbox.next_scan(now)
        } else {
            None
        }
    }

    pub(crate) fn has_event(&self) -> bool {
        !self.events.is_empty()
    }

    /// The next event, with its number. Reading was paused while it waited, which
    /// is no silence of the server.
    pub(crate) fn next_event(&mut self, now: Duration) -> Option<(u64, Event)> {
        let event = self.events.pop_front();
        self.hear(now);
        event
    }

    fn is_welcomed(&self) -> bool {
        matches!(self.phase, Phase::Open { welcomed: true, .. })
    }

    fn hear(&mut self, now: Duration) {
        if let Phase::Open { heard, .. } = &mut self.phase {
            *heard = now;
        }
    }

    /// When the silence of the server becomes too long; none while reading is
    /// paused.
    fn silent_at(&self) -> Option<Duration> {
        match self.phase {
            Phase::Open { welcomed, heard } if !self.has_event() => {
                let limit = if welcomed {
                    self.silence
                } else {
                    WELCOME_TIMEOUT
                };
                Some(heard + limit)
            }
            Phase::Waiting { .. } | Phase::Opening | Phase::Open { .. } | Phase::Stopped => None,
        }
    }

    fn emit(&mut self, event: Event, handover: Option<Handover>) {
        self.last_event += 1;
        self.events.push_back((self.last_event, event));
        if let Some(handover) = handover {
            self.handover.push_back((self.last_event, handover));
        }
    }

    fn save_soon(&mut self, now: Duration) {
        self.save_at.get_or_insert(now + SAVE_INTERVAL);
    }

    /// Bounded, since a server may defer what was never sent.
    fn abandon_on_server(&mut self, id: MessageId) {
        if self.abandons.len() < MAX_OUTBOX {
            self.abandons.push_back(id);
        }
    }

    fn next_message(&mut self, now: Duration) -> Option<wire::SendMessage> {
        let conversations = &self.conversations;
        let (peer, pending) = self.outbox.next(now, |peer| conversations.known(peer))?;
        Some(wire::SendMessage {
            peer: peer.as_str().to_owned(),
            message_id: Some(pending.id.as_str().to_owned()),
            after_seq: Some(pending.after_seq.0),
            body: Some(wire::Body {
                kind: Some(wire::body::Kind::Text(pending.text)),
            }),
        })
    }
}

/// The default until `Welcome` says otherwise.
const fn silence_of(heartbeat: Duration) -> Duration {
    heartbeat.saturating_mul(SILENT_HEARTBEATS)
}

const DEFAULT_SILENCE: Duration = silence_of(HEARTBEAT_INTERVAL);
