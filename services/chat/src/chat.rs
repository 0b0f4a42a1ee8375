//! One chat node, as a program uses it.

use std::sync::Arc;
use std::time::Duration;

use duologue_proto::history::HistoryError;
use duologue_proto::ids::Incarnation;
use duologue_runtime::clock::RandomExt as _;
use duologue_runtime::task;
use tokio::task::JoinHandle;

use crate::core::{ChatConfig, Core, Parts};
use crate::grpc::ChatServer;
use crate::people;
use crate::ports::Announcement;

/// One chat node. Clones share it.
#[derive(Clone)]
pub struct Chat {
    core: Arc<Core>,
    /// Tells sessions of presence; ends with the last clone.
    _watcher: Arc<Watcher>,
}

struct Watcher(JoinHandle<()>);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Chat {
    /// Starts a node, once history says which history it is.
    pub async fn start(config: ChatConfig, parts: Parts) -> Result<Self, HistoryError> {
        let history_id = parts.history.history_id().await?;
        let incarnation = Incarnation::parse(&parts.random.id())
            .map_err(|_| HistoryError::Unavailable { retry_after: None })?;
        let changes = parts.presence.watch();
        let core = Arc::new(Core::new(config, history_id, incarnation, parts));
        let watcher = task::spawn(
            "presence watcher",
            people::watch(Arc::clone(&core), changes),
        );
        Ok(Self {
            core,
            _watcher: Arc::new(Watcher(watcher)),
        })
    }

    /// The service for a server's stack, which must verify the caller.
    pub fn server(&self) -> ChatServer {
        ChatServer::new(Arc::clone(&self.core))
    }

    /// Takes what another node announces. Returns how many sessions were told;
    /// 0 means "not here".
    pub fn deliver(&self, announcement: &Announcement) -> usize {
        self.core.router.deliver(announcement, None)
    }

    /// Tells every session, now and later, that the node stops, and waits until
    /// all have ended. Their clients come back spread over `spread`.
    pub async fn drain(&self, spread: Duration) {
        self.core.registry.drain(spread);
        self.core.registry.empty().await;
    }

    /// How many streams are open.
    pub fn sessions(&self) -> usize {
        self.core.registry.len()
    }
}
