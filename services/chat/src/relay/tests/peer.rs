//! The link to a node that answers, or does not: in process, with the test's clock.

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

use crate::core::Core;
use crate::limits::{ANSWER_TIMEOUT, ASK_TIMEOUT, IDLE_CHECK, MAX_LINK_PAUSE};
use crate::ports::Channel;
use crate::tests::{Directory, core, ends, route};

/// A node that answers batches at once.
#[derive(Clone, Default)]
struct Other {
    streams: Arc<AtomicUsize>,
    /// On so many of its first streams it answers nothing.
    mute: usize,
}

#[tonic::async_trait]
impl RelayService for Other {
    type RelayStream = BoxStream<'static, Result<wire::RelayResponse, Status>>;

    async fn relay(
        &self,
        request: Request<Streaming<wire::RelayRequest>>,
    ) -> Result<Response<Self::RelayStream>, Status> {
        let mute = self.streams.fetch_add(1, Ordering::SeqCst) < self.mute;
        let answered = |request: wire::RelayRequest| match request.content? {
            Content::Opening(_) => None,
            Content::Batch(batch) => Some(Ok(wire::RelayResponse {
                number: batch.number,
                other_incarnation: false,
                not_here: Vec::new(),
            })),
        };
        let answers = request.into_inner().filter_map(move |request| {
            let answer = request.ok().and_then(answered);
            std::future::ready(answer.filter(|_| !mute))
        });
        Ok(Response::new(answers.boxed()))
    }
}

/// A node that has something to tell bob, who is at the other one.
struct Link {
    directory: Arc<Directory>,
    core: Arc<Core>,
    other: Other,
}

impl Link {
    fn to(other: Other) -> Self {
        let directory = Directory::new(vec![route("bob", "two")]);
        let reached = tower::ServiceBuilder::new()
            .map_request(|request: http::Request<Body>| request)
            .map_err(|never| match never {})
            .service(RelayServiceServer::new(other.clone()));
        *directory.reached.lock().unwrap() = Some(Channel::new(reached));
        let core = core(&directory);
        Self {
            directory,
            core,
            other,
        }
    }

    fn tell(&self) {
        let (alice, bob) = (UserId::parse("alice"), UserId::parse("bob"));
        let (alice, bob) = (alice.unwrap(), bob.unwrap());
        self.core
            .router
            .cursor(&alice, &bob, Cursor::default(), None);
    }

    async fn is_told_within(&self, limit: Duration) -> bool {
        timeout(limit, self.core.router.idle()).await.is_ok()
    }

    fn streams(&self) -> usize {
        self.other.streams.load(Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_to_be_told_does_not_wait_for_whether_its_node_lives() {
    let link = Link::to(Other::default());
    link.tell();
    assert!(ends(link.core.router.idle()).await);
    link.directory.nodes_hang.send_replace(true);
    sleep(IDLE_CHECK + ASK_TIMEOUT / 2).await;
    assert_eq!(link.directory.hanging.load(Ordering::SeqCst), 1);
    link.tell();
    assert!(link.is_told_within(Duration::from_secs(1)).await);
    sleep(2 * ASK_TIMEOUT).await;
    assert_eq!(link.streams(), 1, "the link broke");
}

#[tokio::test(start_paused = true)]
async fn a_stream_on_which_nothing_is_answered_is_replaced() {
    for presence_hangs in [false, true] {
        let link = Link::to(Other {
            mute: 1,
            ..Other::default()
        });
        link.tell();
        assert!(!link.is_told_within(ANSWER_TIMEOUT / 2).await);
        if presence_hangs {
            link.directory.nodes_hang.send_replace(true);
            assert!(!link.is_told_within(ANSWER_TIMEOUT + ASK_TIMEOUT).await);
            link.directory.nodes_hang.send_replace(false);
        }
        let limit = 2 * ANSWER_TIMEOUT + MAX_LINK_PAUSE + ASK_TIMEOUT;
        assert!(link.is_told_within(limit).await, "{presence_hangs}");
        assert_eq!(link.streams(), 2);
    }
}
