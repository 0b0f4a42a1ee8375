//! The stream of runs to one replica of history, for as long as both live.
//!
//! One task owns the stream. A run that it was given is answered once, whoever asked:
//! by the replica; or as not settled, when the stream breaks, when it takes too long,
//! or at once while the replica cannot be reached. An answer that comes too late is still
//! relayed. It must not send a run twice: an
//! answer that is lost leaves open whether the run is stored, and to send it again is
//! the client's part, who waits for the answer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use duologue_proto::history::v1 as wire;
use duologue_proto::history::v1::history_service_client::HistoryServiceClient;
use duologue_proto::history::{Appended, OnAppended, Run, UnsettledReason};
use duologue_proto::ids::{MessageId, UserId};
use duologue_proto::wire::history as convert;
use duologue_runtime::clock::Random;
use duologue_runtime::task;
use duologue_runtime::telemetry::propagation::{Trace, traceparent};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Connection, garbled, pause};

/// Runs that wait to be taken up by one stream; a further one is not settled, at once.
pub const QUEUE_RUNS: usize = 4_096;
/// What all runs that are not answered yet may hold, in KiB of bodies; a run counts as
/// at least one. Without room a run is not settled, at once.
pub const MAX_PENDING_KIB: usize = 64 * 1024;
/// How long a run waits for its answer, before it is not settled.
pub const RUN_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked for runs that wait for too long.
pub const SWEEP: Duration = Duration::from_millis(500);
/// How long it may take to open the stream.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long others are asked before a replica that could do nothing.
pub const REPLICA_REST: Duration = Duration::from_secs(3);
/// Runs of one request.
pub const REQUEST_RUNS: usize = 256;
/// Bytes of bodies, after which further runs are another request.
pub const REQUEST_BYTES: usize = 256 * 1024;

/// The way to the task that owns the stream to one replica. The task ends when this is
/// dropped and everything that it took is answered.
pub(super) struct Stream {
    queue: mpsc::Sender<Asked>,
    open: Arc<AtomicBool>,
    rest: Arc<Rest>,
}

/// Whether a replica could do nothing lately: others are asked before it.
#[derive(Default)]
pub(super) struct Rest(Mutex<Option<Instant>>);

impl Rest {
    /// Takes note of what it could do when it was last asked.
    pub(super) fn note(&self, could: bool) {
        let until = (!could).then(|| Instant::now() + REPLICA_REST);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    fn is_over(&self) -> bool {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_none_or(|until| until <= Instant::now())
    }
}

impl Stream {
    /// Opens the stream, as soon and as often as it can be.
    pub(super) fn to(
        replica: String,
        client: HistoryServiceClient<Connection>,
        random: Arc<dyn Random>,
    ) -> Self {
        let (queue, asked) = mpsc::channel(QUEUE_RUNS);
        let open = Arc::new(AtomicBool::new(false));
        let rest = Arc::new(Rest::default());
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let owner = Owner {
            replica,
            client,
            random,
            open: Arc::clone(&open),
            rest: Arc::clone(&rest),
            queue: asked,
            taken: Vec::new(),
            waiting: VecDeque::new(),
            flying: BTreeMap::new(),
            last_ref: 0,
            given_up: 0,
            refusing: false,
            sweep,
        };
        task::spawn("append stream", owner.run());
        Self { queue, open, rest }
    }

    /// Whether the stream is open at present.
    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// The less, the sooner it is asked.
    pub(super) fn rank(&self) -> u8 {
        match (self.is_open(), self.rest.is_over()) {
            (true, true) => 0,
            (true, false) => 1,
            (false, _) => 2,
        }
    }

    /// Whether its replica could do nothing lately.
    pub(super) fn rest(&self) -> &Rest {
        &self.rest
    }

    /// Takes a run to be sent. One that is not taken is dropped, and so answered.
    pub(super) fn take(&self, asked: Asked) {
        let _ = self.queue.try_send(asked);
    }
}

/// A run on its way to its answer, with the room that it holds.
pub(super) struct Asked {
    run: Run,
    answered: OnAppended,
    room: OwnedSemaphorePermit,
    deadline: Instant,
    trace: Option<Trace>,
}

impl Asked {
    /// Part of the trace that we are in.
    pub(super) fn new(run: Run, answered: OnAppended, room: OwnedSemaphorePermit) -> Self {
        Self {
            run,
            answered,
            room,
            deadline: Instant::now() + RUN_TIMEOUT,
            trace: Trace::current(),
        }
    }
}

/// A run that was sent.
struct Flying {
    sender: UserId,
    peer: UserId,
    messages: Vec<MessageId>,
    answered: OnAppended,
    _room: OwnedSemaphorePermit,
    deadline: Instant,
}

impl Flying {
    /// Whether these can be its answers: one for each draft, and of its messages only.
    fn has_answers(&self, answers: &[Appended]) -> bool {
        let fits = |(id, answer): (&MessageId, &Appended)| match answer {
            Appended::Stored { envelope, .. } => {
                envelope.message_id == *id
                    && envelope.sender == self.sender
                    && envelope.recipient == self.peer
            }
            Appended::MessageIdReused | Appended::Unsettled(_) => true,
        };
        self.messages.len() == answers.len() && self.messages.iter().zip(answers).all(fits)
    }
}

/// What owns the stream.
struct Owner {
    replica: String,
    client: HistoryServiceClient<Connection>,
    random: Arc<dyn Random>,
    open: Arc<AtomicBool>,
    rest: Arc<Rest>,
    queue: mpsc::Receiver<Asked>,
    taken: Vec<Asked>,
    /// To be sent, the oldest first.
    waiting: VecDeque<Asked>,
    /// Sent, by their numbers, which rise: the oldest first.
    flying: BTreeMap<u64, Flying>,
    last_ref: u64,
    /// For runs up to this one nobody waits. They stay until they are answered: what is
    /// stored after all is relayed.
    given_up: u64,
    /// The last try to open the stream failed: nobody shall wait for the next one.
    refusing: bool,
    sweep: Interval,
}

/// Why a stream is over.
enum End {
    /// Nobody can ask any more, and all is answered.
    Done,
    Broken(Status),
}

impl Owner {
    async fn run(mut self) {
        let mut failures = 0;
        loop {
            let pause = pause(failures, &*self.random);
            if self.meanwhile(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
            let opening = open(self.client.clone());
            let Some(opened) = self.meanwhile(opening).await else {
                return;
            };
            failures += 1;
            let status = match opened {
                Ok((requests, answers)) => {
                    self.refusing = false;
                    self.open.store(true, Ordering::Relaxed);
                    let opened = Instant::now();
                    let end = self.serve(requests, answers).await;
                    self.open.store(false, Ordering::Relaxed);
                    // One that is closed at once is as good as none.
                    if opened.elapsed() > RUN_TIMEOUT {
                        failures = 0;
                    }
                    // Not answered is not settled.
                    self.flying.clear();
                    match end {
                        End::Done => return,
                        End::Broken(status) => status,
                    }
                }
                Err(status) => {
                    self.refusing = true;
                    self.waiting.clear();
                    status
                }
            };
            tracing::warn!(
                history.replica = self.replica,
                error = %status.code(),
                "the append stream is broken"
            );
        }
    }

    /// Waits for something while there is no stream; none if nobody can ask any more.
    async fn meanwhile<T>(&mut self, what: impl Future<Output = T>) -> Option<T> {
        let mut what = std::pin::pin!(what);
        loop {
            tokio::select! {
                biased;
                done = &mut what => return Some(done),
                count = self.queue.recv_many(&mut self.taken, QUEUE_RUNS) => {
                    if count == 0 {
                        return None;
                    }
                    if self.refusing {
                        self.taken.clear();
                    } else {
                        self.waiting.extend(self.taken.drain(..));
                    }
                }
                now = self.sweep.tick() => self.give_up(now),
            }
        }
    }

    /// Sends runs and takes answers until the stream is over.
    async fn serve(
        &mut self,
        requests: mpsc::Sender<wire::AppendRequest>,
        mut answers: Streaming<wire::AppendResponse>,
    ) -> End {
        let (mut asked, mut sending) = (true, true);
        loop {
            if !asked && self.waiting.is_empty() && self.flying.is_empty() {
                return End::Done;
            }
            tokio::select! {
                biased;
                response = answers.message() => match response {
                    Ok(Some(response)) => {
                        if let Err(status) = self.take(response) {
                            return End::Broken(status);
                        }
                    }
                    Ok(None) => return End::Broken(Status::unavailable("the stream ended")),
                    Err(status) => return End::Broken(status),
                },
                // Before sending, so that a request holds all that came before it.
                count = self.queue.recv_many(&mut self.taken, QUEUE_RUNS), if asked => {
                    asked = count > 0;
                    self.waiting.extend(self.taken.drain(..));
                }
                room = requests.reserve(), if sending && !self.waiting.is_empty() => match room {
                    Ok(room) => room.send(self.next_request()),
                    // How it ended is told by the answers.
                    Err(_) => sending = false,
                },
                now = self.sweep.tick() => self.give_up(now),
            }
        }
    }

    /// The oldest runs that wait: at least one.
    fn next_request(&mut self) -> wire::AppendRequest {
        let (mut runs, mut bytes) = (Vec::new(), 0);
        while let Some(next) = self.waiting.front() {
            bytes += body_bytes(&next.run);
            if !runs.is_empty() && (bytes > REQUEST_BYTES || runs.len() == REQUEST_RUNS) {
                break;
            }
            runs.extend(self.waiting.pop_front().map(|next| self.launch(next)));
        }
        wire::AppendRequest { runs }
    }

    fn launch(&mut self, asked: Asked) -> wire::Run {
        self.last_ref += 1;
        let run = asked.run;
        let drafts = run.drafts.iter();
        let flying = Flying {
            sender: run.sender.clone(),
            peer: run.peer.clone(),
            messages: drafts.map(|draft| draft.message_id.clone()).collect(),
            answered: asked.answered,
            _room: asked.room,
            deadline: asked.deadline,
        };
        self.flying.insert(self.last_ref, flying);
        convert::write_run(self.last_ref, run, traceparent(asked.trace))
    }

    fn take(&mut self, response: wire::AppendResponse) -> Result<(), Status> {
        for answer in response.answers {
            let Some(flying) = self.flying.remove(&answer.r#ref) else {
                tracing::debug!("history answers a run that it was not asked");
                continue;
            };
            if !answer.refused.is_empty() {
                tracing::error!(rule = answer.refused, "history refuses a run");
                continue;
            }
            let answers =
                convert::read_answers(answer.drafts).map_err(|fault| garbled("history", &fault))?;
            if !flying.has_answers(&answers) {
                tracing::error!("history answers another run than it was asked");
                return Err(Status::internal("the answer is of another run"));
            }
            self.rest.note(!answers.iter().all(is_unavailable));
            flying.answered.call(answers);
        }
        Ok(())
    }

    /// What has waited for too long is not settled.
    fn give_up(&mut self, now: Instant) {
        while let Some(oldest) = self.waiting.front()
            && oldest.deadline <= now
        {
            self.waiting.pop_front();
        }
        for (number, flying) in self.flying.range_mut(self.given_up + 1..) {
            if flying.deadline > now {
                break;
            }
            flying.answered.give_up();
            self.given_up = *number;
        }
    }
}

type Opened = (
    mpsc::Sender<wire::AppendRequest>,
    Streaming<wire::AppendResponse>,
);

async fn open(mut client: HistoryServiceClient<Connection>) -> Result<Opened, Status> {
    // One request on its way: what waits meanwhile becomes the next one.
    let (requests, sent) = mpsc::channel(1);
    let opening = client.append(ReceiverStream::new(sent));
    let opened = timeout(OPEN_TIMEOUT, opening).await;
    let answers = opened.map_err(|_| Status::deadline_exceeded("the stream does not open"))??;
    Ok((requests, answers.into_inner()))
}

fn is_unavailable(answer: &Appended) -> bool {
    matches!(answer, Appended::Unsettled(why) if why.reason == UnsettledReason::Unavailable)
}

fn body_bytes(run: &Run) -> usize {
    run.drafts.iter().map(|draft| draft.body.len()).sum()
}

/// What a run takes of the room of all.
pub(super) fn weight_kib(run: &Run) -> u32 {
    let kib = (body_bytes(run) / 1_024 + 1).min(MAX_PENDING_KIB);
    u32::try_from(kib).unwrap_or(u32::MAX)
}
