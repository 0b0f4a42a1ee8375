//! Relays what is durable to the sessions that should see it.
//!
//! A relay is a hint (design §4): nothing depends on its arrival. But the order
//! "append, then look up, then relay" does matter, so a router is only ever given
//! what history has answered to be stored.

use std::sync::Arc;

use duologue_proto::ids::{SessionId, UserId};
use duologue_proto::message::{Cursor, Envelope};
use duologue_proto::presence::Route;

use crate::registry::Registry;
use crate::relay::{Announcement, News, Relay};

/// Reaches this node's sessions directly and those of other nodes by [`Relay`].
pub(crate) struct Router {
    registry: Arc<Registry>,
    /// None where there is one node: then nothing is looked up.
    others: Option<Relay>,
}

impl Router {
    pub(crate) fn new(registry: Arc<Registry>, others: Option<Relay>) -> Self {
        Self { registry, others }
    }

    /// Relays durable messages of one conversation to every session of both users
    /// but `origin`, which has its answers.
    pub(crate) fn messages(&self, run: Vec<Envelope>, origin: Option<&SessionId>) {
        let Some(first) = run.first() else { return };
        let users = first.conversation();
        let run: Arc<[Envelope]> = run.into();
        for user in users.users() {
            self.registry.tell(user, origin, |handle| {
                handle.inbox.announce(&handle.user, &run);
            });
        }
        if self.others.is_some() {
            self.pass_on(Announcement::messages(run));
        }
    }

    /// Relays a user's cursor in the conversation with `peer`.
    pub(crate) fn cursor(
        &self,
        user: &UserId,
        peer: &UserId,
        cursor: Cursor,
        origin: Option<&SessionId>,
    ) {
        self.registry.tell(user, origin, |handle| {
            handle.inbox.receipt(peer, user, cursor);
        });
        if user != peer {
            self.registry.tell(peer, origin, |handle| {
                handle.inbox.receipt(user, user, cursor);
            });
        }
        self.pass_on(Announcement::Cursor {
            user: user.clone(),
            peer: peer.clone(),
            cursor,
        });
    }

    /// Ends the session of a route that was replaced.
    pub(crate) fn supersede(&self, route: Route) {
        self.registry.supersede(&route.user, &route.session);
        self.pass_on(Announcement::Superseded(Box::new(route)));
    }

    /// Tells the other nodes that a session of a user came in force or left.
    pub(crate) fn presence(&self, user: &UserId) {
        if self.others.is_some() {
            self.pass_on(Announcement::Presence(user.clone()));
        }
    }

    /// Tells this node's sessions of a user what another node says.
    pub(crate) fn tell(&self, user: &UserId, news: &News) {
        self.registry.tell(user, None, |handle| {
            for run in &news.runs {
                handle.inbox.announce(user, run);
            }
            for (peer, seq) in &news.raised {
                handle.inbox.raise(peer, *seq);
            }
            for ((peer, whose), cursor) in &news.receipts {
                handle.inbox.receipt(peer, whose, *cursor);
            }
            if news.resync {
                handle.inbox.confirm();
            }
        });
        for session in &news.superseded {
            self.registry.supersede(user, session);
        }
    }

    /// Has every session of this node sync: what happened is not known.
    pub(crate) fn tell_everyone(&self) {
        self.registry.tell_everyone(|handle| {
            handle.inbox.confirm();
            handle.inbox.presence_lost();
        });
    }

    /// Waits until the other nodes have been told everything.
    pub(crate) async fn idle(&self) {
        if let Some(others) = &self.others {
            others.idle().await;
        }
    }

    /// Hands to the other nodes what this one's sessions were told.
    pub(crate) fn pass_on(&self, announcement: Announcement) {
        if let Some(others) = &self.others {
            others.relay(announcement);
        }
    }
}
