//! The order of messages: as they were sent in a session, and as real time has it.

use std::collections::BTreeMap;

use super::Findings;
use super::index::{Index, Key};
use crate::event::{Event, Pair, Send, pair};

/// Sends of one user to one conversation within a lane: each message at its first
/// send since it was last given up there.
type Lane<'a> = Vec<(u64, &'a Send)>;

/// Sends to one conversation are stored in the order in which they were sent.
///
/// If B is stored, some lane stored it. So when A was sent before B in *every* lane
/// in which B was sent, A is stored before B, or was refused for good. What was given up
/// may have been stored before that: of B, the first send ever counts.
pub(super) fn session_order(index: &Index<'_>, findings: &mut Findings) {
    let lanes = lanes(index);
    let mut firsts: BTreeMap<Key<'_>, BTreeMap<u64, u64>> = BTreeMap::new();
    for ((lane, _), sends) in &lanes {
        for (at, send) in sends {
            firsts.entry(key(send)).or_default().insert(*lane, *at);
        }
    }
    let ever = first_sends(index);
    let before_everywhere = |one: &Send, other: &Send| {
        let (one, other) = (&firsts[&key(one)], &ever[&key(other)]);
        let is_before = |lane: &u64, at: &u64| one.get(lane).is_some_and(|first| first < at);
        other.iter().all(|(lane, at)| is_before(lane, at))
    };
    for sends in lanes.values() {
        for (later, (at, send)) in sends.iter().enumerate() {
            let Some(place) = index.places.get(&key(send)) else {
                continue;
            };
            let earlier = sends[..later].iter().filter(|(_, before)| {
                let not_before = index.places.get(&key(before)).is_none_or(|p| p > place);
                not_before && !was_rejected(index, before) && before_everywhere(before, send)
            });
            for (before_at, before) in earlier {
                findings.add(
                    format!(
                        "{} sent {} before {}; they are stored as {:?} and as {place}",
                        send.user,
                        before.message_id,
                        send.message_id,
                        index.places.get(&key(before))
                    ),
                    [*before_at, *at],
                );
            }
        }
    }
}

/// When each message was first sent in each lane.
fn first_sends<'a>(index: &Index<'a>) -> BTreeMap<Key<'a>, BTreeMap<u64, u64>> {
    let mut firsts: BTreeMap<Key<'_>, BTreeMap<u64, u64>> = BTreeMap::new();
    for entry in index.entries {
        if let Event::Send(send) = &entry.event {
            let lanes = firsts.entry(key(send)).or_default();
            lanes.entry(send.lane).or_insert(entry.at);
        }
    }
    firsts
}

fn key(send: &Send) -> Key<'_> {
    (&send.user, &send.message_id)
}

fn was_rejected(index: &Index<'_>, send: &Send) -> bool {
    let message = index.messages.get(&key(send));
    message.is_some_and(|message| !message.rejected.is_empty())
}

fn lanes<'a>(index: &Index<'a>) -> BTreeMap<(u64, Pair), Lane<'a>> {
    let mut lanes: BTreeMap<(u64, Pair), Lane<'a>> = BTreeMap::new();
    for entry in index.entries {
        if let Event::Send(send) = &entry.event {
            let lane = (send.lane, pair(&send.user, &send.peer));
            let sends = lanes.entry(lane).or_default();
            if !sends.iter().any(|(_, sent)| key(sent) == key(send)) {
                sends.push((entry.at, send));
            }
        }
        if let Event::Abandon {
            lane, message_id, ..
        } = &entry.event
        {
            let of_lane = lanes.iter_mut().filter(|((number, _), _)| number == lane);
            for (_, sends) in of_lane {
                sends.retain(|(_, send)| send.message_id != *message_id);
            }
        }
    }
    lanes
}

/// What was known to be stored before a message was first sent has a lower place.
pub(super) fn ack_before_send(index: &Index<'_>, findings: &mut Findings) {
    let mut highest: BTreeMap<Pair, (u64, u64)> = BTreeMap::new();
    for entry in index.entries {
        if let Event::Send(send) = &entry.event {
            let first = index.messages[&key(send)].sends[0].0;
            let known = highest.get(&pair(&send.user, &send.peer));
            if let (Some(place), Some((seq, at))) = (index.places.get(&key(send)), known)
                && first == entry.at
                && place <= seq
            {
                findings.add(
                    format!(
                        "{}'s message {} is stored as {place}, but {seq} was known before it was sent",
                        send.user, send.message_id
                    ),
                    [*at, entry.at],
                );
            }
        }
        for place in Index::places_in(&entry.event) {
            let known = highest.entry(place.pair).or_default();
            if place.seq > known.0 {
                *known = (place.seq, entry.at);
            }
        }
    }
}
