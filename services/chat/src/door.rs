//! How every stream becomes a session, whichever door it comes through.

use std::net::IpAddr;
use std::sync::Arc;

use duologue_proto::ids::{DeviceId, SessionId};
use duologue_runtime::auth::Identity;
use duologue_runtime::clock::RandomExt as _;
use duologue_runtime::refusal::{Reason, Refusal};
use duologue_runtime::task;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::connection::{Connection, UpStream};
use crate::core::Core;
use crate::inbox::Inbox;
use crate::outbox::{Encode, OutboxBody, outbox};
use crate::registry::Handle;
use crate::session::{About, Now, Session};
use crate::signal::Signal;

/// Opens a session for a caller whose token was verified. It runs in a task of
/// its own, since it must settle what was sent even if the device is gone.
pub(crate) fn open(
    core: &Arc<Core>,
    caller: Identity,
    address: Option<IpAddr>,
    up: UpStream,
    encode: Encode,
) -> Result<OutboxBody, Refusal> {
    let now = Now {
        instant: Instant::now(),
        wall: core.clock.now(),
    };
    core.connects
        .take(&caller.user, now.instant)
        .map_err(|wait| {
            let limit = core.config.connects;
            let message = format!(
                "more than {} streams per second (burst {}) were opened; wait",
                limit.per_second, limit.burst
            );
            Refusal::new(Reason::RateLimited, message).retry_after(wait)
        })?;
    let of_user = core
        .sessions
        .acquire(&caller.user)
        .ok_or_else(|| too_many("this user", core.config.sessions_per_user))?;
    let of_address = match address {
        Some(address) => Some(
            core.addresses
                .acquire(&address)
                .ok_or_else(|| too_many("this address", core.config.sessions_per_address))?,
        ),
        None => None,
    };
    let session = fresh_id(core, SessionId::parse)?;
    let about = About {
        user: caller.user.clone(),
        expires_at: caller.expires_at,
        session: session.clone(),
        fresh_device: fresh_id(core, DeviceId::parse)?,
        node: core.config.node.clone(),
        incarnation: core.tenure.incarnation(),
        history_id: core.history_id.clone(),
        max_text_bytes: core.config.max_text_bytes,
        jitter: core.random.number(),
    };
    let span = tracing::info_span!("session", user.id = %caller.user, session.id = %session);
    let signal = Arc::new(Signal::default());
    let handle = Arc::new(Handle {
        user: caller.user,
        session,
        inbox: Inbox::new(Arc::clone(&signal)),
        confirmed: std::sync::Mutex::default(),
    });
    let seat = Box::new((of_user, of_address));
    let (outbox, body) = outbox(encode, Arc::clone(&signal), seat);
    let machine = Session::new(about, now);
    let connection = Connection::new(Arc::clone(core), machine, (handle, signal), up, outbox);
    task::spawn("session", connection.run().instrument(span));
    Ok(body)
}

fn too_many(whose: &str, limit: usize) -> Refusal {
    Refusal::new(
        Reason::TooManySessions,
        format!("{whose} has {limit} open streams, which is the limit; close one"),
    )
}

fn fresh_id<T, E>(core: &Core, parse: impl Fn(&str) -> Result<T, E>) -> Result<T, Refusal> {
    // A hexadecimal id is within the rule of every id.
    parse(&core.random.id()).map_err(|_| Refusal::internal())
}
