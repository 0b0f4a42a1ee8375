//! What an operator and an orchestrator ask: does it live, may it get calls,
//! what are its numbers, which build is it.
//!
//! HTTP/1.1 on a listener of its own, which must not be reachable for users:
//! there is no authentication. It changes nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use http::{StatusCode, header};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::listener::{Accepted, accepted};
use crate::metrics::{BuildInfo, CONTENT_TYPE, Metrics};
use crate::task;

/// Connections at the same time; further ones wait to be accepted.
pub const MAX_CONNECTIONS: usize = 32;
/// How long the head of a request may take, and a connection may be idle.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
pub const MAX_REQUEST_HEAD_BYTES: usize = 16 * 1024;
/// A connection ends after this long, whatever it does.
pub const MAX_CONNECTION_AGE: Duration = Duration::from_mins(1);
/// How long requests under way may take at the end.
pub const GRACE: Duration = Duration::from_secs(1);

/// Whether the process may get calls: every registered check must be ready.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, Option<String>>>>);

impl Readiness {
    /// Adds a check, which is failing until it is first set. Names are unique: a
    /// second check of the same name takes the place of the first.
    pub fn register(&self, name: &'static str) -> ReadinessHandle {
        let handle = ReadinessHandle {
            readiness: self.clone(),
            name,
        };
        handle.set_failing("starting");
        handle
    }

    /// What fails, by check; empty if the process may get calls.
    pub fn failing(&self) -> Vec<(&'static str, String)> {
        self.lock()
            .iter()
            .filter_map(|(name, failing)| Some((*name, failing.clone()?)))
            .collect()
    }

    fn set(&self, name: &'static str, failing: Option<String>) {
        let before = self.lock().insert(name, failing.clone());
        if before.as_ref() == Some(&failing) {
            return;
        }
        if let Some(reason) = failing {
            tracing::warn!(check = name, reason, "not ready");
        } else {
            tracing::info!(check = name, "ready");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, Option<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One check's side of [`Readiness`].
#[derive(Debug, Clone)]
pub struct ReadinessHandle {
    readiness: Readiness,
    name: &'static str,
}

impl ReadinessHandle {
    /// The check passes.
    pub fn set_ready(&self) {
        self.readiness.set(self.name, None);
    }

    /// The check fails, for a reason that an operator understands.
    pub fn set_failing(&self, reason: impl Into<String>) {
        self.readiness.set(self.name, Some(reason.into()));
    }
}

/// What the endpoints show.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Which build runs.
    pub build: BuildInfo,
    /// Its numbers.
    pub metrics: Metrics,
    /// Its checks.
    pub readiness: Readiness,
}

impl Admin {
    /// Serves until `stop`. It should be stopped last, so that a process can be
    /// watched while it drains.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()> + Send) {
        let router = self.router();
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let stopping = CancellationToken::new();
        let accept = async {
            let mut incoming = pin!(accepted(listener));
            // It fails only if the semaphore is closed, which it never is.
            while let Ok(permit) = Arc::clone(&room).acquire_owned().await
                && let Some(Accepted { io, .. }) = incoming.next().await
            {
                let connection = connection(io, router.clone(), stopping.clone(), permit);
                task::spawn("admin connection", connection);
            }
        };
        tokio::select! {
            biased;
            () = stop => {}
            () = accept => {}
        }
        stopping.cancel();
        // All room is free when all are done; each takes its grace at most.
        let all = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
        let _ = room.acquire_many(all).await;
    }

    fn router(self) -> Router {
        Router::new()
            .route("/livez", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .route("/buildinfo", get(buildinfo))
            .with_state(self)
    }
}

async fn readyz(State(admin): State<Admin>) -> (StatusCode, String) {
    let failing = admin.readiness.failing();
    if failing.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    let mut text = String::new();
    for (name, reason) in failing {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name}: {reason}");
    }
    (StatusCode::SERVICE_UNAVAILABLE, text)
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    match admin.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn buildinfo(State(admin): State<Admin>) -> impl IntoResponse {
    let build = serde_json::json!(admin.build);
    let json = [(header::CONTENT_TYPE, "application/json")];
    (json, format!("{build}\n"))
}

async fn connection(
    stream: TcpStream,
    router: Router,
    stopping: CancellationToken,
    _permit: OwnedSemaphorePermit,
) {
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_buf_size(MAX_REQUEST_HEAD_BYTES);
    let service = TowerToHyperService::new(router);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let until_stopped = tokio::time::timeout(MAX_CONNECTION_AGE, async {
        tokio::select! {
            biased;
            () = stopping.cancelled() => false,
            result = &mut serving => {
                log_end(result);
                true
            }
        }
    });
    let is_over = until_stopped.await.unwrap_or(false);
    if !is_over {
        serving.as_mut().graceful_shutdown();
        if let Ok(result) = tokio::time::timeout(GRACE, serving).await {
            log_end(result);
        }
    }
}

fn log_end(result: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = result {
        tracing::debug!(%error, "admin connection failed");
    }
}
