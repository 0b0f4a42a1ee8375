//! What each frame from the server changes.

use std::time::Duration;

use duologue_proto::chat::v1 as wire;
use duologue_proto::chat::v1::converse_response::Frame;
use duologue_proto::ids::{MessageId, Seq, UnixMillis, UserId};

use super::{At, EndKind, Handover, LinkEnd, Phase, Session, silence_of};
use crate::conversations::Arrival;
use crate::event::{
    Content, Event, Message, Presence, Rejected, Session as Opened, StopReason, Stored, duration,
    time,
};
use crate::limits::{MAX_HEARTBEAT_INTERVAL, MAX_RETRY_AFTER, RESEND_DELAY};
use crate::outbox::{Pending, Scan, State};
use crate::saved::SavedMessage;

/// A frame that breaks the contract. The session connects again, from what it
/// has.
struct Fault(&'static str);

impl Session {
    /// A frame came on the open link.
    pub(crate) fn frame(&mut self, response: wire::ConverseResponse, at: At) {
        self.hear(at.now);
        // A kind that this version does not know.
        let Some(frame) = response.frame else { return };
        if let Err(Fault(cause)) = self.on_frame(frame, at) {
            self.ended(LinkEnd::lost(cause), at);
        }
    }

    /// An answer to a [`Scan`]; none if it could not be had.
    pub(crate) fn scanned(
        &mut self,
        scan: &Scan,
        page: Option<wire::ListMessagesResponse>,
        at: At,
    ) {
        if !self.outbox.is_running(scan) {
            return;
        }
        let head = page.as_ref().map(|page| Seq(page.head));
        for envelope in page.into_iter().flat_map(|page| page.messages) {
            let Some(user) = self.user.clone() else {
                return;
            };
            if let Some(message) = Message::from_wire(envelope, &user) {
                self.note_slot(&message, &user);
            }
        }
        self.outbox.scanned(scan, head, at.now);
        self.save_soon(at.now);
    }

    fn on_frame(&mut self, frame: Frame, at: At) -> Result<(), Fault> {
        match frame {
            Frame::Goodbye(goodbye) => self.on_goodbye(&goodbye, at),
            Frame::Welcome(welcome) => self.on_welcome(&welcome, at)?,
            _ if !self.is_welcomed() => return Err(Fault("a frame came before Welcome")),
            Frame::Stored(stored) => self.on_stored(&stored, at),
            Frame::Rejected(rejected) => self.on_rejected(rejected, at),
            Frame::Deferred(deferred) => self.on_deferred(&deferred, at),
            Frame::MessageDelivered(delivered) => self.on_delivered(delivered, at)?,
            Frame::CursorStored(stored) => self.on_cursor_stored(&stored, at),
            Frame::CursorRejected(rejected) => self.on_cursor_rejected(&rejected, at),
            Frame::ReceiptAdvanced(receipt) => self.on_receipt(&receipt, at),
            Frame::PresenceChanged(changed) => self.on_presence(&changed),
            Frame::PresenceReset(wire::PresenceReset {}) => self.emit(Event::PresenceReset, None),
            Frame::CaughtUp(caught_up) => self.on_caught_up(caught_up),
            Frame::Pong(_) | Frame::Heartbeat(_) => {}
        }
        Ok(())
    }

    fn on_welcome(&mut self, welcome: &wire::Welcome, at: At) -> Result<(), Fault> {
        if self.is_welcomed() {
            return Err(Fault("a second Welcome came"));
        }
        let user = UserId::parse(&welcome.user).map_err(|_| Fault("Welcome names no user"))?;
        if let Some(expected) = self.user.clone().filter(|expected| *expected != user) {
            let actual = user;
            self.stop(StopReason::OtherUser { expected, actual });
            return Ok(());
        }
        self.sure_number = self.connect_number;
        self.save_soon(at.now);
        if !self.history_id.is_empty() && self.history_id != welcome.history_id {
            self.ended(LinkEnd::of(EndKind::HistoryChanged, "another history"), at);
            return Ok(());
        }
        if self.user.is_none() || self.history_id.is_empty() {
            self.user = Some(user.clone());
            self.history_id.clone_from(&welcome.history_id);
            self.save_now = true;
        }
        self.phase = Phase::Open {
            welcomed: true,
            heard: at.now,
        };
        self.take_limits(welcome);
        self.emit(Event::Connected(opened(welcome, user)), None);
        Ok(())
    }

    fn take_limits(&mut self, welcome: &wire::Welcome) {
        if let Some(interval) = duration(welcome.heartbeat_interval).filter(|it| !it.is_zero()) {
            self.silence = silence_of(interval.min(MAX_HEARTBEAT_INTERVAL));
        }
        if let Some(limits) = &welcome.limits {
            let max = usize::try_from(limits.max_sends_in_flight).unwrap_or(usize::MAX);
            self.outbox.set_limits(max, limits.max_search.into());
        }
    }

    fn on_stored(&mut self, stored: &wire::Stored, at: At) {
        let Ok(id) = MessageId::parse(&stored.message_id) else {
            return;
        };
        let Some((peer, pending)) = self.outbox.settle(&id) else {
            return; // Found in a delivery before.
        };
        let seq = Seq(stored.seq);
        self.outbox.saw(&peer, seq, Some(&id));
        let accepted_at = time(stored.accepted_at);
        let text = pending.text.clone();
        self.settled(&peer, pending, seq, stored.duplicate, accepted_at);
        if self.conversations.stored(&peer, seq)
            && let Some(sender) = self.user.clone()
        {
            let content = Content::Text(text);
            self.show(Message {
                peer,
                seq,
                message_id: id,
                sender,
                content,
                accepted_at,
            });
        }
        self.save_soon(at.now);
    }

    fn on_rejected(&mut self, rejected: wire::Rejected, at: At) {
        let reason = rejected.reason().into();
        let Ok(id) = MessageId::parse(&rejected.message_id) else {
            return;
        };
        let Some((peer, pending)) = self.outbox.settle(&id) else {
            return;
        };
        let saved = saved(&peer, pending);
        let rejected = Rejected {
            message_id: id,
            peer,
            reason,
            field: rejected.field,
            detail: rejected.detail,
        };
        self.emit(Event::Rejected(rejected), Some(Handover::Settled(saved)));
        self.save_soon(at.now);
    }

    fn on_deferred(&mut self, deferred: &wire::Deferred, at: At) {
        let Ok(message_id) = MessageId::parse(&deferred.message_id) else {
            return;
        };
        let until = at.now + wait_of(deferred);
        let Some(state) = self.outbox.defer(&message_id, until) else {
            // Found elsewhere meanwhile; others must not wait for it.
            self.abandon_on_server(message_id);
            return;
        };
        if state == State::Abandoned {
            self.outbox.settle(&message_id);
            self.abandon_on_server(message_id);
            return;
        }
        let Some(peer) = self.outbox.peer_of(&message_id).cloned() else {
            return;
        };
        if let Some(head) = deferred.head {
            let conversation = self.conversations.touch(&peer);
            conversation.known = conversation.known.max(Seq(head));
        }
        self.after_deferral(deferred.reason(), &message_id, peer, at);
    }

    fn after_deferral(
        &mut self,
        reason: wire::DeferredReason,
        id: &MessageId,
        peer: UserId,
        at: At,
    ) {
        let message_id = id.clone();
        let reason_told = reason.into();
        let event = Event::Deferred {
            message_id,
            peer,
            reason: reason_told,
        };
        self.emit(event, None);
        match reason {
            wire::DeferredReason::AfterSeqTooOld => self.outbox.want_scan(id),
            wire::DeferredReason::AfterSeqAhead => {
                self.ended(
                    LinkEnd::of(EndKind::HistoryChanged, "after_seq above the head"),
                    at,
                );
            }
            wire::DeferredReason::Unspecified
            | wire::DeferredReason::BehindEarlier
            | wire::DeferredReason::RateLimited
            | wire::DeferredReason::Contended
            | wire::DeferredReason::Unavailable => {}
        }
    }

    fn on_delivered(&mut self, delivered: wire::MessageDelivered, at: At) -> Result<(), Fault> {
        let fault = Fault("a delivered message is malformed");
        let (Some(envelope), Some(user)) = (delivered.envelope, self.user.clone()) else {
            return Err(fault);
        };
        let Some(message) = Message::from_wire(envelope, &user).filter(|it| it.seq > Seq::ZERO)
        else {
            return Err(fault);
        };
        self.note_slot(&message, &user);
        match self.conversations.arrive(&message.peer, message.seq) {
            Arrival::Next => self.show(message),
            Arrival::Seen => {}
            Arrival::Gap => return Err(Fault("a message is missing in the stream")),
        }
        self.save_soon(at.now);
        Ok(())
    }

    /// A slot was seen: the own message in it is stored, and others that wait are
    /// not there.
    fn note_slot(&mut self, message: &Message, user: &UserId) {
        let own = (message.sender == *user).then_some(&message.message_id);
        let Some(pending) = self.outbox.saw(&message.peer, message.seq, own) else {
            return;
        };
        if pending.state == State::Deferred {
            self.abandon_on_server(pending.id.clone());
        }
        let duplicate = pending.was_tried_before();
        self.settled(
            &message.peer,
            pending,
            message.seq,
            duplicate,
            message.accepted_at,
        );
    }

    fn settled(
        &mut self,
        peer: &UserId,
        pending: Pending,
        seq: Seq,
        duplicate: bool,
        accepted_at: UnixMillis,
    ) {
        let stored = Stored {
            message_id: pending.id.clone(),
            peer: peer.clone(),
            seq,
            duplicate,
            accepted_at,
        };
        let saved = saved(peer, pending);
        self.emit(Event::Stored(stored), Some(Handover::Settled(saved)));
    }

    /// A message has its place: the position has moved to it.
    fn show(&mut self, message: Message) {
        let from_other = self.user.as_ref() != Some(&message.sender);
        let handover = Handover::Position {
            peer: message.peer.clone(),
            seq: message.seq,
            // In notes to oneself every message reaches its recipient so.
            deliver: from_other || message.sender == message.peer,
        };
        self.keep_start(&message);
        self.emit(Event::Message(message), Some(handover));
    }

    /// Without a token or a position a device begins where the user's other devices have
    /// come to. So one that was killed before either was kept would skip what it had not
    /// shown: where it began is saved before its first message is told.
    fn keep_start(&mut self, first: &Message) {
        let conversation = self.conversations.touch(&first.peer);
        if self.kept_token.is_empty() && conversation.kept.is_none() {
            conversation.kept = Some(Seq(first.seq.0.saturating_sub(1)));
            self.save_now = true;
        }
    }

    fn on_presence(&mut self, changed: &wire::PresenceChanged) {
        if let Some(presence) = changed.presence.as_ref().and_then(Presence::from_wire) {
            self.emit(Event::PresenceChanged(presence), None);
        }
    }

    fn on_caught_up(&mut self, caught_up: wire::CaughtUp) {
        self.backoff.reset();
        self.token.clone_from(&caught_up.sync_token);
        let token = Handover::Token(caught_up.sync_token);
        self.emit(Event::CaughtUp, Some(token));
    }

    fn on_goodbye(&mut self, goodbye: &wire::Goodbye, at: At) {
        let kind = match goodbye.reason() {
            wire::GoodbyeReason::Superseded => EndKind::Superseded,
            wire::GoodbyeReason::Unauthenticated => EndKind::Unauthenticated,
            wire::GoodbyeReason::HistoryChanged => EndKind::HistoryChanged,
            // Trying again with the same `Hello` would not help.
            wire::GoodbyeReason::ProtocolError => EndKind::Refused,
            wire::GoodbyeReason::Unspecified
            | wire::GoodbyeReason::ShuttingDown
            | wire::GoodbyeReason::Resync
            | wire::GoodbyeReason::Idle
            | wire::GoodbyeReason::Internal => EndKind::Lost,
        };
        let reason = goodbye.reason().as_str_name();
        let reason = reason.trim_start_matches("GOODBYE_REASON_").to_lowercase();
        let cause = if goodbye.detail.is_empty() {
            reason
        } else {
            format!("{reason}: {}", goodbye.detail)
        };
        let retry_after = duration(goodbye.retry_after);
        let end = LinkEnd {
            kind,
            cause,
            retry_after,
        };
        self.ended(end, at);
    }
}

/// How long a deferred message is held. Behind another one, that one's delay
/// counts.
fn wait_of(deferred: &wire::Deferred) -> Duration {
    if deferred.reason() == wire::DeferredReason::BehindEarlier {
        return Duration::ZERO;
    }
    let asked = duration(deferred.retry_after).unwrap_or(RESEND_DELAY);
    asked.min(MAX_RETRY_AFTER)
}

fn saved(peer: &UserId, pending: Pending) -> SavedMessage {
    SavedMessage {
        message_id: pending.id.as_str().to_owned(),
        peer: peer.as_str().to_owned(),
        after_seq: pending.after_seq.0,
        text: pending.text,
    }
}

fn opened(welcome: &wire::Welcome, user: UserId) -> Opened {
    let told = welcome.limits.as_ref().map(|limits| limits.max_text_bytes);
    Opened {
        user,
        session_id: welcome.session_id.clone(),
        node_id: welcome.node_id.clone(),
        server_version: welcome.server_version.clone(),
        max_text_bytes: told
            .and_then(|bytes| usize::try_from(bytes).ok())
            .unwrap_or(duologue_proto::limits::MAX_TEXT_BYTES),
    }
}
