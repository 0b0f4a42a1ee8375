//! The conversations of a user, by the time of their last message.
//!
//! Walks the user's activity rows backward. A conversation has many rows (every
//! window in which something happened, cursor moves included), and is listed at
//! exactly one: the row of the window in which its last message was accepted.
//! That row exists, since an accepted time is always some message's clock
//! reading, whose rows were written first.
//!
//! "Last" is as of v, the time of the first page, kept in the token: whatever
//! becomes active while somebody pages is neither repeated nor left out. So no
//! page has to know what the pages before it have listed, and memory is bounded
//! by one chunk of rows. The rows of one window are one chunk and sorted as a
//! whole, unless there are more than [`CHUNK_ROWS`] of them.

use std::collections::BTreeMap;

use duologue_proto::history::{
    ConversationSummary, ConversationsPage, HistoryError, ListConversations,
};
use duologue_proto::ids::{ConversationId, Seq, UnixMillis, UserId};
use duologue_proto::limits::{MAX_CONVERSATIONS_PAGE, MAX_PAGE_BYTES};
use futures_util::{StreamExt as _, TryStreamExt as _};

use crate::error::unavailable;
use crate::history::{History, Shared};
use crate::store::{Activity, Cursors, StoreError, StoredMessage, Window};
use crate::sync::READS_AT_ONCE;
use crate::tokens::{self, Fields, Payload, Purpose};

/// Rows sorted as a whole at most.
pub const CHUNK_ROWS: usize = 1_024;
/// Rows walked for one page, after which it ends early, with a token.
pub const MAX_ROWS: usize = 4_096;
/// Rows read at once.
pub const LIST_ROWS_AT_ONCE: usize = 256;

impl History {
    /// Lists conversations by recency. A page may hold fewer than asked for,
    /// even none, and still have a next one.
    pub async fn list_conversations(
        &self,
        request: ListConversations,
    ) -> Result<ConversationsPage, HistoryError> {
        let history = self.shared.store.history_id().as_str();
        let bound: [&[u8]; 2] = [history.as_bytes(), request.user.as_str().as_bytes()];
        let place = if request.page_token.is_empty() {
            Place::first(self.shared.time.now())
        } else {
            tokens::open(Purpose::Conversations, &bound, &request.page_token)
                .and_then(|payload| Place::from_payload(&payload))
                .ok_or(HistoryError::InvalidPageToken)?
        };
        let asked = request.clone();
        let listed =
            self.ask(|shared| async move { shared.conversations_from(&asked, place).await });
        let (conversations, next) = listed.await.map_err(unavailable)?;
        let token =
            |place: Place| tokens::seal(Purpose::Conversations, &bound, &place.to_payload());
        Ok(ConversationsPage {
            conversations,
            next_page_token: next.map_or(String::new(), token),
        })
    }
}

/// Where a page starts.
#[derive(Debug, Clone)]
struct Place {
    /// v: what happened later does not change the order.
    as_of: UnixMillis,
    /// The chunk is made of the rows before this one.
    before: Option<Activity>,
    /// What of the chunk was listed by the page before: up to here.
    listed: Option<Rank>,
    /// Nothing is listed yet.
    is_first: bool,
}

/// Sorts the conversations of a chunk: the later, then the smaller peer, first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rank(std::cmp::Reverse<UnixMillis>, UserId);

impl Place {
    fn first(now: UnixMillis) -> Self {
        Self {
            as_of: now,
            before: None,
            listed: None,
            is_first: true,
        }
    }

    fn to_payload(&self) -> Payload {
        let before = self.before.as_ref().map(|row| (row.window.0, &row.peer));
        let listed = self.listed.as_ref().map(|rank| (rank.0.0.0, &rank.1));
        Payload::default()
            .number(self.as_of.0)
            .place(before)
            .place(listed)
    }

    fn from_payload(payload: &[u8]) -> Option<Self> {
        let mut fields = Fields(payload);
        let as_of = fields.time()?;
        let before = fields.place()?.map(|(window, peer)| Activity {
            window: Window(window),
            peer,
        });
        let listed = fields.place()?;
        let listed = listed.map(|(time, peer)| Rank(std::cmp::Reverse(UnixMillis(time)), peer));
        fields.end()?;
        Some(Self {
            as_of,
            before,
            listed,
            is_first: false,
        })
    }
}

impl Shared {
    async fn conversations_from(
        &self,
        request: &ListConversations,
        mut place: Place,
    ) -> Result<(Vec<ConversationSummary>, Option<Place>), StoreError> {
        let max = request.page_size.clamp(1, MAX_CONVERSATIONS_PAGE);
        let mut page = Page::default();
        let mut last_times = LastTimes::default();
        let mut walked = 0;
        while walked < MAX_ROWS {
            let chunk = self.chunk(&request.user, place.before.as_ref()).await?;
            let (Some(start), Some(end)) = (chunk.first(), chunk.last().cloned()) else {
                return Ok((page.summaries, None));
            };
            // The next page must meet the same chunk, whatever was added above.
            place.before = match place.before {
                Some(before) if before.window == start.window => Some(before),
                _ => above(start.window),
            };
            walked += chunk.len();
            let ranks = self
                .ranked(&request.user, chunk, &mut place, &mut last_times)
                .await?;
            for rank in ranks {
                if page.summaries.len() == max {
                    return Ok((page.summaries, Some(place)));
                }
                let summary = self.summary(&request.user, &rank.1).await?;
                if !page.take(summary) {
                    return Ok((page.summaries, Some(place)));
                }
                place.listed = Some(rank);
            }
            place.before = Some(end);
            place.listed = None;
        }
        Ok((page.summaries, Some(place)))
    }

    /// Rows of one window, in reverse order, before `before`.
    async fn chunk(
        &self,
        user: &UserId,
        before: Option<&Activity>,
    ) -> Result<Vec<Activity>, StoreError> {
        let mut chunk: Vec<Activity> = Vec::new();
        while chunk.len() < CHUNK_ROWS {
            let from = chunk.last().or(before);
            let rows = self
                .store
                .activity_back(user, from, LIST_ROWS_AT_ONCE)
                .await?;
            let window = chunk.first().or(rows.first()).map(|row| row.window);
            let same = rows
                .into_iter()
                .take_while(|row| Some(row.window) == window);
            let had = chunk.len();
            chunk.extend(same);
            if chunk.len() - had < LIST_ROWS_AT_ONCE {
                break;
            }
        }
        Ok(chunk)
    }

    /// The conversations to be listed at this chunk's rows, in their order,
    /// after what is listed.
    async fn ranked(
        &self,
        user: &UserId,
        chunk: Vec<Activity>,
        place: &mut Place,
        last_times: &mut LastTimes,
    ) -> Result<Vec<Rank>, StoreError> {
        let Some(window) = chunk.first().map(|row| row.window) else {
            return Ok(Vec::new());
        };
        let as_of = place.as_of;
        let unknown = chunk
            .iter()
            .filter(|row| !last_times.0.contains_key(&row.peer));
        let unknown: Vec<UserId> = unknown.map(|row| row.peer.clone()).collect();
        // A replica whose clock is ahead has accepted messages "later" than now.
        // While nothing is listed, v may rise to include them.
        let may_rise = place.is_first && window >= Window::of(as_of);
        let found: Vec<_> = futures_util::stream::iter(unknown)
            .map(|peer| self.last_time(user, peer, (!may_rise).then_some(as_of)))
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await?;
        if may_rise {
            let newest = found.iter().filter_map(|(_, time)| *time).max();
            place.as_of = as_of.max(newest.unwrap_or_default());
        }
        last_times.0.extend(found);
        let listed = place.listed.as_ref();
        let here = chunk.into_iter().filter_map(|row| {
            let time = (*last_times.0.get(&row.peer)?)?;
            let rank = Rank(std::cmp::Reverse(time), row.peer);
            (Window::of(time) == window && Some(&rank) > listed).then_some(rank)
        });
        let mut ranks: Vec<Rank> = here.collect();
        ranks.sort();
        Ok(ranks)
    }

    /// When the last message up to `as_of` was accepted; none if there is none.
    async fn last_time(
        &self,
        user: &UserId,
        peer: UserId,
        as_of: Option<UnixMillis>,
    ) -> Result<(UserId, Option<UnixMillis>), StoreError> {
        let conversation = ConversationId::of(user, &peer);
        let Some(head) = self.store.head(&conversation).await? else {
            return Ok((peer, None));
        };
        let accepted_at = head.envelope.accepted_at;
        let Some(as_of) = as_of.filter(|as_of| *as_of < accepted_at) else {
            return Ok((peer, Some(accepted_at)));
        };
        let later = UnixMillis(as_of.0.saturating_add(1));
        let last = self.last_before(&conversation, &head, later).await?;
        if last == Seq::ZERO {
            return Ok((peer, None));
        }
        let last = self.slot(&conversation, last).await?;
        Ok((peer, Some(last.envelope.accepted_at)))
    }

    /// None if the conversation has no message, which a row alone does not make.
    async fn summary(
        &self,
        user: &UserId,
        peer: &UserId,
    ) -> Result<Option<ConversationSummary>, StoreError> {
        let conversation = ConversationId::of(user, peer);
        let cursors = self.store.cursors(user, peer).await?;
        let Some(head) = self.store.head(&conversation).await? else {
            return Ok(None);
        };
        let unread = self.unread(&conversation, user, &head, &cursors).await?;
        Ok(Some(ConversationSummary {
            peer: peer.clone(),
            last_message: head.envelope,
            unread,
            own_cursor: cursors.own,
            peer_cursor: cursors.peer,
        }))
    }

    /// How many messages the peer has sent up to the head, less those up to the
    /// read cursor: arithmetic on two messages.
    async fn unread(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        head: &StoredMessage,
        cursors: &Cursors,
    ) -> Result<u64, StoreError> {
        let read = cursors.own.read;
        if conversation.is_with_oneself() || read >= head.envelope.seq {
            return Ok(0);
        }
        let peer_side = usize::from(conversation.side_of(user) == Some(0));
        let seen = if read == Seq::ZERO {
            0
        } else {
            self.slot(conversation, read).await?.sent[peer_side]
        };
        Ok(head.sent[peer_side].saturating_sub(seen))
    }
}

/// Above every row of a window, and below every other row above it: no user id
/// sorts before this one.
fn above(window: Window) -> Option<Activity> {
    let peer = UserId::parse("+").ok()?;
    let window = Window(window.0.saturating_add(1));
    Some(Activity { window, peer })
}

/// When the last messages of the conversations met on this page were accepted:
/// not more than rows are walked.
#[derive(Default)]
struct LastTimes(BTreeMap<UserId, Option<UnixMillis>>);

/// A page being filled.
#[derive(Default)]
struct Page {
    summaries: Vec<ConversationSummary>,
    bytes: usize,
}

impl Page {
    /// False if the page has no room left for it; it has always room for one.
    fn take(&mut self, summary: Option<ConversationSummary>) -> bool {
        let Some(summary) = summary else {
            return true;
        };
        let bytes = self.bytes + summary.last_message.wire().len();
        if bytes > MAX_PAGE_BYTES && !self.summaries.is_empty() {
            return false;
        }
        self.bytes = bytes;
        self.summaries.push(summary);
        true
    }
}
