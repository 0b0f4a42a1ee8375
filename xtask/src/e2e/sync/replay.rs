//! Goes through a record, and finds what breaks the first promise: an answer leaves
//! only after the journal bytes of its message were synced.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, Result};
use regex::bytes::Regex;

use super::disk::{Disk, Synced};
use super::frames::{Down, ID_PATTERN, ids};
use super::trace::{Action, Moment, Trace};

/// What ends a batch in a journal. No text of the load contains it.
const TRAILER: &[u8] = b"FJL\x03";

/// A record, and how far it was gone through.
pub(super) struct Replay<'a> {
    trace: &'a Trace,
    pattern: Regex,
    pub(super) disk: Disk,
    at: usize,
    downs: HashMap<&'a str, Down>,
    /// Where the batches end that were looked at, by journal.
    looked_at: HashMap<usize, usize>,
    /// Messages of which a whole synced batch tells.
    synced: BTreeSet<String>,
    /// Messages that somebody was told of: as an answer, or as a push.
    pub(super) told: BTreeSet<String>,
    /// Those that were not synced when it left.
    pub(super) told_before_sync: BTreeSet<String>,
}

/// What is remarkable about the next moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Somebody is told of a message for the first time.
    Told,
    /// A journal has been written to and begins to be synced.
    Unsynced,
    /// A name appears or goes, or a file other than a journal is synced.
    Structure,
    Other,
}

impl<'a> Replay<'a> {
    pub(super) fn new(trace: &'a Trace, disk: Disk) -> Result<Self> {
        Ok(Self {
            trace,
            pattern: Regex::new(ID_PATTERN)?,
            disk,
            at: 0,
            downs: HashMap::new(),
            looked_at: HashMap::new(),
            synced: BTreeSet::new(),
            told: BTreeSet::new(),
            told_before_sync: BTreeSet::new(),
        })
    }

    /// Goes on by one moment; none at the end.
    pub(super) fn step(&mut self) -> Result<Option<Kind>> {
        let Some(moment) = self.trace.moments.get(self.at).copied() else {
            return Ok(None);
        };
        self.at += 1;
        let actions = &self.trace.actions;
        let passed = self.disk.pass(moment, actions);
        let passed = passed.with_context(|| format!("at moment {}: {moment:?}", self.at))?;
        if let Some(Synced { node, content }) = passed {
            let from = self.looked_at.entry(node).or_default();
            let behind = content.bytes().get(*from..).unwrap_or_default();
            let mut ends = behind.windows(TRAILER.len());
            if let Some(last) = ends.rposition(|bytes| bytes == TRAILER) {
                let end = last + TRAILER.len();
                self.synced.extend(ids(&self.pattern, &behind[..end]));
                *from += end;
            }
        }
        Ok(Some(match moment {
            Moment::Begins(number) => self.begins(&actions[number]),
            Moment::Ends(number) => self.ends(&actions[number]),
        }))
    }

    fn begins(&mut self, action: &'a Action) -> Kind {
        if let Action::Send { connection, bytes } = action {
            return self.tell(connection, bytes);
        }
        if let Action::Sync { fd } = action
            && self.disk.is_journal(*fd)
        {
            return Kind::Unsynced;
        }
        Kind::Other
    }

    fn ends(&self, action: &Action) -> Kind {
        let is_structure = match action {
            Action::Open { created, .. } => *created,
            Action::Sync { fd } => !self.disk.is_journal(*fd),
            Action::Rename { .. } | Action::Remove { .. } | Action::MakeFolder { .. } => true,
            Action::Close { .. }
            | Action::Seek { .. }
            | Action::Write { .. }
            | Action::Resize { .. }
            | Action::Send { .. } => false,
        };
        if is_structure {
            Kind::Structure
        } else {
            Kind::Other
        }
    }

    fn tell(&mut self, connection: &'a str, bytes: &[u8]) -> Kind {
        let down = self.downs.entry(connection).or_default();
        let mut kind = Kind::Other;
        for id in down.take(&self.pattern, bytes) {
            if !self.synced.contains(&id) {
                self.told_before_sync.insert(id.clone());
            }
            if self.told.insert(id) {
                kind = Kind::Told;
            }
        }
        kind
    }
}
