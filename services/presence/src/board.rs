//! What watchers have been told of each user, and the order of telling.
//!
//! A reading of the directory takes a ticket before it begins. What it finds is
//! published only if no reading with a later ticket was: so the last word is of
//! a reading that began after every change this process made, however the
//! readings overtake each other. Whoever asks is answered with what the board
//! shows, so that no answer contradicts the events that follow it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use duologue_proto::ids::{UnixMillis, UserId};
use duologue_proto::presence::UserPresence;
use tokio::sync::broadcast;

/// Users who are shown online, and those who are being read.
#[derive(Debug)]
pub(crate) struct Board {
    posts: Mutex<Posts>,
    changes: broadcast::Sender<UserPresence>,
}

#[derive(Debug, Default)]
struct Posts {
    last_ticket: u64,
    users: BTreeMap<UserId, Post>,
}

#[derive(Debug, Default)]
struct Post {
    shown: State,
    /// The ticket of the reading that is shown.
    ticket: u64,
    /// While there are readings the post stays, so that a late one finds that
    /// it is late.
    readings: usize,
}

/// What is shown of a user. Not to be known is to be offline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) online: bool,
    pub(crate) last_seen: Option<UnixMillis>,
}

/// A reading under way; dropped, it is over.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    board: &'a Board,
    user: &'a UserId,
    ticket: u64,
}

impl Board {
    pub(crate) fn new(max_events: usize) -> Self {
        Self {
            posts: Mutex::default(),
            changes: broadcast::channel(max_events).0,
        }
    }

    pub(crate) fn watch(&self) -> broadcast::Receiver<UserPresence> {
        self.changes.subscribe()
    }

    /// To be called before the directory is read.
    pub(crate) fn begin<'a>(&'a self, user: &'a UserId) -> Reading<'a> {
        let mut posts = self.posts();
        posts.last_ticket += 1;
        let ticket = posts.last_ticket;
        posts.users.entry(user.clone()).or_default().readings += 1;
        Reading {
            board: self,
            user,
            ticket,
        }
    }

    fn posts(&self) -> MutexGuard<'_, Posts> {
        self.posts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reading<'_> {
    /// Publishes what was found, unless a later reading was published; returns
    /// what is shown now. Events are sent under the lock: they are in order.
    pub(crate) fn publish(self, found: State) -> UserPresence {
        let mut posts = self.board.posts();
        let shown = match posts.users.get_mut(self.user) {
            Some(post) if post.ticket > self.ticket => post.shown,
            Some(post) => {
                let changed = post.shown.online != found.online;
                (post.ticket, post.shown) = (self.ticket, found);
                if changed {
                    // An error says that nobody watches.
                    let _ = self.board.changes.send(found.of(self.user));
                }
                found
            }
            // The post stays while this reading does.
            None => found,
        };
        drop(posts);
        shown.of(self.user)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut posts = self.board.posts();
        if let Some(post) = posts.users.get_mut(self.user) {
            post.readings -= 1;
            if post.readings == 0 && !post.shown.online {
                posts.users.remove(self.user);
            }
        }
    }
}

impl State {
    fn of(self, user: &UserId) -> UserPresence {
        UserPresence {
            user: user.clone(),
            online: self.online,
            last_seen: self.last_seen.filter(|_| !self.online),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONLINE: State = State {
        online: true,
        last_seen: None,
    };
    const OFFLINE: State = State {
        online: false,
        last_seen: Some(UnixMillis(60_000)),
    };

    fn drain(watch: &mut broadcast::Receiver<UserPresence>) -> Vec<bool> {
        std::iter::from_fn(|| watch.try_recv().ok())
            .map(|event| event.online)
            .collect()
    }

    #[test]
    fn a_reading_that_is_overtaken_is_not_published_and_answers_what_is_shown() {
        let (board, user) = (Board::new(8), UserId::parse("alice").unwrap());
        let mut watch = board.watch();
        let (early, late) = (board.begin(&user), board.begin(&user));
        assert!(!late.publish(OFFLINE).online);
        let answer = early.publish(ONLINE);
        assert_eq!(
            (answer.online, answer.last_seen),
            (false, OFFLINE.last_seen)
        );
        assert_eq!(drain(&mut watch), Vec::<bool>::new());
    }

    #[test]
    fn only_a_change_is_told_and_in_order() {
        let (board, user) = (Board::new(8), UserId::parse("alice").unwrap());
        let mut watch = board.watch();
        for found in [OFFLINE, ONLINE, ONLINE, OFFLINE, OFFLINE, ONLINE] {
            board.begin(&user).publish(found);
        }
        assert_eq!(drain(&mut watch), [true, false, true]);
    }

    #[test]
    fn a_user_who_is_offline_and_not_being_read_costs_no_memory() {
        let (board, user) = (Board::new(8), UserId::parse("alice").unwrap());
        board.begin(&user).publish(ONLINE);
        assert_eq!(board.posts().users.len(), 1);
        drop(board.begin(&user));
        board.begin(&user).publish(OFFLINE);
        assert_eq!(board.posts().users.len(), 0);
    }
}
