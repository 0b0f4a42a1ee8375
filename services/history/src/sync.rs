//! What changed for a user since a sync token was given.
//!
//! It must not read rows before v is read: whatever becomes active after v is
//! found by the next sync, whatever was active before it by this one.

use std::collections::BTreeSet;
use std::time::Duration;

use duologue_proto::history::{HistoryError, SyncPage, SyncRequest, SyncedConversation};
use duologue_proto::ids::{ConversationId, Seq, UnixMillis, UserId};
use duologue_proto::limits::MAX_SYNC_TOKEN_AGE;
use duologue_runtime::faults::{Mutant, planted};
use futures_util::{StreamExt as _, TryStreamExt as _};

use crate::error::unavailable;
use crate::history::{History, Shared};
use crate::store::{StoreError, StoredMessage, Window};
use crate::time::SYNC_SLACK;
use crate::tokens::{self, Fields, Payload, Purpose};

/// Conversations on one page at most, whatever is asked.
pub const MAX_SYNC_PAGE: usize = 1_024;
/// Activity rows read for one page; if more follow the token, all conversations
/// are listed instead, which is never wrong.
pub const MAX_SYNC_ROWS: usize = 16_384;
/// Activity rows read at once.
pub const SYNC_ROWS_AT_ONCE: usize = 1_024;
/// Conversations whose heads and cursors are read at the same time.
pub const READS_AT_ONCE: usize = 16;

impl History {
    /// Lists what changed for a user. Without a token, or with one older than 30
    /// days, all conversations. A conversation may be listed that did not change,
    /// even one without messages.
    pub async fn sync(&self, request: SyncRequest) -> Result<SyncPage, HistoryError> {
        let held = self.open_sync_token(&request)?;
        let now = self.shared.time.durable_now().await.map_err(unavailable)?;
        // A token ahead of history's time is of a replica whose clock is ahead;
        // to take it for one of now only lists more.
        let since = held
            .filter(|v| now.since(*v) <= MAX_SYNC_TOKEN_AGE)
            .map(|v| v.min(now).minus(slack()));
        let user = request.user.clone();
        let changed = self.ask(|shared| async move { shared.changed(&request, since).await });
        let (conversations, more) = changed.await.map_err(unavailable)?;
        let now = if planted(Mutant::TimeReadAtEnd) {
            self.shared.time.durable_now().await.map_err(unavailable)?
        } else {
            now
        };
        Ok(SyncPage {
            history_id: self.shared.store.history_id().clone(),
            token: self.sync_token(&user, now),
            token_floor: now.minus(SYNC_SLACK),
            since,
            conversations,
            more,
        })
    }

    fn sync_token(&self, user: &UserId, v: UnixMillis) -> String {
        let payload = Payload::default().number(v.0);
        tokens::seal(Purpose::Sync, &self.sync_bound(user), &payload)
    }

    fn open_sync_token(&self, request: &SyncRequest) -> Result<Option<UnixMillis>, HistoryError> {
        if request.token.is_empty() {
            return Ok(None);
        }
        let bound = self.sync_bound(&request.user);
        let held = tokens::open(Purpose::Sync, &bound, &request.token)
            .and_then(|payload| Fields(&payload).time());
        held.map(Some).ok_or(HistoryError::InvalidSyncToken)
    }

    fn sync_bound<'a>(&'a self, user: &'a UserId) -> [&'a [u8]; 2] {
        let history = self.shared.store.history_id().as_str();
        [history.as_bytes(), user.as_str().as_bytes()]
    }
}

fn slack() -> Duration {
    if planted(Mutant::NoSlack) {
        return Duration::ZERO;
    }
    SYNC_SLACK
}

impl Shared {
    async fn changed(
        &self,
        request: &SyncRequest,
        since: Option<UnixMillis>,
    ) -> Result<(Vec<SyncedConversation>, bool), StoreError> {
        let max = request.max_conversations.clamp(1, MAX_SYNC_PAGE);
        let active = match since {
            Some(since) => {
                self.active_since(request, Window::of(since), max + 1)
                    .await?
            }
            None => None,
        };
        let mut peers = match active {
            Some(peers) => peers,
            None => self.all_peers(request, max + 1).await?,
        };
        let after = request.after.as_ref();
        let named = request.named.iter().filter(|peer| Some(*peer) > after);
        peers.extend(named.cloned());
        let more = peers.len() > max;
        let conversations = futures_util::stream::iter(peers.into_iter().take(max))
            .map(|peer| self.synced(&request.user, peer))
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await?;
        Ok((conversations, more))
    }

    /// The first `max` peers after `request.after` with rows from `first` on;
    /// none if there are too many rows. Holds no more than `max` peers.
    async fn active_since(
        &self,
        request: &SyncRequest,
        first: Window,
        max: usize,
    ) -> Result<Option<BTreeSet<UserId>>, StoreError> {
        let mut peers = BTreeSet::new();
        let mut last = None;
        for _ in 0..MAX_SYNC_ROWS / SYNC_ROWS_AT_ONCE {
            let rows = self
                .store
                .activity_from(&request.user, first, last.as_ref(), SYNC_ROWS_AT_ONCE)
                .await?;
            let at_end = rows.len() < SYNC_ROWS_AT_ONCE;
            last = rows.last().cloned();
            for row in rows {
                if Some(&row.peer) > request.after.as_ref() {
                    peers.insert(row.peer);
                }
                if peers.len() > max {
                    peers.pop_last();
                }
            }
            if at_end {
                return Ok(Some(peers));
            }
        }
        Ok(None)
    }

    async fn all_peers(
        &self,
        request: &SyncRequest,
        max: usize,
    ) -> Result<BTreeSet<UserId>, StoreError> {
        let after = request.after.as_ref();
        let peers = self.store.conversations(&request.user, after, max).await?;
        Ok(peers.into_iter().collect())
    }

    /// The cursors first: neither may be above the head that is told with it.
    async fn synced(&self, user: &UserId, peer: UserId) -> Result<SyncedConversation, StoreError> {
        let cursors = self.store.cursors(user, &peer).await?;
        let mut head = self.store.head(&ConversationId::of(user, &peer)).await?;
        if planted(Mutant::StaleCatchUpRead) {
            head = self.before_a_moment_ago(head).await?;
        }
        Ok(SyncedConversation {
            peer,
            head: head.map_or(Seq::ZERO, |message| message.envelope.seq),
            own_cursor: cursors.own,
            peer_cursor: cursors.peer,
        })
    }

    /// The head that an eventually consistent read may find: only a planted fault
    /// asks for it.
    async fn before_a_moment_ago(
        &self,
        mut head: Option<StoredMessage>,
    ) -> Result<Option<StoredMessage>, StoreError> {
        const MOMENT: Duration = Duration::from_secs(1);
        while let Some(message) = &head {
            let envelope = &message.envelope;
            if self.time.now().since(envelope.accepted_at) > MOMENT {
                break;
            }
            let before = Seq(envelope.seq.0 - 1);
            head = self
                .slot_if_filled(&envelope.conversation(), before)
                .await?;
        }
        Ok(head)
    }
}
