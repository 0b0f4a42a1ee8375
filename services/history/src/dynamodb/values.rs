//! What is stored of a message: a version, what side 0 and side 1 have sent, and the
//! envelope's own bytes.

use std::collections::HashMap;

use duologue_dynamodb::sdk::types::AttributeValue;
use duologue_proto::ids::{ConversationId, Seq};
use duologue_proto::message::{Cursor, Envelope};

use super::schema::{DELIVERED, MESSAGE, READ, SORT, VERSION, corrupt};
use crate::store::{StoreError, StoredMessage};

/// The first byte of a message, and the version of a conversation row. Another one is
/// refused, not guessed.
pub(super) const FORMAT: u8 = 1;

pub(super) type Item = HashMap<String, AttributeValue>;

pub(super) fn encode(message: &StoredMessage) -> Vec<u8> {
    let wire = message.envelope.wire();
    let mut value = Vec::with_capacity(wire.len() + 17);
    value.push(FORMAT);
    value.extend(message.sent[0].to_be_bytes());
    value.extend(message.sent[1].to_be_bytes());
    value.extend_from_slice(wire);
    value
}

/// The message of an item. One that says it belongs elsewhere is not it.
pub(super) fn message(
    conversation: &ConversationId,
    item: &Item,
) -> Result<StoredMessage, StoreError> {
    let value = item.get(MESSAGE).and_then(|value| value.as_b().ok());
    let message = value.and_then(|value| decode(value.as_ref()));
    let message = message.ok_or_else(|| corrupt("a message"))?;
    if message.is_of(conversation) && number(item, SORT)? == Some(message.envelope.seq.0) {
        Ok(message)
    } else {
        Err(corrupt("a message in another's slot"))
    }
}

fn decode(value: &[u8]) -> Option<StoredMessage> {
    let content = value.strip_prefix(&[FORMAT])?;
    let (one, content) = content.split_first_chunk()?;
    let (other, wire) = content.split_first_chunk()?;
    Some(StoredMessage {
        envelope: Envelope::open(wire).ok()?,
        sent: [u64::from_be_bytes(*one), u64::from_be_bytes(*other)],
    })
}

/// The cursor of a conversation row; zeros where none was stored.
pub(super) fn cursor(item: &Item) -> Result<Cursor, StoreError> {
    if number(item, VERSION)? != Some(u64::from(FORMAT)) {
        return Err(corrupt("a conversation row of another version"));
    }
    Ok(Cursor {
        delivered: Seq(number(item, DELIVERED)?.unwrap_or_default()),
        read: Seq(number(item, READ)?.unwrap_or_default()),
    })
}

/// The sort key of a user's row.
pub(super) fn sort(item: &Item) -> Result<&[u8], StoreError> {
    let sort = item.get(SORT).and_then(|sort| sort.as_b().ok());
    let sort = sort.ok_or_else(|| corrupt("the key of a row"))?;
    Ok(sort.as_ref())
}

fn number(item: &Item, name: &str) -> Result<Option<u64>, StoreError> {
    let Some(value) = item.get(name) else {
        return Ok(None);
    };
    let number = value.as_n().ok().and_then(|number| number.parse().ok());
    number.map(Some).ok_or_else(|| corrupt("a number"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::schema::bytes;
    use super::*;
    use crate::contract_tests::{between, message as sealed};

    fn item(seq: u64, value: &[u8]) -> Item {
        let seq = AttributeValue::N(seq.to_string());
        [(SORT.into(), seq), (MESSAGE.into(), bytes(value))].into()
    }

    #[test]
    fn a_message_reads_back_and_no_other_is_taken_for_it() {
        let conversation = between("alice", "bob");
        let stored = sealed(&conversation, 7, "m");
        let mut value = encode(&stored);
        assert_eq!(message(&conversation, &item(7, &value)), Ok(stored));
        let elsewhere = message(&between("alice", "carol"), &item(7, &value));
        assert_eq!(elsewhere, Err(corrupt("a message in another's slot")));
        assert!(message(&conversation, &item(8, &value)).is_err());
        value[0] = 2;
        assert_eq!(
            message(&conversation, &item(7, &value)),
            Err(corrupt("a message"))
        );
    }

    #[test]
    fn a_row_of_another_version_is_refused() {
        let row = |version: &str| [(VERSION.into(), AttributeValue::N(version.into()))].into();
        assert_eq!(cursor(&row("1")), Ok(Cursor::default()));
        for version in ["2", "one", "-1", "1e3"] {
            assert!(cursor(&row(version)).is_err(), "{version}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut value: Vec<u8>, versioned: bool) {
            if versioned {
                value.insert(0, FORMAT);
            }
            let _ = message(&between("alice", "bob"), &item(1, &value));
        }
    }
}
