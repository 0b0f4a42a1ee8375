//! The keys of the embedded engine, in the order that reads need.
//!
//! Ids stand behind their length, so that no key of one user or conversation is a
//! prefix of another's; numbers are big-endian, so that bytes order as numbers.
//! The last id of a key needs no length and orders as the id does.

use duologue_proto::ids::{ConversationId, Seq, UserId};

use super::values::Unreadable;
use crate::store::{Activity, Window};

/// Of messages: conversation, sequence of the last of them.
pub(super) fn message(conversation: &ConversationId, seq: Seq) -> Vec<u8> {
    let mut key = pair(conversation);
    key.extend(seq.0.to_be_bytes());
    key
}

/// The sequence in a key of messages of `conversation`.
pub(super) fn seq_of(conversation: &ConversationId, key: &[u8]) -> Result<Seq, Unreadable> {
    let seq = key.strip_prefix(pair(conversation).as_slice());
    let seq = seq.and_then(|seq| seq.try_into().ok());
    let seq = seq.ok_or(Unreadable("the key of messages"))?;
    Ok(Seq(u64::from_be_bytes(seq)))
}

/// Of a cursor: conversation, user.
pub(super) fn cursor(conversation: &ConversationId, user: &UserId) -> Vec<u8> {
    let mut key = pair(conversation);
    key.extend(user.as_str().as_bytes());
    key
}

/// What every row of a user begins with.
pub(super) fn user(user: &UserId) -> Vec<u8> {
    let mut key = Vec::with_capacity(2 * (user.as_str().len() + 8));
    push_id(&mut key, user);
    key
}

/// Of a conversation row: user, peer.
pub(super) fn conversation(owner: &UserId, peer: &UserId) -> Vec<u8> {
    let mut key = user(owner);
    key.extend(peer.as_str().as_bytes());
    key
}

/// What every activity row of a user and window begins with.
pub(super) fn window(owner: &UserId, window: Window) -> Vec<u8> {
    let mut key = user(owner);
    key.extend(window.0.to_be_bytes());
    key
}

/// Of an activity row: user, window, peer.
pub(super) fn activity(owner: &UserId, row: &Activity) -> Vec<u8> {
    let mut key = window(owner, row.window);
    key.extend(row.peer.as_str().as_bytes());
    key
}

/// The peer of a conversation row of `owner`.
pub(super) fn peer_of(owner: &UserId, key: &[u8]) -> Result<UserId, Unreadable> {
    let peer = key.strip_prefix(user(owner).as_slice());
    parse_user(peer.ok_or(Unreadable("a conversation row of another user"))?)
}

/// The activity row of `owner` under a key.
pub(super) fn activity_of(owner: &UserId, key: &[u8]) -> Result<Activity, Unreadable> {
    let row = key.strip_prefix(user(owner).as_slice());
    let (window, peer) = row
        .and_then(|row| row.split_first_chunk())
        .ok_or(Unreadable("the key of an activity row"))?;
    Ok(Activity {
        window: Window(u64::from_be_bytes(*window)),
        peer: parse_user(peer)?,
    })
}

/// The least key above all that begin with `prefix`, which begins with a length
/// and so is below the highest possible key.
pub(super) fn after_all(mut prefix: Vec<u8>) -> Vec<u8> {
    while prefix.pop_if(|last| *last == u8::MAX).is_some() {}
    if let Some(last) = prefix.last_mut() {
        *last += 1;
    }
    prefix
}

pub(crate) fn pair(conversation: &ConversationId) -> Vec<u8> {
    let (low, high) = (conversation.low(), conversation.high());
    let mut key = Vec::with_capacity(low.as_str().len() + high.as_str().len() + 10);
    push_id(&mut key, low);
    push_id(&mut key, high);
    key
}

fn push_id(key: &mut Vec<u8>, id: &UserId) {
    // Ids are at most 64 bytes long.
    let length = u8::try_from(id.as_str().len()).unwrap_or(u8::MAX);
    key.push(length);
    key.extend(id.as_str().as_bytes());
}

fn parse_user(bytes: &[u8]) -> Result<UserId, Unreadable> {
    let text = std::str::from_utf8(bytes).map_err(|_| Unreadable("a user id"))?;
    UserId::parse(text).map_err(|_| Unreadable("a user id"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn user_id() -> impl Strategy<Value = UserId> {
        "[ab]{1,3}|[a-zA-Z0-9._@+-]{1,64}".prop_map(|text| UserId::parse(&text).unwrap())
    }

    proptest! {
        #[test]
        fn no_conversation_s_keys_lie_among_another_s(
            one in (user_id(), user_id()), other in (user_id(), user_id()), seq: u64,
        ) {
            let (one, other) = (ConversationId::of(&one.0, &one.1), ConversationId::of(&other.0, &other.1));
            let range = message(&one, Seq::ZERO)..=message(&one, Seq(u64::MAX));
            prop_assert_eq!(range.contains(&message(&other, Seq(seq))), one == other);
        }

        #[test]
        fn keys_of_one_conversation_order_as_its_sequence_and_read_back(
            a in user_id(), b in user_id(), one: u64, other: u64,
        ) {
            let conversation = ConversationId::of(&a, &b);
            prop_assert_eq!(seq_of(&conversation, &message(&conversation, Seq(one))), Ok(Seq(one)));
            prop_assert_eq!(
                message(&conversation, Seq(one)).cmp(&message(&conversation, Seq(other))),
                one.cmp(&other)
            );
        }

        #[test]
        fn keys_of_activity_order_as_the_rows_and_read_back(
            owner in user_id(), one in (any::<u64>(), user_id()), other in (any::<u64>(), user_id()),
        ) {
            let row = |(window, peer): (u64, UserId)| Activity { window: Window(window), peer };
            let (one, other) = (row(one), row(other));
            prop_assert_eq!(activity(&owner, &one).cmp(&activity(&owner, &other)), one.cmp(&other));
            prop_assert_eq!(activity_of(&owner, &activity(&owner, &one)), Ok(one));
        }

        #[test]
        fn exactly_a_user_s_rows_lie_below_the_end_of_the_user(
            owner in user_id(), stranger in user_id(), peer in user_id(),
        ) {
            let range = user(&owner)..after_all(user(&owner));
            prop_assert!(range.contains(&conversation(&owner, &peer)));
            prop_assert_eq!(range.contains(&conversation(&stranger, &peer)), owner == stranger);
            prop_assert_eq!(peer_of(&owner, &conversation(&owner, &peer)), Ok(peer));
        }
    }

    #[test]
    fn garbled_keys_are_refused_without_a_panic() {
        let owner = UserId::parse("alice").unwrap();
        for key in [&b""[..], b"\x05alice", b"\x05alice\0\0", b"\x03bobcarol"] {
            assert!(peer_of(&owner, key).is_err());
            assert!(activity_of(&owner, key).is_err());
            assert!(seq_of(&ConversationId::of(&owner, &owner), key).is_err());
        }
    }
}
