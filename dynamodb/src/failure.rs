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
    /// It was held back by [`crate::send_while`]: not applied.
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
        SdkError::ResponseError(_) | _ => Failure::Unknown("the answer cannot be read".into()),
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
    // What else is called the caller's fault may have left: a connection whose task
    // is gone with its runtime, for one.
    if connecting {
        Failure::NotSent(text)
    } else {
        Failure::Unknown(text)
    }
}

/// Only a refusal that names its reason is one of DynamoDB's: the SDK takes an answer
/// that it cannot read for an error without a code.
fn answered(status: u16, meta: &aws_sdk_dynamodb::error::ErrorMetadata) -> Failure {
    let code = meta.code().unwrap_or("no code");
    if THROTTLED.contains(&code) {
        return Failure::Throttled(code.into());
    }
    if !(400..500).contains(&status) || meta.code().is_none() {
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

#[cfg(test)]
mod tests {
    use aws_config::{BehaviorVersion, Region, SdkConfig};
    use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::client::{DynamoDb, Options};

    /// Of one request over a real connection.
    async fn failure(address: std::net::SocketAddr) -> Failure {
        let credentials = Credentials::new("test", "test", None, None, "test");
        let sdk = SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("eu-test-1"))
            .endpoint_url(format!("http://{address}"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .build();
        let database = DynamoDb::new(&sdk, Options::default()).unwrap();
        let asked = database.once().list_tables().send().await;
        classify(&asked.unwrap_err())
    }

    /// Answers one request with what it is given, and closes.
    async fn answering(answer: &'static str) -> Failure {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = async {
            let (mut peer, _) = listener.accept().await.unwrap();
            let mut request = [0; 4_096];
            assert!(peer.read(&mut request).await.unwrap() > 0);
            peer.write_all(answer.as_bytes()).await.unwrap();
        };
        tokio::join!(failure(address), serve).0
    }

    #[tokio::test]
    async fn what_reached_nobody_was_not_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(matches!(failure(address).await, Failure::NotSent(_)));
    }

    #[test]
    fn what_the_connection_lost_may_have_left_whoever_is_blamed() {
        let gone = ConnectorError::user("the dispatch task is gone".into());
        assert!(matches!(dispatch(Some(&gone)), Failure::Unknown(_)));
        let late = ConnectorError::other(TooLate.into(), None);
        assert_eq!(dispatch(Some(&late)), Failure::TooLate);
    }

    #[tokio::test]
    async fn of_what_was_sent_and_not_answered_nothing_is_known() {
        assert!(matches!(answering("").await, Failure::Unknown(_)));
        let cut = "HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{\"TableNa";
        assert!(matches!(answering(cut).await, Failure::Unknown(_)));
        let garbled = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nnay";
        assert!(matches!(answering(garbled).await, Failure::Unknown(_)));
        let elsewhere = "HTTP/1.1 400 Bad Request\r\ncontent-length: 3\r\n\r\nnay";
        assert!(matches!(answering(elsewhere).await, Failure::Unknown(_)));
        let broken = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
        assert!(matches!(answering(broken).await, Failure::Unknown(_)));
    }

    #[tokio::test]
    async fn what_was_refused_names_its_code() {
        let refused = "HTTP/1.1 400 Bad Request\r\ncontent-length: 74\r\n\r\n\
             {\"__type\":\"com.amazon.coral.service#AccessDeniedException\",\"Message\":\"no\"}";
        let wanted = Failure::Refused("AccessDeniedException: no".into());
        assert_eq!(answering(refused).await, wanted);
    }
}
