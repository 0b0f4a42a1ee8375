//! What the Rust client tells, as it stands in the record.

use anyhow::{Result, bail};
use duologue_client::{Content, Event as Told, Message, Stored as ToldStored};

use tokio::time::Instant;

use super::behaviour::Behaviour;
use super::client::Actor;
use crate::event::{Cursor, Envelope, Event, Refused, Stored, digest};

impl Actor {
    /// Records an event; fails if the client says that it cannot go on.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "events of later versions are none of this record"
    )]
    pub(super) fn take(&mut self, told: Told) -> Result<()> {
        let session = self.session;
        match told {
            Told::Connected(_) => {
                self.connected = true;
                self.last_connected = Instant::now();
                self.world.note(Event::Welcome { session });
                self.world.opened(session);
            }
            Told::Disconnected { cause, .. } => {
                self.connected = false;
                if cause.contains("expired") {
                    self.world.did(Behaviour::TokenExpired);
                }
                self.world.note(Event::Disconnect { session, cause });
            }
            Told::Message(message) => self.shown(&message),
            Told::Stored(stored) => self.stored(stored),
            Told::Rejected(rejected) => {
                let id = rejected.message_id.to_string();
                self.outstanding.remove(&id);
                let refused = self.refused(id, format!("{:?}", rejected.reason));
                self.world.note(Event::Rejected(refused));
            }
            Told::Deferred {
                message_id, reason, ..
            } => {
                let refused = self.refused(message_id.to_string(), format!("{reason:?}"));
                self.world.note(Event::Deferred(refused));
            }
            Told::Delivered { peer, seq } => {
                let peer = peer.to_string();
                self.shown.entry(peer.clone()).or_default().delivered = seq.0;
                self.receipt(peer);
            }
            Told::Read { peer, seq } => {
                let peer = peer.to_string();
                self.shown.entry(peer.clone()).or_default().read = seq.0;
                self.receipt(peer);
            }
            Told::OwnCursor { peer, cursor } => self.world.note(Event::Receipt {
                session,
                peer: peer.to_string(),
                user: self.user.clone(),
                cursor: Cursor {
                    delivered: cursor.delivered.0,
                    read: cursor.read.0,
                },
            }),
            Told::CaughtUp => {
                let token = String::new();
                self.world.note(Event::CaughtUp { session, token });
            }
            Told::Superseded => {
                self.lost = true;
                self.connected = false;
                self.world.did(Behaviour::Superseded);
            }
            Told::Stopped(reason) => {
                self.lost = true;
                self.connected = false;
                let reason = format!("{reason:?}");
                self.world.note(Event::Stopped { session, reason });
            }
            Told::HistoryChanged => bail!("{} is told of another history", self.user),
            _ => {}
        }
        Ok(())
    }

    fn shown(&mut self, message: &Message) {
        let Content::Text(text) = &message.content else {
            return;
        };
        let sender = message.sender.to_string();
        let peer = message.peer.to_string();
        let recipient = if sender == self.user {
            peer.clone()
        } else {
            self.user.clone()
        };
        let held = self.held.entry(peer).or_default();
        *held = (*held).max(message.seq.0);
        self.world.note(Event::Delivered {
            session: self.session,
            envelope: Envelope {
                seq: message.seq.0,
                message_id: message.message_id.to_string(),
                sender,
                recipient,
                accepted_at: message.accepted_at.0,
                body: digest(text),
            },
        });
    }

    fn stored(&mut self, stored: ToldStored) {
        let message_id = stored.message_id.to_string();
        self.outstanding.remove(&message_id);
        self.world.note(Event::Stored(Stored {
            try_number: None,
            session: Some(self.session),
            user: self.user.clone(),
            peer: stored.peer.to_string(),
            message_id,
            seq: stored.seq.0,
            duplicate: stored.duplicate,
            accepted_at: stored.accepted_at.0,
        }));
    }

    fn receipt(&self, peer: String) {
        let cursor = self.shown.get(&peer).copied().unwrap_or_default();
        self.world.note(Event::Receipt {
            session: self.session,
            user: peer.clone(),
            peer,
            cursor,
        });
    }

    fn refused(&self, message_id: String, reason: String) -> Refused {
        Refused {
            try_number: None,
            user: self.user.clone(),
            message_id,
            reason,
        }
    }
}
