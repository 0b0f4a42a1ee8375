//! The values of the embedded engine: a version byte, then the content. Those of
//! messages stand in `bundle`.

use duologue_proto::ids::{HistoryId, Seq, UnixMillis};
use duologue_proto::message::Cursor;

use crate::store::StoreError;

/// The first byte of every value. Another one is refused, not guessed.
pub(super) const VERSION: u8 = 1;

/// The value of a row that is all key.
pub(super) const ROW: [u8; 1] = [VERSION];

/// What cannot be read; it names the kind of thing and never its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable(pub(super) &'static str);

impl From<Unreadable> for StoreError {
    fn from(unreadable: Unreadable) -> Self {
        Self::Corrupt(unreadable.0.into())
    }
}

/// Version, delivered, read.
pub(super) fn encode_cursor(cursor: Cursor) -> Vec<u8> {
    let mut value = vec![VERSION];
    value.extend(cursor.delivered.0.to_be_bytes());
    value.extend(cursor.read.0.to_be_bytes());
    value
}

pub(super) fn decode_cursor(value: &[u8]) -> Result<Cursor, Unreadable> {
    match content(value).and_then(two_numbers) {
        Some(([delivered, read], [])) => Ok(Cursor {
            delivered: Seq(delivered),
            read: Seq(read),
        }),
        Some(_) | None => Err(Unreadable("a cursor")),
    }
}

/// Version, milliseconds.
pub(super) fn encode_reading(reading: UnixMillis) -> Vec<u8> {
    let mut value = vec![VERSION];
    value.extend(reading.0.to_be_bytes());
    value
}

pub(super) fn decode_reading(value: &[u8]) -> Result<UnixMillis, Unreadable> {
    match content(value).and_then(<[u8]>::split_first_chunk) {
        Some((millis, [])) => Ok(UnixMillis(u64::from_be_bytes(*millis))),
        Some(_) | None => Err(Unreadable("the highest reading")),
    }
}

/// Version, text.
pub(super) fn encode_history_id(id: &HistoryId) -> Vec<u8> {
    let mut value = vec![VERSION];
    value.extend(id.as_str().as_bytes());
    value
}

pub(super) fn decode_history_id(value: &[u8]) -> Result<HistoryId, Unreadable> {
    let text = content(value).and_then(|text| std::str::from_utf8(text).ok());
    let id = text.and_then(|text| HistoryId::parse(text).ok());
    id.ok_or(Unreadable("the history id"))
}

fn content(value: &[u8]) -> Option<&[u8]> {
    value.strip_prefix(&[VERSION])
}

fn two_numbers(bytes: &[u8]) -> Option<([u64; 2], &[u8])> {
    let (one, rest) = bytes.split_first_chunk()?;
    let (other, rest) = rest.split_first_chunk()?;
    Some(([u64::from_be_bytes(*one), u64::from_be_bytes(*other)], rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let cursor = Cursor {
            delivered: Seq(9),
            read: Seq(7),
        };
        assert_eq!(decode_cursor(&encode_cursor(cursor)), Ok(cursor));
        let reading = UnixMillis(u64::MAX);
        assert_eq!(decode_reading(&encode_reading(reading)), Ok(reading));
        let id = HistoryId::parse("h-1").unwrap();
        assert_eq!(decode_history_id(&encode_history_id(&id)), Ok(id));
    }

    #[test]
    fn a_value_of_another_version_is_refused() {
        let mut value = encode_cursor(Cursor::default());
        value[0] = 2;
        assert_eq!(decode_cursor(&value), Err(Unreadable("a cursor")));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes: Vec<u8>, versioned: bool) {
            if versioned {
                bytes.insert(0, VERSION);
            }
            let _ = decode_cursor(&bytes);
            let _ = decode_reading(&bytes);
            let _ = decode_history_id(&bytes);
        }
    }
}
