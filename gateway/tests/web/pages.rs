//! The page and what protects it.

use http::{HeaderMap, Request};

use crate::support::{SERVICE, Setup, Web, style};

const PROTECTION: [(&str, &str); 6] = [
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
         font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
         trusted-types 'none'",
    ),
];

fn assert_protected(headers: &HeaderMap) {
    for (name, value) in PROTECTION {
        assert_eq!(headers.get(name).unwrap(), value);
    }
}

#[tokio::test]
async fn every_answer_protects_the_page() {
    let web = Web::open().await;
    for (path, status) in [
        ("/", 200),
        (style(), 200),
        ("/config.json", 200),
        ("/no-such-path", 404),
        ("/config.json?token=x", 400),
        ("/dev/token", 405),
        (&format!("{SERVICE}SendMessage"), 405),
    ] {
        let answer = web.get(path).await;
        assert_eq!(answer.status, status, "{path}");
        assert_protected(&answer.headers);
        assert!(!answer.headers.contains_key("set-cookie"));
    }
    let foreign = Request::get("/config.json").header("origin", "https://evil.example");
    assert_protected(&web.send(foreign, "").await.headers);
}

#[tokio::test]
async fn the_page_is_asked_for_again_and_sent_again_only_if_it_has_changed() {
    let web = Web::open().await;
    let page = web.get("/").await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(page.body.starts_with(b"<!doctype html>"));
    assert_eq!(page.header("cache-control"), "no-cache");
    let again = Request::get("/").header("if-none-match", page.header("etag"));
    let again = web.send(again, "").await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    let other = Request::get("/").header("if-none-match", "\"another\"");
    assert_eq!(web.send(other, "").await.status, 200);
}

#[tokio::test]
async fn what_has_a_hash_in_its_name_is_kept_for_good() {
    let web = Web::open().await;
    let style = web.get(style()).await;
    assert_eq!(style.status, 200);
    assert!(style.header("cache-control").contains("immutable"));
    assert!(style.header("content-type").starts_with("text/css"));
}

#[tokio::test]
async fn the_page_is_compressed_as_the_browser_likes_it() {
    let web = Web::open().await;
    let plain = web.get("/").await;
    assert_eq!(plain.header("content-encoding"), "");
    for (accepted, encoding) in [("gzip, deflate, br", "br"), ("gzip", "gzip")] {
        let request = Request::get("/").header("accept-encoding", accepted);
        let answer = web.send(request, "").await;
        assert_eq!(answer.header("content-encoding"), encoding);
        assert!(answer.body.len() < plain.body.len());
        let vary: Vec<_> = answer.headers.get_all("vary").iter().collect();
        assert!(
            vary.iter().any(|name| *name == "accept-encoding"),
            "{vary:?}"
        );
    }
}

#[tokio::test]
async fn the_page_learns_whether_it_can_sign_in_for_development() {
    for no_dev_key in [false, true] {
        let web = Web::open_with(Setup {
            no_dev_key,
            ..Setup::default()
        })
        .await;
        let answer = web.get("/config.json").await;
        let config: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(config, serde_json::json!({"devToken": !no_dev_key}));
        assert_eq!(answer.header("cache-control"), "no-store");
    }
}
