//! What is in a file, and what of it a loss of power leaves.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

/// What a disk writes as a whole, or not at all.
const SECTOR_BYTES: usize = 512;

/// Bytes; behind them zeros up to the length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Content {
    bytes: Vec<u8>,
    length: usize,
}

/// One change of a file.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Write { position: usize, bytes: Vec<u8> },
    Resize { length: usize },
}

/// What is left of the changes that no sync has covered.
#[derive(Debug, Clone, Copy)]
pub(super) enum Left {
    /// Nothing.
    Nothing,
    /// This share of the written bytes, counted from the first, in 1/65,536.
    Beginning(u16),
    /// The sectors that these bits choose, over and over: a disk writes them in any
    /// order.
    Sectors(u64),
}

impl Content {
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        let length = bytes.len();
        let mut content = Self { bytes, length };
        content.trim();
        content
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }

    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { position, bytes } => {
                let end = position + bytes.len();
                if self.bytes.len() < end {
                    self.bytes.resize(end, 0);
                }
                self.bytes[*position..end].copy_from_slice(bytes);
                self.length = self.length.max(end);
            }
            Change::Resize { length } => {
                self.bytes.truncate(*length);
                self.length = *length;
            }
        }
    }

    /// This content with what is left of `changes`.
    pub(super) fn with(&self, changes: &[Change], left: Left) -> Self {
        match left {
            Left::Nothing => self.clone(),
            Left::Beginning(share) => self.with_beginning(changes, share),
            Left::Sectors(chosen) => self.with_sectors(changes, chosen),
        }
    }

    fn with_beginning(&self, changes: &[Change], share: u16) -> Self {
        let written = changes.iter().map(Change::bytes).sum::<usize>();
        let mut kept = written * usize::from(share) / 65_536;
        let mut content = self.clone();
        for change in changes {
            match change {
                Change::Write { position, bytes } => {
                    let part = &bytes[..bytes.len().min(kept)];
                    kept -= part.len();
                    if !part.is_empty() {
                        content.apply(&Change::Write {
                            position: *position,
                            bytes: part.to_vec(),
                        });
                    }
                }
                Change::Resize { .. } => content.apply(change),
            }
        }
        content
    }

    fn with_sectors(&self, changes: &[Change], chosen: u64) -> Self {
        let mut content = self.clone();
        for change in changes {
            content.apply(change);
        }
        let mut before = self.bytes.chunks(SECTOR_BYTES);
        let mut different = 0;
        for sector in content.bytes.chunks_mut(SECTOR_BYTES) {
            let old = before.next().unwrap_or_default();
            let (shared, beyond) = sector.split_at_mut(old.len().min(sector.len()));
            let same = *shared == old[..shared.len()] && beyond.iter().all(|byte| *byte == 0);
            if same {
                continue;
            }
            if chosen >> (different % 64) & 1 == 0 {
                shared.copy_from_slice(&old[..shared.len()]);
                beyond.fill(0);
            }
            different += 1;
        }
        content
    }

    /// Writes it to a file, as one with holes where there are only zeros.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let mut file = File::create(path).with_context(|| format!("{}", path.display()))?;
        file.write_all(&self.bytes)?;
        file.set_len(u64::try_from(self.length)?)?;
        Ok(())
    }

    /// Zeros at the end need not be kept: equal files are equal.
    pub(super) fn trim(&mut self) {
        let end = self.bytes.iter().rposition(|byte| *byte != 0);
        self.bytes.truncate(end.map_or(0, |at| at + 1));
    }
}

impl Change {
    /// How many bytes it writes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Write { bytes, .. } => bytes.len(),
            Self::Resize { .. } => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(position: usize, bytes: &[u8]) -> Change {
        Change::Write {
            position,
            bytes: bytes.to_vec(),
        }
    }

    #[test]
    fn a_beginning_is_cut_at_any_byte() {
        let content = Content::of(b"synced".to_vec());
        let changes = [write(6, b"abcd"), write(10, b"efgh")];
        let left = |share| content.with(&changes, Left::Beginning(share));
        assert_eq!(left(0).bytes(), b"synced");
        assert_eq!(left(8_192 * 5).bytes(), b"syncedabcde");
        assert_eq!(left(u16::MAX).bytes(), b"syncedabcdefg");
    }

    #[test]
    fn a_sector_that_is_not_left_is_as_it_was() {
        let content = Content::of(vec![1; 600]);
        let changes = [write(600, &[2; 1_000])];
        let first_only = content.with(&changes, Left::Sectors(1));
        assert_eq!(first_only.length(), 1_600);
        assert_eq!(first_only.bytes()[..600], [1; 600]);
        assert_eq!(first_only.bytes()[600..1_024], [2; 424]);
        assert_eq!(first_only.bytes()[1_024..], [0; 576]);
        let last_only = content.with(&changes, Left::Sectors(0b100));
        assert_eq!(last_only.bytes()[600..1_536], [0; 936]);
        assert_eq!(last_only.bytes()[1_536..], [2; 64]);
    }
}
