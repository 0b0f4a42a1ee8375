//! Accepting from the system, which fails at times and never for good.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::unfold;
use futures_util::{Stream, StreamExt as _};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::Peer;
use super::guard::Accepted;

/// How long nothing is accepted after the system refused, as it does when it has
/// no file descriptors left. The connections wait in its queue meanwhile.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// The connections that a listener accepts. It never ends.
pub fn accepted(listener: TcpListener) -> impl Stream<Item = Accepted<TcpStream>> + Send {
    unfold(listener, |listener| async move {
        let (io, addr) = retry(|| listener.accept()).await;
        // Frames are small and complete when they are written. A connection
        // that is gone already shows it at the first read.
        let _ = io.set_nodelay(true);
        let peer = Peer { addr: Some(addr) };
        Some((Accepted { io, peer }, listener))
    })
}

/// As [`accepted`]. A peer that does not acknowledge what it is sent for so long is taken for
/// gone, which HTTP/1.1 has no way to ask.
pub fn accepted_and_watched(
    listener: TcpListener,
    unanswered: Duration,
) -> impl Stream<Item = Accepted<TcpStream>> + Send {
    accepted(listener).inspect(move |accepted| {
        let watched = SockRef::from(&accepted.io).set_tcp_user_timeout(Some(unanswered));
        if let Err(error) = watched {
            tracing::debug!(%error, "a connection is not watched");
        }
    })
}

async fn retry<IO, F>(mut accept: impl FnMut() -> F) -> (IO, SocketAddr)
where
    F: Future<Output = io::Result<(IO, SocketAddr)>>,
{
    loop {
        match accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_one_connection(&error) => {
                tracing::debug!(%error, "a connection was gone before it was accepted");
            }
            Err(error) => {
                tracing::warn!(%error, "accepting connections failed, trying again");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures_util::StreamExt as _;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn accepting_goes_on_after_every_error_and_pauses_if_the_system_is_out_of_something() {
        let addr: SocketAddr = "192.0.2.1:1".parse().unwrap();
        let no_more_files = || io::Error::from_raw_os_error(24);
        let mut results = VecDeque::from([
            Err(no_more_files()),
            Err(ErrorKind::ConnectionAborted.into()),
            Err(no_more_files()),
            Ok(("connection", addr)),
        ]);
        let start = Instant::now();
        let got = retry(|| std::future::ready(results.pop_front().unwrap())).await;
        assert_eq!(got, ("connection", addr));
        assert_eq!(start.elapsed(), 2 * ACCEPT_BACKOFF);
    }

    #[tokio::test]
    async fn a_connection_comes_with_its_address_and_without_delay() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let client = TcpStream::connect(addr).await.unwrap();
        let mut accepted = std::pin::pin!(accepted(listener));
        let connection = accepted.next().await.unwrap();
        assert_eq!(connection.peer.addr, client.local_addr().ok());
        assert!(connection.io.nodelay().unwrap());
    }

    #[tokio::test]
    async fn a_peer_that_acknowledges_nothing_is_taken_for_gone() {
        let unanswered = Duration::from_secs(40);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let _client = client.await.unwrap();
        let mut accepted = std::pin::pin!(accepted_and_watched(listener, unanswered));
        let connection = accepted.next().await.unwrap();
        let watched = SockRef::from(&connection.io).tcp_user_timeout();
        assert_eq!(watched.unwrap(), Some(unanswered));
    }
}
