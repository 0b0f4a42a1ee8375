//! The application's side: the builder, the handle, the stream of events.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use duologue_proto::ids::{DeviceId, MessageId, Seq, UserId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::driver::{Command, Driver, Work};
use crate::environment::{Environment, SystemEnvironment, device_id, message_id};
use crate::error::ClientError;
use crate::event::Event;
use crate::limits::{COMMAND_QUEUE, EVENT_QUEUE};
use crate::persistence::{MemoryPersistence, Persistence, PersistenceError};
use crate::saved::Saved;
use crate::session::{Options, Session};
use crate::token::{StaticToken, TokenSource, Tokens};
use crate::transport::{Transport, endpoint};

/// A handle to the client; cheap to clone.
#[derive(Clone)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    transport: Arc<Transport>,
    environment: Arc<dyn Environment>,
}

/// The events of a client, in order. Asking for the next one says that the one
/// before is dealt with: only then is it marked as delivered and not told again
/// after a restart. When this is dropped, the client ends.
pub struct Events {
    queue: mpsc::Receiver<(u64, Event)>,
    handed: watch::Sender<u64>,
    taken: u64,
    /// None once it has ended.
    driver: Option<JoinHandle<()>>,
}

/// Makes a client.
pub struct Builder {
    uri: String,
    ca_pem: Option<Vec<u8>>,
    channel: Box<dyn FnOnce(Endpoint) -> Channel + Send>,
    tokens: Option<Box<dyn TokenSource>>,
    persistence: Box<dyn Persistence>,
    device: Option<DeviceId>,
    environment: Arc<dyn Environment>,
    options: Options,
}

impl Client {
    /// Starts to describe a client of the server at `uri` (`http://host:port` or
    /// `https://host:port`).
    pub fn builder(uri: impl Into<String>) -> Builder {
        Builder {
            uri: uri.into(),
            ca_pem: None,
            channel: Box::new(|endpoint| endpoint.connect_lazy()),
            tokens: None,
            persistence: Box::new(MemoryPersistence::default()),
            device: None,
            environment: Arc::new(SystemEnvironment),
            options: Options {
                mark_delivered: true,
                client_name: env!("CARGO_PKG_NAME").into(),
                client_version: env!("CARGO_PKG_VERSION").into(),
            },
        }
    }

    /// Sends a text. Returns once it is saved in the outbox: from then on it is
    /// sent until [`Event::Stored`] or [`Event::Rejected`] names its id. If the call is
    /// dropped before it returns, the message is sent or not, and only the events say
    /// which.
    pub async fn send(
        &self,
        peer: &UserId,
        text: impl Into<String>,
    ) -> Result<MessageId, ClientError> {
        let id = message_id(&*self.environment).map_err(|_| ClientError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let command = Command::Send {
            id,
            peer: peer.clone(),
            text: text.into(),
            reply,
        };
        self.command(command).await?;
        answer.await.map_err(|_| ClientError::Closed)?
    }

    /// Gives up a message that is not settled, so that later ones of its
    /// conversation need not wait for it. It may have been stored nevertheless.
    /// Returns whether it was still in the outbox.
    pub async fn abandon(&self, id: &MessageId) -> Result<bool, ClientError> {
        let (reply, answer) = oneshot::channel();
        let id = id.clone();
        self.command(Command::Abandon { id, reply }).await?;
        answer.await.map_err(|_| ClientError::Closed)
    }

    /// Says that everything up to `seq` has been read.
    pub async fn mark_read(&self, peer: &UserId, seq: Seq) -> Result<(), ClientError> {
        self.command(Command::Read(peer.clone(), seq)).await
    }

    /// Says that everything up to `seq` has reached the user. Done by itself,
    /// unless [`Builder::mark_delivered`] turned that off.
    pub async fn mark_delivered(&self, peer: &UserId, seq: Seq) -> Result<(), ClientError> {
        self.command(Command::Delivered(peer.clone(), seq)).await
    }

    /// Connects now: instead of waiting for the next try, or after
    /// [`Event::Superseded`] or [`Event::Stopped`].
    pub async fn reconnect(&self) -> Result<(), ClientError> {
        self.command(Command::Reconnect).await
    }

    /// Ends the client: waits for the answers to what was sent, at most
    /// [`crate::limits::CLOSE_TIMEOUT`], then saves. Returns how many messages
    /// are not settled; they stay in the outbox. Go on reading events meanwhile,
    /// since reading the answers waits for that.
    pub async fn close(self) -> Result<usize, ClientError> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Close(reply)).await?;
        answer.await.map_err(|_| ClientError::Closed)
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.transport
    }

    async fn command(&self, command: Command) -> Result<(), ClientError> {
        let sent = self.commands.send(command).await;
        sent.map_err(|_| ClientError::Closed)
    }
}

impl Events {
    /// The next event; none once the client has ended. May be cancelled without
    /// losing one.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// The client's task has ended: a panic there is one here.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let Some(driver) = &mut self.driver else {
            return Poll::Ready(None);
        };
        let Poll::Ready(end) = Pin::new(driver).poll(context) else {
            return Poll::Pending;
        };
        self.driver = None;
        match end {
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Ok(()) | Err(_) => Poll::Ready(None),
        }
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let taken = self.taken;
        self.handed.send_if_modified(|handed| {
            let news = *handed < taken;
            *handed = taken;
            news
        });
        match self.queue.poll_recv(context) {
            Poll::Ready(Some((number, event))) => {
                self.taken = number;
                Poll::Ready(Some(event))
            }
            Poll::Ready(None) => self.poll_end(context),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Builder {
    /// The bearer token. It cannot be renewed: see [`Self::token_source`].
    #[must_use]
    pub fn token(self, token: impl Into<String>) -> Self {
        self.token_source(StaticToken(token.into()))
    }

    /// Where bearer tokens come from.
    #[must_use]
    pub fn token_source(mut self, source: impl TokenSource) -> Self {
        self.tokens = Some(Box::new(source));
        self
    }

    /// Where the outbox and the positions are kept. In memory by default, where
    /// unsent messages die with the process.
    #[must_use]
    pub fn persistence(mut self, persistence: impl Persistence) -> Self {
        self.persistence = Box::new(persistence);
        self
    }

    /// The device. By default that of the saved state, or a random one.
    #[must_use]
    pub fn device(mut self, device: DeviceId) -> Self {
        self.device = Some(device);
        self
    }

    /// A certificate authority in PEM to trust, instead of the system's.
    #[must_use]
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca_pem = Some(pem.into());
        self
    }

    /// Makes the channel, for example by
    /// `|endpoint| endpoint.connect_with_connector_lazy(connector)`. It must
    /// reconnect by itself, as every tonic channel does.
    #[must_use]
    pub fn channel(mut self, make: impl FnOnce(Endpoint) -> Channel + Send + 'static) -> Self {
        self.channel = Box::new(make);
        self
    }

    /// The clock and randomness; the system's by default.
    #[must_use]
    pub fn environment(mut self, environment: impl Environment) -> Self {
        self.environment = Arc::new(environment);
        self
    }

    /// Whether the delivered cursor follows what the application has taken; true
    /// by default.
    #[must_use]
    pub fn mark_delivered(mut self, automatic: bool) -> Self {
        self.options.mark_delivered = automatic;
        self
    }

    /// The program's name and version, for the operator's logs; 64 bytes each.
    #[must_use]
    pub fn program(mut self, name: impl Into<String>, version: impl Into<String>) -> Self {
        self.options.client_name = name.into();
        self.options.client_version = version.into();
        self
    }

    /// Reads the saved state and starts to connect. The client is there at once,
    /// connected or not; [`Event::Connected`] tells when.
    pub async fn start(self) -> Result<(Client, Events), ClientError> {
        let tokens = self.tokens.ok_or(ClientError::NoTokenSource)?;
        let tls = self
            .ca_pem
            .map(|pem| ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)));
        let channel = (self.channel)(endpoint(&self.uri, tls)?);
        let (persistence, saved) = load(self.persistence).await?;
        let saved = this_device(saved, self.device, &*self.environment)?;
        let session = Session::new(saved, self.options).map_err(invalid)?;
        let transport = Arc::new(Transport {
            channel,
            tokens: Tokens::new(tokens),
        });
        Ok(start(session, persistence, transport, self.environment))
    }
}

fn start(
    session: Session,
    persistence: Box<dyn Persistence>,
    transport: Arc<Transport>,
    environment: Arc<dyn Environment>,
) -> (Client, Events) {
    let (commands, command_queue) = mpsc::channel(COMMAND_QUEUE);
    let (event_queue, queue) = mpsc::channel(EVENT_QUEUE);
    let (handed, handed_over) = watch::channel(0);
    let driver = Driver {
        session,
        transport: Arc::clone(&transport),
        environment: Arc::clone(&environment),
        persistence: Some(persistence),
        commands: command_queue,
        events: event_queue,
        handed: handed_over,
        work: Work::new(),
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "the one task, owned by Events: it ends with them, and they see its panic"
    )]
    let driver = tokio::spawn(driver.run());
    let client = Client {
        commands,
        transport,
        environment,
    };
    let events = Events {
        queue,
        handed,
        taken: 0,
        driver: Some(driver),
    };
    (client, events)
}

async fn load(
    mut persistence: Box<dyn Persistence>,
) -> Result<(Box<dyn Persistence>, Option<Saved>), ClientError> {
    let loading = tokio::task::spawn_blocking(move || {
        let saved = persistence.load();
        (persistence, saved)
    });
    let panicked = |_| PersistenceError::Other("loading has panicked".into());
    let (persistence, saved) = loading.await.map_err(panicked)?;
    Ok((persistence, saved?))
}

fn this_device(
    saved: Option<Saved>,
    device: Option<DeviceId>,
    environment: &dyn Environment,
) -> Result<Saved, ClientError> {
    match (saved, device) {
        (Some(saved), Some(device)) if saved.device_id != device.as_str() => {
            Err(ClientError::OtherDevice {
                saved: saved.device_id,
            })
        }
        (Some(saved), _) => Ok(saved),
        (None, Some(device)) => Ok(Saved::new(&device)),
        (None, None) => Ok(Saved::new(&device_id(environment).map_err(invalid)?)),
    }
}

fn invalid(error: duologue_proto::ids::InvalidId) -> ClientError {
    PersistenceError::Other(format!("an id of the saved state {error}")).into()
}
