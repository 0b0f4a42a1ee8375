//! Relays what is durable to the sessions that should see it.
//!
//! A relay is a hint (design §4): nothing depends on its arrival. But the order
//! "append, then look up, then relay" does matter, so a router is only ever given
//! what history has answered to be stored.

use std::sync::Arc;

use duologue_proto::ids::{SessionId, UserId};
use duologue_proto::message::{Cursor, Envelope};
use duologue_proto::presence::Route;

use crate::ports::{Announcement, Relay};
use crate::registry::Registry;

/// Reaches this node's sessions directly and those of other nodes by [`Relay`].
pub(crate) struct Router {
    registry: Arc<Registry>,
    /// None where there is one node: then nothing is looked up.
    others: Option<Arc<dyn Relay>>,
}

impl Router {
    pub(crate) fn new(registry: Arc<Registry>, others: Option<Arc<dyn Relay>>) -> Self {
        Self { registry, others }
    }

    /// Relays durable messages of one conversation to every session of both users
    /// but `origin`, which has its answers.
    pub(crate) fn messages(&self, run: Vec<Envelope>, origin: Option<&SessionId>) {
        let announcement = Announcement::Messages(run.into());
        self.deliver(&announcement, origin);
        self.pass_on(announcement);
    }

    /// Relays a user's cursor in the conversation with `peer`.
    pub(crate) fn cursor(
        &self,
        user: &UserId,
        peer: &UserId,
        cursor: Cursor,
        origin: Option<&SessionId>,
    ) {
        let announcement = Announcement::Cursor {
            user: user.clone(),
            peer: peer.clone(),
            cursor,
        };
        self.deliver(&announcement, origin);
        self.pass_on(announcement);
    }

    /// Ends the session of a route that was replaced.
    pub(crate) fn supersede(&self, route: Route) {
        self.registry.supersede(&route.session);
        self.pass_on(Announcement::Superseded(Box::new(route)));
    }

    /// Tells this node's sessions. Returns how many there were: with none, a
    /// relay from another node is answered "not here".
    pub(crate) fn deliver(&self, announcement: &Announcement, origin: Option<&SessionId>) -> usize {
        match announcement {
            Announcement::Messages(run) => {
                let Some(first) = run.first() else { return 0 };
                let tell = |user| {
                    self.registry
                        .tell(user, origin, |h| h.inbox.announce(&h.user, run))
                };
                let told = tell(&first.sender);
                if first.sender == first.recipient {
                    return told;
                }
                told + tell(&first.recipient)
            }
            Announcement::Cursor { user, peer, cursor } => {
                let own = |handle: &crate::registry::Handle| {
                    handle.inbox.receipt(peer, user, *cursor);
                };
                let told = self.registry.tell(user, origin, own);
                if user == peer {
                    return told;
                }
                told + self
                    .registry
                    .tell(peer, origin, |h| h.inbox.receipt(user, user, *cursor))
            }
            Announcement::Superseded(route) => {
                self.registry.supersede(&route.session);
                1
            }
        }
    }

    fn pass_on(&self, announcement: Announcement) {
        if let Some(others) = &self.others {
            others.relay(announcement);
        }
    }
}
