//! What changed while the device was away (design §4 and §6): at connect, after
//! every re-registration, and every 10 minutes, since each can lose the last
//! announcement of a conversation and nothing later would repair it. Every 10 minutes
//! the route is confirmed first: it may have been lost too.
//!
//! A sync lists conversations page by page, each page only when the device has
//! room for what the last one brought. `CaughtUp` is said when everything up to
//! every head that was found has been pushed.

use std::collections::BTreeMap;
use std::time::Duration;

use duologue_proto::history::{HistoryError, SyncPage, SyncRequest, SyncedConversation};
use duologue_proto::ids::{Seq, UnixMillis, UserId};
use duologue_proto::limits::{MAX_SESSION_CONVERSATIONS, RESYNC_INTERVAL};
use duologue_runtime::faults::{Mutant, planted};
use duologue_runtime::refusal::{Reason, Refusal};
use tokio::time::Instant;

use super::catch_up::{CatchUp, Start};
use super::opening::pause;
use super::{Effect, Now, Phase, Session};
use crate::frame::Down;

/// Conversations on one page of a sync.
pub const PAGE_CONVERSATIONS: usize = 100;
/// Room that a page's cursors may take in the outbox.
pub const PAGE_BYTES: usize = 32 * 1024;
/// From so many on, the state of conversations that are level is not kept:
/// they start again at the sync's time, should they become active.
pub const KEPT_LEVEL: usize = MAX_SESSION_CONVERSATIONS / 2;

/// The syncs of one session.
#[derive(Debug)]
pub(super) struct Sync {
    /// Of the last complete sync; at first the client's.
    token: String,
    /// What the device said it holds; until the first sync is complete.
    named: BTreeMap<UserId, Seq>,
    running: Option<Running>,
    /// Wanted as soon as none is running.
    wanted: bool,
    /// The next by the clock, or the next try.
    due: Option<Instant>,
    /// Spreads `due`.
    jitter: u64,
    /// Half-closed sessions do not wait for a store that is away.
    failed: bool,
}

/// A sync that is not complete.
#[derive(Debug, Default)]
struct Running {
    /// The first page's token and floor.
    token: Option<(String, UnixMillis)>,
    /// The last conversation listed.
    after: Option<UserId>,
    asked: bool,
    listed: bool,
    /// Heads that were found and not yet pushed.
    goals: BTreeMap<UserId, Seq>,
}

impl Sync {
    pub(super) fn new(jitter: u64) -> Self {
        Self {
            token: String::new(),
            named: BTreeMap::new(),
            running: None,
            wanted: false,
            due: None,
            jitter,
            failed: false,
        }
    }

    pub(super) fn begin_with(&mut self, token: String, positions: Vec<(UserId, Seq)>) {
        self.token = token;
        self.named = positions.into_iter().collect();
        self.wanted = true;
    }

    /// Asks for a sync, after the one that may be running.
    pub(super) fn request(&mut self) {
        self.wanted = true;
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.is_none() && !self.wanted
    }

    pub(super) fn stop(&mut self) {
        *self = Self::new(self.jitter);
    }

    /// Notes what has been pushed.
    pub(super) fn shown(&mut self, peer: &UserId, catch_up: &CatchUp) {
        let Some(running) = &mut self.running else {
            return;
        };
        if running
            .goals
            .get(peer)
            .is_some_and(|goal| catch_up.has_shown(peer, *goal))
        {
            running.goals.remove(peer);
        }
    }

    /// The interval until the next sync: 10 minutes, spread by ± 20 %.
    fn interval(&mut self) -> Duration {
        RESYNC_INTERVAL * (80 + self.up_to(40)) / 100
    }

    /// A pause, spread between itself and its double.
    pub(super) fn jittered(&mut self, pause: Duration) -> Duration {
        pause.saturating_mul(100 + self.up_to(100)) / 100
    }

    fn up_to(&mut self, most: u32) -> u32 {
        // A step of a linear congruence: another number each time.
        self.jitter = self
            .jitter
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        u32::try_from((self.jitter >> 33) % (u64::from(most) + 1)).unwrap_or(most)
    }
}

impl Session {
    pub(super) fn proceed_sync(&mut self, now: Now) {
        if self.sync.due.is_some_and(|due| due <= now.instant) {
            self.sync.due = None;
            if self.sync.failed {
                self.sync.wanted |= self.sync.running.is_none();
            } else if self.sync.running.is_none() {
                self.confirm_and_sync(now);
            }
        }
        if self.sync.due.is_some() && self.sync.failed {
            return;
        }
        if self.sync.running.is_none() && self.sync.wanted {
            self.sync.wanted = false;
            self.sync.due = None;
            self.sync.running = Some(Running::default());
        }
        self.ask_for_page();
    }

    fn ask_for_page(&mut self) {
        let room = self.has_room_for(PAGE_BYTES) && self.hints.is_empty();
        let Some(running) = &mut self.sync.running else {
            return;
        };
        if running.asked || running.listed || !room {
            return;
        }
        running.asked = true;
        self.effects.push(Effect::Sync(SyncRequest {
            user: self.about.user.clone(),
            token: self.sync.token.clone(),
            named: self.sync.named.keys().cloned().collect(),
            after: running.after.clone(),
            max_conversations: PAGE_CONVERSATIONS,
        }));
    }

    pub(super) fn on_synced(&mut self, result: Result<SyncPage, HistoryError>, now: Now) {
        let Some(running) = &mut self.sync.running else {
            return;
        };
        running.asked = false;
        match result {
            Ok(page) => {
                self.sync.failed = false;
                self.take_page(page);
            }
            Err(HistoryError::Unavailable { retry_after }) if self.ending.is_open() => {
                self.sync.failed = true;
                self.sync.due = Some(now.instant + pause(retry_after));
            }
            Err(HistoryError::InvalidSyncToken) => self.break_off(Refusal::new(
                Reason::InvalidSyncToken,
                "sync_token is garbled or belongs to another user or history; \
                 connect without it",
            )),
            Err(error) => {
                tracing::warn!(%error, "a sync failed for good");
                self.end_unavailable();
            }
        }
    }

    fn take_page(&mut self, page: SyncPage) {
        if page.history_id != self.about.history_id {
            return self.end_history_changed(Refusal::new(
                Reason::HistoryChanged,
                "the history was replaced: drop the sync token, positions and after_seq, keep \
                 what is not yet sent, and connect again",
            ));
        }
        if let Some(running) = &mut self.sync.running {
            running.token.get_or_insert((page.token, page.token_floor));
            running.after = page.conversations.last().map(|listed| listed.peer.clone());
            running.listed = !page.more;
        }
        for listed in page.conversations {
            self.list(listed, page.since);
            if self.phase != Phase::Live {
                return;
            }
        }
        let floor = self.sync.running.as_ref().filter(|running| running.listed);
        if let Some((_, floor)) = floor.and_then(|running| running.token.clone()) {
            self.catch_up.all_listed(floor);
        }
    }

    /// Takes one conversation that may have changed.
    fn list(&mut self, listed: SyncedConversation, since: Option<UnixMillis>) {
        let SyncedConversation {
            peer,
            head,
            own_cursor,
            peer_cursor,
        } = listed;
        // A client ahead of its history would silently miss everything new.
        let position = self.sync.named.get(&peer).copied();
        if position.is_some_and(|position| position > head) {
            return self.end_position_ahead(&peer, head);
        }
        let user = self.about.user.clone();
        if !planted(Mutant::CursorNotToldAtSync) {
            self.on_receipt(peer.clone(), peer.clone(), peer_cursor);
            self.on_receipt(peer.clone(), user, own_cursor);
        }
        let start = match (position, since) {
            (Some(position), _) => Start::After(position),
            (None, Some(time)) if !planted(Mutant::CatchUpAtCursor) => Start::Since(time),
            (None, _) => Start::After(own_cursor.delivered),
        };
        let level = matches!(start, Start::After(seq) if seq >= head);
        if level && self.catch_up.len() >= KEPT_LEVEL && !self.catch_up.is_resolved(&peer) {
            return;
        }
        self.catch_up.list(&peer, start, head);
        if self.catch_up.len() > MAX_SESSION_CONVERSATIONS {
            return self.end_full("the session knows of too many conversations");
        }
        if !self.catch_up.has_shown(&peer, head)
            && let Some(running) = &mut self.sync.running
        {
            running.goals.insert(peer, head);
        }
    }

    /// Says that everything has been shown, once it has.
    pub(super) fn proceed_caught_up(&mut self, now: Now) {
        let complete = self.sync.running.as_ref().is_some_and(|sync| {
            sync.listed && (sync.goals.is_empty() || planted(Mutant::CaughtUpTooEarly))
        });
        if !complete || !self.hints.is_empty() {
            return;
        }
        let token = self.sync.running.take().and_then(|running| running.token);
        if let Some((token, _)) = token {
            self.sync.token.clone_from(&token);
            self.sync.named = BTreeMap::new();
            let interval = self.sync.interval();
            self.sync.due = Some(now.instant + interval);
            self.push(0, Down::CaughtUp { token });
        }
    }
}
