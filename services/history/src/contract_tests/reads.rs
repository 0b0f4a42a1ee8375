//! What every engine promises about reading in order and in pages.

use std::collections::BTreeSet;

use duologue_proto::ids::Seq;

use super::{Fixture, all, between, message, sized_message, stored, user};
use crate::store::{Activity, Consistency, SlotRange, StoredMessage, Window};

pub(super) async fn conversations_are_listed_in_order_and_in_pages(fixture: Fixture) {
    for peer in ["dave", "alice", "carol", "bob", "Zoe"] {
        fixture.fill(&between("bob", peer), 1, 1).await;
    }
    assert_eq!(
        fixture.peers("bob").await,
        ["Zoe", "alice", "bob", "carol", "dave"]
    );
    let mut paged = Vec::new();
    loop {
        let page = fixture
            .store
            .conversations(&user("bob"), paged.last(), 2)
            .await
            .unwrap();
        assert!(page.len() <= 2);
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    assert_eq!(paged, ["Zoe", "alice", "bob", "carol", "dave"].map(user));
    let after = fixture
        .store
        .conversations(&user("bob"), Some(&user("b")), 1)
        .await;
    assert_eq!(after, Ok(vec![user("bob")]), "`after` need not be there");
    assert!(fixture.peers("nobody").await.is_empty());
}

async fn activity_rows(fixture: &Fixture) -> Vec<Activity> {
    let mut rows = Vec::new();
    for window in [300, 1, 2, 255, 256] {
        for peer in ["carol", "bob"] {
            let row = Activity {
                window: Window(window),
                peer: user(peer),
            };
            let put = fixture
                .store
                .put_activity(&between("alice", peer), row.window)
                .await;
            put.unwrap();
            rows.push(row);
        }
    }
    rows.sort();
    rows
}

pub(super) async fn activity_is_paged_forward_in_order(fixture: Fixture) {
    let rows = activity_rows(&fixture).await;
    let (store, alice) = (&fixture.store, user("alice"));
    for first in 0..302 {
        let first = Window(first);
        let mut paged: Vec<Activity> = Vec::new();
        loop {
            let page = store
                .activity_from(&alice, first, paged.last(), 3)
                .await
                .unwrap();
            if page.is_empty() {
                break;
            }
            paged.extend(page);
        }
        let expected = rows.iter().filter(|row| row.window >= first);
        assert_eq!(paged, expected.cloned().collect::<Vec<_>>());
    }
    let before_first = Activity {
        window: Window(2),
        peer: user("zoe"),
    };
    let page = store
        .activity_from(&alice, Window(256), Some(&before_first), 1)
        .await;
    assert_eq!(page, Ok(vec![rows[6].clone()]), "never below `first`");
}

pub(super) async fn activity_is_paged_backward_in_order(fixture: Fixture) {
    let mut rows = activity_rows(&fixture).await;
    rows.reverse();
    let mut paged: Vec<Activity> = Vec::new();
    loop {
        let page = fixture
            .store
            .activity_back(&user("alice"), paged.last(), 3)
            .await
            .unwrap();
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    assert_eq!(paged, rows);
}

pub(super) async fn slots_are_read_in_both_directions_within_their_bounds(fixture: Fixture) {
    let conversation = between("alice", "bob");
    fixture.fill(&conversation, 1, 300).await;
    let range = |first, last, backward| SlotRange {
        first: Seq(first),
        last: Seq(last),
        backward,
        ..all(&conversation)
    };
    let cases = [
        (range(2, 4, false), vec![2, 3, 4]),
        (range(2, 4, true), vec![4, 3, 2]),
        (range(0, 2, false), vec![1, 2]),
        (range(299, 1_000, false), vec![299, 300]),
        (range(299, u64::MAX, true), vec![300, 299]),
        (range(301, u64::MAX, false), vec![]),
        (range(4, 2, false), vec![]),
        (range(4, 2, true), vec![]),
        (range(255, 257, false), vec![255, 256, 257]),
    ];
    for (range, seqs) in cases {
        assert_eq!(fixture.seqs(range).await, seqs);
    }
}

pub(super) async fn a_page_of_slots_is_bounded_but_never_empty(fixture: Fixture) {
    let conversation = between("alice", "bob");
    fixture.fill(&conversation, 1, 5).await;
    let one = message(&conversation, 1, "m1").envelope.wire().len();
    let bounded = |backward, max_messages, max_bytes| SlotRange {
        backward,
        max_messages,
        max_bytes,
        ..all(&conversation)
    };
    assert_eq!(fixture.seqs(bounded(false, 2, usize::MAX)).await, [1, 2]);
    assert_eq!(fixture.seqs(bounded(true, 2, usize::MAX)).await, [5, 4]);
    assert_eq!(fixture.seqs(bounded(false, 10, 2 * one)).await, [1, 2]);
    assert_eq!(fixture.seqs(bounded(false, 10, 3 * one - 1)).await, [1, 2]);
    assert_eq!(fixture.seqs(bounded(true, 10, 3 * one)).await, [5, 4, 3]);
    assert_eq!(fixture.seqs(bounded(false, 10, 0)).await, [1]);
    assert_eq!(fixture.seqs(bounded(true, 10, 0)).await, [5]);
}

/// Stored one by one, in runs, and in runs longer than an engine keeps together;
/// some of them long.
async fn stored_in_runs(fixture: &Fixture) -> Vec<StoredMessage> {
    let conversation = between("alice", "bob");
    let mut messages: Vec<StoredMessage> = Vec::new();
    for count in [1, 1, 3, 64, 1, 65, 2, 70] {
        let next = messages.len() as u64 + 1;
        let run: Vec<_> = (next..next + count)
            .map(|seq| {
                let bytes = if seq % 7 == 3 { 5_000 } else { seq % 40 };
                sized_message(&conversation, seq, usize::try_from(bytes).unwrap())
            })
            .collect();
        assert_eq!(fixture.put(run.clone()).await, stored(run.len()));
        messages.extend(run);
    }
    messages
}

pub(super) async fn every_range_is_exact_however_its_messages_were_stored(fixture: Fixture) {
    let messages = stored_in_runs(&fixture).await;
    let head = messages.len() as u64;
    let conversation = between("alice", "bob");
    // Neighbours in order, of which nothing may show.
    fixture.fill(&between("alice", "ann"), 1, 70).await;
    fixture.fill(&between("alice", "bobby"), 1, 70).await;
    assert_eq!(
        fixture.store.head(&conversation).await.unwrap().as_ref(),
        messages.last()
    );
    let edges = [
        0, 1, 2, 3, 5, 6, 40, 69, 70, 71, 72, 134, 135, 137, 138, 170, 206, head,
    ];
    let ends = [head + 1, head + 1_000, u64::MAX];
    for first in edges {
        for last in edges.into_iter().chain(ends) {
            for (backward, max_messages) in [
                (false, usize::MAX),
                (true, usize::MAX),
                (false, 2),
                (true, 2),
            ] {
                let range = SlotRange {
                    first: Seq(first),
                    last: Seq(last),
                    backward,
                    max_messages,
                    ..all(&conversation)
                };
                let wanted = messages
                    .iter()
                    .filter(|message| (first..=last).contains(&message.envelope.seq.0));
                let mut wanted: Vec<_> = wanted.cloned().collect();
                if backward {
                    wanted.reverse();
                }
                wanted.truncate(max_messages);
                let read = fixture.store.slots(range).await.unwrap();
                assert!(read == wanted, "{first}..={last}, backward: {backward}");
            }
        }
    }
}

pub(super) async fn a_page_of_long_and_short_messages_ends_at_the_byte(fixture: Fixture) {
    let messages = stored_in_runs(&fixture).await;
    let lengths: Vec<usize> = messages
        .iter()
        .map(|message| message.envelope.wire().len())
        .collect();
    for start in [1, 20, 70, 100] {
        for count in [1, 2, 5, 30, 64, 100] {
            for backward in [false, true] {
                let (first, last) = if backward {
                    (1, start + 99)
                } else {
                    (start, u64::MAX)
                };
                let range = |max_bytes| SlotRange {
                    first: Seq(first),
                    last: Seq(last),
                    backward,
                    max_bytes,
                    ..all(&between("alice", "bob"))
                };
                let seqs: Vec<u64> = if backward {
                    (1..=last).rev().take(count).collect()
                } else {
                    (first..).take(count).collect()
                };
                let bytes = seqs
                    .iter()
                    .map(|seq| lengths[usize::try_from(*seq).unwrap() - 1])
                    .sum::<usize>();
                assert_eq!(fixture.seqs(range(bytes)).await, seqs);
                let short = fixture.seqs(range(bytes - 1)).await;
                assert_eq!(short, seqs[..(count - 1).max(1)]);
            }
        }
    }
}

pub(super) async fn a_read_that_may_lag_is_an_unbroken_run(fixture: Fixture) {
    let conversation = between("alice", "bob");
    fixture.fill(&conversation, 1, 20).await;
    for (backward, end) in [(false, 3), (true, 17)] {
        let range = SlotRange {
            first: Seq(3),
            last: Seq(17),
            backward,
            consistency: Consistency::Eventual,
            ..all(&conversation)
        };
        let seqs = fixture.seqs(range).await;
        let unbroken: Vec<u64> = (0..seqs.len() as u64)
            .map(|step| if backward { end - step } else { end + step })
            .collect();
        assert_eq!(seqs, unbroken);
    }
}

pub(super) async fn users_whose_ids_begin_alike_are_kept_apart(fixture: Fixture) {
    let names = ["a", "ab", "abc", "b", "bc", "A"];
    let mut pairs = BTreeSet::new();
    for one in names {
        for other in names {
            pairs.insert(between(one, other));
        }
    }
    for (count, pair) in (1..).zip(&pairs) {
        fixture.fill(pair, 1, count).await;
    }
    for (count, pair) in (1..).zip(&pairs) {
        let head = fixture.store.head(pair).await.unwrap().unwrap();
        assert_eq!(
            (head.envelope.seq, head.envelope.conversation()),
            (Seq(count), pair.clone())
        );
        assert_eq!(
            fixture.seqs(all(pair)).await,
            (1..=count).collect::<Vec<_>>()
        );
    }
    for name in names {
        assert_eq!(
            fixture.peers(name).await,
            ["A", "a", "ab", "abc", "b", "bc"]
        );
        assert_eq!(fixture.activity(name).await.len(), names.len());
    }
}
