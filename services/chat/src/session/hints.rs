//! Receipts and presence on their way to the device: the latest of each kind
//! waits until there is room, so that a slow reader gets fewer, never stale ones.

use std::collections::BTreeMap;

use duologue_proto::ids::UserId;
use duologue_proto::limits::MAX_SESSION_CONVERSATIONS;
use duologue_proto::message::Cursor;
use duologue_proto::presence::UserPresence;

use super::Session;
use crate::frame::Down;

/// Users whose presence may wait for a device that does not read.
pub const MAX_PRESENCE: usize = 1_000;
/// Cursors that may wait: both of every conversation.
pub const MAX_RECEIPTS: usize = 2 * MAX_SESSION_CONVERSATIONS;
/// More than a receipt or a presence takes in the outbox.
const HINT_BYTES: usize = 256;

/// What waits to be told.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// By conversation and user.
    receipts: BTreeMap<(UserId, UserId), Cursor>,
    presence: BTreeMap<UserId, UserPresence>,
}

impl Hints {
    pub(super) fn is_empty(&self) -> bool {
        self.receipts.is_empty() && self.presence.is_empty()
    }
}

impl Session {
    pub(super) fn on_receipt(&mut self, peer: UserId, user: UserId, cursor: Cursor) {
        if cursor == Cursor::default() {
            return;
        }
        let waiting = self.hints.receipts.entry((peer, user)).or_default();
        *waiting = waiting.max(cursor);
        if self.hints.receipts.len() > MAX_RECEIPTS {
            self.end_full("too many receipts wait");
        }
    }

    pub(super) fn on_presence(&mut self, presence: UserPresence) {
        self.hints.presence.insert(presence.user.clone(), presence);
        if self.hints.presence.len() > MAX_PRESENCE {
            self.end_full("too many changes of presence wait");
        }
    }

    pub(super) fn proceed_hints(&mut self) {
        while self.has_room_for(HINT_BYTES) {
            if let Some(((peer, user), cursor)) = self.hints.receipts.pop_first() {
                self.push(0, Down::Receipt { peer, user, cursor });
            } else if let Some((_, presence)) = self.hints.presence.pop_first() {
                self.push(0, Down::Presence(presence));
            } else {
                return;
            }
        }
    }
}
