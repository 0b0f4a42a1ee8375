//! Much at once: what holds for one message holds for a flood with reconnects.

use duologue_proto::chat::v1::converse_request::Frame as Up;
use duologue_proto::chat::v1::converse_response::Frame;
use duologue_proto::chat::v1::{GoodbyeReason, Hello, ListConversationsRequest, SendMessage};
use duologue_runtime::refusal::Reason;
use duologue_runtime::task;

use crate::support::calls::{history, sent, seqs};
use crate::support::frames::{hello, message, ping, position, send};
use crate::support::http::get;
use crate::support::refused::assert_refused;
use crate::support::session::delivered;
use crate::support::{Server, Session, soon};

const NO_LIMIT: [&str; 6] = [
    "--sends",
    "1000000/1000000",
    "--calls",
    "1000000/1000000",
    "--connects",
    "1000000/1000000",
];

/// Sends so many messages, each when the one before is stored.
async fn flood(mut session: Session, peer: &str, name: &str, count: u64) {
    for number in 1..=count {
        let frame = Up::SendMessage(SendMessage {
            after_seq: None,
            ..message(peer, &format!("{name}{number}"), "in a flood")
        });
        let answer = session.ask(number, frame).await;
        assert!(matches!(answer, Frame::Stored(_)), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_comes_and_goes_in_a_flood_misses_nothing_and_gets_nothing_twice() {
    const EACH: u64 = 1_000;
    let server = Server::start(&NO_LIMIT).await;
    let mut floods = Vec::new();
    for (user, peer, name) in [
        ("alice", "bob", "a"),
        ("alice", "bob", "b"),
        ("bob", "alice", "c"),
    ] {
        let (session, ..) = Session::caught_up(&server.chat(user).await, hello()).await;
        floods.push(task::spawn("flood", flood(session, peer, name, EACH)));
    }
    let bob = server.chat("bob").await;
    let mut held = 0;
    let mut connects = 0;
    while held < 3 * EACH {
        connects += 1;
        let mut session = Session::open(
            &bob,
            Hello {
                positions: vec![position("alice", held)],
                ..hello()
            },
        )
        .await;
        // Now and then it stays a little longer.
        for _ in 0..(connects * 37) % 400 {
            if held == 3 * EACH {
                break;
            }
            let next = session.until(delivered).await;
            assert_eq!(next.seq, held + 1, "in connect {connects}");
            held = next.seq;
        }
    }
    assert!(connects > 5, "{connects}");
    for flood in floods {
        soon(flood).await.unwrap();
    }
    let kept = history(&mut server.chat("alice").await, "bob").await;
    assert!(kept.iter().map(|one| one.seq).eq(1..=3 * EACH));
}

#[tokio::test]
async fn sessions_that_come_and_go_in_any_way_leave_nothing_behind() {
    let flags = [&NO_LIMIT[..], &["--sessions-per-user", "3"]].concat();
    let server = Server::start(&flags).await;
    let chat = server.chat("alice").await;
    for round in 0..100_u64 {
        let mut session = match round % 4 {
            0 => Session::connect(&chat).await,
            _ => Session::open(&chat, hello()).await,
        };
        match round % 4 {
            1 => {
                session
                    .say(1, send("bob", &format!("m{round}"), "hi"))
                    .await;
            }
            2 => {
                session.finish();
                session.end().await;
            }
            _ => {}
        }
        drop(session);
        // Places are free again a moment after the end, not at it.
        let free = async {
            let none = "duologue_chat_sessions 0";
            while !get(server.admin, "/metrics").await.body.contains(none) {}
        };
        soon(free).await;
    }
}

#[tokio::test]
async fn the_longest_names_fit_every_token_and_page() {
    let server = Server::start(&NO_LIMIT).await;
    let name = |n: usize| format!("{n:-<64}");
    let mut chat = server.chat(&name(0)).await;
    for number in 1..=5 {
        assert_eq!(sent(&mut chat, &name(number), &name(0), "hi").await, 1);
    }
    let mut peers = 0;
    let mut request = ListConversationsRequest {
        page_size: 1,
        ..Default::default()
    };
    loop {
        let page = chat
            .list_conversations(request.clone())
            .await
            .unwrap()
            .into_inner();
        peers += page.conversations.len();
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(peers, 5);
    let (_, shown, sync_token) = Session::caught_up(&chat, hello()).await;
    assert_eq!(seqs(&shown), [1; 5]);
    let known = Hello {
        sync_token,
        positions: (1..=5).map(|number| position(&name(number), 1)).collect(),
        ..hello()
    };
    let (_, shown, _) = Session::caught_up(&chat, known).await;
    assert!(shown.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_more_than_10_000_conversations_is_told_to_come_back() {
    let server = Server::start(&NO_LIMIT).await;
    let (mut alice, ..) = Session::caught_up(&server.chat("alice").await, hello()).await;
    let mut answered = 0;
    for number in 1..=10_001_u64 {
        alice
            .say(number, send(&format!("peer{number}"), "m", "hi"))
            .await;
        if number > 200 {
            alice.answer_any().await;
            answered += 1;
        }
    }
    let end = alice.end().await;
    assert_eq!(end.goodbye().reason(), GoodbyeReason::Resync);
    assert_refused(end.status(), Reason::SessionFull);
    answered += end.frames.iter().filter(|frame| frame.r#ref > 0).count();
    assert!(answered >= 10_000, "{answered}");
    // With a token it is welcome, and not shown what it has.
    let mut again = Session::open(&server.chat("alice").await, hello()).await;
    again.ask(1, ping()).await;
}
