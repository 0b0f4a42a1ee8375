//! One chat node, as a program uses it.

use std::sync::Arc;
use std::time::Duration;

use duologue_proto::history::HistoryError;
use duologue_proto::ids::Incarnation;
use duologue_runtime::clock::RandomExt as _;
use duologue_runtime::task;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::core::{ChatConfig, Core, Parts};
use crate::grpc::ChatServer;
use crate::node::Keeper;
use crate::relay::{self, RelayServer};
use crate::{hints, people};

/// A node that leaves waits at most so long until the others have been told everything.
pub const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// One chat node. Clones share it.
#[derive(Clone)]
pub struct Chat {
    core: Arc<Core>,
    /// Has the lease given back; none where there is one node.
    leave: Option<Arc<watch::Sender<bool>>>,
    /// They end with the last clone.
    _tasks: Arc<Tasks>,
}

struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl Chat {
    /// Starts a node, once history says which history it is.
    pub async fn start(config: ChatConfig, parts: Parts) -> Result<Self, HistoryError> {
        let history_id = parts.history.history_id().await?;
        let incarnation = Incarnation::parse(&parts.random.id())
            .map_err(|_| HistoryError::Unavailable { retry_after: None })?;
        let changes = parts.presence.watch();
        let others = parts.relay.clone();
        let core = Arc::new(Core::new(config, history_id, incarnation, parts));
        let watcher = people::watch(Arc::clone(&core), changes);
        let mut tasks = vec![task::spawn("presence watcher", watcher)];
        let mut leave = None;
        if let Some(others) = others {
            let keeper = Keeper::new(Arc::clone(&core), others.nodes, others.address);
            // Before anybody can register.
            keeper.start().await;
            let (stop, stopped) = watch::channel(false);
            tasks.push(task::spawn("node keeper", keeper.run(stopped)));
            tasks.push(task::spawn("presence hints", hints::run(Arc::clone(&core))));
            leave = Some(Arc::new(stop));
        }
        Ok(Self {
            core,
            leave,
            _tasks: Arc::new(Tasks(tasks)),
        })
    }

    /// The service for a server's stack, which must verify the caller.
    pub fn server(&self) -> ChatServer {
        ChatServer::new(Arc::clone(&self.core))
    }

    /// What other nodes call, for an internal listener, which must know its callers.
    pub fn relay_server(&self) -> RelayServer {
        relay::server(Arc::clone(&self.core))
    }

    /// Whether other nodes find this one: it holds its lease. True where there is one
    /// node.
    pub fn is_found(&self) -> bool {
        self.leave.is_none() || self.core.tenure.is_held(Instant::now())
    }

    /// Tells every session that the node stops, one after the other within `spread`, and
    /// waits until all have ended. What the sessions
    /// have stored is still told to other nodes. The node's lease is given back last:
    /// the routes are gone by then.
    pub async fn drain(&self, spread: Duration) {
        let registry = &self.core.registry;
        let telling = registry.drain(spread);
        tokio::select! {
            biased;
            // Those that come now are told so at once.
            () = async { telling.await; registry.empty().await } => {}
            () = registry.empty() => {}
        }
        let told = tokio::time::timeout(LEAVE_TIMEOUT, self.core.router.idle()).await;
        if told.is_err() {
            tracing::warn!("other nodes were not told everything: their sessions are to sync");
        }
        if let Some(leave) = &self.leave {
            leave.send_replace(true);
            self.core.tenure.left().await;
        }
    }

    /// How many streams are open.
    pub fn sessions(&self) -> usize {
        self.core.registry.len()
    }
}

#[cfg(test)]
mod tests {
    use duologue_proto::ids::UserId;
    use duologue_proto::message::Cursor;

    use super::*;
    use crate::tests::{Directory, core, route};

    #[tokio::test(start_paused = true)]
    async fn a_node_leaves_when_the_others_were_told_or_cannot_be() {
        let users = ["alice", "bob"].map(|name| UserId::parse(name).unwrap());
        for (routes, least) in [
            (vec![], Duration::ZERO),
            (vec![route("bob", "two")], LEAVE_TIMEOUT),
        ] {
            let core = core(&Directory::new(routes));
            core.router
                .cursor(&users[0], &users[1], Cursor::default(), None);
            let chat = Chat {
                core,
                leave: None,
                _tasks: Arc::new(Tasks(Vec::new())),
            };
            let began = Instant::now();
            chat.drain(Duration::ZERO).await;
            let took = began.elapsed();
            assert!(
                took >= least && took < least + Duration::from_secs(1),
                "{took:?}"
            );
        }
    }
}
