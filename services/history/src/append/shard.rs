//! One appender: a task that owns the conversations of its shard.
//!
//! It must not work on one conversation twice at a time, and must not let one
//! conversation wait for another.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use duologue_proto::ids::ConversationId;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::mpsc;

use super::tail::{Tail, Tails};
use super::{Request, SHARD_QUEUE, batch};
use crate::history::Shared;

/// Drafts of one batch, after which the rest waits for the next one.
pub const MAX_BATCH_DRAFTS: usize = 512;

/// Serves requests until no more can come and all are answered.
pub(super) async fn run(shared: Arc<Shared>, mut queue: mpsc::Receiver<Request>) {
    let mut appender = Shard {
        shared,
        tails: Tails::default(),
        queues: BTreeMap::new(),
        running: FuturesUnordered::new(),
    };
    let mut taken = Vec::with_capacity(SHARD_QUEUE);
    let mut open = true;
    while open || !appender.running.is_empty() {
        tokio::select! {
            biased;
            // First, so that a batch holds all that came before it. What is
            // taken here is bounded by the room that requests hold.
            count = queue.recv_many(&mut taken, SHARD_QUEUE), if open => {
                open = count > 0;
                appender.accept(&mut taken);
            }
            Some((conversation, tail)) = appender.running.next() => {
                appender.finished(conversation, tail);
            }
        }
    }
}

type Batch = BoxFuture<'static, (ConversationId, Option<Tail>)>;

struct Shard {
    shared: Arc<Shared>,
    tails: Tails,
    /// What waits, by conversation. A conversation is here while it is worked
    /// on, and only then.
    queues: BTreeMap<ConversationId, VecDeque<Request>>,
    running: FuturesUnordered<Batch>,
}

impl Shard {
    fn accept(&mut self, taken: &mut Vec<Request>) {
        let mut idle = Vec::new();
        for request in taken.drain(..) {
            let queue = self
                .queues
                .entry(request.conversation.clone())
                .or_insert_with(|| {
                    idle.push(request.conversation.clone());
                    VecDeque::new()
                });
            queue.push_back(request);
        }
        for conversation in idle {
            let tail = self.tails.take(&conversation);
            self.start(conversation, tail);
        }
    }

    fn finished(&mut self, conversation: ConversationId, tail: Option<Tail>) {
        let waiting = self.queues.get(&conversation);
        if waiting.is_some_and(|queue| !queue.is_empty()) {
            self.start(conversation, tail);
            return;
        }
        self.queues.remove(&conversation);
        if let Some(tail) = tail {
            self.tails.put(conversation, tail);
        }
    }

    fn start(&mut self, conversation: ConversationId, tail: Option<Tail>) {
        let Some(queue) = self.queues.get_mut(&conversation) else {
            return;
        };
        let requests = next_batch(queue);
        let shared = Arc::clone(&self.shared);
        self.running.push(Box::pin(async move {
            let tail = batch::append(&shared, &conversation, tail, requests).await;
            (conversation, tail)
        }));
    }
}

/// The oldest requests, at least one.
fn next_batch(queue: &mut VecDeque<Request>) -> Vec<Request> {
    let mut drafts = 0;
    let fits = |request: &&Request| {
        drafts += request.run.drafts.len();
        drafts <= MAX_BATCH_DRAFTS
    };
    let count = queue.iter().take_while(fits).count().max(1);
    queue.drain(..count.min(queue.len())).collect()
}
