//! The stream of runs and the stream of their answers.
//!
//! What was read from the stream is settled and answered even though its caller is
//! gone; who went away is told nothing. It must not hold more than
//! [`MAX_RUNS_IN_FLIGHT`] runs, and must not let one run wait for another.

use std::sync::Arc;

use duologue_proto::history::OnAppended;
use duologue_proto::history::v1 as wire;
use duologue_proto::limits::MAX_RUNS_IN_FLIGHT;
use duologue_proto::wire::history as convert;
use duologue_runtime::refusal::{Reason, Refusal};
use duologue_runtime::shutdown::Shutdown;
use duologue_runtime::task;
use duologue_runtime::telemetry::TRACED;
use duologue_runtime::telemetry::propagation::{Trace, within};
use futures_util::{Stream, StreamExt as _, stream};
use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::{Status, Streaming};
use tracing::Instrument as _;

use crate::error::RETRY_AFTER;
use crate::history::History;

/// Bytes of answers, after which the next ones are another response. The answers to
/// one run are never parted.
pub const ANSWERS_BYTES: usize = 256 * 1024;

/// The answers to one run, with the place in the stream that it holds until they
/// are taken to be written.
type Settled = (wire::RunAnswer, OwnedSemaphorePermit);

/// Reads runs, and answers them in the order in which they are settled.
pub(super) fn stream(
    history: History,
    shutdown: Shutdown,
    requests: Streaming<wire::AppendRequest>,
) -> impl Stream<Item = Result<wire::AppendResponse, Status>> + Send {
    // Every run that can answer holds one of as many places: there is always room.
    let (settled, answers) = mpsc::channel(MAX_RUNS_IN_FLIGHT);
    let reader = Reader {
        history,
        places: Arc::new(Semaphore::new(MAX_RUNS_IN_FLIGHT)),
        settled,
    };
    let reader = task::spawn("append stream", reader.run(shutdown, requests));
    let answers = Answers {
        answers,
        held: None,
    };
    let answers = stream::unfold(answers, async |mut answers| {
        let response = answers.next().await?;
        Some((Ok(response), answers))
    });
    // The reader has ended by then: the answers end when nobody can answer.
    let end = stream::once(reader).filter_map(async |ended| match ended {
        Ok(Ok(())) => None,
        Ok(Err(status)) => Some(Err(status)),
        Err(_) => Some(Err(Refusal::internal().into_status())),
    });
    answers.chain(end)
}

struct Reader {
    history: History,
    places: Arc<Semaphore>,
    settled: mpsc::Sender<Settled>,
}

impl Reader {
    /// Reads until the caller has ended, is gone, or the process drains or has refused for
    /// too long. What is not read is not settled, which the end of the stream tells.
    async fn run(
        self,
        shutdown: Shutdown,
        mut requests: Streaming<wire::AppendRequest>,
    ) -> Result<(), Status> {
        let mut refuses = self.history.refusing();
        loop {
            let request = tokio::select! {
                biased;
                () = shutdown.draining() => return Err(draining(&shutdown)),
                // It never errs: the history is ours, too.
                _ = refuses.wait_for(|refuses| *refuses) => return Err(refusing()),
                () = self.settled.closed() => return Ok(()),
                request = requests.message() => request?,
            };
            let Some(request) = request else {
                return Ok(());
            };
            for run in request.runs {
                self.take(run).await;
            }
        }
    }

    /// Hands a run to history, once there is a place for it.
    async fn take(&self, run: wire::Run) {
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
            return;
        };
        let reference = run.r#ref;
        let trace = Trace::parse(&run.traceparent);
        let run = match convert::read_run(run) {
            Ok(run) => run,
            Err(fault) => {
                tracing::warn!(field = fault.field, rule = fault.rule, "a run is refused");
                let refused = convert::write_refused(reference, &fault);
                // Nobody takes it: then nobody wants it.
                let _ = self.settled.try_send((refused, place));
                return;
            }
        };
        // Until the run is settled.
        let messages = run.drafts.len();
        let append = || tracing::info_span!(target: TRACED, parent: None, "append", messages);
        let span = within(trace, append);
        let submitting = span.clone();
        let settled = self.settled.clone();
        let answered = OnAppended::new(messages, move |answers| {
            drop(span);
            let answers = convert::write_answers(reference, &answers);
            let _ = settled.try_send((answers, place));
        });
        let submit = self.history.submit(run, answered);
        submit.instrument(submitting).await;
    }
}

/// What is settled, as responses.
struct Answers {
    answers: mpsc::Receiver<Settled>,
    /// What did not fit the last response.
    held: Option<wire::RunAnswer>,
}

impl Answers {
    /// Whatever is settled by now, at least one run; none if nothing more will be.
    async fn next(&mut self) -> Option<wire::AppendResponse> {
        let first = match self.held.take() {
            Some(held) => held,
            None => self.answers.recv().await?.0,
        };
        let mut bytes = first.encoded_len();
        let mut answers = vec![first];
        while let Ok((next, _)) = self.answers.try_recv() {
            bytes += next.encoded_len();
            if bytes > ANSWERS_BYTES {
                self.held = Some(next);
                break;
            }
            answers.push(next);
        }
        Some(wire::AppendResponse { answers })
    }
}

/// Sends the caller to another replica, if there is one.
pub(super) fn refusing() -> Status {
    let message = "the replica cannot store; what is not answered is not settled";
    Refusal::new(Reason::Unavailable, message)
        .retry_after(RETRY_AFTER)
        .into_status()
}

fn draining(shutdown: &Shutdown) -> Status {
    let message = "the replica is shutting down; what is not answered is not settled";
    Refusal::new(Reason::ShuttingDown, message)
        .retry_after(shutdown.grace())
        .into_status()
}
