//! How a connection ends: a gRPC status, or what the client did, as a close code
//! and a reason. `docs/browser.md` lists them.
//!
//! A reason is the stable reason of the status, a constant text and, where waiting
//! helps, for how long. Nothing that a client sent stands in it, but where its JSON
//! cannot be read.

use std::time::Duration;

use duologue_runtime::refusal::{DOMAIN, Reason};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::frame::{Fault, MAX_MESSAGE_BYTES};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        /// Why a connection ends, as RFC 6455 and this server number it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(super) enum CloseCode {
            $($(#[$doc])* $name = $number,)*
        }

        impl CloseCode {
            /// Every code there is.
            #[cfg(test)]
            pub(super) const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The number as the metrics have it.
            pub(super) const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($number),)*
                }
            }
        }
    };
}

codes! {
    /// The client ended, and all is answered.
    Done = 1000;
    /// The server goes away.
    GoingAway = 1001;
    /// RFC 6455 is broken.
    Protocol = 1002;
    /// Text on the binary protocol, or the reverse.
    WrongKind = 1003;
    /// Not UTF-8, JSON or protobuf.
    Malformed = 1007;
    /// The contract is broken.
    Policy = 1008;
    /// A message above the limit.
    TooLarge = 1009;
    /// The server failed.
    Internal = 1011;
    /// The server cannot serve now.
    TryAgainLater = 1013;
    /// No valid token.
    Unauthenticated = 4401;
    /// The user may not do this.
    PermissionDenied = 4403;
    /// No `Hello` in time.
    HelloTimeout = 4408;
    /// A newer session of the device took over.
    Superseded = 4409;
    /// Not the history that the client knows.
    HistoryChanged = 4412;
    /// Too many calls or streams.
    RateLimited = 4429;
}

/// A close frame of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Close {
    pub(super) code: CloseCode,
    /// For the client; it may hold a piece of its JSON.
    pub(super) reason: String,
    /// For the log.
    pub(super) stable: &'static str,
}

impl Close {
    /// A plain reason, where the code says it all.
    pub(super) fn plain(code: CloseCode, text: &'static str) -> Self {
        Self {
            code,
            reason: text.to_owned(),
            stable: "",
        }
    }

    /// A stable reason, and what it means.
    pub(super) fn of(code: CloseCode, reason: Reason, text: &str) -> Self {
        Self {
            code,
            reason: format!("{reason}: {text}"),
            stable: reason.as_str(),
        }
    }

    /// A message that is not what the subprotocol carries.
    pub(super) fn malformed(why: &str) -> Self {
        Self::of(CloseCode::Malformed, Reason::InvalidField, why)
    }

    /// How a call ended.
    pub(super) fn of_status(status: &Status) -> Self {
        if status.code() == Code::Ok {
            return Self::plain(CloseCode::Done, "all is answered");
        }
        let details = status.get_error_details();
        let reason = reason(&details);
        let (code, text) = match reason {
            Some(reason) => of_reason(reason, &details),
            None => of_code(status.code()),
        };
        // A status without details comes from what lies between.
        let reason = reason.unwrap_or(if code == CloseCode::TryAgainLater {
            Reason::Unavailable
        } else if code == CloseCode::Unauthenticated {
            Reason::TokenInvalid
        } else {
            Reason::Internal
        });
        let mut close = Self::of(code, reason, text);
        if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
            close.reason.push_str(&after(delay));
        }
        close
    }
}

fn after(delay: Duration) -> String {
    format!("; retry after {} ms", delay.as_millis())
}

/// The stable reason of a status of ours.
fn reason(details: &ErrorDetails) -> Option<Reason> {
    let info = details.error_info().filter(|info| info.domain == DOMAIN)?;
    let known = Reason::ALL.iter();
    known.copied().find(|reason| reason.as_str() == info.reason)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "whatever is not named here goes by its gRPC code"
)]
fn of_reason(reason: Reason, details: &ErrorDetails) -> (CloseCode, &'static str) {
    match reason {
        Reason::ShuttingDown => (CloseCode::GoingAway, "the server goes away"),
        Reason::Superseded => (
            CloseCode::Superseded,
            "a newer session of the device took over",
        ),
        Reason::HistoryChanged | Reason::PositionAhead => (
            CloseCode::HistoryChanged,
            "the client knows another history",
        ),
        Reason::HelloTimeout => (CloseCode::HelloTimeout, "no hello in time"),
        Reason::RateLimited => (CloseCode::RateLimited, "too many calls or streams"),
        Reason::InvalidField if is_about_the_frame(details) => (
            CloseCode::Malformed,
            "a message is not a ConverseRequest in protobuf",
        ),
        Reason::TokenMissing => (CloseCode::Unauthenticated, "no token was given"),
        Reason::TokenExpired => (CloseCode::Unauthenticated, "the token has expired"),
        Reason::TooManySessions => (CloseCode::TryAgainLater, "too many open sessions"),
        Reason::TooManyDeferred => (CloseCode::TryAgainLater, "too many deferred messages"),
        Reason::SessionFull => (CloseCode::TryAgainLater, "connect again, with positions"),
        Reason::FirstFrameNotHello => (CloseCode::Policy, "the first frame must be Hello"),
        reason => of_code(reason.code()),
    }
}

/// Chat says so of a frame that it cannot decode: no field has this name.
fn is_about_the_frame(details: &ErrorDetails) -> bool {
    let fields = details.bad_request().map(|bad| &bad.field_violations);
    fields.is_some_and(|fields| fields.iter().any(|violation| violation.field == "frame"))
}

fn of_code(code: Code) -> (CloseCode, &'static str) {
    match code {
        Code::Ok => (CloseCode::Done, "all is answered"),
        Code::Unauthenticated => (CloseCode::Unauthenticated, "the token is not accepted"),
        Code::PermissionDenied => (CloseCode::PermissionDenied, "the user may not do this"),
        Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::NotFound
        | Code::AlreadyExists => (CloseCode::Policy, "the contract is broken"),
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Aborted => {
            (CloseCode::TryAgainLater, "try again later")
        }
        Code::Internal | Code::Unknown | Code::DataLoss | Code::Unimplemented | Code::Cancelled => {
            (CloseCode::Internal, "the server failed")
        }
    }
}

impl From<Fault> for Close {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Protocol(why) => Self::plain(CloseCode::Protocol, why),
            Fault::WrongKind => Self::plain(
                CloseCode::WrongKind,
                "duologue.v1.json carries text messages, duologue.v1.proto binary ones",
            ),
            Fault::TooLarge => Self::of(
                CloseCode::TooLarge,
                Reason::InvalidField,
                &format!("a message is longer than {MAX_MESSAGE_BYTES} bytes"),
            ),
            Fault::NotUtf8 => Self::malformed("a text is not UTF-8"),
        }
    }
}

#[cfg(test)]
mod tests {
    use duologue_runtime::refusal::Refusal;

    use super::super::frame::MAX_REASON_BYTES;
    use super::*;

    fn close(reason: Reason) -> Close {
        Close::of_status(&Refusal::new(reason, "secret").into_status())
    }

    #[test]
    fn every_reason_has_its_code_and_stands_in_the_close_frame() {
        for reason in Reason::ALL {
            let close = close(*reason);
            assert!(
                close.reason.starts_with(&format!("{reason}: ")),
                "{close:?}"
            );
            assert!(!close.reason.contains("secret"), "{close:?}");
            assert!(close.reason.len() <= MAX_REASON_BYTES - 30, "{close:?}");
        }
        let expected = [
            (Reason::ShuttingDown, 1001),
            (Reason::FirstFrameNotHello, 1008),
            (Reason::UnknownFrame, 1008),
            (Reason::InvalidField, 1008),
            (Reason::InvalidSyncToken, 1008),
            (Reason::Internal, 1011),
            (Reason::Unavailable, 1013),
            (Reason::SessionFull, 1013),
            (Reason::TooManySessions, 1013),
            (Reason::TooManyDeferred, 1013),
            (Reason::TokenMissing, 4401),
            (Reason::TokenInvalid, 4401),
            (Reason::TokenExpired, 4401),
            (Reason::PresenceNotVisible, 4403),
            (Reason::HelloTimeout, 4408),
            (Reason::Superseded, 4409),
            (Reason::HistoryChanged, 4412),
            (Reason::PositionAhead, 4412),
            (Reason::RateLimited, 4429),
        ];
        for (reason, code) in expected {
            assert_eq!(close(reason).code as u16, code, "{reason}");
        }
    }

    #[test]
    fn a_wait_is_told() {
        let refusal = Refusal::new(Reason::RateLimited, "slow").retry_after(Duration::from_secs(2));
        let close = Close::of_status(&refusal.into_status());
        assert_eq!(
            close.reason,
            "RATE_LIMITED: too many calls or streams; retry after 2000 ms"
        );
    }

    #[test]
    fn a_frame_that_cannot_be_decoded_is_malformed_and_a_wrong_field_is_not() {
        let of = |field: &str| Close::of_status(&Refusal::field(field, "is wrong").into_status());
        assert_eq!(of("frame").code, CloseCode::Malformed);
        assert_eq!(of("device_id").code, CloseCode::Policy);
    }

    #[test]
    fn a_status_of_what_lies_between_has_a_code_too() {
        let of = |status: Status| {
            let close = Close::of_status(&status);
            (close.code as u16, close.reason)
        };
        let text = |text: &str| text.to_owned();
        assert_eq!(of(Status::ok("")), (1000, text("all is answered")));
        assert_eq!(
            of(Status::unavailable("secret")),
            (1013, text("UNAVAILABLE: try again later"))
        );
        assert_eq!(
            of(Status::unknown("secret")),
            (1011, text("INTERNAL: the server failed"))
        );
    }

    #[test]
    fn metrics_name_the_numbers() {
        for code in CloseCode::ALL {
            assert_eq!(code.as_str(), (*code as u16).to_string());
        }
    }

    #[test]
    fn the_documentation_lists_every_code() {
        let text = include_str!("../../../docs/browser.md");
        for code in CloseCode::ALL {
            assert!(text.contains(&format!("| {} |", code.as_str())), "{code:?}");
        }
    }
}
