//! Where the process is called: by native clients, by browsers, and by operators.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use duologue_gateway::websocket::{WebSocketConfig, WebSockets};
use duologue_gateway::{DevTokens, Gateway, GatewayParts, Upstream};
use duologue_runtime::clock::SystemClock;
use duologue_runtime::listener::{self, GuardConfig, Seats, Tls};
use duologue_runtime::metrics::Metrics;
use duologue_runtime::server::{self, Door, Stack};
use duologue_runtime::shutdown::Shutdown;
use tokio::net::TcpListener;
use tonic::service::Routes;

use super::config::ServeArgs;
use super::keys::Keys;

/// What the process listens on.
pub(super) struct Listeners {
    pub(super) grpc: TcpListener,
    pub(super) web: TcpListener,
    pub(super) admin: TcpListener,
}

/// Where that is.
#[derive(Clone, Copy)]
pub(super) struct Places {
    pub(super) grpc: SocketAddr,
    pub(super) web: SocketAddr,
    pub(super) admin: SocketAddr,
}

impl Listeners {
    pub(super) async fn bind(args: &ServeArgs) -> anyhow::Result<Self> {
        Ok(Self {
            grpc: bind(args.public.grpc_listen).await?,
            web: bind(args.web.web_listen).await?,
            admin: bind(args.process.admin_listen).await?,
        })
    }

    pub(super) fn places(&self) -> anyhow::Result<Places> {
        Ok(Places {
            grpc: self.grpc.local_addr()?,
            web: self.web.local_addr()?,
            admin: self.admin.local_addr()?,
        })
    }
}

async fn bind(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    listener::bind(addr)
        .await
        .with_context(|| format!("cannot listen on {addr}"))
}

/// The doors for users, which share the stack, and the places for connections.
pub(super) struct Doors {
    pub(super) stack: Stack,
    /// What native clients reach.
    pub(super) routes: Routes,
    /// What browsers reach.
    pub(super) gateway: Gateway,
    pub(super) seats: Seats,
    pub(super) tls: Option<Tls>,
}

impl Doors {
    /// Serves both until the process has drained. None outlives the other.
    pub(super) async fn serve(
        self,
        grpc: TcpListener,
        web: TcpListener,
        metrics: &Metrics,
        shutdown: &Shutdown,
    ) -> anyhow::Result<()> {
        let config = |door, tls| GuardConfig {
            seats: self.seats.clone(),
            tls,
            on_event: server::count_connections(metrics, door),
        };
        let with_http1 = self.tls.as_ref().map(Tls::with_http1);
        let web = duologue_gateway::accepted(web);
        let web = listener::guard(web, config(Door::Web, with_http1));
        let grpc = listener::accepted(grpc);
        let grpc = listener::guard(grpc, config(Door::Public, self.tls.clone()));
        let web = async {
            duologue_gateway::serve(self.gateway, web, shutdown.clone()).await;
            shutdown.trigger();
        };
        let grpc = async {
            let served = server::serve_behind(self.stack, self.routes, grpc).await;
            shutdown.trigger();
            served
        };
        let (served, ()) = tokio::join!(grpc, web);
        served.context("the server failed")
    }
}

/// The gateway, which calls chat inside the same stack as native clients do.
pub(super) fn gateway(
    args: &ServeArgs,
    keys: &Keys,
    stack: &Stack,
    chat: Routes,
    web: SocketAddr,
    metrics: &Metrics,
) -> anyhow::Result<Gateway> {
    args.web.warn();
    let key = keys.development.clone();
    let upstream = Upstream::new(stack.service(chat));
    let sockets = WebSockets::new(WebSocketConfig {
        upstream: upstream.clone(),
        metrics: metrics.clone(),
        max_waiting_per_address: args.web.waiting_per_address,
    })?;
    Ok(Gateway::new(GatewayParts {
        upstream,
        sockets,
        origins: args.web.origins(web, args.public.door.has_tls()),
        proxies: args.public.door.proxies(),
        requests_per_address: args.web.requests_per_address,
        dev_tokens: key.map(|key| DevTokens::new(key, Arc::new(SystemClock))),
    }))
}
