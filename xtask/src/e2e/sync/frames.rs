//! Which message ids leave the process: read from the HTTP/2 frames that it sends.
//!
//! Answers and pushes are in DATA frames, neither compressed nor encrypted, and a
//! message's id stands in them as plain text. Nobody can know an id from the wire
//! before its last byte has left.

use std::collections::HashMap;

use regex::bytes::Regex;

/// What every id of the load looks like, and nothing else that is sent or stored.
pub(super) const ID_PATTERN: &str = "sync-[0-9]{6}";
/// Bytes of such an id.
const ID_BYTES: usize = 11;
const HEADER_BYTES: usize = 9;
const DATA: u8 = 0;

/// The ids in `bytes`.
pub(super) fn ids(pattern: &Regex, bytes: &[u8]) -> impl Iterator<Item = String> {
    pattern
        .find_iter(bytes)
        .map(|found| String::from_utf8_lossy(found.as_bytes()).into_owned())
}

/// What one connection carries down.
#[derive(Default)]
pub(super) struct Down {
    header: Vec<u8>,
    /// Bytes of the frame's payload that are to come.
    left: usize,
    /// The end of what each stream has carried, too short for an id.
    ends: HashMap<[u8; 4], Vec<u8>>,
}

impl Down {
    /// Takes what is sent next; returns the ids that are complete with it.
    pub(super) fn take(&mut self, pattern: &Regex, mut bytes: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            if self.left == 0 {
                let missing = HEADER_BYTES - self.header.len() % HEADER_BYTES;
                if missing == HEADER_BYTES {
                    self.header.clear();
                }
                let (part, rest) = bytes.split_at(missing.min(bytes.len()));
                self.header.extend(part);
                bytes = rest;
                if let [high, mid, low, ..] = self.header[..]
                    && self.header.len() == HEADER_BYTES
                {
                    self.left = usize::from(high) << 16 | usize::from(mid) << 8 | usize::from(low);
                }
                continue;
            }
            let (part, rest) = bytes.split_at(self.left.min(bytes.len()));
            self.left -= part.len();
            bytes = rest;
            if self.header[3] == DATA {
                found.extend(self.carry(pattern, part));
            }
        }
        found
    }

    fn carry(&mut self, pattern: &Regex, part: &[u8]) -> Vec<String> {
        let stream = [5, 6, 7, 8].map(|at| self.header[at]);
        let carried = self.ends.entry(stream).or_default();
        carried.extend(part);
        let found = ids(pattern, carried).collect();
        let keep = carried.len().min(ID_BYTES - 1);
        carried.drain(..carried.len() - keep);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        let header = [0, 0, length, kind, 0, 0, 0, 0, stream];
        [&header[..], payload].concat()
    }

    #[test]
    fn an_id_is_found_when_its_last_byte_leaves_however_it_is_cut() {
        let pattern = Regex::new(ID_PATTERN).unwrap();
        let bytes = [
            frame(4, 0, b""),
            frame(1, 1, b"sync-999999"),
            frame(DATA, 1, b"..sync-00"),
            frame(DATA, 3, b"sync-000007"),
            frame(DATA, 1, b"0001."),
        ]
        .concat();
        let mut down = Down::default();
        let mut found = Vec::new();
        for (at, byte) in bytes.iter().enumerate() {
            for id in down.take(&pattern, &[*byte]) {
                found.push((bytes.len() - 1 - at, id));
            }
        }
        let expected = [(14, "sync-000007"), (1, "sync-000001")];
        assert_eq!(found, expected.map(|(at, id)| (at, id.to_owned())));
        let whole = Down::default().take(&pattern, &bytes);
        assert_eq!(whole, ["sync-000007", "sync-000001"]);
    }
}
