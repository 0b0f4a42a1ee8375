//! A device that does not read: nobody else is harmed, and it misses nothing.

#![cfg(target_os = "linux")]

use duologue_proto::chat::v1::SendMessage;
use duologue_proto::chat::v1::converse_request::Frame as Up;
use duologue_proto::chat::v1::converse_response::Frame;

use crate::support::frames::{hello, message, ping};
use crate::support::{Server, Session};

const MESSAGES: u64 = 5_000;
const TEXT_BYTES: usize = 1_024;
/// Sends without an answer.
const IN_FLIGHT: u64 = 200;
/// What is sent is 5 MiB; what a session may hold is far less. The rest is room
/// for what the store and the allocator keep.
const MAX_GROWTH_KIB: u64 = 48 * 1_024;

/// Memory of a process that is really there.
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Sends everything in order, and waits until all is stored.
async fn send_all(alice: &mut Session) {
    let text = "x".repeat(TEXT_BYTES);
    for number in 1..=MESSAGES + IN_FLIGHT {
        if number <= MESSAGES {
            let frame = Up::SendMessage(SendMessage {
                after_seq: None,
                ..message("bob", &format!("m{number}"), &text)
            });
            alice.say(number, frame).await;
        }
        if let Some(settled) = number.checked_sub(IN_FLIGHT).filter(|number| *number > 0) {
            match alice.answer(settled).await {
                Frame::Stored(stored) => assert_eq!(stored.seq, settled),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_never_reads_harms_nobody_and_later_gets_everything() {
    let server = Server::start(&["--sends", "100000/100000"]).await;
    let (mut alice, ..) = Session::caught_up(&server.chat("alice").await, hello()).await;
    // Connections of their own: what one does not read holds up none but itself.
    let slow = server.chat_with_small_window("bob").await;
    let (mut slow, ..) = Session::caught_up(&slow, hello()).await;
    let (mut quick, ..) = Session::caught_up(&server.chat("bob").await, hello()).await;

    let before = resident_kib(server.pid());
    let reading = async { quick.messages(MESSAGES.try_into().unwrap()).await };
    let (shown, ()) = tokio::join!(reading, send_all(&mut alice));
    assert!(shown.iter().map(|one| one.seq).eq(1..=MESSAGES));
    let grown = resident_kib(server.pid()).saturating_sub(before);
    assert!(grown < MAX_GROWTH_KIB, "{grown} KiB");

    let shown = slow.messages(MESSAGES.try_into().unwrap()).await;
    assert!(shown.iter().map(|one| one.seq).eq(1..=MESSAGES));
    slow.finish();
    let end = slow.end().await;
    assert!(end.status.is_ok(), "{end:?}");
    let again = end
        .frames
        .iter()
        .filter(|frame| matches!(frame.frame, Some(Frame::MessageDelivered(_))));
    assert_eq!(again.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_and_does_not_listen_is_read_no_further_and_misses_no_answer() {
    const QUESTIONS: u64 = 100_000;
    let server = Server::start(&[]).await;
    let chat = server.chat_with_small_window("alice").await;
    let (mut deaf, ..) = Session::caught_up(&chat, hello()).await;
    let mut asked = 0;
    // Until nothing more is taken, here or there.
    while deaf.try_say(asked + 1, ping()).await {
        asked += 1;
        assert!(asked < QUESTIONS, "the server reads on and on");
    }
    for number in 1..=asked {
        assert!(matches!(deaf.answer(number).await, Frame::Pong(_)));
    }
    assert!(matches!(deaf.ask(asked + 1, ping()).await, Frame::Pong(_)));
}
