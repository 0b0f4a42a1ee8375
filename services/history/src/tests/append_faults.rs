//! The append rule over a store that fails, stalls, and has other writers.

use std::time::Duration;

use duologue_proto::history::{Draft, UnsettledReason};
use duologue_runtime::clock::Clock as _;

use super::faults::{Op, PutFault, put_slots, reads_head};
use super::{Told, UNAVAILABLE, World, draft, fill, ids, pair, run, send, told, user};
use crate::history::History;
use crate::store::{Activity, Consistency, Window};
use Told::{Duplicate, Left, New};

const VANISHED: PutFault = PutFault::Unknown {
    applied: 0,
    confirmed: 0,
};

fn two() -> Vec<Draft> {
    vec![draft("a", 0), draft("b", 0)]
}

impl World {
    async fn windows_of(&self, name: &str) -> Vec<Window> {
        let user = user(name);
        let rows = self.memory.activity_from(&user, Window(0), None, 100);
        let rows = rows.await.unwrap();
        let window = |row: Activity| row.window;
        rows.into_iter().map(window).collect()
    }

    fn window(&self) -> Window {
        Window::of(self.clock.now())
    }
}

#[tokio::test(start_paused = true)]
async fn a_put_whose_reply_is_lost_is_found_and_is_no_duplicate() {
    for confirmed in [0, 1] {
        let world = World::new();
        let applied = usize::MAX;
        world
            .faults
            .on_puts([PutFault::Unknown { applied, confirmed }]);
        assert_eq!(send(&world.history, two()).await, [New(1), New(2)]);
        assert_eq!(ids(&world.stored().await), ["a", "b"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_put_that_was_lost_is_tried_again_at_the_same_slot() {
    let world = World::new();
    send(&world.history, vec![draft("x", 0)]).await;
    world.faults.take_log();
    world.faults.on_puts([VANISHED, VANISHED]);
    assert_eq!(send(&world.history, two()).await, [New(2), New(3)]);
    assert_eq!(put_slots(&world.faults.take_log()), [2, 2, 2]);
}

#[tokio::test(start_paused = true)]
async fn while_an_outcome_is_unknown_nothing_moves_on() {
    let world = World::new();
    world.faults.on_puts([VANISHED; 5]);
    assert_eq!(send(&world.history, two()).await, [UNAVAILABLE; 2]);
    assert_eq!(put_slots(&world.faults.take_log()), [1; 5]);
    // Nothing is believed of the tail afterwards.
    assert_eq!(send(&world.history, two()).await, [New(1), New(2)]);
    assert!(reads_head(&world.faults.take_log()));
}

#[tokio::test(start_paused = true)]
async fn a_put_that_lands_after_its_writer_gave_up_is_found_by_the_retry() {
    let world = World::new();
    world
        .faults
        .on_puts([PutFault::Delay].into_iter().chain([VANISHED; 4]));
    assert_eq!(send(&world.history, two()).await, [UNAVAILABLE; 2]);
    world.faults.land().await;
    let replica = world.replica();
    assert_eq!(send(&replica, two()).await, [Duplicate(1), Duplicate(2)]);
    assert_eq!(world.stored().await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_put_that_lands_after_its_retry_by_another_writer_changes_nothing() {
    let world = World::new();
    world
        .faults
        .on_puts([PutFault::Delay].into_iter().chain([VANISHED; 4]));
    assert_eq!(send(&world.history, two()).await, [UNAVAILABLE; 2]);
    let other = send(&world.replica(), vec![draft("x", 0)]).await;
    assert_eq!(other, [New(1)]);
    assert_eq!(send(&world.replica(), two()).await, [New(2), New(3)]);
    world.faults.land().await;
    assert_eq!(ids(&world.stored().await), ["x", "a", "b"]);
    assert_eq!(
        send(&world.history, two()).await,
        [Duplicate(2), Duplicate(3)]
    );
}

#[tokio::test(start_paused = true)]
async fn an_unknown_put_that_lost_its_slot_to_another_goes_to_the_next() {
    let world = World::new();
    world.faults.on_puts([VANISHED, PutFault::Usurp]);
    assert_eq!(send(&world.history, two()).await, [New(2), New(3)]);
    assert_eq!(ids(&world.stored().await)[1..], ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_put_that_may_have_landed_is_looked_for_when_it_is_too_late_to_repeat_it() {
    let world = World::new();
    world.faults.on_puts([
        PutFault::Unknown {
            applied: 1,
            confirmed: 0,
        },
        PutFault::TooLate,
        PutFault::TooLate,
    ]);
    assert_eq!(send(&world.history, two()).await, [New(1), UNAVAILABLE]);
    assert_eq!(send(&world.history, two()).await, [Duplicate(1), New(2)]);
}

#[tokio::test]
async fn a_put_that_fails_leaves_its_drafts_unsettled_and_nothing_stored() {
    let world = World::new();
    world.faults.on_puts([PutFault::Fail]);
    let failed = Left(UnsettledReason::Unavailable, Some(0));
    let behind = Left(UnsettledReason::NotFound, Some(0));
    assert_eq!(send(&world.history, two()).await, [failed, behind]);
    assert_eq!(world.stored().await, []);
    assert_eq!(send(&world.history, two()).await, [New(1), New(2)]);
}

#[tokio::test]
async fn reads_that_fail_leave_the_drafts_unsettled() {
    let world = World::new();
    world.faults.fail_reads(1);
    assert_eq!(send(&world.history, two()).await, [UNAVAILABLE; 2]);
    assert_eq!(send(&world.history, two()).await, [New(1), New(2)]);
}

#[tokio::test]
async fn a_put_that_came_too_late_is_sent_with_a_new_reading() {
    let world = World::new();
    world.faults.on_puts([PutFault::TooLate; 3]);
    assert_eq!(send(&world.history, two()).await, [New(1), New(2)]);
    world.faults.on_puts([PutFault::TooLate; 4]);
    let late = Left(UnsettledReason::Unavailable, Some(2));
    assert_eq!(send(&world.history, vec![draft("c", 2)]).await, [late]);
    assert_eq!(world.stored().await.len(), 2);
}

#[tokio::test]
async fn after_eight_blocked_puts_the_drafts_are_contended() {
    let world = World::new();
    world.faults.on_puts([PutFault::Usurp; 8]);
    let contended = Left(UnsettledReason::Contended, Some(8));
    let behind = Left(UnsettledReason::NotFound, Some(8));
    assert_eq!(send(&world.history, two()).await, [contended, behind]);
    assert_eq!(world.stored().await.len(), 8);
    world.faults.on_puts([PutFault::Usurp; 7]);
    assert_eq!(send(&world.history, two()).await, [New(16), New(17)]);
}

#[tokio::test]
async fn another_writer_at_any_step_makes_no_second_copy_and_no_gap() {
    for intruding in [draft("x", 0), draft("a", 0), draft("b", 0)] {
        for warm in [false, true] {
            for step in 0..12 {
                let world = World::new();
                let from = usize::from(warm);
                fill(&world.history, 1, from).await;
                let replica = world.replica();
                let intruding = intruding.clone();
                let intruder = async move {
                    let told = send(&replica, vec![intruding]).await;
                    assert!(matches!(told[0], New(_) | Duplicate(_)), "{told:?}");
                };
                world
                    .faults
                    .before_op(step, Box::new(|| Box::pin(intruder)));
                let told = send(&world.history, two()).await;
                let stored = world.stored().await;
                for (message_id, told) in ["a", "b"].into_iter().zip(told) {
                    let (New(seq) | Duplicate(seq)) = told else {
                        panic!("{told:?}");
                    };
                    let at: Vec<_> = stored
                        .iter()
                        .filter(|envelope| envelope.message_id.as_str() == message_id)
                        .map(|envelope| envelope.seq.0)
                        .collect();
                    assert_eq!(at, [seq], "step {step}");
                }
                let seqs = stored.iter().map(|envelope| envelope.seq.0);
                assert!(seqs.eq(1..=stored.len() as u64));
            }
        }
    }
}

#[tokio::test]
async fn a_slot_filled_by_another_try_of_the_same_message_is_the_answer() {
    let world = World::new();
    fill(&world.history, 1, 1).await;
    let replica = world.replica();
    let other_try = async move {
        assert_eq!(send(&replica, vec![draft("a", 1)]).await, [New(2)]);
    };
    // The tail is known: the first operation is the put.
    world.faults.before_op(0, Box::new(|| Box::pin(other_try)));
    let told = send(&world.history, vec![draft("a", 1)]).await;
    assert_eq!(told, [Duplicate(2)]);
}

#[tokio::test]
async fn what_an_eventual_read_misses_is_read_strongly() {
    let world = World::new();
    fill(&world.history, 1, 10).await;
    let cold = History::new(
        world.faults.clone(),
        std::sync::Arc::new(world.clock.clone()),
    );
    world.faults.take_log();
    assert_eq!(send(&cold, vec![draft("m3", 2)]).await, [Duplicate(3)]);
    let log = world.faults.take_log();
    assert!(log.contains(&Op::Slots(Consistency::Eventual)));
    assert!(log.contains(&Op::Slots(Consistency::Strong)));
    assert_eq!(world.stored().await.len(), 10);
}

#[tokio::test]
async fn rows_are_written_once_per_window_and_with_slot_1_for_the_conversation() {
    let world = World::new();
    let put = |first, write| Op::Put {
        first,
        count: 1,
        write,
        new: first == 1,
    };
    let history = &world.history;
    send(history, vec![draft("a", 0)]).await;
    send(history, vec![draft("b", 0)]).await;
    assert_eq!(
        world.faults.take_log(),
        [Op::Head, put(1, true), put(2, false)]
    );
    let first = world.window();
    world.clock.advance(Duration::from_mins(10));
    send(history, vec![draft("c", 0)]).await;
    assert_eq!(world.faults.take_log(), [put(3, true)]);
    for name in ["alice", "bob"] {
        assert_eq!(world.windows_of(name).await, [first, world.window()]);
    }
    let peers = history.peers(&user("bob"), None, 9).await.unwrap();
    assert_eq!(peers, [user("alice")]);
}

#[tokio::test]
async fn a_duplicate_marks_the_window_of_this_try_before_it_is_answered() {
    let world = World::new();
    send(&world.history, vec![draft("a", 0)]).await;
    let stored_in = world.window();
    world.clock.advance(Duration::from_mins(30));
    world.faults.fail_rows(1);
    assert_eq!(
        send(&world.history, vec![draft("a", 0)]).await,
        [UNAVAILABLE]
    );
    assert_eq!(world.windows_of("bob").await, [stored_in]);
    assert_eq!(
        send(&world.history, vec![draft("a", 0)]).await,
        [Duplicate(1)]
    );
    for name in ["alice", "bob"] {
        assert_eq!(world.windows_of(name).await, [stored_in, world.window()]);
    }
    // Now that they are known to be there, they are not written again.
    world.faults.take_log();
    send(&world.history, vec![draft("a", 0)]).await;
    let log = world.faults.take_log();
    assert!(!log.contains(&Op::Activity(world.window())), "{log:?}");
}

#[tokio::test]
async fn a_writer_that_was_paused_marks_the_present_before_it_answers() {
    let world = World::new();
    let before = world.window();
    world
        .faults
        .on_puts([PutFault::Slow(Duration::from_mins(25))]);
    assert_eq!(send(&world.history, two()).await, [New(1), New(2)]);
    assert_eq!(world.windows_of("bob").await, [before, world.window()]);
}

#[tokio::test(start_paused = true)]
async fn what_queued_meanwhile_goes_to_the_store_as_one_run_of_both_users() {
    let world = World::new();
    world
        .faults
        .on_puts([PutFault::Pause(Duration::from_millis(5))]);
    let history = &world.history;
    let reply = || async {
        let answers = history
            .append(run("bob", "alice", vec![draft("r", 0)]))
            .await;
        told(&answers[0])
    };
    let told = tokio::join!(
        biased;
        send(history, vec![draft("a", 0)]),
        async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            tokio::join!(biased; send(history, vec![draft("b", 0), draft("c", 0)]), reply(),
                send(history, vec![draft("b", 0), draft("d", 0)]))
        },
    );
    assert_eq!(told.0, [New(1)]);
    assert_eq!(told.1.0, [New(2), New(3)]);
    assert_eq!(told.1.1, New(4));
    assert_eq!(told.1.2, [Duplicate(2), New(5)]);
    let puts: Vec<_> = world.faults.take_log();
    let put = |first, count| Op::Put {
        first,
        count,
        write: first == 1,
        new: first == 1,
    };
    assert_eq!(puts, [Op::Head, put(1, 1), put(2, 4)]);
}

#[tokio::test(start_paused = true)]
async fn one_conversation_does_not_wait_for_another() {
    let world = World::new();
    let history = &world.history;
    world
        .faults
        .on_puts([PutFault::Pause(Duration::from_secs(5))]);
    let stalled = send(history, two());
    let others = async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        for n in 0..50 {
            let peer = format!("peer-{n}");
            let sent = run("alice", &peer, vec![draft("a", 0)]);
            assert_eq!(told(&history.append(sent).await[0]), New(1));
        }
        assert_eq!(world.stored().await, []);
    };
    let (told, ()) = tokio::join!(stalled, others);
    assert_eq!(told, [New(1), New(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_leaves_its_run_whole() {
    let world = World::new();
    world
        .faults
        .on_puts([PutFault::Pause(Duration::from_secs(3))]);
    let gone = tokio::time::timeout(Duration::from_secs(1), send(&world.history, two()));
    assert!(gone.await.is_err());
    assert_eq!(
        send(&world.history, two()).await,
        [Duplicate(1), Duplicate(2)]
    );
}

#[tokio::test(start_paused = true)]
async fn when_there_is_no_room_for_too_long_a_run_is_unavailable() {
    let world = World::new();
    world
        .faults
        .on_puts([PutFault::Pause(Duration::from_mins(1))]);
    let big = |name: String| Draft {
        body: vec![0; 8 * 1024 * 1024].into(),
        ..draft(&name, 0)
    };
    let runs = (0..10).map(|n| send(&world.history, vec![big(format!("m{n}"))]));
    let told = futures_util::future::join_all(runs).await;
    let refused = told.iter().filter(|told| told[..] == [UNAVAILABLE]).count();
    assert_eq!(refused, 3, "{told:?}");
    assert_eq!(world.stored().await.len(), 7);
}

#[tokio::test]
async fn appends_under_way_are_finished_when_the_history_is_dropped() {
    let world = World::new();
    let history = world.history.clone();
    let answer = async move { send(&history, two()).await };
    drop(world.history);
    assert_eq!(answer.await, [New(1), New(2)]);
    let head = world.memory.head(&pair("alice", "bob")).await.unwrap();
    assert_eq!(head.unwrap().envelope.seq.0, 2);
}
