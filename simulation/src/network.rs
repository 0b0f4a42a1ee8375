//! Turmoil's network, where the server and the driver have the system's.

use std::io;
use std::net::SocketAddr;

use conformance::driver::Io;
use duologue_runtime::listener::{Accepted, Peer};
use futures_util::Stream;
use futures_util::stream::unfold;
use turmoil::net::{TcpListener, TcpStream};

/// Where the server listens.
pub(crate) const PORT: u16 = 50_051;
/// Segments that one connection has on its way in each direction, and connections
/// that wait to be accepted; more of these is more than turmoil bears.
pub(crate) const SEGMENTS: usize = 256;

/// The connections that a listener accepts. It never ends.
pub(crate) fn accepted(listener: TcpListener) -> impl Stream<Item = Accepted<TcpStream>> + Send {
    unfold(listener, |listener| async move {
        // It fails only outside of a simulation.
        let (io, addr) = listener.accept().await.ok()?;
        let peer = Peer { addr: Some(addr) };
        Some((Accepted { io, peer }, listener))
    })
}

/// Makes a connection from the machine that asks.
pub(crate) async fn dial(address: SocketAddr) -> io::Result<Box<dyn Io>> {
    Ok(Box::new(TcpStream::connect(address).await?))
}
