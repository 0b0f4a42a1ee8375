//! What every engine promises about rows, cursors and the highest reading.

use std::time::Duration;

use duologue_proto::ids::{Seq, UnixMillis};
use duologue_proto::message::Cursor;
use duologue_runtime::clock::Clock as _;
use futures_util::future::join_all;

use super::{Fixture, START, all, between, message, run_at, stored, user};
use crate::store::{Cursors, StoreError, Window};

pub(super) async fn rows_are_there_for_both_users(fixture: Fixture) {
    let conversation = between("alice", "bob");
    fixture.fill(&conversation, 1, 1).await;
    let window = Window::of(START);
    assert_eq!(fixture.activity("alice").await, [(window, "bob".into())]);
    assert_eq!(fixture.activity("bob").await, [(window, "alice".into())]);
    assert_eq!(fixture.peers("alice").await, ["bob"]);
    assert_eq!(fixture.peers("bob").await, ["alice"]);
    let later = Window(window.0 + 1);
    assert_eq!(
        fixture.store.put_activity(&conversation, later).await,
        Ok(())
    );
    let rows = [(window, "alice".into()), (later, "alice".into())];
    assert_eq!(fixture.activity("bob").await, rows);
}

pub(super) async fn a_conversation_with_oneself_has_one_row(fixture: Fixture) {
    let conversation = between("alice", "alice");
    fixture.fill(&conversation, 1, 2).await;
    assert_eq!(
        fixture.activity("alice").await,
        [(Window::of(START), "alice".into())]
    );
    assert_eq!(fixture.peers("alice").await, ["alice"]);
    assert_eq!(fixture.seqs(all(&conversation)).await, [1, 2]);
    let alice = user("alice");
    let cursor = Cursor::asked(Some(Seq(2)), Some(Seq(1)));
    let put = fixture
        .store
        .put_cursor(&conversation, &alice, cursor, START);
    assert_eq!(put.await, Ok(cursor));
    let both = Cursors {
        own: cursor,
        peer: cursor,
    };
    assert_eq!(fixture.store.cursors(&alice, &alice).await, Ok(both));
}

pub(super) async fn rows_are_there_even_if_no_slot_was_filled(fixture: Fixture) {
    let conversation = between("alice", "bob");
    let mut first = run_at(START, vec![message(&conversation, 1, "a")]);
    (first.rows.write, first.rows.new_conversation) = (false, false);
    assert_eq!(fixture.store.put_run(first).await, stored(1));
    assert!(fixture.activity("alice").await.is_empty());
    let second = fixture.put(vec![message(&conversation, 1, "b")]).await;
    assert_eq!(second.stored, 0);
    for (name, peer) in [("alice", "bob"), ("bob", "alice")] {
        assert_eq!(
            fixture.activity(name).await,
            [(Window::of(START), peer.into())]
        );
        assert_eq!(fixture.peers(name).await, [peer]);
    }
}

pub(super) async fn rows_known_to_be_durable_are_not_written_again(fixture: Fixture) {
    let conversation = between("alice", "bob");
    fixture.fill(&conversation, 1, 1).await;
    fixture.clock.advance(Duration::from_mins(20));
    let mut run = run_at(fixture.clock.now(), vec![message(&conversation, 2, "b")]);
    run.rows.write = false;
    assert_eq!(fixture.store.put_run(run).await, stored(1));
    assert_eq!(
        fixture.activity("alice").await,
        [(Window::of(START), "bob".into())]
    );
}

pub(super) async fn cursors_never_retreat(fixture: Fixture) {
    let conversation = between("alice", "bob");
    let (alice, bob) = (user("alice"), user("bob"));
    let zeros = Cursors {
        own: Cursor::default(),
        peer: Cursor::default(),
    };
    assert_eq!(fixture.store.cursors(&alice, &bob).await, Ok(zeros));
    let at = |delivered, read| Cursor {
        delivered: Seq(delivered),
        read: Seq(read),
    };
    let moves = [
        (at(5, 2), at(5, 2)),
        (at(3, 3), at(5, 3)),
        (at(1, 1), at(5, 3)),
        (at(6, 0), at(6, 3)),
    ];
    for (asked, held) in moves {
        let put = fixture.store.put_cursor(&conversation, &bob, asked, START);
        assert_eq!(put.await, Ok(held));
    }
    let together = (0..10).map(|n| {
        fixture
            .store
            .put_cursor(&conversation, &alice, at(10 - n, n), START)
    });
    join_all(together).await;
    let (own, peer) = (at(10, 9), at(6, 3));
    assert_eq!(
        fixture.store.cursors(&alice, &bob).await,
        Ok(Cursors { own, peer })
    );
    assert_eq!(
        fixture.store.cursors(&bob, &alice).await,
        Ok(Cursors {
            own: peer,
            peer: own
        })
    );
}

pub(super) async fn a_cursor_marks_its_conversation_active(fixture: Fixture) {
    let window = Window(Window::of(START).0 + 3);
    let cursor = Cursor::asked(Some(Seq(1)), None);
    let put = fixture
        .store
        .put_cursor(
            &between("alice", "bob"),
            &user("bob"),
            cursor,
            window.start(),
        )
        .await;
    put.unwrap();
    assert_eq!(fixture.activity("alice").await, [(window, "bob".into())]);
    assert_eq!(fixture.activity("bob").await, [(window, "alice".into())]);
}

/// A writer that believes a conversation to be empty may be late.
pub(super) async fn a_conversation_that_is_new_keeps_its_cursors(fixture: Fixture) {
    let conversation = between("alice", "bob");
    fixture.fill(&conversation, 1, 2).await;
    let (alice, bob) = (user("alice"), user("bob"));
    let cursor = Cursor::asked(Some(Seq(2)), Some(Seq(1)));
    let put = fixture.store.put_cursor(&conversation, &bob, cursor, START);
    assert_eq!(put.await, Ok(cursor));
    let late = fixture.put(vec![message(&conversation, 1, "late")]).await;
    assert_eq!(late.stored, 0);
    let held = Cursors {
        own: cursor,
        peer: Cursor::default(),
    };
    assert_eq!(fixture.store.cursors(&bob, &alice).await, Ok(held));
}

pub(super) async fn a_stranger_has_no_cursor(fixture: Fixture) {
    let cursor = Cursor::asked(Some(Seq(1)), None);
    let (conversation, carol) = (between("alice", "bob"), user("carol"));
    let put = fixture
        .store
        .put_cursor(&conversation, &carol, cursor, Window(1).start());
    assert!(matches!(put.await, Err(StoreError::Refused(_))));
    assert!(fixture.activity("alice").await.is_empty());
}

pub(super) async fn the_highest_reading_never_falls(fixture: Fixture) {
    let conversation = between("alice", "bob");
    let store = &fixture.store;
    assert_eq!(store.highest_reading(), UnixMillis(0));
    store.store_reading(UnixMillis(1_000)).await.unwrap();
    store.store_reading(UnixMillis(999)).await.unwrap();
    assert_eq!(store.highest_reading(), UnixMillis(1_000));
    fixture.fill(&conversation, 1, 1).await;
    assert_eq!(store.highest_reading(), START);
    let later = START.plus(Duration::from_hours(1));
    let cursor = Cursor::asked(Some(Seq(1)), None);
    let bob = user("bob");
    let put = store.put_cursor(&conversation, &bob, cursor, later);
    put.await.unwrap();
    assert_eq!(store.highest_reading(), Window::of(later).start());
    let reading = store.highest_reading();
    store.put_activity(&conversation, Window(1)).await.unwrap();
    assert_eq!(store.highest_reading(), reading);
}
