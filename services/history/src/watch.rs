//! Whether a replica can do its work, and who is told.
//!
//! It must not end anything for good that may come back: a store that is out of reach, or
//! a clock that is off.

use std::time::Duration;

use duologue_runtime::admin::ReadinessHandle;
use duologue_runtime::server::Health;
use duologue_runtime::shutdown::Shutdown;
use tokio::time::Instant;

use crate::history::History;

/// How soon a store that fails, or is back, shows in readiness and health.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// How long a replica keeps its append streams while it refuses: others may be as badly
/// off, and to move costs something.
pub const REFUSING_KEPT: Duration = Duration::from_secs(3);

/// Looks after one replica until the process drains.
pub(crate) struct Watch {
    pub(crate) history: History,
    pub(crate) health: Health,
    pub(crate) readiness: ReadinessHandle,
    pub(crate) shutdown: Shutdown,
}

impl Watch {
    /// A store that has stopped writing has done so for good: the process must be
    /// restarted, while reads go on. Anything else may pass.
    pub(crate) async fn run(self) {
        let mut failing_since = None;
        loop {
            tokio::time::sleep(PROBE_INTERVAL).await;
            if let Err(error) = self.history.writable() {
                self.readiness.set_failing(error.to_string());
                return self.health.set(false).await;
            }
            let probed = self.history.probe().await;
            if self.shutdown.is_leaving() {
                return;
            }
            match probed {
                Ok(()) if failing_since.take().is_none() => {}
                Ok(()) => {
                    self.history.set_refusing(false);
                    self.readiness.set_ready();
                    self.health.serve(&self.shutdown).await;
                }
                Err(error) => {
                    let since = *failing_since.get_or_insert_with(Instant::now);
                    self.readiness.set_failing(error.to_string());
                    self.health.set(false).await;
                    self.history.set_refusing(since.elapsed() >= REFUSING_KEPT);
                }
            }
        }
    }
}
