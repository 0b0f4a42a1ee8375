//! What a failed request means: whether it may have been applied.
//!
//! It must not put into words what a request or an item holds.

use std::error::Error;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::result::ConnectorError;

use crate::deadline::TooLate;

/// Why a request failed. Expected answers, such as a failed condition, are to be
/// looked for before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It never left: not applied.
    #[error("not sent: {0}")]
    NotSent(String),
    /// It was held back by [`crate::SendWhile`]: not applied.
    #[error("too late to be sent")]
    TooLate,
    /// Too many requests: not applied.
    #[error("throttled: {0}")]
    Throttled(String),
    /// DynamoDB understood it and refuses it: not applied.
    #[error("refused: {0}")]
    Refused(String),
    /// It may have been applied, or become so.
    #[error("no outcome: {0}")]
    Unknown(String),
}

/// The codes with which DynamoDB sheds load.
const THROTTLED: [&str; 5] = [
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottledException",
    "ThrottlingException",
];

/// What the failure of a request that was sent once means. (Of one that the SDK
/// repeated only the last try is known: an earlier one may have been applied.)
pub fn classify<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Failure {
    match error {
        SdkError::ConstructionFailure(_) => Failure::NotSent("the request cannot be made".into()),
        SdkError::TimeoutError(_) => Failure::Unknown("timed out".into()),
        SdkError::DispatchFailure(failure) => dispatch(failure.as_connector_error()),
        SdkError::ServiceError(service) => {
            answered(service.raw().status().as_u16(), service.err().meta())
        }
        // An answer that cannot be read says nothing.
        _ => Failure::Unknown("the answer cannot be read".into()),
    }
}

fn dispatch(error: Option<&ConnectorError>) -> Failure {
    let Some(error) = error else {
        return Failure::Unknown("the connection failed".into());
    };
    if find::<TooLate>(error).is_some() {
        return Failure::TooLate;
    }
    let text = chain(error);
    let connecting = find::<hyper_util::client::legacy::Error>(error)
        .is_some_and(hyper_util::client::legacy::Error::is_connect);
    if connecting || error.is_user() {
        Failure::NotSent(text)
    } else {
        Failure::Unknown(text)
    }
}

fn answered(status: u16, meta: &aws_sdk_dynamodb::error::ErrorMetadata) -> Failure {
    let code = meta.code().unwrap_or("no code");
    if THROTTLED.contains(&code) {
        return Failure::Throttled(code.into());
    }
    if status >= 500 {
        return Failure::Unknown(format!("{code} ({status})"));
    }
    // What fails validation may be quoted.
    let message = meta.message().filter(|_| code != "ValidationException");
    Failure::Refused(message.map_or_else(|| code.into(), |message| format!("{code}: {message}")))
}

/// The first cause of a type.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |cause| {
        let cause: &'a (dyn Error + 'static) = *cause;
        cause.source()
    })
}

/// What a connection says holds nothing of the request.
fn chain(error: &(dyn Error + 'static)) -> String {
    let causes: Vec<String> = causes(error).map(ToString::to_string).collect();
    causes.join(": ")
}
