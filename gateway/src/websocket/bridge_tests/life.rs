//! Silence, and what takes too long.

use tokio::time::{Instant, sleep, timeout};

use super::super::super::{MESSAGE_TIMEOUT, PING_INTERVAL, PING_TIMEOUT};
use super::*;

/// How long something took, in whole seconds.
fn seconds_since(start: Instant) -> u64 {
    start.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_without_hello_is_closed() {
    for protocol in [Protocol::Proto, Protocol::Json] {
        let (door, start) = (Door::new(), Instant::now());
        let mut client = door
            .client(protocol, &[("authorization", "Bearer t")])
            .await;
        // What is no message is no hello.
        client.send(Message::Ping(Bytes::new())).await.unwrap();
        let close = (4408, "HELLO_TIMEOUT: no hello within 5 seconds".to_owned());
        assert_eq!(closed(&mut client).await, close);
        assert_eq!(seconds_since(start), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hello_that_never_ends_is_none() {
    let (door, start) = (Door::new(), Instant::now());
    let mut raw = door.raw(Protocol::Proto, &[]);
    raw.write_all(&[0x82, 0xFE, 0xFF, 0xFF, 0, 0, 0, 0])
        .await
        .unwrap();
    let dripping = async {
        while raw.write_all(b"x").await.is_ok() {
            sleep(Duration::from_millis(100)).await;
            if seconds_since(start) >= 6 {
                return;
            }
        }
    };
    dripping.await;
    assert_eq!(raw_close(&mut raw).await.0, 4408);
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_asked_and_given_up_with_its_session() {
    let mut door = Door::new();
    let (mut raw, mut called) = door.raw_session().await;
    let start = Instant::now();
    // A ping, and nothing else.
    assert_eq!(
        (raw.read_u8().await.unwrap(), raw.read_u8().await.unwrap()),
        (0x89, 0)
    );
    assert_eq!(start.elapsed().as_secs(), PING_INTERVAL.as_secs());
    assert_eq!(called.broke_off().await.code(), Code::Cancelled);
    assert_eq!(
        start.elapsed().as_secs(),
        (PING_INTERVAL + PING_TIMEOUT).as_secs()
    );
    called.down.closed().await;
    assert_eq!(raw.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(
        door.number("duologue_websocket_closes_total{code=\"1006\"}"),
        Some(1)
    );
    let open = "duologue_websocket_sessions{subprotocol=\"duologue.v1.proto\"}";
    while door.number(open) != Some(0) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_pings_stays() {
    let mut door = Door::new();
    let (mut client, called) = door.session().await;
    let lived = timeout(Duration::from_hours(1), async {
        loop {
            // Reading answers.
            let message = client.next().await.unwrap().unwrap();
            assert!(message.is_ping(), "{message:?}");
        }
    });
    assert!(lived.await.is_err());
    called.answer(&pong(1)).await;
    assert_eq!(heard(&mut client).await, pong(1));
}

#[tokio::test(start_paused = true)]
async fn pings_of_the_client_are_answered_within_a_message_too() {
    let mut door = Door::new();
    let mut raw = door.raw(Protocol::Proto, &[]);
    raw.write_all(&frame(0x02, &[0x08])).await.unwrap();
    raw.write_all(&frame(0x89, b"there?")).await.unwrap();
    let mut answer = [0; 8];
    raw.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, *b"\x8a\x06there?");
    // The message goes on as if nothing had been.
    raw.write_all(&frame(
        0x80,
        &[&[1][..], &hello("t").encode_to_vec()].concat(),
    ))
    .await
    .unwrap();
    assert_eq!(door.called().await.said().await.unwrap(), hello(""));
}

#[tokio::test(start_paused = true)]
async fn fragments_without_end_end_in_time() {
    let mut door = Door::new();
    let (mut raw, mut called) = door.raw_session().await;
    let start = Instant::now();
    raw.write_all(&frame(0x02, b"")).await.unwrap();
    // Empty fragments take no memory, and pings show life: it is the time that ends it.
    while seconds_since(start) <= MESSAGE_TIMEOUT.as_secs() {
        raw.write_all(&frame(0x00, b"")).await.unwrap();
        raw.write_all(&frame(0x8A, b"")).await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    let close = (
        1008,
        "a message was begun and not finished in time".to_owned(),
    );
    assert_eq!(raw_close(&mut raw).await, close);
    assert_eq!(called.broke_off().await.code(), Code::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_vanishes_ends_its_session_at_once() {
    let mut door = Door::new();
    let (client, mut called) = door.session().await;
    let start = Instant::now();
    drop(client);
    assert_eq!(called.broke_off().await.code(), Code::Cancelled);
    called.down.closed().await;
    assert_eq!(seconds_since(start), 0);
}

#[tokio::test(start_paused = true)]
async fn a_close_that_is_not_answered_ends_all_the_same() {
    let mut door = Door::new();
    let mut raw = door.raw(Protocol::Proto, &[]);
    raw.write_all(&frame(0x82, &hello("t").encode_to_vec()))
        .await
        .unwrap();
    let called = door.called().await;
    called.end(refusal(Reason::Superseded)).await;
    assert_eq!(raw_close(&mut raw).await.0, 4409);
    assert_eq!(raw.read(&mut [0]).await.unwrap(), 0);
}
