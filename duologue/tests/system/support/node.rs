//! What chat nodes are made with that a test wires itself, beside the program.

use std::net::SocketAddr;
use std::time::Duration;

use duologue_chat::{ChatConfig, Visibility};
use duologue_proto::ids::{NodeId, UserId};
use duologue_runtime::auth::{AuthError, Identity, bearer};
use duologue_runtime::clock::{Clock as _, SystemClock};
use duologue_runtime::rate::RateLimit;
use tonic::codegen::http::HeaderMap;
use tonic::transport::Endpoint;

use super::Chat;
use super::calls::{Bearer, client};

/// Users say who they are: tokens are another matter.
pub(crate) fn identity(headers: &HeaderMap) -> Result<Identity, AuthError> {
    let user = UserId::parse(bearer(headers)?).map_err(AuthError::BadSubject)?;
    let expires_at = SystemClock.now().plus(Duration::from_hours(1));
    Ok(Identity { user, expires_at })
}

pub(crate) fn config(node: NodeId) -> ChatConfig {
    let rate = RateLimit {
        per_second: 10_000,
        burst: 10_000,
    };
    ChatConfig {
        node,
        max_text_bytes: 8_192,
        visibility: Visibility::Everyone,
        sends: rate,
        connects: rate,
        sessions_per_user: 32,
        sessions_per_address: 1_000,
    }
}

/// A client of the node that listens there.
pub(crate) async fn chat_at(node: SocketAddr, user: &str) -> Chat {
    let endpoint = Endpoint::from_shared(format!("http://{node}")).unwrap();
    client(endpoint.connect().await.unwrap(), Bearer::new(user))
}
