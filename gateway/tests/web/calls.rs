//! Calls by gRPC-Web: they end with a status that a page can read, whatever happens.

use duologue_proto::chat::v1::{
    SendMessageRequest, SendMessageResponse, SubscribeRequest, SubscribeResponse,
};
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use prost::Message as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::{Web, decoded, encoded, framed, frames, soon};

fn to(peer: &str) -> Vec<u8> {
    framed(&SendMessageRequest {
        peer: peer.to_owned(),
        ..Default::default()
    })
}

fn subscribe() -> Vec<u8> {
    framed(&SubscribeRequest::default())
}

fn status(trailers: &HeaderMap) -> Status {
    Status::from_header_map(trailers).unwrap()
}

fn assert_is_refusal(status: &Status) {
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.message(), "sync again: \u{e4}\u{f6}\u{fc}, line\nand more");
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "SESSION_FULL");
}

#[tokio::test]
async fn a_unary_call_is_answered_with_a_message_and_a_status() {
    let web = Web::open().await;
    for form in ["", "+proto"] {
        let request = web.call("SendMessage", form, "alice");
        let answer = web.send(request, to("bob")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), "application/grpc-web+proto");
        let (messages, trailers) = answer.frames();
        assert_eq!(messages.len(), 1);
        let message = SendMessageResponse::decode(messages[0].clone()).unwrap();
        assert_eq!(message.message_id, "alice-to-bob");
        assert_eq!(status(&trailers.unwrap()).code(), Code::Ok);
    }
}

#[tokio::test]
async fn the_text_form_is_the_binary_form_in_base64() {
    let web = Web::open().await;
    for form in ["-text", "-text+proto"] {
        let request = web.call("SendMessage", form, "alice");
        let answer = web.send(request, encoded(&to("bob"))).await;
        assert_eq!(answer.header("content-type"), "application/grpc-web-text+proto");
        let (messages, trailers) = frames(decoded(&answer.body));
        let message = SendMessageResponse::decode(messages[0].clone()).unwrap();
        assert_eq!(message.message_id, "alice-to-bob");
        assert_eq!(status(&trailers.unwrap()).code(), Code::Ok);

        let request = web.call("Subscribe", form, "failing");
        let answer = web.send(request, encoded(&subscribe())).await;
        let (messages, trailers) = frames(decoded(&answer.body));
        assert_eq!(messages.len(), 3);
        assert_is_refusal(&status(&trailers.unwrap()));
    }
}

#[tokio::test]
async fn a_stream_ends_with_trailers_in_its_body() {
    let web = Web::open().await;
    let request = web.call("Subscribe", "+proto", "alice");
    let (messages, trailers) = web.send(request, subscribe()).await.frames();
    assert_eq!(messages.len(), 3);
    for message in messages {
        let message = SubscribeResponse::decode(message).unwrap();
        assert!(message.frame.is_some());
    }
    assert_eq!(status(&trailers.unwrap()).code(), Code::Ok);
}

#[tokio::test]
async fn an_error_in_mid_stream_comes_behind_what_was_said_with_its_details() {
    let web = Web::open().await;
    let request = web.call("Subscribe", "+proto", "failing");
    let (messages, trailers) = web.send(request, subscribe()).await.frames();
    assert_eq!(messages.len(), 3);
    assert_is_refusal(&status(&trailers.unwrap()));
}

#[tokio::test]
async fn an_error_before_the_first_message_can_be_read_with_its_details() {
    let web = Web::open().await;
    for (method, user, body) in [
        ("SendMessage", "alice", to("refused")),
        ("Subscribe", "refused", subscribe()),
    ] {
        let answer = web.send(web.call(method, "+proto", user), body).await;
        assert_eq!(answer.status, 200);
        let (messages, trailers) = answer.frames();
        assert!(messages.is_empty());
        let head = trailers.unwrap_or_else(|| answer.headers.clone());
        assert_is_refusal(&status(&head));
        let exposed = answer.header("access-control-expose-headers");
        for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
            assert!(exposed.contains(name), "{exposed}");
        }
    }
}

#[tokio::test]
async fn a_call_without_a_good_token_is_refused_as_by_grpc() {
    let web = Web::open().await;
    for (token, reason) in [(None, "TOKEN_MISSING"), (Some("Bearer a.b.c"), "TOKEN_INVALID")] {
        let mut request = web.call("SendMessage", "+proto", "alice");
        let headers = request.headers_mut().unwrap();
        headers.remove("authorization");
        if let Some(token) = token {
            headers.insert("authorization", token.parse().unwrap());
        }
        let status = web.send(request, to("bob")).await.status_in_head();
        assert_eq!(status.code(), Code::Unauthenticated);
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, reason);
    }
}

#[tokio::test]
async fn a_method_that_is_not_there_is_refused_as_by_grpc() {
    let web = Web::open().await;
    let request = web.call("NoSuchMethod", "+proto", "alice");
    let status = web.send(request, to("bob")).await.status_in_head();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn what_is_not_one_message_is_refused_and_not_taken_for_less() {
    let web = Web::open().await;
    let mut long = to("bob");
    long.extend_from_slice(&to("carol"));
    let whole = to("bob");
    for body in [
        Vec::new(),
        whole[..3].to_vec(),
        whole[..whole.len() - 1].to_vec(),
        long,
        [&whole[..], b"\x80\0\0\0\x05garba"].concat(),
        b"garbage that is no call at all".to_vec(),
        // A length that is far above what a request may have.
        b"\0\x7f\xff\xff\xffx".to_vec(),
    ] {
        let request = web.call("SendMessage", "+proto", "alice");
        let answer = web.send(request, body.clone()).await;
        let status = answer.status_in_head();
        assert_eq!(status.code(), Code::InvalidArgument, "{body:?}: {status:?}");
        assert!(status.get_error_details().error_info().is_some());
    }
    for body in ["not base64!", "AAAA", "AAAAAA"] {
        let request = web.call("SendMessage", "-text", "alice");
        let status = web.send(request, body).await.status_in_head();
        assert_eq!(status.code(), Code::InvalidArgument, "{body}: {status:?}");
    }
    // A message that is none.
    let request = web.call("SendMessage", "+proto", "alice");
    let answer = web.send(request, b"\0\0\0\0\x02\xff\xff".to_vec()).await;
    assert_ne!(answer.status_in_head().code(), Code::Ok);
}

#[tokio::test]
async fn a_request_that_is_cut_off_calls_nobody() {
    let web = Web::open().await;
    let mut stream = TcpStream::connect(web.address).await.unwrap();
    let whole = to("bob");
    let head = format!(
        "POST /duologue.chat.v1.ChatService/SendMessage HTTP/1.1\r\nhost: x\r\n\
         content-type: application/grpc-web\r\ncontent-length: {}\r\n\
         authorization: Bearer {}\r\n\r\n",
        whole.len(),
        web.token("alice"),
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&whole[..4]).await.unwrap();
    drop(stream);
    let ended = async {
        while !web.metrics.encode().unwrap().contains("duologue_grpc_calls_total{") {
            tokio::task::yield_now().await;
        }
    };
    soon(ended).await;
    let metrics = web.metrics.encode().unwrap();
    assert!(!metrics.contains("code=\"OK\""), "{metrics}");
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_stream_at_once() {
    let mut web = Web::open().await;
    for form in ["+proto", "-text"] {
        let body = match form {
            "-text" => encoded(&subscribe()).into_bytes(),
            _ => subscribe(),
        };
        let mut begun = web.begin(web.call("Subscribe", form, "endless"), body).await;
        soon(begun.body.frame()).await.unwrap().unwrap();
        assert!(web.dropped.try_recv().is_err(), "it was dropped too early");
        begun.abort().await;
        soon(web.dropped.recv()).await.unwrap();
    }
}

#[tokio::test]
async fn a_stream_is_not_held_back_until_it_ends() {
    let web = Web::open().await;
    let request = web.call("Subscribe", "+proto", "endless");
    let mut begun = web.begin(request, subscribe()).await;
    assert_eq!(begun.status, 200);
    let mut bytes = Vec::new();
    while bytes.len() < 3 * 5 {
        let frame = soon(begun.body.frame()).await.unwrap().unwrap();
        bytes.extend_from_slice(&frame.into_data().unwrap());
    }
    let (messages, trailers) = frames(bytes.into());
    assert_eq!(messages.len(), 3);
    assert!(trailers.is_none());
    begun.abort().await;
}

#[tokio::test]
async fn a_call_counts_once_among_all_calls() {
    let web = Web::open().await;
    web.send(web.call("SendMessage", "+proto", "alice"), to("bob")).await;
    let metrics = web.metrics.encode().unwrap();
    let counted = "duologue_grpc_calls_total{service=\"duologue.chat.v1.ChatService\",\
                   method=\"SendMessage\",code=\"OK\"} 1\n";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn what_is_no_call_is_told_what_one_is() {
    let web = Web::open().await;
    for kind in [
        "application/json",
        "application/grpc",
        "application/grpc-web+json",
        "application/grpc-web-texts",
        "text/plain",
    ] {
        let mut request = web.call("SendMessage", "", "alice");
        let headers = request.headers_mut().unwrap();
        headers.insert("content-type", kind.parse().unwrap());
        let answer = web.send(request, to("bob")).await;
        assert_eq!(answer.status, 415, "{kind}");
        assert_eq!(answer.error(), "unsupported_media_type");
    }
    let got = web.get("/duologue.chat.v1.ChatService/SendMessage").await;
    assert_eq!((got.status, got.header("allow")), (405, "POST, OPTIONS"));
    // Nothing but the chat service is behind it.
    let request = Request::post("/grpc.health.v1.Health/Check")
        .header("content-type", "application/grpc-web");
    assert_eq!(web.send(request, framed(&())).await.status, 404);
}
