//! Receipts and presence on their way to the device: the latest of each waits
//! until there is room, so that a slow reader gets fewer, never stale ones.
//!
//! If too many changes of presence wait, or some were missed, the device is told
//! to forget what it was shown, and is told anew who is online, page by page as it
//! reads.

use std::collections::{BTreeMap, BTreeSet};

use duologue_proto::ids::UserId;
use duologue_proto::limits::MAX_SESSION_CONVERSATIONS;
use duologue_proto::message::Cursor;
use duologue_proto::presence::UserPresence;
use tokio::time::Instant;

use super::{Effect, Now, RETRY_PAUSE, Session};
use crate::frame::Down;

/// Users whose change of presence may wait; with more, presence is told anew.
pub const MAX_PRESENCE: usize = 1_000;
/// Cursors that may wait: both of every conversation.
pub const MAX_RECEIPTS: usize = 2 * MAX_SESSION_CONVERSATIONS;
/// More than a receipt or a presence takes in the outbox.
pub(super) const HINT_BYTES: usize = 256;

/// What waits to be told.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// By conversation and user.
    receipts: BTreeMap<(UserId, UserId), Cursor>,
    presence: BTreeMap<UserId, UserPresence>,
    picture: Picture,
    /// Pages that were asked for.
    asked: u64,
}

/// Whether the device knows who is online, as far as it was told.
#[derive(Debug, Default)]
enum Picture {
    /// It was told every change.
    #[default]
    Whole,
    /// It was not.
    Lost,
    /// It was told to forget, and who is online is being asked.
    Asking(Asked),
    /// The page after this user is to be asked; not before the time.
    More(Option<UserId>, Option<Instant>),
}

/// A page that is being asked for.
#[derive(Debug)]
struct Asked {
    number: u64,
    after: Option<UserId>,
    /// Whose changes came since: what the page says of them may be older.
    changed: BTreeSet<UserId>,
}

/// Some users who are online, and after whom more may follow.
pub type PresencePage = (Vec<UserPresence>, Option<UserId>);

impl Hints {
    pub(super) fn is_empty(&self) -> bool {
        self.receipts.is_empty() && self.presence.is_empty()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.picture {
            Picture::More(_, due) => due,
            Picture::Whole | Picture::Lost | Picture::Asking(_) => None,
        }
    }

    pub(super) fn lose_presence(&mut self) {
        self.presence.clear();
        self.picture = Picture::Lost;
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
        match &mut self.hints.picture {
            Picture::Lost => return,
            Picture::Asking(asked) => {
                asked.changed.insert(presence.user.clone());
                if asked.changed.len() > MAX_PRESENCE {
                    self.hints.picture = Picture::More(asked.after.take(), None);
                }
            }
            Picture::Whole | Picture::More(..) => {}
        }
        self.hints.presence.insert(presence.user.clone(), presence);
        if self.hints.presence.len() > MAX_PRESENCE {
            self.hints.lose_presence();
        }
    }

    /// A page of who is online; none if that could not be known.
    pub(super) fn on_presence_page(&mut self, number: u64, page: Option<PresencePage>, now: Now) {
        let Hints {
            presence, picture, ..
        } = &mut self.hints;
        let Picture::Asking(asked) = picture else {
            return;
        };
        if asked.number != number {
            // Of a picture that was lost since.
            return;
        }
        let Some((mut users, more_after)) = page else {
            let due = Some(now.instant + RETRY_PAUSE);
            *picture = Picture::More(asked.after.take(), due);
            return;
        };
        users.retain(|shown| !asked.changed.contains(&shown.user));
        for shown in users {
            // What waits was told before the page was asked for.
            presence.insert(shown.user.clone(), shown);
        }
        *picture = match more_after {
            Some(user) => Picture::More(Some(user), None),
            None => Picture::Whole,
        };
    }

    pub(super) fn proceed_hints(&mut self, now: Now) {
        while self.has_room_for(HINT_BYTES) {
            if let Some(((peer, user), cursor)) = self.hints.receipts.pop_first() {
                self.push(0, Down::Receipt { peer, user, cursor });
            } else if let Some((_, presence)) = self.hints.presence.pop_first() {
                self.push(0, Down::Presence(presence));
            } else {
                return self.proceed_picture(now);
            }
        }
    }

    /// Asks for the next page of who is online, if the device lacks it.
    fn proceed_picture(&mut self, now: Now) {
        let after = match std::mem::take(&mut self.hints.picture) {
            Picture::Lost => {
                self.push(0, Down::PresenceReset);
                None
            }
            Picture::More(after, due) if due.is_none_or(|due| due <= now.instant) => after,
            picture @ (Picture::Whole | Picture::Asking(_) | Picture::More(..)) => {
                self.hints.picture = picture;
                return;
            }
        };
        self.hints.asked += 1;
        let number = self.hints.asked;
        self.hints.picture = Picture::Asking(Asked {
            number,
            after: after.clone(),
            changed: BTreeSet::new(),
        });
        self.effects.push(Effect::AskPresence(number, after));
    }
}
