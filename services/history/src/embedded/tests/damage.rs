//! What is found, and what is dropped, when the disk returns other bytes than were
//! written, or not all of them. `docs/operations.md` says the same to operators.

use std::fs;

use tempfile::TempDir;

use super::super::journal::{Found, examine};
use super::*;

/// The end of the last journal of a closed store.
fn journal(directory: &TempDir) -> (PathBuf, Vec<u8>) {
    let entries = fs::read_dir(directory.path().join("tables")).unwrap();
    let journals = entries.map(|entry| entry.unwrap().path());
    let mut journals: Vec<_> = journals
        .filter(|path| path.extension().is_some_and(|name| name == "jnl"))
        .collect();
    journals.sort();
    let path = journals.pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    // A journal is made long; what is not written yet is zeros.
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes.truncate(end + 1);
    (path, bytes)
}

async fn three_messages() -> (TempDir, PathBuf, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    for seq in 1..=3 {
        assert_eq!(put(&store, seq).await, stored(1));
    }
    drop(store);
    let (path, bytes) = journal(&directory);
    (directory, path, bytes)
}

/// Whatever the end of the journal looks like, it opens, keeps all before the last
/// commit, shows the last one whole or not at all, and goes on.
async fn assert_goes_on(directory: &TempDir, case: &str) {
    let store = try_open(directory.path());
    let store = store.unwrap_or_else(|error| panic!("{case}: {error}"));
    let kept = count(&store).await;
    assert!((2..=3).contains(&kept), "{case}: {kept} messages");
    let next = u64::try_from(kept).unwrap() + 1;
    assert_eq!(put(&store, next).await, stored(1), "{case}");
    drop(store);
    assert_eq!(count(&open(directory)).await, kept + 1, "{case}");
}

#[tokio::test]
async fn a_journal_torn_at_its_end_loses_nothing_before_the_last_commit() {
    let (_, _, whole) = three_messages().await;
    for lost in [1, 5, 60, 130] {
        let (directory, path, bytes) = three_messages().await;
        assert_eq!(bytes.len(), whole.len());
        fs::write(&path, &bytes[..bytes.len() - lost]).unwrap();
        assert_goes_on(&directory, &format!("{lost} bytes lost")).await;
    }
}

#[tokio::test]
async fn garbage_after_the_journal_s_end_is_dropped() {
    for garbage in [&b"\xff\xff\xff"[..], b"\x01\x02\x03", &[7; 4096]] {
        let (directory, path, mut bytes) = three_messages().await;
        bytes.extend(garbage);
        fs::write(&path, &bytes).unwrap();
        assert_goes_on(&directory, &format!("{garbage:?}")).await;
    }
}

/// Pages reach the disk in any order: the end of the last batch may be there and its
/// middle not.
#[tokio::test]
async fn a_hole_in_the_last_commit_loses_nothing_before_it() {
    let (_, _, whole) = three_messages().await;
    for back in (0..160).step_by(40) {
        let (directory, path, mut bytes) = three_messages().await;
        let end = whole.len() - back;
        bytes[end - 8..end].fill(0);
        fs::write(&path, &bytes).unwrap();
        assert_goes_on(&directory, &format!("a hole {back} bytes before the end")).await;
    }
}

/// Where the last batch of a journal begins.
fn last_batch(journal: &[u8]) -> usize {
    let ends = journal.windows(4).enumerate();
    let ends = ends.filter(|(_, bytes)| *bytes == b"FJL\x03");
    ends.map(|(at, _)| at + 4).rev().nth(1).unwrap()
}

/// Cut anywhere, and with any part of it missing: what a loss of power leaves of the
/// last batch is never taken for damage, and never for the end of an earlier one.
#[tokio::test]
async fn whatever_is_left_of_the_last_batch_it_alone_is_torn() {
    let (_, _, whole) = three_messages().await;
    let start = last_batch(&whole);
    for end in start + 1..whole.len() {
        assert_eq!(examine(&whole[..end]), Found::Torn(start), "cut at {end}");
    }
    assert_eq!(examine(&whole[..start]), Found::Whole);
    for from in start..whole.len() {
        for to in from + 1..=whole.len() {
            let mut left = whole.clone();
            left[from..to].fill(0);
            let found = examine(&left);
            let nothing_left = from == start && to == whole.len() || left == whole;
            let expected = if nothing_left {
                Found::Whole
            } else {
                Found::Torn(start)
            };
            assert_eq!(found, expected, "nothing from {from} to {to}");
        }
    }
}

/// Every byte before the last batch, also those that are not under its checksum.
#[tokio::test]
async fn any_wrong_byte_before_the_last_batch_is_damage() {
    let (_, _, whole) = three_messages().await;
    let start = last_batch(&whole);
    for place in 0..start {
        for flipped in [0x01, 0x02, 0x10, 0x80, 0xff] {
            let mut damaged = whole.clone();
            damaged[place] ^= flipped;
            let found = examine(&damaged);
            assert!(
                matches!(found, Found::Damaged(at) if at <= start),
                "{flipped:#x} at {place} of {start}: {found:?}"
            );
        }
    }
}

#[tokio::test]
async fn damage_before_the_last_commit_is_refused_and_not_dropped() {
    let (directory, path, mut bytes) = three_messages().await;
    let text = b"body of m2";
    let at = bytes.windows(text.len()).position(|window| window == text);
    bytes[at.unwrap()] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(
        try_open(directory.path()),
        Err(OpenError::Engine { .. })
    ));
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

/// fjall takes it for a torn end, and would drop the batch and all behind it.
#[tokio::test]
async fn a_damaged_head_of_a_synced_batch_is_refused_and_not_taken_for_the_end() {
    let (_, _, whole) = three_messages().await;
    let text = b"body of m2";
    let at = whole.windows(text.len()).position(|window| window == text);
    // Somewhere before it the batch begins.
    let start = whole[..at.unwrap()]
        .windows(4)
        .rposition(|window| window == b"FJL\x03")
        .unwrap()
        + 4;
    for (place, damage) in [(start, 0xff), (start + 1, 0xff), (start + 13, 0)] {
        let (directory, path, mut bytes) = three_messages().await;
        bytes[place] = damage;
        fs::write(&path, &bytes).unwrap();
        let opened = try_open(directory.path());
        assert!(
            matches!(opened, Err(OpenError::Engine { .. })),
            "byte {place}"
        );
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}

/// A closed store of which every keyspace is in a table, and its journals are not
/// needed.
async fn in_tables() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    for seq in 1..=3 {
        assert_eq!(put(&store, seq).await, stored(1));
    }
    for keyspace in store.open.tables.growing() {
        keyspace.rotate_memtable_and_wait().unwrap();
    }
    drop(store);
    directory
}

/// Every file below a folder, with what is in it.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let bytes = fs::read(&path).unwrap();
            found.push((path, bytes));
        }
    }
    found.sort();
    found
}

/// fjall would show nothing of the tables without a journal, and remove a keyspace
/// without its `current`.
#[tokio::test]
async fn a_file_that_is_missing_is_named_and_nothing_is_changed() {
    let keyspaces = (0..=5).map(|number| format!("keyspaces/{number}/current"));
    for missing in keyspaces.chain(["0.jnl".to_owned()]) {
        let directory = in_tables().await;
        let tables = directory.path().join("tables");
        fs::remove_file(tables.join(&missing)).unwrap();
        let before = files(&tables);
        let refused = try_open(directory.path()).err().unwrap().to_string();
        assert!(
            refused.contains(&format!("{missing} is missing")),
            "{refused}"
        );
        assert_eq!(files(&tables), before);
    }
}

#[tokio::test]
async fn a_journal_between_others_is_missed() {
    let directory = in_tables().await;
    let tables = directory.path().join("tables");
    fs::copy(tables.join("0.jnl"), tables.join("2.jnl")).unwrap();
    let refused = try_open(directory.path()).err().unwrap().to_string();
    assert!(refused.contains("1.jnl is missing"), "{refused}");
}

/// What no check can find: `docs/operations.md` says so.
#[tokio::test]
async fn a_journal_that_is_cut_between_two_batches_is_not_noticed() {
    let (directory, path, bytes) = three_messages().await;
    fs::write(&path, &bytes[..last_batch(&bytes)]).unwrap();
    assert_eq!(count(&open(&directory)).await, 2);
}

/// Only the newest journal can be torn: the others were synced to their ends.
#[tokio::test]
async fn a_torn_end_of_an_older_journal_is_damage() {
    let (directory, path, bytes) = three_messages().await;
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    fs::write(path.with_file_name("1.jnl"), b"").unwrap();
    let refused = try_open(directory.path()).err().unwrap().to_string();
    assert!(refused.contains("0.jnl is damaged"), "{refused}");
}

/// Blocks of messages are looked at when they are read, all else when it is opened.
#[tokio::test]
async fn no_wrong_byte_of_a_table_is_ever_shown() {
    let directory = in_tables().await;
    let messages = {
        let store = open(&directory);
        store.slots(all(&alice_and_bob())).await.unwrap()
    };
    let table = directory.path().join("tables/keyspaces/1/tables/1");
    let whole = fs::read(&table).unwrap();
    let (mut at_open, mut at_read) = (0, 0);
    for place in (0..whole.len()).step_by(23) {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x41;
        fs::write(&table, damaged).unwrap();
        let Ok(store) = try_open(directory.path()) else {
            at_open += 1;
            continue;
        };
        match store.slots(all(&alice_and_bob())).await {
            Ok(read) => assert_eq!(read, messages, "byte {place}"),
            Err(error) => {
                assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
                at_read += 1;
            }
        }
    }
    assert!(at_open > 0 && at_read > 0, "{at_open} {at_read}");
    fs::write(&table, whole).unwrap();
    assert_eq!(count(&open(&directory)).await, 3);
}
