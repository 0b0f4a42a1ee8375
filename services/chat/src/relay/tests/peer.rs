//! The link to a node that answers: in process, with the test's clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use duologue_proto::ids::UserId;
use duologue_proto::message::Cursor;
use duologue_proto::relay::v1 as wire;
use duologue_proto::relay::v1::relay_request::Content;
use duologue_proto::relay::v1::relay_service_server::{RelayService, RelayServiceServer};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::time::{sleep, timeout};
use tonic::body::Body;
use tonic::{Request, Response, Status, Streaming};

use crate::limits::{ASK_TIMEOUT, IDLE_CHECK};
use crate::ports::Channel;
use crate::tests::{Directory, core, ends, route};

/// A node that answers every batch at once.
#[derive(Default)]
struct Answering {
    streams: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl RelayService for Answering {
    type RelayStream = BoxStream<'static, Result<wire::RelayResponse, Status>>;

    async fn relay(
        &self,
        request: Request<Streaming<wire::RelayRequest>>,
    ) -> Result<Response<Self::RelayStream>, Status> {
        self.streams.fetch_add(1, Ordering::SeqCst);
        let answers = request.into_inner().filter_map(async |request| {
            let Some(Content::Batch(batch)) = request.ok()?.content else {
                return None;
            };
            Some(Ok(wire::RelayResponse {
                number: batch.number,
                other_incarnation: false,
                not_here: Vec::new(),
            }))
        });
        Ok(Response::new(answers.boxed()))
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_to_be_told_does_not_wait_for_whether_its_node_lives() {
    let directory = Directory::new(vec![route("bob", "two")]);
    let node = Answering::default();
    let streams = Arc::clone(&node.streams);
    let reached = tower::ServiceBuilder::new()
        .map_request(|request: http::Request<Body>| request)
        .map_err(|never| match never {})
        .service(RelayServiceServer::new(node));
    *directory.reached.lock().unwrap() = Some(Channel::new(reached));
    let core = core(&directory);
    let (alice, bob) = (
        UserId::parse("alice").unwrap(),
        UserId::parse("bob").unwrap(),
    );
    let tell = || core.router.cursor(&alice, &bob, Cursor::default(), None);
    tell();
    assert!(ends(core.router.idle()).await);
    directory.nodes_hang.store(true, Ordering::SeqCst);
    // In the middle of the question whether the node still lives.
    sleep(IDLE_CHECK + ASK_TIMEOUT / 2).await;
    tell();
    let told = timeout(Duration::from_secs(1), core.router.idle());
    told.await.expect("it waits");
    assert_eq!(streams.load(Ordering::SeqCst), 1, "the link broke");
}
