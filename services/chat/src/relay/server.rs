//! The relay's receiving end: converts, checks that this incarnation is meant, and
//! tells this node's sessions.

use std::sync::Arc;

use duologue_proto::relay::v1 as wire;
use duologue_proto::relay::v1::relay_service_server::{RelayService, RelayServiceServer};
use duologue_runtime::telemetry::TRACED;
use duologue_runtime::telemetry::propagation::within;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use super::wire::{Arrived, ArrivedNews, Invalid, Opening, RELAY_REQUEST_BYTES, arrived, open};
use crate::core::Core;

/// The service for an internal listener, which must know its callers.
pub type RelayServer = RelayServiceServer<Relayed>;

/// What other nodes call.
pub struct Relayed(Arc<Core>);

pub(crate) fn server(core: Arc<Core>) -> RelayServer {
    RelayServiceServer::new(Relayed(core)).max_decoding_message_size(RELAY_REQUEST_BYTES)
}

#[tonic::async_trait]
impl RelayService for Relayed {
    type RelayStream = BoxStream<'static, Result<wire::RelayResponse, Status>>;

    async fn relay(
        &self,
        request: Request<Streaming<wire::RelayRequest>>,
    ) -> Result<Response<Self::RelayStream>, Status> {
        let mut requests = request.into_inner();
        let opening = open(requests.message().await?).map_err(refusal)?;
        if opening.to != self.0.config.node {
            // An address that leads elsewhere says nothing of the node that is meant: to
            // call it over would remove the routes of living sessions.
            tracing::warn!(from = %opening.from, to = %opening.to, "a relay to another node");
            return Err(Status::failed_precondition("another node is meant"));
        }
        tracing::debug!(from = %opening.from, "a node relays to this one");
        let state = (Arc::clone(&self.0), requests, opening);
        // One at a time: whoever does not read answers is not read either.
        let answers = stream::try_unfold(state, |(core, mut requests, opening)| async move {
            let request = tokio::select! {
                request = requests.message() => request?,
                () = core.tenure.left() => return Err(Status::unavailable("the node stops")),
            };
            let Some(request) = request else {
                return Ok(None);
            };
            let batch = arrived(request).map_err(refusal)?;
            let answer = tell(&core, &opening, batch);
            Ok(Some((answer, (core, requests, opening))))
        });
        Ok(Response::new(answers.boxed()))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn refusal(invalid: Invalid) -> Status {
    Status::invalid_argument(invalid.to_string())
}

/// Tells this node's sessions, if it is the incarnation that is meant and has not lost
/// its lease: what one that lost it believes may be long past, and its sessions are about
/// to sync.
fn tell(core: &Core, opening: &Opening, batch: Arrived) -> wire::RelayResponse {
    let number = batch.number;
    let held = core.tenure.is_held_by(&opening.incarnation, Instant::now());
    if !held {
        return wire::RelayResponse {
            number,
            other_incarnation: true,
            not_here: Vec::new(),
        };
    }
    let mut not_here = Vec::new();
    for ArrivedNews {
        user,
        sessions,
        news,
    } in batch.users
    {
        let told = || tracing::info_span!(target: TRACED, parent: None, "relayed");
        let told = within(news.trace, told);
        told.in_scope(|| core.router.tell(&user, &news));
        if news.look_at_presence && !core.hints.look_at(user.clone()) {
            core.registry
                .tell_everyone(|handle| handle.inbox.presence_lost());
        }
        let gone = sessions
            .into_iter()
            .filter(|session| !core.registry.is_listed(&user, session));
        not_here.extend(gone.map(|session| wire::NotHere {
            user_id: user.to_string(),
            session_id: session.to_string(),
        }));
    }
    if batch.everyone {
        core.router.tell_everyone();
    }
    wire::RelayResponse {
        number,
        other_incarnation: false,
        not_here,
    }
}

#[cfg(test)]
mod tests {
    use duologue_proto::ids::{Incarnation, NodeId};
    use duologue_proto::relay::v1::relay_service_client::RelayServiceClient;
    use tonic::Code;

    use super::super::news::Batch;
    use super::super::wire::{batch, opening};
    use super::*;
    use crate::tests::{Directory, core};

    /// The answer of the node "one" to a batch for a start of `node`.
    async fn answer(node: &str) -> Result<wire::RelayResponse, Status> {
        let core = core(&Directory::new(Vec::new()));
        let (node, from) = (NodeId::parse(node).unwrap(), NodeId::parse("two").unwrap());
        let incarnation = Incarnation::parse("another").unwrap();
        let requests = [
            opening(&from, &node, &incarnation),
            batch(1, &Batch::default()),
        ];
        let mut client = RelayServiceClient::new(server(core));
        let answers = client.relay(tokio_stream::iter(requests)).await?;
        let answer = answers.into_inner().message().await?;
        Ok(answer.unwrap())
    }

    #[tokio::test]
    async fn only_the_node_that_is_meant_may_say_that_an_incarnation_is_over() {
        assert!(answer("one").await.unwrap().other_incarnation);
        let refused = answer("three").await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
    }
}
