//! One incarnation of another node: performs what its link decides, over one stream.
//!
//! Stale rows that an answer names are removed by the relay's own task, so that no
//! answer waits for it.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use duologue_proto::presence::Liveness;
use duologue_proto::relay::v1 as wire;
use duologue_proto::relay::v1::relay_service_client::RelayServiceClient;
use duologue_runtime::clock::RandomExt as _;
use futures_util::future::{Fuse, FusedFuture as _, FutureExt as _};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::link::{ANSWER_TIMEOUT, Link, MAX_IN_FLIGHT};
use super::{PeerId, Shared};
use crate::ports::Channel;

/// A stream is open within this time, or it is tried again.
pub const LINK_OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// A link with nothing to say asks so often whether its peer still lives.
pub const IDLE_CHECK: Duration = Duration::from_secs(30);

/// The link to a peer, and what wakes its task.
#[derive(Debug, Default)]
pub(super) struct Peer {
    link: Mutex<Link>,
    changed: Notify,
}

/// How a stream ended.
enum Broke {
    /// What was not answered is sent again on the next.
    Off,
    /// The incarnation is over, by its lease or by its own word.
    Over,
}

impl Peer {
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Link) -> T) -> T {
        let changed = change(&mut self.link());
        self.changed.notify_one();
        changed
    }

    pub(super) fn take(&self) -> Link {
        std::mem::take(&mut self.link())
    }

    pub(super) fn is_idle(&self) -> bool {
        self.link().is_idle()
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        // What waits is a hint: were a panic to leave it short, a sync repairs it.
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task of one link.
pub(super) struct LinkTask {
    pub(super) shared: Arc<Shared>,
    pub(super) id: PeerId,
    pub(super) peer: Arc<Peer>,
}

/// Whether a node lives could not be asked.
struct Unproven;

impl LinkTask {
    /// Keeps the link for as long as the incarnation lives. After that nothing that is
    /// for it will arrive.
    pub(super) async fn run(self) {
        loop {
            match self.address().await {
                Ok(Some(address)) => match self.converse(address).await {
                    Broke::Off => {}
                    Broke::Over => return,
                },
                Ok(None) => return,
                // Nothing is proven.
                Err(Unproven) => {}
            }
            let random = self.shared.parts.random.number();
            let pause = self.peer.link().broke(random);
            tokio::time::sleep(pause).await;
        }
    }

    /// Where the incarnation is reached; none if it is over. A node takes its lease
    /// before it registers any route, so one that is not there any more is over too.
    async fn address(&self) -> Result<Option<String>, Unproven> {
        let nodes = self.shared.nodes().await.map_err(|_| Unproven)?;
        let living = nodes.into_iter().find(|info| {
            info.node == self.id.node
                && info.incarnation == self.id.incarnation
                && info.liveness != Liveness::Dead
        });
        Ok(living.map(|info| info.address))
    }

    async fn is_over(&self) -> bool {
        matches!(self.address().await, Ok(None))
    }

    /// One stream, to its end.
    async fn converse(&self, address: String) -> Broke {
        let (requests, receiver) = mpsc::channel(MAX_IN_FLIGHT + 1);
        let parts = &self.shared.parts;
        let opening = super::wire::opening(&parts.node, &self.id.node, &self.id.incarnation);
        if requests.send(opening).await.is_err() {
            return Broke::Off;
        }
        let Ok(channel) = (parts.dial)(&address) else {
            tracing::warn!(node = %self.id.node, "a node's address cannot be called");
            return Broke::Off;
        };
        let mut answers = match open(channel, receiver).await {
            Ok(answers) => answers,
            Err(why) => {
                tracing::debug!(node = %self.id.node, why, "no relay to a node");
                return Broke::Off;
            }
        };
        self.peer.link().opened();
        let mut look = tokio::time::interval(ANSWER_TIMEOUT);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asked = Instant::now();
        let mut asking = pin!(Fuse::terminated());
        loop {
            send(&self.peer, &requests);
            tokio::select! {
                biased;
                // First: after a standstill the answer to what seems overdue is there.
                answer = answers.message() => match answer {
                    Ok(Some(answer)) if answer.other_incarnation => {
                        return Broke::Over;
                    }
                    Ok(Some(answer)) if take(&self.shared, &self.peer, &answer) => {}
                    Ok(_) | Err(_) => return Broke::Off,
                },
                over = &mut asking => {
                    if over {
                        return Broke::Over;
                    }
                    if self.peer.link().is_overdue(Instant::now()) {
                        // A stream may be dead without anybody saying so.
                        return Broke::Off;
                    }
                }
                now = look.tick(), if asking.is_terminated() => {
                    let overdue = self.peer.link().is_overdue(now);
                    if overdue || now.saturating_duration_since(asked) >= IDLE_CHECK {
                        asked = now;
                        asking.set(self.is_over().fuse());
                    }
                }
                () = self.peer.changed.notified() => {}
            }
        }
    }
}

type Answers = Streaming<wire::RelayResponse>;

async fn open(
    channel: Channel,
    requests: mpsc::Receiver<wire::RelayRequest>,
) -> Result<Answers, &'static str> {
    let mut client = RelayServiceClient::new(channel);
    let call = client.relay(ReceiverStream::new(requests));
    let answered = tokio::time::timeout(LINK_OPEN_TIMEOUT, call).await;
    let response = answered.map_err(|_| "it does not answer")?;
    Ok(response.map_err(|_| "it refuses")?.into_inner())
}

/// Sends what may be sent: never more than there is room for.
fn send(peer: &Peer, requests: &mpsc::Sender<wire::RelayRequest>) {
    let mut link = peer.link();
    while let Ok(room) = requests.try_reserve()
        && let Some((number, batch)) = link.next(Instant::now())
    {
        room.send(super::wire::batch(number, batch));
    }
}

/// Takes an answer; returns whether it makes sense.
fn take(shared: &Shared, peer: &Peer, answer: &wire::RelayResponse) -> bool {
    let Ok(not_here) = super::wire::not_here(answer) else {
        return false;
    };
    let Ok(stale) = peer.link().answered(answer.number, &not_here) else {
        return false;
    };
    shared.parts.metrics.answered(stale.len());
    if !stale.is_empty() {
        shared.remove(stale);
    }
    true
}
