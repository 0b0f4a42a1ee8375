//! What the admin endpoints answer, over real sockets.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::net::{Ipv4Addr, SocketAddr};

use duologue_proto::ids::UnixMillis;
use duologue_runtime::admin::{Admin, HEADER_READ_TIMEOUT, MAX_REQUEST_HEAD_BYTES, Readiness};
use duologue_runtime::metrics::{BuildInfo, Metrics};
use duologue_runtime::task;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

struct Started {
    address: SocketAddr,
    readiness: Readiness,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

async fn start() -> Started {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (readiness, stop) = (Readiness::default(), CancellationToken::new());
    let build = BuildInfo::of("duologue");
    let admin = Admin {
        build,
        metrics: Metrics::new(build, UnixMillis(1_000)),
        readiness: readiness.clone(),
    };
    let served = task::spawn(
        "admin",
        admin.serve(listener, stop.clone().cancelled_owned()),
    );
    Started {
        address,
        readiness,
        stop,
        served,
    }
}

/// Sends a request and returns everything that is answered.
async fn send(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get(address: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    send(address, &request).await
}

#[tokio::test]
async fn tells_that_it_lives_its_build_and_its_numbers() {
    let started = start().await;
    let lives = get(started.address, "/livez").await;
    assert!(
        lives.starts_with("HTTP/1.1 200") && lives.ends_with("\r\n\r\nok\n"),
        "{lives}"
    );
    let build = get(started.address, "/buildinfo").await;
    let json = build.split_once("\r\n\r\n").unwrap().1;
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(json["name"], "duologue");
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    let metrics = get(started.address, "/metrics").await;
    assert!(
        metrics.contains("application/openmetrics-text"),
        "{metrics}"
    );
    assert!(
        metrics.contains("duologue_process_start_time_seconds 1\n"),
        "{metrics}"
    );
    assert!(
        get(started.address, "/secrets")
            .await
            .starts_with("HTTP/1.1 404")
    );
}

#[tokio::test]
async fn is_ready_only_while_every_check_is() {
    let started = start().await;
    let store = started.readiness.register("store");
    let grpc = started.readiness.register("grpc");
    let ready = || get(started.address, "/readyz");
    let answer = ready().await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(
        answer.ends_with("grpc: starting\nstore: starting\n"),
        "{answer}"
    );
    store.set_ready();
    grpc.set_ready();
    assert!(ready().await.starts_with("HTTP/1.1 200"));
    store.set_failing("the disk is full");
    let answer = ready().await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(
        answer.ends_with("\r\n\r\nstore: the disk is full\n"),
        "{answer}"
    );
    store.set_ready();
    assert!(ready().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_refused() {
    let started = start().await;
    let filler = "x".repeat(2 * MAX_REQUEST_HEAD_BYTES);
    let mut stream = TcpStream::connect(started.address).await.unwrap();
    let request = format!("GET /livez HTTP/1.1\r\nhost: x\r\nfiller: {filler}\r\n\r\n");
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
    assert!(
        get(started.address, "/livez")
            .await
            .starts_with("HTTP/1.1 200")
    );
}

#[tokio::test(start_paused = true)]
async fn a_head_that_never_ends_is_not_waited_for() {
    let started = start().await;
    let mut slow = TcpStream::connect(started.address).await.unwrap();
    slow.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
    let began = Instant::now();
    let mut answer = Vec::new();
    let _ = slow.read_to_end(&mut answer).await;
    let took = began.elapsed().as_secs();
    assert!(took <= HEADER_READ_TIMEOUT.as_secs(), "{took}");
}

#[tokio::test]
async fn a_stop_ends_idle_connections_and_the_listener() {
    let started = start().await;
    let mut idle = TcpStream::connect(started.address).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    started.stop.cancel();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    started.served.await.unwrap();
    assert!(TcpStream::connect(started.address).await.is_err());
}
