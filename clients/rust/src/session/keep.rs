//! What outlives the process, and when it may be forgotten.
//!
//! A position, a cursor, a sync token or the end of a message's life is kept only
//! after the application has taken the event that tells it. So a crash repeats
//! events, and never skips one.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use duologue_proto::ids::{DeviceId, InvalidId, MessageId, Seq, UserId};
use duologue_proto::limits::MAX_POSITIONS;
use duologue_proto::message::Cursor;

use super::{Conversations, DEFAULT_SILENCE, Handover, Options, Phase, Session};
use crate::backoff::Backoff;
use crate::conversations::Conversation;
use crate::outbox::{Outbox, State};
use crate::saved::{Saved, SavedConversation, SavedMessage};

impl Session {
    /// A session that continues from saved state; it connects at its first tick.
    pub(crate) fn new(saved: Saved, options: Options) -> Result<Self, InvalidId> {
        let mut session = Self {
            options,
            device: DeviceId::parse(&saved.device_id)?,
            user: match saved.user.as_str() {
                "" => None,
                user => Some(UserId::parse(user)?),
            },
            connect_number: saved.connect_number,
            sure_number: saved.sure_number,
            trusts_clock: true,
            history_id: saved.history_id,
            untaken_histories: 0,
            token: saved.sync_token.clone(),
            kept_token: saved.sync_token,
            conversations: Conversations::default(),
            outbox: Outbox::default(),
            phase: Phase::Waiting {
                until: Duration::ZERO,
            },
            link: 0,
            backoff: Backoff::default(),
            fresh_token: false,
            refusal: String::new(),
            silence: DEFAULT_SILENCE,
            abandons: VecDeque::new(),
            cursors_due: BTreeSet::new(),
            cursors_at: Duration::ZERO,
            events: VecDeque::new(),
            last_event: 0,
            handover: VecDeque::new(),
            save_now: false,
            save_at: None,
        };
        if saved.is_history_untold {
            session.tell_history();
        }
        // The least recently active first, so that activity is as it was.
        for saved in saved.conversations.iter().rev() {
            let peer = UserId::parse(&saved.peer)?;
            restore(session.conversations.touch(&peer), saved);
        }
        for saved in saved.outbox {
            let peer = UserId::parse(&saved.peer)?;
            let id = MessageId::parse(&saved.message_id)?;
            let after_seq = Seq(saved.after_seq);
            session.outbox.push(&peer, id, after_seq, saved.text, true);
        }
        Ok(session)
    }

    /// The application has taken every event up to this number.
    pub(crate) fn handed_over(&mut self, up_to: u64, now: Duration) {
        while let Some((number, _)) = self.handover.front()
            && *number <= up_to
        {
            if let Some((_, handover)) = self.handover.pop_front() {
                self.keep(handover, now);
            }
        }
    }

    /// Whether the state must be saved before anything else.
    pub(crate) fn must_save(&self) -> bool {
        self.save_now
    }

    /// Whether there is something that a later save would keep.
    pub(crate) fn is_unsaved(&self) -> bool {
        self.save_now || self.save_at.is_some()
    }

    /// [`Self::snapshot`] as of now is saved.
    pub(crate) fn saved(&mut self) {
        self.save_now = false;
        self.save_at = None;
    }

    /// What shall be there after a restart.
    pub(crate) fn snapshot(&self) -> Saved {
        Saved {
            device_id: self.device.as_str().to_owned(),
            user: self.user.as_ref().map(text).unwrap_or_default(),
            connect_number: self.connect_number,
            sure_number: self.sure_number,
            history_id: self.history_id.clone(),
            is_history_untold: self.untaken_histories > 0,
            sync_token: self.kept_token.clone(),
            conversations: self.saved_conversations(),
            outbox: self.saved_outbox(),
        }
    }

    fn keep(&mut self, handover: Handover, now: Duration) {
        match handover {
            Handover::Position { peer, seq, deliver } => {
                if let Some(conversation) = self.conversations.get_mut(&peer) {
                    conversation.kept = Some(seq);
                }
                if deliver && self.options.mark_delivered {
                    self.mark_delivered(&peer, seq, now);
                }
            }
            Handover::Token(token) => self.kept_token = token,
            Handover::OwnCursor { peer, cursor } => {
                if let Some(conversation) = self.conversations.get_mut(&peer) {
                    conversation.known_own = conversation.known_own.max(cursor);
                }
            }
            Handover::PeerCursor { peer, cursor } => {
                if let Some(conversation) = self.conversations.get_mut(&peer) {
                    conversation.known_peer = conversation.known_peer.max(cursor);
                }
            }
            Handover::History => self.untaken_histories -= 1,
            Handover::Settled(_) => {}
        }
        self.save_soon(now);
    }

    /// The most recently active, and every one with an unconfirmed cursor.
    fn saved_conversations(&self) -> Vec<SavedConversation> {
        let all = self.conversations.by_activity().into_iter().enumerate();
        all.filter(|(place, (_, it))| *place < MAX_POSITIONS || it.is_unconfirmed())
            .map(|(_, (peer, conversation))| saved_conversation(peer, conversation))
            .collect()
    }

    /// What is settled stays until the application knows it: sent again, it is
    /// answered as a duplicate.
    fn saved_outbox(&self) -> Vec<SavedMessage> {
        let settled = self
            .handover
            .iter()
            .filter_map(|(_, handover)| match handover {
                Handover::Settled(message) => Some(message.clone()),
                Handover::Position { .. }
                | Handover::Token(_)
                | Handover::OwnCursor { .. }
                | Handover::PeerCursor { .. }
                | Handover::History => None,
            });
        let unsettled = self
            .outbox
            .messages()
            .filter(|(_, pending)| pending.state != State::Abandoned)
            .map(|(peer, pending)| SavedMessage {
                message_id: pending.id.as_str().to_owned(),
                peer: text(peer),
                after_seq: pending.after_seq.0,
                text: pending.text.clone(),
            });
        settled.chain(unsettled).collect()
    }
}

fn text(user: &UserId) -> String {
    user.as_str().to_owned()
}

fn saved_conversation(peer: &UserId, conversation: &Conversation) -> SavedConversation {
    SavedConversation {
        peer: text(peer),
        position: conversation.kept.map(|seq| seq.0),
        known: conversation.known.0,
        delivered: conversation.known_own.delivered.0,
        read: conversation.known_own.read.0,
        unconfirmed: conversation.is_unconfirmed(),
        peer_delivered: conversation.known_peer.delivered.0,
        peer_read: conversation.known_peer.read.0,
    }
}

fn restore(conversation: &mut Conversation, saved: &SavedConversation) {
    let cursor = |delivered, read| Cursor::asked(Some(Seq(delivered)), Some(Seq(read)));
    conversation.position = saved.position.map(Seq);
    conversation.kept = conversation.position;
    conversation.known = Seq(saved.known);
    conversation.wanted = cursor(saved.delivered, saved.read);
    conversation.known_own = conversation.wanted;
    conversation.confirmed = if saved.unconfirmed {
        Cursor::default()
    } else {
        conversation.wanted
    };
    conversation.asked = conversation.confirmed;
    conversation.peer_cursor = cursor(saved.peer_delivered, saved.peer_read);
    conversation.known_peer = conversation.peer_cursor;
}
