//! What the server promises to every caller, whatever the service.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use duologue_proto::chat::v1 as wire;
use duologue_runtime::listener::PREFACE_TIMEOUT;
use duologue_runtime::refusal::Reason;
use duologue_runtime::server::MAX_HEADER_LIST_BYTES;
use futures_util::stream;
use support::{DEADLINE, GRACE, Server, from_alice, presence_of, soon, with_token};
use tokio::io::AsyncReadExt as _;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_types::StatusExt as _;

#[track_caller]
fn assert_reason(status: &Status, reason: Reason) {
    let details = status.get_error_details();
    let info = details.error_info().expect("there are details");
    assert_eq!(info.reason, reason.as_str(), "{status:?}");
    assert_eq!(info.domain, "duologue");
    assert_eq!(status.code(), reason.code());
}

/// Calls a method by its path, with a stream as the request.
async fn call(
    channel: Channel,
    path: &'static str,
    request: Request<impl stream::Stream<Item = wire::GetPresenceRequest> + Send + 'static>,
) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = PathAndQuery::from_static(path);
    let codec = tonic_prost::ProstCodec::<_, wire::GetPresenceResponse>::default();
    grpc.client_streaming(request, path, codec).await.map(drop)
}

#[tokio::test(start_paused = true)]
async fn a_call_needs_a_valid_token_and_the_handler_learns_whose_it_is() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let refused = client.get_presence(presence_of("bob")).await;
    assert_reason(&refused.unwrap_err(), Reason::TokenMissing);
    for (token, reason) in [
        ("bad", Reason::TokenInvalid),
        ("old:alice", Reason::TokenExpired),
    ] {
        let refused = client
            .get_presence(with_token(token, presence_of("bob")))
            .await;
        assert_reason(&refused.unwrap_err(), reason);
    }
    let answer = client.get_presence(from_alice(presence_of("bob"))).await;
    let presence = answer.unwrap().into_inner().presence.unwrap();
    assert_eq!(presence.user, "alice");
}

#[tokio::test(start_paused = true)]
async fn health_and_reflection_need_no_token() {
    let server = Server::start().await;
    let channel = server.channel().await;
    let mut health = HealthClient::new(channel.clone());
    for (service, serving) in [
        ("", false),
        (support::CHAT, false),
        ("", true),
        (support::CHAT, true),
    ] {
        server.health.set(serving).await;
        let request = HealthCheckRequest {
            service: service.into(),
        };
        let status = health.check(request).await.unwrap().into_inner().status;
        assert_eq!(status, if serving { 1 } else { 2 }, "{service:?}");
    }

    let request = ServerReflectionRequest {
        message_request: Some(
            tonic_reflection::pb::v1::server_reflection_request::MessageRequest::ListServices(
                String::new(),
            ),
        ),
        ..Default::default()
    };
    let mut reflection = ServerReflectionClient::new(channel);
    let answers = reflection
        .server_reflection_info(stream::iter([request]))
        .await;
    let answer = answers.unwrap().into_inner().message().await.unwrap();
    let listed = format!("{answer:?}");
    for service in [
        support::CHAT,
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
    ] {
        assert!(listed.contains(service), "{service} is not in {listed}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_who_has_a_token_learns_that_a_method_does_not_exist() {
    let server = Server::start().await;
    for path in [
        "/no.such.Service/Call",
        "/duologue.chat.v1.ChatService/NoSuchMethod",
        "/grpc.health.v1.Health/NoSuchMethod",
    ] {
        let stranger = Request::new(stream::empty());
        let refused = call(server.channel().await, path, stranger)
            .await
            .unwrap_err();
        assert_reason(&refused, Reason::TokenMissing);
        let alice = from_alice(stream::empty());
        let refused = call(server.channel().await, path, alice).await.unwrap_err();
        assert_reason(&refused, Reason::UnknownMethod);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_handler_ends_with_deadline_exceeded() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let began = Instant::now();
    let refused = client
        .get_presence(from_alice(presence_of("slow")))
        .await
        .unwrap_err();
    assert_reason(&refused, Reason::DeadlineExceeded);
    assert!(refused.message().contains("7s"), "{refused:?}");
    assert_eq!(began.elapsed().as_secs(), DEADLINE.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_never_ends_ends_with_deadline_exceeded() {
    let server = Server::start().await;
    let path = "/duologue.chat.v1.ChatService/GetPresence";
    let request = from_alice(stream::pending());
    let refused = call(server.channel().await, path, request)
        .await
        .unwrap_err();
    assert_reason(&refused, Reason::DeadlineExceeded);
}

#[tokio::test(start_paused = true)]
async fn a_stream_has_no_deadline_by_default() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let mut frames = client
        .converse(from_alice(stream::pending()))
        .await
        .unwrap()
        .into_inner();
    let long = tokio::time::timeout(100 * DEADLINE, frames.message()).await;
    assert!(long.is_err(), "{long:?}");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_a_stream_asks_for_bounds_both_its_bodies() {
    let server = Server::start().await;
    let (ended, input_ended) = oneshot::channel();
    server.stub.input_ended.lock().unwrap().replace(ended);
    let mut client = server.client().await;
    let mut request = from_alice(stream::pending());
    request.set_timeout(Duration::from_secs(100));
    let began = Instant::now();
    let mut frames = client.converse(request).await.unwrap().into_inner();
    let refused = soon(frames.message()).await.unwrap_err();
    assert_reason(&refused, Reason::DeadlineExceeded);
    assert_eq!(began.elapsed().as_secs(), 100);
    assert_eq!(
        soon(input_ended).await.unwrap(),
        Some(Code::DeadlineExceeded)
    );
}

#[tokio::test(start_paused = true)]
async fn a_malformed_timeout_is_refused_by_name() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let mut request = from_alice(presence_of("bob"));
    request
        .metadata_mut()
        .insert("grpc-timeout", "soon".parse().unwrap());
    let refused = client.get_presence(request).await.unwrap_err();
    assert_reason(&refused, Reason::InvalidField);
    let details = refused.get_error_details();
    assert_eq!(
        details.bad_request().unwrap().field_violations[0].field,
        "grpc-timeout"
    );
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_its_own_call_with_internal_and_no_other() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let refused = client
        .get_presence(from_alice(presence_of("panic")))
        .await
        .unwrap_err();
    assert_reason(&refused, Reason::Internal);
    assert!(!refused.message().contains("panics"), "{refused:?}");

    let request = from_alice(wire::SubscribeRequest::default());
    let mut events = client.subscribe(request).await.unwrap().into_inner();
    assert!(events.message().await.unwrap().is_some());
    assert_reason(&events.message().await.unwrap_err(), Reason::Internal);

    client
        .get_presence(from_alice(presence_of("bob")))
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_user_who_calls_too_often_is_told_how_long_to_wait() {
    let wait = Duration::from_millis(1_250);
    let server = Server::start_with(|stack| {
        stack.admit(Arc::new(move |user| {
            if user.as_str() == "alice" {
                Err(wait)
            } else {
                Ok(())
            }
        }))
    })
    .await;
    let mut client = server.client().await;
    let refused = client
        .get_presence(from_alice(presence_of("bob")))
        .await
        .unwrap_err();
    assert_reason(&refused, Reason::RateLimited);
    let details = refused.get_error_details();
    assert_eq!(details.retry_info().unwrap().retry_delay, Some(wait));
    let bob = with_token("good:bob", presence_of("bob"));
    client.get_presence(bob).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn headers_beyond_the_limit_are_refused_and_the_connection_goes_on() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let mut request = from_alice(presence_of("bob"));
    let large = "x".repeat(MAX_HEADER_LIST_BYTES as usize);
    request
        .metadata_mut()
        .insert("x-large", large.parse().unwrap());
    client.get_presence(request).await.unwrap_err();
    client
        .get_presence(from_alice(presence_of("bob")))
        .await
        .unwrap();

    let mut request = from_alice(presence_of("bob"));
    let fitting = "x".repeat(MAX_HEADER_LIST_BYTES as usize - 1_024);
    request
        .metadata_mut()
        .insert("x-large", fitting.parse().unwrap());
    client.get_presence(request).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_drain_lets_calls_under_way_end_and_takes_no_more_connections() {
    let server = Server::start().await;
    let (release, released) = oneshot::channel();
    server.stub.release.lock().unwrap().replace(released);
    let mut client = server.client().await;
    let mut held = Box::pin(client.get_presence(from_alice(presence_of("held"))));
    assert!(
        tokio::time::timeout(Duration::from_secs(1), &mut held)
            .await
            .is_err()
    );

    let began = Instant::now();
    server.shutdown.trigger();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(server.connect().await.is_none());
    assert!(!server.served.is_finished());
    release.send(()).unwrap();
    held.await.unwrap();
    drop(client);
    soon(server.served).await.unwrap();
    assert!(began.elapsed() < GRACE, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_does_not_end_is_cut_off_when_the_grace_period_is_over() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let mut frames = client
        .converse(from_alice(stream::pending()))
        .await
        .unwrap()
        .into_inner();
    let began = Instant::now();
    server.shutdown.trigger();
    soon(frames.message()).await.unwrap_err();
    assert_eq!(began.elapsed().as_secs(), GRACE.as_secs());
    soon(server.served).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let mut frames = client
        .converse(from_alice(stream::pending()))
        .await
        .unwrap()
        .into_inner();
    let began = Instant::now();
    server.shutdown.stop();
    soon(frames.message()).await.unwrap_err();
    soon(server.served).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_watches_health_or_holds_reflection_does_not_hold_up_a_drain() {
    let server = Server::start().await;
    let channel = server.channel().await;
    let mut health = HealthClient::new(channel.clone());
    let watch = health.watch(HealthCheckRequest::default()).await;
    let mut watch = watch.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());
    let mut reflection = ServerReflectionClient::new(channel);
    let _held = reflection
        .server_reflection_info(stream::pending())
        .await
        .unwrap();

    let began = Instant::now();
    server.shutdown.trigger();
    assert_reason(
        &soon(watch.message()).await.unwrap_err(),
        Reason::ShuttingDown,
    );
    soon(server.served).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_says_nothing_is_closed_in_time() {
    let server = Server::start().await;
    let began = Instant::now();
    let mut silent = server.connect().await.unwrap();
    let mut said = Vec::new();
    silent.read_to_end(&mut said).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), PREFACE_TIMEOUT.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_says_nothing_does_not_hold_up_a_drain() {
    let server = Server::start().await;
    let _silent = server.connect().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    server.shutdown.trigger();
    soon(server.served).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 0);
}

#[tokio::test(start_paused = true)]
async fn calls_are_counted_by_method_and_code_and_never_by_what_a_caller_chose() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client
        .get_presence(from_alice(presence_of("bob")))
        .await
        .unwrap();
    client.get_presence(presence_of("bob")).await.unwrap_err();
    client
        .advance_cursor(from_alice(wire::AdvanceCursorRequest::default()))
        .await
        .unwrap_err();
    let frames = client.converse(from_alice(stream::empty())).await.unwrap();
    let open = server.metrics.encode().unwrap();
    drop(frames);
    let path = "/made.up/ByCaller";
    let _ = call(server.channel().await, path, from_alice(stream::empty())).await;
    tokio::time::sleep(Duration::from_secs(1)).await;

    let text = server.metrics.encode().unwrap();
    let count = |service: &str, method: &str, code: &str| {
        let labels = format!("service=\"{service}\",method=\"{method}\",code=\"{code}\"");
        text.contains(&format!("duologue_grpc_calls_total{{{labels}}} 1\n"))
    };
    assert!(count(support::CHAT, "GetPresence", "OK"), "{text}");
    assert!(
        count(support::CHAT, "GetPresence", "UNAUTHENTICATED"),
        "{text}"
    );
    assert!(
        count(support::CHAT, "AdvanceCursor", "FAILED_PRECONDITION"),
        "{text}"
    );
    assert!(count(support::CHAT, "Converse", "CANCELLED"), "{text}");
    assert!(count("other", "other", "UNIMPLEMENTED"), "{text}");
    let converse = format!(
        "duologue_grpc_calls_open{{service=\"{}\",method=\"Converse\"}}",
        support::CHAT
    );
    assert!(open.contains(&format!("{converse} 1\n")), "{open}");
    assert!(text.contains(&format!("{converse} 0\n")), "{text}");
    for chosen in ["alice", "bob", "made.up", "ByCaller"] {
        assert!(!text.contains(chosen), "{chosen} is in {text}");
    }
}
