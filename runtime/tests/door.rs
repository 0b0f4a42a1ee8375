//! The whole way of a call: a socket, the guard, a signed token, the limit of
//! calls, the handler.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use duologue_proto::chat::v1::chat_service_client::ChatServiceClient;
use duologue_proto::chat::v1::chat_service_server::ChatServiceServer;
use duologue_proto::ids::{UnixMillis, UserId};
use duologue_runtime::auth::{DevKey, TokenRules, Verifier};
use duologue_runtime::clock::{ManualClock, SeededRandom};
use duologue_runtime::listener::{GuardConfig, accepted, bind, guard};
use duologue_runtime::metrics::{BuildInfo, Metrics};
use duologue_runtime::rate::{RateLimit, RateLimiter};
use duologue_runtime::server::{
    Door as Listener, Methods, Stack, admit_by_rate, authenticate_by_token, count_connections,
    serve,
};
use duologue_runtime::shutdown::Shutdown;
use duologue_runtime::task;
use support::{GRACE, Stub, presence_of};
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

type Client = ChatServiceClient<Channel>;

const BURST: u32 = 3;

struct Door {
    address: SocketAddr,
    key: DevKey,
    clock: ManualClock,
    metrics: Metrics,
    shutdown: Shutdown,
    served: JoinHandle<()>,
}

impl Door {
    async fn open() -> Self {
        let key = DevKey::ephemeral(&SeededRandom::new(1));
        let clock = ManualClock::at(UnixMillis(1_700_000_000_000));
        let keys = vec![key.verifier_key()];
        let verifier = Verifier::new(keys, TokenRules::default(), Arc::new(clock.clone()));
        let metrics = Metrics::new(BuildInfo::of("test"), UnixMillis(0));
        let shutdown = Shutdown::new(GRACE);
        let methods = Methods::standard().unwrap();
        let authenticate = authenticate_by_token(verifier);
        let limit = RateLimit {
            per_second: 1,
            burst: BURST,
        };
        let stack = Stack::new(methods, &metrics, authenticate, shutdown.clone())
            .admit(admit_by_rate(RateLimiter::new(limit)));

        let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = GuardConfig {
            on_event: count_connections(&metrics, Listener::Public),
            ..GuardConfig::default()
        };
        let incoming = guard(accepted(listener), config);
        let routes = Routes::new(ChatServiceServer::new(Stub::default()));
        let served = task::spawn("server", async move {
            serve(stack, routes, incoming).await.unwrap();
        });
        Self {
            address,
            key,
            clock,
            metrics,
            shutdown,
            served,
        }
    }

    fn token(&self, user: &str, lifetime: Duration) -> String {
        let user = UserId::parse(user).unwrap();
        self.key.sign(&user, lifetime, &self.clock)
    }

    async fn client(&self) -> Result<Client, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address));
        Ok(ChatServiceClient::new(endpoint?.connect().await?))
    }

    /// Who the handler takes the holder of this token for.
    async fn who_is(&self, token: &str) -> Result<String, Status> {
        who_is(&mut self.client().await.unwrap(), token).await
    }
}

async fn who_is(client: &mut Client, token: &str) -> Result<String, Status> {
    let mut request = Request::new(presence_of("bob"));
    let bearer = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    let response = client.get_presence(request).await?;
    Ok(response.into_inner().presence.unwrap().user)
}

#[tokio::test]
async fn a_signed_token_opens_the_door_until_it_expires() {
    let door = Door::open().await;
    let token = door.token("alice", Duration::from_secs(100));
    assert_eq!(door.who_is(&token).await.unwrap(), "alice");
    door.clock.advance(Duration::from_secs(100));
    let refused = door.who_is(&token).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(
        door.who_is("a.b.c").await.unwrap_err().code(),
        Code::Unauthenticated
    );
}

#[tokio::test]
async fn one_user_who_calls_too_often_does_not_use_up_what_another_has() {
    let door = Door::open().await;
    let alice = door.token("alice", Duration::from_hours(1));
    let bob = door.token("bob", Duration::from_hours(1));
    let mut client = door.client().await.unwrap();
    let mut refusals = Vec::new();
    // Far more than a burst, and what the bucket gains meanwhile.
    for _ in 0..10 * BURST {
        refusals.extend(who_is(&mut client, &alice).await.err());
    }
    assert!(!refusals.is_empty());
    for refusal in refusals {
        assert_eq!(refusal.code(), Code::ResourceExhausted, "{refusal:?}");
    }
    assert_eq!(who_is(&mut client, &bob).await.unwrap(), "bob");
}

#[tokio::test]
async fn a_drain_closes_the_door_and_counts_who_left() {
    let mut door = Door::open().await;
    let token = door.token("alice", Duration::from_hours(1));
    door.who_is(&token).await.unwrap();
    door.shutdown.trigger();
    (&mut door.served).await.unwrap();
    assert!(door.client().await.is_err());
    let text = door.metrics.encode().unwrap();
    assert!(text.contains("duologue_connections_open 0\n"), "{text}");
    assert!(
        text.contains("duologue_connections_total{event=\"opened\"} 1\n"),
        "{text}"
    );
}
