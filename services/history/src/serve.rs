//! One replica of history as a process of its own.

use std::path::Path;
use std::sync::Arc;

use duologue_runtime::clock::{Clock, SystemClock, SystemRandom};
use duologue_runtime::metrics::BuildInfo;
use duologue_runtime::process::{
    InnerDoor, InnerListeners, Process, ProcessError, print_ready, serve_inner,
};
use duologue_runtime::server::Health;
use duologue_runtime::shutdown::Shutdown;
use duologue_runtime::task;
use tonic::service::Routes;

pub use crate::config::ServeConfig;
use crate::dynamodb::DynamoStore;
use crate::embedded::EmbeddedStore;
use crate::grpc::HistoryServer;
use crate::history::History;
use crate::memory::MemoryStore;
use crate::store::Store;
use crate::watch::Watch;

/// Which program this is.
pub const BUILD: BuildInfo = BuildInfo::of("duologue-history");
/// The service as health names it.
const SERVICE: &str = "duologue.history.v1.HistoryService";
/// The folder of the history, below the data directory, as in the one process.
const FOLDER: &str = "history";

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
    let store_readiness = process.readiness.register("store");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (store, place) = open(&config, Arc::clone(&clock)).await?;
    let history = History::new(store, clock);
    history.writable()?;
    store_readiness.set_ready();
    let health = Health::new(&[SERVICE]).await;
    let server = HistoryServer::over(history.clone(), process.shutdown.clone());
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
            ("data", place),
            ("history", history.history_id().await?.to_string()),
        ],
    );
    let watch = Watch {
        history,
        health: health.clone(),
        readiness: store_readiness,
        shutdown: process.shutdown.clone(),
    };
    let watch = task::spawn("store watch", watch.run());
    let ended = serve_inner(&config.process, &process, &health, door, listeners.admin).await;
    watch.abort();
    ended
}

/// The engine, and where it keeps its data.
async fn open(
    config: &ServeConfig,
    clock: Arc<dyn Clock>,
) -> Result<(Arc<dyn Store>, String), ProcessError> {
    if config.dynamo.dynamodb {
        let database = config.dynamo.tables.open().await?;
        let place = format!(
            "DynamoDB in {}, tables {}*",
            database.region(),
            config.dynamo.tables.table_prefix
        );
        let store = DynamoStore::open(database, clock, &SystemRandom).await?;
        return Ok((Arc::new(store), place));
    }
    let data: &Path = &config.data;
    let place = data.display().to_string();
    if data.as_os_str() == "memory" {
        return Ok((Arc::new(MemoryStore::new(clock, &SystemRandom)), place));
    }
    let directory = data.join(FOLDER);
    let open = move || EmbeddedStore::open(&directory, clock, &SystemRandom);
    let store = tokio::task::spawn_blocking(open).await??;
    Ok((Arc::new(store), place))
}
