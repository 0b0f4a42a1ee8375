//! Why one service cannot answer another: as a refusal, and back from the status,
//! without loss.
//!
//! Whatever else ends a call is "not available" to the caller: whether it took
//! effect is not known, and every call between services may be repeated.

use std::time::Duration;

use duologue_proto::history::HistoryError;
use duologue_proto::ids::Seq;
use duologue_proto::presence::PresenceError;
use duologue_proto::wire::InvalidField;
use tonic::Status;
use tonic_types::{ErrorDetails, ErrorInfo, StatusExt as _};

use super::{DOMAIN, Reason, Refusal};

/// No service is left alone for longer, whatever it says.
pub const MAX_RETRY_AFTER: Duration = Duration::from_mins(10);

/// The key of the head in the metadata of a refusal.
const HEAD: &str = "head";

impl From<InvalidField> for Refusal {
    fn from(fault: InvalidField) -> Self {
        Self::field(fault.field, fault.rule)
    }
}

/// History's refusal of a service's call.
pub fn history_refusal(error: &HistoryError) -> Refusal {
    let message = error.to_string();
    match error {
        HistoryError::Unavailable { retry_after } => unavailable(message, *retry_after),
        HistoryError::InvalidSyncToken => Refusal::new(Reason::InvalidSyncToken, message),
        HistoryError::InvalidPageToken => Refusal::new(Reason::InvalidPageToken, message),
        HistoryError::PositionAhead { head } => {
            Refusal::new(Reason::PositionAhead, message).meta(HEAD, head)
        }
    }
}

/// What history's refusal says.
pub fn history_error(status: &Status) -> HistoryError {
    let details = status.get_error_details();
    let info = said(&details);
    let reason = info.map_or("", |info| info.reason.as_str());
    if reason == Reason::InvalidSyncToken.as_str() {
        return HistoryError::InvalidSyncToken;
    }
    if reason == Reason::InvalidPageToken.as_str() {
        return HistoryError::InvalidPageToken;
    }
    let head = info.and_then(|info| info.metadata.get(HEAD)?.parse().ok());
    if let Some(head) = head.filter(|_| reason == Reason::PositionAhead.as_str()) {
        return HistoryError::PositionAhead { head: Seq(head) };
    }
    HistoryError::Unavailable {
        retry_after: retry_after(status),
    }
}

/// Presence's refusal of a service's call.
pub fn presence_refusal(error: &PresenceError) -> Refusal {
    let message = error.to_string();
    match error {
        PresenceError::Unavailable { retry_after } => unavailable(message, *retry_after),
        PresenceError::OfUser => Refusal::new(Reason::TooManySessions, message),
    }
}

/// What presence's refusal says.
pub fn presence_error(status: &Status) -> PresenceError {
    let details = status.get_error_details();
    if said(&details).is_some_and(|info| info.reason == Reason::TooManySessions.as_str()) {
        return PresenceError::OfUser;
    }
    PresenceError::Unavailable {
        retry_after: retry_after(status),
    }
}

/// What is said of it, if it was we who said so.
fn said(details: &ErrorDetails) -> Option<&ErrorInfo> {
    details.error_info().filter(|info| info.domain == DOMAIN)
}

fn unavailable(message: String, retry_after: Option<Duration>) -> Refusal {
    let refusal = Refusal::new(Reason::Unavailable, message);
    match retry_after {
        Some(wait) => refusal.retry_after(wait),
        None => refusal,
    }
}

fn retry_after(status: &Status) -> Option<Duration> {
    let wait = status.get_error_details().retry_info()?.retry_delay?;
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAITS: [Option<Duration>; 3] = [
        None,
        Some(Duration::ZERO),
        Some(Duration::from_nanos(1_500_000_001)),
    ];

    #[test]
    fn what_history_refuses_is_read_as_it_was_said() {
        let waits = WAITS.map(|retry_after| HistoryError::Unavailable { retry_after });
        let others = [
            HistoryError::InvalidSyncToken,
            HistoryError::InvalidPageToken,
            HistoryError::PositionAhead { head: Seq(0) },
            HistoryError::PositionAhead {
                head: Seq(u64::MAX),
            },
        ];
        for error in waits.into_iter().chain(others) {
            let status = history_refusal(&error).into_status();
            assert_eq!(history_error(&status), error);
        }
    }

    #[test]
    fn what_presence_refuses_is_read_as_it_was_said() {
        let waits = WAITS.map(|retry_after| PresenceError::Unavailable { retry_after });
        for error in waits.into_iter().chain([PresenceError::OfUser]) {
            let status = presence_refusal(&error).into_status();
            assert_eq!(presence_error(&status), error);
        }
    }

    #[test]
    fn a_wait_without_reason_is_cut_short() {
        let long = Some(Duration::from_hours(24 * 365));
        let waits = PresenceError::Unavailable { retry_after: long };
        let status = presence_refusal(&waits).into_status();
        let retry_after = Some(MAX_RETRY_AFTER);
        assert_eq!(
            presence_error(&status),
            PresenceError::Unavailable { retry_after }
        );
        assert_eq!(
            history_error(&status),
            HistoryError::Unavailable { retry_after }
        );
    }

    #[test]
    fn whatever_else_ends_a_call_is_not_available() {
        let unknown = HistoryError::Unavailable { retry_after: None };
        let others = [
            Status::unavailable("connection refused"),
            Status::ok(""),
            Refusal::internal().into_status(),
            Refusal::field("user", "must not be empty").into_status(),
            // Without the head it says nothing that a session could act on.
            Refusal::new(Reason::PositionAhead, "").into_status(),
            Refusal::new(Reason::PositionAhead, "")
                .meta(HEAD, "-1")
                .into_status(),
        ];
        for status in others {
            assert_eq!(history_error(&status), unknown, "{status:?}");
        }
    }

    #[test]
    fn a_field_at_fault_is_named() {
        let fault = duologue_proto::wire::history::read_history_id("").unwrap_err();
        let status = Refusal::from(fault).into_status();
        let details = status.get_error_details();
        let violations = &details.bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, "history_id");
    }
}
