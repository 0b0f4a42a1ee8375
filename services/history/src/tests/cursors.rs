//! Cursors.

use std::time::Duration;

use duologue_proto::history::{CursorAdvanced, HistoryError};
use duologue_proto::ids::Seq;
use duologue_proto::message::Cursor;
use duologue_runtime::clock::Clock as _;
use proptest::prelude::*;

use super::faults::Op;
use super::{World, fill, move_cursor, user};
use crate::store::Window;

fn at(delivered: u64, read: u64) -> Cursor {
    Cursor {
        delivered: Seq(delivered),
        read: Seq(read),
    }
}

async fn advance(world: &World, to: Cursor) -> CursorAdvanced {
    let moved = move_cursor(&world.history, "bob", "alice", to);
    moved.await.unwrap()
}

fn stored(delivered: u64, read: u64, moved: bool) -> CursorAdvanced {
    CursorAdvanced::Stored {
        cursor: at(delivered, read),
        moved,
    }
}

#[tokio::test]
async fn a_cursor_moves_forward_and_never_back() {
    let world = World::new();
    fill(&world.history, 1, 5).await;
    assert_eq!(advance(&world, at(3, 1)).await, stored(3, 1, true));
    assert_eq!(advance(&world, at(2, 2)).await, stored(3, 2, true));
    assert_eq!(advance(&world, at(2, 1)).await, stored(3, 2, false));
    assert_eq!(advance(&world, at(0, 5)).await, stored(5, 5, true));
    let mine = world
        .memory
        .cursors(&user("bob"), &user("alice"))
        .await
        .unwrap();
    assert_eq!((mine.own, mine.peer), (at(5, 5), at(0, 0)));
}

#[tokio::test]
async fn a_cursor_above_the_head_is_refused_and_changes_nothing() {
    let world = World::new();
    let above = |head| CursorAdvanced::AboveHead { head: Seq(head) };
    assert_eq!(advance(&world, at(1, 0)).await, above(0));
    fill(&world.history, 1, 2).await;
    assert_eq!(advance(&world, at(2, 3)).await, above(2));
    assert_eq!(advance(&world, at(0, 0)).await, stored(0, 0, false));
    // A head that another replica has just raised is seen.
    fill(&world.replica(), 3, 1).await;
    assert_eq!(advance(&world, at(3, 0)).await, stored(3, 0, true));
}

#[tokio::test]
async fn a_move_that_changes_nothing_marks_the_present_once() {
    let world = World::new();
    fill(&world.history, 1, 1).await;
    advance(&world, at(1, 1)).await;
    world.clock.advance(Duration::from_hours(1));
    world.faults.take_log();
    let mark = Op::Activity(Window::of(world.clock.now()));
    for marks in [1, 0] {
        assert_eq!(advance(&world, at(1, 1)).await, stored(1, 1, false));
        let log = world.faults.take_log();
        assert_eq!(log.iter().filter(|op| **op == mark).count(), marks);
    }
}

#[tokio::test]
async fn a_cursor_write_of_a_paused_writer_is_marked_again() {
    let world = World::new();
    fill(&world.history, 1, 1).await;
    let clock = world.clock.clone();
    // The second operation is the write: the head is known.
    let pause = async move { clock.advance(Duration::from_mins(20)) };
    world.faults.take_log();
    world.faults.before_op(1, Box::new(|| Box::pin(pause)));
    assert_eq!(advance(&world, at(1, 1)).await, stored(1, 1, true));
    let mark = Op::Activity(Window::of(world.clock.now()));
    assert_eq!(world.faults.take_log().last(), Some(&mark));
}

#[tokio::test]
async fn a_store_that_fails_is_unavailable() {
    let world = World::new();
    fill(&world.history, 1, 1).await;
    world.faults.fail_reads(1);
    let moved = move_cursor(&world.history, "bob", "alice", at(1, 1));
    assert!(matches!(moved.await, Err(HistoryError::Unavailable { .. })));
}

/// A move of a user, by one of two replicas; that of the first may fail.
#[derive(Debug, Clone)]
struct Move {
    by_bob: bool,
    delivered: u64,
    read: u64,
    replica: bool,
    fails: bool,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = (
        any::<bool>(),
        0_u64..9,
        0_u64..9,
        any::<bool>(),
        any::<bool>(),
    );
    let one = one.prop_map(|(by_bob, delivered, read, replica, fails)| Move {
        by_bob,
        delivered,
        read,
        replica,
        fails,
    });
    prop::collection::vec(one, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cursors_are_the_largest_asked_for_that_the_head_allows(moves in moves(), head in 0_usize..9) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            fill(&world.history, 1, head).await;
            let replica = world.replica();
            let mut model = [Cursor::default(); 2];
            for one in moves {
                let (of, peer) = if one.by_bob { ("bob", "alice") } else { ("alice", "bob") };
                let asked = Cursor::asked(Some(Seq(one.delivered)), Some(Seq(one.read)));
                world.faults.fail_reads(usize::from(one.fails && !one.replica));
                let by = if one.replica { &replica } else { &world.history };
                let told = move_cursor(by, of, peer, at(one.delivered, one.read)).await;
                let held = &mut model[usize::from(one.by_bob)];
                // What is known needs no read, which could fail.
                if told.is_err() {
                    assert!(one.fails && !one.replica);
                    continue;
                }
                let before = *held;
                let expected = if asked.delivered > Seq(head as u64) {
                    CursorAdvanced::AboveHead { head: Seq(head as u64) }
                } else {
                    *held = held.max(asked);
                    // A replica may take another's move for its own.
                    let own = matches!(told, Ok(CursorAdvanced::Stored { moved: true, .. }));
                    CursorAdvanced::Stored { cursor: *held, moved: own || *held != before }
                };
                assert_eq!(told.unwrap(), expected);
            }
            let stored = world.memory.cursors(&user("alice"), &user("bob")).await.unwrap();
            assert_eq!([stored.own, stored.peer], model);
        });
    }
}
