//! Cursors: what is stored never retreats, and everybody concerned is told.

use std::collections::BTreeMap;

use super::Findings;
use super::index::Index;
use super::replay::Replay;
use crate::event::{Cursor, CursorMove, Door, Event, SessionNumber};

/// A stored cursor never retreats, is at least what was asked for, and never passes
/// the head. What the Rust client shows of a cursor it never lowers.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "other events have nothing to do with this"
)]
pub(super) fn cursor_never_lowered(index: &Index<'_>, findings: &mut Findings) {
    let mut state = Stored::default();
    for entry in index.entries {
        match &entry.event {
            Event::CursorAsked(asked) => state.asked(asked),
            Event::CursorStored(stored) => {
                let floor = state.stored(stored);
                if !stored.cursor.covers(floor) {
                    findings.add(
                        format!(
                            "{}'s cursor with {} is stored as {:?}, below {floor:?}",
                            stored.user, stored.peer, stored.cursor
                        ),
                        [entry.at],
                    );
                }
            }
            Event::Receipt {
                session,
                peer,
                user,
                cursor,
            } => {
                check_head(index, (user, peer, *cursor), entry.at, *session, findings);
                let of_client = index
                    .connects
                    .get(session)
                    .is_some_and(|(_, connect)| connect.door == Door::Client);
                let shown = state.shown.entry((*session, peer, user)).or_default();
                if of_client && !cursor.covers(*shown) {
                    let what = format!(
                        "client {session} shows {user}'s cursor with {peer} as {cursor:?} after {shown:?}"
                    );
                    findings.add(what, [entry.at]);
                }
                *shown = shown.max(*cursor);
            }
            Event::Cursors {
                reader,
                peer,
                own,
                other,
            } => {
                for (user, with, cursor) in [(reader, peer, own), (peer, reader, other)] {
                    let confirmed = state
                        .confirmed
                        .get(&(user, with))
                        .copied()
                        .unwrap_or_default();
                    if !cursor.covers(confirmed) {
                        let what = format!(
                            "{user}'s cursor with {with} ends as {cursor:?}, below {confirmed:?}"
                        );
                        findings.add(what, [entry.at]);
                    }
                    let head = index
                        .history(user, with)
                        .and_then(|(_, history)| history.last());
                    if head.is_some_and(|head| cursor.delivered.max(cursor.read) > head.seq) {
                        let what = format!(
                            "{user}'s cursor with {with} ends as {cursor:?}, above the head"
                        );
                        findings.add(what, [entry.at]);
                    }
                }
            }
            _ => {}
        }
    }
}

fn check_head(
    index: &Index<'_>,
    (user, peer, cursor): (&str, &str, Cursor),
    at: u64,
    session: SessionNumber,
    findings: &mut Findings,
) {
    let Some((_, connect)) = index.connects.get(&session) else {
        return;
    };
    if let Some((_, history)) = index.history(&connect.user, peer) {
        let head = history.last().map_or(0, |last| last.seq);
        if cursor.delivered.max(cursor.read) > head {
            findings.add(
                format!("session {session} is told {user}'s cursor {cursor:?} with {peer}, above the head {head}"),
                [at],
            );
        }
    }
}

/// What is known of stored cursors, by user and peer.
#[derive(Default)]
struct Stored<'a> {
    confirmed: BTreeMap<(&'a String, &'a String), Cursor>,
    /// What each move must reach: what it asks for, and what was stored before.
    floors: BTreeMap<(u64, Option<SessionNumber>, &'a String), Cursor>,
    /// What each session was shown, by peer and user.
    shown: BTreeMap<(SessionNumber, &'a String, &'a String), Cursor>,
}

impl<'a> Stored<'a> {
    fn asked(&mut self, asked: &'a CursorMove) {
        let confirmed = self.confirmed.get(&(&asked.user, &asked.peer));
        let floor = confirmed.copied().unwrap_or_default().max(asked.cursor);
        self.floors
            .insert((asked.number, asked.session, &asked.peer), floor);
    }

    /// Takes what was stored; returns what it must reach.
    fn stored(&mut self, stored: &'a CursorMove) -> Cursor {
        let confirmed = self
            .confirmed
            .entry((&stored.user, &stored.peer))
            .or_default();
        *confirmed = confirmed.max(stored.cursor);
        let key = (stored.number, stored.session, &stored.peer);
        self.floors.get(&key).copied().unwrap_or_default()
    }
}

/// In the end every session that is still open has been told of every stored
/// advance: the other user's, and the own user's by other devices.
pub(super) fn receipts_told(index: &Index<'_>, findings: &mut Findings) {
    let mut replay = Replay::new(index);
    let mut last: BTreeMap<(&str, &str), (u64, [Cursor; 2])> = BTreeMap::new();
    for entry in index.entries {
        if let Event::Cursors {
            reader,
            peer,
            own,
            other,
        } = &entry.event
        {
            last.insert((reader, peer), (entry.at, [*own, *other]));
        }
        if let Event::End { open } = &entry.event {
            for session in open {
                let Some(seen) = replay.session(*session) else {
                    continue;
                };
                let user = seen.connect.user.as_str();
                for ((_, peer), (at, [own, other])) in last.iter().filter(|((r, _), _)| *r == user)
                {
                    for (whose, cursor) in [(user, own), (*peer, other)] {
                        let told = replay.told(*session, peer, whose);
                        if !told.covers(*cursor) {
                            findings.add(
                                format!("session {session} of {user} was told {told:?} of {whose}'s cursor with {peer}, which is {cursor:?}"),
                                [*at, entry.at],
                            );
                        }
                    }
                }
            }
        }
        replay.step(entry);
    }
}

/// When a session is told that it has caught up, it was told of every cursor that
/// was known to be stored before its `Hello` was sent.
pub(super) fn receipts_told_at_sync(index: &Index<'_>, findings: &mut Findings) {
    let mut replay = Replay::new(index);
    for entry in index.entries {
        if let Event::CaughtUp { session, .. } = &entry.event
            && let Some(seen) = replay.session(*session)
            && seen.connect.door != Door::Client
        {
            for ((peer, user), cursor) in &seen.confirmed {
                let told = replay.told(*session, peer, user);
                if !told.covers(*cursor) {
                    findings.add(
                        format!("session {session} has caught up, told {told:?} of {user}'s cursor with {peer}, which is {cursor:?}"),
                        [entry.at],
                    );
                }
            }
        }
        replay.step(entry);
    }
}
