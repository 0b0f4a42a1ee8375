//! What the tests share: the program as a process, and clients of it.

pub(crate) mod calls;
pub(crate) mod frames;
pub(crate) mod http;
pub(crate) mod link;
pub(crate) mod node;
pub(crate) mod page;
pub(crate) mod raw;
pub(crate) mod refused;
pub(crate) mod server;
pub(crate) mod session;
pub(crate) mod socket;

use std::future::Future;
use std::time::Duration;

pub(crate) use calls::Chat;
pub(crate) use server::{Place, Server, program};
pub(crate) use session::{End, Session, Watch};

/// Within this everything happens that should; a busy machine is slow.
const SOON: Duration = Duration::from_mins(1);

/// Waits for something that must happen.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what)
        .await
        .expect("what was awaited did not happen")
}
