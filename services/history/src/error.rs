//! How a failing engine is told to a caller.

use std::time::Duration;

use duologue_proto::history::HistoryError;

use crate::store::StoreError;

/// How long a caller waits before asking a failing engine again.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Logs why the engine failed, which is not for the caller, and says that
/// history is not available.
#[expect(
    clippy::needless_pass_by_value,
    reason = "it is passed to map_err by name"
)]
pub(crate) fn unavailable(error: StoreError) -> HistoryError {
    tracing::warn!(error = %error, "the store failed a request");
    HistoryError::Unavailable {
        retry_after: Some(RETRY_AFTER),
    }
}
