//! The append rule over a store that works.

use duologue_proto::history::{Draft, Intent, UnsettledReason};
use duologue_proto::ids::Seq;

use super::{Told, World, draft, fill, id, ids, pair, run, send, told};
use Told::{Duplicate, Left, New, Reused};

fn find(message_id: &str, after_seq: u64) -> Draft {
    Draft {
        intent: Intent::FindOnly,
        ..draft(message_id, after_seq)
    }
}

fn anywhere(message_id: &str) -> Draft {
    Draft {
        after_seq: None,
        ..draft(message_id, 0)
    }
}

fn with_body(body: &'static str, draft: Draft) -> Draft {
    Draft {
        body: body.into(),
        ..draft
    }
}

#[tokio::test]
async fn sequences_are_1_2_3_and_a_first_try_is_no_duplicate() {
    let world = World::new();
    let sent = vec![draft("a", 0), draft("b", 0)];
    assert_eq!(send(&world.history, sent).await, [New(1), New(2)]);
    assert_eq!(send(&world.history, vec![draft("c", 2)]).await, [New(3)]);
    assert_eq!(ids(&world.stored().await), ["a", "b", "c"]);
    assert_eq!(send(&world.history, Vec::new()).await, []);
}

#[tokio::test]
async fn a_retry_is_answered_with_the_first_sequence_by_any_replica() {
    let world = World::new();
    send(&world.history, vec![draft("a", 0), draft("b", 0)]).await;
    let retry = || vec![draft("a", 0), draft("b", 0)];
    let told = [Duplicate(1), Duplicate(2)];
    assert_eq!(send(&world.history, retry()).await, told);
    assert_eq!(send(&world.replica(), retry()).await, told);
    assert_eq!(world.stored().await.len(), 2);
}

#[tokio::test]
async fn another_body_under_a_stored_id_is_refused_and_holds_nothing_back() {
    let world = World::new();
    send(&world.history, vec![draft("a", 0)]).await;
    let sent = vec![with_body("other", draft("a", 0)), draft("b", 0)];
    assert_eq!(send(&world.history, sent).await, [Reused, New(2)]);
}

#[tokio::test]
async fn one_id_of_both_users_names_two_messages() {
    let world = World::new();
    send(&world.history, vec![draft("a", 0)]).await;
    let answers = world
        .history
        .append(run("bob", "alice", vec![draft("a", 0)]))
        .await;
    assert_eq!(told(&answers[0]), New(2));
}

#[tokio::test]
async fn one_id_twice_in_a_run_is_one_message() {
    let world = World::new();
    let sent = vec![
        draft("a", 0),
        draft("a", 0),
        with_body("other", draft("a", 0)),
        find("a", 0),
        draft("b", 0),
    ];
    let told = [New(1), Duplicate(1), Reused, Duplicate(1), New(2)];
    assert_eq!(send(&world.history, sent).await, told);
}

#[tokio::test]
async fn a_search_of_more_than_256_is_refused_with_the_head() {
    let world = World::new();
    fill(&world.history, 1, 257).await;
    for history in [&world.history, &world.replica()] {
        let too_old = Left(UnsettledReason::AfterSeqTooOld, Some(257));
        assert_eq!(send(history, vec![draft("new", 0)]).await, [too_old]);
        // One that lies in the newest 256 is found nevertheless.
        assert_eq!(send(history, vec![draft("m2", 0)]).await, [Duplicate(2)]);
    }
    assert_eq!(
        send(&world.replica(), vec![draft("m2", 1)]).await,
        [Duplicate(2)]
    );
    assert_eq!(
        send(&world.history, vec![draft("new", 1)]).await,
        [New(258)]
    );
}

#[tokio::test]
async fn without_after_seq_the_newest_256_are_searched() {
    let world = World::new();
    fill(&world.history, 1, 257).await;
    assert_eq!(
        send(&world.replica(), vec![anywhere("m2")]).await,
        [Duplicate(2)]
    );
    assert_eq!(
        send(&world.replica(), vec![anywhere("m1")]).await,
        [New(258)]
    );
}

#[tokio::test]
async fn after_seq_above_the_head_is_refused_only_after_a_strong_read() {
    let world = World::new();
    send(&world.history, vec![draft("a", 0)]).await;
    send(&world.replica(), vec![draft("b", 1)]).await;
    // This replica's tail is behind.
    assert_eq!(send(&world.history, vec![draft("c", 2)]).await, [New(3)]);
    let sent = vec![draft("d", 4), draft("e", 3)];
    let ahead = Left(UnsettledReason::AfterSeqAhead, Some(3));
    let behind = Left(UnsettledReason::NotFound, Some(3));
    assert_eq!(send(&world.history, sent).await, [ahead, behind]);
    assert_eq!(world.stored().await.len(), 3);
}

#[tokio::test]
async fn what_is_only_searched_for_is_never_stored() {
    let world = World::new();
    send(&world.history, vec![draft("a", 0)]).await;
    let sent = vec![find("a", 0), find("b", 0), draft("c", 0)];
    let absent = Left(UnsettledReason::NotFound, Some(1));
    assert_eq!(
        send(&world.history, sent).await,
        [Duplicate(1), absent, New(2)]
    );
}

#[tokio::test]
async fn a_search_sees_what_another_replica_stored_before_it() {
    let world = World::new();
    send(&world.history, vec![draft("a", 0)]).await;
    send(&world.replica(), vec![draft("b", 1)]).await;
    assert_eq!(
        send(&world.history, vec![find("b", 0)]).await,
        [Duplicate(2)]
    );
}

#[tokio::test]
async fn behind_an_unsettled_draft_others_are_only_searched_for() {
    let world = World::new();
    send(&world.history, vec![draft("a", 0)]).await;
    let sent = vec![
        draft("b", 9),
        draft("c", 0),
        draft("a", 0),
        with_body("other", draft("a", 0)),
    ];
    let left = |reason| Left(reason, Some(1));
    assert_eq!(
        send(&world.history, sent).await,
        [
            left(UnsettledReason::AfterSeqAhead),
            left(UnsettledReason::NotFound),
            Duplicate(1),
            Reused,
        ]
    );
    assert_eq!(world.stored().await.len(), 1);
}

#[tokio::test]
async fn each_message_carries_how_many_each_side_has_sent() {
    let world = World::new();
    let history = &world.history;
    history
        .append(run("bob", "alice", vec![draft("x", 0)]))
        .await;
    send(history, vec![draft("a", 0), draft("b", 0)]).await;
    world
        .replica()
        .append(run("bob", "alice", vec![draft("y", 0)]))
        .await;
    let head = world.memory.head(&pair("alice", "bob")).await.unwrap();
    assert_eq!(head.unwrap().sent, [2, 2]);
    history
        .append(run("bob", "bob", vec![draft("note", 0)]))
        .await;
    let head = world.memory.head(&pair("bob", "bob")).await.unwrap();
    assert_eq!(head.unwrap().sent, [1, 0]);
}

#[tokio::test]
async fn the_accepted_time_never_decreases_when_the_clock_steps_back() {
    let world = World::new();
    let start = world.clock_now();
    send(&world.history, vec![draft("a", 0)]).await;
    world
        .clock
        .set(start.minus(std::time::Duration::from_hours(2)));
    send(&world.history, vec![draft("b", 1)]).await;
    send(&world.replica(), vec![draft("c", 2)]).await;
    // A replica whose clock is behind, and that knows of no other reading.
    world.faults.hide_readings();
    world
        .clock
        .set(start.minus(std::time::Duration::from_secs(5)));
    let behind: std::sync::Arc<dyn crate::store::Store> = world.faults.clone();
    let behind = crate::history::History::new(behind, std::sync::Arc::new(world.clock.clone()));
    send(&behind, vec![draft("d", 3)]).await;
    let times: Vec<_> = world.stored().await.iter().map(|m| m.accepted_at).collect();
    assert_eq!(times, [start; 4]);
}

#[tokio::test]
async fn a_full_put_is_followed_by_another() {
    let world = World::new();
    let drafts = (0..600).map(|n| draft(&format!("m{n}"), 0)).collect();
    let told = send(&world.history, drafts).await;
    assert_eq!(told[..256], (1..=256).map(New).collect::<Vec<_>>());
    // The rest was not searched far enough any more, and says so.
    assert_eq!(told[256], New(257));
    assert_eq!(told[599], Left(UnsettledReason::AfterSeqTooOld, Some(512)));
    assert_eq!(world.stored().await[0].message_id, id("m0"));
    assert_eq!(world.stored().await.last().unwrap().seq, Seq(512));
}

impl World {
    fn clock_now(&self) -> duologue_proto::ids::UnixMillis {
        use duologue_runtime::clock::Clock as _;
        self.clock.now()
    }
}
