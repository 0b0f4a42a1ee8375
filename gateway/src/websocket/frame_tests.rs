//! What a client may say, and what ends the connection.

use proptest::prelude::*;

use super::*;

const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// A frame as a client writes it, its first byte and mask bit chosen freely.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    write(first & 0xF, payload, &mut bytes);
    bytes[0] = first;
    bytes[1] |= MASKED;
    let at = bytes.len() - payload.len();
    let mut bytes = bytes.to_vec();
    let masked = payload.iter().zip(MASK.iter().cycle()).map(|(a, b)| a ^ b);
    bytes.truncate(at);
    bytes.extend(MASK);
    bytes.extend(masked);
    bytes
}

fn read(kind: Kind, bytes: &[u8]) -> Result<Vec<Event>, Fault> {
    let (mut decoder, mut input) = (Decoder::new(kind), BytesMut::from(bytes));
    let mut events = Vec::new();
    while let Some(event) = decoder.next(&mut input)? {
        events.push(event);
    }
    Ok(events)
}

fn message(payload: &[u8]) -> Event {
    Event::Message(payload.to_vec())
}

fn protocol(bytes: &[u8]) -> &'static str {
    match read(Kind::Binary, bytes) {
        Err(Fault::Protocol(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_example_of_the_rfc_is_read() {
    // "Hello", in one frame and in two.
    let whole = [
        0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
    ];
    assert_eq!(read(Kind::Text, &whole), Ok(vec![message(b"Hello")]));
    let parts = [frame(0x01, b"Hel"), frame(0x80, b"lo")].concat();
    assert_eq!(read(Kind::Text, &parts), Ok(vec![message(b"Hello")]));
}

#[test]
fn a_control_frame_may_stand_within_a_message() {
    let bytes = [
        frame(0x02, b"a"),
        frame(0x89, b"ping"),
        frame(0x00, b""),
        frame(0x8A, b"pong"),
        frame(0x80, b"b"),
        frame(0x88, b""),
    ];
    let expected = vec![
        Event::Ping(b"ping".to_vec()),
        Event::Pong,
        message(b"ab"),
        Event::Close,
    ];
    assert_eq!(read(Kind::Binary, &bytes.concat()), Ok(expected));
}

#[test]
fn what_the_rfc_forbids_ends_the_connection() {
    let mut unmasked = frame(0x82, b"x");
    unmasked[1] &= !MASKED;
    assert_eq!(protocol(&unmasked), "a frame is not masked");
    for first in [0xC2, 0xA2, 0x92] {
        assert_eq!(protocol(&frame(first, b"x")), "a reserved bit is set");
    }
    for first in [0x83, 0x87, 0x8B, 0x8F] {
        assert_eq!(protocol(&frame(first, b"x")), "the opcode is unknown");
    }
    assert_eq!(protocol(&frame(0x80, b"x")), "nothing is to be continued");
    let twice = [frame(0x02, b"x"), frame(0x82, b"x")].concat();
    assert_eq!(protocol(&twice), "a message begins within another");
    assert_eq!(protocol(&frame(0x09, b"")), "a control frame is fragmented");
    assert_eq!(
        protocol(&frame(0x89, &[0; 126])),
        "a control frame is too long"
    );
    assert_eq!(
        protocol(&frame(0x88, b"x")),
        "a close frame has half a code"
    );
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
        let bytes = frame(0x88, &code.to_be_bytes());
        assert_eq!(
            protocol(&bytes),
            "a close frame has a code that none may have"
        );
    }
    for length in [
        [0xFE, 0, 125].as_slice(),
        &[0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF],
    ] {
        let bytes = [&[0x82], length, &MASK].concat();
        assert_eq!(protocol(&bytes), "a length is not written as it must be");
    }
}

#[test]
fn a_message_of_the_other_kind_is_told_by_its_header() {
    assert_eq!(
        read(Kind::Binary, &frame(0x81, b"x")),
        Err(Fault::WrongKind)
    );
    assert_eq!(
        read(Kind::Text, &frame(0x82, b"x")[..2]),
        Err(Fault::WrongKind)
    );
}

#[test]
fn text_is_utf_8_once_its_fragments_are_together() {
    let (first, second) = "ü".as_bytes().split_at(1);
    let split = [frame(0x01, first), frame(0x80, second)].concat();
    assert_eq!(read(Kind::Text, &split), Ok(vec![message("ü".as_bytes())]));
    assert_eq!(read(Kind::Text, &frame(0x81, first)), Err(Fault::NotUtf8));
    let close = frame(0x88, &[0x03, 0xE8, 0xFF]);
    assert_eq!(read(Kind::Text, &close), Err(Fault::NotUtf8));
}

#[test]
fn a_message_is_bounded_and_its_fragments_count_together() {
    let largest = vec![7; MAX_MESSAGE_BYTES];
    assert_eq!(
        read(Kind::Binary, &frame(0x82, &largest)),
        Ok(vec![message(&largest)])
    );
    // Told by the header, before the payload has come.
    let too_large = frame(0x82, &vec![0; MAX_MESSAGE_BYTES + 1]);
    assert_eq!(read(Kind::Binary, &too_large[..14]), Err(Fault::TooLarge));
    let largest_claim = [
        &[0x82, 0xFF, 0x7F, 255, 255, 255, 255, 255, 255, 255][..],
        &MASK,
    ];
    assert_eq!(
        read(Kind::Binary, &largest_claim.concat()),
        Err(Fault::TooLarge)
    );
    let parts = [frame(0x02, &largest), frame(0x89, b"?"), frame(0x80, b"x")].concat();
    let (mut decoder, mut input) = (Decoder::new(Kind::Binary), BytesMut::from(&*parts));
    assert_eq!(
        decoder.next(&mut input),
        Ok(Some(Event::Ping(b"?".to_vec())))
    );
    assert!(decoder.is_within_message());
    assert_eq!(decoder.next(&mut input), Err(Fault::TooLarge));
}

#[test]
fn a_reason_is_cut_between_characters() {
    let mut out = BytesMut::new();
    write_close(1000, &"ü".repeat(100), &mut out);
    assert_eq!(out.len(), 2 + 2 + MAX_REASON_BYTES - 1);
    assert_eq!(out[..4], [0x88, 124, 0x03, 0xE8]);
    assert!(std::str::from_utf8(&out[4..]).is_ok());
}

#[test]
fn lengths_are_written_in_the_shortest_way() {
    for (length, header) in [
        (125, &[0x82, 125][..]),
        (126, &[0x82, 126, 0, 126]),
        (65_535, &[0x82, 126, 255, 255]),
        (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        let mut out = BytesMut::new();
        write_message(Kind::Binary, &vec![1; length], &mut out);
        assert_eq!(out[..header.len()], *header);
        assert_eq!(out.len(), header.len() + length);
    }
}

proptest! {
    #[test]
    fn messages_are_the_same_however_they_are_fragmented_and_split(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
        fragment in 1_usize..200,
        chunk in 1_usize..100,
    ) {
        let mut bytes = Vec::new();
        for message in &messages {
            let mut parts: Vec<&[u8]> = message.chunks(fragment).collect();
            if parts.is_empty() {
                parts.push(&[]);
            }
            let last = parts.len() - 1;
            for (index, part) in parts.into_iter().enumerate() {
                let opcode = if index == 0 { BINARY } else { CONTINUATION };
                let fin = if index == last { FIN } else { 0 };
                bytes.extend(frame(opcode | fin, part));
            }
        }
        let (mut decoder, mut input) = (Decoder::new(Kind::Binary), BytesMut::new());
        let mut read = Vec::new();
        for chunk in bytes.chunks(chunk) {
            input.extend_from_slice(chunk);
            while let Some(event) = decoder.next(&mut input).unwrap() {
                read.push(event);
            }
        }
        let expected: Vec<_> = messages.into_iter().map(Event::Message).collect();
        prop_assert_eq!(read, expected);
        prop_assert!(!decoder.is_within_message());
    }

    #[test]
    fn no_bytes_make_it_panic_or_keep_more_than_a_message(
        bytes in prop::collection::vec(any::<u8>(), 0..2_000),
        is_text in any::<bool>(),
    ) {
        let kind = if is_text { Kind::Text } else { Kind::Binary };
        let (mut decoder, mut input) = (Decoder::new(kind), BytesMut::from(&*bytes));
        while let Ok(Some(_)) = decoder.next(&mut input) {}
        prop_assert!(decoder.message.len() <= MAX_MESSAGE_BYTES);
    }
}
