//! Who gets in: origins, URLs with tokens, too much of anything, and the end.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use duologue_proto::chat::v1::chat_service_client::ChatServiceClient;
use duologue_proto::chat::v1::{SendMessageRequest, SubscribeRequest};
use duologue_runtime::listener::{Tls, TlsFiles};
use duologue_runtime::rate::RateLimit;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_types::StatusExt as _;
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{ORIGIN, SERVICE, Setup, Web, framed, soon, style};

fn to_bob() -> Vec<u8> {
    framed(&SendMessageRequest {
        peer: "bob".to_owned(),
        ..Default::default()
    })
}

#[tokio::test]
async fn a_page_of_a_foreign_origin_gets_nothing_but_the_page() {
    let web = Web::open().await;
    for origin in ["https://evil.example", "null", "http://chat.example.com"] {
        let mut call = web.call("SendMessage", "+proto", "alice");
        call.headers_mut()
            .unwrap()
            .insert("origin", origin.parse().unwrap());
        let answer = web.send(call, to_bob()).await;
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (403, "origin_not_allowed")
        );
        assert_eq!(answer.header("access-control-allow-origin"), "");
        for (path, status) in [
            ("/config.json", 403),
            ("/no-such-path", 403),
            ("/", 200),
            (style(), 200),
        ] {
            let request = Request::get(path).header("origin", origin);
            let answer = web.send(request, "").await;
            assert_eq!(answer.status, status, "{path}");
            assert_eq!(answer.header("access-control-allow-origin"), "");
        }
    }
    let metrics = web.metrics.encode().unwrap();
    assert!(
        !metrics.contains("grpc_calls_total{"),
        "it was called: {metrics}"
    );
}

#[tokio::test]
async fn two_origins_are_not_one_that_is_allowed() {
    let web = Web::open().await;
    let request = Request::get("/config.json")
        .header("origin", ORIGIN)
        .header("origin", "https://evil.example");
    assert_eq!(web.send(request, "").await.status, 403);
}

#[tokio::test]
async fn programs_send_no_origin_and_pass() {
    let web = Web::open().await;
    let mut call = web.call("SendMessage", "+proto", "alice");
    call.headers_mut().unwrap().remove("origin");
    let answer = web.send(call, to_bob()).await;
    assert_eq!(answer.frames().0.len(), 1);
    assert_eq!(answer.header("access-control-allow-origin"), "");
}

#[tokio::test]
async fn an_allowed_page_may_call_and_read_how_it_ended() {
    let web = Web::open().await;
    let preflight = |origin: &str| {
        Request::builder()
            .method(Method::OPTIONS)
            .uri(format!("{SERVICE}SendMessage"))
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header(
                "access-control-request-headers",
                "authorization,content-type,x-grpc-web",
            )
    };
    let answer = web.send(preflight(ORIGIN), "").await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), ORIGIN);
    assert_eq!(answer.header("access-control-allow-credentials"), "");
    assert!(
        answer
            .header("access-control-allow-methods")
            .contains("POST")
    );
    let headers = answer.header("access-control-allow-headers");
    for name in [
        "authorization",
        "content-type",
        "x-grpc-web",
        "x-user-agent",
        "grpc-timeout",
    ] {
        assert!(headers.contains(name), "{headers}");
    }
    assert_eq!(answer.header("vary"), "origin");
    assert_eq!(
        web.send(preflight("https://evil.example"), "").await.status,
        403
    );

    let call = web.call("SendMessage", "+proto", "alice");
    let answer = web.send(call, to_bob()).await;
    assert_eq!(answer.header("access-control-allow-origin"), ORIGIN);
}

/// Everything that is logged, at any level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn a_token_in_the_url_is_refused_and_not_logged() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    let _watch = duologue_runtime::telemetry::watch(subscriber);
    let web = Web::open().await;
    let token = web.token("alice");
    for path in [
        format!("/config.json?token={token}"),
        format!("/?x={token}"),
        format!("/assets/{token}"),
        format!("{SERVICE}Subscribe?access_token={token}"),
    ] {
        // As bytes, so that no client of ours logs it.
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = web.raw(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("token_in_url"), "{answer}");
        assert!(!answer.contains(&token), "{answer}");
    }
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("token_in_url"), "{logged}");
    assert!(!logged.contains(&token), "{logged}");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let web = Web::open().await;
    let long = "x".repeat(20 * 1024);
    let request = format!("GET / HTTP/1.1\r\nhost: x\r\nlong: {long}\r\n\r\n");
    let answer = web.raw(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let many = "a: b\r\n".repeat(200);
    let request = format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n");
    let answer = web.raw(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn what_is_no_http_is_closed() {
    let web = Web::open().await;
    for bytes in [
        &b"\x16\x03\x01\x02\0\x01"[..],
        b"HELO there\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX",
    ] {
        let answer = web.raw(bytes).await;
        assert!(!answer.contains("200"), "{answer}");
    }
    assert_eq!(web.get("/").await.status, 200);
}

#[tokio::test]
async fn native_calls_pass_over_http_2() {
    let web = Web::open().await;
    let endpoint = Endpoint::from_shared(format!("http://{}", web.address)).unwrap();
    let mut client = ChatServiceClient::new(endpoint.connect().await.unwrap());
    let mut request = tonic::Request::new(SubscribeRequest::default());
    let bearer = format!("Bearer {}", web.token("failing")).parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    let mut events = client.subscribe(request).await.unwrap().into_inner();
    for _ in 0..3 {
        events.message().await.unwrap().unwrap();
    }
    assert_eq!(
        events.message().await.unwrap_err().code(),
        Code::Unavailable
    );
}

#[tokio::test]
async fn one_address_asks_no_more_often_than_it_may() {
    let requests = RateLimit {
        per_second: 1,
        burst: 2,
    };
    let web = Web::open_with(Setup {
        requests: Some(requests),
        ..Setup::default()
    })
    .await;
    assert_eq!(web.get("/").await.status, 200);
    assert_eq!(web.get("/config.json").await.status, 200);
    // It gains while requests are made.
    let refused = async {
        loop {
            let answer = web.get("/config.json").await;
            if answer.status != 200 {
                return answer;
            }
        }
    };
    let answer = soon(refused).await;
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (429, "rate_limited")
    );
    assert_eq!(answer.header("retry-after"), "1");

    let refused = async {
        loop {
            let call = web.call("SendMessage", "+proto", "alice");
            let answer = web.send(call, to_bob()).await;
            if answer.headers.contains_key("grpc-status") {
                return answer.status_in_head();
            }
        }
    };
    let status = soon(refused).await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "RATE_LIMITED");
    assert!(details.retry_info().is_some());
}

#[tokio::test]
async fn the_end_waits_for_what_is_under_way_and_for_nobody_else() {
    let web = Web::open().await;
    let request = web.call("Subscribe", "+proto", "endless");
    let mut begun = web
        .begin(request, framed(&SubscribeRequest::default()))
        .await;
    soon(begun.body.frame()).await.unwrap().unwrap();
    // One that has said nothing, one in the middle of a head, one that was answered.
    let _silent = TcpStream::connect(web.address).await.unwrap();
    let mut idle = TcpStream::connect(web.address).await.unwrap();
    idle.write_all(b"GET /config.json HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    soon(idle.read(&mut [0; 1024])).await.unwrap();
    web.shutdown.trigger();
    while soon(idle.read(&mut [0; 1024])).await.unwrap() > 0 {}
    assert!(!web.served.is_finished());
    begun.abort().await;
    soon(web.served).await.unwrap();
}

#[tokio::test]
async fn at_the_end_of_the_grace_period_whatever_is_left_is_cut_off() {
    let mut web = Web::open().await;
    let request = web.call("Subscribe", "+proto", "endless");
    let begun = web
        .begin(request, framed(&SubscribeRequest::default()))
        .await;
    web.shutdown.stop();
    soon(&mut web.served).await.unwrap();
    soon(web.dropped.recv()).await.unwrap();
    assert!(
        soon(begun.body.collect()).await.is_err(),
        "it must not look like an end"
    );
}

fn certificate() -> (tempfile::TempDir, TlsFiles) {
    let folder = tempfile::tempdir().unwrap();
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let files = TlsFiles {
        cert: folder.path().join("cert.pem"),
        key: folder.path().join("key.pem"),
    };
    std::fs::write(&files.cert, pair.cert.pem()).unwrap();
    std::fs::write(&files.key, pair.signing_key.serialize_pem()).unwrap();
    (folder, files)
}

#[tokio::test]
async fn over_tls_both_versions_of_http_are_offered() {
    let (_folder, files) = certificate();
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(&files.cert).unwrap())
        .unwrap();
    let tls = Tls::load(files).unwrap().with_http1();
    let web = Web::open_with(Setup {
        tls: Some(tls),
        ..Setup::default()
    })
    .await;
    for (asked, got) in [
        (&[&b"h2"[..], b"http/1.1"][..], &b"h2"[..]),
        (&[b"http/1.1"], b"http/1.1"),
    ] {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = asked.iter().map(|name| name.to_vec()).collect();
        let stream = TcpStream::connect(web.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let mut stream = soon(connector.connect(name, stream)).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(got));
        if got == b"http/1.1" {
            let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            stream.write_all(request).await.unwrap();
            let mut answer = Vec::new();
            let _ = soon(stream.read_to_end(&mut answer)).await;
            assert!(Bytes::from(answer).starts_with(b"HTTP/1.1 200 "));
        }
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for_without_end() {
    let web = Web::open().await;
    let mut stream = TcpStream::connect(web.address).await.unwrap();
    let head = format!(
        "POST {SERVICE}Subscribe HTTP/1.1\r\nhost: x\r\ncontent-type: application/grpc-web\r\n\
         content-length: 5\r\nauthorization: Bearer {}\r\n\r\n",
        web.token("alice"),
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = tokio::time::timeout(Duration::from_secs(25), stream.read(&mut answer)).await;
    let answer = String::from_utf8(answer[..read.unwrap().unwrap()].to_vec()).unwrap();
    assert!(answer.contains("grpc-status: 4\r\n"), "{answer}");
}
