//! Frames as such: in order, of a known kind, of a bounded size.

use duologue_proto::chat::v1::converse_request::Frame as Up;
use duologue_proto::chat::v1::converse_response::Frame;
use duologue_proto::chat::v1::{ConverseRequest, GoodbyeReason, RejectedReason, SendMessage};
use duologue_runtime::refusal::Reason;
use prost::Message as _;

use crate::support::frames::{advance, hello, numbered, ping, send, send_after};
use crate::support::refused::{assert_field, assert_refused};
use crate::support::{End, Server, raw};

/// Frames in a row, then a half-close.
async fn piped(server: &Server, frames: &[ConverseRequest]) -> End {
    let frames = frames.iter().map(ConverseRequest::encode_to_vec).collect();
    raw::converse(server, "alice", frames).await
}

/// What a frame is about, in short.
fn kind(frame: Option<&Frame>) -> String {
    let text = format!("{:?}", frame.unwrap());
    text.split('(').next().unwrap().to_owned()
}

#[tokio::test]
async fn frames_piped_in_at_once_are_all_answered_and_the_stream_ends_with_ok() {
    let server = Server::start(&[]).await;
    let end = piped(
        &server,
        &[
            numbered(1, Up::Hello(hello())),
            numbered(2, send("bob", "m1", "one")),
            numbered(3, send("bob", "m2", "two")),
            numbered(4, send("carol", "m1", "three")),
            numbered(5, ping()),
            numbered(6, advance("bob", Some(0), Some(0))),
            numbered(7, send("bob", "m1", "one")),
        ],
    )
    .await;
    assert!(end.status.is_ok(), "{end:?}");
    let kinds: Vec<_> = end
        .frames
        .iter()
        .map(|frame| kind(frame.frame.as_ref()))
        .collect();
    assert_eq!(kinds[0], "Welcome");
    let mut answers: Vec<_> = end.frames.iter().filter(|frame| frame.r#ref > 0).collect();
    let to_bob: Vec<_> = answers.iter().map(|frame| frame.r#ref).collect();
    let place = |number| {
        to_bob
            .iter()
            .position(|answered| *answered == number)
            .unwrap()
    };
    assert!(place(2) < place(3) && place(3) < place(7), "{to_bob:?}");
    answers.sort_by_key(|frame| frame.r#ref);
    let answered: Vec<_> = answers
        .iter()
        .map(|frame| kind(frame.frame.as_ref()))
        .collect();
    assert_eq!(
        answered,
        [
            "Stored",
            "Stored",
            "Stored",
            "Pong",
            "CursorStored",
            "Stored"
        ]
    );
    assert_eq!(kinds.iter().filter(|kind| *kind == "CaughtUp").count(), 1);
    assert_eq!(kinds.len(), 8, "{kinds:?}");
}

#[tokio::test]
async fn a_pipe_that_says_only_hello_is_shown_everything_before_it_ends() {
    let server = Server::start(&[]).await;
    let mut bob = server.chat("bob").await;
    crate::support::calls::sent_many(&mut bob, "alice", 300).await;
    let end = piped(&server, &[numbered(0, Up::Hello(hello()))]).await;
    assert!(end.status.is_ok(), "{end:?}");
    let shown = end.frames.iter().filter_map(|frame| match &frame.frame {
        Some(Frame::MessageDelivered(delivered)) => delivered.envelope.as_ref(),
        _ => None,
    });
    let shown: Vec<_> = shown.map(|envelope| envelope.seq).collect();
    assert_eq!(shown, (1..=300).collect::<Vec<_>>());
    assert_eq!(kind(end.frames.last().unwrap().frame.as_ref()), "CaughtUp");
}

#[tokio::test]
async fn a_frame_of_no_kind_or_of_an_unknown_one_breaks_the_contract() {
    let server = Server::start(&[]).await;
    // Field 31, a message of no bytes: a kind of a later version.
    let unknown = vec![0xfa, 0x01, 0x00];
    for frame in [vec![], unknown] {
        let hello = numbered(0, Up::Hello(hello())).encode_to_vec();
        let end = raw::converse(&server, "alice", vec![hello, frame]).await;
        assert_eq!(end.goodbye().reason(), GoodbyeReason::ProtocolError);
        assert_refused(end.status(), Reason::UnknownFrame);
    }
}

#[tokio::test]
async fn a_frame_that_is_not_protobuf_breaks_the_contract_at_any_place() {
    let server = Server::start(&[]).await;
    let hello = numbered(0, Up::Hello(hello())).encode_to_vec();
    let garbage = vec![0xff; 32];
    for frames in [vec![garbage.clone()], vec![hello, garbage]] {
        let end = raw::converse(&server, "alice", frames).await;
        assert_eq!(end.goodbye().reason(), GoodbyeReason::ProtocolError);
        assert_field(end.status(), "frame");
    }
}

#[tokio::test]
async fn text_that_is_not_utf_8_breaks_the_contract() {
    let server = Server::start(&[]).await;
    let hello = numbered(0, Up::Hello(hello())).encode_to_vec();
    // send_message { peer: "b", message_id: "m", body { text: 0xff } }
    let frame = vec![26, 11, 10, 1, b'b', 18, 1, b'm', 34, 3, 10, 1, 0xff];
    let end = raw::converse(&server, "alice", vec![hello, frame]).await;
    assert_eq!(end.goodbye().reason(), GoodbyeReason::ProtocolError);
    assert_field(end.status(), "frame");
}

/// A send whose frame is exactly so many bytes long.
fn frame_of(bytes: usize) -> ConverseRequest {
    let of = |length: usize| numbered(9, send("bob", "m", &"x".repeat(length)));
    let length = bytes - (of(bytes).encoded_len() - bytes);
    let frame = of(length);
    assert_eq!(frame.encoded_len(), bytes);
    frame
}

#[tokio::test]
async fn a_frame_may_be_64_kib_long_and_not_a_byte_more() {
    let server = Server::start(&[]).await;
    let first = numbered(0, Up::Hello(hello()));
    let end = piped(&server, &[first.clone(), frame_of(65_536)]).await;
    assert!(end.status.is_ok(), "{end:?}");
    let rejected = end.frames.iter().find_map(|frame| match &frame.frame {
        Some(Frame::Rejected(rejected)) => Some(rejected.reason()),
        _ => None,
    });
    assert_eq!(rejected, Some(RejectedReason::TooLong));

    let end = piped(&server, &[first, frame_of(65_537)]).await;
    assert_eq!(end.goodbye().reason(), GoodbyeReason::ProtocolError);
    assert!(end.goodbye().detail.contains("65536"), "{end:?}");
    assert_field(end.status(), "frame");
}

#[tokio::test]
async fn what_was_sent_before_a_broken_frame_is_settled() {
    let server = Server::start(&[]).await;
    let hello = numbered(0, Up::Hello(hello())).encode_to_vec();
    let said = numbered(1, send("bob", "m", "kept")).encode_to_vec();
    let end = raw::converse(&server, "alice", vec![hello, said, vec![0xff; 9]]).await;
    end.goodbye();
    let mut alice = server.chat("alice").await;
    let kept = crate::support::calls::history(&mut alice, "bob").await;
    assert_eq!(kept.len(), 1);
}

#[tokio::test]
async fn fields_of_a_later_version_are_ignored() {
    let server = Server::start(&[]).await;
    let mut later = numbered(0, Up::Hello(hello())).encode_to_vec();
    later.extend([0xa2, 0x06, 0x01, 0x00]);
    let end = raw::converse(&server, "alice", vec![later]).await;
    assert!(end.status.is_ok(), "{end:?}");
}

#[tokio::test]
async fn a_body_of_a_kind_that_the_server_does_not_know_is_rejected_and_no_more() {
    let server = Server::start(&[]).await;
    let unknown = Up::SendMessage(SendMessage {
        peer: "bob".into(),
        message_id: Some("m".into()),
        after_seq: Some(0),
        body: Some(duologue_proto::chat::v1::Body { kind: None }),
    });
    let frames = [
        numbered(0, Up::Hello(hello())),
        numbered(1, unknown),
        numbered(2, send_after("bob", "n", "hi", 0)),
    ];
    let end = piped(&server, &frames).await;
    assert!(end.status.is_ok(), "{end:?}");
    let answer = |number| {
        let mut frames = end.frames.iter();
        let found = frames.find(|frame| frame.r#ref == number).unwrap();
        found.frame.clone().unwrap()
    };
    match answer(1) {
        Frame::Rejected(rejected) => assert_eq!(rejected.field, "body.kind"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(answer(2), Frame::Stored(stored) if stored.seq == 1));
}
