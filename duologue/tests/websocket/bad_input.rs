//! What a client may do wrong: each ends as it is documented, and harms nobody else.

use duologue_proto::chat::v1::converse_request::Frame as Up;
use duologue_proto::chat::v1::converse_response::Frame;
use duologue_proto::chat::v1::{GoodbyeReason, Hello};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::client::{JSON, PROTO, soon};
use crate::system::System;

const OFFER: (&str, &str) = ("sec-websocket-protocol", PROTO);

/// A frame with a mask of zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASKED: u8 = 0x80;
    let mut bytes = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..=125), _) => bytes.push(MASKED | length),
        (_, Ok(length)) => {
            bytes.push(MASKED | 0x7E);
            bytes.extend(length.to_be_bytes());
        }
        _ => {
            bytes.push(MASKED | 0x7F);
            bytes.extend((payload.len() as u64).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// The code of the close frame, which is the first frame that comes.
async fn close_code(stream: &mut TcpStream) -> u16 {
    assert_eq!(soon(stream.read_u8()).await.unwrap(), 0x88);
    let length = soon(stream.read_u8()).await.unwrap();
    let code = soon(stream.read_u16()).await.unwrap();
    let mut reason = vec![0; usize::from(length) - 2];
    soon(stream.read_exact(&mut reason)).await.unwrap();
    code
}

#[tokio::test]
async fn an_upgrade_is_refused_before_it_is_one() {
    let system = System::start().await;
    let status = async |path: &str, headers: &[(&str, &str)]| {
        let (_, head) = system.ask(path, headers).await;
        head.split(' ').nth(1).unwrap().to_owned()
    };
    let foreign = ("origin", "https://evil.example");
    assert_eq!(status("/ws", &[OFFER, foreign]).await, "403");
    let own = format!("http://{}", system.addr);
    assert_eq!(status("/ws", &[OFFER, ("origin", &own)]).await, "101");
    assert_eq!(status("/ws?access_token=x", &[OFFER]).await, "400");
    assert_eq!(status("/ws", &[]).await, "400");
    assert_eq!(
        status("/ws", &[("sec-websocket-protocol", "chat")]).await,
        "400"
    );
}

#[tokio::test]
async fn frames_that_none_may_send_are_answered_by_their_codes() {
    let system = System::start().await;
    let (mut alice, _) = system.open(PROTO, "alice").await;
    let mut unmasked = frame(0x82, b"x");
    unmasked[1] &= 0x7F;
    let large = vec![b' '; 64 * 1024 + 1];
    let mut fragments = frame(0x01, &large[..60_000]);
    fragments.extend(frame(0x00, &large[..60_000]));
    let cases = [
        (PROTO, unmasked, 1002),
        (PROTO, frame(0xC2, b"x"), 1002),
        (PROTO, frame(0x83, b"x"), 1002),
        (PROTO, frame(0x09, b""), 1002),
        (PROTO, frame(0x89, &[0; 126]), 1002),
        (PROTO, frame(0x80, b""), 1002),
        (PROTO, frame(0x81, b"{}"), 1003),
        (JSON, frame(0x82, b"{}"), 1003),
        (JSON, frame(0x81, b"\xFF"), 1007),
        (JSON, frame(0x81, b"{"), 1007),
        (JSON, frame(0x81, br#"{"hello":{"nosuch":1}}"#), 1007),
        (PROTO, frame(0x82, b"\xFF"), 1007),
        (PROTO, frame(0x82, b"\x32\x00"), 1008),
        (PROTO, frame(0x82, &large), 1009),
        (JSON, frame(0x81, &large), 1009),
        (JSON, fragments, 1009),
        (PROTO, frame(0x82, b"\x12\x00"), 4401),
        (JSON, frame(0x81, br#"{"hello":{}}"#), 4401),
    ];
    for (protocol, bytes, code) in cases {
        let mut stream = system.raw(protocol).await;
        // It may be closed before it has taken everything.
        let _ = stream.write_all(&bytes).await;
        assert_eq!(close_code(&mut stream).await, code, "{:?}", &bytes[..2]);
    }
    // Another session saw nothing of it.
    assert_eq!(alice.store("bob", "m-1", "hi").await.seq, 1);
}

#[tokio::test]
async fn a_frame_that_breaks_the_contract_ends_with_goodbye() {
    let system = System::start().await;
    // No Hello first; a second Hello; no frame at all; bytes that are no frame.
    let hello = || Up::Hello(Hello::default());
    let frames: [(Vec<u8>, u16); 3] = [
        (b"\x08\x07".to_vec(), 1008),
        (b"\x12\x00".to_vec(), 1008),
        (b"\x12\x05\x0a".to_vec(), 1007),
    ];
    for (bytes, code) in frames {
        let (mut client, _) = system.open(PROTO, "alice").await;
        client.send(Message::binary(bytes)).await;
        let reason = |frame| match frame {
            Frame::Goodbye(goodbye) => Some(goodbye.reason()),
            _ => None,
        };
        assert_eq!(client.until(reason).await, GoodbyeReason::ProtocolError);
        assert_eq!(client.closed().await.0, code);
    }
    let (mut client, _) = system.open(JSON, "alice").await;
    client.say(2, hello()).await;
    assert_eq!(client.closed().await.0, 1008);
}

#[tokio::test]
async fn idle_upgrades_of_one_address_are_bounded_and_give_their_places_back() {
    let system = System::start().await;
    let mut waiting = Vec::new();
    for _ in 0..100 {
        waiting.push(system.raw(PROTO).await);
    }
    let (_, head) = system.ask("/ws", &[OFFER]).await;
    assert!(head.starts_with("HTTP/1.1 429 "), "{head}");
    // Who has said hello does not wait.
    let hello = frame(0x82, b"\x12\x07\x52\x05alice");
    waiting[0].write_all(&hello).await.unwrap();
    assert_eq!(soon(waiting[0].read_u8()).await.unwrap(), 0x82);
    let mut next = system.raw(PROTO).await;
    // Nobody else does for longer than five seconds.
    for stream in &mut waiting[1..] {
        assert_eq!(close_code(stream).await, 4408);
    }
    assert_eq!(close_code(&mut next).await, 4408);
    let (mut alice, _) = system.open(PROTO, "alice").await;
    assert_eq!(alice.store("bob", "m-1", "hi").await.seq, 1);
}
