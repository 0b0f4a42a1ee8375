//! Each direction goes as fast as its reader, and keeps little meanwhile.

use tokio::time::{sleep, timeout};

use super::super::super::{DOWN_BYTES, UP_BYTES};
use super::*;

/// What a message of these tests takes.
const MESSAGE_BYTES: usize = 1_000;
/// Far longer than anything takes that happens at all: the clock stands still while
/// there is something to do.
const MOMENT: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_served_at_its_pace_and_bounds_what_waits() {
    let mut door = Door::new();
    let (mut client, called) = door.session().await;
    let message = pong(u64::MAX);
    let one = {
        let mut bytes = BytesMut::new();
        let mut padded = message.encode_to_vec();
        // A field that nobody knows.
        padded.extend([0xFA, 0x01, 0xE8, 0x07]);
        padded.extend([7; MESSAGE_BYTES]);
        proto::write(&padded, &mut bytes);
        bytes.freeze()
    };
    let mut taken = 0;
    while timeout(MOMENT, called.chunk(one.clone())).await.is_ok() {
        taken += one.len();
    }
    // What the pipe holds, what waits here, and what the test's channel holds.
    assert!(taken <= PIPE_BYTES + DOWN_BYTES + 4 * one.len(), "{taken}");
    assert!(taken >= PIPE_BYTES, "{taken}");
    let count = taken / one.len();
    for _ in 0..count {
        assert_eq!(heard(&mut client).await.r#ref, u64::MAX);
        // It is not given up for being slow, as long as it answers pings.
        sleep(Duration::from_secs(5)).await;
    }
    called.end(Status::ok("")).await;
    assert_eq!(closed(&mut client).await.0, 1000);
}

#[tokio::test(start_paused = true)]
async fn what_waited_for_room_goes_on_when_all_of_it_is_taken_at_once() {
    let mut door = Door::new();
    door.pipe_bytes = DOWN_BYTES + 8 * 1024;
    let (mut raw, called) = door.raw_session().await;
    let (mut chunk, mut wanted) = (BytesMut::new(), Vec::new());
    let add = |wanted: &mut Vec<u8>, number| {
        let message = pong(number).encode_to_vec();
        wanted.extend([0x82, u8::try_from(message.len()).unwrap()]);
        wanted.extend(&message);
        message
    };
    // The pipe takes so much that no room is made, and then the rest.
    let mut count = 0;
    while wanted.len() < door.pipe_bytes + DOWN_BYTES + 1_024 {
        proto::write(&add(&mut wanted, count), &mut chunk);
        count += 1;
    }
    called.chunk(chunk.freeze()).await;
    add(&mut wanted, count);
    called.answer(&pong(count)).await;
    let mut heard = vec![0; wanted.len()];
    let (first, rest) = heard.split_at_mut(door.pipe_bytes);
    sleep(MOMENT).await;
    raw.read_exact(first).await.unwrap();
    let reading = timeout(MOMENT, raw.read_exact(rest));
    reading.await.expect("it goes on at once").unwrap();
    assert!(heard == wanted);
}

#[tokio::test(start_paused = true)]
async fn a_flood_waits_and_nothing_of_it_is_lost() {
    let mut door = Door::new();
    let (mut raw, mut called) = door.raw_session().await;
    let ping = frame_up(u64::MAX, Up::Ping(Ping {})).encode_to_vec();
    let frame = frame(0x82, &ping);
    let burst = frame.repeat(50);
    let mut written = 0;
    while timeout(MOMENT, raw.write_all(&burst)).await.is_ok() {
        written += 50;
    }
    let bytes = written * frame.len();
    assert!(bytes <= PIPE_BYTES + UP_BYTES + 32 * 1024, "{bytes}");
    assert!(bytes >= UP_BYTES / 2, "{bytes}");
    // Silence that was not listened to is none, however long.
    sleep(Duration::from_mins(10)).await;
    for _ in 0..written {
        assert_eq!(called.said().await.unwrap().r#ref, u64::MAX);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_ended_in_a_flood_is_still_told() {
    let mut door = Door::new();
    let (mut client, called) = door.session().await;
    called.end(refusal(Reason::TooManyDeferred)).await;
    let ping = binary(frame_up(1, Up::Ping(Ping {})));
    for _ in 0..100 {
        let _ = client.feed(ping.clone()).await;
    }
    let _ = client.flush().await;
    assert_eq!(closed(&mut client).await.0, 1013);
}
