//! What a device does while its session is open, and what it makes of what it
//! hears.

use std::time::Duration;

use duologue_proto::chat::v1 as wire;
use duologue_proto::chat::v1::converse_request::Frame as Up;
use tokio::time::{Instant, sleep, sleep_until};

use super::behaviour::Behaviour;
use super::calls;
use super::device::Device;
use super::stream::{Heard, Stream};
use crate::event::{Cursor, CursorMove, Door, Event};

/// Time between two things that a device does.
const ACT_MILLIS: (u64, u64) = (10, 120);
/// How long a slow reader does not read.
const STALL_MILLIS: (u64, u64) = (400, 1_800);
/// More than a session's outbox and a stream's window hold.
const OVERFLOW_BYTES: usize = 96 * 1024;
/// What was held back by the server comes within this time.
const BACKLOG: Duration = Duration::from_millis(300);

impl Device {
    /// Lives until then; false if the stream ended before.
    pub(super) async fn live(&mut self, stream: &mut Stream, until: Instant) -> bool {
        let world = self.world.clone();
        let mut welcome = false;
        let mut act = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = sleep_until(until) => return true,
                () = sleep_until(act), if welcome => {
                    self.act(stream).await;
                    let pause = self.rng.between(ACT_MILLIS.0, ACT_MILLIS.1);
                    act = Instant::now() + Duration::from_millis(pause);
                }
                heard = stream.hear(&world) => {
                    welcome |= matches!(heard, Heard::Welcome(_));
                    let ended = matches!(heard, Heard::End(_));
                    self.take(stream, heard);
                    if ended {
                        return false;
                    }
                }
            }
        }
    }

    async fn act(&mut self, stream: &mut Stream) {
        self.resend(stream).await;
        match self.rng.between(0, 99) {
            0..40 => self.send_new(stream, 1).await,
            40..50 => {
                let count = self.rng.between(2, 6);
                self.send_new(stream, count).await;
            }
            50..58 => self.send_unary().await,
            58..66 => self.retry_answered(stream).await,
            66..72 => self.retry_in_flight(stream),
            72..86 => self.move_cursor(stream).await,
            86..89 => self.stall(stream).await,
            89..91 => {
                self.burst(stream);
            }
            _ => {}
        }
    }

    pub(super) fn any_peer(&mut self) -> String {
        // Neighbours first: notes to oneself are rarer.
        let sharp = self.peers.len().saturating_sub(1).max(1);
        let all = self.rng.percent(15);
        let index = self.rng.index(if all { self.peers.len() } else { sharp });
        self.peers[index].clone()
    }

    async fn move_cursor(&mut self, stream: &Stream) {
        let peer = self.any_peer();
        let talk = self.memory.talk(&peer);
        if talk.held == 0 {
            return;
        }
        let held = talk.held;
        // Mostly forward; a move back is harmless.
        let delivered = self.rng.between(held.saturating_sub(3), held);
        let read = self.rng.between(delivered.saturating_sub(5), delivered);
        let asked = Cursor { delivered, read };
        let talk = self.memory.talk(&peer);
        talk.wanted = talk.wanted.max(asked);
        if stream.door() == Door::Subscribe || self.rng.percent(20) {
            self.world.did(Behaviour::CursorMoveUnary);
            let (chat, gate) = self.world.link(&self.way, 64 * 1024);
            let (world, user) = (self.world.clone(), self.user.clone());
            let call = calls::advance(&world, chat, (&user, &peer), asked);
            if let Ok(stored) = self.call(call, &gate).await {
                let talk = self.memory.talk(&peer);
                talk.confirmed = talk.confirmed.max(stored);
            }
            return;
        }
        let number = self.world.recorder.number();
        let event = Event::CursorAsked(CursorMove {
            number,
            session: Some(stream.session),
            user: self.user.clone(),
            peer: peer.clone(),
            cursor: asked,
        });
        let frame = Up::AdvanceCursor(wire::AdvanceCursor {
            peer,
            delivered: Some(delivered),
            read: Some(read),
        });
        if stream.say(&self.world, number, event, frame) {
            self.moves += 1;
            self.world.did(Behaviour::CursorMove);
        }
    }

    /// Does not read for a while; then reads what the server has held back.
    async fn stall(&mut self, stream: &mut Stream) {
        let world = self.world.clone();
        let millis = self.rng.between(STALL_MILLIS.0, STALL_MILLIS.1);
        world.did(Behaviour::SlowReader);
        let until = (Instant::now() + Duration::from_millis(millis)).min(world.end);
        if self.rng.percent(40) {
            self.flood(until).await;
        }
        sleep_until(until).await;
        let end = Instant::now() + BACKLOG;
        let mut bytes = 0;
        loop {
            let heard = tokio::select! {
                biased;
                heard = stream.hear(&world) => heard,
                () = sleep_until(end) => break,
            };
            if let Heard::Delivered(_, length) = &heard {
                bytes += length;
            }
            let ended = matches!(heard, Heard::End(_));
            self.take(stream, heard);
            if ended {
                break;
            }
            // A reader that is not only late but slow.
            if self.rng.percent(5) {
                sleep(Duration::from_millis(2)).await;
            }
        }
        if bytes > OVERFLOW_BYTES {
            world.did(Behaviour::Overflow);
        }
    }

    /// Makes of a frame what a client makes of it.
    pub(super) fn take(&mut self, stream: &Stream, heard: Heard) {
        match heard {
            Heard::Welcome(welcome) => self.memory.history_id = welcome.history_id,
            Heard::Stored(stored) => {
                if stored.duplicate {
                    self.world.did(Behaviour::Duplicate);
                }
                let talk = self.memory.talk(&stored.peer);
                talk.take(stored.seq, false);
                talk.settle(&stored.message_id);
            }
            Heard::Rejected(rejected) => {
                self.memory
                    .talk(&rejected.peer)
                    .settle(&rejected.message_id);
            }
            Heard::Deferred(deferred) => self.on_deferred(stream, &deferred),
            Heard::Delivered(envelope, _) => {
                let peer = envelope.peer_of(&self.user).to_owned();
                let fresh = self.by_cursor && !self.begun.contains(&peer);
                if fresh {
                    self.begun.push(peer.clone());
                }
                let own = envelope.sender == self.user;
                let talk = self.memory.talk(&peer);
                talk.take(envelope.seq, fresh);
                if own {
                    talk.settle(&envelope.message_id);
                }
            }
            Heard::CursorStored(peer, cursor) => {
                self.moves = self.moves.saturating_sub(1);
                let talk = self.memory.talk(&peer);
                talk.confirmed = talk.confirmed.max(cursor);
            }
            Heard::CursorRefused => self.moves = self.moves.saturating_sub(1),
            Heard::CaughtUp(token) => self.memory.token = token,
            Heard::Goodbye(wire::GoodbyeReason::Unauthenticated) => {
                self.world.did(Behaviour::TokenExpired);
            }
            Heard::Goodbye(_) | Heard::Other | Heard::End(_) => {}
        }
    }

    /// A message that is not settled waits. One that is settled was sent again for
    /// nothing: it is taken off the server's list.
    fn on_deferred(&mut self, stream: &Stream, deferred: &wire::Deferred) {
        let asked = deferred
            .retry_after
            .and_then(|wait| Duration::try_from(wait).ok());
        let wait = asked.unwrap_or(Duration::from_millis(20));
        let too_old = deferred.reason() == wire::DeferredReason::AfterSeqTooOld;
        if let Some(pending) = self
            .memory
            .talk(&deferred.peer)
            .pending(&deferred.message_id)
        {
            pending.in_flight = false;
            pending.due = Some(Instant::now() + wait);
            pending.look |= too_old;
            return;
        }
        let message_id = deferred.message_id.clone();
        let event = Event::Abandon {
            lane: stream.session,
            user: self.user.clone(),
            message_id: message_id.clone(),
        };
        stream.say(
            &self.world,
            0,
            event,
            Up::Abandon(wire::Abandon { message_id }),
        );
    }
}
