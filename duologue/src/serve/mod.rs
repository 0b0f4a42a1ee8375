//! `duologue serve`: the whole system in one process.
//!
//! It wires chat's ports to history and presence by calls of functions, and owns
//! the order in which things start and end.

pub(crate) mod banner;
pub(crate) mod config;
mod doors;
mod keys;
mod store;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{ArgMatches, CommandFactory as _};
use duologue_chat::{Chat, Parts};
use duologue_history::history::History;
use duologue_presence::Presence;
use duologue_proto::ids::UserId;
use duologue_runtime::admin::{Admin, Readiness, ReadinessHandle};
use duologue_runtime::clock::{Clock, SystemClock, SystemRandom};
use duologue_runtime::listener::Tls;
use duologue_runtime::metrics::{BuildInfo, Metrics};
use duologue_runtime::rate::RateLimiter;
use duologue_runtime::server::{self, Health, Methods, Stack};
use duologue_runtime::shutdown::Shutdown;
use duologue_runtime::{process, task, telemetry};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use self::config::ServeArgs;
use self::doors::{Doors, Listeners};
use self::keys::Keys;
use crate::cli::Cli;
use crate::ports::{LocalHistory, LocalPresence};

const BUILD: BuildInfo = BuildInfo::of(env!("CARGO_PKG_NAME"));

/// Everything that outlives the start.
struct System {
    chat: Chat,
    history: History,
    health: Health,
    readiness: Readiness,
    serving: ReadinessHandle,
    store: ReadinessHandle,
    metrics: Metrics,
    shutdown: Shutdown,
}

/// Serves until a signal, or only checks the configuration.
pub(crate) async fn run(args: ServeArgs, matches: &ArgMatches) -> anyhow::Result<()> {
    // Before anything is made: what is refused leaves nothing behind.
    args.public.check_exposure()?;
    args.web
        .check_exposure(&args.public.door, args.public.uses_dev_key())?;
    args.process.check().map_err(anyhow::Error::from_boxed)?;
    let tls = args.public.door.tls()?;
    let telemetry = telemetry::init(&args.process.telemetry(BUILD))?;
    let done = check_or_serve(args, matches, tls).await;
    telemetry.finish().await;
    done
}

async fn check_or_serve(
    args: ServeArgs,
    matches: &ArgMatches,
    tls: Option<Tls>,
) -> anyhow::Result<()> {
    if args.process.check_config {
        Keys::check(&args)?;
        banner::print_config(matches);
        return Ok(());
    }
    let keys = Keys::load(&args)?;
    process::warn(&Cli::command());
    args.public.warn();
    Box::pin(serve(args, keys, tls)).await
}

async fn serve(args: ServeArgs, keys: Keys, tls: Option<Tls>) -> anyhow::Result<()> {
    let listeners = Listeners::bind(&args).await?;
    let places = listeners.places()?;
    let shutdown = args.process.shutdown();
    shutdown
        .install_signals()
        .context("cannot listen to signals")?;
    let system = start(&args, shutdown).await?;
    let stack = stack(&args, &keys, &system)?;
    let chat = Routes::new(system.chat.server());
    let doors = Doors {
        routes: routes(&args, &system)?,
        gateway: doors::gateway(&args, &keys, &stack, chat, places.web, &system.metrics)?,
        stack,
        seats: args.public.door.seats(args.process.connections),
        tls,
    };
    // Before anybody is told where: a caller who waits for that finds it open.
    system.open().await?;
    banner::print_ready(&args, &keys, &system.history, places).await;
    system.serve(&args, doors, listeners).await
}

/// Opens the store and starts the three services.
async fn start(args: &ServeArgs, shutdown: Shutdown) -> anyhow::Result<System> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let metrics = Metrics::new(BUILD, clock.now());
    let store = store::open(args, Arc::clone(&clock)).await?;
    let history = History::new(store, Arc::clone(&clock));
    let presence = Presence::in_one_process(Arc::clone(&clock));
    let config = args.chat.config(args.public.uses_dev_key());
    let parts = Parts {
        history: Arc::new(LocalHistory(history.clone())),
        presence: Arc::new(LocalPresence(presence)),
        relay: None,
        clock,
        random: Arc::new(SystemRandom),
        metrics: metrics.clone(),
    };
    let chat = Chat::start(config, parts)
        .await
        .context("history does not answer")?;
    let health = Health::new(&["duologue.chat.v1.ChatService"]).await;
    let readiness = Readiness::default();
    Ok(System {
        chat,
        history,
        health,
        serving: readiness.register("serving"),
        store: readiness.register("store"),
        readiness,
        metrics,
        shutdown,
    })
}

/// The stack around every call.
fn stack(args: &ServeArgs, keys: &Keys, system: &System) -> anyhow::Result<Stack> {
    let methods = Methods::standard().context("the committed descriptors cannot be read")?;
    let verifier = keys.verifier(args, Arc::new(SystemClock));
    let authenticate = server::authenticate_by_token(verifier);
    let stack = Stack::new(
        methods,
        &system.metrics,
        authenticate,
        system.shutdown.clone(),
    );
    let calls = RateLimiter::<UserId>::new(args.public.calls);
    Ok(stack
        .behind(args.public.door.proxies())
        .admit(server::admit_by_rate(calls))
        .unary_deadline(args.process.unary_deadline))
}

fn routes(args: &ServeArgs, system: &System) -> anyhow::Result<Routes> {
    let routes = Routes::new(system.chat.server());
    let routes = system.health.add_to(routes);
    if args.public.no_reflection {
        return Ok(routes);
    }
    server::add_reflection(routes).context("the committed descriptors cannot be read")
}

impl System {
    /// Serves until the end of the drain, in this order: not ready, sessions moved
    /// on, calls ended, admin last.
    async fn serve(
        self,
        args: &ServeArgs,
        doors: Doors,
        listeners: Listeners,
    ) -> anyhow::Result<()> {
        let watch = task::spawn("store watch", self.watch_store());
        let fresh = doors
            .tls
            .as_ref()
            .map(|tls| task::spawn("tls reload", tls.keep_fresh()));
        let served = CancellationToken::new();
        let Listeners { grpc, web, admin } = listeners;
        let admin = self.admin(admin, served.clone());
        let drain = self.drain(args.chat.drain_spread);
        // Both doors may have ended by themselves, and have told the rest.
        let result = doors.serve(grpc, web, &self.metrics, &self.shutdown).await;
        drain.await.context("the drain failed")?;
        served.cancel();
        admin.await.context("the admin listener failed")?;
        watch.abort();
        if let Some(fresh) = fresh {
            fresh.abort();
        }
        tracing::info!("ended");
        result
    }
}

impl System {
    /// Takes calls from now on.
    async fn open(&self) -> anyhow::Result<()> {
        self.history
            .writable()
            .context("the store does not write")?;
        self.store.set_ready();
        self.serving.set_ready();
        self.health.serve(&self.shutdown).await;
        Ok(())
    }

    /// Reports a store that has stopped writing: for good, so the process must be
    /// restarted, while reads go on.
    fn watch_store(&self) -> impl Future<Output = ()> + Send + use<> {
        /// How soon a stopped store shows in readiness and health.
        const INTERVAL: Duration = Duration::from_secs(1);
        let (history, health) = (self.history.clone(), self.health.clone());
        let readiness = self.store.clone();
        async move {
            loop {
                tokio::time::sleep(INTERVAL).await;
                if let Err(error) = history.writable() {
                    readiness.set_failing(error.to_string());
                    return health.set(false).await;
                }
            }
        }
    }

    fn admin(&self, listener: TcpListener, served: CancellationToken) -> JoinHandle<()> {
        let admin = Admin {
            build: BUILD,
            metrics: self.metrics.clone(),
            readiness: self.readiness.clone(),
        };
        task::spawn("admin", admin.serve(listener, served.cancelled_owned()))
    }

    /// Moves the sessions on when the process is told to end, for at most the
    /// grace period.
    fn drain(&self, spread: Duration) -> JoinHandle<()> {
        let (chat, health, shutdown) = (
            self.chat.clone(),
            self.health.clone(),
            self.shutdown.clone(),
        );
        let serving = self.serving.clone();
        task::spawn("drain", async move {
            shutdown.leaving().await;
            serving.set_failing("draining");
            health.set(false).await;
            shutdown.draining().await;
            let spread = shutdown.within(spread);
            tokio::select! {
                biased;
                () = chat.drain(spread) => tracing::info!("every session has ended"),
                () = shutdown.stopped() => {
                    tracing::warn!(sessions = chat.sessions(), "the grace period is over");
                }
            }
        })
    }
}
