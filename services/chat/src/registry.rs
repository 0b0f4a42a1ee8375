//! The node's own table of live sessions.
//!
//! A session is in it before its route is sent to the directory, so that a relay
//! never meets "not here" for a live session.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use duologue_proto::ids::{Incarnation, SessionId, UserId};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::inbox::Inbox;

/// One live session, as others reach it.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) user: UserId,
    pub(crate) session: SessionId,
    pub(crate) inbox: Inbox,
    /// Under which incarnation of the node the route was last confirmed.
    pub(crate) confirmed: Mutex<Option<Incarnation>>,
}

impl Handle {
    /// The route is in force; returns whether that is new.
    pub(crate) fn confirm(&self, incarnation: Incarnation) -> bool {
        let confirmed = self.confirmed.lock();
        let mut confirmed = confirmed.unwrap_or_else(PoisonError::into_inner);
        let before = confirmed.replace(incarnation);
        *confirmed != before
    }
}

/// Every session of this node.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    state: Mutex<State>,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Every stream, also before its `Hello`.
    open: BTreeMap<SessionId, Arc<Handle>>,
    /// Sessions that are to be told what concerns their user.
    users: BTreeMap<UserId, Vec<Arc<Handle>>>,
    drains: bool,
}

impl Registry {
    /// Takes in a new stream. While the node drains it is told so at once.
    pub(crate) fn enter(&self, handle: &Arc<Handle>) {
        let mut state = self.lock();
        if state.drains {
            handle.inbox.drain();
        }
        state
            .open
            .insert(handle.session.clone(), Arc::clone(handle));
    }

    /// From now on the session is told what concerns its user. Doing it again
    /// changes nothing.
    pub(crate) fn list(&self, handle: &Arc<Handle>) {
        let mut state = self.lock();
        let sessions = state.users.entry(handle.user.clone()).or_default();
        if !sessions
            .iter()
            .any(|listed| listed.session == handle.session)
        {
            sessions.push(Arc::clone(handle));
        }
    }

    /// The session is told nothing more.
    pub(crate) fn unlist(&self, handle: &Handle) {
        let mut state = self.lock();
        if let Some(sessions) = state.users.get_mut(&handle.user) {
            sessions.retain(|listed| listed.session != handle.session);
            if sessions.is_empty() {
                state.users.remove(&handle.user);
            }
        }
    }

    /// The stream has ended.
    pub(crate) fn leave(&self, handle: &Handle) {
        self.unlist(handle);
        let mut state = self.lock();
        state.open.remove(&handle.session);
        if state.open.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// Calls `tell` for every session of a user but `except`.
    pub(crate) fn tell(&self, user: &UserId, except: Option<&SessionId>, tell: impl Fn(&Handle)) {
        let state = self.lock();
        let sessions = state.users.get(user).into_iter().flatten();
        let others = sessions.filter(|handle| Some(&handle.session) != except);
        others.for_each(|handle| tell(handle));
    }

    /// Whether a user has a session here.
    pub(crate) fn is_here(&self, user: &UserId) -> bool {
        self.lock().users.contains_key(user)
    }

    /// Whether this session of a user is told what concerns the user.
    pub(crate) fn is_listed(&self, user: &UserId, session: &SessionId) -> bool {
        let state = self.lock();
        let mut sessions = state.users.get(user).into_iter().flatten();
        sessions.any(|handle| handle.session == *session)
    }

    /// Has every listed session register again, as of this incarnation, spread over
    /// `spread`.
    pub(crate) fn register_again(&self, incarnation: &Incarnation, spread: Duration) {
        let state = self.lock();
        let listed = || state.users.values().flatten();
        let count = u32::try_from(listed().count()).unwrap_or(u32::MAX).max(1);
        for (index, handle) in (0..count).zip(listed()) {
            let delay = spread * index / count;
            handle.inbox.register_again(incarnation.clone(), delay);
        }
    }

    /// The sessions of these users as they are now.
    pub(crate) fn sessions(&self, users: [&UserId; 2]) -> Vec<Arc<Handle>> {
        let state = self.lock();
        let sessions = users.iter().filter_map(|user| state.users.get(*user));
        sessions.flatten().cloned().collect()
    }

    /// Calls `tell` for every session that is told what concerns its user.
    pub(crate) fn tell_everyone(&self, tell: impl Fn(&Handle)) {
        self.lock()
            .users
            .values()
            .flatten()
            .for_each(|handle| tell(handle));
    }

    /// Tells one session of a user that a newer one took over.
    pub(crate) fn supersede(&self, user: &UserId, session: &SessionId) {
        let state = self.lock();
        let handle = state.open.get(session);
        if let Some(handle) = handle.filter(|handle| handle.user == *user) {
            handle.inbox.supersede();
        }
    }

    /// Users with sessions, in order, after `after`; at most `max`.
    pub(crate) fn users(&self, after: Option<&UserId>, max: usize) -> Vec<UserId> {
        use std::ops::Bound;
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let state = self.lock();
        let users = state.users.range::<UserId, _>((after, Bound::Unbounded));
        users.take(max).map(|(user, _)| user.clone()).collect()
    }

    /// How many streams are open.
    pub(crate) fn len(&self) -> usize {
        self.lock().open.len()
    }

    /// Tells every session that the node stops: those that come from now on at once, the
    /// others one after the other within `spread`, so that their clients do not come back
    /// all at once. Until its turn each is served as before.
    pub(crate) async fn drain(&self, spread: Duration) {
        let handles: Vec<_> = {
            let mut state = self.lock();
            state.drains = true;
            state.open.values().cloned().collect()
        };
        let count = u32::try_from(handles.len()).unwrap_or(u32::MAX).max(1);
        let began = Instant::now();
        for (index, handle) in (0..count).zip(handles) {
            tokio::time::sleep_until(began + spread * index / count).await;
            handle.inbox.drain();
        }
    }

    /// Waits until no stream is open.
    pub(crate) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.len() == 0 {
                return;
            }
            emptied.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is a single call to a map, so a panic leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::session::Input;

    fn enter(registry: &Registry, number: u32) -> Arc<Handle> {
        let handle = Arc::new(Handle {
            user: UserId::parse("alice").unwrap(),
            session: SessionId::parse(&format!("s{number}")).unwrap(),
            inbox: Inbox::new(Arc::default()),
            confirmed: Mutex::default(),
        });
        registry.enter(&handle);
        handle
    }

    fn is_sent_away(handle: &Handle) -> bool {
        let mut inputs = Vec::new();
        handle.inbox.take(&mut inputs);
        matches!(inputs.as_slice(), [Input::Drain])
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_are_sent_away_in_turn_and_those_that_come_then_at_once() {
        let registry = Registry::default();
        let before: Vec<_> = (0..4).map(|number| enter(&registry, number)).collect();
        assert!(!is_sent_away(&before[0]));
        let mut draining = Box::pin(registry.drain(Duration::from_secs(4)));
        for handle in &before {
            assert!(
                (&mut draining).now_or_never().is_none() || handle.session == before[3].session
            );
            let sent: Vec<_> = before.iter().map(|handle| is_sent_away(handle)).collect();
            assert_eq!(sent.iter().filter(|sent| **sent).count(), 1, "{sent:?}");
            assert!(is_sent_away(&enter(&registry, 9)));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
    }
}
