//! A store that fails, between a history and the real one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use duologue_proto::ids::{ConversationId, HistoryId, UnixMillis, UserId};
use duologue_proto::message::{Cursor, Envelope};
use duologue_runtime::clock::{Clock, ManualClock, RandomExt as _, SeededRandom};
use futures_util::future::BoxFuture;

use crate::committer::rules::MAX_READING_AGE;
use crate::store::{
    Activity, Consistency, Cursors, PutOutcome, PutRun, PutStop, SlotRange, Store, StoreError,
    StoredMessage, Window,
};

/// What happens to a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PutFault {
    /// Nothing.
    None,
    /// So many messages are applied, so many of these confirmed; of the rest
    /// nothing is known.
    Unknown { applied: usize, confirmed: usize },
    /// Nothing is known; applied when [`FaultyStore::land`] is called.
    Delay,
    /// Not applied.
    Fail,
    /// Not sent.
    TooLate,
    /// Another writer fills the slot first.
    Usurp,
    /// Applied, and the writer's clock goes on before it hears of it.
    Slow(Duration),
    /// Waits before it is sent.
    Pause(Duration),
}

/// One operation that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Head,
    Slots(Consistency),
    Put {
        first: u64,
        count: usize,
        write: bool,
        new: bool,
    },
    Activity(Window),
    Reading(UnixMillis),
    Other,
}

type Intruder = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

#[derive(Default)]
struct State {
    puts: VecDeque<PutFault>,
    delayed: Vec<PutRun>,
    failing_reads: usize,
    failing_rows: usize,
    log: Vec<Op>,
    intruder: Option<(usize, Intruder)>,
    usurped: u64,
    readings_hidden: bool,
}

/// The store with its faults.
pub(super) struct FaultyStore {
    inner: Arc<dyn Store>,
    /// The engine's clock.
    clock: Arc<dyn Clock>,
    /// Moved by [`PutFault::Slow`].
    hands: ManualClock,
    state: Mutex<State>,
    /// Random faults and delays.
    chaos: Option<SeededRandom>,
}

impl FaultyStore {
    pub(super) fn new(inner: Arc<dyn Store>, clock: ManualClock) -> Self {
        Self {
            inner,
            clock: Arc::new(clock.clone()),
            hands: clock,
            state: Mutex::default(),
            chaos: None,
        }
    }

    /// Random faults and delays.
    pub(super) fn chaotic(inner: Arc<dyn Store>, clock: Arc<dyn Clock>, seed: u64) -> Self {
        let mut chaotic = Self::new(inner, ManualClock::default());
        chaotic.clock = clock;
        chaotic.chaos = Some(SeededRandom::new(seed));
        chaotic
    }

    /// The faults of the next puts, in order.
    pub(super) fn on_puts(&self, faults: impl IntoIterator<Item = PutFault>) {
        self.state().puts.extend(faults);
    }

    pub(super) fn fail_reads(&self, count: usize) {
        self.state().failing_reads = count;
    }

    /// As if other replicas' readings were not known yet.
    pub(super) fn hide_readings(&self) {
        self.state().readings_hidden = true;
    }

    pub(super) fn fail_rows(&self, count: usize) {
        self.state().failing_rows = count;
    }

    /// Runs `intruder` just before the operation with this number from now.
    pub(super) fn before_op(&self, number: usize, intruder: Intruder) {
        self.state().intruder = Some((number, intruder));
    }

    /// What was asked for since the last call.
    pub(super) fn take_log(&self) -> Vec<Op> {
        std::mem::take(&mut self.state().log)
    }

    /// Applies what was delayed, however late.
    pub(super) async fn land(&self) {
        let delayed = std::mem::take(&mut self.state().delayed);
        for mut run in delayed {
            // The engine took it in time; it only arrives late.
            run.read_at = self.clock.now().max(self.inner.highest_reading());
            self.inner.put_run(run).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// True with a probability of one in `n`; without chaos never.
    fn one_in(&self, n: u64) -> bool {
        self.draw(n) == Some(0)
    }

    fn draw(&self, below: u64) -> Option<u64> {
        self.chaos.as_ref().map(|chaos| chaos.number() % below)
    }

    async fn enter(&self, op: Op) {
        let intruder = {
            let mut state = self.state();
            state.log.push(op);
            match state.intruder.take() {
                Some((0, intruder)) => Some(intruder),
                Some((more, intruder)) => {
                    state.intruder = Some((more - 1, intruder));
                    None
                }
                None => None,
            }
        };
        if let Some(intruder) = intruder {
            intruder().await;
        }
        self.dawdle().await;
    }

    async fn dawdle(&self) {
        if let Some(millis) = self.draw(4) {
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
    }

    async fn enter_read(&self, op: Op) -> Result<(), StoreError> {
        self.enter(op).await;
        if take_one(&mut self.state().failing_reads) || self.one_in(40) {
            return Err(StoreError::Unavailable("a test".into()));
        }
        Ok(())
    }

    fn next_fault(&self, count: usize) -> PutFault {
        if let Some(fault) = self.state().puts.pop_front() {
            return fault;
        }
        let up_to = |max: usize| {
            let drawn = self.draw(max as u64 + 1).unwrap_or_default();
            usize::try_from(drawn).unwrap_or_default()
        };
        match self.draw(20) {
            Some(0..=3) => {
                let applied = up_to(count);
                PutFault::Unknown {
                    applied,
                    confirmed: up_to(applied),
                }
            }
            Some(4 | 5) => PutFault::Delay,
            Some(6) => PutFault::Fail,
            Some(7) => PutFault::TooLate,
            Some(8) => PutFault::Usurp,
            _ => PutFault::None,
        }
    }

    async fn usurp(&self, run: &PutRun) {
        let first = &run.messages[0].envelope;
        let number = {
            let mut state = self.state();
            state.usurped += 1;
            state.usurped
        };
        let mut run = run.clone();
        run.messages.truncate(1);
        // Of the other user, so that the counts stay those of a true history.
        let was = run.messages[0].envelope.clone();
        let side = |user| run.conversation.side_of(user).unwrap();
        run.messages[0].sent[side(&was.sender)] -= 1;
        run.messages[0].sent[side(&was.recipient)] += 1;
        run.rows.write = true;
        run.messages[0].envelope = Envelope::seal(
            first.seq,
            super::id(&format!("usurper-{number}-{}", first.seq)),
            was.recipient.clone(),
            was.sender.clone(),
            first.accepted_at,
            b"usurper",
        );
        self.inner.put_run(run).await;
    }

    async fn put_some(&self, mut run: PutRun, applied: usize, confirmed: usize) -> PutOutcome {
        run.messages.truncate(applied);
        let stored = if run.messages.is_empty() {
            0
        } else {
            self.inner.put_run(run).await.stored
        };
        PutOutcome {
            stored: stored.min(confirmed),
            stopped: Some(PutStop::Unknown),
        }
    }
}

/// Whether there was one left to take.
fn take_one(count: &mut usize) -> bool {
    let left = *count > 0;
    *count = count.saturating_sub(1);
    left
}

fn stopped(stop: PutStop) -> PutOutcome {
    PutOutcome {
        stored: 0,
        stopped: Some(stop),
    }
}

#[async_trait]
impl Store for FaultyStore {
    fn history_id(&self) -> &HistoryId {
        self.inner.history_id()
    }

    fn highest_reading(&self) -> UnixMillis {
        if self.state().readings_hidden {
            return UnixMillis::default();
        }
        self.inner.highest_reading()
    }

    fn writable(&self) -> Result<(), StoreError> {
        self.inner.writable()
    }

    async fn store_reading(&self, reading: UnixMillis) -> Result<(), StoreError> {
        self.enter_read(Op::Reading(reading)).await?;
        self.inner.store_reading(reading).await
    }

    async fn put_run(&self, run: PutRun) -> PutOutcome {
        self.enter(Op::Put {
            first: run.messages[0].envelope.seq.0,
            count: run.messages.len(),
            write: run.rows.write,
            new: run.rows.new_conversation,
        })
        .await;
        let outcome = match self.next_fault(run.messages.len()) {
            PutFault::None => self.inner.put_run(run).await,
            PutFault::Unknown { applied, confirmed } => {
                self.put_some(run, applied, confirmed).await
            }
            // What is late already is not sent, by any engine.
            PutFault::Delay if self.clock.now().since(run.read_at) > MAX_READING_AGE => {
                stopped(PutStop::TooLate)
            }
            PutFault::Delay => {
                self.state().delayed.push(run);
                stopped(PutStop::Unknown)
            }
            PutFault::Fail => stopped(PutStop::Failed(StoreError::Unavailable("a test".into()))),
            PutFault::TooLate => stopped(PutStop::TooLate),
            PutFault::Usurp => {
                self.usurp(&run).await;
                self.inner.put_run(run).await
            }
            PutFault::Slow(by) => {
                let outcome = self.inner.put_run(run).await;
                self.hands.advance(by);
                outcome
            }
            PutFault::Pause(by) => {
                tokio::time::sleep(by).await;
                self.inner.put_run(run).await
            }
        };
        self.dawdle().await;
        outcome
    }

    async fn put_activity(
        &self,
        conversation: &ConversationId,
        window: Window,
    ) -> Result<(), StoreError> {
        self.enter(Op::Activity(window)).await;
        if take_one(&mut self.state().failing_rows) || self.one_in(20) {
            return Err(StoreError::Unavailable("a test".into()));
        }
        self.inner.put_activity(conversation, window).await
    }

    async fn put_cursor(
        &self,
        conversation: &ConversationId,
        user: &UserId,
        cursor: Cursor,
        read_at: UnixMillis,
    ) -> Result<Cursor, StoreError> {
        self.enter_read(Op::Other).await?;
        let stored = self.inner.put_cursor(conversation, user, cursor, read_at);
        let stored = stored.await;
        if self.one_in(10) {
            return Err(StoreError::Unavailable("a lost reply".into()));
        }
        stored
    }

    async fn head(
        &self,
        conversation: &ConversationId,
    ) -> Result<Option<StoredMessage>, StoreError> {
        self.enter_read(Op::Head).await?;
        let head = self.inner.head(conversation).await;
        self.dawdle().await;
        head
    }

    /// Eventual reads miss all but the first message of what they are asked for.
    async fn slots(&self, range: SlotRange) -> Result<Vec<StoredMessage>, StoreError> {
        self.enter_read(Op::Slots(range.consistency)).await?;
        let eventual = range.consistency == Consistency::Eventual;
        let first = if range.backward {
            range.last
        } else {
            range.first
        };
        let mut slots = self.inner.slots(range).await?;
        if eventual {
            slots.truncate(usize::from(first.0.is_multiple_of(2)));
        }
        self.dawdle().await;
        Ok(slots)
    }

    async fn cursors(&self, user: &UserId, peer: &UserId) -> Result<Cursors, StoreError> {
        self.enter_read(Op::Other).await?;
        self.inner.cursors(user, peer).await
    }

    async fn conversations(
        &self,
        user: &UserId,
        after: Option<&UserId>,
        max: usize,
    ) -> Result<Vec<UserId>, StoreError> {
        self.enter_read(Op::Other).await?;
        self.inner.conversations(user, after, max).await
    }

    async fn activity_from(
        &self,
        user: &UserId,
        first: Window,
        after: Option<&Activity>,
        max: usize,
    ) -> Result<Vec<Activity>, StoreError> {
        self.enter_read(Op::Other).await?;
        self.inner.activity_from(user, first, after, max).await
    }

    async fn activity_back(
        &self,
        user: &UserId,
        before: Option<&Activity>,
        max: usize,
    ) -> Result<Vec<Activity>, StoreError> {
        self.enter_read(Op::Other).await?;
        self.inner.activity_back(user, before, max).await
    }
}

/// The slots that the puts of a log were sent to.
pub(super) fn put_slots(log: &[Op]) -> Vec<u64> {
    let first = |op: &Op| match op {
        Op::Put { first, .. } => Some(*first),
        Op::Head | Op::Slots(_) | Op::Activity(_) | Op::Reading(_) | Op::Other => None,
    };
    log.iter().filter_map(first).collect()
}

/// Whether a log holds a read of the head.
pub(super) fn reads_head(log: &[Op]) -> bool {
    log.contains(&Op::Head)
}
