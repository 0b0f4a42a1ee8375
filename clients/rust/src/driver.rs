//! The one task of a client: performs what the session wants.
//!
//! Every turn: take commands, let time pass, save if the session must, make the
//! link the wanted one, then wait for whatever comes first.

mod step;

use std::sync::Arc;
use std::time::Duration;

use duologue_proto::chat::v1 as wire;
use duologue_proto::ids::{MessageId, Seq, UserId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use self::step::{BoxFuture, Down, Page, Step, next_page, reserve, sleep_until};
use crate::environment::{Environment, random_number};
use crate::error::ClientError;
use crate::event::{Event, StopReason};
use crate::limits::{CLOSE_TIMEOUT, COMMAND_BATCH, SCAN_PAGE};
use crate::outbox::Scan;
use crate::persistence::{Persistence, PersistenceError};
use crate::session::{At, LinkEnd, NotTaken, Session};
use crate::transport::Transport;

/// What the application asks for.
pub(crate) enum Command {
    Send {
        id: MessageId,
        peer: UserId,
        text: String,
        reply: oneshot::Sender<Result<MessageId, ClientError>>,
    },
    Abandon {
        id: MessageId,
        reply: oneshot::Sender<bool>,
    },
    Delivered(UserId, Seq),
    Read(UserId, Seq),
    Reconnect,
    /// Answered with how many messages are not settled.
    Close(oneshot::Sender<usize>),
}

/// Everything that the task owns.
pub(crate) struct Driver {
    pub(crate) session: Session,
    pub(crate) transport: Arc<Transport>,
    pub(crate) environment: Arc<dyn Environment>,
    /// None only while a save runs, or after one panicked.
    pub(crate) persistence: Option<Box<dyn Persistence>>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) events: mpsc::Sender<(u64, Event)>,
    pub(crate) handed: watch::Receiver<u64>,
    pub(crate) work: Work,
}

/// What is under way.
pub(crate) struct Work {
    started: Instant,
    link: Option<u64>,
    up: Option<mpsc::Sender<wire::ConverseRequest>>,
    down: Down,
    scan: Option<(Scan, BoxFuture<Page>)>,
    /// Sends that are answered once they are saved.
    unsaved: Vec<(MessageId, oneshot::Sender<Result<MessageId, ClientError>>)>,
    takes_commands: bool,
    closing: Option<Closing>,
}

struct Closing {
    reply: oneshot::Sender<usize>,
    deadline: Instant,
    /// The server was told that nothing more comes.
    half_closed: bool,
    /// The server has answered everything and ended the stream.
    done: bool,
}

impl Work {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            link: None,
            up: None,
            down: Down::None,
            scan: None,
            unsaved: Vec::new(),
            takes_commands: true,
            closing: None,
        }
    }
}

impl Driver {
    /// Runs until the client is closed, nobody reads events any longer, or state
    /// cannot be saved.
    pub(crate) async fn run(mut self) {
        let failed = self.drive().await.err().map(|error| error.to_string());
        let Self {
            session,
            persistence,
            commands,
            events,
            work,
            ..
        } = self;
        if let Some(detail) = &failed {
            tracing::error!(error = %detail, "state cannot be saved; the client ends");
            for (_, reply) in work.unsaved {
                let _gone = reply.send(Err(ClientError::NotSaved(detail.clone())));
            }
        }
        // The lock on the state is released before the caller of close goes on, and
        // nobody waits until events are read: they may be who reads them.
        drop((persistence, commands, work.up, work.down, work.scan));
        if let Some(closing) = work.closing {
            let _gone = closing.reply.send(session.unsettled());
        }
        if let Some(detail) = failed {
            let stopped = Event::Stopped(StopReason::Persistence { detail });
            let _unread = events.send((u64::MAX, stopped)).await;
        }
    }

    async fn drive(&mut self) -> Result<(), PersistenceError> {
        loop {
            self.take_commands();
            self.session.tick(self.at());
            if self.session.must_save() {
                self.save().await?;
            }
            self.make_link();
            self.start_scan();
            if self.is_finished() {
                break;
            }
            let step = self.wait().await;
            if matches!(step, Step::Unread) {
                break;
            }
            self.perform(step);
        }
        if self.session.is_unsaved() {
            self.save().await?;
        }
        Ok(())
    }

    /// Waits for what comes first. Frames are read only while no event waits.
    async fn wait(&mut self) -> Step {
        let now = self.now();
        let deadline = self.deadline(now);
        let has_frame = self.session.has_frame(now);
        let has_event = self.session.has_event();
        let session = &mut self.session;
        let work = &mut self.work;
        tokio::select! {
            biased;
            () = self.events.closed() => Step::Unread,
            Ok(()) = self.handed.changed() => Step::HandedOver,
            Ok(permit) = self.events.reserve(), if has_event => {
                if let Some(event) = session.next_event(now) {
                    permit.send(event);
                }
                Step::Again
            }
            permit = reserve(work.up.as_ref()), if has_frame => match permit {
                Some(permit) => {
                    if let Some(frame) = session.next_frame(now) {
                        permit.send(frame);
                    }
                    Step::Again
                }
                None => Step::UpClosed,
            },
            step = work.down.next(), if !has_event => step,
            step = next_page(&mut work.scan) => step,
            command = self.commands.recv(), if work.takes_commands => Step::Command(command),
            () = sleep_until(deadline) => Step::Again,
        }
    }

    fn perform(&mut self, step: Step) {
        let at = self.at();
        match step {
            Step::HandedOver => self.hand_over(at.now),
            Step::Opened(Ok(link)) => {
                self.work.up = Some(link.up);
                self.work.down = Down::Open(Box::new(link.down));
                self.session.opened(at);
            }
            Step::Opened(Err(end)) | Step::Received(Err(end)) => self.link_ended(end, at),
            Step::Received(Ok(frame)) => self.session.frame(frame, at),
            Step::StreamEnded => self.stream_ended(at),
            Step::Scanned(scan, page) => self.session.scanned(&scan, page, at),
            Step::Command(Some(command)) => self.command(command),
            // Events are still wanted.
            Step::Command(None) => self.work.takes_commands = false,
            Step::UpClosed => self.work.up = None,
            Step::Unread | Step::Again => {}
        }
    }

    /// Takes what is there, so that one save serves all of it.
    fn take_commands(&mut self) {
        for _ in 0..COMMAND_BATCH {
            if !self.work.takes_commands {
                return;
            }
            match self.commands.try_recv() {
                Ok(command) => self.command(command),
                Err(_) => return,
            }
        }
    }

    fn command(&mut self, command: Command) {
        let now = self.now();
        // What the application has taken it may have taken before it said this.
        self.hand_over(now);
        match command {
            Command::Send {
                id,
                peer,
                text,
                reply,
            } => self.send(id, &peer, text, reply),
            Command::Abandon { id, reply } => {
                let _gone = reply.send(self.session.abandon(&id));
            }
            Command::Delivered(peer, seq) => self.session.mark_delivered(&peer, seq, now),
            Command::Read(peer, seq) => self.session.mark_read(&peer, seq, now),
            Command::Reconnect => self.session.reconnect(now),
            Command::Close(reply) => {
                // Later ones are refused.
                self.commands.close();
                self.work.takes_commands = false;
                self.work.closing = Some(Closing {
                    reply,
                    deadline: Instant::now() + CLOSE_TIMEOUT,
                    half_closed: false,
                    done: false,
                });
            }
        }
    }

    /// Notes what the application has taken.
    fn hand_over(&mut self, now: Duration) {
        let taken = *self.handed.borrow_and_update();
        self.session.handed_over(taken, now);
    }

    fn send(
        &mut self,
        id: MessageId,
        peer: &UserId,
        text: String,
        reply: oneshot::Sender<Result<MessageId, ClientError>>,
    ) {
        let bytes = text.len();
        let error = match self.session.send(peer, id.clone(), text) {
            Ok(()) => return self.work.unsaved.push((id, reply)),
            Err(NotTaken::Empty) => ClientError::EmptyText,
            Err(NotTaken::TooLong) => ClientError::TextTooLong { bytes },
            Err(NotTaken::Full) => ClientError::OutboxFull,
        };
        let _gone = reply.send(Err(error));
    }

    /// Saves the state, off the async threads, and answers who waits for it.
    async fn save(&mut self) -> Result<(), PersistenceError> {
        let gone = || PersistenceError::Other("saving has panicked before".into());
        let mut persistence = self.persistence.take().ok_or_else(gone)?;
        let state = self.session.snapshot();
        let saving = tokio::task::spawn_blocking(move || {
            let result = persistence.save(&state);
            (persistence, result)
        });
        let (persistence, result) = saving.await.map_err(|_| gone())?;
        self.persistence = Some(persistence);
        result?;
        self.session.saved();
        for (id, reply) in self.work.unsaved.drain(..) {
            let _gone = reply.send(Ok(id));
        }
        Ok(())
    }

    /// Drops a link that is not the wanted one, and opens the one that is.
    fn make_link(&mut self) {
        let wanted = self.session.wanted_link();
        if self.work.link == wanted {
            return;
        }
        self.work.link = wanted;
        self.work.up = None;
        self.work.down = Down::None;
        if wanted.is_some() {
            let transport = Arc::clone(&self.transport);
            let hello = self.session.hello();
            let fresh = self.session.needs_fresh_token();
            let opening = async move { transport.open(hello, fresh).await };
            self.work.down = Down::Opening(Box::pin(opening));
        }
    }

    fn link_ended(&mut self, end: LinkEnd, at: At) {
        self.work.up = None;
        self.work.down = Down::None;
        if let Some(closing) = &mut self.work.closing {
            // It broke before the last answer.
            closing.half_closed = false;
        }
        self.session.ended(end, at);
    }

    /// The server has nothing more to say: at a close that is the last answer.
    fn stream_ended(&mut self, at: At) {
        match &mut self.work.closing {
            Some(closing) if closing.half_closed => closing.done = true,
            Some(_) | None => self.link_ended(LinkEnd::lost("the server ended the stream"), at),
        }
    }

    fn start_scan(&mut self) {
        if self.work.scan.is_some() {
            return;
        }
        let Some(scan) = self.session.next_scan(self.now()) else {
            return;
        };
        let request = wire::ListMessagesRequest {
            peer: scan.peer.as_str().to_owned(),
            page_size: SCAN_PAGE,
            direction: wire::Direction::Forward.into(),
            after_seq: Some(scan.after_seq.0),
            ..Default::default()
        };
        let transport = Arc::clone(&self.transport);
        let page = async move {
            let call = transport.call(request, |mut client, request| async move {
                client.list_messages(request).await
            });
            call.await.ok()
        };
        self.work.scan = Some((scan, Box::pin(page)));
    }

    /// Whether a close has nothing left to wait for. Everything is answered, then
    /// the stream is half-closed, so that cursors are written and confirmed too.
    fn is_finished(&mut self) -> bool {
        let Some(closing) = &mut self.work.closing else {
            return false;
        };
        if closing.done || self.session.is_stopped() || Instant::now() >= closing.deadline {
            return true;
        }
        if !self.session.is_idle() {
            return false;
        }
        match self.work.down {
            Down::Open(_) => {
                closing.half_closed = true;
                self.work.up = None;
                false
            }
            Down::None | Down::Opening(_) => self.session.is_read_known(),
        }
    }

    fn now(&self) -> Duration {
        self.work.started.elapsed()
    }

    fn at(&self) -> At {
        At {
            now: self.now(),
            wall: self.environment.now(),
            dice: random_number(&*self.environment),
        }
    }

    fn deadline(&self, now: Duration) -> Option<Instant> {
        let session = self.session.next_deadline(now);
        let session = session.and_then(|due| self.work.started.checked_add(due));
        let closing = self.work.closing.as_ref().map(|closing| closing.deadline);
        [session, closing].into_iter().flatten().min()
    }
}
