//! Storing messages: the append rule, and the actors that apply it.
//!
//! A fixed number of appenders each own the conversations of their shard. An
//! appender works on many conversations at once and on each one serially;
//! whatever queued for a conversation meanwhile becomes its next batch
//! ([`batch`] holds the rule). The work belongs to the appender: a caller that
//! goes away cancels nothing.

mod batch;
mod plan;
mod put;
mod shard;
mod tail;

pub use self::batch::{MAX_BLOCKED, MAX_LATE};
pub use self::plan::{MAX_PUT, READ_BYTES, READ_SLOTS};
pub use self::put::{FIRST_RETRY_DELAY, MAX_RETRIES};
pub use self::shard::MAX_BATCH_DRAFTS;
pub(crate) use self::tail::Keys;
pub use self::tail::{MAX_CACHED_SLOTS, MAX_SLOTS, MAX_TAILS};

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::time::Duration;

use duologue_proto::history::{Appended, OnAppended, Run, Unsettled, UnsettledReason};
use duologue_proto::ids::{ConversationId, Seq};
use duologue_runtime::task;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::error::RETRY_AFTER;
use crate::history::Shared;

/// Appenders of one history.
pub const SHARDS: usize = 4;
/// Runs that wait to be taken up by one appender.
pub const SHARD_QUEUE: usize = 256;
/// What all runs that are not answered yet may hold, in KiB of bodies; a run
/// counts as at least one.
pub const MAX_PENDING_KIB: usize = 64 * 1024;
/// How long a run waits for room, before it is answered as unavailable.
pub const MAX_WAIT: Duration = Duration::from_secs(5);

/// The way to the appenders.
pub(crate) struct Appenders {
    shards: [mpsc::Sender<Request>; SHARDS],
    room: Arc<Semaphore>,
}

/// A run on its way.
struct Request {
    conversation: ConversationId,
    run: Run,
    answered: OnAppended,
    room: OwnedSemaphorePermit,
}

impl Appenders {
    /// Spawns the appenders. They end when this is dropped and everything that
    /// was queued is answered.
    pub(crate) fn spawn(shared: &Arc<Shared>) -> Self {
        let shards = std::array::from_fn(|_| {
            let (requests, queue) = mpsc::channel(SHARD_QUEUE);
            task::spawn("appender", shard::run(Arc::clone(shared), queue));
            requests
        });
        Self {
            shards,
            room: Arc::new(Semaphore::new(MAX_PENDING_KIB)),
        }
    }

    /// Queues a run. Without room for too long it is not taken, and answered so.
    pub(crate) async fn submit(&self, run: Run, answered: OnAppended) {
        if run.drafts.is_empty() {
            return answered.call(Vec::new());
        }
        let conversation = ConversationId::of(&run.sender, &run.peer);
        let shard = &self.shards[shard_of(&conversation)];
        let room = Arc::clone(&self.room).acquire_many_owned(weight_kib(&run));
        let queued = async {
            let request = Request {
                conversation,
                run,
                answered,
                room: room.await.ok()?,
            };
            shard.send(request).await.ok()
        };
        // What is not taken is dropped, and so answered.
        let _ = tokio::time::timeout(MAX_WAIT, queued).await;
    }
}

/// The same shard for a conversation in every process and run.
fn shard_of(conversation: &ConversationId) -> usize {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(conversation);
    usize::try_from(hash % SHARDS as u64).unwrap_or_default()
}

fn weight_kib(run: &Run) -> u32 {
    let bytes: usize = run.drafts.iter().map(|draft| draft.body.len()).sum();
    let kib = (bytes / 1_024 + 1).min(MAX_PENDING_KIB);
    u32::try_from(kib).unwrap_or(u32::MAX)
}

fn unsettled(reason: UnsettledReason, head: Option<Seq>) -> Appended {
    let retry_after = match reason {
        UnsettledReason::Unavailable => Some(RETRY_AFTER),
        UnsettledReason::Contended => Some(RETRY_AFTER / 10),
        UnsettledReason::NotFound
        | UnsettledReason::AfterSeqTooOld
        | UnsettledReason::AfterSeqAhead => None,
    };
    Appended::Unsettled(Unsettled {
        reason,
        head,
        retry_after,
    })
}
