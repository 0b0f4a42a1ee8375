//! What is kept together is read one by one, wherever it lies.

use duologue_proto::ids::Seq;

use super::*;
use crate::contract_tests::{START, all, message, run_at, stored};
use crate::store::{SlotRange, StoredMessage};

/// Memtable, table, and journal: where a run lies shows in no read, and the writer
/// finds the head in each.
#[tokio::test]
async fn runs_are_read_alike_wherever_they_lie() {
    let directory = tempfile::tempdir().unwrap();
    let mut messages: Vec<StoredMessage> = Vec::new();
    for in_table in [true, false] {
        for reopened in [false, true] {
            let store = open(&directory);
            for count in [1, 3, 64, 65] {
                let next = messages.len() as u64 + 1;
                let run: Vec<_> = (next..next + count)
                    .map(|seq| message(&alice_and_bob(), seq, &format!("m{seq}")))
                    .collect();
                let outcome = store.put_run(run_at(START, run.clone())).await;
                assert_eq!(outcome, stored(run.len()));
                messages.extend(run);
            }
            if in_table {
                let written = store.open.tables.messages.rotate_memtable_and_wait();
                written.unwrap();
                assert!(store.open.tables.messages.table_count() > 0);
            }
            let store = if reopened {
                drop(store);
                open(&directory)
            } else {
                store
            };
            assert_eq!(store.slots(all(&alice_and_bob())).await.unwrap(), messages);
            let backward = SlotRange {
                last: Seq(100),
                backward: true,
                ..all(&alice_and_bob())
            };
            let mut below = messages[..100].to_vec();
            below.reverse();
            assert_eq!(store.slots(backward).await.unwrap(), below);
            let head = store.head(&alice_and_bob()).await.unwrap();
            assert_eq!(head.as_ref(), messages.last());
        }
    }
}
