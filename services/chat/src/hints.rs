//! "Look at this user": what other nodes say when a session of theirs came or left.
//!
//! Asking presence is enough: it publishes what changed to those who watch it, and
//! `people` tells the sessions. So it costs a question per connect and disconnect, if
//! anybody here may see the user, and never one per message.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use duologue_proto::ids::UserId;
use futures_util::{StreamExt as _, stream};
use tokio::sync::Notify;

use crate::core::Core;
use crate::people;

/// Users who wait to be looked at; with more, every session asks anew who is online.
pub const MAX_LOOKS: usize = 10_000;
/// Users who are looked at at the same time.
pub const LOOKS_AT_ONCE: usize = 8;
/// How often a user is looked at when presence does not know: as long as a new node
/// may be unknown, and more. After that every session asks anew who is online, as soon as
/// presence knows of anybody.
pub const MAX_LOOK_TRIES: u32 = 30;
/// The pause before that.
pub const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// Users to be looked at, each with how often that failed.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    waiting: Mutex<BTreeMap<UserId, u32>>,
    added: Notify,
}

impl Hints {
    /// Has a user looked at. Returns false if there is no room.
    pub(crate) fn look_at(&self, user: UserId) -> bool {
        self.add(user, 0)
    }

    fn add(&self, user: UserId, tries: u32) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= MAX_LOOKS && !waiting.contains_key(&user) {
            return false;
        }
        let known = waiting.entry(user).or_insert(tries);
        *known = tries.min(*known);
        drop(waiting);
        self.added.notify_one();
        true
    }

    fn take(&self) -> BTreeMap<UserId, u32> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Looks at whoever is named, for as long as the node lives.
pub(crate) async fn run(core: Arc<Core>) {
    // One of those who were given up.
    let mut lost = None;
    loop {
        let mut taken = core.hints.take();
        if taken.is_empty() {
            let Some(user) = lost.clone() else {
                core.hints.added.notified().await;
                continue;
            };
            taken.insert(user, MAX_LOOK_TRIES);
        }
        let count = taken.len();
        let looks = stream::iter(taken).map(|(user, tries)| {
            let core = &core;
            async move {
                let looked = people::look(core, &user).await;
                looked.is_err().then_some((user, tries + 1))
            }
        });
        let again: Vec<_> = looks
            .buffer_unordered(LOOKS_AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await;
        if !again.is_empty() {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        if again.len() < count && lost.take().is_some() {
            core.registry
                .tell_everyone(|handle| handle.inbox.presence_lost());
        }
        for (user, tries) in again {
            if tries > MAX_LOOK_TRIES || !core.hints.add(user.clone(), tries) {
                lost = Some(user);
            }
        }
    }
}
