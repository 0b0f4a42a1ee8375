//! What an operator and an orchestrator are told.

use duologue_proto::chat::v1::ListConversationsRequest;

use crate::support::calls::sent;
use crate::support::frames::{hello, send};
use crate::support::http::get;
use crate::support::refused::assert_refused;
use crate::support::{Server, Session};

#[tokio::test]
async fn a_server_that_says_it_is_ready_lives_is_ready_and_names_its_build() {
    let server = Server::start(&[]).await;
    assert_eq!(get(server.admin, "/livez").await.code, 200);
    assert_eq!(get(server.admin, "/readyz").await.code, 200);
    let build = get(server.admin, "/buildinfo").await;
    assert_eq!(build.code, 200);
    assert!(
        build.body.contains(env!("CARGO_PKG_VERSION")),
        "{}",
        build.body
    );
    assert_eq!(get(server.admin, "/").await.code, 404);
}

#[tokio::test]
async fn metrics_count_and_name_nobody() {
    let server = Server::start(&[]).await;
    let (mut alice, ..) = Session::caught_up(&server.chat("alice-the-user").await, hello()).await;
    alice
        .ask(1, send("bob-the-peer", "message-one", "hi"))
        .await;
    let mut chat = server.chat("alice-the-user").await;
    sent(&mut chat, "bob-the-peer", "message-two", "hi").await;
    // A path that a caller chooses must not become a label.
    let token = server.token("alice-the-user");
    let path = "/chosen.by.a.Caller/Method";
    let unknown = crate::support::raw::call(server.channel().await, Some(&token), path, vec![]);
    let unknown = crate::support::raw::status_of(unknown.await)
        .await
        .unwrap_err();
    assert_refused(&unknown, duologue_runtime::refusal::Reason::UnknownMethod);
    chat.list_conversations(ListConversationsRequest::default())
        .await
        .unwrap();

    let metrics = get(server.admin, "/metrics").await;
    assert_eq!(metrics.code, 200);
    for name in ["chat_sends_total{outcome=\"Stored\"} 1", "chat_sessions 1"] {
        assert!(
            metrics.body.contains(name),
            "{name} is not in {}",
            metrics.body
        );
    }
    assert!(metrics.body.contains("SendMessage"), "{}", metrics.body);
    for secret in ["alice", "bob-the", "message-", "chosen"] {
        assert!(
            !metrics.body.contains(secret),
            "{secret} is in {}",
            metrics.body
        );
    }
    assert!(metrics.body.ends_with("# EOF\n"));
}
