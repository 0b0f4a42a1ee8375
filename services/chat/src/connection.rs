//! One session's task: performs what the session wants and tells it what came of
//! it. It decides nothing.
//!
//! What the session waits for (history, presence) runs inside this one task; a
//! stream that breaks off does not stop it, so that what was sent is still
//! settled.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use duologue_proto::history::Appended;
use duologue_proto::ids::{Seq, UserId};
use duologue_proto::presence::{Registered, Route};
use duologue_runtime::faults::{self, Mutant, Point, planted};
use duologue_runtime::task;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::Instant;
use tokio_stream::Stream;

use crate::append;
use crate::core::Core;
use crate::frame::{Ref, Up};
use crate::outbox::{LOW_BYTES, Outbox};
use crate::people;
use crate::registry::Handle;
use crate::session::{CLOSING_TIMEOUT, Effect, Input, Now, Session};
use crate::signal::Signal;
use crate::timer::Timer;

/// What is awaited after the session's end (its route's removal) at most.
pub const LEAVING: Duration = Duration::from_secs(5);
/// How often the removal of a route is tried again, with longer and longer pauses.
pub const MAX_RELEASES: u32 = 10;
/// Frames and results that are taken together.
pub const MAX_BATCH: usize = 64;

type Pending = Pin<Box<dyn Future<Output = Option<Input>> + Send>>;

/// Frames from the device. An item that is an error means the device is gone.
pub(crate) type UpStream = Pin<Box<dyn Stream<Item = Result<(Ref, Up), Gone>> + Send>>;

/// The stream broke off.
#[derive(Debug)]
pub(crate) struct Gone;

/// One session's task.
pub(crate) struct Connection {
    core: Arc<Core>,
    session: Session,
    handle: Arc<Handle>,
    signal: Arc<Signal>,
    up: UpStream,
    up_ended: bool,
    gone: bool,
    outbox: Outbox,
    pending: FuturesUnordered<Pending>,
    timer: Timer,
    place: Place,
}

/// A stream's place in the node's table and in the directory, given back however
/// its task ends.
struct Place {
    core: Arc<Core>,
    handle: Arc<Handle>,
    route: Option<Box<Route>>,
}

impl Place {
    fn new(core: Arc<Core>, handle: Arc<Handle>) -> Self {
        core.registry.enter(&handle);
        core.metrics.sessions.inc();
        Self {
            core,
            handle,
            route: None,
        }
    }

    /// Leaves the directory; the future is to be awaited.
    fn release(&mut self) -> Option<impl Future<Output = ()> + Send + use<>> {
        self.core.registry.unlist(&self.handle);
        let route = self.route.take()?;
        Some(release(Arc::clone(&self.core), route))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The task panicked, if there is still a route.
        if let Some(release) = self.release() {
            task::spawn("release", release);
        }
        self.core.registry.leave(&self.handle);
        self.core.metrics.sessions.dec();
    }
}

/// Removes a route from the directory. A node that lives keeps its lease, so a
/// removal that fails is tried again in a task of its own, or its user would be
/// shown online.
async fn release(core: Arc<Core>, route: Box<Route>) {
    if !try_release(&core, &route).await {
        task::spawn("release", async move {
            for attempt in 1..=MAX_RELEASES {
                tokio::time::sleep(LEAVING * attempt).await;
                if try_release(&core, &route).await {
                    return;
                }
            }
            tracing::error!("a route was not removed: its user may be shown online");
        });
    }
}

async fn try_release(core: &Core, route: &Route) -> bool {
    let released = tokio::time::timeout(LEAVING, core.presence.release(route)).await;
    let released = matches!(released, Ok(Ok(())));
    if released {
        core.router.presence(&route.user);
    }
    released
}

impl Connection {
    pub(crate) fn new(
        core: Arc<Core>,
        session: Session,
        (handle, signal): (Arc<Handle>, Arc<Signal>),
        up: UpStream,
        outbox: Outbox,
    ) -> Self {
        let place = Place::new(Arc::clone(&core), Arc::clone(&handle));
        Self {
            core,
            session,
            handle,
            signal,
            up,
            up_ended: false,
            gone: false,
            outbox,
            pending: FuturesUnordered::new(),
            timer: Timer::new(),
            place,
        }
    }

    /// Runs the session to its end. Not an async function, which would hold the
    /// connection twice: there is one per device.
    #[expect(clippy::manual_async_fn, reason = "see above")]
    pub(crate) fn run(mut self) -> impl Future<Output = ()> + Send {
        async move {
            let mut inputs = Vec::new();
            while !self.session.has_ended() {
                self.wait(&mut inputs).await;
                if inputs.iter().any(is_announced) {
                    faults::point(Point::Answered);
                }
                let now = self.now();
                for effect in self.session.handle(inputs.drain(..), now) {
                    self.perform(effect);
                }
                self.tell();
                shrink(&mut inputs);
            }
            // The route's removal may be under way still.
            while self.pending.next().await.is_some() {}
            drop(self.place);
            self.outbox.finish(CLOSING_TIMEOUT).await;
        }
    }

    fn now(&self) -> Now {
        Now {
            instant: Instant::now(),
            wall: self.core.clock.now(),
        }
    }

    /// Waits until something happens and takes what else has happened by then.
    async fn wait(&mut self, inputs: &mut Vec<Input>) {
        let deadline = self.session.next_deadline();
        let room = self.room();
        tokio::select! {
            biased;
            // Something is in the inbox, or the outbox has room again.
            () = self.signal.raised() => {}
            Some(input) = self.pending.next() => inputs.extend(input),
            item = self.up.next(), if room > 0 => take_up(item, &mut self.up_ended, inputs),
            () = self.timer.reach(deadline) => inputs.push(Input::Tick),
        }
        let frames_taken = inputs.iter().filter(|input| is_from_device(input)).count();
        self.take_ready(inputs, room - frames_taken);
    }

    /// How many frames may be taken from the device before the session has seen
    /// them.
    fn room(&self) -> usize {
        if self.up_ended {
            0
        } else {
            self.session.input_room()
        }
    }

    fn take_ready(&mut self, inputs: &mut Vec<Input>, room: usize) {
        while inputs.len() < MAX_BATCH {
            let Some(Some(input)) = self.pending.next().now_or_never() else {
                break;
            };
            inputs.extend(input);
        }
        for _ in 0..room.min(MAX_BATCH) {
            if self.up_ended {
                break;
            }
            let Some(item) = self.up.next().now_or_never() else {
                break;
            };
            take_up(item, &mut self.up_ended, inputs);
        }
        self.handle.inbox.take(inputs);
        if self.outbox.is_gone() && !self.gone {
            self.gone = true;
            inputs.push(Input::Gone);
        }
        inputs.push(Input::Outbox(self.outbox.bytes()));
        inputs.sort_by_key(order);
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Push(reference, down) => {
                self.core.metrics.pushed(&down);
                self.outbox.add(reference, down);
            }
            Effect::Register(route) => self.register(route),
            Effect::Release => self.release(),
            Effect::Append(run) => {
                let append =
                    append::for_session(Arc::clone(&self.core), run, Arc::clone(&self.handle));
                self.pending.push(Box::pin(append.map(|()| None)));
            }
            Effect::Read(request) => self.ask(|core| async move {
                let peer = request.peer.clone();
                Input::Read(peer, core.history.read(request).await)
            }),
            Effect::Sync(request) => {
                self.ask(|core| async move { Input::Synced(core.history.sync(request).await) });
            }
            Effect::WriteCursor(peer, asked) => {
                let user = self.user();
                self.ask(move |core| async move {
                    let written = core.history.advance_cursor(&user, &peer, asked).await;
                    Input::CursorWritten(peer, written)
                });
            }
            Effect::AnnounceCursor(peer, cursor) => {
                let origin = Some(&self.handle.session);
                self.core
                    .router
                    .cursor(&self.handle.user, &peer, cursor, origin);
            }
            Effect::AskPresence(number, after) => {
                let user = self.user();
                self.ask(move |core| async move {
                    let page = people::page(&core, &user, after).await;
                    Input::PresencePage(number, page.ok())
                });
            }
            Effect::End(refusal) => {
                self.outbox
                    .end(refusal.map_or(Ok(()), |refusal| Err(refusal.into_status())));
            }
        }
    }

    /// Hands over what was said since the last time.
    fn tell(&mut self) {
        self.outbox.push();
        if self.session.outbox_bytes() >= LOW_BYTES {
            self.outbox.call_when_low();
        }
    }

    fn user(&self) -> UserId {
        self.handle.user.clone()
    }

    fn ask<F>(&mut self, question: impl FnOnce(Arc<Core>) -> F)
    where
        F: Future<Output = Input> + Send + 'static,
    {
        let answer = question(Arc::clone(&self.core));
        self.pending.push(Box::pin(answer.map(Some)));
    }

    /// The node's own table first, then the directory (design §7).
    fn register(&mut self, route: Box<Route>) {
        if !planted(Mutant::RowBeforeTable) {
            self.list(&route);
        }
        self.place.route = Some(route.clone());
        let handle = Arc::clone(&self.handle);
        self.ask(|core| async move {
            let (user, incarnation) = (route.user.clone(), route.incarnation.clone());
            let registered = core.presence.register(*route).await;
            if planted(Mutant::RowBeforeTable) {
                core.registry.list(&handle);
            }
            // To confirm what is in force is no news.
            if registered.is_ok() && handle.confirm(incarnation) {
                core.router.presence(&user);
            }
            if let Ok(Registered::InForce { replaced }) = &registered {
                for replaced in replaced {
                    core.router.supersede(replaced.clone());
                }
            }
            Input::Registered(registered)
        });
    }

    /// Enters the node's table. The node tells those who are in it when it takes a new
    /// incarnation; whoever enters later looks here.
    fn list(&self, route: &Route) {
        self.core.registry.list(&self.handle);
        let incarnation = self.core.tenure.incarnation();
        if incarnation != route.incarnation {
            self.handle
                .inbox
                .register_again(incarnation, Duration::ZERO);
        }
    }

    fn release(&mut self) {
        if let Some(release) = self.place.release() {
            self.pending.push(Box::pin(release.map(|()| None)));
        }
    }
}

/// What was stored is told in the order of its places, whoever sent it. When both
/// users write at once, an answer and the announcement of the message before it are
/// taken together; in the wrong order that message would seem to be missing, and
/// everything behind it would be read from history.
fn order(input: &Input) -> (u8, Seq) {
    match input {
        Input::Outbox(_)
        | Input::Registered(_)
        | Input::Read(..)
        | Input::Synced(_)
        | Input::CursorWritten(..)
        | Input::PresencePage(..)
        | Input::Tick => (0, Seq::ZERO),
        Input::Announced(run) => (1, run.first().map_or(Seq::ZERO, |first| first.seq)),
        Input::Appended(_, answers) => (1, first_place(answers)),
        Input::Up(..)
        | Input::UpClosed
        | Input::Gone
        | Input::Raised(..)
        | Input::Receipt(..)
        | Input::Presence(_)
        | Input::PresenceLost
        | Input::Resync
        | Input::RegisterAgain(..)
        | Input::Superseded
        | Input::Drain => (2, Seq::ZERO),
    }
}

/// The lowest place of what was stored; 0 if nothing was.
fn first_place(answers: &[Appended]) -> Seq {
    let places = answers.iter().filter_map(|answer| match answer {
        Appended::Stored { envelope, .. } => Some(envelope.seq),
        Appended::MessageIdReused | Appended::Unsettled(_) => None,
    });
    places.min().unwrap_or_default()
}

fn is_announced(input: &Input) -> bool {
    matches!(input, Input::Announced(_))
}

fn is_from_device(input: &Input) -> bool {
    matches!(input, Input::Up(..) | Input::UpClosed)
}

fn take_up(item: Option<Result<(Ref, Up), Gone>>, up_ended: &mut bool, inputs: &mut Vec<Input>) {
    match item {
        Some(Ok((reference, up))) => {
            if let Up::Hello(Ok(hello)) = &up {
                tracing::debug!(client = ?hello.client, "hello");
            }
            inputs.push(Input::Up(reference, up));
        }
        Some(Err(Gone)) => {
            *up_ended = true;
            inputs.push(Input::Gone);
        }
        None => {
            *up_ended = true;
            inputs.push(Input::UpClosed);
        }
    }
}

/// Gives the memory of a burst back.
fn shrink<T>(queue: &mut Vec<T>) {
    if queue.capacity() > MAX_BATCH {
        *queue = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use duologue_proto::ids::{MessageId, UnixMillis};
    use duologue_proto::message::Envelope;

    use super::*;

    #[test]
    fn a_session_s_task_is_small() {
        fn size_of_output<F>(_: impl Fn(Connection) -> F) -> usize {
            size_of::<F>()
        }
        assert!(size_of_output(Connection::run) <= 1_536);
    }

    #[test]
    fn answers_and_announcements_are_told_in_the_order_of_their_places() {
        let (alice, bob) = (user("alice"), user("bob"));
        let stored = |seq| Appended::Stored {
            envelope: envelope(seq, &alice, &bob),
            duplicate: false,
        };
        let mut inputs = [
            Input::Outbox(0),
            Input::Appended(bob.clone(), vec![stored(6), stored(7)]),
            Input::Up(0, Up::Ping),
            Input::Announced([envelope(5, &bob, &alice)].into()),
            Input::Announced([envelope(8, &bob, &alice)].into()),
        ];
        inputs.sort_by_key(order);
        let places: Vec<u64> = inputs.iter().map(|input| order(input).1.0).collect();
        assert_eq!(places, [0, 5, 6, 8, 0]);
        assert!(matches!(inputs.last(), Some(Input::Up(..))));
    }

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn envelope(seq: u64, sender: &UserId, recipient: &UserId) -> Envelope {
        let id = MessageId::parse("m").unwrap();
        let (sender, recipient) = (sender.clone(), recipient.clone());
        Envelope::seal(Seq(seq), id, sender, recipient, UnixMillis(0), &[])
    }
}
