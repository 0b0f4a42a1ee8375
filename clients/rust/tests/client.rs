//! The whole client against a scripted server.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test names the events that it is about, and may fail"
)]

#[expect(unreachable_pub, reason = "a module of this test")]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use duologue_client::{
    CallError, ClientError, Content, Event, FilePersistence, MessagesQuery, Persistence,
    PersistenceError, Saved, Seq, StopReason, TokenError, UserId,
};
use duologue_proto::chat::v1 as wire;
use duologue_proto::chat::v1::converse_response::Frame as Down;
use support::{Fake, event};
use tokio::time::Instant;
use tonic::{Code, Status};

fn bob() -> UserId {
    UserId::parse("bob").unwrap()
}

fn caught_up(event: &Event) -> Option<()> {
    matches!(event, Event::CaughtUp).then_some(())
}

fn stored(event: &Event) -> Option<(String, Seq)> {
    match event {
        Event::Stored(stored) => Some((stored.message_id.to_string(), stored.seq)),
        _ => None,
    }
}

fn text(event: &Event) -> Option<(u64, String)> {
    match event {
        Event::Message(message) => match &message.content {
            Content::Text(text) => Some((message.seq.0, text.clone())),
            _ => None,
        },
        _ => None,
    }
}

#[tokio::test]
async fn after_a_lost_connection_the_same_messages_go_again_and_the_rest_is_resumed() {
    let mut fake = Fake::on_socket().await;
    let (client, mut events) = fake.client().token("t").start().await.unwrap();
    let (hello, mut call) = fake.session().await;
    assert_eq!((hello.sync_token.as_str(), hello.positions.len()), ("", 0));
    call.deliver(7, "hello").await;
    call.caught_up("token-1").await;
    assert_eq!(event(&mut events, text).await, (7, "hello".into()));
    event(&mut events, caught_up).await;
    let one = client.send(&bob(), "one").await.unwrap();
    let two = client.send(&bob(), "two").await.unwrap();
    let mut first = Vec::new();
    while first.len() < 2 {
        // The cursor that says that "hello" has arrived comes between.
        if let Some(wire::converse_request::Frame::SendMessage(message)) = call.frame().await {
            first.push(message);
        }
    }
    call.fail(Status::unavailable("the node dies")).await;
    let (resumed, mut call) = fake.session().await;
    let again = [call.message().await, call.message().await];
    assert_eq!(again[..], first[..]);
    assert_eq!(again[0].after_seq, Some(7));
    assert!(resumed.connect_number > hello.connect_number);
    assert_eq!(resumed.device_id, hello.device_id);
    assert_eq!(
        (resumed.history_id.as_str(), resumed.sync_token.as_str()),
        ("h-1", "token-1")
    );
    let position = wire::Position {
        peer: "bob".into(),
        seq: 7,
    };
    assert_eq!(resumed.positions, [position]);
    assert_eq!(resumed.cursors[0].delivered, Some(7));
    call.stored(&again[0], 8).await;
    call.stored(&again[1], 9).await;
    assert_eq!(event(&mut events, stored).await, (one.to_string(), Seq(8)));
    assert_eq!(event(&mut events, stored).await, (two.to_string(), Seq(9)));
}

#[tokio::test(start_paused = true)]
async fn what_the_server_asks_to_wait_is_waited() {
    let mut fake = Fake::in_memory();
    let (_client, mut events) = fake.client().token("t").start().await.unwrap();
    let (_, call) = fake.session().await;
    let before = Instant::now();
    call.goodbye(wire::GoodbyeReason::ShuttingDown, 7).await;
    let retry_in = event(&mut events, |event| match event {
        Event::Disconnected { retry_in, .. } => Some(*retry_in),
        _ => None,
    });
    assert_eq!(retry_in.await, Duration::from_secs(7));
    fake.session().await;
    assert!(
        before.elapsed() >= Duration::from_secs(7),
        "{:?}",
        before.elapsed()
    );
    assert!(
        before.elapsed() < Duration::from_secs(8),
        "{:?}",
        before.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_superseded_client_stays_away_until_it_is_told_to_come_back() {
    let mut fake = Fake::in_memory();
    let (client, mut events) = fake.client().token("t").start().await.unwrap();
    let (_, call) = fake.session().await;
    call.goodbye(wire::GoodbyeReason::Superseded, 0).await;
    event(&mut events, |event| {
        (*event == Event::Superseded).then_some(())
    })
    .await;
    let nothing = tokio::time::timeout(Duration::from_hours(1), events.next()).await;
    assert!(nothing.is_err() && fake.no_call_is_waiting());
    client.reconnect().await.unwrap();
    fake.session().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_replaced_and_a_source_without_another_stops() {
    let mut fake = Fake::in_memory();
    let asked = Arc::new(AtomicU64::new(0));
    let source = Arc::clone(&asked);
    let tokens = move |refused: bool| {
        let number = if refused {
            source.fetch_add(1, Ordering::SeqCst) + 1
        } else {
            0
        };
        std::future::ready(Ok::<_, TokenError>(format!("token-{}", number.min(1))))
    };
    let (client, mut events) = fake.client().token_source(tokens).start().await.unwrap();
    let call = fake.call().await;
    assert_eq!(call.token, "token-0");
    call.fail(Status::unauthenticated("expired")).await;
    let call = fake.call().await;
    assert_eq!(call.token, "token-1");
    call.fail(Status::unauthenticated("expired")).await;
    let stopped = event(&mut events, |event| match event {
        Event::Stopped(reason) => Some(reason.clone()),
        _ => None,
    });
    let StopReason::Unauthenticated { detail } = stopped.await else {
        panic!("another reason");
    };
    assert!(detail.contains("expired"), "{detail}");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    // By then the server may take what it has refused.
    client.reconnect().await.unwrap();
    assert_eq!(fake.call().await.token, "token-0");
}

#[tokio::test(start_paused = true)]
async fn a_source_is_told_of_a_token_that_cannot_be_sent() {
    let mut fake = Fake::in_memory();
    let tokens = |refused: bool| {
        let token = if refused { "a token" } else { "of a file\n" };
        std::future::ready(Ok::<_, TokenError>(token.to_owned()))
    };
    let (_client, _events) = fake.client().token_source(tokens).start().await.unwrap();
    assert_eq!(fake.call().await.token, "a token");
}

#[tokio::test(start_paused = true)]
async fn close_goes_on_until_a_server_knows_what_was_read() {
    let mut fake = Fake::in_memory();
    let (client, mut events) = fake.client().token("t").start().await.unwrap();
    let (_, call) = fake.session().await;
    call.deliver(1, "read").await;
    event(&mut events, text).await;
    call.fail(Status::unavailable("the node dies")).await;
    event(&mut events, |event| {
        matches!(event, Event::Disconnected { .. }).then_some(())
    })
    .await;
    client.mark_read(&bob(), Seq(1)).await.unwrap();
    let server = async {
        // One more that dies too, before it has answered.
        fake.call()
            .await
            .fail(Status::unavailable("still away"))
            .await;
        let (hello, mut call) = fake.session().await;
        assert_eq!(hello.cursors[0].read, Some(1));
        call.send(Down::CursorStored(wire::CursorStored {
            peer: "bob".into(),
            cursor: Some(wire::Cursor {
                delivered: 1,
                read: 1,
            }),
        }))
        .await;
        while call.frame().await.is_some() {}
    };
    let rest = async { while events.next().await.is_some() {} };
    let (left, (), ()) = tokio::join!(client.close(), server, rest);
    assert_eq!(left.unwrap(), 0);
}

/// Fails from a moment on.
struct Full(Arc<AtomicBool>);

impl Persistence for Full {
    fn load(&mut self) -> Result<Option<Saved>, PersistenceError> {
        Ok(None)
    }

    fn save(&mut self, _state: &Saved) -> Result<(), PersistenceError> {
        if self.0.load(Ordering::SeqCst) {
            return Err(PersistenceError::Other("no room".into()));
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_events_is_not_held_up_by_a_store_that_fails() {
    let mut fake = Fake::in_memory();
    let is_full = Arc::new(AtomicBool::new(false));
    let client = fake.client().token("t");
    let client = client.persistence(Full(Arc::clone(&is_full)));
    let (client, mut events) = client.start().await.unwrap();
    let (_, mut call) = fake.session().await;
    for seq in 1..=1_000 {
        call.deliver(seq, "unread").await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    is_full.store(true, Ordering::SeqCst);
    let sent = client.send(&bob(), "not kept").await;
    assert!(matches!(sent, Err(ClientError::NotSaved(_))));
    assert!(matches!(client.close().await, Err(ClientError::Closed)));
    assert!(call.frame().await.is_none(), "the stream is let go");
    let stopped = event(&mut events, |event| {
        let persistence = matches!(event, Event::Stopped(StopReason::Persistence { .. }));
        persistence.then_some(())
    });
    stopped.await;
    assert!(events.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_outbox_in_a_file_is_sent_by_the_next_process() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alice.json");
    let mut fake = Fake::in_memory();
    let file = FilePersistence::open(&path).unwrap();
    let (client, events) = fake
        .client()
        .token("t")
        .persistence(file)
        .start()
        .await
        .unwrap();
    let (hello, _call) = fake.session().await;
    let id = client.send(&bob(), "unsent").await.unwrap();
    // Nobody answers: close gives up after a while and says what is left.
    assert_eq!(client.close().await.unwrap(), 1);
    drop(events);
    let file = FilePersistence::open(&path).unwrap();
    let (client, mut events) = fake
        .client()
        .token("t")
        .persistence(file)
        .start()
        .await
        .unwrap();
    let (again, mut call) = fake.session().await;
    assert_eq!(again.device_id, hello.device_id);
    assert!(again.connect_number > hello.connect_number);
    let message = call.message().await;
    assert_eq!(message.message_id.as_deref(), Some(id.as_str()));
    call.stored(&message, 1).await;
    assert_eq!(event(&mut events, stored).await.1, Seq(1));
    assert_eq!(event(&mut events, text).await, (1, "unsent".into()));
    let rest = async { while events.next().await.is_some() {} };
    let closing = async {
        // Half-closed: the server ends the stream when everything is answered.
        let close = client.close();
        let end = async {
            while call.frame().await.is_some() {}
            drop(call);
        };
        tokio::join!(close, end).0
    };
    let (left, ()) = tokio::join!(closing, rest);
    assert_eq!(left.unwrap(), 0);
    let saved = std::fs::read_to_string(&path).unwrap();
    assert!(!saved.contains("unsent"), "a settled message is forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_slow_application_slows_the_reading_and_misses_nothing() {
    const MESSAGES: u64 = 2_000;
    let mut fake = Fake::in_memory();
    let (_client, mut events) = fake.client().token("t").start().await.unwrap();
    let (_, call) = fake.session().await;
    let text_of = "x".repeat(1_000);
    let mut sent = 0;
    // Until nothing moves any more: the queues and windows are full.
    while sent < MESSAGES {
        let deliver = call.deliver(sent + 1, &text_of);
        if tokio::time::timeout(Duration::from_secs(20), deliver)
            .await
            .is_err()
        {
            break;
        }
        sent += 1;
    }
    assert!(sent > 256 && sent < MESSAGES, "{sent}");
    let deliver_rest = async {
        for seq in sent + 1..=MESSAGES {
            call.deliver(seq, &text_of).await;
        }
    };
    let take_all = async {
        for seq in 1..=MESSAGES {
            assert_eq!(event(&mut events, text).await.0, seq);
        }
    };
    tokio::join!(deliver_rest, take_all);
}

#[tokio::test(start_paused = true)]
async fn receipts_follow_what_was_taken_and_read_in_few_frames() {
    let mut fake = Fake::in_memory();
    let (client, mut events) = fake.client().token("t").start().await.unwrap();
    let (_, mut call) = fake.session().await;
    for seq in 1..=100 {
        call.deliver(seq, "text").await;
        event(&mut events, text).await;
    }
    client.mark_read(&bob(), Seq(100)).await.unwrap();
    call.send(Down::Heartbeat(wire::Heartbeat {})).await;
    let idle = async { while events.next().await.is_some() {} };
    let mut frames = 0;
    let last = async {
        loop {
            frames += 1;
            let cursor = call.cursor().await;
            if (cursor.delivered, cursor.read) == (Some(100), Some(100)) {
                break;
            }
        }
    };
    tokio::select! {
        biased;
        () = last => {}
        () = idle => panic!("the client ended"),
    }
    assert!(frames < 10, "{frames}");
}

#[tokio::test(start_paused = true)]
async fn calls_answer_typed_values_and_errors_carry_reason_and_delay() {
    let fake = Fake::in_memory();
    let (client, _events) = fake.client().token("t").start().await.unwrap();
    let page = client
        .list_messages(MessagesQuery::newest(&bob(), 20))
        .await
        .unwrap();
    assert_eq!(
        (page.messages[0].seq, page.next_page_token.as_str()),
        (Seq(3), "more")
    );
    assert_eq!(page.messages[0].content, Content::Unknown);
    let Err(ClientError::Call(error)) = client.presence(&bob()).await else {
        panic!("an error is expected");
    };
    let expected = CallError {
        code: Code::Unavailable,
        reason: "PRESENCE_UNKNOWN".into(),
        message: "not known".into(),
        retry_after: Some(Duration::from_secs(2)),
    };
    assert_eq!(error, expected);
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_events_are_dropped_ends() {
    let mut fake = Fake::in_memory();
    let (client, events) = fake.client().token("t").start().await.unwrap();
    let (_, mut call) = fake.session().await;
    drop(events);
    assert!(call.frame().await.is_none());
    let sent = client.send(&bob(), "text").await;
    assert!(matches!(sent, Err(ClientError::Closed)));
}
