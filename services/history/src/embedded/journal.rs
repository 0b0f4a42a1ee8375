//! Looks at the journals before fjall does: cuts off an end that a loss of power has
//! torn, and finds damage that fjall would take for one.
//!
//! fjall drops a last batch that is cut short. But the sectors of a file may reach
//! the disk in any order, so that any part of the last batch can be missing; of such
//! a batch fjall takes some shapes for damage and refuses to open, and of others it
//! reads lengths that were never written. So it never sees one. Nobody follows a
//! batch before it is synced: what no batch follows was, but for a disk that damages
//! what it has synced, still being synced when the power went. No operation of it was
//! answered, and it may go.
//!
//! The reverse is worse: where a batch is damaged so that its end cannot be found,
//! fjall takes it and everything behind it for a torn end, and drops what was
//! acknowledged without a word. So whole batches behind such a place are refused
//! here; and so is any such place in a journal that another one follows, since it was
//! synced to its end before that was made.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

/// Entries of a journal of fjall 3, by their first byte.
const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
/// What ends the last entry of a batch.
const TRAILER: &[u8] = b"FJL\x03";
/// Sequence numbers rise by one from batch to batch, and by few where tables were
/// written in between. More than this is no step.
const MAX_SEQUENCE_STEP: u64 = 1 << 32;
/// More than this needs no damage, but explains nothing either.
const USUAL_SEQUENCE_STEP: u64 = 0xff;

/// What the journals are found to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Journals {
    Whole,
    /// There is none with this number, and there must be.
    Missing(u64),
    /// The last one had a torn end, which is cut off.
    Mended,
    /// This one is damaged from this byte on, before what was acknowledged.
    Damaged(PathBuf, usize),
}

/// Looks at all of them; changes nothing if one is damaged or missing.
pub(super) fn mend(tables: &Path) -> io::Result<Journals> {
    let mut journals = journals(tables)?;
    let Some((&first, &newest)) = journals.keys().next().zip(journals.keys().next_back()) else {
        // There is one from the beginning on. Without any, fjall would start anew and
        // show nothing of the tables.
        return Ok(Journals::Missing(0));
    };
    // The oldest ones go first, once all of them is in tables.
    if let Some(missing) = (first..newest).find(|number| !journals.contains_key(number)) {
        return Ok(Journals::Missing(missing));
    }
    let Some(last) = journals.remove(&newest) else {
        return Ok(Journals::Whole);
    };
    for path in journals.into_values() {
        // It was synced to its end before another one was made.
        if let Found::Torn(place) | Found::Damaged(place) = examine(&fs::read(&path)?) {
            return Ok(Journals::Damaged(path, place));
        }
    }
    match examine(&fs::read(&last)?) {
        Found::Whole => Ok(Journals::Whole),
        Found::Damaged(place) => Ok(Journals::Damaged(last, place)),
        Found::Torn(place) => {
            let file = OpenOptions::new().write(true).open(&last)?;
            file.set_len(u64::try_from(place).map_err(io::Error::other)?)?;
            file.sync_all()?;
            Ok(Journals::Mended)
        }
    }
}

/// What one journal is found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Whole,
    /// From this byte on there is what may be left of one batch.
    Torn(usize),
    /// From this byte on it is damaged, and there is more than that.
    Damaged(usize),
}

pub(super) fn examine(journal: &[u8]) -> Found {
    let (mut rest, mut last, mut step) = (journal, None, 1);
    while let Some(batch) = Batch::read(rest)
        && batch.is_intact()
        && let Some(behind) = batch.steps_behind(last)
    {
        (rest, last, step) = (batch.rest, Some(batch.sequence), behind);
    }
    let place = journal.len() - rest.len();
    let torn = without_padding(rest);
    if torn.is_empty() {
        Found::Whole
    } else if is_misnumbered(torn, last.unwrap_or_default(), step) || is_followed(torn) {
        Found::Damaged(place)
    } else {
        Found::Torn(place)
    }
}

/// Whether what is torn lacks nothing, so that its number is wrong, or that of the
/// batch before it. A loss of power can take bytes of a number, but not change any.
fn is_misnumbered(torn: &[u8], last: u64, step: u64) -> bool {
    let Some(batch) = Batch::read(torn).filter(Batch::is_intact) else {
        return false;
    };
    let expected = last.wrapping_add(1).to_le_bytes();
    let mut bytes = expected.into_iter().zip(batch.sequence.to_le_bytes());
    let is_left = bytes.all(|(expected, byte)| byte == expected || byte == 0);
    step > USUAL_SEQUENCE_STEP || !is_left
}

/// Whether a whole batch is behind the one that is torn.
fn is_followed(torn: &[u8]) -> bool {
    let mut starts = (1..torn.len()).filter(|at| torn[*at] == START);
    starts.any(|at| Batch::read(&torn[at..]).is_some_and(|batch| batch.is_intact()))
}

/// The journals by their numbers, which rise.
fn journals(tables: &Path) -> io::Result<BTreeMap<u64, PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(tables)? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str());
        let number = number.and_then(|name| name.strip_suffix(".jnl")?.parse::<u64>().ok());
        if let Some(number) = number {
            found.insert(number, path);
        }
    }
    Ok(found)
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
    sequence: u64,
    items: &'a [u8],
    checksum: u64,
    /// What follows it.
    rest: &'a [u8],
}

impl<'a> Batch<'a> {
    /// Reads one batch; none if there is none of complete length.
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&[START])?;
        let (count, rest) = rest.split_first_chunk()?;
        let (sequence, items) = rest.split_first_chunk()?;
        let mut rest = items;
        for _ in 0..u32::from_le_bytes(*count) {
            rest = rest.get(item_length(rest)?..)?;
        }
        let items = &items[..items.len() - rest.len()];
        let (checksum, rest) = rest.strip_prefix(&[END])?.split_first_chunk()?;
        Some(Self {
            sequence: u64::from_le_bytes(*sequence),
            items,
            checksum: u64::from_le_bytes(*checksum),
            rest: rest.strip_prefix(TRAILER)?,
        })
    }

    /// How far its number is behind another one, if it may stand there.
    fn steps_behind(&self, last: Option<u64>) -> Option<u64> {
        let Some(last) = last else { return Some(1) };
        let step = self.sequence.checked_sub(last)?;
        (1..=MAX_SEQUENCE_STEP).contains(&step).then_some(step)
    }

    /// Whether its checksum holds, which is that of the items alone.
    fn is_intact(&self) -> bool {
        xxh3_64(self.items) == self.checksum
    }
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
