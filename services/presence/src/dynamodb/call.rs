//! Requests and what their failures mean to who asked.
//!
//! A conditional write without an outcome is tried again as it was, until it has
//! one: then its own earlier try may be what blocks it.

use std::time::Duration;

use duologue_dynamodb::sdk::config::http::HttpResponse;
use duologue_dynamodb::sdk::error::{ProvideErrorMetadata, SdkError};
use duologue_dynamodb::{Failure, classify};
use duologue_proto::presence::PresenceError;
use duologue_runtime::backoff::full_jitter;
use duologue_runtime::clock::{Random, RandomExt as _};
use tokio::time::sleep;
use tracing::{debug, error};

/// Tries of a conditional write; each has the client's timeout.
pub const MAX_TRIES: u32 = 3;
/// Before the second try, at most; doubled before each further one.
pub const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Told to who asked for what could not be done.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

const CONDITION_FAILED: &str = "ConditionalCheckFailedException";

/// The outcome of a conditional write.
#[derive(Debug)]
pub(super) enum Outcome<T, E> {
    Applied(T),
    /// The condition does not hold.
    Blocked {
        error: E,
        /// An earlier try has no outcome: it may be what blocks this one.
        doubtful: bool,
    },
}

/// Tries a conditional write until it has an outcome.
pub(super) async fn settle<T, E, F>(
    random: &dyn Random,
    attempt: impl Fn() -> F,
) -> Result<Outcome<T, E>, PresenceError>
where
    F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    E: ProvideErrorMetadata,
{
    let mut doubtful = false;
    for tries in 0..MAX_TRIES {
        pause(random, tries).await;
        let failed = match attempt().await {
            Ok(output) => return Ok(Outcome::Applied(output)),
            Err(SdkError::ServiceError(answer)) if is_blocked(answer.err()) => {
                let error = answer.into_err();
                return Ok(Outcome::Blocked { error, doubtful });
            }
            Err(failed) => failed,
        };
        let failure = classify(&failed);
        doubtful |= matches!(failure, Failure::Unknown(_));
        tell(&failure);
        if matches!(failure, Failure::Refused(_)) {
            break;
        }
    }
    Err(unavailable())
}

fn is_blocked(error: &impl ProvideErrorMetadata) -> bool {
    error.code() == Some(CONDITION_FAILED)
}

/// What has failed for good, after the client's own tries.
pub(super) fn failed<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> PresenceError {
    tell(&classify(error));
    unavailable()
}

pub(super) fn unavailable() -> PresenceError {
    PresenceError::Unavailable {
        retry_after: Some(RETRY_AFTER),
    }
}

/// A refusal is the operator's to mend; anything else is what networks do.
fn tell(failure: &Failure) {
    match failure {
        Failure::Refused(_) => error!(error = %failure, "DynamoDB refuses a request"),
        Failure::NotSent(_) | Failure::TooLate | Failure::Throttled(_) | Failure::Unknown(_) => {
            debug!(error = %failure, "a request to DynamoDB failed");
        }
    }
}

async fn pause(random: &dyn Random, tries: u32) {
    if let Some(failures) = tries.checked_sub(1) {
        sleep(full_jitter(
            random.number(),
            RETRY_PAUSE,
            Duration::MAX,
            failures,
        ))
        .await;
    }
}
