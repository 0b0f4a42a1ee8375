//! Bundles: consecutive messages of one conversation under one key, so that what
//! fjall does per key (journal, memtable, index, merges) is done once for many.
//!
//! What a group stores of one conversation is cut into bundles, and these are never
//! changed. The key is that of the last message: so the bundle that holds a slot is
//! the first one at or behind it, and the head is known from the last key alone.

use duologue_proto::ids::{ConversationId, Seq};
use duologue_proto::message::Envelope;
use fjall::Slice;

use super::values::{Unreadable, VERSION};
use crate::store::StoredMessage;

/// Messages of a bundle at most: so few that finding one among them costs little.
pub const MAX_BUNDLE_MESSAGES: usize = 64;
/// A bundle of more than one message is at most so long, in bytes: reading one
/// message of it reads all of it.
pub const MAX_BUNDLE_BYTES: usize = 32 * 1024;

/// Cuts consecutive messages into bundles.
pub(super) fn cut(mut run: &[StoredMessage]) -> impl Iterator<Item = &[StoredMessage]> {
    std::iter::from_fn(move || {
        let bundle;
        (bundle, run) = run.split_at(fitting(run));
        (!bundle.is_empty()).then_some(bundle)
    })
}

/// How many messages the first bundle takes.
fn fitting(run: &[StoredMessage]) -> usize {
    const HEADER: usize = 8 + 8 + 4;

    let mut bytes = 1;
    let fits = |message: &&StoredMessage| {
        bytes += HEADER + message.envelope.wire().len();
        bytes <= MAX_BUNDLE_BYTES
    };
    let fitting = run.iter().take(MAX_BUNDLE_MESSAGES).take_while(fits);
    fitting.count().max(run.len().min(1))
}

/// Writes the value of a bundle into a buffer: version; then of each message what
/// side 0 and side 1 have sent, the length of the envelope, the envelope.
pub(super) fn encode(bundle: &[StoredMessage], value: &mut Vec<u8>) {
    value.clear();
    value.push(VERSION);
    for message in bundle {
        let wire = message.envelope.wire();
        // Envelopes are bounded far below.
        let length = u32::try_from(wire.len()).unwrap_or(u32::MAX);
        value.extend(message.sent[0].to_be_bytes());
        value.extend(message.sent[1].to_be_bytes());
        value.extend(length.to_be_bytes());
        value.extend_from_slice(wire);
    }
}

/// A bundle that was read. Its messages are decoded one by one, as they are asked
/// for.
pub(super) struct Bundle {
    conversation: ConversationId,
    first: Seq,
    value: Slice,
    /// Where each message begins in the value.
    places: Vec<usize>,
}

impl Bundle {
    /// Reads what is stored of a conversation under the key of `last`.
    pub(super) fn open(
        conversation: ConversationId,
        last: Seq,
        value: Slice,
    ) -> Result<Self, Unreadable> {
        let places = places(&value).ok_or(Unreadable("messages"))?;
        let before = u64::try_from(places.len()).ok();
        let before = before.and_then(|count| last.0.checked_sub(count));
        let before = before.ok_or(Unreadable("messages before the first slot"))?;
        Ok(Self {
            conversation,
            first: Seq(before).next(),
            value,
            places,
        })
    }

    /// The message in a slot; none if it is not of this bundle. One that says it
    /// belongs elsewhere is not it.
    pub(super) fn message(&self, seq: Seq) -> Result<Option<StoredMessage>, Unreadable> {
        let index = seq.0.checked_sub(self.first.0);
        let index = index.and_then(|index| usize::try_from(index).ok());
        let Some(place) = index.and_then(|index| self.places.get(index)) else {
            return Ok(None);
        };
        let part = self.value.get(*place..).and_then(split);
        let (message, _) = part.ok_or(Unreadable("messages"))?;
        let message = message.decode()?;
        if message.envelope.seq == seq && message.is_of(&self.conversation) {
            Ok(Some(message))
        } else {
            Err(Unreadable("a message in another's slot"))
        }
    }

    /// The slots from `first` to `last` that it holds, in ascending order.
    pub(super) fn slots(
        &self,
        first: Seq,
        last: Seq,
    ) -> impl DoubleEndedIterator<Item = Seq> + use<> {
        let count = u64::try_from(self.places.len()).unwrap_or(u64::MAX);
        let end = self.first.0.saturating_add(count);
        let end = end.min(last.0.saturating_add(1));
        (self.first.max(first).0..end).map(Seq)
    }
}

/// A message of a bundle, not decoded.
struct Part<'a> {
    sent: [u64; 2],
    wire: &'a [u8],
}

impl Part<'_> {
    fn decode(&self) -> Result<StoredMessage, Unreadable> {
        // Copied, since a message may be kept for long and its bundle is large.
        let envelope = Envelope::open(self.wire);
        Ok(StoredMessage {
            envelope: envelope.map_err(|_| Unreadable("a message"))?,
            sent: self.sent,
        })
    }
}

/// Where the messages begin; none if it is not a whole bundle.
fn places(value: &[u8]) -> Option<Vec<usize>> {
    let mut rest = value.strip_prefix(&[VERSION])?;
    let mut places = Vec::new();
    while !rest.is_empty() {
        places.push(value.len() - rest.len());
        (_, rest) = split(rest)?;
    }
    (!places.is_empty()).then_some(places)
}

/// The message that `bytes` begin with, and what follows it.
fn split(bytes: &[u8]) -> Option<(Part<'_>, &[u8])> {
    let (one, rest) = bytes.split_first_chunk()?;
    let (other, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (wire, rest) = rest.split_at_checked(length)?;
    let sent = [u64::from_be_bytes(*one), u64::from_be_bytes(*other)];
    Some((Part { sent, wire }, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::contract_tests::{between, message, sized_message};

    fn conversation() -> ConversationId {
        between("alice", "bob")
    }

    fn written(bundle: &[StoredMessage]) -> Slice {
        let mut value = b"what was in the buffer before".to_vec();
        encode(bundle, &mut value);
        value.into()
    }

    fn open(last: u64, value: impl Into<Slice>) -> Result<Bundle, Unreadable> {
        Bundle::open(conversation(), Seq(last), value.into())
    }

    proptest! {
        #[test]
        fn runs_are_cut_within_the_bounds_and_read_back(
            first in 1_u64..1_000,
            sizes in prop::collection::vec(
                prop_oneof![0_usize..200, 10_000_usize..12_000, 30_000_usize..40_000], 0..200,
            ),
        ) {
            let run: Vec<_> = (first..).zip(&sizes)
                .map(|(seq, size)| sized_message(&conversation(), seq, *size))
                .collect();
            let mut read = Vec::new();
            for bundle in cut(&run) {
                let value = written(bundle);
                prop_assert!((1..=MAX_BUNDLE_MESSAGES).contains(&bundle.len()));
                prop_assert!(bundle.len() == 1 || value.len() <= MAX_BUNDLE_BYTES);
                let last = bundle[bundle.len() - 1].envelope.seq;
                let bundle = open(last.0, value).unwrap();
                for seq in bundle.slots(Seq(0), Seq(u64::MAX)) {
                    read.push(bundle.message(seq).unwrap().unwrap());
                }
            }
            prop_assert_eq!(read, run);
        }

        #[test]
        fn no_bytes_panic(mut bytes: Vec<u8>, last: u64, versioned: bool) {
            if versioned {
                bytes.insert(0, VERSION);
            }
            if let Ok(bundle) = open(last, bytes) {
                for seq in bundle.slots(Seq(0), Seq(u64::MAX)) {
                    let _ = bundle.message(seq);
                }
            }
        }
    }

    #[test]
    fn a_bundle_is_as_full_as_the_bounds_allow() {
        let cuts = |sizes: &[usize]| -> Vec<usize> {
            let run: Vec<_> = (1..)
                .zip(sizes)
                .map(|(seq, size)| sized_message(&conversation(), seq, *size))
                .collect();
            cut(&run).map(<[StoredMessage]>::len).collect()
        };
        assert_eq!(cuts(&[1; 130]), [64, 64, 2]);
        let half = MAX_BUNDLE_BYTES / 2;
        assert_eq!(cuts(&[half - 300, half - 300, 1, half, half]), [3, 1, 1]);
        assert_eq!(cuts(&[MAX_BUNDLE_BYTES * 2, 1, 1]), [1, 2]);
        assert_eq!(cuts(&[]), [0; 0]);
    }

    #[test]
    fn it_gives_the_slots_that_it_holds_and_no_others() {
        let run: Vec<_> = (5..=7)
            .map(|seq| message(&conversation(), seq, "m"))
            .collect();
        let bundle = open(7, written(&run)).unwrap();
        let slots = |first, last| -> Vec<u64> {
            let slots = bundle.slots(Seq(first), Seq(last));
            slots.map(|seq| seq.0).collect()
        };
        assert_eq!(slots(0, u64::MAX), [5, 6, 7]);
        assert_eq!(slots(6, 6), [6]);
        assert_eq!(slots(6, 100), [6, 7]);
        assert_eq!(slots(1, 5), [5]);
        assert_eq!(slots(8, 100), [0; 0]);
        assert_eq!(slots(1, 4), [0; 0]);
        assert_eq!(bundle.message(Seq(4)), Ok(None));
        assert_eq!(bundle.message(Seq(8)), Ok(None));
        assert_eq!(bundle.message(Seq(6)), Ok(Some(run[1].clone())));
    }

    #[test]
    fn what_is_not_what_was_written_is_refused() {
        let two = [
            message(&conversation(), 1, "a"),
            message(&conversation(), 2, "b"),
        ];
        let value = written(&two).to_vec();
        for end in 0..value.len() {
            // Cut between the two it is a bundle of one, in another's slot.
            let cut = open(2, &value[..end]).and_then(|bundle| bundle.message(Seq(2)));
            assert!(cut.is_err(), "the first {end} bytes");
        }
        let mut versioned = value.clone();
        versioned[0] = VERSION + 1;
        assert!(open(2, versioned).is_err());
        assert!(open(1, value.clone()).is_err(), "it would begin at slot 0");
        let moved = open(3, value.clone()).unwrap().message(Seq(3));
        assert_eq!(moved, Err(Unreadable("a message in another's slot")));
        let strange = Bundle::open(between("alice", "carol"), Seq(2), value.into());
        assert!(strange.unwrap().message(Seq(1)).is_err());
    }
}
