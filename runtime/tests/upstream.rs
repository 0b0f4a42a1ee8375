//! Calls of a service with replicas that come, go, fail and fall silent, over a
//! network that a test commands, in paused time.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod support;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use duologue_proto::chat::v1::chat_service_client::ChatServiceClient;
use duologue_proto::ids::UnixMillis;
use duologue_runtime::admin::Readiness;
use duologue_runtime::clock::SeededRandom;
use duologue_runtime::inner::Credentials;
use duologue_runtime::metrics::{BuildInfo, Metrics};
use duologue_runtime::server::Methods;
use duologue_runtime::task;
use duologue_runtime::upstream::{
    Address, Io, MAX_TRIES, Network, PROBE_INTERVAL, PROBE_TIMEOUT, RECONNECT_MAX,
    RESOLVE_INTERVAL, UPSTREAM_KEEPALIVE_INTERVAL, UPSTREAM_KEEPALIVE_TIMEOUT, Upstream,
    UpstreamChannel, UpstreamConfig, UpstreamMetrics, UpstreamParts,
};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use support::{Server, Stub, presence_of, soon};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::time::{Instant, sleep};
use tonic::{Code, Request, Status};
use tracing::Instrument as _;
use tracing_subscriber::layer::SubscriberExt as _;

const OWN_DEADLINE: Duration = Duration::from_secs(5);

/// Who can be reached where, and what names mean.
#[derive(Clone, Default)]
struct Net(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    servers: HashMap<String, Arc<Server>>,
    /// Connections to these come about, and nothing is heard on them.
    silent: HashMap<String, Vec<DuplexStream>>,
    /// What every name means; none: nothing.
    names: Option<Vec<SocketAddr>>,
    connects: usize,
    /// Nothing is heard on connections while this is set.
    deaf: Arc<AtomicBool>,
}

/// A connection on which perhaps nothing is heard.
struct Ear {
    io: DuplexStream,
    deaf: Arc<AtomicBool>,
}

impl AsyncRead for Ear {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.deaf.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Ear {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[tonic::async_trait]
impl Network for Net {
    async fn connect(&self, address: &Address) -> io::Result<Box<dyn Io>> {
        let server = {
            let mut state = self.0.lock().unwrap();
            state.connects += 1;
            if let Some(kept) = state.silent.get_mut(address.as_str()) {
                let (near, far) = tokio::io::duplex(64 * 1024);
                kept.push(far);
                return Ok(Box::new(near));
            }
            state.servers.get(address.as_str()).cloned()
        };
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let io = server.ok_or_else(refused)?.connect().await;
        let deaf = Arc::clone(&self.0.lock().unwrap().deaf);
        Ok(Box::new(Ear {
            io: io.ok_or_else(refused)?,
            deaf,
        }))
    }

    async fn resolve(&self, _name: &str) -> io::Result<Vec<SocketAddr>> {
        let names = self.0.lock().unwrap().names.clone();
        names.ok_or_else(|| io::Error::other("no such name"))
    }
}

impl Net {
    async fn serve(&self, address: &str, stub: &Stub) -> Arc<Server> {
        let server = Arc::new(Server::inner(Credentials::none(), stub.clone()).await);
        let mut state = self.0.lock().unwrap();
        state
            .servers
            .insert(address.to_owned(), Arc::clone(&server));
        server
    }

    /// The server at the address dies: every connection breaks.
    fn kill(&self, address: &str) {
        let server = self.0.lock().unwrap().servers.remove(address).unwrap();
        server.shutdown.stop();
    }

    fn silence(&self, address: &str) {
        let mut state = self.0.lock().unwrap();
        state.silent.insert(address.to_owned(), Vec::new());
    }

    fn name(&self, addresses: &[&str]) {
        let addresses = addresses.iter().map(|it| it.parse().unwrap()).collect();
        self.0.lock().unwrap().names = Some(addresses);
    }

    fn connects(&self) -> usize {
        self.0.lock().unwrap().connects
    }

    fn upstream(&self, addresses: &str, metrics: &Metrics) -> Upstream {
        let config = UpstreamConfig {
            deadline: OWN_DEADLINE,
            ..UpstreamConfig::new("history", addresses.parse().unwrap())
        };
        let parts = UpstreamParts {
            credentials: Credentials::none(),
            methods: Arc::new(Methods::standard().unwrap()),
            metrics: UpstreamMetrics::new(metrics),
            network: Arc::new(self.clone()),
            random: Arc::new(SeededRandom::new(1)),
        };
        Upstream::start(config, parts).unwrap()
    }
}

fn metrics() -> Metrics {
    Metrics::new(BuildInfo::of("test"), UnixMillis(0))
}

async fn ask(channel: UpstreamChannel, user: &str) -> Result<String, Status> {
    let mut client = ChatServiceClient::new(channel);
    let answer = client.get_presence(presence_of(user)).await;
    Ok(answer?.into_inner().presence.unwrap().user)
}

/// Who answers.
async fn who(upstream: &Upstream) -> String {
    ask(upstream.channel(), "bob").await.unwrap()
}

/// Until so many replicas are up.
async fn until_up(upstream: &Upstream, count: usize) {
    let mut changes = upstream.changes();
    let waiting = async {
        while upstream.up().len() != count {
            assert!(changes.next().await);
        }
    };
    soon(waiting).await;
}

#[tokio::test(start_paused = true)]
async fn calls_go_round_the_replicas_over_one_connection_each() {
    let net = Net::default();
    let _servers = (
        net.serve("h1:1", &Stub::named("one")).await,
        net.serve("h2:1", &Stub::named("two")).await,
    );
    let upstream = net.upstream("http://h1:1,http://h2:1,http://h3:1", &metrics());
    until_up(&upstream, 2).await;
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(who(&upstream).await);
    }
    assert_eq!(answers[..4], answers[2..]);
    answers.sort_unstable();
    assert_eq!(answers, ["one", "one", "one", "two", "two", "two"]);
    // The one that is not there is tried again and again, the others never.
    let before = net.connects();
    sleep(10 * RECONNECT_MAX).await;
    assert!(net.connects() > before + 5);
    assert_eq!(upstream.up().len(), 2);
    let known: Vec<_> = upstream
        .known()
        .iter()
        .map(|it| it.address.to_string())
        .collect();
    assert_eq!(known, ["h1:1", "h2:1", "h3:1"]);
    let kept = upstream.pick(b"alice bob").unwrap();
    for _ in 0..3 {
        let again = upstream.pick(b"alice bob").unwrap();
        assert_eq!(again.address, kept.address);
        let answers = (
            ask(again.channel, "bob").await,
            ask(kept.channel.clone(), "bob").await,
        );
        assert_eq!(answers.0.unwrap(), answers.1.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_call_waits_for_the_connection_and_a_call_of_nobody_fails_at_once() {
    let net = Net::default();
    let server = net.serve("h1:1", &Stub::named("one")).await;
    let metrics = metrics();
    let upstream = net.upstream("http://h1:1", &metrics);
    assert_eq!(soon(who(&upstream)).await, "one");

    net.kill("h1:1");
    until_up(&upstream, 0).await;
    // It may be back at once, so the first call after waits for that attempt.
    let began = Instant::now();
    let refused = ask(upstream.channel().idempotent(), "bob")
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(began.elapsed() < Duration::from_millis(100));
    let details = tonic_types::StatusExt::get_error_details(&refused);
    assert!(details.retry_info().unwrap().retry_delay.unwrap() > Duration::ZERO);
    let began = Instant::now();
    for _ in 0..100 {
        ask(upstream.channel(), "bob").await.unwrap_err();
    }
    assert_eq!(began.elapsed(), Duration::ZERO, "it fails fast");
    drop(server);

    let _back = net.serve("h1:1", &Stub::named("back")).await;
    let began = Instant::now();
    until_up(&upstream, 1).await;
    assert!(began.elapsed() <= RECONNECT_MAX);
    assert_eq!(who(&upstream).await, "back");
    let same = upstream.known().remove(0).channel;
    assert_eq!(ask(same, "bob").await.unwrap(), "back");
    let text = metrics.encode().unwrap();
    for line in [
        "duologue_upstream_replicas_up{upstream=\"history\"} 1\n",
        "duologue_upstream_replicas{upstream=\"history\"} 1\n",
        "duologue_upstream_calls_total{upstream=\"history\",method=\"GetPresence\",code=\"OK\"} 3\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    assert!(
        !text.contains("upstream_retries_total{"),
        "nobody was asked:\n{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn only_what_is_idempotent_is_tried_again_and_elsewhere() {
    let net = Net::default();
    let (one, two) = (Stub::named("one"), Stub::named("two"));
    let _servers = (net.serve("h1:1", &one).await, net.serve("h2:1", &two).await);
    let metrics = metrics();
    let upstream = net.upstream("http://h1:1,http://h2:1", &metrics);
    until_up(&upstream, 2).await;

    one.fail_with(&[Code::Unavailable; 9]);
    for _ in 0..4 {
        assert_eq!(
            ask(upstream.channel().idempotent(), "bob").await.unwrap(),
            "two"
        );
    }
    let failures = one.calls();
    assert_eq!(failures, 2, "every second call began at the first");
    // Not told that it may be: it is tried once.
    let mut codes = Vec::new();
    for _ in 0..2 {
        let answer = ask(upstream.channel(), "bob").await;
        codes.push(answer.map_or_else(|status| status.code(), |_| Code::Ok));
    }
    codes.sort_unstable_by_key(|code| *code as i32);
    assert_eq!(codes, [Code::Ok, Code::Unavailable]);
    assert_eq!(one.calls(), failures + 1);
    // Only UNAVAILABLE is worth another try.
    one.failures.lock().unwrap().clear();
    for code in [
        Code::Internal,
        Code::Aborted,
        Code::ResourceExhausted,
        Code::DeadlineExceeded,
    ] {
        let calls = one.calls() + two.calls();
        one.fail_with(&[code]);
        two.fail_with(&[code]);
        let refused = ask(upstream.channel().idempotent(), "bob")
            .await
            .unwrap_err();
        assert_eq!(refused.code(), code);
        assert_eq!(one.calls() + two.calls(), calls + 1);
        one.failures.lock().unwrap().clear();
        two.failures.lock().unwrap().clear();
    }
    // Three times at most.
    let calls = one.calls() + two.calls();
    one.fail_with(&[Code::Unavailable; 9]);
    two.fail_with(&[Code::Unavailable; 9]);
    ask(upstream.channel().idempotent(), "bob")
        .await
        .unwrap_err();
    assert_eq!(one.calls() + two.calls(), calls + MAX_TRIES as usize);
    let text = metrics.encode().unwrap();
    let line = "duologue_upstream_retries_total{upstream=\"history\"} 4\n";
    assert!(text.contains(line), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_service_in_trouble_is_not_drowned_in_retries() {
    let net = Net::default();
    let stub = Stub::named("one");
    let _server = net.serve("h1:1", &stub).await;
    let metrics = metrics();
    let upstream = net.upstream("http://h1:1", &metrics);
    until_up(&upstream, 1).await;
    stub.fail_with(&[Code::Unavailable; 2_000]);
    let calls = (0..500).map(|_| ask(upstream.channel().idempotent(), "bob"));
    let ended = futures_util::future::join_all(calls).await;
    assert!(ended.iter().all(Result::is_err));
    // 10 % of 500, and 2 per second for 10 seconds.
    let retries = stub.calls() - 500;
    assert!((20..=70).contains(&retries), "{retries} retries");
    let text = metrics.encode().unwrap();
    let line = format!("upstream_retries_total{{upstream=\"history\"}} {retries}\n");
    assert!(text.contains(&line), "{text}");
    assert!(text.contains("upstream_retries_over_budget_total{upstream=\"history\"} "));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_under_a_call_is_a_reason_to_try_again() {
    let net = Net::default();
    let (one, two) = (Stub::named("one"), Stub::named("two"));
    let server = net.serve("h1:1", &one).await;
    let upstream = net.upstream("http://h1:1,http://h2:1", &metrics());
    until_up(&upstream, 1).await;
    let _two = net.serve("h2:1", &two).await;
    let asked = task::spawn("call", ask(upstream.channel().idempotent(), "slow"));
    let alone = task::spawn("call", ask(upstream.channel(), "slow"));
    while one.calls() < 2 {
        tokio::task::yield_now().await;
    }
    until_up(&upstream, 2).await;
    net.kill("h1:1");
    drop(server);
    while two.calls() < 1 {
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(alone.await.unwrap().unwrap_err().code(), Code::Unavailable);
    // It went to the other one, which is slow as well.
    assert_eq!(
        asked.await.unwrap().unwrap_err().code(),
        Code::DeadlineExceeded
    );
    assert_eq!((one.calls(), two.calls()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_is_made_again_at_once_if_it_lasted_else_with_pauses() {
    const ENDS: u32 = 10;
    let net = Net::default();
    let mut server = net.serve("h1:1", &Stub::named("one")).await;
    let upstream = net.upstream("http://h1:1", &metrics());
    until_up(&upstream, 1).await;
    let mut end = async || {
        let successor = net.serve("h1:1", &Stub::named("one")).await;
        let before = net.connects();
        std::mem::replace(&mut server, successor).shutdown.stop();
        let ended = Instant::now();
        while net.connects() == before {
            sleep(Duration::from_millis(1)).await;
        }
        until_up(&upstream, 1).await;
        ended.elapsed()
    };
    let at_once = Duration::from_millis(5);
    sleep(RECONNECT_MAX).await;
    assert!(end().await < at_once);
    let mut waited = Duration::ZERO;
    for _ in 0..ENDS {
        waited += end().await;
    }
    assert!(waited > RECONNECT_MAX, "{waited:?}");
    sleep(RECONNECT_MAX).await;
    assert!(end().await < at_once);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_does_not_answer_or_does_not_serve_is_not_called() {
    let net = Net::default();
    net.silence("h1:1");
    let server = net.serve("h2:1", &Stub::named("two")).await;
    let upstream = net.upstream("http://h1:1,http://h2:1", &metrics());
    let readiness = Readiness::default();
    let reporting = task::spawn(
        "readiness",
        upstream.keep_readiness(readiness.register("history")),
    );
    until_up(&upstream, 1).await;
    for _ in 0..4 {
        assert_eq!(who(&upstream).await, "two");
    }
    assert_eq!(readiness.failing(), []);

    server.health.set(false).await;
    sleep(PROBE_INTERVAL + 2 * PROBE_TIMEOUT).await;
    assert_eq!(
        ask(upstream.channel(), "bob").await.unwrap_err().code(),
        Code::Unavailable
    );
    let why = readiness.failing();
    assert_eq!(why[0].0, "history");
    assert!(why[0].1.contains("h1:1: does not answer"), "{why:?}");
    assert!(why[0].1.contains("h2:1: does not serve"), "{why:?}");
    server.health.set(true).await;
    until_up(&upstream, 1).await;
    assert_eq!(who(&upstream).await, "two");
    tokio::task::yield_now().await;
    assert_eq!(readiness.failing(), []);
    reporting.abort();
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_falls_silent_is_not_called_and_its_streams_end() {
    let net = Net::default();
    let _server = net.serve("h1:1", &Stub::named("one")).await;
    let upstream = net.upstream("http://h1:1", &metrics());
    until_up(&upstream, 1).await;
    let mut client = ChatServiceClient::new(upstream.channel());
    let hung = task::spawn("stream", async move {
        let (_open, input) = tokio::sync::mpsc::channel(1);
        let input = tokio_stream::wrappers::ReceiverStream::new(input);
        let answer = client.converse(input).await.unwrap();
        answer.into_inner().message().await
    });
    sleep(Duration::from_millis(1)).await;
    assert!(!hung.is_finished());
    net.0.lock().unwrap().deaf.store(true, Ordering::SeqCst);
    let began = Instant::now();
    until_up(&upstream, 0).await;
    assert!(
        began.elapsed() <= PROBE_INTERVAL + PROBE_TIMEOUT,
        "{:?}",
        began.elapsed()
    );
    soon(hung).await.unwrap().unwrap_err();
    let longest = UPSTREAM_KEEPALIVE_INTERVAL + UPSTREAM_KEEPALIVE_TIMEOUT;
    assert!(
        began.elapsed() <= longest + Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    net.0.lock().unwrap().deaf.store(false, Ordering::SeqCst);
    until_up(&upstream, 1).await;
    assert_eq!(who(&upstream).await, "one");
}

#[tokio::test(start_paused = true)]
async fn a_name_is_looked_up_again_and_its_replicas_followed() {
    let net = Net::default();
    let upstream = net.upstream("dns://history:1", &metrics());
    sleep(Duration::from_secs(1)).await;
    let refused = ask(upstream.channel(), "bob").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);

    let _one = net.serve("10.0.0.1:1", &Stub::named("one")).await;
    let _two = net.serve("10.0.0.2:1", &Stub::named("two")).await;
    net.name(&["10.0.0.1:1"]);
    let began = Instant::now();
    until_up(&upstream, 1).await;
    assert!(began.elapsed() <= RESOLVE_INTERVAL);
    assert_eq!(who(&upstream).await, "one");
    net.name(&["10.0.0.1:1", "10.0.0.2:1"]);
    until_up(&upstream, 2).await;
    net.name(&["10.0.0.2:1"]);
    until_up(&upstream, 1).await;
    assert_eq!(who(&upstream).await, "two");
    // A name server that fails takes nobody away.
    net.0.lock().unwrap().names = None;
    sleep(5 * RESOLVE_INTERVAL).await;
    assert_eq!(who(&upstream).await, "two");
    // A failure is a reason to look sooner: it may be elsewhere.
    let _three = net.serve("10.0.0.3:1", &Stub::named("three")).await;
    net.name(&["10.0.0.3:1"]);
    net.kill("10.0.0.2:1");
    let began = Instant::now();
    soon(async {
        while upstream
            .up()
            .iter()
            .all(|it| it.address.as_str() != "10.0.0.3:1")
        {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(
        began.elapsed() < Duration::from_millis(1_200),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_with_the_call_on_whose_behalf_it_is_made() {
    let net = Net::default();
    let slow = Stub::named("slow");
    let _behind = net.serve("h1:1", &slow).await;
    let upstream = net.upstream("http://h1:1", &metrics());
    until_up(&upstream, 1).await;

    // Its own, where there is no other.
    let began = Instant::now();
    let late = ask(upstream.channel().idempotent(), "slow")
        .await
        .unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    assert_eq!(began.elapsed().as_secs(), OWN_DEADLINE.as_secs());
    // What the caller asks for, if it is less.
    let mut request = Request::new(presence_of("slow"));
    request.set_timeout(Duration::from_secs(3));
    let began = Instant::now();
    let mut client = ChatServiceClient::new(upstream.channel());
    let late = client.get_presence(request).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    assert_eq!(began.elapsed().as_secs(), 3);
    // What is left to who asked, if that is less still.
    let middle = Stub {
        onward: Some(upstream.channel()),
        ..Stub::default()
    };
    let middle = Server::inner(Credentials::none(), middle).await;
    let mut request = Request::new(presence_of("onward"));
    request.set_timeout(Duration::from_secs(2));
    let began = Instant::now();
    // The test's own channel may be the first to give up.
    let late = middle
        .client()
        .await
        .get_presence(request)
        .await
        .unwrap_err();
    assert_ne!(late.code(), Code::Ok);
    assert_eq!(began.elapsed().as_secs(), 2);
    let seen = slow.seen.lock().unwrap().clone();
    let told: Vec<_> = seen
        .iter()
        .map(|it| it["grpc-timeout"].to_str().unwrap())
        .collect();
    assert_eq!(told, ["5000000u", "3000000u", "2000000u"]);
}

#[tokio::test(start_paused = true)]
async fn the_trace_goes_on_at_the_other_side() {
    let provider = SdkTracerProvider::builder().build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let subscriber = tracing_subscriber::registry().with(layer);
    let _watch = duologue_runtime::telemetry::watch(subscriber);
    let net = Net::default();
    let stub = Stub::named("one");
    let _server = net.serve("h1:1", &stub).await;
    let upstream = net.upstream("http://h1:1", &metrics());
    until_up(&upstream, 1).await;
    let outer = tracing::info_span!("outer");
    let trace = {
        use opentelemetry::trace::TraceContextExt as _;
        use tracing_opentelemetry::OpenTelemetrySpanExt as _;
        let context = outer.context();
        context.span().span_context().trace_id().to_string()
    };
    let asking = ask(upstream.channel(), "bob").instrument(outer);
    asking.await.unwrap();
    let seen = stub.seen.lock().unwrap().clone();
    let parent = seen[0]["traceparent"].to_str().unwrap();
    assert!(
        parent.starts_with(&format!("00-{trace}-")),
        "{parent} of {trace}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_last_clone_takes_the_connections_with_it() {
    let net = Net::default();
    let _server = net.serve("h1:1", &Stub::named("one")).await;
    let upstream = net.upstream("http://h1:1,http://h2:1", &metrics());
    until_up(&upstream, 1).await;
    let channel = upstream.channel();
    drop(upstream);
    assert_eq!(ask(channel, "bob").await.unwrap(), "one");
    tokio::task::yield_now().await;
    let connects = net.connects();
    sleep(10 * RECONNECT_MAX).await;
    assert_eq!(net.connects(), connects, "nobody connects any more");
}
