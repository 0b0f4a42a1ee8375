//! Who calls: only a good token lets anybody in.

use std::time::Duration;

use duologue_proto::chat::v1::converse_request::Frame as Up;
use duologue_proto::chat::v1::{GoodbyeReason, ListConversationsRequest};
use duologue_runtime::auth::{DEV_KEY_FILE, DevKey};
use duologue_runtime::clock::{Clock as _, SystemClock, SystemRandom};
use duologue_runtime::refusal::Reason;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tonic::Status;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::support::calls::Bearer;
use crate::support::refused::assert_refused;
use crate::support::{Server, Session, Watch, frames, soon};

/// Why a call with this token is refused.
async fn refusal(server: &Server, bearer: Bearer) -> Status {
    let mut chat = server.chat_with(bearer).await;
    let unary = chat
        .list_conversations(ListConversationsRequest::default())
        .await;
    let stream = chat.converse(tokio_stream::pending()).await;
    let (unary, stream) = (unary.unwrap_err(), stream.unwrap_err());
    assert_eq!(unary.code(), stream.code());
    assert_eq!(unary.message(), stream.message());
    unary
}

/// Signs any claims with the server's own key.
fn signed(server: &Server, claims: &Value) -> String {
    let pem = std::fs::read(server.place.data().join(DEV_KEY_FILE)).unwrap();
    let key = EncodingKey::from_ed_pem(&pem).unwrap();
    jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), claims, &key).unwrap()
}

fn in_an_hour() -> u64 {
    SystemClock.now().0 / 1_000 + 3_600
}

#[tokio::test]
async fn without_a_token_nobody_gets_in() {
    let server = Server::start(&[]).await;
    assert_refused(
        &refusal(&server, Bearer::none()).await,
        Reason::TokenMissing,
    );
}

#[tokio::test]
async fn a_token_that_is_garbled_or_signed_by_another_key_is_refused() {
    let server = Server::start(&[]).await;
    let stranger = DevKey::ephemeral(&SystemRandom);
    let user = "alice".parse().unwrap();
    let foreign = stranger.sign(&user, Duration::from_mins(1), &SystemClock);
    let mut cut = server.token("alice");
    cut.pop();
    for token in ["garbage", "a.b.c", "..", &foreign, &cut] {
        let status = refusal(&server, Bearer::new(token)).await;
        assert_refused(&status, Reason::TokenInvalid);
        assert!(!status.message().contains(token), "{status:?}");
    }
}

#[tokio::test]
async fn a_token_chooses_neither_its_algorithm_nor_to_be_unsigned() {
    let server = Server::start(&[]).await;
    // {"alg":"none"}.{"sub":"alice","exp":99999999999}
    let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSIsImV4cCI6OTk5OTk5OTk5OTl9.";
    // The public key as the secret of a symmetric algorithm.
    let claims = json!({"sub": "alice", "exp": in_an_hour()});
    let secret = EncodingKey::from_secret(b"public");
    let symmetric = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &secret).unwrap();
    for token in [unsigned, &symmetric] {
        let status = refusal(&server, Bearer::new(token)).await;
        assert_refused(&status, Reason::TokenInvalid);
    }
}

#[tokio::test]
async fn every_claim_must_be_there_and_have_its_type() {
    let server = Server::start(&[]).await;
    let exp = in_an_hour();
    let good = signed(&server, &json!({"sub": "alice", "exp": exp}));
    let mut chat = server.chat_with(Bearer::new(&good)).await;
    chat.list_conversations(ListConversationsRequest::default())
        .await
        .unwrap();
    for claims in [
        json!({"sub": 7, "exp": exp}),
        json!({"sub": "alice", "exp": exp.to_string()}),
        json!({"sub": ["alice"], "exp": exp}),
        json!({"sub": null, "exp": exp}),
        json!({"exp": exp}),
        json!({"sub": "alice"}),
        json!({"sub": "alice", "exp": exp, "nbf": "0"}),
        json!({"sub": "no spaces", "exp": exp}),
        json!({"sub": "", "exp": exp}),
        json!({"sub": "a".repeat(65), "exp": exp}),
        json!({"sub": "alice", "exp": exp, "nbf": exp}),
    ] {
        let status = refusal(&server, Bearer::new(&signed(&server, &claims))).await;
        assert_refused(&status, Reason::TokenInvalid);
    }
}

#[tokio::test]
async fn an_expired_token_is_told_apart_from_a_bad_one() {
    let server = Server::start(&[]).await;
    let token = server.place.token("alice", Duration::ZERO);
    let status = refusal(&server, Bearer::new(&token)).await;
    assert_refused(&status, Reason::TokenExpired);
}

#[tokio::test]
async fn a_stream_ends_when_its_token_expires() {
    let server = Server::start(&[]).await;
    // Whole seconds count, the begun one not; both streams must be open before.
    let token = server.place.token("alice", Duration::from_secs(5));
    let chat = server.chat_with(Bearer::new(&token)).await;
    let mut session = Session::open(&chat, frames::hello()).await;
    let mut watch = Watch::open(&chat, frames::hello()).await;
    let end = session.end().await;
    assert_eq!(end.goodbye().reason(), GoodbyeReason::Unauthenticated);
    assert_refused(end.status(), Reason::TokenExpired);
    assert_refused(&watch.end().await.1.unwrap_err(), Reason::TokenExpired);
}

#[tokio::test]
async fn a_user_cannot_speak_as_another() {
    let server = Server::start(&[]).await;
    let (alice, mallory) = (server.chat("alice").await, server.chat("mallory").await);
    let (mut bob, _, _) = Session::caught_up(&server.chat("bob").await, frames::hello()).await;
    let (mut mallory, _, _) = Session::caught_up(&mallory, frames::hello()).await;
    mallory.ask(1, frames::send("bob", "m", "hi")).await;
    assert_eq!(bob.messages(1).await[0].sender, "mallory");
    // Nothing that a frame may name makes it alice's.
    let (_, shown, _) = Session::caught_up(&alice, frames::hello()).await;
    assert!(shown.is_empty());
}

#[tokio::test]
async fn health_and_reflection_need_no_token() {
    let server = Server::start(&[]).await;
    let mut health = HealthClient::new(server.channel().await);
    for service in ["", "duologue.chat.v1.ChatService"] {
        let service = service.to_owned();
        let answer = health.check(HealthCheckRequest { service }).await.unwrap();
        assert_eq!(answer.into_inner().status().as_str_name(), "SERVING");
    }
    let mut reflection = ServerReflectionClient::new(server.channel().await);
    let asked = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let stream = reflection
        .server_reflection_info(tokio_stream::once(asked))
        .await;
    let answer = soon(stream.unwrap().into_inner().message()).await.unwrap();
    let Some(MessageResponse::ListServicesResponse(listed)) = answer.unwrap().message_response
    else {
        panic!("no list of services")
    };
    let names: Vec<_> = listed
        .service
        .into_iter()
        .map(|service| service.name)
        .collect();
    assert!(
        names.contains(&"duologue.chat.v1.ChatService".to_owned()),
        "{names:?}"
    );
}

#[tokio::test]
async fn reflection_can_be_turned_off() {
    let server = Server::start(&["--no-reflection"]).await;
    let mut reflection = ServerReflectionClient::new(server.channel().await);
    let asked = ServerReflectionRequest::default();
    let answer = reflection
        .server_reflection_info(tokio_stream::once(asked))
        .await;
    assert_eq!(answer.unwrap_err().code(), tonic::Code::Unimplemented);
}

#[tokio::test]
async fn the_two_tokens_of_a_server_in_memory_are_good_there() {
    let place = crate::support::Place::new();
    let mut command = crate::support::program();
    command.args(["serve", "--data", "memory"]);
    command.args([
        "--web-listen",
        "127.0.0.1:0",
        "--grpc-listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
    ]);
    let mut server = place.serve_as(command).await;
    let printed = server.rest_of_banner("bob  ").await;
    for user in ["alice", "bob"] {
        let line = printed
            .lines()
            .find_map(|line| line.trim().strip_prefix(user));
        let chat = server.chat_with(Bearer::new(line.unwrap().trim())).await;
        let (session, ..) = Session::caught_up(&chat, frames::hello()).await;
        assert_eq!(session.welcome.user, user);
    }
    assert!(!place.data().exists());
}

#[tokio::test]
async fn a_token_is_not_taken_from_a_frame() {
    let server = Server::start(&[]).await;
    let token = server.token("bob");
    let hello = duologue_proto::chat::v1::Hello {
        access_token: token.clone(),
        ..frames::hello()
    };
    let end = Session::end_of(&server.chat("alice").await, Up::Hello(hello)).await;
    crate::support::refused::assert_field(end.status(), "hello.access_token");
    assert!(!format!("{end:?}").contains(&token));
}
