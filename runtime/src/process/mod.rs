//! How a server process begins and ends, whatever it serves: flags and telemetry
//! first; then its listeners, its doors and its numbers; at the end not ready, calls
//! ended, numbers last.

mod args;

use std::error::Error;
use std::future::Future;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Parser};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

pub use args::{DoorArgs, InnerArgs, ProcessArgs, PublicArgs, rate};

use crate::admin::{Admin, Readiness, ReadinessHandle};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{effective_values, unknown_variables};
use crate::faults;
use crate::inner::Credentials;
use crate::listener::{self, GuardConfig, Seats, Tls};
use crate::metrics::{BuildInfo, Metrics};
use crate::server::{self, Door, Health, Methods, Stack};
use crate::shutdown::Shutdown;
use crate::task;
use crate::telemetry::{self, TelemetryConfig};

/// Why a process ends early, for its operator.
pub type ProcessError = Box<dyn Error + Send + Sync>;

/// Runs a program that only serves: parses its flags, sets up telemetry, and serves
/// until a signal; or only checks the configuration.
pub async fn run<C, Check, Serve, F>(
    build: BuildInfo,
    of: impl Fn(&C) -> &ProcessArgs,
    check: Check,
    serve: Serve,
) -> ExitCode
where
    C: Parser,
    Check: FnOnce(&C) -> Result<(), ProcessError>,
    Serve: FnOnce(C, Shutdown) -> F,
    F: Future<Output = Result<(), ProcessError>>,
{
    let matches = C::command().get_matches();
    let config = C::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let done = async {
        // Before anything is made: what is refused leaves nothing behind.
        check(&config)?;
        let args = of(&config);
        args.check()?;
        let telemetry = telemetry::init(&args.telemetry(build))?;
        let done = if args.check_config {
            print_config::<C>(&matches);
            Ok(())
        } else {
            warn(&C::command());
            let shutdown = args.shutdown();
            shutdown.install_signals()?;
            serve(config, shutdown).await
        };
        telemetry.finish().await;
        done
    };
    match done.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&*error);
            ExitCode::FAILURE
        }
    }
}

/// Says loudly what an operator may not have meant.
pub fn warn(command: &clap::Command) {
    if let Some(planted) = faults::of_this_process() {
        tracing::warn!(
            planted,
            "A BUILD FOR TESTS, which breaks promises when told to: nobody must be served by it"
        );
    }
    for variable in unknown_variables(command) {
        tracing::warn!(variable, "unknown environment variable is ignored");
    }
}

#[expect(clippy::print_stdout, reason = "this is what --check-config is for")]
fn print_config<C: Parser>(matches: &ArgMatches) {
    for line in effective_values(&C::command(), matches) {
        println!("{line}");
    }
    println!("the configuration is valid");
}

/// The error with its causes, which some of them repeat.
fn tell(error: &dyn Error) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    eprintln!("error: {text}");
}

impl ProcessArgs {
    /// Refuses what cannot be.
    pub fn check(&self) -> Result<(), ProcessError> {
        let (delay, grace) = (self.drain_delay, self.grace);
        if delay > Duration::ZERO && delay >= grace {
            let text =
                format!("--drain-delay ({delay:?}) must be shorter than --grace ({grace:?})");
            return Err(text.into());
        }
        Ok(())
    }

    /// How the process ends.
    pub fn shutdown(&self) -> Shutdown {
        Shutdown::new(self.grace).delayed(self.drain_delay)
    }

    /// How the process tells what it does.
    pub fn telemetry(&self, build: BuildInfo) -> TelemetryConfig {
        TelemetryConfig {
            build,
            filter: self.log.clone(),
            format: self.log_format,
            // Empty is what an unset variable is passed on as.
            otlp_endpoint: self.otlp_endpoint.clone().filter(|url| !url.is_empty()),
        }
    }
}

/// What every serving process has. Clones share it.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its numbers.
    pub metrics: Metrics,
    /// Whether it may get calls.
    pub readiness: Readiness,
    /// Its end.
    pub shutdown: Shutdown,
    build: BuildInfo,
    serving: ReadinessHandle,
}

/// Why a process that leaves is not ready.
const LEAVING: &str = "draining";

impl Process {
    /// A process that does not serve yet.
    pub fn new(build: BuildInfo, shutdown: Shutdown) -> Self {
        let readiness = Readiness::default();
        Self {
            metrics: Metrics::new(build, SystemClock.now()),
            serving: readiness.register("serving"),
            readiness,
            shutdown,
            build,
        }
    }

    /// Shows numbers and readiness until `served`.
    pub fn admin(&self, listener: TcpListener, served: CancellationToken) -> JoinHandle<()> {
        let admin = Admin {
            build: self.build,
            metrics: self.metrics.clone(),
            readiness: self.readiness.clone(),
        };
        task::spawn("admin", admin.serve(listener, served.cancelled_owned()))
    }

    /// The process takes calls from now on.
    pub async fn open(&self, health: &[&Health]) {
        self.serving.set_ready();
        if self.shutdown.is_leaving() {
            self.serving.set_failing(LEAVING);
        }
        for health in health {
            health.serve(&self.shutdown).await;
        }
    }

    /// Says, once the process leaves, that it wants no more calls; until it drains.
    pub async fn close(&self, health: &[&Health]) {
        self.shutdown.leaving().await;
        self.serving.set_failing(LEAVING);
        for health in health {
            health.set(false).await;
        }
        self.shutdown.draining().await;
    }

    /// How connections of a door are let in.
    pub fn guard(&self, seats: Seats, door: Door, tls: Option<Tls>) -> GuardConfig {
        GuardConfig {
            seats,
            tls,
            on_event: server::count_connections(&self.metrics, door),
        }
    }
}

/// The inner door of a process.
pub struct InnerDoor {
    /// Where it is.
    pub listener: TcpListener,
    /// Who may come in.
    pub credentials: Credentials,
    /// What is behind it, health included.
    pub routes: Routes,
}

impl InnerDoor {
    /// Serves it until the process has drained.
    pub async fn serve(self, args: &ProcessArgs, process: &Process) -> Result<(), ProcessError> {
        let stack = Stack::inner(
            Methods::inner()?,
            &process.metrics,
            self.credentials.clone(),
            process.shutdown.clone(),
        );
        // Services are few, and may share a proxy's address.
        let seats = Seats::new(args.connections, args.connections);
        let guard = process.guard(seats, Door::Inner, self.credentials.tls()?);
        let incoming = listener::guard(listener::accepted(self.listener), guard);
        let fresh = task::spawn("internal reload", self.credentials.keep_fresh());
        let stack = stack.unary_deadline(args.unary_deadline);
        let served = server::serve(stack, self.routes, incoming).await;
        fresh.abort();
        Ok(served?)
    }
}

/// Where a process is called that only other services call.
#[derive(Debug)]
pub struct InnerListeners {
    /// By other services.
    pub inner: TcpListener,
    /// By operators.
    pub admin: TcpListener,
}

impl InnerListeners {
    /// Listens.
    pub async fn bind(inner: &InnerArgs, process: &ProcessArgs) -> io::Result<Self> {
        Ok(Self {
            inner: bind(inner.internal_listen).await?,
            admin: bind(process.admin_listen).await?,
        })
    }
}

/// Serves a process that only other services call, until it has drained: not ready,
/// calls ended, numbers last.
pub async fn serve_inner(
    args: &ProcessArgs,
    process: &Process,
    health: &Health,
    door: InnerDoor,
    admin: TcpListener,
) -> Result<(), ProcessError> {
    let served = CancellationToken::new();
    let admin = process.admin(admin, served.clone());
    let drain = {
        let (process, health) = (process.clone(), health.clone());
        task::spawn("drain", async move {
            // Those who call are told by health, and have others to call: no delay.
            process.shutdown.leaving().await;
            process.shutdown.trigger();
            process.close(&[&health]).await;
        })
    };
    process.open(&[health]).await;
    let result = door.serve(args, process).await;
    // It may have ended by itself.
    process.shutdown.trigger();
    drain.await?;
    served.cancel();
    admin.await?;
    tracing::info!("ended");
    result
}

/// Says on standard output that everything is up, and where.
#[expect(clippy::print_stdout, reason = "what whoever starts it waits for")]
pub fn print_ready(build: BuildInfo, places: &[(&str, String)]) {
    println!("{} {} is ready.\n", build.name, build.version);
    for (name, place) in places {
        println!("  {name:<9} {place}");
    }
    println!();
}

/// Listens; the error names the address.
pub async fn bind(addr: std::net::SocketAddr) -> io::Result<TcpListener> {
    listener::bind(addr).await
}
