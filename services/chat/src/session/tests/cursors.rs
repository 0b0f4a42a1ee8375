//! Cursors: told at once, written together, never lost.

use super::*;
use crate::session::{MAX_MOVES, MAX_RESTING_LANES};

fn advance(peer: &str, delivered: u64) -> Input {
    let asked = Cursor {
        delivered: Seq(delivered),
        read: Seq::ZERO,
    };
    Input::Up(
        delivered,
        Up::Advance(Advance {
            peer: user(peer),
            asked,
        }),
    )
}

#[test]
fn cursors_are_relayed_at_once_and_written_together_after_five_seconds() {
    let mut driven = Driven::live(&[("bob", 9)]);
    let effects = driven.give([advance("bob", 3), advance("bob", 5)]);
    assert_eq!(
        effects
            .iter()
            .filter(|e| matches!(e, Effect::AnnounceCursor(..)))
            .count(),
        2
    );
    assert!(
        !effects
            .iter()
            .any(|effect| matches!(effect, Effect::WriteCursor(..)))
    );
    let effects = driven.after(Duration::from_secs(5));
    let [Effect::WriteCursor(peer, cursor)] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    assert_eq!(cursor.delivered, Seq(5));
    let stored = CursorAdvanced::Stored {
        cursor: *cursor,
        moved: true,
    };
    let effects = driven.give([Input::CursorWritten(peer.clone(), Ok(stored))]);
    let numbers: Vec<u64> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Push(number, Down::CursorStored { .. }) => Some(*number),
            _ => None,
        })
        .collect();
    assert_eq!(numbers, [3, 5]);
}

#[test]
fn a_cursor_whose_first_write_lost_its_answer_is_told_to_the_others() {
    for (held, told) in [(Seq(3), true), (Seq(7), false)] {
        let mut driven = Driven::live(&[]);
        driven.give([advance("bob", 3)]);
        let cursor = Cursor::asked(Some(held), None);
        let stored = CursorAdvanced::Stored {
            cursor,
            moved: false,
        };
        let effects = driven.give([Input::CursorWritten(user("bob"), Ok(stored))]);
        let announced = effects.iter().any(
            |effect| matches!(effect, Effect::AnnounceCursor(_, announced) if *announced == cursor),
        );
        assert_eq!(announced, told, "{effects:?}");
    }
}

#[test]
fn a_cursor_that_may_be_above_the_head_is_not_relayed_before_it_is_stored() {
    let mut driven = Driven::live(&[("bob", 2)]);
    let effects = driven.give([advance("bob", 3)]);
    let [Effect::WriteCursor(peer, _)] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    let refused = CursorAdvanced::AboveHead { head: Seq(2) };
    let effects = driven.give([Input::CursorWritten(peer.clone(), Ok(refused))]);
    assert!(matches!(
        pushed(&effects).as_slice(),
        [Down::CursorRejected(rejection)] if rejection.head == Some(Seq(2))
    ));
    assert!(
        !effects
            .iter()
            .any(|effect| matches!(effect, Effect::AnnounceCursor(..)))
    );
}

#[test]
fn cursors_that_wait_are_written_at_the_end_of_the_session() {
    let mut driven = Driven::live(&[("bob", 9)]);
    driven.give([advance("bob", 3)]);
    let effects = driven.give([Input::Gone]);
    let [Effect::Release, Effect::WriteCursor(peer, ..)] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    let effects = driven.give([Input::CursorWritten(
        peer.clone(),
        Err(HistoryError::Unavailable { retry_after: None }),
    )]);
    assert_eq!(ended(&effects), Some(None));
}

#[test]
fn cursors_of_a_conversation_that_is_not_known_are_written_one_at_a_time() {
    let mut driven = Driven::live(&[]);
    let effects = driven.give((1..=9).map(|seq| advance("bob", seq)));
    assert!(
        matches!(effects.as_slice(), [Effect::WriteCursor(..)]),
        "{effects:?}"
    );
    let cursor = Cursor::asked(Some(Seq(9)), None);
    let stored = CursorAdvanced::Stored {
        cursor,
        moved: true,
    };
    driven.give([Input::CursorWritten(user("bob"), Ok(stored))]);
    let effects = driven.give([advance("bob", 10), advance("bob", 11)]);
    assert!(effects.is_empty(), "{effects:?}");
    let effects = driven.after(Duration::from_secs(5));
    assert!(
        matches!(effects.as_slice(), [Effect::WriteCursor(_, asked)] if asked.delivered == Seq(11))
    );
}

#[test]
fn a_cursor_above_the_head_does_not_take_a_good_one_with_it() {
    let mut driven = Driven::live(&[]);
    driven.give([advance("bob", 2), advance("bob", 99)]);
    let refused = CursorAdvanced::AboveHead { head: Seq(5) };
    let effects = driven.give([Input::CursorWritten(user("bob"), Ok(refused))]);
    assert!(matches!(
        pushed(&effects).as_slice(),
        [Down::CursorRejected(_)]
    ));
    assert!(
        matches!(effects.last(), Some(Effect::WriteCursor(_, asked)) if asked.delivered == Seq(2))
    );
}

#[test]
fn moves_without_room_for_more_are_written_at_once() {
    let mut driven = Driven::live(&[("bob", 9), ("carol", 9)]);
    let written = |effects: &[Effect]| {
        let writes = effects
            .iter()
            .filter(|effect| matches!(effect, Effect::WriteCursor(..)));
        writes.count()
    };
    let effects = driven.give((1..MAX_MOVES).map(|_| advance("bob", 5)));
    assert_eq!(written(&effects), 0);
    let effects = driven.give([advance("carol", 5)]);
    assert_eq!((written(&effects), driven.session.input_room()), (2, 0));
    let stored = CursorAdvanced::Stored {
        cursor: Cursor::asked(Some(Seq(5)), None),
        moved: true,
    };
    driven.give([Input::CursorWritten(user("bob"), Ok(stored))]);
    assert!(driven.session.input_room() > 0);
}

#[test]
fn only_so_many_conversations_that_were_written_are_remembered() {
    let mut driven = Driven::live(&[]);
    let peer = |number: usize| format!("u{number:04}");
    for number in 0..=MAX_RESTING_LANES {
        driven.give([advance(&peer(number), 5)]);
        let above = CursorAdvanced::AboveHead { head: Seq(0) };
        driven.give([Input::CursorWritten(user(&peer(number)), Ok(above))]);
    }
    let effects = driven.give([advance(&peer(0), 6)]);
    assert!(effects.is_empty(), "{effects:?}");
    let effects = driven.give([advance(&peer(MAX_RESTING_LANES), 6)]);
    assert!(matches!(effects.as_slice(), [Effect::WriteCursor(..)]));
}
