//! The way to the server: the channel, the bearer token, the stream.

use duologue_proto::chat::v1 as wire;
use duologue_proto::chat::v1::chat_service_client::ChatServiceClient;
use duologue_proto::limits::{MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use crate::error::{CallError, ClientError};
use crate::limits::{
    CALL_TIMEOUT, CONNECT_TIMEOUT, CONNECTION_WINDOW_BYTES, FRAME_QUEUE, KEEPALIVE_INTERVAL,
    KEEPALIVE_TIMEOUT, OPEN_TIMEOUT, STREAM_WINDOW_BYTES,
};
use crate::session::{EndKind, LinkEnd};
use crate::token::{NoToken, Tokens};

/// Calls and opens streams with the user's token.
pub(crate) struct Transport {
    pub(crate) channel: Channel,
    pub(crate) tokens: Tokens,
}

/// An open stream.
pub(crate) struct Link {
    pub(crate) up: mpsc::Sender<wire::ConverseRequest>,
    pub(crate) down: Streaming<wire::ConverseResponse>,
}

/// The endpoint with everything that a long-lived stream needs. Keepalive also
/// while idle: a half-open connection looks idle.
pub(crate) fn endpoint(uri: &str, tls: Option<ClientTlsConfig>) -> Result<Endpoint, ClientError> {
    let unusable = |error: tonic::transport::Error| ClientError::Endpoint(describe(&error));
    let endpoint = Endpoint::from_shared(uri.to_owned())
        .map_err(unusable)?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    match endpoint.uri().scheme_str() {
        Some("https") => {
            let tls = tls.unwrap_or_else(|| ClientTlsConfig::new().with_native_roots());
            endpoint.tls_config(tls).map_err(unusable)
        }
        Some("http") if tls.is_none() => Ok(endpoint),
        Some("http") => Err(ClientError::Endpoint(
            "a certificate authority needs an https:// endpoint".into(),
        )),
        Some(_) | None => Err(ClientError::Endpoint(format!(
            "{uri} is neither http:// nor https://"
        ))),
    }
}

impl Transport {
    /// Opens a stream whose first frame is `hello`.
    pub(crate) async fn open(
        &self,
        hello: wire::ConverseRequest,
        fresh_token: bool,
    ) -> Result<Link, LinkEnd> {
        let token = self.tokens.for_link(fresh_token).await;
        let token = token.map_err(|error| match error {
            NoToken::SameAgain => LinkEnd::of(
                EndKind::NoOtherToken,
                "the token was refused, and its source gave it again",
            ),
            NoToken::Source(error) => LinkEnd::lost(format!("no token: {error}")),
        })?;
        let (up, frames) = mpsc::channel(FRAME_QUEUE);
        // Before the call: a proxy may hold headers back until there is a frame.
        up.try_send(hello)
            .map_err(|_| LinkEnd::lost("the stream takes no frame"))?;
        let request = with_token(ReceiverStream::new(frames), &token).map_err(|status| {
            self.tokens.judged(&token);
            ended(&status)
        })?;
        let mut client = self.client();
        let response = timeout(OPEN_TIMEOUT, client.converse(request)).await;
        let response = response.map_err(|_| LinkEnd::lost("connecting takes too long"))?;
        let refused = |status: &Status| status.code() == Code::Unauthenticated;
        if response.as_ref().map_or_else(refused, |_| true) {
            self.tokens.judged(&token);
        }
        let down = response.map_err(|status| ended(&status))?.into_inner();
        Ok(Link { up, down })
    }

    /// Makes a unary call; once more with a new token if the last is refused.
    pub(crate) async fn call<Q, A, F, T>(&self, request: Q, call: F) -> Result<A, ClientError>
    where
        Q: Clone,
        F: Fn(ChatServiceClient<Channel>, Request<Q>) -> T,
        T: Future<Output = Result<tonic::Response<A>, Status>>,
    {
        let mut token = self.tokens.cached().await.map_err(no_token)?;
        let mut renewed = false;
        loop {
            let mut request = with_token(request.clone(), &token).map_err(call_error)?;
            request.set_timeout(CALL_TIMEOUT);
            let answer = timeout(CALL_TIMEOUT, call(self.client(), request)).await;
            let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")));
            match answer {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) if status.code() == Code::Unauthenticated && !renewed => {
                    renewed = true;
                    token = match self.tokens.ask(Some(&token)).await {
                        Ok(token) => token,
                        Err(NoToken::SameAgain) => return Err(call_error(status)),
                        Err(error) => return Err(no_token(error)),
                    };
                }
                Err(status) => return Err(call_error(status)),
            }
        }
    }

    fn client(&self) -> ChatServiceClient<Channel> {
        ChatServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_RESPONSE_BYTES)
            .max_encoding_message_size(MAX_REQUEST_BYTES)
    }
}

/// What the end of a stream means.
pub(crate) fn ended(status: &Status) -> LinkEnd {
    let error = CallError::from(status);
    let kind = match status.code() {
        // A proxy may drop the reason; the contract has one usual cause of each.
        Code::Aborted if matches!(error.reason.as_str(), "SUPERSEDED" | "") => EndKind::Superseded,
        Code::Unauthenticated => EndKind::Unauthenticated,
        Code::FailedPrecondition => EndKind::HistoryChanged,
        Code::InvalidArgument => EndKind::Refused,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => EndKind::Lost,
    };
    LinkEnd {
        kind,
        cause: error.to_string(),
        retry_after: error.retry_after,
    }
}

fn with_token<T>(message: T, token: &str) -> Result<Request<T>, Status> {
    let mut value = MetadataValue::try_from(format!("Bearer {token}"))
        .map_err(|_| Status::unauthenticated("the token is not printable ASCII"))?;
    value.set_sensitive(true);
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", value);
    Ok(request)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "used as a function of map_err"
)]
fn call_error(status: Status) -> ClientError {
    ClientError::Call(CallError::from(&status))
}

fn no_token(error: NoToken) -> ClientError {
    match error {
        NoToken::SameAgain => ClientError::NoTokenSource,
        NoToken::Source(error) => ClientError::Token(error),
    }
}

/// An error with its causes; tonic's own text is only "transport error".
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::{ErrorDetails, StatusExt as _};

    #[test]
    fn the_reason_tells_a_superseded_session_from_a_full_one() {
        let kind = |reason: &str| {
            let details = ErrorDetails::with_error_info(reason, "duologue", []);
            ended(&Status::with_error_details(Code::Aborted, "", details)).kind
        };
        assert_eq!(kind("SUPERSEDED"), EndKind::Superseded);
        assert_eq!(kind("SESSION_FULL"), EndKind::Lost);
    }

    #[test]
    fn an_endpoint_that_cannot_be_used_is_refused() {
        for uri in ["127.0.0.1:50051", "ftp://host", "not a uri", ""] {
            assert!(
                matches!(endpoint(uri, None), Err(ClientError::Endpoint(_))),
                "{uri}"
            );
        }
        let tls = Some(ClientTlsConfig::new());
        assert!(endpoint("http://host:1", tls).is_err(), "a CA without TLS");
        assert!(endpoint("http://host:1", None).is_ok());
    }
}
