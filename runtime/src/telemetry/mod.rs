//! Logs and traces of a process.
//!
//! Logs go to standard error: for people on a terminal, else JSON. Traces go to
//! an OTLP collector, if one is configured. Neither may hold the text of a
//! message, a token or a key; libraries could write those below INFO, so that
//! only Duologue's own lines can be asked for there.

pub mod propagation;
mod watch;

use std::io::IsTerminal as _;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, ParseError, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, fmt};

pub use self::watch::{Watch, watch};
use crate::metrics::BuildInfo;

/// How long the last traces may take to reach the collector.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one export may take.
pub const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// What the crates of Duologue are called, as targets of log lines.
const OWN_TARGET: &str = "duologue";

/// The target of spans that are made for exported traces alone. Where none are
/// exported they are disabled, and cost nothing.
pub const TRACED: &str = "duologue::traced";

/// How logs look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people on a terminal, else JSON.
    #[default]
    Auto,
    /// For people.
    Pretty,
    /// One JSON object per line.
    Json,
}

/// How a process tells what it does.
#[derive(Debug, Clone)]
pub struct TelemetryConfig {
    /// Which program.
    pub build: BuildInfo,
    /// Which lines to log, as `RUST_LOG` writes it; INFO where it does not say.
    pub filter: String,
    /// How logs look.
    pub format: LogFormat,
    /// The OTLP collector, as `http://host:port`; none: traces are not exported.
    pub otlp_endpoint: Option<String>,
}

/// Why telemetry cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is malformed.
    #[error("the log filter is not valid (an example is `info,duologue_chat=debug`): {0}")]
    Filter(#[from] ParseError),
    /// The endpoint is malformed, or needs TLS.
    #[error("the OTLP endpoint cannot be used (an example is `http://127.0.0.1:4317`): {0}")]
    Endpoint(#[from] ExporterBuildError),
    /// The process logs already.
    #[error("logging was set up twice")]
    Twice(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// Sends what is left when the process ends.
#[derive(Debug)]
#[must_use = "traces that were not sent yet are lost without `finish`"]
pub struct TelemetryGuard {
    provider: Option<SdkTracerProvider>,
}

impl TelemetryGuard {
    /// Sends the last traces, for at most [`FLUSH_TIMEOUT`].
    pub async fn finish(self) {
        let Some(provider) = self.provider else {
            return;
        };
        // It blocks, while the runtime must go on to carry the export.
        let flush = move || provider.shutdown_with_timeout(FLUSH_TIMEOUT);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(flush).await {
            tracing::warn!(%error, "last traces were not exported");
        }
    }
}

/// Sets up the logs and traces of this process, once. Called inside the runtime.
pub fn init(config: &TelemetryConfig) -> Result<TelemetryGuard, TelemetryError> {
    let (dispatch, guard) = build(config, std::io::stderr)?;
    tracing::dispatcher::set_global_default(dispatch)?;
    crate::task::log_panics();
    Ok(guard)
}

/// What [`init`] sets up, for a test or a simulation that has several.
pub fn build<W>(
    config: &TelemetryConfig,
    writer: W,
) -> Result<(Dispatch, TelemetryGuard), TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(&config.filter)?;
    let provider = config
        .otlp_endpoint
        .as_deref()
        .map(|endpoint| provider(endpoint, config.build))
        .transpose()?;
    let traces = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(OWN_TARGET))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
    });
    let exported = traces.is_some();
    let subscriber = tracing_subscriber::registry()
        .with(filter)
        .with(filter_fn(move |metadata| {
            may_be_told(metadata) && (exported || metadata.target() != TRACED)
        }))
        .with(lines(config.format, writer))
        .with(traces);
    Ok((Dispatch::new(subscriber), TelemetryGuard { provider }))
}

fn may_be_told(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO || metadata.target().starts_with(OWN_TARGET)
}

fn lines<S, W>(format: LogFormat, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let terminal = std::io::stderr().is_terminal();
    let lines = fmt::layer().with_writer(writer);
    match (format, terminal) {
        (LogFormat::Json, _) | (LogFormat::Auto, false) => lines.json().flatten_event(true).boxed(),
        (LogFormat::Pretty, _) | (LogFormat::Auto, true) => lines.with_ansi(terminal).boxed(),
    }
}

fn provider(endpoint: &str, build: BuildInfo) -> Result<SdkTracerProvider, ExporterBuildError> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_TIMEOUT)
        .build()?;
    let resource = Resource::builder()
        .with_service_name(build.name)
        .with_attribute(KeyValue::new("service.version", build.version))
        .build();
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource)
        .build())
}
