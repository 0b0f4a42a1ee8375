//! What can go wrong for the caller of this crate.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::persistence::PersistenceError;
use crate::token::TokenError;

/// Why a call on the client failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The endpoint, or its TLS configuration, cannot be used.
    #[error("the endpoint cannot be used: {0}")]
    Endpoint(String),
    /// No token, and no source of tokens, was given.
    #[error("a token or a source of tokens is needed")]
    NoTokenSource,
    /// State could not be read or written.
    #[error(transparent)]
    Persistence(#[from] PersistenceError),
    /// The saved state belongs to another device than the one asked for.
    #[error("the saved state is that of device {saved}")]
    OtherDevice {
        /// The device of the saved state.
        saved: String,
    },
    /// The text is empty.
    #[error("the text is empty; 1 to 8192 bytes are allowed")]
    EmptyText,
    /// The text is too long.
    #[error("the text is {bytes} bytes long; 1 to 8192 are allowed")]
    TextTooLong {
        /// Its length.
        bytes: usize,
    },
    /// Too many messages are not settled.
    #[error("the outbox is full; wait until messages are stored")]
    OutboxFull,
    /// The message could not be saved, so it may or may not be sent.
    #[error("the message could not be saved: {0}")]
    NotSaved(String),
    /// The client was closed, or nobody reads its events any longer.
    #[error("the client is closed")]
    Closed,
    /// The source of tokens failed.
    #[error("no token: {0}")]
    Token(#[source] TokenError),
    /// The server, or the way to it, failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl ClientError {
    /// An answer that breaks the contract.
    pub(crate) fn malformed(call: &str) -> Self {
        Self::Call(CallError {
            code: Code::Internal,
            reason: String::new(),
            message: format!("the answer to {call} is malformed"),
            retry_after: None,
        })
    }
}

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code:?}: {message}")]
pub struct CallError {
    /// The kind of failure.
    pub code: Code,
    /// The stable reason (`google.rpc.ErrorInfo`); empty if the server gave none.
    pub reason: String,
    /// For a person.
    pub message: String,
    /// Waiting this long helps (`google.rpc.RetryInfo`).
    pub retry_after: Option<Duration>,
}

impl From<&Status> for CallError {
    fn from(status: &Status) -> Self {
        let reason = status.get_details_error_info().map(|info| info.reason);
        let retry = status.get_details_retry_info();
        Self {
            code: status.code(),
            reason: reason.unwrap_or_default(),
            message: status.message().to_owned(),
            retry_after: retry.and_then(|info| info.retry_delay),
        }
    }
}
