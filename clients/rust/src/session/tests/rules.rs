//! Single rules of the session.

use duologue_proto::chat::v1::converse_response::Frame as Down;

use super::model::down;
use super::*;
use crate::event::{DeferredReason, StopReason, Stored};
use crate::limits::{BACKOFF_MAX, BACKOFF_MIN, MAX_HEARTBEAT_INTERVAL, MAX_HELLO_ITEMS_BYTES};
use crate::saved::{SavedConversation, SavedMessage};

/// A session of alice that is open, with its first frames taken.
fn open(saved: Saved) -> Session {
    let mut session = Session::new(saved, options()).unwrap();
    connect(&mut session, Duration::ZERO);
    session
}

fn connect(session: &mut Session, now: Duration) {
    session.tick(at(now));
    assert_eq!(session.wanted_link(), None, "the number is saved first");
    session.saved();
    session.wanted_link().unwrap();
    session.hello();
    session.opened(at(now));
    session.frame(welcome("alice", "h-1"), at(now));
    session.saved();
    while session.next_event(now).is_some() {}
}

fn at(now: Duration) -> At {
    At {
        now,
        wall: UnixMillis(1_000),
        dice: 0,
    }
}

const NOW: Duration = Duration::from_secs(1);

fn saved() -> Saved {
    Saved::new(&DeviceId::parse("device").unwrap())
}

fn welcome(user: &str, history_id: &str) -> wire::ConverseResponse {
    down(Down::Welcome(wire::Welcome {
        user: user.into(),
        history_id: history_id.into(),
        ..Default::default()
    }))
}

fn goodbye(reason: wire::GoodbyeReason, seconds: Option<i64>) -> wire::ConverseResponse {
    down(Down::Goodbye(wire::Goodbye {
        reason: reason.into(),
        detail: String::new(),
        retry_after: seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
    }))
}

fn stored(id: &str, seq: u64) -> wire::ConverseResponse {
    down(Down::Stored(wire::Stored {
        message_id: id.into(),
        seq,
        ..Default::default()
    }))
}

fn delivered(sender: &str, recipient: &str, id: &str, seq: u64) -> wire::ConverseResponse {
    let envelope = Some(wire::Envelope {
        seq,
        message_id: id.into(),
        sender: sender.into(),
        recipient: recipient.into(),
        ..Default::default()
    });
    down(Down::MessageDelivered(wire::MessageDelivered { envelope }))
}

fn deferred(id: &str, reason: wire::DeferredReason) -> wire::ConverseResponse {
    down(Down::Deferred(wire::Deferred {
        message_id: id.into(),
        peer: "bob".into(),
        reason: reason.into(),
        retry_after: None,
        head: None,
    }))
}

fn receipt(user: &str, delivered: u64, read: u64) -> wire::ConverseResponse {
    down(Down::ReceiptAdvanced(wire::ReceiptAdvanced {
        peer: "bob".into(),
        user: user.into(),
        cursor: Some(wire::Cursor { delivered, read }),
    }))
}

fn events(session: &mut Session) -> Vec<Event> {
    std::iter::from_fn(|| session.next_event(NOW).map(|(_, event)| event)).collect()
}

fn id(text: &str) -> MessageId {
    MessageId::parse(text).unwrap()
}

fn frames(session: &mut Session) -> Vec<Frame> {
    std::iter::from_fn(|| session.next_frame(NOW)?.frame).collect()
}

fn send(session: &mut Session, text_id: &str) -> Vec<Frame> {
    session
        .send(&user("bob"), id(text_id), "text".into())
        .unwrap();
    assert!(!session.has_frame(NOW), "it is saved before it is sent");
    session.saved();
    frames(session)
}

#[test]
fn a_superseded_session_does_not_connect_again_by_itself() {
    let mut session = open(saved());
    session.frame(goodbye(wire::GoodbyeReason::Superseded, None), at(NOW));
    assert_eq!(events(&mut session), [Event::Superseded]);
    session.tick(at(NOW * 1_000));
    session.saved();
    assert_eq!(
        (session.wanted_link(), session.next_deadline(NOW)),
        (None, None)
    );
    session.reconnect(NOW);
    connect(&mut session, NOW);
}

#[test]
fn who_asks_for_a_connection_need_not_wait_long_for_the_next_try() {
    let mut session = Session::new(saved(), options()).unwrap();
    let end = |session: &mut Session, now, dice| {
        session.tick(at(now));
        session.saved();
        let lost = LinkEnd::lost("no network");
        session.ended(lost, At { dice, ..at(now) });
        assert!(matches!(events(session)[..], [Event::Disconnected { .. }]));
    };
    for failures in 1..20 {
        end(&mut session, NOW * failures, 0);
    }
    session.reconnect(NOW * 20);
    end(&mut session, NOW * 20, u64::MAX);
    let next = session.next_deadline(NOW * 20).unwrap();
    assert!(next <= NOW * 20 + BACKOFF_MIN, "{next:?}");
}

#[test]
fn an_absurd_heartbeat_interval_is_not_believed() {
    let mut session = Session::new(saved(), options()).unwrap();
    session.tick(at(NOW));
    session.saved();
    session.opened(at(NOW));
    let welcome = wire::Welcome {
        user: "alice".into(),
        history_id: "h-1".into(),
        heartbeat_interval: Some(prost_types::Duration {
            seconds: i64::MAX,
            nanos: 0,
        }),
        ..Default::default()
    };
    session.frame(down(Down::Welcome(welcome)), at(NOW));
    session.saved();
    events(&mut session);
    let silent = session.next_deadline(NOW).unwrap();
    assert!(silent <= NOW + MAX_HEARTBEAT_INTERVAL * SILENT_HEARTBEATS);
}

#[test]
fn what_goodbye_asks_to_wait_is_waited_in_full() {
    let mut session = open(saved());
    session.frame(goodbye(wire::GoodbyeReason::ShuttingDown, Some(7)), at(NOW));
    assert_eq!(session.next_deadline(NOW), Some(Duration::from_secs(8)));
    session.tick(at(Duration::from_millis(7_999)));
    assert!(!session.must_save());
    connect(&mut session, Duration::from_secs(8));
}

#[test]
fn an_expired_token_is_renewed() {
    let mut session = open(saved());
    session.frame(goodbye(wire::GoodbyeReason::Unauthenticated, None), at(NOW));
    assert!(session.needs_fresh_token());
    connect(&mut session, NOW + BACKOFF_MIN);
    assert!(!session.needs_fresh_token());
}

#[test]
fn another_history_drops_everything_but_the_outbox() {
    let mut session = open(Saved {
        user: "alice".into(),
        history_id: "h-1".into(),
        sync_token: "token".into(),
        conversations: vec![conversation("bob", 9)],
        outbox: vec![message("m-1", 9)],
        ..saved()
    });
    session.frame(goodbye(wire::GoodbyeReason::HistoryChanged, None), at(NOW));
    let (number, event) = session.next_event(NOW).unwrap();
    assert_eq!(event, Event::HistoryChanged);
    session.mark_read(&user("bob"), Seq(9), NOW);
    let mut expected = Saved {
        user: "alice".into(),
        connect_number: 1_000,
        sure_number: 1_000,
        is_history_untold: true,
        outbox: vec![message("m-1", 0)],
        ..saved()
    };
    assert_eq!(session.snapshot(), expected);
    session.handed_over(number, NOW);
    expected.is_history_untold = false;
    assert_eq!(session.snapshot(), expected);
}

#[test]
fn another_history_is_told_after_a_crash_that_came_before_it_was_taken() {
    let mut session = open(Saved {
        history_id: "h-1".into(),
        ..saved()
    });
    session.frame(goodbye(wire::GoodbyeReason::HistoryChanged, None), at(NOW));
    let mut session = Session::new(session.snapshot(), options()).unwrap();
    let (number, event) = session.next_event(NOW).unwrap();
    assert_eq!(event, Event::HistoryChanged);
    session.handed_over(number, NOW);
    let session = Session::new(session.snapshot(), options()).unwrap();
    assert!(!session.has_event());
}

#[test]
fn what_was_settled_and_is_untold_goes_to_the_other_history_from_its_beginning() {
    let mut session = open(Saved {
        conversations: vec![conversation("bob", 9)],
        outbox: vec![message("m-1", 9)],
        ..saved()
    });
    assert_eq!(frames(&mut session).len(), 1);
    session.frame(stored("m-1", 10), at(NOW));
    session.frame(goodbye(wire::GoodbyeReason::HistoryChanged, None), at(NOW));
    assert_eq!(session.snapshot().outbox, [message("m-1", 0)]);
}

#[test]
fn an_after_seq_above_the_head_means_another_history() {
    let mut session = open(Saved {
        conversations: vec![conversation("bob", 9)],
        ..saved()
    });
    send(&mut session, "m-1");
    let ahead = deferred("m-1", wire::DeferredReason::AfterSeqAhead);
    session.frame(ahead, at(NOW));
    assert_eq!(session.snapshot().outbox[0].after_seq, 0);
    assert!(events(&mut session).contains(&Event::HistoryChanged));
}

#[test]
fn nothing_is_sent_as_another_user() {
    let mut session = Session::new(
        Saved {
            user: "alice".into(),
            outbox: vec![message("m-1", 0)],
            ..saved()
        },
        options(),
    )
    .unwrap();
    session.tick(at(NOW));
    session.saved();
    session.opened(at(NOW));
    session.frame(welcome("mallory", "h-1"), at(NOW));
    session.saved();
    let stopped = Event::Stopped(StopReason::OtherUser {
        expected: user("alice"),
        actual: user("mallory"),
    });
    assert_eq!(events(&mut session), [stopped]);
    assert!(session.is_stopped() && !session.has_frame(NOW));
}

#[test]
fn a_refused_hello_goes_without_its_token_once_then_the_session_stops() {
    let refused = || LinkEnd::of(EndKind::Refused, "no");
    let mut session = open(Saved {
        sync_token: "token".into(),
        ..saved()
    });
    session.ended(refused(), at(NOW));
    assert!(!session.is_stopped());
    assert_eq!(session.snapshot().sync_token, "");
    session.ended(refused(), at(NOW));
    assert!(!session.is_stopped(), "the clock may be what is wrong");
    session.ended(refused(), at(NOW));
    assert!(session.is_stopped());
    assert!(!session.needs_fresh_token(), "the token was not refused");
}

#[test]
fn a_clock_that_is_a_day_ahead_is_not_trusted_once_its_number_was_refused() {
    let mut session = Session::new(
        Saved {
            connect_number: 500,
            sure_number: 500,
            ..saved()
        },
        options(),
    )
    .unwrap();
    let mut next = |ended: Option<LinkEnd>, now: Duration| {
        if let Some(end) = ended {
            session.ended(end, at(now));
        }
        session.tick(at(now + BACKOFF_MAX));
        session.saved();
        session.snapshot().connect_number
    };
    assert_eq!(next(None, NOW), 1_000);
    // What ends a link before `Welcome` says nothing of the number.
    assert_eq!(next(Some(LinkEnd::lost("cut")), NOW * 2), 1_001);
    let expired = LinkEnd::of(EndKind::Unauthenticated, "expired");
    assert_eq!(next(Some(expired), NOW * 5), 1_002);
    let refused = LinkEnd::of(EndKind::Refused, "connect_number is too far ahead");
    assert_eq!(next(Some(refused), NOW * 10), 501);
    assert_eq!(next(Some(LinkEnd::lost("cut")), NOW * 20), 502);
}

#[test]
fn a_gap_in_the_stream_ends_the_link_and_moves_nothing() {
    let mut session = open(saved());
    session.frame(delivered("bob", "alice", "m-5", 5), at(NOW));
    session.frame(delivered("bob", "alice", "m-7", 7), at(NOW));
    assert_eq!(session.wanted_link(), None);
    let conversation = session.conversations.get(&user("bob")).unwrap();
    assert_eq!(conversation.position, Some(Seq(5)));
}

#[test]
fn the_own_message_in_a_delivery_is_the_answer() {
    let mut session = open(saved());
    assert_eq!(send(&mut session, "m-1").len(), 1);
    session.frame(deferred("m-1", wire::DeferredReason::Unavailable), at(NOW));
    // The same id of another sender is not it.
    session.frame(delivered("bob", "alice", "m-1", 4), at(NOW));
    assert_eq!(session.unsettled(), 1);
    session.frame(delivered("alice", "bob", "m-1", 5), at(NOW));
    assert_eq!(session.unsettled(), 0);
    let stored = Event::Stored(Stored {
        message_id: id("m-1"),
        peer: user("bob"),
        seq: Seq(5),
        duplicate: true,
        accepted_at: UnixMillis(0),
    });
    assert!(events(&mut session).contains(&stored));
    // Others need not wait for it any longer.
    session.saved();
    assert!(matches!(frames(&mut session)[..], [Frame::Abandon(_)]));
}

#[test]
fn what_is_shown_before_its_second_answer_may_be_a_duplicate() {
    let mut session = open(saved());
    send(&mut session, "m-1");
    // The second time it is on its way from an earlier life of the program.
    let mut session = open(session.snapshot());
    send(&mut session, "m-2");
    for (place, id) in (1..).zip(["m-1", "m-2"]) {
        session.frame(delivered("alice", "bob", id, place), at(NOW));
    }
    let told = events(&mut session).into_iter();
    let told = told.filter_map(|event| match event {
        Event::Stored(stored) => Some((stored.message_id, stored.duplicate)),
        _ => None,
    });
    assert_eq!(
        told.collect::<Vec<_>>(),
        [(id("m-1"), true), (id("m-2"), false)]
    );
}

#[test]
fn a_deferral_of_what_was_found_meanwhile_is_taken_off_the_server_s_list() {
    let mut session = open(saved());
    send(&mut session, "m-1");
    session.frame(delivered("alice", "bob", "m-1", 5), at(NOW));
    session.frame(deferred("m-1", wire::DeferredReason::Unavailable), at(NOW));
    session.saved();
    assert!(matches!(frames(&mut session)[..], [Frame::Abandon(_)]));
}

#[test]
fn a_message_given_up_in_flight_is_not_sent_again_but_may_be_stored() {
    let mut session = open(saved());
    send(&mut session, "m-1");
    send(&mut session, "m-2");
    assert!(session.abandon(&id("m-1")) && session.abandon(&id("m-2")));
    session.saved();
    assert_eq!(session.snapshot().outbox, []);
    session.frame(deferred("m-1", wire::DeferredReason::Unavailable), at(NOW));
    session.frame(stored("m-2", 1), at(NOW));
    session.saved();
    assert!(matches!(frames(&mut session)[..], [Frame::Abandon(_)]));
    let told = events(&mut session);
    assert!(
        matches!(told[..], [Event::Stored(_), Event::Message(_)]),
        "{told:?}"
    );
    assert_eq!(session.unsettled(), 0);
}

#[test]
fn an_abandoned_message_is_taken_off_the_server_s_list() {
    let mut session = open(saved());
    send(&mut session, "m-1");
    session.frame(deferred("m-1", wire::DeferredReason::RateLimited), at(NOW));
    let reason = DeferredReason::RateLimited;
    let (message_id, peer) = (id("m-1"), user("bob"));
    let event = Event::Deferred {
        message_id,
        peer,
        reason,
    };
    assert_eq!(events(&mut session), [event]);
    assert!(session.abandon(&id("m-1")));
    assert!(!session.abandon(&id("m-1")));
    session.saved();
    assert!(matches!(frames(&mut session)[..], [Frame::Abandon(_)]));
    assert_eq!(session.snapshot().outbox, []);
}

#[test]
fn what_was_shown_of_a_cursor_is_never_lowered_even_by_a_restart() {
    let mut session = open(saved());
    session.frame(receipt("bob", 5, 3), at(NOW));
    session.frame(receipt("bob", 4, 2), at(NOW));
    let shown = |session: &mut Session| {
        let mut shown = Vec::new();
        while let Some((number, event)) = session.next_event(NOW) {
            match event {
                Event::Delivered { seq, .. } => shown.push(('d', seq.0)),
                Event::Read { seq, .. } => shown.push(('r', seq.0)),
                _ => {}
            }
            session.handed_over(number, NOW);
        }
        shown
    };
    assert_eq!(shown(&mut session), [('d', 5), ('r', 3)]);
    let mut session = open(session.snapshot());
    session.frame(receipt("bob", 5, 4), at(NOW));
    session.frame(receipt("bob", 2, 2), at(NOW));
    assert_eq!(shown(&mut session), [('r', 4)]);
}

#[test]
fn a_cursor_that_the_application_has_not_taken_is_told_again_after_a_restart() {
    let mut session = open(saved());
    let tell = |session: &mut Session| {
        session.frame(receipt("bob", 5, 3), at(NOW));
        session.frame(receipt("alice", 7, 2), at(NOW));
        events(session)
    };
    let told = tell(&mut session);
    assert_eq!(told.len(), 3);
    let mut session = open(session.snapshot());
    assert_eq!(tell(&mut session), told);
}

#[test]
fn an_own_cursor_that_another_device_moved_is_told_also_by_an_answer() {
    let mut session = open(saved());
    session.mark_read(&user("bob"), Seq(3), NOW);
    frames(&mut session);
    let stored = down(Down::CursorStored(wire::CursorStored {
        peer: "bob".into(),
        cursor: Some(wire::Cursor {
            delivered: 7,
            read: 3,
        }),
    }));
    session.frame(stored, at(NOW));
    session.frame(receipt("alice", 7, 3), at(NOW));
    let told = events(&mut session);
    let own = |event: &Event| matches!(event, Event::OwnCursor { cursor, .. } if cursor.delivered == Seq(7));
    assert_eq!(
        told.iter().filter(|event| own(event)).count(),
        1,
        "{told:?}"
    );
}

#[test]
fn a_cursor_that_cannot_be_stored_now_is_asked_for_again() {
    let mut session = open(saved());
    session.mark_read(&user("bob"), Seq(3), NOW);
    assert!(matches!(
        frames(&mut session)[..],
        [Frame::AdvanceCursor(_)]
    ));
    let rejected = |reason: wire::CursorRejectedReason| {
        down(Down::CursorRejected(wire::CursorRejected {
            peer: "bob".into(),
            reason: reason.into(),
            ..Default::default()
        }))
    };
    session.frame(rejected(wire::CursorRejectedReason::Unavailable), at(NOW));
    assert_eq!(frames(&mut session), []);
    let later = session
        .next_deadline(NOW * 2)
        .map_or(NOW * 2, |due| due.min(NOW * 2));
    assert!(session.has_frame(later.max(NOW * 2)));
    assert!(session.next_frame(NOW * 2).is_some());
    session.frame(rejected(wire::CursorRejectedReason::AboveHead), at(NOW * 2));
    assert!(!session.has_frame(NOW * 100));
}

#[test]
fn position_and_token_are_kept_only_after_the_application_took_them() {
    let mut session = open(saved());
    session.frame(delivered("bob", "alice", "m-5", 5), at(NOW));
    // Where the device began, or a crash now would skip what it had not shown.
    assert!(session.must_save());
    assert_eq!(session.snapshot().conversations[0].position, Some(4));
    session.saved();
    session.frame(delivered("bob", "alice", "m-6", 6), at(NOW));
    assert!(!session.must_save());
    let sync_token = "token".to_owned();
    session.frame(down(Down::CaughtUp(wire::CaughtUp { sync_token })), at(NOW));
    session.next_event(NOW).unwrap();
    let (message, _) = session.next_event(NOW).unwrap();
    let (caught_up, _) = session.next_event(NOW).unwrap();
    let kept = |session: &Session| {
        let saved = session.snapshot();
        (saved.conversations[0].position, saved.sync_token)
    };
    assert_eq!(kept(&session), (Some(4), String::new()));
    session.handed_over(message, NOW);
    assert_eq!(kept(&session), (Some(6), String::new()));
    session.handed_over(caught_up, NOW);
    assert_eq!(kept(&session), (Some(6), "token".into()));
}

#[test]
fn a_silent_server_is_given_up_but_not_for_the_application_s_slowness() {
    let mut session = open(saved());
    session.frame(delivered("bob", "alice", "m-5", 5), at(NOW));
    let later = NOW + DEFAULT_SILENCE * 2;
    session.tick(at(later));
    assert!(session.is_welcomed());
    session.next_event(later);
    session.tick(at(later + DEFAULT_SILENCE));
    assert!(!session.is_welcomed());
}

#[test]
fn connect_numbers_rise_though_the_clock_stands_or_steps_back() {
    let mut session = open(Saved {
        connect_number: 5_000,
        ..saved()
    });
    assert_eq!(session.snapshot().connect_number, 5_001);
    session.ended(LinkEnd::lost("cut"), at(NOW));
    connect(&mut session, NOW);
    assert_eq!(session.snapshot().connect_number, 5_002);
}

#[test]
fn hello_fits_into_a_frame_however_much_there_is_to_name() {
    let peers = (0..600).map(|number| format!("{number:064}"));
    let mut session = Session::new(
        Saved {
            conversations: peers
                .map(|peer| SavedConversation {
                    unconfirmed: true,
                    delivered: u64::MAX,
                    ..conversation(&peer, u64::MAX)
                })
                .collect(),
            ..saved()
        },
        options(),
    )
    .unwrap();
    let hello = session.hello();
    let bytes = prost::Message::encoded_len(&hello);
    assert!(
        bytes > MAX_HELLO_ITEMS_BYTES / 2 && bytes < 64 * 1024,
        "{bytes}"
    );
    let Some(Frame::Hello(hello)) = hello.frame else {
        panic!("not Hello");
    };
    assert!(hello.positions.len() > 300, "{}", hello.positions.len());
    assert_eq!(hello.positions[0].peer, format!("{:064}", 0));
    // What had no room follows, in every session until it is confirmed.
    let rest = 600 - hello.cursors.len();
    assert!(rest > 0);
    for _ in 0..2 {
        connect(&mut session, NOW);
        assert_eq!(frames(&mut session).len(), rest);
        session.ended(LinkEnd::lost("cut"), at(NOW));
    }
}

#[test]
fn text_outside_the_limits_and_a_full_outbox_are_refused() {
    let mut session = open(saved());
    let mut send = |text: String| session.send(&user("bob"), id("m"), text);
    assert_eq!(send(String::new()), Err(NotTaken::Empty));
    assert_eq!(send("x".repeat(MAX_TEXT_BYTES + 1)), Err(NotTaken::TooLong));
    assert_eq!(send("x".repeat(MAX_TEXT_BYTES)), Ok(()));
    for number in 1..MAX_OUTBOX {
        let id = id(&format!("m-{number}"));
        session.send(&user("bob"), id, "x".into()).unwrap();
    }
    let full = session.send(&user("bob"), id("last"), "x".into());
    assert_eq!(full, Err(NotTaken::Full));
}

proptest! {
    #[test]
    fn no_frames_make_it_panic(frames in proptest::collection::vec(any::<(u8, u8, u64)>(), 0..40)) {
        let mut session = open(saved());
        send(&mut session, "m-1");
        for (kind, name, number) in frames {
            let text = ["", "alice", "bob", "m-1", "/"][usize::from(name) % 5];
            session.frame(odd_frame(kind, text, number), at(NOW));
            session.tick(at(NOW * 2));
            while session.next_event(NOW).is_some() {}
            session.saved();
        }
        let _state = session.snapshot();
    }
}

fn odd_frame(kind: u8, text: &str, number: u64) -> wire::ConverseResponse {
    let reason = i32::try_from(number % 12).unwrap();
    match kind % 8 {
        0 => delivered(text, "alice", "m-1", number),
        1 => down(Down::Stored(wire::Stored {
            message_id: text.into(),
            peer: text.into(),
            seq: number,
            ..Default::default()
        })),
        2 => down(Down::Deferred(wire::Deferred {
            message_id: text.into(),
            reason,
            retry_after: Some(prost_types::Duration {
                seconds: i64::MAX,
                nanos: -5,
            }),
            head: Some(number),
            ..Default::default()
        })),
        3 => down(Down::Rejected(wire::Rejected {
            message_id: text.into(),
            reason,
            ..Default::default()
        })),
        4 => receipt(text, number, number),
        5 => welcome(text, text),
        6 => wire::ConverseResponse::default(),
        _ => down(Down::Goodbye(wire::Goodbye {
            reason,
            ..Default::default()
        })),
    }
}

fn conversation(peer: &str, position: u64) -> SavedConversation {
    SavedConversation {
        peer: peer.into(),
        position: Some(position),
        known: position,
        delivered: 0,
        read: 0,
        unconfirmed: false,
        peer_delivered: 0,
        peer_read: 0,
    }
}

fn message(id: &str, after_seq: u64) -> SavedMessage {
    SavedMessage {
        message_id: id.into(),
        peer: "bob".into(),
        after_seq,
        text: "text".into(),
    }
}
