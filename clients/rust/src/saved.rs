//! What outlives the process.

use std::fmt;

use duologue_proto::ids::{DeviceId, InvalidId, MessageId, UserId};
use serde::{Deserialize, Serialize};

/// The state of one device of one user. All of it is written at once, so that
/// its parts always belong together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// The device; stable and random.
    pub device_id: String,
    /// The user that this state belongs to; empty before the first session.
    pub user: String,
    /// The last connect number that may have been used.
    pub connect_number: u64,
    /// The last one that a server is known to have taken.
    pub sure_number: u64,
    /// The history that token, positions and `after_seq`s belong to; may be empty.
    pub history_id: String,
    /// The application has not been told yet that this is another history than
    /// before.
    pub is_history_untold: bool,
    /// The last sync token before which everything was handed over; may be empty.
    pub sync_token: String,
    /// The most recently active first.
    pub conversations: Vec<SavedConversation>,
    /// Messages that are not settled, the oldest first per conversation.
    pub outbox: Vec<SavedMessage>,
}

/// The state of one conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedConversation {
    /// The other user.
    pub peer: String,
    /// The last sequence handed over without a gap; none if nothing was.
    pub position: Option<u64>,
    /// The highest sequence known to exist.
    pub known: u64,
    /// The user's delivered cursor as this device wants it; not confirmed if
    /// `unconfirmed`.
    pub delivered: u64,
    /// The user's read cursor as this device wants it.
    pub read: u64,
    /// The server has not confirmed `delivered` and `read`.
    pub unconfirmed: bool,
    /// What was shown of the peer's delivered cursor.
    pub peer_delivered: u64,
    /// What was shown of the peer's read cursor.
    pub peer_read: u64,
}

/// A message that is not settled. What is sent again is exactly this.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedMessage {
    /// The idempotency key.
    pub message_id: String,
    /// The other user of the conversation.
    pub peer: String,
    /// A sequence that existed before the first try, or up to which the client
    /// has looked and not found this message.
    pub after_seq: u64,
    /// What is said.
    pub text: String,
}

/// The text stays out of logs.
impl fmt::Debug for SavedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SavedMessage")
            .field("message_id", &self.message_id)
            .field("peer", &self.peer)
            .field("after_seq", &self.after_seq)
            .finish_non_exhaustive()
    }
}

impl Saved {
    /// The state of a device that has never connected.
    pub fn new(device_id: &DeviceId) -> Self {
        Self {
            device_id: device_id.as_str().to_owned(),
            ..Self::default()
        }
    }

    /// Whether every id follows its rule.
    pub fn check(&self) -> Result<(), InvalidId> {
        DeviceId::parse(&self.device_id)?;
        if !self.user.is_empty() {
            UserId::parse(&self.user)?;
        }
        for conversation in &self.conversations {
            UserId::parse(&conversation.peer)?;
        }
        for message in &self.outbox {
            UserId::parse(&message.peer)?;
            MessageId::parse(&message.message_id)?;
        }
        Ok(())
    }
}
