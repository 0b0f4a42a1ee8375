//! Rust client of Duologue, a one-on-one chat.
//!
//! The client keeps one session with the server and gives the application a
//! stream of typed [`Event`]s. What it takes off the application's hands:
//!
//! - **Reconnecting**, with exponential backoff and full jitter, after what the
//!   server asks to wait.
//! - **Sending exactly once.** [`Client::send`] returns when the message is in the
//!   outbox; from there it is sent again, with the same id, until
//!   [`Event::Stored`] or [`Event::Rejected`]. With [`FilePersistence`] that
//!   holds over restarts of the program too.
//! - **Missing nothing.** After any absence the session goes on where the
//!   application stopped taking events. Messages of one conversation come in
//!   order and without gaps; [`Event::CaughtUp`] tells when nothing is lacking.
//! - **Receipts.** The delivered cursor follows what was taken from [`Events`];
//!   [`Client::mark_read`] moves the read cursor.
//!
//! Asking [`Events`] for the next event says that the one before is dealt with.
//! A program that is killed in between is told that one again.
//!
//! ```no_run
//! use duologue_client::{Client, Content, Event, FilePersistence, UserId};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let (client, mut events) = Client::builder("http://127.0.0.1:50051")
//!     .token("a token of alice")
//!     .persistence(FilePersistence::open("alice.json")?)
//!     .start()
//!     .await?;
//! let bob = UserId::parse("bob")?;
//! let id = client.send(&bob, "hello").await?;
//! while let Some(event) = events.next().await {
//!     match event {
//!         Event::Stored(stored) if stored.message_id == id => println!("stored"),
//!         Event::Message(message) => {
//!             if let Content::Text(text) = &message.content {
//!                 println!("{}: {text}", message.sender);
//!             }
//!             client.mark_read(&message.peer, message.seq).await?;
//!         }
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Inside, every decision is made by a pure state machine (`session`) that one
//! task (`driver`) feeds and obeys.

mod backoff;
mod calls;
mod client;
mod conversations;
mod driver;
mod environment;
mod error;
mod event;
pub mod limits;
mod outbox;
mod persistence;
mod saved;
mod session;
mod token;
mod transport;

pub use calls::{Conversation, MessagesPage, MessagesQuery, Page};
pub use client::{Builder, Client, Events};
pub use duologue_proto::ids::{DeviceId, InvalidId, MessageId, Seq, UnixMillis, UserId};
pub use duologue_proto::message::Cursor;
pub use environment::{Environment, SystemEnvironment};
pub use error::{CallError, ClientError};
pub use event::{
    Content, DeferredReason, Event, Message, Presence, Rejected, RejectedReason, Session,
    StopReason, Stored,
};
pub use persistence::{FilePersistence, MemoryPersistence, Persistence, PersistenceError};
pub use saved::{Saved, SavedConversation, SavedMessage};
pub use token::{TokenError, TokenFuture, TokenSource};
