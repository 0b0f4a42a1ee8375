//! One replica of presence as a process of its own.

use std::sync::{Arc, Mutex};

use duologue_runtime::admin::ReadinessHandle;
use duologue_runtime::clock::SystemClock;
use duologue_runtime::metrics::BuildInfo;
use duologue_runtime::process::{InnerDoor, Process, ProcessError, bind, print_ready, serve_inner};
use duologue_runtime::server::Health;
use duologue_runtime::shutdown::Shutdown;
use duologue_runtime::task;
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};
use tonic::service::Routes;

pub use crate::config::ServeConfig;
use crate::grpc::PresenceServer;
use crate::lease::{Observer, POLL_INTERVAL};
use crate::memory::MemoryDirectory;
use crate::presence::{Nodes, Presence};

/// Which program this is.
pub const BUILD: BuildInfo = BuildInfo::of("duologue-presence");
/// The service as health names it.
const SERVICE: &str = "duologue.presence.v1.PresenceService";

/// Where a process is called.
#[derive(Debug)]
pub struct Listeners {
    /// By other services.
    pub inner: TcpListener,
    /// By operators.
    pub admin: TcpListener,
}

/// Listens, says so, and serves until a signal.
pub async fn run(config: ServeConfig, shutdown: Shutdown) -> Result<(), ProcessError> {
    let listeners = Listeners {
        inner: bind(config.inner.internal_listen).await?,
        admin: bind(config.process.admin_listen).await?,
    };
    serve(config, listeners, shutdown).await
}

/// Serves until the process has drained.
pub async fn serve(
    config: ServeConfig,
    listeners: Listeners,
    shutdown: Shutdown,
) -> Result<(), ProcessError> {
    let credentials = config.inner.credentials()?;
    let process = Process::new(BUILD, shutdown);
    let directory = process.readiness.register("directory");
    let nodes = Nodes::Observed(Mutex::new(Observer::default()));
    let presence = Presence::new(
        Arc::new(MemoryDirectory::new()),
        nodes,
        Arc::new(SystemClock),
    );
    let health = Health::new(&[SERVICE]).await;
    let server = PresenceServer::over(presence.clone(), process.shutdown.clone());
    let door = InnerDoor {
        routes: health.add_to(Routes::new(server)),
        credentials,
        listener: listeners.inner,
    };
    print_ready(
        BUILD,
        &[
            ("internal", door.listener.local_addr()?.to_string()),
            ("admin", format!("http://{}", listeners.admin.local_addr()?)),
            (
                "directory",
                "in memory: one replica, nothing is kept".to_owned(),
            ),
        ],
    );
    let observing = task::spawn("lease observer", observe(presence, directory));
    let ended = serve_inner(&config.process, &process, &health, door, listeners.admin).await;
    observing.abort();
    ended
}

/// Judges the nodes by their leases, for as long as the process lives.
async fn observe(presence: Presence, readiness: ReadinessHandle) {
    let mut turn = interval(POLL_INTERVAL);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        match presence.observe().await {
            Ok(()) => readiness.set_ready(),
            Err(error) => readiness.set_failing(error.to_string()),
        }
    }
}
