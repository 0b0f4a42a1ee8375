//! The tables of history on DynamoDB, and the keys of their rows.
//!
//! Messages: partition is a conversation, sort is the sequence. Users: partition is a
//! user; sort begins with the kind of row, then orders as reads need. Names and keys
//! are short, since they are paid for with every item.

use aws_lc_rs::digest::{SHA256, digest};
use duologue_dynamodb::sdk::primitives::Blob;
use duologue_dynamodb::sdk::types::AttributeValue;
use duologue_dynamodb::tables::{Key, KeyKind, TableSpec};
use duologue_proto::ids::{ConversationId, Seq, UserId};

use crate::embedded::keys::pair;
use crate::store::{Activity, StoreError, Window};

/// Messages, and the id of the history.
pub const MESSAGES: TableSpec = TableSpec {
    name: "messages",
    partition: Key {
        name: PARTITION,
        kind: KeyKind::Bytes,
    },
    sort: Some(Key {
        name: SORT,
        kind: KeyKind::Number,
    }),
    time_to_live: None,
};

/// The rows of users: their conversations with cursors, and their activity.
pub const USERS: TableSpec = TableSpec {
    name: "users",
    partition: Key {
        name: PARTITION,
        kind: KeyKind::Text,
    },
    sort: Some(Key {
        name: SORT,
        kind: KeyKind::Bytes,
    }),
    time_to_live: None,
};

/// Every table of history.
pub const TABLES: [TableSpec; 2] = [MESSAGES, USERS];

pub(super) const PARTITION: &str = "p";
pub(super) const SORT: &str = "s";
/// Of a message: what `values` encodes.
pub(super) const MESSAGE: &str = "m";
/// Of a conversation row: the user's positions.
pub(super) const DELIVERED: &str = "d";
pub(super) const READ: &str = "r";
/// Of a conversation row: the version of its format.
pub(super) const VERSION: &str = "v";

/// The version of the keys of messages.
const KEY_VERSION: u8 = 1;
/// What the sort keys of a user's rows begin with.
const ACTIVITY: u8 = b'a';
const CONVERSATION: u8 = b'c';

/// The partition of a conversation's messages: 16 bytes of the digest of a version and
/// the pair, each id behind its length.
pub(super) fn messages_of(conversation: &ConversationId) -> AttributeValue {
    let mut named = vec![KEY_VERSION];
    named.extend(pair(conversation));
    bytes(&digest(&SHA256, &named).as_ref()[..16])
}

/// The partition of the row that names the history: no digest is so short.
pub(super) fn history() -> AttributeValue {
    bytes(b"history")
}

pub(super) fn slot(seq: Seq) -> AttributeValue {
    AttributeValue::N(seq.0.to_string())
}

pub(super) fn rows_of(user: &UserId) -> AttributeValue {
    AttributeValue::S(user.as_str().into())
}

/// The sort key of a conversation row.
pub(super) fn conversation(peer: &UserId) -> Vec<u8> {
    [&[CONVERSATION], peer.as_str().as_bytes()].concat()
}

/// Below and above the sort keys of all conversation rows: ids are ASCII.
pub(super) fn conversations() -> [Vec<u8>; 2] {
    [vec![CONVERSATION], vec![CONVERSATION, u8::MAX]]
}

pub(super) fn peer_of(sort: &[u8]) -> Result<UserId, StoreError> {
    let peer = sort.strip_prefix(&[CONVERSATION]).map(user);
    peer.flatten().ok_or_else(|| corrupt("a conversation row"))
}

/// The sort key of an activity row.
pub(super) fn activity(row: &Activity) -> Vec<u8> {
    let window = row.window.0.to_be_bytes();
    [&[ACTIVITY], &window[..], row.peer.as_str().as_bytes()].concat()
}

/// Below and above the sort keys of the activity rows from a window on.
pub(super) fn activity_from(first: Window) -> [Vec<u8>; 2] {
    let first = [&[ACTIVITY], &first.0.to_be_bytes()[..]].concat();
    let last = [&[ACTIVITY], &[u8::MAX; 9][..]].concat();
    [first, last]
}

pub(super) fn activity_of(sort: &[u8]) -> Result<Activity, StoreError> {
    let row = sort.strip_prefix(&[ACTIVITY]);
    let row = row.and_then(|row| row.split_first_chunk());
    let row = row.and_then(|(window, peer)| Some((*window, user(peer)?)));
    let (window, peer) = row.ok_or_else(|| corrupt("an activity row"))?;
    Ok(Activity {
        window: Window(u64::from_be_bytes(window)),
        peer,
    })
}

pub(super) fn bytes(bytes: &[u8]) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes))
}

pub(super) fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(what.into())
}

fn user(id: &[u8]) -> Option<UserId> {
    let id = std::str::from_utf8(id).ok()?;
    UserId::parse(id).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::contract_tests::{between, user};

    #[test]
    fn the_key_of_a_conversation_never_changes() {
        let AttributeValue::B(key) = messages_of(&between("alice", "bob")) else {
            panic!("not bytes");
        };
        let key = u128::from_be_bytes(key.as_ref().try_into().unwrap());
        // sha256("\x01\x05alice\x03bob"), of which the first half.
        assert_eq!(format!("{key:032x}"), "ebb54c923229e86d94dde00db98579b7");
    }

    proptest! {
        #[test]
        fn rows_of_activity_order_as_their_keys_and_read_back(
            one in (any::<u64>(), "[a-zA-Z0-9._@+-]{1,64}"),
            other in (any::<u64>(), "[a-zA-Z0-9._@+-]{1,64}"),
        ) {
            let row = |(window, peer): (u64, String)| Activity {
                window: Window(window),
                peer: user(&peer),
            };
            let (one, other) = (row(one), row(other));
            prop_assert_eq!(activity(&one).cmp(&activity(&other)), one.cmp(&other));
            let [first, last] = activity_from(one.window);
            prop_assert!(first < activity(&one) && activity(&one) < last);
            prop_assert_eq!(activity_of(&activity(&one)), Ok(one));
            let [first, last] = conversations();
            let key = conversation(&other.peer);
            prop_assert!(first < key && key < last);
            prop_assert_eq!(peer_of(&key), Ok(other.peer));
        }

        #[test]
        fn no_key_panics(key: Vec<u8>) {
            let _ = (peer_of(&key), activity_of(&key));
        }
    }
}
