//! Keeps a keeper for every replica, as many as the service has now.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::address::{Address, Addresses, MAX_ENDPOINTS, Place};
use super::keeper::{Keepers, keep};
use super::{RESOLVE_INTERVAL, RESOLVE_PAUSE};

/// Runs until it is dropped, and its keepers with it.
pub(super) async fn run(keepers: Arc<Keepers>, addresses: Addresses) {
    let mut replicas = Replicas {
        keepers,
        tasks: JoinSet::new(),
        running: BTreeMap::new(),
    };
    match addresses.place {
        Place::List(list) => {
            replicas.follow(&list);
            std::future::pending::<()>().await;
        }
        Place::Dns(name) => loop {
            let looked = Instant::now();
            replicas.resolve(&name).await;
            sleep_until(looked + RESOLVE_PAUSE).await;
            tokio::select! {
                () = sleep_until(looked + RESOLVE_INTERVAL) => {}
                () = replicas.keepers.failed.notified() => {}
            }
        },
    }
}

struct Replicas {
    keepers: Arc<Keepers>,
    tasks: JoinSet<()>,
    running: BTreeMap<Address, AbortHandle>,
}

impl Replicas {
    async fn resolve(&mut self, name: &str) {
        match self.keepers.network.resolve(name).await {
            Ok(found) if !found.is_empty() => {
                let mut found: Vec<_> = found.into_iter().map(Address::from).collect();
                found.sort_unstable();
                found.dedup();
                if found.len() > MAX_ENDPOINTS {
                    tracing::warn!(
                        name,
                        found = found.len(),
                        "too many replicas, some are left out"
                    );
                    found.truncate(MAX_ENDPOINTS);
                }
                self.follow(&found);
            }
            Ok(_) => self.unresolved(name, "no addresses"),
            Err(error) => self.unresolved(name, &error.to_string()),
        }
    }

    fn unresolved(&self, name: &str, why: &str) {
        let why = format!("{name} cannot be resolved: {why}");
        self.keepers.view.send_modify(|view| view.unresolved(why));
    }

    /// `addresses` are sorted.
    fn follow(&mut self, addresses: &[Address]) {
        self.keepers
            .view
            .send_modify(|view| view.resolved(addresses));
        self.running.retain(|address, task| {
            let stays = addresses.binary_search(address).is_ok();
            if !stays {
                // Calls under way hold the connection for themselves.
                task.abort();
            }
            stays
        });
        for address in addresses {
            if !self.running.contains_key(address) {
                let keeper = keep(Arc::clone(&self.keepers), address.clone());
                let task = self.tasks.spawn(keeper);
                self.running.insert(address.clone(), task);
            }
        }
        // Those that were aborted.
        while self.tasks.try_join_next().is_some() {}
    }
}
