//! Signing in for development, and all who must not.

use duologue_proto::chat::v1::SendMessageRequest;
use http::Request;
use http::request::Builder;

use crate::support::{Answer, Setup, Web, framed};

async fn open() -> Web {
    Web::open_with(Setup {
        own_origins: true,
        ..Setup::default()
    })
    .await
}

/// What a page sends that was opened at this host.
fn ask(web: &Web, host: &str) -> Builder {
    let host = format!("{host}:{}", web.address.port());
    Request::post("/dev/token")
        .header("host", &host)
        .header("origin", format!("http://{host}"))
        .header("content-type", "application/json")
}

const ALICE: &str = "{\"user\":\"alice\"}";

async fn refused(web: &Web, request: Builder, body: impl Into<bytes::Bytes>) -> (u16, String) {
    let answer = web.send(request, body).await;
    (answer.status, answer.error())
}

fn token(answer: &Answer) -> String {
    let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    // An hour after the clock of the test.
    assert_eq!(json["expiresAt"], "2023-11-14T23:13:20Z");
    json["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_page_on_loopback_gets_a_token_that_is_good() {
    let web = open().await;
    for host in ["127.0.0.1", "localhost", "[::1]"] {
        let answer = web.send(ask(&web, host), ALICE).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("cache-control"), "no-store");
        let request = Request::post("/duologue.chat.v1.ChatService/SendMessage")
            .header("content-type", "application/grpc-web+proto")
            .header("authorization", format!("Bearer {}", token(&answer)));
        let answer = web.send(request, framed(&SendMessageRequest::default())).await;
        assert_eq!(answer.frames().0.len(), 1);
    }
}

#[tokio::test]
async fn a_foreign_page_a_rebound_name_and_a_program_get_none() {
    let web = open().await;
    let port = web.address.port();
    let own = format!("127.0.0.1:{port}");
    for (host, origin, code) in [
        (&*own, Some("https://evil.example"), "origin_not_allowed"),
        (&own, None, "origin_not_allowed"),
        // A name that was made to mean 127.0.0.1, before and after its page is asked.
        ("evil.example", Some("http://evil.example"), "origin_not_allowed"),
        ("evil.example", Some("http://localhost"), "host_not_allowed"),
        ("127.0.0.1:1", Some("http://localhost"), "host_not_allowed"),
    ] {
        let origin = origin.map(|origin| match origin {
            "http://localhost" => format!("http://localhost:{port}"),
            other => other.to_owned(),
        });
        let mut request = Request::post("/dev/token")
            .header("host", host)
            .header("content-type", "application/json");
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        let (status, got) = refused(&web, request, ALICE).await;
        assert_eq!((status, &*got), (403, code), "{host}");
    }
}

#[tokio::test]
async fn a_request_that_is_not_one_is_told_why() {
    let web = open().await;
    let ask = || ask(&web, "localhost");
    for body in ["", "alice", "{}", "{\"user\":1}", "{\"user\":\"a\",\"x\":1}"] {
        assert_eq!(refused(&web, ask(), body).await, (400, "malformed".to_owned()), "{body}");
    }
    let long = format!("{{\"user\":\"{}\"}}", "a".repeat(65));
    for body in ["{\"user\":\"\"}", "{\"user\":\"<b>\"}", &long] {
        let body = body.to_owned();
        assert_eq!(refused(&web, ask(), body).await, (400, "invalid_user".to_owned()));
    }
    let large = " ".repeat(2_000);
    assert_eq!(refused(&web, ask(), large).await, (413, "too_large".to_owned()));

    let mut form = ask();
    form.headers_mut().unwrap().insert("content-type", "text/plain".parse().unwrap());
    let wanted = (415, "unsupported_media_type".to_owned());
    assert_eq!(refused(&web, form, ALICE).await, wanted);
}

#[tokio::test]
async fn without_the_development_key_there_is_none() {
    let web = Web::open_with(Setup {
        own_origins: true,
        no_dev_key: true,
        ..Setup::default()
    })
    .await;
    let wanted = (404, "no_development_key".to_owned());
    assert_eq!(refused(&web, ask(&web, "localhost"), ALICE).await, wanted);
}
