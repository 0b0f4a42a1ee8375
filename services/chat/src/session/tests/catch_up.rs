//! What is shown, in which order, and what is read for it.

use super::*;

#[test]
fn the_next_message_is_pushed_at_once_and_a_gap_that_stays_is_read() {
    let mut driven = Driven::live(&[("bob", 3)]);
    let effects = driven.give([Input::Announced([envelope("bob", "alice", 4, "m4")].into())]);
    assert!(matches!(pushed(&effects).as_slice(), [Down::Delivered(e)] if e.seq == Seq(4)));
    let effects = driven.give([Input::Announced([envelope("bob", "alice", 6, "m6")].into())]);
    assert!(effects.is_empty(), "{effects:?}");
    let effects = driven.after(GAP_WAIT);
    assert!(matches!(
        effects.as_slice(),
        [Effect::Read(read)] if read.start == ReadStart::After(Seq(4))
    ));
}

#[test]
fn nothing_is_pushed_past_a_read_that_is_running() {
    let mut driven = Driven::live(&[("bob", 3)]);
    driven.give([Input::Announced([envelope("bob", "alice", 5, "m5")].into())]);
    driven.after(GAP_WAIT);
    let effects = driven.give([Input::Announced([envelope("bob", "alice", 4, "m4")].into())]);
    assert!(pushed(&effects).is_empty());
    let messages = vec![
        envelope("bob", "alice", 4, "m4"),
        envelope("bob", "alice", 5, "m5"),
    ];
    let read = ReadPage {
        after: Seq(3),
        messages,
        head: Seq(5),
    };
    let effects = driven.give([Input::Read(user("bob"), Ok(read))]);
    let seqs: Vec<u64> = pushed(&effects)
        .into_iter()
        .map(|down| match down {
            Down::Delivered(envelope) => envelope.seq.0,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(seqs, [4, 5]);
}

#[test]
fn what_is_announced_while_a_read_runs_needs_no_further_read() {
    let mut driven = Driven::live(&[("bob", 3)]);
    let announced = |seq| Input::Announced([envelope("bob", "alice", seq, "m")].into());
    driven.give([announced(5)]);
    driven.after(GAP_WAIT);
    // Two that the read does not bring, and one that it does.
    driven.give([announced(5), announced(6), announced(7)]);
    let effects = driven.give([Input::Read(user("bob"), Ok(four_and_five()))]);
    assert_eq!(delivered(&effects), [4, 5, 6, 7]);
    assert!(!effects.iter().any(|e| matches!(e, Effect::Read(_))));
    let effects = driven.give([announced(8)]);
    assert_eq!(delivered(&effects), [8]);
}

#[test]
fn what_is_held_during_a_read_is_bounded_and_the_rest_is_read() {
    let mut driven = Driven::live(&[("bob", 3)]);
    let announced = |seq| Input::Announced([envelope("bob", "alice", seq, "m")].into());
    driven.give([announced(5)]);
    driven.after(GAP_WAIT);
    driven.give((6..1_000).map(announced));
    let effects = driven.give([Input::Read(user("bob"), Ok(four_and_five()))]);
    let last = *delivered(&effects).last().unwrap();
    assert!((6..999).contains(&last), "{last}");
    let next = effects.iter().find_map(|effect| match effect {
        Effect::Read(read) => Some(read.start),
        _ => None,
    });
    assert_eq!(next, Some(ReadStart::After(Seq(last))));
}

/// What the other side writes over another node comes a moment after the own answer.
#[test]
fn a_gap_that_closes_by_itself_needs_no_read() {
    let mut driven = Driven::live(&[("bob", 3)]);
    let announced = |seq| Input::Announced([envelope("bob", "alice", seq, "m")].into());
    driven.give([send("bob", "m6")]);
    let stored = Appended::Stored {
        envelope: envelope("alice", "bob", 6, "m6"),
        duplicate: false,
    };
    driven.give([Input::Appended(user("bob"), vec![stored])]);
    let effects = driven.give([announced(7), announced(5)]);
    assert!(delivered(&effects).is_empty(), "{effects:?}");
    let effects = driven.give([announced(4)]);
    assert_eq!(delivered(&effects), [4, 5, 6, 7]);
    let effects = driven.after(GAP_WAIT);
    assert!(effects.is_empty(), "{effects:?}");
    assert_eq!(delivered(&driven.give([announced(8)])), [8]);
}

#[test]
fn what_is_held_behind_a_gap_is_bounded_and_the_rest_is_read() {
    let mut driven = Driven::live(&[("bob", 3)]);
    let announced = |seq| Input::Announced([envelope("bob", "alice", seq, "m")].into());
    driven.give((5..1_000).map(announced));
    let effects = driven.give([announced(4)]);
    let last = *delivered(&effects).last().unwrap();
    assert!((6..999).contains(&last), "{last}");
    let effects = driven.after(GAP_WAIT);
    assert!(matches!(
        effects.as_slice(),
        [Effect::Read(read)] if read.start == ReadStart::After(Seq(last))
    ));
}

#[test]
fn a_session_that_ends_waits_for_no_gap() {
    let mut driven = Driven::live(&[]);
    driven.give([send("bob", "m1"), send("carol", "x")]);
    driven.give([send("bob", "m2"), Input::Gone]);
    for (seq, id) in [(1, "m1"), (3, "m2")] {
        let stored = Appended::Stored {
            envelope: envelope("alice", "bob", seq, id),
            duplicate: false,
        };
        driven.give([Input::Appended(user("bob"), vec![stored])]);
    }
    driven.after(GAP_WAIT);
}

#[test]
fn a_gap_too_many_is_read_at_once() {
    let peers: Vec<String> = (0..=MAX_GAPS).map(|peer| format!("b{peer}")).collect();
    let listed: Vec<_> = peers.iter().map(|peer| (peer.as_str(), 3)).collect();
    let mut driven = Driven::live(&listed);
    let announced = |peer: &String| Input::Announced([envelope(peer, "alice", 5, "m")].into());
    let effects = driven.give(peers.iter().map(announced));
    let last = user(&peers[MAX_GAPS]);
    assert!(matches!(effects.as_slice(), [Effect::Read(read)] if read.peer == last));
}

/// What a read after 3 brings of bob's five.
fn four_and_five() -> ReadPage {
    ReadPage {
        after: Seq(3),
        messages: vec![
            envelope("bob", "alice", 4, "m"),
            envelope("bob", "alice", 5, "m"),
        ],
        head: Seq(5),
    }
}

/// The sequences of the messages that are pushed.
fn delivered(effects: &[Effect]) -> Vec<u64> {
    let pushed = pushed(effects).into_iter();
    let seqs = pushed.filter_map(|down| match down {
        Down::Delivered(envelope) => Some(envelope.seq.0),
        _ => None,
    });
    seqs.collect()
}

#[test]
fn a_message_announced_twice_is_shown_once() {
    let mut driven = Driven::live(&[("bob", 3)]);
    driven.give([Input::Announced([envelope("bob", "alice", 4, "m4")].into())]);
    let effects = driven.give([Input::Announced([envelope("bob", "alice", 4, "m4")].into())]);
    assert!(effects.is_empty(), "{effects:?}");
}

#[test]
fn before_the_first_sync_an_announcement_never_guesses_what_was_shown() {
    let mut driven = Driven::new();
    driven.hello(Hello::default());
    let effects = driven.give([Input::Announced([envelope("bob", "alice", 9, "m9")].into())]);
    assert!(effects.is_empty(), "{effects:?}");
    let mut listed = page(&[("bob", 9)]);
    listed.conversations[0].own_cursor.delivered = Seq(7);
    let effects = driven.give([Input::Synced(Ok(listed))]);
    assert!(effects.iter().any(
        |effect| matches!(effect, Effect::Read(read) if read.start == ReadStart::After(Seq(7)))
    ));
}

#[test]
fn a_conversation_that_no_sync_listed_starts_at_the_time_of_the_sync() {
    let mut driven = Driven::live(&[]);
    let effects = driven.give([Input::Announced(
        [envelope("carol", "alice", 3, "m3")].into(),
    )]);
    assert!(matches!(
        effects.as_slice(),
        [Effect::Read(read)] if read.start == ReadStart::AcceptedSince(START)
    ));
}

#[test]
fn caught_up_is_said_only_when_every_head_was_shown() {
    let mut driven = Driven::new();
    driven.hello(Hello::default());
    let mut listed = page(&[("bob", 2)]);
    listed.conversations[0].own_cursor.delivered = Seq(1);
    let effects = driven.give([Input::Synced(Ok(listed))]);
    assert!(
        !pushed(&effects)
            .iter()
            .any(|down| matches!(down, Down::CaughtUp { .. }))
    );
    let messages = vec![envelope("bob", "alice", 2, "m2")];
    let read = ReadPage {
        after: Seq(1),
        messages,
        head: Seq(2),
    };
    let effects = driven.give([Input::Read(user("bob"), Ok(read))]);
    assert!(matches!(
        pushed(&effects).as_slice(),
        [Down::Delivered(_), Down::CaughtUp { token }] if token == "t1"
    ));
}

#[test]
fn an_own_message_past_a_gap_does_not_move_what_was_shown() {
    let mut driven = Driven::live(&[("bob", 3)]);
    driven.give([send("bob", "m5")]);
    let stored = Appended::Stored {
        envelope: envelope("alice", "bob", 5, "m5"),
        duplicate: false,
    };
    driven.give([Input::Appended(user("bob"), vec![stored])]);
    let effects = driven.after(GAP_WAIT);
    assert!(effects.iter().any(
        |effect| matches!(effect, Effect::Read(read) if read.start == ReadStart::After(Seq(3)))
    ));
}
