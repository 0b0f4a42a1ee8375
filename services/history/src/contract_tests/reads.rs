//! What every engine promises about reading in order and in pages.

use std::collections::BTreeSet;

use duologue_proto::ids::Seq;

use super::{Fixture, all, between, message, user};
use crate::store::{Activity, Consistency, SlotRange, Window};

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
