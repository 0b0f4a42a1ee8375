//! Both users' cursors: what is asked of the server, and what it tells.

use std::time::Duration;

use duologue_proto::chat::v1 as wire;
use duologue_proto::ids::{Seq, UserId};
use duologue_proto::message::Cursor;

use super::{At, Handover, Session};
use crate::event::Event;
use crate::limits::{CURSOR_INTERVAL, RETRY_DELAY};

impl Session {
    /// Moves the user's read cursor.
    pub(crate) fn mark_read(&mut self, peer: &UserId, seq: Seq, now: Duration) {
        self.want_cursor(peer, Cursor::asked(None, Some(seq)), now);
    }

    /// Moves the user's delivered cursor.
    pub(crate) fn mark_delivered(&mut self, peer: &UserId, seq: Seq, now: Duration) {
        self.want_cursor(peer, Cursor::asked(Some(seq), None), now);
    }

    fn want_cursor(&mut self, peer: &UserId, cursor: Cursor, now: Duration) {
        // A place in the history before, as long as the application cannot know better.
        if self.untaken_histories > 0 {
            return;
        }
        let conversation = self.conversations.touch(peer);
        conversation.known_own = conversation.known_own.max(cursor);
        if conversation.wanted.covers(cursor) {
            return;
        }
        conversation.wanted = conversation.wanted.max(cursor);
        self.cursors_due.insert(peer.clone());
        self.save_soon(now);
    }

    /// No cursor that was asked for counts as asked for any longer.
    pub(super) fn refuse_cursors(&mut self) {
        self.cursors_due.clear();
        self.cursors_at = Duration::ZERO;
        for conversation in self.conversations.iter_mut() {
            conversation.asked = conversation.confirmed;
        }
    }

    pub(super) fn next_cursor(&mut self, now: Duration) -> Option<wire::AdvanceCursor> {
        while self.cursors_at <= now {
            let peer = self.cursors_due.pop_first()?;
            if self.cursors_due.is_empty() {
                self.cursors_at = now + CURSOR_INTERVAL;
            }
            if let Some(frame) = self.ask_cursor(&peer) {
                return Some(frame);
            }
        }
        None
    }

    fn ask_cursor(&mut self, peer: &UserId) -> Option<wire::AdvanceCursor> {
        let conversation = self.conversations.get_mut(peer)?;
        if !conversation.is_to_be_asked() {
            return None;
        }
        conversation.asked = conversation.wanted;
        Some(advance_cursor(peer, conversation.wanted))
    }

    pub(super) fn on_cursor_stored(&mut self, stored: &wire::CursorStored, at: At) {
        let (Ok(peer), Some(cursor)) = (UserId::parse(&stored.peer), &stored.cursor) else {
            return;
        };
        // It may be further on than what was asked for: another device has moved it.
        self.on_own_receipt(peer, Cursor::from_wire(cursor));
        self.save_soon(at.now);
    }

    pub(super) fn on_cursor_rejected(&mut self, rejected: &wire::CursorRejected, at: At) {
        let Ok(peer) = UserId::parse(&rejected.peer) else {
            return;
        };
        let Some(conversation) = self.conversations.get_mut(&peer) else {
            return;
        };
        if rejected.reason() == wire::CursorRejectedReason::Unavailable {
            conversation.asked = conversation.confirmed;
            self.cursors_due.insert(peer);
            self.cursors_at = self.cursors_at.max(at.now + RETRY_DELAY);
        } else {
            // It will never be taken; what comes after it may.
            conversation.wanted = conversation.confirmed;
            conversation.known_own = conversation.confirmed;
            conversation.asked = conversation.confirmed;
            self.save_soon(at.now);
        }
    }

    pub(super) fn on_receipt(&mut self, receipt: &wire::ReceiptAdvanced, at: At) {
        let (Ok(peer), Ok(user), Some(cursor)) = (
            UserId::parse(&receipt.peer),
            UserId::parse(&receipt.user),
            &receipt.cursor,
        ) else {
            return;
        };
        let cursor = Cursor::from_wire(cursor);
        if self.user.as_ref() == Some(&user) {
            self.on_own_receipt(peer, cursor);
        } else {
            self.on_peer_receipt(peer, cursor);
        }
        self.save_soon(at.now);
    }

    fn on_own_receipt(&mut self, peer: UserId, cursor: Cursor) {
        let conversation = self.conversations.touch(&peer);
        let news = !conversation
            .confirmed
            .max(conversation.wanted)
            .covers(cursor);
        conversation.confirmed = conversation.confirmed.max(cursor);
        conversation.wanted = conversation.wanted.max(cursor);
        if news {
            let cursor = conversation.wanted;
            let handover = Handover::OwnCursor {
                peer: peer.clone(),
                cursor,
            };
            self.emit(Event::OwnCursor { peer, cursor }, Some(handover));
        }
    }

    fn on_peer_receipt(&mut self, peer: UserId, cursor: Cursor) {
        let conversation = self.conversations.touch(&peer);
        let shown = conversation.peer_cursor;
        let cursor = shown.max(cursor);
        conversation.peer_cursor = cursor;
        let handover = |delivered, read| {
            let peer = peer.clone();
            let cursor = Cursor { delivered, read };
            Some(Handover::PeerCursor { peer, cursor })
        };
        if cursor.delivered > shown.delivered {
            let (peer, seq) = (peer.clone(), cursor.delivered);
            let taken = handover(seq, Seq::ZERO);
            self.emit(Event::Delivered { peer, seq }, taken);
        }
        if cursor.read > shown.read {
            let seq = cursor.read;
            let taken = handover(Seq::ZERO, seq);
            self.emit(Event::Read { peer, seq }, taken);
        }
    }
}

pub(super) fn advance_cursor(peer: &UserId, cursor: Cursor) -> wire::AdvanceCursor {
    wire::AdvanceCursor {
        peer: peer.as_str().to_owned(),
        delivered: Some(cursor.delivered.0),
        read: (cursor.read > Seq::ZERO).then_some(cursor.read.0),
    }
}
