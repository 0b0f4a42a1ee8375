//! The texts that people and programs exchange.

use duologue_proto::chat::v1::converse_request::Frame as Up;
use duologue_proto::chat::v1::converse_response::Frame as Down;
use duologue_proto::chat::v1::{
    AdvanceCursor, Body, CaughtUp, ConverseRequest, ConverseResponse, Deferred, DeferredReason,
    Envelope, Goodbye, GoodbyeReason, Hello, MessageDelivered, Ping, Position, SendMessage, Stored,
    body,
};
use proptest::prelude::*;
use prost_types::{Duration, Timestamp};

use super::*;

fn json() -> Json {
    Json::load().unwrap()
}

fn read(text: &str) -> Result<ConverseRequest, String> {
    let bytes = json().read(text.as_bytes())?;
    Ok(ConverseRequest::decode(&*bytes).unwrap())
}

fn written(reference: u64, frame: Down) -> String {
    let response = ConverseResponse {
        r#ref: reference,
        frame: Some(frame),
    };
    let text = json().write(response.encode_to_vec().into()).unwrap();
    String::from_utf8(text).unwrap()
}

fn body(text: &str) -> Body {
    Body {
        kind: Some(body::Kind::Text(text.to_owned())),
    }
}

#[test]
fn what_a_person_types_is_understood() {
    let send = r#"{"ref": 7, "sendMessage": {"peer": "bob", "messageId": "m-1",
        "afterSeq": "0", "body": {"text": "Grüße 👋"}}}"#;
    let expected = SendMessage {
        peer: "bob".to_owned(),
        message_id: Some("m-1".to_owned()),
        after_seq: Some(0),
        body: Some(body("Grüße 👋")),
    };
    let request = read(send).unwrap();
    assert_eq!(
        (request.r#ref, request.frame),
        (7, Some(Up::SendMessage(expected)))
    );
    // Names as in the .proto files, and integers either way.
    let advance = r#"{"ref":"8","advance_cursor":{"peer":"bob","delivered":3,"read":"2"}}"#;
    let expected = AdvanceCursor {
        peer: "bob".to_owned(),
        delivered: Some(3),
        read: Some(2),
    };
    let request = read(advance).unwrap();
    assert_eq!(
        (request.r#ref, request.frame),
        (8, Some(Up::AdvanceCursor(expected)))
    );
    let largest = format!(r#"{{"ref":"{}","ping":{{}}}}"#, u64::MAX);
    let request = read(&largest).unwrap();
    assert_eq!(
        (request.r#ref, request.frame),
        (u64::MAX, Some(Up::Ping(Ping {})))
    );
}

#[test]
fn what_cannot_be_understood_is_refused_with_its_place() {
    let refused = |text: &str| read(text).unwrap_err();
    let unknown = refused(r#"{"ping":{},"hullo":{}}"#);
    assert!(unknown.contains("column 18"), "{unknown}");
    // What was written may be a text or a token.
    for text in [
        r#"{"hello":"secret"}"#,
        r#"{"secret":1}"#,
        r#"{"ref":"secret"}"#,
        "secret",
    ] {
        assert!(!refused(text).contains("secret"));
    }
    for text in [
        "",
        "null x",
        "[]",
        "7",
        "{",
        r#"{"ping":{}}{"ping":{}}"#,
        r#"{"ping":7}"#,
        r#"{"ref":-1,"ping":{}}"#,
        r#"{"ref":1.5,"ping":{}}"#,
        r#"{"ref":"x","ping":{}}"#,
        r#"{"ref":1e20,"ping":{}}"#,
        r#"{"ping":{},"hello":{}}"#,
        r#"{"sendMessage":{"peer":["bob"]}}"#,
        r#"{"sendMessage":{"peer":"bob","body":{"text":"\ud800"}}}"#,
    ] {
        assert!(read(text).is_err(), "{text}");
    }
    let deep = "[".repeat(100_000);
    assert!(read(&deep).is_err());
    let deep = r#"{"sendMessage":"#.repeat(10_000);
    assert!(read(&deep).is_err());
}

#[test]
fn what_a_person_is_shown_is_canonical() {
    let at = Timestamp {
        seconds: 1_700_000_000,
        nanos: 123_000_000,
    };
    let stored = Stored {
        message_id: "m-1".to_owned(),
        peer: "bob".to_owned(),
        seq: 9_007_199_254_740_993,
        duplicate: false,
        accepted_at: Some(at),
    };
    assert_eq!(
        written(7, Down::Stored(stored)),
        r#"{"ref":"7","stored":{"messageId":"m-1","peer":"bob","seq":"9007199254740993","acceptedAt":"2023-11-14T22:13:20.123Z"}}"#
    );
    let envelope = Envelope {
        seq: 1,
        message_id: "m-1".to_owned(),
        sender: "alice".to_owned(),
        recipient: "bob".to_owned(),
        accepted_at: Some(at),
        body: Some(body("<b>\"hi\"</b>\n\u{202e}👋")),
        counts_unread: true,
    };
    let delivered = MessageDelivered {
        envelope: Some(envelope),
    };
    assert_eq!(
        written(0, Down::MessageDelivered(delivered)),
        "{\"messageDelivered\":{\"envelope\":{\"seq\":\"1\",\"messageId\":\"m-1\",\"sender\":\"alice\",\
         \"recipient\":\"bob\",\"acceptedAt\":\"2023-11-14T22:13:20.123Z\",\
         \"body\":{\"text\":\"<b>\\\"hi\\\"</b>\\n\u{202e}👋\"},\"countsUnread\":true}}}"
    );
    let deferred = Deferred {
        message_id: "m-2".to_owned(),
        peer: "bob".to_owned(),
        reason: DeferredReason::RateLimited.into(),
        retry_after: Some(Duration {
            seconds: 1,
            nanos: 500_000_000,
        }),
        head: Some(0),
    };
    assert_eq!(
        written(2, Down::Deferred(deferred)),
        r#"{"ref":"2","deferred":{"messageId":"m-2","peer":"bob","reason":"DEFERRED_REASON_RATE_LIMITED","retryAfter":"1.500s","head":"0"}}"#
    );
    let goodbye = Goodbye {
        reason: GoodbyeReason::ShuttingDown.into(),
        ..Goodbye::default()
    };
    assert_eq!(
        written(0, Down::Goodbye(goodbye)),
        r#"{"goodbye":{"reason":"GOODBYE_REASON_SHUTTING_DOWN"}}"#
    );
    let caught_up = CaughtUp {
        sync_token: "t".to_owned(),
    };
    assert_eq!(
        written(0, Down::CaughtUp(caught_up)),
        r#"{"caughtUp":{"syncToken":"t"}}"#
    );
}

#[test]
fn what_a_newer_server_says_is_left_out_and_a_reason_is_shown_as_its_number() {
    // Field 15 of Goodbye, and reason 99.
    let bytes = [0x72, 4, 0x08, 99, 0x78, 1];
    let text = json().write(Bytes::copy_from_slice(&bytes)).unwrap();
    assert_eq!(text, br#"{"goodbye":{"reason":99}}"#);
    assert!(json().write(Bytes::from_static(&[0xFF])).is_err());
}

fn hellos() -> impl Strategy<Value = Up> {
    let position = (".{0,8}", any::<u64>()).prop_map(|(peer, seq)| Position { peer, seq });
    (
        prop::option::of(".{0,8}"),
        prop::option::of(any::<u64>()),
        ".{0,8}",
        prop::collection::vec(position, 0..4),
        prop::collection::vec(".{0,8}", 0..3),
    )
        .prop_map(
            |(device_id, connect_number, sync_token, positions, features)| {
                Up::Hello(Hello {
                    device_id,
                    connect_number,
                    sync_token,
                    positions,
                    features,
                    ..Hello::default()
                })
            },
        )
}

fn sends() -> impl Strategy<Value = Up> {
    let optional = (prop::option::of(".{0,8}"), prop::option::of(any::<u64>()));
    (".{0,8}", optional, prop::option::of(".{0,60}")).prop_map(
        |(peer, (message_id, after_seq), text)| {
            Up::SendMessage(SendMessage {
                peer,
                message_id,
                after_seq,
                body: text.map(|text| body(&text)),
            })
        },
    )
}

/// A request in the JSON of prost-reflect, which our own reader never writes.
fn as_text(request: &ConverseRequest) -> String {
    let bytes = request.encode_to_vec();
    let message = DynamicMessage::decode(json().request, &*bytes).unwrap();
    serde_json::to_string(&message).unwrap()
}

proptest! {
    #[test]
    fn a_request_is_the_same_in_either_form(
        reference in any::<u64>(),
        frame in prop_oneof![hellos(), sends()],
    ) {
        let request = ConverseRequest { r#ref: reference, frame: Some(frame) };
        prop_assert_eq!(read(&as_text(&request)).unwrap(), request);
    }

    #[test]
    fn a_response_is_the_same_in_either_form(
        reference in any::<u64>(),
        seq in any::<u64>(),
        text in any::<String>(),
        seconds in 0_i64..253_402_300_799,
        nanos in 0_i32..1_000_000_000,
    ) {
        let envelope = Envelope {
            seq,
            message_id: "m".to_owned(),
            sender: "alice".to_owned(),
            recipient: "bob".to_owned(),
            accepted_at: Some(Timestamp { seconds, nanos }),
            body: Some(body(&text)),
            counts_unread: seq % 2 == 0,
        };
        let delivered = Down::MessageDelivered(MessageDelivered { envelope: Some(envelope) });
        let response = ConverseResponse { r#ref: reference, frame: Some(delivered) };
        let written = json().write(response.encode_to_vec().into()).unwrap();
        let mut reader = serde_json::Deserializer::from_slice(&written);
        let read = DynamicMessage::deserialize(json().response, &mut reader).unwrap();
        let read = ConverseResponse::decode(&*read.encode_to_vec()).unwrap();
        prop_assert_eq!(read, response);
    }

    #[test]
    fn no_text_makes_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        text in r#"[{}\[\]",:a-z0-9 \\]{0,100}"#,
    ) {
        let json = json();
        let _ = json.read(&bytes);
        let _ = json.read(text.as_bytes());
        let _ = json.write(bytes.into());
    }
}
