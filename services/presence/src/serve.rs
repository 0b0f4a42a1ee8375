//! One replica of presence as a process of its own.

use std::sync::{Arc, Mutex};

use duologue_dynamodb::tables::check;
use duologue_proto::presence::PresenceError;
use duologue_runtime::clock::{SystemClock, SystemRandom};
use duologue_runtime::metrics::BuildInfo;
use duologue_runtime::process::{
    InnerDoor, InnerListeners, Process, ProcessError, print_ready, serve_inner,
};
use duologue_runtime::server::Health;
use duologue_runtime::shutdown::Shutdown;
use duologue_runtime::task;
use tokio::sync::watch;
use tonic::service::Routes;

pub use crate::config::ServeConfig;
use crate::directory::Directory;
use crate::dynamodb::{DynamoDirectory, TABLE};
use crate::grpc::PresenceServer;
use crate::lease::Observer;
use crate::memory::MemoryDirectory;
use crate::presence::{Nodes, Presence};

/// Which program this is.
pub const BUILD: BuildInfo = BuildInfo::of("duologue-presence");
/// The service as health names it.
const SERVICE: &str = "duologue.presence.v1.PresenceService";

/// Listens, says so, and serves until a signal.
pub async fn run(config: ServeConfig, shutdown: Shutdown) -> Result<(), ProcessError> {
    let listeners = InnerListeners::bind(&config.inner, &config.process).await?;
    serve(config, listeners, shutdown).await
}

/// Serves until the process has drained.
pub async fn serve(
    config: ServeConfig,
    listeners: InnerListeners,
    shutdown: Shutdown,
) -> Result<(), ProcessError> {
    let credentials = config.inner.credentials()?;
    let process = Process::new(BUILD, shutdown);
    let readiness = process.readiness.register("directory");
    let (directory, place) = open(&config).await?;
    let nodes = Nodes::Observed(Mutex::new(Observer::default()));
    let presence = Presence::new(directory, nodes, Arc::new(SystemClock));
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
            ("directory", place),
        ],
    );
    let (can_read, seen) = watch::channel(true);
    let observing = task::spawn("lease observer", async move {
        let read = |read: &Result<(), PresenceError>| {
            match read {
                Ok(()) => readiness.set_ready(),
                Err(error) => readiness.set_failing(error.to_string()),
            }
            can_read.send_replace(read.is_ok());
        };
        presence.watch_nodes(read).await;
    });
    // While it cannot read them others are to be asked.
    let telling = health.clone().follow(seen, process.shutdown.clone());
    let telling = task::spawn("read health", telling);
    let ended = serve_inner(&config.process, &process, &health, door, listeners.admin).await;
    observing.abort();
    telling.abort();
    ended
}

/// The engine, and where it keeps its rows.
async fn open(config: &ServeConfig) -> Result<(Arc<dyn Directory>, String), ProcessError> {
    if !config.dynamo.dynamodb {
        let place = "in memory: one replica, nothing is kept".to_owned();
        return Ok((Arc::new(MemoryDirectory::new()), place));
    }
    let database = config.dynamo.tables.open().await?;
    check(&database, &[TABLE]).await?;
    let place = format!(
        "DynamoDB in {}, tables {}*",
        database.region(),
        config.dynamo.tables.table_prefix
    );
    let directory = DynamoDirectory::new(database, Arc::new(SystemClock), Arc::new(SystemRandom));
    Ok((Arc::new(directory), place))
}
