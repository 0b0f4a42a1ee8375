//! What an application does with a client, whichever it is: the Rust client in this
//! process, or the TypeScript client in a process of its own.

use anyhow::{Context as _, Result};
use duologue_client::{Client, ClientError, Events, Seq, UserId};

use super::node::{self, Node};
use crate::event::Cursor;

/// A client that runs.
pub(super) enum App {
    Rust(Client, Events),
    Node(Node),
}

/// What a client tells.
pub(super) enum Told {
    Rust(duologue_client::Event),
    Node(node::Event),
}

impl App {
    /// Sends; the message's id, or none if the outbox is full.
    pub(super) async fn send(&mut self, peer: &str, text: String) -> Result<Option<String>> {
        match self {
            Self::Rust(client, _) => match client.send(&UserId::parse(peer)?, text).await {
                Err(ClientError::OutboxFull) => Ok(None),
                sent => Ok(Some(sent?.to_string())),
            },
            Self::Node(node) => node.send(peer, text).await,
        }
    }

    /// What the application can say of this cursor: in TypeScript, what is delivered
    /// follows what was taken.
    pub(super) fn sayable(&self, cursor: Cursor) -> Cursor {
        match self {
            Self::Rust(..) => cursor,
            Self::Node(_) => Cursor {
                delivered: 0,
                read: cursor.read,
            },
        }
    }

    /// Moves the cursor.
    pub(super) async fn mark(&mut self, peer: &str, cursor: Cursor) -> Result<()> {
        match self {
            Self::Rust(client, _) => {
                let peer = UserId::parse(peer)?;
                client.mark_delivered(&peer, Seq(cursor.delivered)).await?;
                if cursor.read > 0 {
                    client.mark_read(&peer, Seq(cursor.read)).await?;
                }
            }
            Self::Node(node) => node.mark_read(peer, cursor.read).await?,
        }
        Ok(())
    }

    pub(super) async fn reconnect(&mut self) -> Result<()> {
        match self {
            Self::Rust(client, _) => Ok(client.reconnect().await?),
            Self::Node(node) => node.reconnect().await,
        }
    }

    /// The next event; whoever asks has dealt with the one before. May be cancelled
    /// without losing one.
    pub(super) async fn next(&mut self) -> Result<Told> {
        const ENDED: &str = "a client has ended";
        match self {
            Self::Rust(_, events) => events.next().await.map(Told::Rust).context(ENDED),
            Self::Node(node) => node.next().await.map(Told::Node).context(ENDED),
        }
    }

    /// Ends it without a word.
    pub(super) async fn end(self) -> Result<()> {
        match self {
            Self::Rust(client, events) => drop((client, events)),
            Self::Node(node) => node.kill().await?,
        }
        Ok(())
    }
}
