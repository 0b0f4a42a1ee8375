//! Errors to status: the one place where a refusal becomes a gRPC status.
//!
//! Every refusal has a stable [`Reason`] for programs and a message for people,
//! which names the limit and what to do. It must not carry internals: those are
//! logged where they are handled. `docs/errors.md` lists the reasons, and a test
//! compares it with [`Reason::ALL`].

pub mod services;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The domain of every reason, as `google.rpc.ErrorInfo` has it.
pub const DOMAIN: &str = "duologue";
/// Field violations that one status carries; further ones are left out, so that
/// it always fits a header list.
pub const MAX_VIOLATIONS: usize = 16;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $code:ident;)*) => {
        /// Why a call is refused: stable, for programs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The reason as `google.rpc.ErrorInfo` has it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// The gRPC code that always goes with this reason.
            pub const fn code(self) -> Code {
                match self {
                    $(Self::$name => Code::$code,)*
                }
            }
        }
    };
}

reasons! {
    /// A field is outside its rule; the details name it.
    InvalidField = "INVALID_FIELD", InvalidArgument;
    /// A page token that is garbled or belongs to another query.
    InvalidPageToken = "INVALID_PAGE_TOKEN", InvalidArgument;
    /// A sync token that is garbled or belongs to another user or history.
    InvalidSyncToken = "INVALID_SYNC_TOKEN", InvalidArgument;
    /// The first frame of a stream is not `Hello`.
    FirstFrameNotHello = "FIRST_FRAME_NOT_HELLO", InvalidArgument;
    /// A frame of a kind that the server does not know, or of no kind.
    UnknownFrame = "UNKNOWN_FRAME", InvalidArgument;
    /// No `Hello` came in time.
    HelloTimeout = "HELLO_TIMEOUT", DeadlineExceeded;
    /// The call did not end within its deadline.
    DeadlineExceeded = "DEADLINE_EXCEEDED", DeadlineExceeded;
    /// No bearer token was given.
    TokenMissing = "TOKEN_MISSING", Unauthenticated;
    /// The token is malformed, or not signed by a configured key.
    TokenInvalid = "TOKEN_INVALID", Unauthenticated;
    /// The token was valid once.
    TokenExpired = "TOKEN_EXPIRED", Unauthenticated;
    /// The caller of an internal method is not one of the services.
    NotAService = "NOT_A_SERVICE", Unauthenticated;
    /// The id belongs to a message with another body.
    MessageIdReused = "MESSAGE_ID_REUSED", AlreadyExists;
    /// Too many messages follow `after_seq` to search them all.
    AfterSeqTooOld = "AFTER_SEQ_TOO_OLD", OutOfRange;
    /// `after_seq` is above the head.
    AfterSeqAhead = "AFTER_SEQ_AHEAD", FailedPrecondition;
    /// A position is above the head.
    PositionAhead = "POSITION_AHEAD", FailedPrecondition;
    /// A cursor is above the head.
    CursorAboveHead = "CURSOR_ABOVE_HEAD", FailedPrecondition;
    /// The client knows another history than the server has.
    HistoryChanged = "HISTORY_CHANGED", FailedPrecondition;
    /// A token bucket is empty.
    RateLimited = "RATE_LIMITED", ResourceExhausted;
    /// The user or the address has as many sessions as it may have.
    TooManySessions = "TOO_MANY_SESSIONS", ResourceExhausted;
    /// The session has as many deferred messages as it may have.
    TooManyDeferred = "TOO_MANY_DEFERRED", ResourceExhausted;
    /// The session keeps the state of too many conversations: it must resync.
    SessionFull = "SESSION_FULL", Unavailable;
    /// Other writers were faster, too often in a row.
    Contended = "CONTENDED", Aborted;
    /// A newer session of the device took over.
    Superseded = "SUPERSEDED", Aborted;
    /// The caller may not see this user's presence.
    PresenceNotVisible = "PRESENCE_NOT_VISIBLE", PermissionDenied;
    /// A part that the call needs cannot be reached.
    Unavailable = "UNAVAILABLE", Unavailable;
    /// The server is shutting down.
    ShuttingDown = "SHUTTING_DOWN", Unavailable;
    /// The server has no such method.
    UnknownMethod = "UNKNOWN_METHOD", Unimplemented;
    /// A fault of the server.
    Internal = "INTERNAL", Internal;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal on its way to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    reason: Reason,
    /// For people; without it, the violations are the message.
    message: Option<String>,
    violations: Vec<(String, String)>,
    retry_after: Option<Duration>,
    metadata: BTreeMap<&'static str, String>,
}

impl Refusal {
    /// A refusal with a message for people.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            message: Some(message.into()),
            ..Self::without_message(reason)
        }
    }

    /// A field outside its rule. The description follows the field's name in the
    /// message: `Refusal::field("peer", "must not be empty")`.
    pub fn field(field: impl Into<String>, description: impl fmt::Display) -> Self {
        Self::without_message(Reason::InvalidField).and_field(field, description)
    }

    /// A fault of the server, of which the caller learns nothing more.
    pub fn internal() -> Self {
        Self::new(
            Reason::Internal,
            "the server failed to handle the call; it has logged why",
        )
    }

    /// Names a field that is at fault, or one more.
    #[must_use]
    pub fn and_field(mut self, field: impl Into<String>, description: impl fmt::Display) -> Self {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations
                .push((field.into(), description.to_string()));
        }
        self
    }

    /// Says how long to wait before trying again.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Adds a value for programs, such as the head.
    #[must_use]
    pub fn meta(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.metadata.insert(key, value.to_string());
        self
    }

    /// Why.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The message for people.
    pub fn message(&self) -> String {
        self.message.clone().unwrap_or_else(|| {
            let parts: Vec<_> = self
                .violations
                .iter()
                .map(|(field, description)| format!("{field} {description}"))
                .collect();
            parts.join("; ")
        })
    }

    /// How long to wait before trying again, if that helps.
    pub fn delay(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The status that the caller gets.
    pub fn into_status(self) -> Status {
        let message = self.message();
        let metadata: HashMap<String, String> = self
            .metadata
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        let mut details = ErrorDetails::with_error_info(self.reason.as_str(), DOMAIN, metadata);
        for (field, description) in self.violations {
            details.add_bad_request_violation(field, description);
        }
        if let Some(delay) = self.retry_after {
            details.set_retry_info(Some(delay));
        }
        Status::with_error_details(self.reason.code(), message, details)
    }

    fn without_message(reason: Reason) -> Self {
        Self {
            reason,
            message: None,
            violations: Vec::new(),
            retry_after: None,
            metadata: BTreeMap::new(),
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        refusal.into_status()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_in_screaming_snake_case_and_there_once() {
        let mut seen = std::collections::BTreeSet::new();
        for reason in Reason::ALL {
            let text = reason.as_str();
            assert!(seen.insert(text), "{text} is there twice");
            assert!(
                text.bytes()
                    .all(|byte| byte.is_ascii_uppercase() || byte == b'_'),
                "{text}"
            );
            assert_ne!(reason.code(), Code::Ok, "{text}");
        }
    }

    #[test]
    fn a_status_says_why_when_to_retry_and_what_it_is_about() {
        let status = Refusal::new(Reason::AfterSeqTooOld, "raise `after_seq`")
            .retry_after(Duration::from_millis(1_500))
            .meta("head", 400)
            .into_status();
        assert_eq!(status.code(), Code::OutOfRange);
        assert_eq!(status.message(), "raise `after_seq`");
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(info.reason, "AFTER_SEQ_TOO_OLD");
        assert_eq!(info.domain, "duologue");
        assert_eq!(info.metadata["head"], "400");
        let delay = details.retry_info().unwrap().retry_delay;
        assert_eq!(delay, Some(Duration::from_millis(1_500)));
        assert!(details.bad_request().is_none());
    }

    #[test]
    fn every_field_at_fault_is_named_in_the_details_and_the_message() {
        let status = Refusal::field("peer", "must not be empty")
            .and_field("body.text", "is 8193 bytes long; at most 8192 are allowed")
            .into_status();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(
            status.message(),
            "peer must not be empty; body.text is 8193 bytes long; at most 8192 are allowed"
        );
        let details = status.get_error_details();
        let fields: Vec<_> = details
            .bad_request()
            .unwrap()
            .field_violations
            .iter()
            .map(|violation| violation.field.as_str())
            .collect();
        assert_eq!(fields, ["peer", "body.text"]);
        assert!(details.retry_info().is_none());
    }

    #[test]
    fn a_status_carries_a_bounded_number_of_violations() {
        let refusal = (0..1_000).fold(Refusal::field("first", "is wrong"), |refusal, index| {
            refusal.and_field(format!("positions[{index}]"), "is wrong")
        });
        let details = refusal.into_status().get_error_details();
        let violations = &details.bad_request().unwrap().field_violations;
        assert_eq!(violations.len(), MAX_VIOLATIONS);
    }
}
