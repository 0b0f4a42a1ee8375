//! What the final histories hold: everything acknowledged, once, in one order,
//! and nothing else.

use std::collections::BTreeMap;

use super::Findings;
use super::index::{Index, Place};
use crate::event::{Envelope, Pair};

/// No acknowledged message is missing from either user's final history.
pub(super) fn acknowledged_present(index: &Index<'_>, findings: &mut Findings) {
    for ((sender, id), message) in &index.messages {
        let Some((at, stored)) = message.stored.first() else {
            continue;
        };
        let readers = [(*sender, stored.peer.as_str()), (&stored.peer, *sender)];
        let notes = *sender == stored.peer;
        for (reader, peer) in readers.into_iter().skip(usize::from(notes)) {
            let Some((read_at, history)) = index.history(reader, peer) else {
                continue;
            };
            let is_it = |e: &&Envelope| e.sender == *sender && e.message_id == *id;
            // What was acknowledged after the reading may have come after it.
            if *at < read_at && !history.iter().any(|e| is_it(&e)) {
                findings.add(
                    format!(
                        "{sender}'s message {id} was acknowledged, but {reader} does not have it"
                    ),
                    [*at, read_at],
                );
            }
        }
    }
}

/// No history holds one (sender, id) twice.
pub(super) fn at_most_once(index: &Index<'_>, findings: &mut Findings) {
    for ((reader, _), (at, history)) in &index.histories {
        let mut seen = BTreeMap::new();
        for envelope in *history {
            let key = (&envelope.sender, &envelope.message_id);
            if let Some(before) = seen.insert(key, envelope.seq) {
                findings.add(
                    format!(
                        "{}'s message {} is stored as {before} and as {} ({reader} reads)",
                        envelope.sender, envelope.message_id, envelope.seq
                    ),
                    [*at],
                );
            }
        }
    }
}

/// One order, gapless, for both users and every device: a place never holds two
/// messages, whoever sees it and whenever.
pub(super) fn one_order(index: &Index<'_>, findings: &mut Findings) {
    for ((reader, peer), (at, history)) in &index.histories {
        for (expected, envelope) in (1..).zip(*history) {
            if envelope.seq != expected {
                findings.add(
                    format!(
                        "{reader} reads {} of {peer} in place of {expected}",
                        envelope.seq
                    ),
                    [*at],
                );
                break;
            }
        }
    }
    let mut held: BTreeMap<(Pair, u64), (u64, Place<'_>)> = BTreeMap::new();
    for entry in index.entries {
        for place in Index::places_in(&entry.event) {
            let slot = (place.pair.clone(), place.seq);
            let (at, first) = held.entry(slot).or_insert((entry.at, place.clone()));
            if !first.agrees_with(&place) {
                findings.add(
                    format!(
                        "{:?} holds at {} once {first:?}, once {place:?}",
                        place.pair, place.seq
                    ),
                    [*at, entry.at],
                );
            }
            if first.body.is_none() {
                first.body = place.body;
            }
        }
    }
}

/// Both users read the same; so a message without an answer is there for both or
/// for neither. What was refused for good is there for neither.
pub(super) fn unknown_both_or_neither(index: &Index<'_>, findings: &mut Findings) {
    for ((reader, peer), (at, history)) in &index.histories {
        if let Some((other_at, other)) = index.history(peer, reader)
            && reader < peer
            && history.len() != other.len()
        {
            findings.add(
                format!(
                    "{reader} reads {} messages with {peer}, who reads {}",
                    history.len(),
                    other.len()
                ),
                [*at, other_at],
            );
        }
    }
    for ((sender, id), message) in &index.messages {
        if let Some(at) = message.rejected.first()
            && index.places.contains_key(&(*sender, *id))
        {
            findings.add(
                format!("{sender}'s message {id} was refused for good and is stored"),
                [*at],
            );
        }
    }
}

/// Whatever is stored was sent: by this sender, to this user, with this body.
pub(super) fn nothing_invented(index: &Index<'_>, findings: &mut Findings) {
    for (at, history) in index.histories.values() {
        for envelope in *history {
            let key = (envelope.sender.as_str(), envelope.message_id.as_str());
            let sends = index.messages.get(&key).map(|message| &message.sends);
            let sent = sends
                .into_iter()
                .flatten()
                .any(|(_, send)| send.peer == envelope.recipient && send.body == envelope.body);
            if !sent {
                findings.add(format!("nobody sent {envelope:?}"), [*at]);
            }
        }
    }
}

/// No message was accepted before the one before it.
pub(super) fn accepted_at_monotone(index: &Index<'_>, findings: &mut Findings) {
    for ((reader, peer), (at, history)) in &index.histories {
        for both in history.windows(2) {
            if both[1].accepted_at < both[0].accepted_at {
                findings.add(
                    format!(
                        "{reader} with {peer}: {} was accepted at {}, {} at {}",
                        both[0].seq, both[0].accepted_at, both[1].seq, both[1].accepted_at
                    ),
                    [*at],
                );
            }
        }
    }
}
