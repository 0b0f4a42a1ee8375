//! History in other processes: any number of replicas of one history.
//!
//! Runs of one conversation go to one replica, chosen by its name among those whose
//! stream is open, so that two writers seldom meet; and so do moves of its cursors, since
//! that one knows what they need. That is for speed only: any replica may store any of
//! it. Questions go to the replicas in turn. One that could do
//! nothing lately is left in peace for a while, if there is another.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use async_trait::async_trait;
use duologue_proto::history::v1 as wire;
use duologue_proto::history::v1::history_service_client::HistoryServiceClient;
use duologue_proto::history::{
    ConversationsPage, CursorAdvanced, HistoryError, ListConversations, ListMessages, MessagesPage,
    OnAppended, ReadPage, ReadRequest, Run, SyncPage, SyncRequest,
};
use duologue_proto::ids::{ConversationId, HistoryId, UserId};
use duologue_proto::limits::MAX_INTERNAL_BYTES;
use duologue_proto::message::Cursor;
use duologue_proto::wire::{Read, history as convert};
use duologue_runtime::clock::Random;
use duologue_runtime::refusal::services::history_error;
use tokio::sync::Semaphore;
use tonic::{Response, Status};

use super::append::{Asked, MAX_PENDING_KIB, Stream, weight_kib};
use super::{Connection, Replica, garbled, timed};
use crate::ports;

/// History, as chat asks for it.
pub struct RemoteHistory {
    replicas: RwLock<Vec<Arc<Known>>>,
    random: Arc<dyn Random>,
    /// What runs that are not answered may hold.
    room: Arc<Semaphore>,
    /// Whose turn it is to be asked.
    turn: AtomicUsize,
}

struct Known {
    name: String,
    client: HistoryServiceClient<Connection>,
    stream: Stream,
}

/// Asks the next replica, or the one that is given.
macro_rules! ask {
    ($history:expr, $call:ident, $request:expr) => {
        ask!(of $history.next()?, $call, $request)
    };
    (of $known:expr, $call:ident, $request:expr) => {{
        let known = $known;
        let mut client = known.client.clone();
        known.answer(client.$call(timed($request)).await)
    }};
}

impl RemoteHistory {
    /// History at these replicas. Opens a stream to each: to be called in a runtime.
    pub fn new(replicas: Vec<Replica>, random: &Arc<dyn Random>) -> Self {
        let this = Self {
            replicas: RwLock::default(),
            random: Arc::clone(random),
            room: Arc::new(Semaphore::new(MAX_PENDING_KIB)),
            turn: AtomicUsize::new(0),
        };
        this.set_replicas(replicas);
        this
    }

    /// From now on history is at these replicas. What others have taken they answer.
    pub fn set_replicas(&self, replicas: Vec<Replica>) {
        let mut known = self
            .replicas
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let replicas = replicas.into_iter().map(|replica| {
            let same = known.iter().find(|known| known.name == replica.name);
            same.map_or_else(|| self.connect(replica), Arc::clone)
        });
        *known = replicas.collect();
    }

    fn connect(&self, replica: Replica) -> Arc<Known> {
        let client = HistoryServiceClient::new(replica.connection)
            .max_decoding_message_size(MAX_INTERNAL_BYTES)
            .max_encoding_message_size(MAX_INTERNAL_BYTES);
        let random = Arc::clone(&self.random);
        Arc::new(Known {
            stream: Stream::to(replica.name.clone(), client.clone(), random),
            name: replica.name,
            client,
        })
    }

    fn known(&self) -> RwLockReadGuard<'_, Vec<Arc<Known>>> {
        self.replicas.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A replica whose stream is open and that could do something lately; any other where
    /// there is none.
    fn next(&self) -> Result<Arc<Known>, HistoryError> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let replicas = self.known();
        let count = replicas.len();
        let in_turn = (0..count).map(|step| &replicas[turn.wrapping_add(step) % count]);
        let first = in_turn.min_by_key(|known| known.stream.rank());
        let known = first.ok_or(HistoryError::Unavailable { retry_after: None })?;
        Ok(Arc::clone(known))
    }

    /// The same replica for a conversation on every node, as long as the same are up;
    /// when one goes, the conversations of the others stay where they are.
    fn owner_of(&self, conversation: &ConversationId) -> Option<Arc<Known>> {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let rank = |known: &&Arc<Known>| {
            let weight = hasher.hash_one((conversation, &known.name));
            (known.stream.rank(), weight)
        };
        self.known().iter().min_by_key(rank).cloned()
    }
}

#[cfg(test)]
impl RemoteHistory {
    pub(super) fn replicas_open(&self) -> bool {
        self.known().iter().all(|known| known.stream.is_open())
    }

    pub(super) fn owner_name(&self, conversation: &ConversationId) -> String {
        let owner = self.owner_of(conversation);
        owner.map_or(String::new(), |known| known.name.clone())
    }
}

#[async_trait]
impl ports::History for RemoteHistory {
    async fn history_id(&self) -> Result<HistoryId, HistoryError> {
        let response = ask!(self, get_history, wire::GetHistoryRequest {})?;
        checked(convert::read_history_id(&response.history_id))
    }

    /// Returns at once: what cannot be taken is dropped, and so answered.
    async fn append(&self, run: Run, answered: OnAppended) {
        if run.drafts.is_empty() {
            return answered.call(Vec::new());
        }
        let conversation = ConversationId::of(&run.sender, &run.peer);
        let room = Arc::clone(&self.room).try_acquire_many_owned(weight_kib(&run));
        if let (Some(known), Ok(room)) = (self.owner_of(&conversation), room) {
            known.stream.take(Asked::new(run, answered, room));
        }
    }

    async fn read(&self, request: ReadRequest) -> Result<ReadPage, HistoryError> {
        let response = ask!(self, read, convert::write_read(&request))?;
        checked(convert::read_read_page(&response))
    }

    async fn sync(&self, request: SyncRequest) -> Result<SyncPage, HistoryError> {
        let response = ask!(self, sync, convert::write_sync(&request))?;
        checked(convert::read_sync_page(response))
    }

    async fn advance_cursor(
        &self,
        user: &UserId,
        peer: &UserId,
        asked: Cursor,
    ) -> Result<CursorAdvanced, HistoryError> {
        let request = convert::write_advance(user, peer, asked);
        // It knows the head, and which rows of the conversation are written.
        let owner = self.owner_of(&ConversationId::of(user, peer));
        let owner = owner.ok_or(HistoryError::Unavailable { retry_after: None })?;
        let response = ask!(of owner, advance_cursor, request)?;
        checked(convert::read_advanced(&response))
    }

    async fn list_messages(&self, request: ListMessages) -> Result<MessagesPage, HistoryError> {
        let request = convert::write_list_messages(&request);
        let response = ask!(self, list_messages, request)?;
        checked(convert::read_messages(response))
    }

    async fn list_conversations(
        &self,
        request: ListConversations,
    ) -> Result<ConversationsPage, HistoryError> {
        let request = convert::write_list_conversations(&request);
        let response = ask!(self, list_conversations, request)?;
        checked(convert::read_conversations(response))
    }

    async fn peers(
        &self,
        user: &UserId,
        after: Option<&UserId>,
        max: usize,
    ) -> Result<Vec<UserId>, HistoryError> {
        let request = convert::write_list_peers(user, after, max);
        let response = ask!(self, list_peers, request)?;
        checked(convert::read_peers(&response))
    }

    async fn share_conversation(&self, one: &UserId, other: &UserId) -> Result<bool, HistoryError> {
        let request = convert::write_share(one, other);
        Ok(ask!(self, share_conversation, request)?.shared)
    }
}

impl Known {
    fn answer<T>(&self, answer: Result<Response<T>, Status>) -> Result<T, HistoryError> {
        answer.map(Response::into_inner).map_err(|status| {
            let error = history_error(&status);
            if matches!(error, HistoryError::Unavailable { .. }) {
                // That it answers the next question says little: what it reads it may
                // still be unable to write.
                self.stream.rest().note(false);
                tracing::warn!(code = %status.code(), "history does not answer");
            }
            error
        })
    }
}

fn checked<T>(read: Read<T>) -> Result<T, HistoryError> {
    read.map_err(|fault| history_error(&garbled("history", &fault)))
}
