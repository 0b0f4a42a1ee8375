//! Who may see whether whom is online, and who is told of a change.

use std::sync::Arc;

use duologue_proto::history::HistoryError;
use duologue_proto::ids::UserId;
use duologue_proto::presence::{PresenceError, UserPresence};
use duologue_runtime::refusal::{Reason, Refusal};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::core::{Core, Visibility};
use crate::session::PresencePage;

/// Users who are looked at together.
pub const BATCH: usize = 200;

/// Why presence is not told.
#[derive(Debug)]
pub(crate) enum Unseen {
    /// The caller may not see it.
    NotVisible,
    /// Presence cannot answer.
    Presence(PresenceError),
    /// Whether the caller may see it cannot be known.
    History(HistoryError),
}

impl From<PresenceError> for Unseen {
    fn from(error: PresenceError) -> Self {
        Self::Presence(error)
    }
}

impl From<HistoryError> for Unseen {
    fn from(error: HistoryError) -> Self {
        Self::History(error)
    }
}

/// A page of users who are online.
#[derive(Debug, Default)]
pub(crate) struct OnlinePage {
    pub(crate) users: Vec<UserPresence>,
    /// More may follow after this user.
    pub(crate) more_after: Option<UserId>,
}

/// One user's presence, if `caller` may see it.
pub(crate) async fn presence(
    core: &Core,
    caller: &UserId,
    user: &UserId,
) -> Result<UserPresence, Unseen> {
    let visible = core.config.visibility == Visibility::Everyone
        || caller == user
        || core.history.share_conversation(caller, user).await?;
    if !visible {
        return Err(Unseen::NotVisible);
    }
    let mut found = core.presence.presence(std::slice::from_ref(user)).await?;
    found
        .pop()
        .ok_or(Unseen::Presence(PresenceError::Unavailable {
            retry_after: None,
        }))
}

/// The users who are online and whom `caller` may see, in order.
pub(crate) async fn online(
    core: &Core,
    caller: &UserId,
    after: Option<UserId>,
    max: usize,
) -> Result<OnlinePage, Unseen> {
    match core.config.visibility {
        Visibility::Everyone => online_of_everyone(core, caller, after, max).await,
        Visibility::Shared => online_of_peers(core, caller, after, max).await,
    }
}

async fn online_of_everyone(
    core: &Core,
    caller: &UserId,
    after: Option<UserId>,
    max: usize,
) -> Result<OnlinePage, Unseen> {
    let mut users = core.presence.online(after.as_ref(), max).await?;
    let full = users.len() >= max;
    let more_after = users.last().filter(|_| full).map(|last| last.user.clone());
    users.retain(|presence| presence.user != *caller);
    Ok(OnlinePage { users, more_after })
}

async fn online_of_peers(
    core: &Core,
    caller: &UserId,
    mut after: Option<UserId>,
    max: usize,
) -> Result<OnlinePage, Unseen> {
    let mut page = OnlinePage::default();
    loop {
        let peers = core.history.peers(caller, after.as_ref(), BATCH).await?;
        let last = peers.len() < BATCH;
        after = peers.last().cloned();
        let others: Vec<UserId> = peers.into_iter().filter(|peer| peer != caller).collect();
        for presence in known(core, &others).await? {
            if !presence.online {
                continue;
            }
            if page.users.len() == max {
                page.more_after = page.users.last().map(|shown| shown.user.clone());
                return Ok(page);
            }
            page.users.push(presence);
        }
        if last {
            return Ok(page);
        }
    }
}

/// The presence of those of whom anything can be said.
async fn known(core: &Core, users: &[UserId]) -> Result<Vec<UserPresence>, PresenceError> {
    match core.presence.presence(users).await {
        Err(PresenceError::OfUser) => {}
        known => return known,
    }
    let mut known = Vec::new();
    for user in users {
        match core.presence.presence(std::slice::from_ref(user)).await {
            Ok(presence) => known.extend(presence),
            Err(PresenceError::OfUser) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(known)
}

/// The token of the page after `last`. User ids are visible on the page itself,
/// so the token hides nothing.
pub(crate) fn page_token(last: &UserId) -> String {
    format!("u1.{last}")
}

pub(crate) fn open_page_token(token: &str) -> Result<Option<UserId>, Refusal> {
    if token.is_empty() {
        return Ok(None);
    }
    let user = token
        .strip_prefix("u1.")
        .and_then(|user| UserId::parse(user).ok());
    user.map(Some).ok_or_else(bad_page_token)
}

pub(crate) fn bad_page_token() -> Refusal {
    Refusal::new(
        Reason::InvalidPageToken,
        "page_token is garbled or belongs to another query; begin with the first page",
    )
    .and_field("page_token", "must be next_page_token of the same query")
}

/// One page of what [`online`] lists, for a session that missed changes.
pub(crate) async fn page(
    core: &Core,
    caller: &UserId,
    after: Option<UserId>,
) -> Result<PresencePage, Unseen> {
    let page = online(core, caller, after, BATCH).await?;
    Ok((page.users, page.more_after))
}

/// Tells this node's sessions of every change that they may see. If a change cannot
/// be told, every session asks anew: after the watch that tells what follows began.
pub(crate) async fn watch(core: Arc<Core>, mut changes: Receiver<UserPresence>) {
    loop {
        let told = match changes.recv().await {
            Ok(change) => tell(&core, &change).await.is_ok(),
            Err(RecvError::Lagged(_)) => false,
            Err(RecvError::Closed) => {
                changes = core.presence.watch();
                false
            }
        };
        if !told {
            tracing::warn!("changes of presence were missed");
            core.registry
                .tell_everyone(|handle| handle.inbox.presence_lost());
        }
    }
}

/// Asks for a user's presence if any session here may see it, so that a change is
/// told to those who watch.
pub(crate) async fn look(core: &Core, user: &UserId) -> Result<(), Unseen> {
    if !has_watcher(core, user).await? {
        return Ok(());
    }
    match core.presence.presence(std::slice::from_ref(user)).await {
        Ok(_) | Err(PresenceError::OfUser) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn has_watcher(core: &Core, user: &UserId) -> Result<bool, HistoryError> {
    if core.config.visibility == Visibility::Everyone {
        let here = core.registry.users(None, 2);
        return Ok(here.iter().any(|watcher| watcher != user));
    }
    let mut after = None;
    loop {
        let peers = core.history.peers(user, after.as_ref(), BATCH).await?;
        let mut others = peers.iter().filter(|peer| *peer != user);
        if others.any(|peer| core.registry.is_here(peer)) {
            return Ok(true);
        }
        if peers.len() < BATCH {
            return Ok(false);
        }
        after = peers.last().cloned();
    }
}

async fn tell(core: &Core, change: &UserPresence) -> Result<(), Unseen> {
    let mut after = None;
    loop {
        let watchers = match core.config.visibility {
            Visibility::Everyone => core.registry.users(after.as_ref(), BATCH),
            Visibility::Shared => {
                core.history
                    .peers(&change.user, after.as_ref(), BATCH)
                    .await?
            }
        };
        for watcher in watchers.iter().filter(|watcher| **watcher != change.user) {
            core.registry
                .tell(watcher, None, |handle| handle.inbox.presence(change));
        }
        if watchers.len() < BATCH {
            return Ok(());
        }
        after = watchers.last().cloned();
    }
}
