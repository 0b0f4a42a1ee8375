//! Records that break one promise each.

use super::broken;
use super::story::{
    ALICE, ALICE_NEW, BOB, BOB_LEFT, CURSOR, PLANTED, caught_up, connect, delivered, disconnect,
    envelope, good, moved, receipt, send, stored, welcome,
};
use crate::event::{Connect, Cursor, Door, Envelope, Event, Refused, Way};

/// The place of an event in the good record.
fn place(events: &[Event], event: &Event) -> usize {
    events.iter().position(|one| one == event).unwrap()
}

/// Puts events before the final readings.
fn before_the_end(planted: impl IntoIterator<Item = Event>) -> Vec<Event> {
    let mut events = good();
    let end = events
        .iter()
        .position(|event| matches!(event, Event::History { .. }))
        .unwrap();
    events.splice(end..end, planted);
    events
}

/// Changes every history.
fn in_histories(events: &mut [Event], change: impl Fn(&mut Vec<Envelope>)) {
    for event in events {
        if let Event::History { messages, .. } = event {
            change(messages);
        }
    }
}

/// Changes every envelope.
fn in_envelopes(events: &mut [Event], change: impl Fn(&mut Envelope)) {
    for event in events {
        if let Event::History { messages, .. } = event {
            messages.iter_mut().for_each(&change);
        } else if let Event::Delivered { envelope, .. } = event {
            change(envelope);
        }
    }
}

#[test]
fn an_acknowledged_message_that_is_lost() {
    let mut events = good();
    in_histories(&mut events, |messages| messages.truncate(4));
    assert_eq!(broken(events), ["acknowledged_present"]);
}

#[test]
fn a_message_stored_twice() {
    let again = || Envelope {
        seq: 7,
        accepted_at: 1_007,
        ..envelope(2)
    };
    let shown = [BOB, ALICE_NEW].map(|session| Event::Delivered {
        session,
        envelope: again(),
    });
    let mut events = before_the_end(shown);
    in_histories(&mut events, |messages| messages.push(again()));
    assert_eq!(broken(events), ["at_most_once"]);
}

#[test]
fn two_devices_with_two_orders() {
    let mut events = good();
    for event in &mut events {
        if let Event::Delivered { session, envelope } = event
            && *session == BOB_LEFT
        {
            envelope.message_id = match envelope.message_id.as_str() {
                "m2" => "m3".into(),
                "m3" => "m2".into(),
                other => other.into(),
            };
        }
    }
    assert_eq!(broken(events), ["one_order"]);
}

#[test]
fn a_history_with_a_gap() {
    let mut events = good();
    in_histories(&mut events, |messages| {
        messages.remove(5);
        messages.push(Envelope {
            seq: 7,
            ..envelope(6)
        });
    });
    in_envelopes(&mut events, |envelope| {
        if envelope.message_id == "m6" {
            envelope.seq = 7;
        }
    });
    // Whoever was shown it lacks the one before.
    assert_eq!(broken(events)[0], "one_order");
}

#[test]
fn an_unknown_outcome_that_one_user_has() {
    let mut events = good();
    for event in &mut events {
        if let Event::History {
            reader, messages, ..
        } = event
            && reader == "alice"
        {
            messages.pop();
        }
    }
    assert_eq!(broken(events), ["unknown_both_or_neither"]);
}

#[test]
fn a_refused_message_that_is_stored() {
    let refused = Event::Rejected(Refused {
        try_number: Some(6),
        user: "alice".into(),
        message_id: "m6".into(),
        reason: "INVALID".into(),
    });
    assert_eq!(
        broken(before_the_end([refused])),
        ["unknown_both_or_neither"]
    );
}

#[test]
fn a_message_with_another_body() {
    let mut events = good();
    in_envelopes(&mut events, |envelope| {
        if envelope.seq == 6 {
            envelope.body += 1;
        }
    });
    assert_eq!(broken(events), ["nothing_invented"]);
}

#[test]
fn a_message_accepted_before_the_one_before_it() {
    let mut events = good();
    in_envelopes(&mut events, |envelope| {
        if envelope.seq == 6 {
            envelope.accepted_at = 1_000;
        }
    });
    assert_eq!(broken(events), ["accepted_at_monotone"]);
}

#[test]
fn sends_of_a_session_stored_in_another_order() {
    let mut events = good();
    let swap = |seq: &mut u64, accepted_at: &mut u64| {
        *seq = match *seq {
            2 => 3,
            3 => 2,
            other => other,
        };
        *accepted_at = 1_000 + *seq;
    };
    in_envelopes(&mut events, |envelope| {
        swap(&mut envelope.seq, &mut envelope.accepted_at);
    });
    in_histories(&mut events, |messages| {
        messages.sort_by_key(|envelope| envelope.seq);
    });
    for event in &mut events {
        if let Event::Stored(stored) = event {
            swap(&mut stored.seq, &mut stored.accepted_at);
        }
    }
    // Shown in the order of their places, whoever is shown them.
    for session in [BOB_LEFT, ALICE_NEW] {
        let shown = |seq: u64| {
            let is_it = move |event: &Event| matches!(event, Event::Delivered { session: s, envelope } if *s == session && envelope.seq == seq);
            events.iter().position(is_it).unwrap()
        };
        let (two, three) = (shown(2), shown(3));
        events.swap(two, three);
    }
    assert_eq!(broken(events), ["session_order"]);
}

#[test]
fn a_send_whose_predecessor_is_not_stored() {
    let lost = send(60, ALICE, 60);
    let mut events = good();
    let at = place(&events, &send(6, ALICE, 6));
    events.insert(at, lost);
    assert_eq!(broken(events), ["session_order"]);
}

#[test]
fn a_predecessor_that_was_given_up_binds_nothing() {
    let mut events = good();
    let at = place(&events, &send(6, ALICE, 6));
    let abandon = Event::Abandon {
        lane: ALICE,
        user: "alice".into(),
        message_id: "m60".into(),
    };
    events.splice(at..at, [send(60, ALICE, 60), abandon]);
    assert_eq!(broken(events), Vec::<&str>::new());
}

#[test]
fn what_was_stored_before_it_was_given_up_keeps_its_place() {
    let mut events = good();
    let again = place(&events, &send(7, ALICE, 5));
    let abandon = Event::Abandon {
        lane: ALICE,
        user: "alice".into(),
        message_id: "m5".into(),
    };
    events.insert(again, abandon);
    assert_eq!(broken(events), Vec::<&str>::new());
}

#[test]
fn a_message_stored_before_what_was_known_when_it_was_sent() {
    let mut events = good();
    let sent = place(&events, &send(6, ALICE, 6));
    let shown = place(&events, &delivered(BOB, 6));
    events.swap(sent, shown);
    assert_eq!(broken(events), ["ack_before_send"]);
}

#[test]
fn a_retry_that_is_not_called_a_duplicate() {
    let mut events = good();
    let at = place(&events, &stored(7, ALICE, 5, true));
    events[at] = stored(7, ALICE, 5, false);
    assert_eq!(broken(events), ["duplicate_flag_truthful"]);
}

#[test]
fn an_only_try_that_is_called_a_duplicate() {
    let mut events = good();
    let at = place(&events, &stored(1, ALICE, 1, false));
    events[at] = stored(1, ALICE, 1, true);
    assert_eq!(broken(events), ["duplicate_flag_truthful"]);
}

#[test]
fn a_session_that_goes_on_after_its_goodbye() {
    let mut events = good();
    let at = place(&events, &delivered(BOB, 5));
    let goodbye = Event::Goodbye {
        session: BOB,
        reason: "SUPERSEDED".into(),
    };
    events.insert(at, goodbye);
    assert_eq!(broken(events), ["goodbye_is_last"]);
}

#[test]
fn a_client_that_gives_up() {
    let stopped = Event::Stopped {
        session: BOB,
        reason: "no other token".into(),
    };
    assert_eq!(broken(before_the_end([stopped])), ["client_goes_on"]);
}

#[test]
fn a_client_that_is_never_answered() {
    let restless = Event::Restless {
        settled: 1,
        clients: 2,
    };
    assert_eq!(broken(before_the_end([restless])), ["everything_settles"]);
}

#[test]
pub(super) fn a_message_pushed_twice() {
    let mut events = good();
    let at = place(&events, &delivered(ALICE_NEW, 3));
    events.insert(at, delivered(ALICE_NEW, 3));
    assert_eq!(broken(events), ["shown_once_in_order"]);
}

#[test]
fn messages_shown_in_another_order() {
    let mut events = good();
    let two = place(&events, &delivered(ALICE_NEW, 2));
    events.swap(two, two + 1);
    assert_eq!(broken(events), ["shown_once_in_order"]);
}

/// A session of bob that is shown this, and ends.
fn session_of_bob(connect: Connect, shown: impl IntoIterator<Item = Event>) -> Vec<Event> {
    let first = [Event::Connect(connect), welcome(PLANTED)];
    let shown = shown.into_iter().chain([disconnect(PLANTED)]);
    before_the_end(first.into_iter().chain(shown))
}

fn by_position(position: u64) -> Connect {
    Connect {
        positions: [("alice".into(), position)].into(),
        ..connect(PLANTED, "bob")
    }
}

#[test]
pub(super) fn a_resume_that_skips_one() {
    let events = session_of_bob(by_position(2), [delivered(PLANTED, 4)]);
    assert_eq!(broken(events), ["no_gap_from_start"]);
}

#[test]
fn a_resume_that_repeats_one() {
    let events = session_of_bob(
        by_position(2),
        [delivered(PLANTED, 2), delivered(PLANTED, 3)],
    );
    assert_eq!(broken(events), ["no_gap_from_start"]);
}

#[test]
fn a_resume_by_token_that_skips_what_its_holder_lacks() {
    let by_token = |token: &str| Connect {
        token: token.into(),
        ..connect(PLANTED, "bob")
    };
    // The first token was given before the first message, the second after five.
    let events = session_of_bob(by_token("t2"), [delivered(PLANTED, 2)]);
    assert_eq!(broken(events), ["no_gap_from_start"]);
    let events = session_of_bob(by_token("t3"), [delivered(PLANTED, 6)]);
    assert_eq!(broken(events), Vec::<&str>::new());
}

#[test]
fn a_start_elsewhere_than_at_the_cursor() {
    for first in [3, 5] {
        let events = session_of_bob(connect(PLANTED, "bob"), [delivered(PLANTED, first)]);
        assert_eq!(broken(events), ["no_gap_from_start"], "{first}");
    }
}

#[test]
fn caught_up_without_everything() {
    let told = [
        receipt(PLANTED, "alice"),
        delivered(PLANTED, 5),
        caught_up(PLANTED),
    ];
    let events = session_of_bob(by_position(4), told);
    assert_eq!(broken(events), ["caught_up_true"]);
}

#[test]
fn a_session_that_never_gets_the_last_message() {
    let mut events = good();
    let at = place(&events, &delivered(BOB, 6));
    events.remove(at);
    assert_eq!(broken(events), ["eventually_caught_up"]);
}

#[test]
pub(super) fn a_message_shown_to_a_stranger() {
    let stranger = Event::Connect(connect(PLANTED, "carol"));
    let events = before_the_end([stranger, welcome(PLANTED), delivered(PLANTED, 1)]);
    assert_eq!(broken(events), ["nothing_to_strangers"]);
}

#[test]
fn a_stored_cursor_that_retreats() {
    let lower = Cursor {
        delivered: 2,
        read: 2,
    };
    let events = before_the_end([
        Event::CursorAsked(moved(51, lower)),
        Event::CursorStored(moved(51, lower)),
    ]);
    assert_eq!(broken(events), ["cursor_never_lowered"]);
}

#[test]
fn a_cursor_that_the_client_shows_lower_than_before() {
    let client = Event::Connect(Connect {
        door: Door::Client,
        way: Way::Native,
        ..connect(PLANTED, "alice")
    });
    let lower = Event::Receipt {
        session: PLANTED,
        peer: "bob".into(),
        user: "bob".into(),
        cursor: Cursor {
            delivered: 2,
            read: 2,
        },
    };
    let events = before_the_end([client, receipt(PLANTED, "bob"), lower]);
    assert_eq!(broken(events), ["cursor_never_lowered"]);
}

#[test]
fn a_stored_advance_that_is_never_told() {
    let mut events = good();
    let further = Cursor {
        delivered: 4,
        ..CURSOR
    };
    for event in &mut events {
        if let Event::Cursors { own, other, .. } = event {
            for cursor in [own, other] {
                if *cursor == CURSOR {
                    *cursor = further;
                }
            }
        }
    }
    assert_eq!(broken(events), ["receipts_told"]);
}

#[test]
fn a_stored_advance_that_a_sync_does_not_tell() {
    let alice = Event::Connect(connect(PLANTED, "alice"));
    let shown = (1..=6).map(|number| delivered(PLANTED, number));
    let planted = [alice, welcome(PLANTED)].into_iter().chain(shown);
    let events = before_the_end(planted.chain([caught_up(PLANTED), disconnect(PLANTED)]));
    assert_eq!(broken(events), ["receipts_told_at_sync"]);
}
