//! Mends the end of a journal that a loss of power has torn.
//!
//! fjall drops a last batch that is cut short. But the pages of a file may reach the
//! disk in any order, so that the last batch can also be complete in length with a
//! hole in its middle; fjall takes that for damage and refuses to open. A batch that
//! nothing follows was still being synced when the power went, so no operation of it
//! was answered, and it may go. Damage anywhere else is left to be refused.

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

/// Cuts off the last batch of the last journal if it is torn as described above.
/// Returns whether it did.
pub(super) fn cut_torn_batch(tables: &Path) -> io::Result<bool> {
    let Some(path) = last_journal(tables)? else {
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

fn last_journal(tables: &Path) -> io::Result<Option<PathBuf>> {
    let mut last = None;
    for entry in fs::read_dir(tables)? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str());
        let number = number.and_then(|name| name.strip_suffix(".jnl")?.parse::<u64>().ok());
        if let Some(number) = number {
            last = last.max(Some((number, path)));
        }
    }
    Ok(last.map(|(_, path)| path))
}

/// Where the first damaged batch begins, if nothing but unwritten space follows it.
fn torn_batch(journal: &[u8]) -> Option<usize> {
    let mut rest = journal;
    loop {
        let (intact, after) = read_batch(rest)?;
        if !intact {
            let nothing_follows = after.iter().all(|byte| *byte == 0);
            return nothing_follows.then_some(journal.len() - rest.len());
        }
        rest = after;
    }
}

/// Reads one batch: whether its checksum holds, and what follows it. None if there
/// is no batch of complete length.
fn read_batch(bytes: &[u8]) -> Option<(bool, &[u8])> {
    let rest = bytes.strip_prefix(&[START])?;
    let (items, rest) = rest.split_first_chunk()?;
    let (_sequence, mut rest) = rest.split_first_chunk::<8>()?;
    let mut checksum = Xxh3::new();
    for _ in 0..u32::from_le_bytes(*items) {
        let (item, after) = rest.split_at_checked(item_length(rest)?)?;
        checksum.update(item);
        rest = after;
    }
    let (expected, rest) = rest.strip_prefix(&[END])?.split_first_chunk()?;
    let rest = rest.strip_prefix(TRAILER)?;
    Some((checksum.digest() == u64::from_le_bytes(*expected), rest))
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
