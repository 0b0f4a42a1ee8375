//! Lets connections in, up to a number in all and from one address, and does
//! the TLS handshakes beside one another.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::Peer;
use super::connection::{Channel, Connection};
use super::proxies::Proxies;
use super::tls::Tls;
use crate::rate::{SlotGuard, Slots};

/// How long a TLS handshake may take.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at once, if nothing else is configured.
pub const DEFAULT_MAX_CONNECTIONS: usize = 20_000;
/// Connections at once from one address, if nothing else is configured.
pub const DEFAULT_MAX_CONNECTIONS_PER_ADDRESS: usize = 1_000;

/// A connection that nobody has looked at yet.
#[derive(Debug)]
pub struct Accepted<IO> {
    /// The connection.
    pub io: IO,
    /// Who is at the other end.
    pub peer: Peer,
}

/// Something to be counted about connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConnectionEvent {
    /// It was let in; its handshake may follow.
    Opened,
    /// It was let in, and is gone.
    Closed,
    /// It was closed at once: there are too many.
    TooMany,
    /// It was closed at once: there are too many from its address.
    TooManyFromAddress,
    /// Its TLS handshake failed.
    HandshakeFailed,
    /// Its TLS handshake took too long.
    HandshakeTimedOut,
    /// It was closed because it did not begin to speak.
    PrefaceTimedOut,
}

/// The places that connections may take, those in their handshake included.
/// Listeners that share them have that many together.
#[derive(Debug, Clone)]
pub struct Seats {
    all: Slots<()>,
    from_address: Slots<IpAddr>,
    proxies: Proxies,
}

impl Seats {
    /// So many at once in all, and from one address.
    pub fn new(max_connections: usize, max_connections_per_address: usize) -> Self {
        Self {
            all: Slots::new(max_connections),
            from_address: Slots::new(max_connections_per_address),
            proxies: Proxies::default(),
        }
    }

    /// Behind these all have the proxy's address: they count in all only.
    #[must_use]
    pub fn but_for(mut self, proxies: Proxies) -> Self {
        self.proxies = proxies;
        self
    }
}

impl Default for Seats {
    fn default() -> Self {
        Self::new(DEFAULT_MAX_CONNECTIONS, DEFAULT_MAX_CONNECTIONS_PER_ADDRESS)
    }
}

/// Who is let in, and how.
#[derive(Clone)]
pub struct GuardConfig {
    /// How many.
    pub seats: Seats,
    /// None for connections in the clear.
    pub tls: Option<Tls>,
    /// Called for every event. It must not block.
    pub on_event: Arc<dyn Fn(ConnectionEvent) + Send + Sync>,
}

impl Default for GuardConfig {
    fn default() -> Self {
        Self {
            seats: Seats::default(),
            tls: None,
            on_event: Arc::new(|_| {}),
        }
    }
}

impl fmt::Debug for GuardConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardConfig")
            .field("seats", &self.seats)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// Guards a stream of connections. It ends when the stream has ended and every
/// handshake is over; no item is an error.
pub fn guard<S, IO>(accepted: S, config: GuardConfig) -> Guard<S, IO>
where
    S: Stream<Item = Accepted<IO>>,
{
    Guard {
        accepted: Some(Box::pin(accepted)),
        entrance: Entrance {
            seats: config.seats,
            on_event: config.on_event,
        },
        tls: config.tls.map(|tls| tls.acceptor()),
        handshakes: JoinSet::new(),
    }
}

/// Connections that were let in; see [`guard`].
pub struct Guard<S, IO> {
    /// None once it has ended.
    accepted: Option<Pin<Box<S>>>,
    entrance: Entrance,
    tls: Option<TlsAcceptor>,
    /// No more than there are seats.
    handshakes: JoinSet<Option<Connection<IO>>>,
}

impl<S, IO> Stream for Guard<S, IO>
where
    S: Stream<Item = Accepted<IO>>,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Item = io::Result<Connection<IO>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            // Those who have waited come before those who come.
            if let Some(connection) = self.poll_handshakes(cx) {
                return Poll::Ready(Some(Ok(connection)));
            }
            let Some(accepted) = &mut self.accepted else {
                let over = self.handshakes.is_empty();
                return if over {
                    Poll::Ready(None)
                } else {
                    Poll::Pending
                };
            };
            match accepted.as_mut().poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => self.accepted = None,
                Poll::Ready(Some(accepted)) => {
                    if let Some(connection) = self.admit(accepted) {
                        return Poll::Ready(Some(Ok(connection)));
                    }
                }
            }
        }
    }
}

impl<S, IO> Guard<S, IO>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    /// A connection whose handshake has succeeded.
    fn poll_handshakes(&mut self, cx: &mut Context<'_>) -> Option<Connection<IO>> {
        while let Poll::Ready(Some(ended)) = self.handshakes.poll_join_next(cx) {
            match ended {
                Ok(Some(connection)) => return Some(connection),
                Ok(None) => {}
                Err(error) => tracing::error!(
                    panicked = error.is_panic(),
                    "a tls handshake ended without a result"
                ),
            }
        }
        None
    }

    /// Closes the connection, starts its handshake, or lets it pass.
    fn admit(&mut self, accepted: Accepted<IO>) -> Option<Connection<IO>> {
        let Accepted { io, peer } = accepted;
        let seat = self.entrance.seat(peer)?;
        match &self.tls {
            None => Some(Connection::new(Channel::Plain(io), seat)),
            Some(tls) => {
                self.handshakes.spawn(handshake(tls.clone(), io, seat));
                None
            }
        }
    }
}

impl<S, IO> fmt::Debug for Guard<S, IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("handshakes", &self.handshakes.len())
            .finish_non_exhaustive()
    }
}

async fn handshake<IO>(tls: TlsAcceptor, io: IO, seat: Seat) -> Option<Connection<IO>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    match timeout(TLS_HANDSHAKE_TIMEOUT, tls.accept(io)).await {
        Ok(Ok(stream)) => Some(Connection::new(Channel::Tls(Box::new(stream)), seat)),
        Ok(Err(error)) => {
            tracing::debug!(%error, "tls handshake failed");
            seat.tell(ConnectionEvent::HandshakeFailed);
            None
        }
        Err(_) => {
            seat.tell(ConnectionEvent::HandshakeTimedOut);
            None
        }
    }
}

struct Entrance {
    seats: Seats,
    on_event: Arc<dyn Fn(ConnectionEvent) + Send + Sync>,
}

impl Entrance {
    /// A seat, if there is one.
    fn seat(&self, peer: Peer) -> Option<Seat> {
        let taken = self.take(peer);
        (self.on_event)(
            taken
                .as_ref()
                .err()
                .copied()
                .unwrap_or(ConnectionEvent::Opened),
        );
        Some(Seat {
            peer,
            on_event: Arc::clone(&self.on_event),
            _taken: taken.ok()?,
        })
    }

    fn take(&self, peer: Peer) -> Result<TakenSlots, ConnectionEvent> {
        let seats = &self.seats;
        let of_all = seats.all.acquire(&()).ok_or(ConnectionEvent::TooMany)?;
        let from_address = |origin| {
            let slot = seats.from_address.acquire(&origin);
            slot.ok_or(ConnectionEvent::TooManyFromAddress)
        };
        let origin = peer.origin().filter(|_| !seats.proxies.contains(peer));
        Ok((of_all, origin.map(from_address).transpose()?))
    }
}

type TakenSlots = (SlotGuard<()>, Option<SlotGuard<IpAddr>>);

/// The place of a connection that was let in.
pub(super) struct Seat {
    peer: Peer,
    on_event: Arc<dyn Fn(ConnectionEvent) + Send + Sync>,
    _taken: TakenSlots,
}

impl Seat {
    pub(super) fn peer(&self) -> Peer {
        self.peer
    }

    pub(super) fn tell(&self, event: ConnectionEvent) {
        (self.on_event)(event);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.tell(ConnectionEvent::Closed);
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
