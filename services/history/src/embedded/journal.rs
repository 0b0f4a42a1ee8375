//! Looks at the journals before fjall does: mends an end that a loss of power has
//! torn, and finds damage that fjall would take for one.
//!
//! fjall drops a last batch that is cut short. But the pages of a file may reach the
//! disk in any order, so that the last batch can also be complete in length with a
//! hole in its middle; fjall takes that for damage and refuses to open. A batch that
//! nothing follows was, but for a disk that damages what it has synced, still being
//! synced when the power went: no operation of it was answered, and it may go.
//!
//! The reverse is worse: where the head of a batch is damaged, fjall takes it and
//! everything behind it for a torn end, and drops what was acknowledged without a
//! word. So whole batches behind such a place are refused here.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

/// Entries of a journal of fjall 3, by their first byte.
const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
/// What ends the last entry of a batch.
const TRAILER: &[u8] = b"FJL\x03";
/// Sequence numbers rise by one or few from batch to batch.
const MAX_SEQUENCE_STEP: u64 = 1 << 32;

/// Cuts off the last batch of the last journal if it is torn as described above.
/// Returns whether it did.
pub(super) fn cut_torn_batch(tables: &Path) -> io::Result<bool> {
    let Some(path) = journals(tables)?.pop() else {
        return Ok(false);
    };
    let Some(start) = torn_batch(&fs::read(&path)?) else {
        return Ok(false);
    };
    let file = OpenOptions::new().write(true).open(&path)?;
    file.set_len(u64::try_from(start).map_err(io::Error::other)?)?;
    file.sync_all()?;
    Ok(true)
}

/// The first journal that holds whole batches behind a place that cannot be read,
/// and that place.
pub(super) fn find_damage(tables: &Path) -> io::Result<Option<(PathBuf, usize)>> {
    for path in journals(tables)? {
        if let Some(place) = damaged_at(without_padding(&fs::read(&path)?)) {
            return Ok(Some((path, place)));
        }
    }
    Ok(None)
}

/// The journals, the oldest first.
fn journals(tables: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(tables)? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str());
        let number = number.and_then(|name| name.strip_suffix(".jnl")?.parse::<u64>().ok());
        if let Some(number) = number {
            found.insert(number, path);
        }
    }
    Ok(found.into_values().collect())
}

/// Where the first damaged batch begins, if nothing but unwritten space follows it.
fn torn_batch(journal: &[u8]) -> Option<usize> {
    let mut rest = journal;
    loop {
        let batch = read_batch(rest)?;
        if !batch.intact {
            let nothing_follows = batch.rest.iter().all(|byte| *byte == 0);
            return nothing_follows.then_some(journal.len() - rest.len());
        }
        rest = batch.rest;
    }
}

/// Where reading ends, if whole batches follow that belong behind the last one read.
fn damaged_at(journal: &[u8]) -> Option<usize> {
    let (mut rest, mut sequence) = (journal, 0);
    while let Some(batch) = read_batch(rest) {
        (rest, sequence) = (batch.rest, batch.sequence);
    }
    let place = journal.len() - rest.len();
    // Message text is in here too, and may look like a batch: but it cannot know
    // the sequence number and has no checksum that holds.
    let belongs = |batch: Batch<'_>| {
        batch.intact && batch.sequence > sequence && batch.sequence - sequence <= MAX_SEQUENCE_STEP
    };
    let trailers = rest.windows(TRAILER.len()).enumerate();
    let mut ends = trailers.filter(|(_, bytes)| *bytes == TRAILER);
    let found = ends.any(|(at, _)| read_batch(&rest[at + TRAILER.len()..]).is_some_and(belongs));
    found.then_some(place)
}

/// A journal without the pages at its end that were never written.
fn without_padding(journal: &[u8]) -> &[u8] {
    const EMPTY: [u8; 4096] = [0; 4096];
    let mut end = journal.len();
    loop {
        let start = end.saturating_sub(EMPTY.len());
        if end == 0 || journal[start..end] != EMPTY[..end - start] {
            return &journal[..end];
        }
        end = start;
    }
}

/// A batch of complete length.
struct Batch<'a> {
    /// Whether its checksum holds.
    intact: bool,
    sequence: u64,
    /// What follows it.
    rest: &'a [u8],
}

/// Reads one batch; none if there is none of complete length.
fn read_batch(bytes: &[u8]) -> Option<Batch<'_>> {
    let rest = bytes.strip_prefix(&[START])?;
    let (items, rest) = rest.split_first_chunk()?;
    let (sequence, mut rest) = rest.split_first_chunk()?;
    let mut checksum = Xxh3::new();
    for _ in 0..u32::from_le_bytes(*items) {
        let (item, after) = rest.split_at_checked(item_length(rest)?)?;
        checksum.update(item);
        rest = after;
    }
    let (expected, rest) = rest.strip_prefix(&[END])?.split_first_chunk()?;
    let rest = rest.strip_prefix(TRAILER)?;
    Some(Batch {
        intact: checksum.digest() == u64::from_le_bytes(*expected),
        sequence: u64::from_le_bytes(*sequence),
        rest,
    })
}

/// Of the item that `bytes` begin with: its kind, how the value is compressed (not),
/// keyspace, length of the key, length of the value, the same as stored; key; value.
fn item_length(bytes: &[u8]) -> Option<usize> {
    const HEADER: usize = 3 + 8 + 2 + 4 + 4;

    let header = bytes.strip_prefix(&[ITEM])?;
    let (key, header) = header.get(10..)?.split_first_chunk()?;
    let (_value, header) = header.split_first_chunk::<4>()?;
    let (stored, _) = header.split_first_chunk()?;
    let key = usize::from(u16::from_le_bytes(*key));
    let stored = usize::try_from(u32::from_le_bytes(*stored)).ok()?;
    HEADER.checked_add(key)?.checked_add(stored)
}
