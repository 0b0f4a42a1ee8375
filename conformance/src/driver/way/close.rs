//! What a close frame says, as the status that the call would have had by gRPC.

use std::time::Duration;

use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The status of a close frame; without one, the connection was lost.
pub(super) fn status(frame: Option<&CloseFrame>) -> Status {
    let Some(frame) = frame else {
        return Status::unavailable("closed without a code");
    };
    let text = format!("{}: {}", u16::from(frame.code), frame.reason.as_str());
    let code = match u16::from(frame.code) {
        1000 => Code::Ok,
        1001 | 1013 => Code::Unavailable,
        1002 | 1003 | 1007 | 1008 | 1009 => Code::InvalidArgument,
        4401 => Code::Unauthenticated,
        4403 => Code::PermissionDenied,
        4408 => Code::DeadlineExceeded,
        4409 => Code::Aborted,
        4412 => Code::FailedPrecondition,
        4429 => Code::ResourceExhausted,
        // 1011, and what no server of ours says.
        _ => Code::Internal,
    };
    let mut details = ErrorDetails::new();
    if let Some(wait) = retry_after(&frame.reason) {
        details.set_retry_info(Some(wait));
    }
    Status::with_error_details(code, text, details)
}

/// How long a reason asks to wait.
fn retry_after(reason: &str) -> Option<Duration> {
    let (_, wait) = reason.rsplit_once("retry after ")?;
    let millis = wait.strip_suffix(" ms")?.parse().ok()?;
    Some(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: u16, reason: &str) -> Status {
        status(Some(&CloseFrame {
            code: code.into(),
            reason: reason.into(),
        }))
    }

    #[test]
    fn only_a_normal_close_is_ok_and_a_wait_is_kept() {
        assert_eq!(of(1000, "all is answered").code(), Code::Ok);
        for code in [1001, 1002, 1005, 1006, 1011, 1013, 4000, 4401, 4409] {
            assert_ne!(of(code, "").code(), Code::Ok, "{code}");
        }
        assert_ne!(status(None).code(), Code::Ok);
        let slow = of(4429, "RATE_LIMITED: too many; retry after 2000 ms");
        let wait = slow
            .get_details_retry_info()
            .and_then(|info| info.retry_delay);
        assert_eq!(wait, Some(Duration::from_secs(2)));
    }
}
