//! What every engine promises about filling slots.

use std::time::Duration;

use futures_util::future::join_all;

use super::{Fixture, START, all, between, message, run_at, stopped, stored, waits};
use crate::committer::rules::MAX_READING_AGE;
use crate::store::{PutRun, PutStop, StoreError};

pub(super) async fn a_stored_message_is_read_back_as_it_was(fixture: Fixture) {
    let conversation = between("alice", "bob");
    assert_eq!(fixture.store.head(&conversation).await, Ok(None));
    let (one, two) = (
        message(&conversation, 1, "a"),
        message(&conversation, 2, "b"),
    );
    assert_eq!(fixture.put(vec![one.clone(), two.clone()]).await, stored(2));
    assert_eq!(
        fixture.store.head(&conversation).await,
        Ok(Some(two.clone()))
    );
    assert_eq!(
        fixture.store.slots(all(&conversation)).await,
        Ok(vec![one, two])
    );
}

pub(super) async fn an_occupied_slot_answers_with_its_holder_and_changes_nothing(fixture: Fixture) {
    let conversation = between("alice", "bob");
    let holder = message(&conversation, 1, "a");
    assert_eq!(fixture.put(vec![holder.clone()]).await, stored(1));
    let late = vec![
        message(&conversation, 1, "b"),
        message(&conversation, 2, "c"),
    ];
    let occupied = PutStop::Occupied(Box::new(holder.clone()));
    assert_eq!(fixture.put(late).await, stopped(0, occupied));
    assert_eq!(
        fixture.store.slots(all(&conversation)).await,
        Ok(vec![holder])
    );
}

pub(super) async fn a_put_that_is_tried_again_meets_itself(fixture: Fixture) {
    let conversation = between("alice", "bob");
    let run = run_at(START, vec![message(&conversation, 1, "a")]);
    assert_eq!(fixture.store.put_run(run.clone()).await, stored(1));
    let itself = PutStop::Occupied(Box::new(run.messages[0].clone()));
    assert_eq!(fixture.store.put_run(run).await, stopped(0, itself));
}

/// A writer that does not know what became of its run may put a part of it, or more.
pub(super) async fn a_run_that_is_tried_again_in_other_pieces_meets_itself(fixture: Fixture) {
    let conversation = between("alice", "bob");
    let run: Vec<_> = (1..=100)
        .map(|seq| message(&conversation, seq, &format!("m{seq}")))
        .collect();
    assert_eq!(fixture.put(run[..70].to_vec()).await, stored(70));
    for (from, to) in [(0, 70), (0, 1), (3, 9), (63, 66), (69, 70), (40, 100)] {
        let itself = PutStop::Occupied(Box::new(run[from].clone()));
        let outcome = fixture.put(run[from..to].to_vec()).await;
        assert_eq!(outcome, stopped(0, itself), "{from}..{to}");
    }
    assert_eq!(fixture.put(run[70..].to_vec()).await, stored(30));
    assert_eq!(fixture.store.slots(all(&conversation)).await, Ok(run));
}

pub(super) async fn an_occupied_slot_amid_a_stored_run_answers_with_its_holder(fixture: Fixture) {
    let conversation = between("alice", "bob");
    fixture.fill(&conversation, 1, 150).await;
    for seq in [1, 2, 63, 64, 65, 100, 128, 129, 149, 150] {
        let rival = fixture
            .put(vec![message(&conversation, seq, "rival")])
            .await;
        let holder = message(&conversation, seq, &format!("m{seq}"));
        assert_eq!(rival, stopped(0, PutStop::Occupied(Box::new(holder))));
    }
    assert_eq!(fixture.seqs(all(&conversation)).await.len(), 150);
}

/// A writer with many at a time may store them together: nobody can tell.
pub(super) async fn runs_put_at_once_are_stored_as_one_by_one(fixture: Fixture) {
    let conversations = [between("alice", "bob"), between("alice", "carol")];
    let mut runs = Vec::new();
    let mut next = 1;
    for size in [1, 2, 63, 64, 65, 1, 200] {
        for conversation in &conversations {
            let slots = next..next + size;
            let run = slots.map(|seq| message(conversation, seq, &format!("m{seq}")));
            runs.push(run.collect::<Vec<_>>());
        }
        next += size;
    }
    let outcomes = join_all(runs.iter().map(|run| fixture.put(run.clone()))).await;
    for (run, outcome) in runs.iter().zip(outcomes) {
        assert_eq!(outcome, stored(run.len()));
    }
    for conversation in &conversations {
        let messages = runs.iter().flatten();
        let messages = messages.filter(|message| message.is_of(conversation));
        assert_eq!(
            fixture.store.slots(all(conversation)).await,
            Ok(messages.cloned().collect())
        );
    }
}

/// Another writer fills slot 2 at the same time; whoever comes first, what is
/// answered as stored is the prefix that is there.
pub(super) async fn a_run_is_stored_up_to_a_slot_that_another_writer_filled(fixture: Fixture) {
    let conversation = between("alice", "bob");
    fixture.fill(&conversation, 1, 1).await;
    let ours = (2..=4).map(|seq| message(&conversation, seq, &format!("ours{seq}")));
    let theirs = message(&conversation, 2, "theirs");
    let (ours, theirs) = tokio::join!(
        fixture.put(ours.collect()),
        fixture.put(vec![theirs.clone()])
    );
    let slots = fixture.store.slots(all(&conversation)).await.unwrap();
    assert_eq!(slots.len(), 1 + ours.stored + theirs.stored);
    let loser = if ours.stored == 0 { ours } else { theirs };
    let holder = PutStop::Occupied(Box::new(slots[1].clone()));
    assert_eq!(loser, stopped(0, holder));
}

pub(super) async fn a_slot_after_an_absent_one_is_refused(fixture: Fixture) {
    let conversation = between("alice", "bob");
    for (filled, last) in [(1, 1), (149, 150)] {
        fixture.fill(&conversation, last + 1 - filled, filled).await;
        let outcome = fixture
            .put(vec![message(&conversation, last + 2, "c")])
            .await;
        assert_eq!(outcome.stored, 0);
        assert!(matches!(
            outcome.stopped,
            Some(PutStop::Failed(StoreError::Refused(_)))
        ));
        let seqs = fixture.seqs(all(&conversation)).await;
        assert_eq!(seqs, (1..=last).collect::<Vec<_>>());
    }
}

pub(super) async fn a_run_that_is_none_is_refused_and_changes_nothing(fixture: Fixture) {
    let conversation = between("alice", "bob");
    let run = run_at(START, vec![message(&conversation, 1, "a")]);
    let with = |messages| PutRun {
        messages,
        ..run.clone()
    };
    let elsewhere = message(&between("alice", "carol"), 2, "b");
    let bad = [
        with(vec![]),
        with(vec![message(&conversation, 0, "a")]),
        with(vec![
            message(&conversation, 1, "a"),
            message(&conversation, 3, "b"),
        ]),
        with(vec![
            message(&conversation, 1, "a"),
            message(&conversation, 1, "b"),
        ]),
        with(vec![message(&conversation, 1, "a"), elsewhere]),
    ];
    for run in bad {
        let outcome = fixture.store.put_run(run).await;
        assert!(matches!(
            outcome.stopped,
            Some(PutStop::Failed(StoreError::Refused(_)))
        ));
    }
    assert_eq!(fixture.store.head(&conversation).await, Ok(None));
    assert!(fixture.activity("alice").await.is_empty());
}

pub(super) async fn of_many_writers_of_one_slot_exactly_one_wins(fixture: Fixture) {
    let conversation = between("alice", "bob");
    for seq in 1..=20 {
        let rivals = (0..16)
            .map(|rival| fixture.put(vec![message(&conversation, seq, &format!("r{rival}"))]));
        let outcomes = join_all(rivals).await;
        let holder = fixture.store.head(&conversation).await.unwrap().unwrap();
        let lost = stopped(0, PutStop::Occupied(Box::new(holder.clone())));
        for (rival, outcome) in outcomes.into_iter().enumerate() {
            let won = holder.envelope.message_id.as_str() == format!("r{rival}");
            assert_eq!(outcome, if won { stored(1) } else { lost.clone() });
        }
    }
}

pub(super) async fn racing_runs_leave_no_gap_and_no_lie(fixture: Fixture) {
    let conversation = between("alice", "bob");
    let fixture = &fixture;
    let writers = (0..8u64).map(|writer| {
        let conversation = conversation.clone();
        async move {
            let mut answered = Vec::new();
            for round in 0..10u64 {
                let head = fixture.store.head(&conversation).await.unwrap();
                let next = head.map_or(1, |head| head.envelope.seq.0 + 1);
                let slots = next..next + 1 + (writer + round) % 4;
                let run: Vec<_> = slots
                    .map(|seq| message(&conversation, seq, &format!("w{writer}-{round}-{seq}")))
                    .collect();
                let outcome = fixture.put(run.clone()).await;
                answered.extend(run.into_iter().take(outcome.stored));
            }
            answered
        }
    });
    let mut answered = join_all(writers).await.concat();
    answered.sort_by_key(|message| message.envelope.seq);
    assert_eq!(
        fixture.store.slots(all(&conversation)).await,
        Ok(answered.clone())
    );
    let seqs: Vec<u64> = answered
        .iter()
        .map(|message| message.envelope.seq.0)
        .collect();
    assert_eq!(seqs, (1..=answered.len() as u64).collect::<Vec<_>>());
}

pub(super) async fn a_put_long_after_its_reading_changes_nothing(fixture: Fixture) {
    let conversation = between("alice", "bob");
    let run = run_at(START, vec![message(&conversation, 1, "a")]);
    fixture
        .clock
        .set(START.plus(MAX_READING_AGE + Duration::from_millis(1)));
    assert_eq!(
        fixture.store.put_run(run.clone()).await,
        stopped(0, PutStop::TooLate)
    );
    assert_eq!(fixture.store.head(&conversation).await, Ok(None));
    assert!(fixture.activity("alice").await.is_empty());
    assert!(fixture.peers("bob").await.is_empty());
    // A second is left for a put that takes time.
    let young = MAX_READING_AGE.saturating_sub(Duration::from_secs(1));
    fixture.clock.set(START.plus(young));
    assert_eq!(fixture.store.put_run(run).await, stored(1));
}

pub(super) async fn a_caller_that_goes_away_changes_nothing(fixture: Fixture) {
    let conversation = between("alice", "bob");
    let mut abandoned = Box::pin(fixture.put(vec![message(&conversation, 1, "a")]));
    // It may even be answered already.
    waits(abandoned.as_mut()).await;
    drop(abandoned);
    // It was queued before this one, so it is stored before it.
    fixture.fill(&conversation, 2, 1).await;
    assert_eq!(fixture.seqs(all(&conversation)).await, [1, 2]);
}
