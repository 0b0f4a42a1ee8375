//! The service: what chat asks of history, over any engine.
//!
//! The rules stand in `append`, `read`, `sync`, `cursors` and `list`; an engine
//! decides nothing. Any number of replicas may run over one engine.

use std::sync::Arc;

use duologue_proto::history::{Appended, HistoryError, OnAppended, Run};
use duologue_proto::ids::{ConversationId, HistoryId, UserId};
use duologue_runtime::clock::Clock;
use tokio::sync::{oneshot, watch};

use crate::append::{Appenders, Keys};
use crate::error::unavailable;
use crate::rows::KnownRows;
use crate::store::{Store, StoreError};
use crate::time::Time;

/// A history over one engine. Clones share everything; when the last is dropped
/// the appends under way are finished and its tasks end.
#[derive(Clone)]
pub struct History {
    pub(crate) shared: Arc<Shared>,
    appenders: Arc<Appenders>,
}

/// What every part of a history needs.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) time: Time,
    pub(crate) rows: KnownRows,
    pub(crate) keys: Keys,
    /// It has refused for so long that others shall be asked.
    refusing: watch::Sender<bool>,
}

impl History {
    /// A history over `store`. Spawns its appenders: to be called in a runtime.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        let shared = Arc::new(Shared {
            time: Time::new(Arc::clone(&store), clock),
            rows: KnownRows::default(),
            keys: Keys::default(),
            refusing: watch::Sender::new(false),
            store,
        });
        let appenders = Arc::new(Appenders::spawn(&shared));
        Self { shared, appenders }
    }

    /// Which history this is.
    #[expect(
        clippy::unused_async,
        reason = "it mirrors chat's port, which asks over the wire"
    )]
    pub async fn history_id(&self) -> Result<HistoryId, HistoryError> {
        Ok(self.shared.store.history_id().clone())
    }

    /// Whether messages can be stored. An error is for good: the process must
    /// restart.
    pub fn writable(&self) -> Result<(), StoreError> {
        self.shared.store.writable()
    }

    /// Whether the store can be reached, and history's time is that of the other
    /// replicas: asks. An error may pass.
    pub async fn probe(&self) -> Result<(), StoreError> {
        self.shared.time.probe().await
    }

    /// Says whether this replica refuses what others might do: then its append streams
    /// end, and no further ones begin.
    pub fn set_refusing(&self, refusing: bool) {
        self.shared.refusing.send_replace(refusing);
    }

    /// Whether it does, and what comes of that.
    pub(crate) fn refusing(&self) -> watch::Receiver<bool> {
        self.shared.refusing.subscribe()
    }

    /// Takes a run to be stored; `answered` is called when it is settled. Cancelling
    /// the call leaves every draft either stored or not, never half-done, and what is
    /// stored is answered.
    pub async fn submit(&self, run: Run, answered: OnAppended) {
        self.appenders.submit(run, answered).await;
    }

    /// Stores a run. One answer per draft, in their order.
    pub async fn append(&self, run: Run) -> Vec<Appended> {
        let (answer, answers) = oneshot::channel();
        // Who went away needs no answer.
        let answered = OnAppended::new(run.drafts.len(), |appended| drop(answer.send(appended)));
        self.submit(run, answered).await;
        answers.await.unwrap_or_default()
    }

    /// Asks a question that reads several times.
    pub(crate) async fn ask<T: Send + 'static, F>(
        &self,
        question: impl FnOnce(Arc<Shared>) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let question = question(Arc::clone(&self.shared));
        let asked = async { drop(answer.send(question.await)) };
        self.shared.store.ask(Box::pin(asked)).await;
        let lost = || StoreError::Unavailable("a question was not answered".into());
        answered.await.unwrap_or_else(|_| Err(lost()))
    }

    /// The users who share a conversation with `user`, in order, after `after`;
    /// at most `max`.
    pub async fn peers(
        &self,
        user: &UserId,
        after: Option<&UserId>,
        max: usize,
    ) -> Result<Vec<UserId>, HistoryError> {
        let store = &self.shared.store;
        store
            .conversations(user, after, max)
            .await
            .map_err(unavailable)
    }

    /// Whether two users share a conversation: whether it has a message.
    pub async fn share_conversation(
        &self,
        one: &UserId,
        other: &UserId,
    ) -> Result<bool, HistoryError> {
        let conversation = ConversationId::of(one, other);
        let head = self.shared.store.head(&conversation).await;
        Ok(head.map_err(unavailable)?.is_some())
    }
}
