//! What the driver waits for.

use std::future::Future;
use std::pin::Pin;

use duologue_proto::chat::v1 as wire;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Streaming;

use super::Command;
use crate::outbox::Scan;
use crate::session::LinkEnd;
use crate::transport::{Link, ended};

pub(super) type Page = Option<wire::ListMessagesResponse>;
pub(super) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What comes first.
pub(super) enum Step {
    /// Nobody reads events any longer.
    Unread,
    HandedOver,
    /// An event or a frame went out, or time has passed.
    Again,
    /// The stream takes no more frames; its end is about to come.
    UpClosed,
    Opened(Result<Link, LinkEnd>),
    Received(Result<wire::ConverseResponse, LinkEnd>),
    StreamEnded,
    Scanned(Scan, Page),
    /// None: every handle is gone.
    Command(Option<Command>),
}

/// The stream from the server.
pub(super) enum Down {
    None,
    Opening(BoxFuture<Result<Link, LinkEnd>>),
    Open(Box<Streaming<wire::ConverseResponse>>),
}

impl Down {
    pub(super) async fn next(&mut self) -> Step {
        match self {
            Self::None => std::future::pending().await,
            Self::Opening(opening) => Step::Opened(opening.await),
            Self::Open(down) => match down.message().await {
                Ok(Some(frame)) => Step::Received(Ok(frame)),
                Ok(None) => Step::StreamEnded,
                Err(status) => Step::Received(Err(ended(&status))),
            },
        }
    }
}

pub(super) async fn next_page(scan: &mut Option<(Scan, BoxFuture<Page>)>) -> Step {
    let Some((_, page)) = scan else {
        return std::future::pending().await;
    };
    let page = page.await;
    match scan.take() {
        Some((scan, _)) => Step::Scanned(scan, page),
        None => Step::Again,
    }
}

/// Room for one frame; none if the stream takes no more.
pub(super) async fn reserve<T>(up: Option<&mpsc::Sender<T>>) -> Option<mpsc::Permit<'_, T>> {
    match up {
        Some(up) => up.reserve().await.ok(),
        None => std::future::pending().await,
    }
}

pub(super) async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
