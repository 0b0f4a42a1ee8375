//! What a client tells, as it stands in the record.

use anyhow::{Result, bail};
use duologue_client::{Content, Event as Rust};
use tokio::time::Instant;

use super::app::Told;
use super::behaviour::Behaviour;
use super::client::Actor;
use super::node::{Event as Node, State};
use crate::event::{Cursor, Envelope, Event, Refused, Stored, User, digest};

impl Actor {
    /// Records an event; fails if the client says that it cannot go on.
    pub(super) fn take(&mut self, told: Told) -> Result<()> {
        match told {
            Told::Rust(told) => self.take_rust(told),
            Told::Node(told) => self.take_node(told),
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "events of later versions are none of this record"
    )]
    fn take_rust(&mut self, told: Rust) -> Result<()> {
        let session = self.session;
        match told {
            Rust::Connected(_) => self.welcome(),
            Rust::Disconnected { cause, .. } => {
                self.connected = false;
                if cause.contains("expired") {
                    self.world.did(Behaviour::TokenExpired);
                }
                self.world.note(Event::Disconnect { session, cause });
            }
            Rust::Message(message) => {
                let Content::Text(text) = &message.content else {
                    return Ok(());
                };
                self.shown(
                    message.peer.to_string(),
                    Envelope {
                        seq: message.seq.0,
                        message_id: message.message_id.to_string(),
                        sender: message.sender.to_string(),
                        recipient: String::new(),
                        accepted_at: message.accepted_at.0,
                        body: digest(text),
                    },
                );
            }
            Rust::Stored(stored) => self.stored(Stored {
                try_number: None,
                session: Some(session),
                user: self.user.clone(),
                peer: stored.peer.to_string(),
                message_id: stored.message_id.to_string(),
                seq: stored.seq.0,
                duplicate: stored.duplicate,
                accepted_at: stored.accepted_at.0,
            }),
            Rust::Rejected(rejected) => {
                let reason = format!("{:?}", rejected.reason);
                self.rejected(rejected.message_id.to_string(), reason);
            }
            Rust::Deferred {
                message_id, reason, ..
            } => {
                let refused = self.refused(message_id.to_string(), format!("{reason:?}"));
                self.world.note(Event::Deferred(refused));
            }
            Rust::Delivered { peer, seq } => {
                let peer = peer.to_string();
                self.shown.entry(peer.clone()).or_default().delivered = seq.0;
                self.receipt(peer);
            }
            Rust::Read { peer, seq } => {
                let peer = peer.to_string();
                self.shown.entry(peer.clone()).or_default().read = seq.0;
                self.receipt(peer);
            }
            Rust::OwnCursor { peer, cursor } => self.world.note(Event::Receipt {
                session,
                peer: peer.to_string(),
                user: self.user.clone(),
                cursor: Cursor {
                    delivered: cursor.delivered.0,
                    read: cursor.read.0,
                },
            }),
            Rust::CaughtUp => {
                let token = String::new();
                self.world.note(Event::CaughtUp { session, token });
            }
            Rust::Superseded => {
                self.lost = true;
                self.connected = false;
                self.world.did(Behaviour::Superseded);
            }
            Rust::Stopped(reason) => {
                self.lost = true;
                self.connected = false;
                let reason = format!("{reason:?}");
                self.world.note(Event::Stopped { session, reason });
            }
            Rust::HistoryChanged => bail!("{} is told of another history", self.user),
            _ => {}
        }
        Ok(())
    }

    fn take_node(&mut self, told: Node) -> Result<()> {
        let session = self.session;
        match told {
            Node::Connected { device } => {
                self.named = device;
                self.welcome();
            }
            Node::State { state } => self.changed(state),
            Node::Message { message } => {
                let Some(text) = message.text else {
                    return Ok(());
                };
                if message.sender != self.user || message.peer == self.user {
                    // It is delivered by being taken, which is said next.
                    self.moves(message.peer.clone(), message.seq, 0);
                }
                let envelope = Envelope {
                    seq: message.seq,
                    message_id: message.id,
                    sender: message.sender,
                    recipient: String::new(),
                    accepted_at: message.accepted_at,
                    body: digest(&text),
                };
                self.shown(message.peer, envelope);
            }
            Node::Stored {
                message_id,
                peer,
                seq,
                accepted_at,
                duplicate,
            } => self.stored(Stored {
                try_number: None,
                session: Some(session),
                user: self.user.clone(),
                peer,
                message_id,
                seq,
                duplicate,
                accepted_at,
            }),
            Node::Rejected { message_id, reason } => self.rejected(message_id, reason),
            Node::Deferred { message_id, reason } => {
                let refused = self.refused(message_id, reason);
                self.world.note(Event::Deferred(refused));
            }
            Node::Receipt {
                peer,
                delivered,
                read,
            } => {
                self.shown.insert(peer.clone(), Cursor { delivered, read });
                self.receipt(peer);
            }
            Node::OwnCursor {
                peer,
                delivered,
                read,
            } => self.world.note(Event::Receipt {
                session,
                peer,
                user: self.user.clone(),
                cursor: Cursor { delivered, read },
            }),
            Node::CaughtUp => {
                let token = String::new();
                self.world.note(Event::CaughtUp { session, token });
            }
            Node::HistoryChanged => bail!("{} is told of another history", self.user),
            Node::Other => {}
        }
        Ok(())
    }

    fn changed(&mut self, state: State) {
        let session = self.session;
        let lost = match state.kind.as_str() {
            "connected" | "catching-up" => return,
            "superseded" => {
                self.world.did(Behaviour::Superseded);
                true
            }
            "stopped" => {
                let reason = format!("{}: {}", state.reason, state.detail);
                self.world.note(Event::Stopped { session, reason });
                true
            }
            _ => false,
        };
        self.lost |= lost;
        if std::mem::take(&mut self.connected) {
            let cause = format!("{}: {}", state.kind, state.cause);
            self.world.note(Event::Disconnect { session, cause });
        }
    }

    fn welcome(&mut self) {
        let session = self.session;
        self.connected = true;
        self.last_connected = Instant::now();
        self.world.note(Event::Welcome { session });
        self.world.opened(session);
    }

    /// A message, whose recipient follows from its sender.
    fn shown(&mut self, peer: User, mut envelope: Envelope) {
        envelope.recipient = if envelope.sender == self.user {
            peer.clone()
        } else {
            self.user.clone()
        };
        let held = self.held.entry(peer).or_default();
        *held = (*held).max(envelope.seq);
        self.world.note(Event::Delivered {
            session: self.session,
            envelope,
        });
    }

    fn stored(&mut self, stored: Stored) {
        self.outstanding.remove(&stored.message_id);
        self.world.note(Event::Stored(stored));
    }

    fn rejected(&mut self, message_id: String, reason: String) {
        self.outstanding.remove(&message_id);
        let refused = self.refused(message_id, reason);
        self.world.note(Event::Rejected(refused));
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
