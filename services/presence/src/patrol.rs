//! The task that looks at nodes as long as the service runs, so that watchers are
//! told of what nobody does any more: the users of a node that died go offline.
//!
//! Leases are read on time whatever else is to be read: two loops, of which the
//! second is woken by the first.

use duologue_proto::ids::UserId;
use duologue_proto::presence::PresenceError;
use futures_util::{StreamExt as _, stream};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info};

use crate::lease::POLL_INTERVAL;
use crate::presence::{CONCURRENT_PAGES, Presence};

impl Presence {
    /// Reads the leases every [`POLL_INTERVAL`], and when a node could be found dead;
    /// after each time, reads again who is shown online by a node that died, and
    /// whose reading failed before. Never returns where nodes are observed, and at
    /// once in one process.
    /// `read` is told of each reading of the leases.
    pub async fn watch_nodes(&self, read: impl Fn(&Result<(), PresenceError>)) {
        if self.observer().is_some() {
            let polled = Notify::new();
            tokio::join!(self.poll(&polled, read), self.correct(&polled));
        }
    }

    /// A node whose counter rests is found dead as soon as it has rested long
    /// enough, not up to an interval later: that leaves time to read its users.
    async fn poll(&self, polled: &Notify, read: impl Fn(&Result<(), PresenceError>)) {
        loop {
            let began = Instant::now();
            let observed = self.observe().await;
            read(&observed);
            match observed {
                Ok(()) => polled.notify_one(),
                Err(error) => debug!(%error, "the leases were not read"),
            }
            let interval = began + POLL_INTERVAL;
            let death = self.observer().and_then(|nodes| nodes.next_death(began));
            sleep_until(death.map_or(interval, |death| death.min(interval))).await;
        }
    }

    async fn correct(&self, polled: &Notify) {
        loop {
            polled.notified().await;
            self.forget_nodes().await;
            self.read_due().await;
        }
    }

    /// Another replica may have been faster.
    async fn forget_nodes(&self) {
        let leases = self.observer().map(|nodes| nodes.forgettable());
        for lease in leases.unwrap_or_default() {
            match self.directory().forget(&lease).await {
                Ok(true) => info!(node.id = %lease.node, "a node is forgotten"),
                Ok(false) => {}
                Err(error) => debug!(%error, "a node was not forgotten"),
            }
        }
    }

    /// One after the other if one of them cannot be read.
    async fn read_each(&self, users: &[UserId]) -> Result<(), PresenceError> {
        match self.read(users).await {
            Err(PresenceError::OfUser) => {}
            read => return read.map(|_| ()),
        }
        for user in users {
            match self.read(std::slice::from_ref(user)).await {
                Ok(_) | Err(PresenceError::OfUser) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Page by page, some at the same time, each user once: who is still open, because
    /// their node is not known yet, is read again after the next poll. A page that cannot
    /// be read holds up no other, but a directory that cannot be is not asked on and on.
    async fn read_due(&self) {
        let pages: Vec<_> = std::iter::successors(Some(self.due(None)), |users| {
            users.last().map(|last| self.due(Some(last)))
        })
        .take_while(|users| !users.is_empty())
        .collect();
        let readings: Vec<_> = pages.iter().map(|users| self.read_each(users)).collect();
        let mut readings = stream::iter(readings).buffer_unordered(CONCURRENT_PAGES);
        let mut failures = 0;
        while let Some(read) = readings.next().await {
            let Err(error) = read else {
                failures = 0;
                continue;
            };
            debug!(%error, "changes of presence wait for the next poll");
            failures += 1;
            if failures == CONCURRENT_PAGES {
                return;
            }
        }
    }
}
