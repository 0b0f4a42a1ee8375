//! What watchers have been told of each user, and the order of telling.
//!
//! A reading of the directory takes a ticket before it begins. What it finds is
//! published only if no reading with a later ticket was: so the last word is of
//! a reading that began after every change this process made, however the
//! readings overtake each other. Whoever asks is answered with what the board
//! shows, so that no answer contradicts the events that follow it.
//!
//! The board also knows whom to read again: who is shown online by a node that
//! died, and who is owed a reading because the last one failed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use duologue_proto::ids::{Incarnation, NodeId, UnixMillis, UserId};
use duologue_proto::presence::UserPresence;
use tokio::sync::broadcast;

/// A start of a node.
pub(crate) type Start = (NodeId, Incarnation);

/// Users who are shown online, and those who are being read.
#[derive(Debug)]
pub(crate) struct Board {
    posts: Mutex<Posts>,
    /// Readings that are owed at most; past it a user is read when somebody asks.
    max_owed: usize,
    changes: broadcast::Sender<UserPresence>,
}

#[derive(Debug, Default)]
struct Posts {
    last_ticket: u64,
    users: BTreeMap<UserId, Post>,
    /// Who is shown online by each start of a node.
    shown_by: BTreeMap<Start, BTreeSet<UserId>>,
    /// Users whose reading failed, and its ticket: only a reading with a later one
    /// began after what that was to find.
    owed: BTreeMap<UserId, u64>,
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) online: bool,
    /// The start of a node because of which the user is online: what is shown must
    /// be looked at again when it is over. None where nodes are not observed.
    pub(crate) by: Option<Start>,
    pub(crate) last_seen: Option<UnixMillis>,
}

/// A reading under way; dropped unpublished, it has failed.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    board: &'a Board,
    user: &'a UserId,
    ticket: u64,
    published: bool,
}

impl Board {
    pub(crate) fn new(max_events: usize, max_owed: usize) -> Self {
        Self {
            posts: Mutex::default(),
            max_owed,
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
            published: false,
        }
    }

    /// The starts of nodes by which anybody is shown online.
    pub(crate) fn starts(&self) -> Vec<Start> {
        self.posts().shown_by.keys().cloned().collect()
    }

    /// Who is to be read again: owed a reading, or shown online by a start that is
    /// over. In order, after `after`; at most `max`.
    pub(crate) fn due(&self, over: &[Start], after: Option<&UserId>, max: usize) -> Vec<UserId> {
        let rest = (
            after.map_or(Bound::Unbounded, Bound::Excluded),
            Bound::Unbounded,
        );
        let posts = self.posts();
        let owed = posts.owed.range::<UserId, _>(rest);
        let mut due: BTreeSet<_> = owed.take(max).map(|(user, _)| user.clone()).collect();
        for users in over.iter().filter_map(|start| posts.shown_by.get(start)) {
            due.extend(users.range::<UserId, _>(rest).take(max).cloned());
        }
        due.into_iter().take(max).collect()
    }

    fn posts(&self) -> MutexGuard<'_, Posts> {
        self.posts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Posts {
    /// Shows what a reading with this ticket found.
    fn show(&mut self, user: &UserId, ticket: u64, found: State) {
        let Some(post) = self.users.get_mut(user) else {
            return;
        };
        let before = std::mem::replace(&mut post.shown, found.clone());
        post.ticket = ticket;
        if self.owed.get(user).is_some_and(|owed| *owed <= ticket) {
            self.owed.remove(user);
        }
        if before.by == found.by {
            return;
        }
        if let Some(start) = before.by
            && let Some(users) = self.shown_by.get_mut(&start)
        {
            users.remove(user);
            if users.is_empty() {
                self.shown_by.remove(&start);
            }
        }
        if let Some(start) = found.by {
            self.shown_by.entry(start).or_default().insert(user.clone());
        }
    }

    fn owe(&mut self, user: &UserId, ticket: u64, max: usize) {
        if let Some(owed) = self.owed.get_mut(user) {
            *owed = ticket.max(*owed);
        } else if self.owed.len() < max {
            self.owed.insert(user.clone(), ticket);
        }
    }
}

impl Reading<'_> {
    /// Publishes what was found, unless a later reading was published; returns
    /// what is shown now. Events are sent under the lock: they are in order.
    pub(crate) fn publish(mut self, found: State) -> UserPresence {
        self.published = true;
        let mut posts = self.board.posts();
        let Some(post) = posts.users.get(self.user) else {
            // The post stays while this reading does.
            return found.of(self.user);
        };
        if post.ticket > self.ticket {
            return post.shown.of(self.user);
        }
        let changed = post.shown.online != found.online;
        let shown = found.of(self.user);
        posts.show(self.user, self.ticket, found);
        if changed {
            // An error says that nobody watches.
            let _ = self.board.changes.send(shown.clone());
        }
        drop(posts);
        shown
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut posts = self.board.posts();
        // Unless a later one has found what this one was to find.
        let late = |post: &Post| post.ticket > self.ticket;
        if !self.published && !posts.users.get(self.user).is_some_and(late) {
            posts.owe(self.user, self.ticket, self.board.max_owed);
        }
        if let Some(post) = posts.users.get_mut(self.user) {
            post.readings -= 1;
            if post.readings == 0 && !post.shown.online {
                posts.users.remove(self.user);
            }
        }
    }
}

impl State {
    fn of(&self, user: &UserId) -> UserPresence {
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
        by: None,
        last_seen: None,
    };
    const OFFLINE: State = State {
        online: false,
        by: None,
        last_seen: Some(UnixMillis(60_000)),
    };

    fn start(number: u8) -> Start {
        (
            NodeId::parse("n1").unwrap(),
            Incarnation::parse(&format!("i{number}")).unwrap(),
        )
    }

    fn online_by(number: u8) -> State {
        State {
            by: Some(start(number)),
            ..ONLINE
        }
    }

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn all_due(board: &Board, over: &[Start]) -> Vec<UserId> {
        board.due(over, None, usize::MAX)
    }

    fn drain(watch: &mut broadcast::Receiver<UserPresence>) -> Vec<bool> {
        std::iter::from_fn(|| watch.try_recv().ok())
            .map(|event| event.online)
            .collect()
    }

    #[test]
    fn a_reading_that_is_overtaken_is_not_published_and_answers_what_is_shown() {
        let (board, user) = (Board::new(8, 2), UserId::parse("alice").unwrap());
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
        let (board, user) = (Board::new(8, 2), UserId::parse("alice").unwrap());
        let mut watch = board.watch();
        for found in [OFFLINE, ONLINE, ONLINE, OFFLINE, OFFLINE, ONLINE] {
            board.begin(&user).publish(found);
        }
        assert_eq!(drain(&mut watch), [true, false, true]);
    }

    #[test]
    fn a_user_who_is_offline_and_not_being_read_costs_no_memory() {
        let (board, user) = (Board::new(8, 2), UserId::parse("alice").unwrap());
        board.begin(&user).publish(ONLINE);
        assert_eq!(board.posts().users.len(), 1);
        drop(board.begin(&user));
        board.begin(&user).publish(OFFLINE);
        assert_eq!(board.posts().users.len(), 0);
        board.begin(&user).publish(online_by(1));
        board.begin(&user).publish(OFFLINE);
        assert!(board.posts().shown_by.is_empty());
    }

    #[test]
    fn who_is_shown_online_by_a_start_is_due_when_it_is_over_until_shown_otherwise() {
        let board = Board::new(8, 2);
        let (alice, bob) = (user("alice"), user("bob"));
        board.begin(&alice).publish(online_by(1));
        board.begin(&bob).publish(online_by(1));
        assert_eq!(board.starts(), [start(1)]);
        assert_eq!(all_due(&board, &[]), []);
        assert_eq!(all_due(&board, &[start(1)]), [alice.clone(), bob.clone()]);
        let first = board.due(&[start(1)], None, 1);
        assert_eq!(first, std::slice::from_ref(&alice));
        let next = board.due(&[start(1)], first.last(), 1);
        assert_eq!(next, std::slice::from_ref(&bob));
        board.begin(&alice).publish(online_by(2));
        assert_eq!(all_due(&board, &[start(1)]), next);
        board.begin(&bob).publish(OFFLINE);
        assert_eq!(all_due(&board, &[start(1)]), []);
        assert_eq!(board.starts(), [start(2)]);
    }

    #[test]
    fn a_failed_reading_is_owed_until_one_that_began_no_earlier_succeeds() {
        let (board, alice) = (Board::new(8, 2), user("alice"));
        let early = board.begin(&alice);
        drop(board.begin(&alice));
        assert_eq!(all_due(&board, &[]), std::slice::from_ref(&alice));
        early.publish(ONLINE);
        assert_eq!(all_due(&board, &[]), std::slice::from_ref(&alice));
        board.begin(&alice).publish(ONLINE);
        assert_eq!(all_due(&board, &[]), []);
    }

    #[test]
    fn a_failed_reading_that_a_later_one_made_good_is_not_owed() {
        let (board, alice) = (Board::new(8, 2), user("alice"));
        let failing = board.begin(&alice);
        board.begin(&alice).publish(ONLINE);
        drop(failing);
        assert_eq!(all_due(&board, &[]), []);
    }

    #[test]
    fn what_is_owed_has_a_limit() {
        let board = Board::new(8, 2);
        for name in ["a", "b", "c"] {
            drop(board.begin(&user(name)));
        }
        assert_eq!(all_due(&board, &[]), [user("a"), user("b")]);
        let nothing_owed = Board::new(8, 0);
        drop(nothing_owed.begin(&user("a")));
        assert_eq!(all_due(&nothing_owed, &[]), []);
    }
}
