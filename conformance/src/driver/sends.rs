//! What a device sends: new messages, and again what is not settled, what is on its
//! way, and what was answered long ago.

use std::time::Duration;

use duologue_proto::chat::v1 as wire;
use duologue_proto::chat::v1::converse_request::Frame as Up;
use tokio::time::{Instant, timeout};

use super::behaviour::Behaviour;
use super::calls::{self, Outcome};
use super::device::Device;
use super::link::{Gate, Mode};
use super::memory::Pending;
use super::stream::Stream;
use crate::event::{Door, Envelope, Event, Send, digest};

/// Messages of one conversation that are not settled, after which nothing new is
/// sent there.
const MAX_PENDING: usize = 40;
const BIG_BYTES: (u64, u64) = (3_000, 8_000);
const BIG_PERCENT: u64 = 20;
/// Calls whose connection is cut meanwhile.
const LOST_PERCENT: u64 = 8;
/// Big messages that together are more than a session may have waiting.
const FLOOD: usize = 30;

impl Device {
    /// A new message, in the outbox.
    fn compose(&mut self, big_percent: u64) -> Option<(String, Pending)> {
        let peer = self.any_peer();
        if peer == self.user {
            self.world.did(Behaviour::Note);
        }
        let number = self.world.recorder.number();
        let big = self.rng.percent(big_percent);
        let length = if big {
            self.world.did(Behaviour::BigText);
            self.rng.between(BIG_BYTES.0, BIG_BYTES.1)
        } else {
            self.rng.between(8, 120)
        };
        // Mostly the newest that is known; sometimes older: more is searched.
        let back = if self.rng.percent(30) {
            self.rng.between(1, 60)
        } else {
            0
        };
        let talk = self.memory.talk(&peer);
        if talk.pending.len() >= MAX_PENDING {
            return None;
        }
        let mut text = format!("{number} ");
        text.extend(std::iter::repeat_n(
            'x',
            usize::try_from(length).unwrap_or(8),
        ));
        let pending = Pending {
            message_id: format!("m{number}"),
            text,
            after_seq: talk.known.saturating_sub(back),
            tries: 0,
            in_flight: false,
            due: None,
            look: false,
        };
        talk.pending.push(pending.clone());
        Some((peer, pending))
    }

    pub(super) async fn send_new(&mut self, stream: &Stream, count: u64) {
        for _ in 0..count {
            let Some((peer, pending)) = self.compose(BIG_PERCENT) else {
                return;
            };
            if stream.door() == Door::Subscribe {
                self.world.did(Behaviour::SendUnary);
                // One in flight per conversation; the oldest first.
                return self.resend(stream).await;
            }
            if self.is_first(&peer, &pending.message_id) && self.say_send(stream, &peer, &pending) {
                self.world.did(Behaviour::Send);
            }
        }
    }

    /// Whether nothing before it in the outbox has to be sent again first.
    fn is_first(&mut self, peer: &str, message_id: &str) -> bool {
        let mut before = self.memory.talk(peer).pending.iter();
        before
            .find(|pending| !pending.in_flight)
            .is_none_or(|first| first.message_id == message_id)
    }

    /// A message by the unary call beside the stream. It keeps out of the way of
    /// the stream's order: nothing else is under way there.
    pub(super) async fn send_unary(&mut self) {
        let Some((peer, pending)) = self.compose(BIG_PERCENT) else {
            return;
        };
        if self.memory.talk(&peer).pending.len() == 1 {
            self.world.did(Behaviour::SendUnary);
            self.call_send(&peer, &pending).await;
        }
    }

    /// More than a session may have waiting, by the unary call: it is shown to every
    /// session of this user too, and so to the one that is not reading.
    pub(super) async fn flood(&mut self, until: Instant) {
        for _ in 0..FLOOD {
            let Some((peer, pending)) = self.compose(100) else {
                return;
            };
            let alone = self.memory.talk(&peer).pending.len() == 1;
            if Instant::now() > until || !alone || !self.call_send(&peer, &pending).await {
                return;
            }
            self.world.did(Behaviour::SendUnary);
        }
    }

    /// Several messages at once; returns whether any was sent.
    pub(super) fn burst(&mut self, stream: &Stream) -> bool {
        let big = self.rng.percent(30);
        let (count, big_percent) = if big {
            (self.rng.between(6, 12), 100)
        } else {
            (self.rng.between(2, 8), BIG_PERCENT)
        };
        let mut any = false;
        for _ in 0..count {
            let Some((peer, pending)) = self.compose(big_percent) else {
                continue;
            };
            any |=
                self.is_first(&peer, &pending.message_id) && self.say_send(stream, &peer, &pending);
        }
        any
    }

    /// Sends again what is not settled, the oldest first.
    pub(super) async fn resend(&mut self, stream: &Stream) {
        for _ in 0..MAX_PENDING {
            let now = Instant::now();
            // To look for many, over a slow way, may take longer than the run has left.
            if now >= self.world.end {
                return;
            }
            let Some((peer, pending)) = self.memory.next_due(now) else {
                return;
            };
            if pending.look && !self.look(stream, &peer, &pending).await {
                return;
            }
            let pending = match self.memory.talk(&peer).pending(&pending.message_id) {
                Some(pending) => pending.clone(),
                None => continue,
            };
            let said = if stream.door() == Door::Subscribe {
                self.call_send(&peer, &pending).await
            } else {
                self.say_send(stream, &peer, &pending)
            };
            if !said {
                return;
            }
        }
    }

    /// Looks through what follows `after_seq`, and raises it, unless the message
    /// itself is found.
    async fn look(&mut self, stream: &Stream, peer: &str, pending: &Pending) -> bool {
        let (world, chat) = (self.world.clone(), stream.link.chat.clone());
        let listed = calls::list(&world, chat, (&self.user, peer), pending.after_seq).await;
        let Ok(messages) = listed else {
            return false;
        };
        let user = self.user.clone();
        let talk = self.memory.talk(peer);
        let is_it = |e: &&Envelope| e.sender == user && e.message_id == pending.message_id;
        if messages.iter().any(|envelope| is_it(&envelope)) {
            talk.settle(&pending.message_id);
        } else if let (Some(pending), Some(last)) =
            (talk.pending(&pending.message_id), messages.last())
        {
            pending.after_seq = last.seq;
            pending.look = false;
        }
        true
    }

    fn say_send(&mut self, stream: &Stream, peer: &str, pending: &Pending) -> bool {
        let number = self.world.recorder.number();
        let event = Event::Send(Send {
            try_number: number,
            lane: stream.session,
            session: Some(stream.session),
            user: self.user.clone(),
            peer: peer.to_owned(),
            message_id: pending.message_id.clone(),
            after_seq: Some(pending.after_seq),
            body: digest(&pending.text),
        });
        let frame = Up::SendMessage(wire::SendMessage {
            peer: peer.to_owned(),
            message_id: Some(pending.message_id.clone()),
            after_seq: Some(pending.after_seq),
            body: Some(calls::body(&pending.text)),
        });
        let said = stream.say(&self.world, number, event, frame);
        if said {
            self.tried(peer, &pending.message_id, true);
        }
        said
    }

    fn tried(&mut self, peer: &str, message_id: &str, in_flight: bool) {
        if let Some(pending) = self.memory.talk(peer).pending(message_id) {
            if pending.tries > 0 {
                self.world.did(Behaviour::RetryUnanswered);
            }
            pending.tries += 1;
            pending.in_flight = in_flight;
        }
    }

    /// One try by the unary call; false if it has to be tried again.
    async fn call_send(&mut self, peer: &str, pending: &Pending) -> bool {
        self.tried(peer, &pending.message_id, false);
        // A way of its own: the stream's may be full.
        let (chat, gate) = self.world.link(&self.way, 64 * 1024);
        let world = self.world.clone();
        let users = (self.user.clone(), peer);
        let call = calls::send(&world, chat, (&users.0, users.1), pending);
        let outcome = self.call(call, &gate).await;
        let talk = self.memory.talk(peer);
        match outcome {
            Ok(Outcome::Stored { seq, duplicate }) => {
                talk.known = talk.known.max(seq);
                talk.settle(&pending.message_id);
                if duplicate {
                    self.world.did(Behaviour::Duplicate);
                }
                return true;
            }
            Ok(Outcome::Rejected) => talk.settle(&pending.message_id),
            Ok(Outcome::TooOld) => {
                if let Some(pending) = talk.pending(&pending.message_id) {
                    pending.look = true;
                }
            }
            Ok(Outcome::NotSettled(wait)) => {
                if let Some(pending) = talk.pending(&pending.message_id) {
                    pending.due = Some(Instant::now() + wait);
                }
            }
            Err(_) => {}
        }
        false
    }

    /// Makes a call. Of who has nothing but calls, some lose their connection
    /// meanwhile: nothing else is in flight when they leave.
    pub(super) async fn call<T>(&mut self, call: impl Future<Output = T>, gate: &Gate) -> T {
        let mut call = std::pin::pin!(call);
        if !self.way.way().has_converse() && self.rng.percent(LOST_PERCENT) {
            let pause = Duration::from_millis(self.rng.between(0, 8));
            if let Ok(answer) = timeout(pause, &mut call).await {
                return answer;
            }
            gate.set(Mode::Cut);
            self.world.did(Behaviour::LeftInFlight);
        }
        call.await
    }

    /// Sends again what was answered: it must be a duplicate.
    pub(super) async fn retry_answered(&mut self, stream: &Stream) {
        let peer = self.any_peer();
        let settled = self.memory.talk(&peer).settled.clone();
        let index = self.rng.index(settled.len());
        let Some(pending) = settled.get(index) else {
            return;
        };
        self.world.did(Behaviour::RetryAnswered);
        if stream.door() == Door::Subscribe || self.rng.percent(30) {
            self.call_send(&peer, pending).await;
        } else {
            self.say_send(stream, &peer, pending);
        }
    }

    /// Sends again what is on its way.
    pub(super) fn retry_in_flight(&mut self, stream: &Stream) {
        let peer = self.any_peer();
        let mut pending = self.memory.talk(&peer).pending.iter();
        let in_flight = pending.find(|pending| pending.in_flight).cloned();
        if let Some(pending) = in_flight {
            self.say_send(stream, &peer, &pending);
        }
    }
}
