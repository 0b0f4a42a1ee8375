//! The gateway as a process of its own, before the nodes of chat.

use std::sync::Arc;

use duologue_runtime::auth::DevKey;
use duologue_runtime::clock::{SystemClock, SystemRandom};
use duologue_runtime::inner::Credentials;
use duologue_runtime::listener::{self, Tls};
use duologue_runtime::metrics::BuildInfo;
use duologue_runtime::process::{Process, ProcessError, bind, print_ready};
use duologue_runtime::server::{
    Door, Methods, PROXY_CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES, Stack,
};
use duologue_runtime::shutdown::Shutdown;
use duologue_runtime::task;
use duologue_runtime::upstream::{
    Tcp, Upstream as Nodes, UpstreamConfig, UpstreamMetrics, UpstreamParts, Windows,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

pub use crate::config::ServeConfig;
use crate::nodes::ChatNodes;
use crate::websocket::{WebSocketConfig, WebSockets};
use crate::{DevTokens, Gateway, GatewayParts, Upstream};

/// Which program this is.
pub const BUILD: BuildInfo = BuildInfo::of("duologue-gateway");

/// Where a process is called.
#[derive(Debug)]
pub struct Listeners {
    /// By browsers.
    pub web: TcpListener,
    /// By operators.
    pub admin: TcpListener,
}

/// Listens, and serves until a signal.
pub async fn run(config: ServeConfig, shutdown: Shutdown) -> Result<(), ProcessError> {
    let listeners = Listeners {
        web: bind(config.web.web_listen).await?,
        admin: bind(config.process.admin_listen).await?,
    };
    serve(config, listeners, shutdown).await
}

/// Serves until the process has drained, in this order: not ready, browsers sent to
/// another gateway, calls ended, numbers last.
pub async fn serve(
    config: ServeConfig,
    listeners: Listeners,
    shutdown: Shutdown,
) -> Result<(), ProcessError> {
    config.warn();
    let process = Process::new(BUILD, shutdown);
    let nodes = nodes(&config, &process)?;
    let gateway = gateway(&config, &process, &nodes, &listeners.web)?;
    let tls = config.door.tls()?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let places = [
        ("web", format!("{scheme}://{}", listeners.web.local_addr()?)),
        ("admin", format!("http://{}", listeners.admin.local_addr()?)),
    ];
    let served = CancellationToken::new();
    let admin = process.admin(listeners.admin, served.clone());
    let chat = nodes.keep_readiness(process.readiness.register("chat"));
    let chat = task::spawn("chat readiness", chat);
    let drain = {
        let process = process.clone();
        task::spawn("drain", async move { process.close(&[]).await })
    };
    process.open(&[]).await;
    print_ready(BUILD, &places);
    web(&config, &process, gateway, listeners.web, tls).await;
    // It may have ended by itself.
    process.shutdown.trigger();
    drain.await?;
    chat.abort();
    served.cancel();
    admin.await?;
    tracing::info!("ended");
    Ok(())
}

/// The nodes, which see the user's own token and none of ours.
fn nodes(config: &ServeConfig, process: &Process) -> Result<Nodes, ProcessError> {
    let parts = UpstreamParts {
        credentials: Credentials::of_users(config.chat_tls_ca.as_deref())?,
        methods: Arc::new(Methods::standard()?),
        metrics: UpstreamMetrics::new(&process.metrics),
        network: Arc::new(Tcp),
        random: Arc::new(SystemRandom),
    };
    let mut nodes = UpstreamConfig::new("chat", config.chat.clone());
    nodes.deadline = config.process.unary_deadline;
    // All users behind this gateway share a connection: none of them may fill it.
    nodes.windows = Windows {
        stream: STREAM_WINDOW_BYTES,
        connection: PROXY_CONNECTION_WINDOW_BYTES,
    };
    Ok(Nodes::start(nodes, parts)?)
}

fn gateway(
    config: &ServeConfig,
    process: &Process,
    nodes: &Nodes,
    web: &TcpListener,
) -> Result<Gateway, ProcessError> {
    let shutdown = process.shutdown.clone();
    let stack = Stack::passing(Methods::standard()?, &process.metrics, shutdown.clone())
        .unary_deadline(config.process.unary_deadline);
    let chat = Routes::new(ChatNodes::new(nodes.channel(), shutdown));
    let upstream = Upstream::new(stack.service(chat));
    let sockets = WebSockets::new(WebSocketConfig {
        upstream: upstream.clone(),
        metrics: process.metrics.clone(),
        max_waiting_per_address: config.web.waiting_per_address,
    })?;
    let key = config.dev_key.as_deref().map(DevKey::load_or_create);
    let key = key.transpose()?.map(Arc::new);
    Ok(Gateway::new(GatewayParts {
        upstream,
        sockets,
        origins: config.web.origins(web.local_addr()?, config.door.has_tls()),
        proxies: config.door.proxies(),
        requests_per_address: config.web.requests_per_address,
        dev_tokens: key.map(|key| DevTokens::new(key, Arc::new(SystemClock))),
    }))
}

/// The door for browsers.
async fn web(
    config: &ServeConfig,
    process: &Process,
    gateway: Gateway,
    listener: TcpListener,
    tls: Option<Tls>,
) {
    let fresh = tls
        .as_ref()
        .map(|tls| task::spawn("tls reload", tls.keep_fresh()));
    let seats = config.door.seats(config.process.connections);
    let tls = tls.as_ref().map(Tls::with_http1);
    let guard = process.guard(seats, Door::Web, tls);
    let incoming = listener::guard(crate::accepted(listener), guard);
    crate::server::serve(gateway, incoming, process.shutdown.clone()).await;
    if let Some(fresh) = fresh {
        fresh.abort();
    }
}
