//! Silent logs: neither texts nor tokens, at any level.

use duologue_proto::chat::v1::ListConversationsRequest;
use duologue_proto::chat::v1::converse_request::Frame as Up;

use crate::support::calls::{Bearer, history, sent};
use crate::support::frames::{hello, send};
use crate::support::{Place, Session};

const TEXT: &str = "xylophone-zebra-quartz";

#[tokio::test]
async fn at_the_loudest_level_no_text_token_or_key_reaches_the_log() {
    let place = Place::new();
    let mut command = place.command(&[]);
    command.env(
        "RUST_LOG",
        "trace,h2=trace,hyper=trace,hyper_util=trace,tonic=trace,tower=trace",
    );
    let server = place.serve_as(command).await;
    let token = server.token("alice");
    let chat = server.chat_with(Bearer::new(&token)).await;
    let (mut alice, _, sync_token) = Session::caught_up(&chat, hello()).await;
    alice.ask(1, send("bob", "m1", TEXT)).await;
    // Refusals and what cannot be understood must be as silent.
    alice.ask(2, send("b b", "m2", TEXT)).await;
    alice
        .ask(3, send("bob", "m1", &format!("{TEXT} again")))
        .await;
    let forged = format!("{token}forged");
    let mut stranger = server.chat_with(Bearer::new(&forged)).await;
    stranger
        .list_conversations(ListConversationsRequest::default())
        .await
        .unwrap_err();
    let wrong = duologue_proto::chat::v1::Hello {
        access_token: token.clone(),
        ..hello()
    };
    Session::end_of(&chat, Up::Hello(wrong)).await;
    let mut bob = server.chat("bob").await;
    sent(&mut bob, "alice", "m3", TEXT).await;
    assert_eq!(history(&mut bob, "alice").await.len(), 2);
    alice.messages(1).await;
    alice.finish();
    alice.end().await;

    let mut server = server;
    server.signal("TERM").await;
    assert!(server.ended().await.success());
    let log = place.log();
    assert!(log.contains("DEBUG"), "not the loudest level: {log}");
    let key = std::fs::read_to_string(place.data().join("development-key.pem")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    let signature = token.rsplit('.').next().unwrap();
    for (what, hidden) in [
        ("text", TEXT),
        ("token", token.as_str()),
        ("signature", signature),
        ("key", secret),
        ("sync token", sync_token.as_str()),
    ] {
        let line = log.lines().find(|line| line.contains(hidden));
        assert_eq!(line, None, "a {what} is in the log");
    }
}
