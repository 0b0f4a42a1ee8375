//! The numbers that a process shows.
//!
//! Each part registers its own families. No label may hold a user, a
//! conversation or anything else that a caller chose.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use duologue_proto::ids::UnixMillis;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// The media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every metric's name begins with this.
pub const PREFIX: &str = "duologue";

/// Which build of which program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct BuildInfo {
    /// The program.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The commit it was built from, if the build was told.
    pub commit: Option<&'static str>,
}

impl BuildInfo {
    /// The build of this workspace that runs under `name`. The commit comes from
    /// the variable `DUOLOGUE_BUILD_COMMIT` at compile time.
    pub const fn of(name: &'static str) -> Self {
        Self {
            name,
            version: env!("CARGO_PKG_VERSION"),
            commit: option_env!("DUOLOGUE_BUILD_COMMIT"),
        }
    }
}

/// The registry of a process. Clones share it.
#[derive(Clone)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Metrics {
    /// A registry that tells which build runs, and since when.
    pub fn new(build: BuildInfo, started_at: UnixMillis) -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register(
            "build",
            "The build that runs",
            Info::new([
                ("name", build.name),
                ("version", build.version),
                ("commit", build.commit.unwrap_or("unknown")),
            ]),
        );
        let start: Gauge = Gauge::default();
        start.set(i64::try_from(started_at.0 / 1_000).unwrap_or(i64::MAX));
        registry.register(
            "process_start_time_seconds",
            "When the process started, in seconds since 1970",
            start,
        );
        Self(Arc::new(Mutex::new(registry)))
    }

    /// Lets a part register its families. Names must be unique: a name that is
    /// registered twice is shown twice.
    pub fn register<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Everything, as text for Prometheus.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        let registry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn tells_the_build_the_start_and_what_parts_register() {
        let metrics = Metrics::new(BuildInfo::of("duologue"), UnixMillis(1_700_000_000_999));
        let sends: Counter = metrics.register(|registry| {
            let sends = Counter::default();
            registry.register("sends", "Sends", sends.clone());
            sends
        });
        sends.inc();
        let text = metrics.encode().unwrap();
        assert!(
            text.contains("duologue_build_info{name=\"duologue\""),
            "{text}"
        );
        assert!(text.contains("duologue_process_start_time_seconds 1700000000\n"));
        assert!(text.contains("duologue_sends_total 1\n"));
        assert!(text.ends_with("# EOF\n"));
    }
}
