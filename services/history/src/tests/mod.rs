//! Tests of the rules above the store, with several replicas and a store that
//! fails in every way that a remote one can.

mod append;
mod append_faults;
mod cursors;
mod faults;
mod lists;
#[cfg(feature = "faults")]
mod mutants;
mod promises;
mod simulation;
mod sync;
mod wire;

use std::sync::Arc;

use bytes::Bytes;
use duologue_proto::history::{
    Appended, CursorAdvanced, Draft, HistoryError, Intent, Run, UnsettledReason,
};
use duologue_proto::ids::{ConversationId, MessageId, Seq, UnixMillis, UserId};
use duologue_proto::message::{Cursor, Envelope};
use duologue_runtime::clock::{Clock, ManualClock, SeededRandom};

use crate::history::History;
use crate::memory::MemoryStore;
use crate::store::{Consistency, SlotRange, Store};
use faults::FaultyStore;

const START: UnixMillis = UnixMillis(1_800_000_000_000);

/// One store in memory, with one replica that reaches it through faults.
struct World {
    clock: ManualClock,
    memory: Arc<dyn Store>,
    faults: Arc<FaultyStore>,
    history: History,
}

impl World {
    fn new() -> Self {
        let clock = ManualClock::at(START);
        let shared_clock: Arc<dyn Clock> = Arc::new(clock.clone());
        let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(
            Arc::clone(&shared_clock),
            &SeededRandom::new(1),
        ));
        let faults = Arc::new(FaultyStore::new(Arc::clone(&memory), clock.clone()));
        let history = History::new(Arc::clone(&faults) as Arc<dyn Store>, shared_clock);
        Self {
            clock,
            memory,
            faults,
            history,
        }
    }

    /// Another replica over the same store, without faults.
    fn replica(&self) -> History {
        History::new(Arc::clone(&self.memory), Arc::new(self.clock.clone()))
    }

    /// Everything stored between alice and bob.
    async fn stored(&self) -> Vec<Envelope> {
        stored(&self.memory, &pair("alice", "bob")).await
    }
}

async fn stored(store: &Arc<dyn Store>, conversation: &ConversationId) -> Vec<Envelope> {
    let range = SlotRange {
        conversation: conversation.clone(),
        first: Seq(1),
        last: Seq(u64::MAX),
        backward: false,
        max_messages: usize::MAX,
        max_bytes: usize::MAX,
        consistency: Consistency::Strong,
    };
    let messages = store.slots(range).await.unwrap();
    messages
        .into_iter()
        .map(|message| message.envelope)
        .collect()
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn pair(one: &str, other: &str) -> ConversationId {
    ConversationId::of(&user(one), &user(other))
}

fn id(text: &str) -> MessageId {
    MessageId::parse(text).unwrap()
}

/// A draft whose body is its id.
fn draft(message_id: &str, after_seq: u64) -> Draft {
    Draft {
        message_id: id(message_id),
        after_seq: Some(Seq(after_seq)),
        body: Bytes::copy_from_slice(message_id.as_bytes()),
        intent: Intent::Store,
    }
}

fn run(sender: &str, peer: &str, drafts: Vec<Draft>) -> Run {
    Run {
        sender: user(sender),
        peer: user(peer),
        drafts,
    }
}

/// Sends from alice to bob.
async fn send(history: &History, drafts: Vec<Draft>) -> Vec<Told> {
    let answers = history.append(run("alice", "bob", drafts)).await;
    answers.iter().map(told).collect()
}

/// Sends `count` messages from alice to bob, named from `first` on.
async fn fill(history: &History, first: usize, count: usize) {
    for chunk in (first..first + count).collect::<Vec<_>>().chunks(100) {
        let drafts = chunk.iter().map(|n| Draft {
            after_seq: None,
            ..draft(&format!("m{n}"), 0)
        });
        let told = send(history, drafts.collect()).await;
        assert!(told.iter().all(|told| matches!(told, Told::New(_))));
    }
}

/// An answer in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    New(u64),
    Duplicate(u64),
    Reused,
    Left(UnsettledReason, Option<u64>),
}

const UNAVAILABLE: Told = Told::Left(UnsettledReason::Unavailable, None);

fn told(answer: &Appended) -> Told {
    match answer {
        Appended::Stored {
            envelope,
            duplicate: false,
        } => Told::New(envelope.seq.0),
        Appended::Stored { envelope, .. } => Told::Duplicate(envelope.seq.0),
        Appended::MessageIdReused => Told::Reused,
        Appended::Unsettled(unsettled) => {
            Told::Left(unsettled.reason, unsettled.head.map(|head| head.0))
        }
    }
}

fn ids(stored: &[Envelope]) -> Vec<&str> {
    stored
        .iter()
        .map(|envelope| envelope.message_id.as_str())
        .collect()
}

async fn move_cursor(
    history: &History,
    of: &str,
    peer: &str,
    to: Cursor,
) -> Result<CursorAdvanced, HistoryError> {
    history.advance_cursor(&user(of), &user(peer), to).await
}
