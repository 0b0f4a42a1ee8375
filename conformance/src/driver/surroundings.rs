//! What a run meets the world through: the way to the server, the clock, and the
//! key that signs its tokens. All are the real ones, unless a simulation passes its
//! own.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use duologue_runtime::auth::{DevKey, DevKeyError};
use duologue_runtime::clock::{Clock, SystemClock};
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// What the clients of a run do not bring along.
pub struct Surroundings {
    /// Makes connections.
    pub dial: Dial,
    /// The clients' clock, and that of who signs their tokens.
    pub clock: Arc<dyn Clock>,
    /// Signs tokens.
    pub key: DevKey,
}

/// Makes a connection to an address.
pub type Dial = Arc<dyn Fn(SocketAddr) -> Dialing + Send + Sync>;

/// A connection on its way.
pub type Dialing = BoxFuture<'static, io::Result<Box<dyn Io>>>;

/// A connection of any kind.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

impl Surroundings {
    /// Those of this machine, with the development key of a server's data directory.
    pub fn of_this_machine(data: &Path) -> Result<Self, DevKeyError> {
        Ok(Self {
            dial: Arc::new(|address| Box::pin(dial(address))),
            clock: Arc::new(SystemClock),
            key: DevKey::load_or_create(data)?,
        })
    }
}

async fn dial(address: SocketAddr) -> io::Result<Box<dyn Io>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}
