//! What sessions are shown: each message once and in order, from where catch-up
//! should start, up to everything; and nothing to strangers.

use super::Findings;
use super::index::Index;
use super::replay::Replay;
use crate::event::{Door, Event};

/// Within a session no message is shown twice, and none is shown after a later one
/// or past a gap. Own messages that the session was told to be stored fill gaps.
pub(super) fn shown_once_in_order(index: &Index<'_>, findings: &mut Findings) {
    let mut replay = Replay::new(index);
    for entry in index.entries {
        if let Event::Delivered { session, envelope } = &entry.event
            && let Some(seen) = replay.session(*session)
            && let peer = envelope.peer_of(&seen.connect.user)
            && let Some(line) = replay.line(*session, peer)
            && line.has_begun()
        {
            let seq = envelope.seq;
            if line.delivered.contains(&seq) {
                let what = format!("session {session} is shown {seq} with {peer} twice");
                findings.add(what, [entry.at]);
            } else if seq < line.last {
                let what = format!(
                    "session {session} is shown {seq} with {peer} after {}",
                    line.last
                );
                findings.add(what, [entry.at]);
            } else if let Some(gap) = line.gap(line.last, seq) {
                let what = format!("session {session} is shown {seq} with {peer} without {gap}");
                findings.add(what, [entry.at]);
            }
        }
        replay.step(entry);
    }
}

/// The first message that a session is shown follows where catch-up starts: at the
/// position named, at the token's, at the user's delivered cursor.
pub(super) fn no_gap_from_start(index: &Index<'_>, findings: &mut Findings) {
    let mut replay = Replay::new(index);
    for entry in index.entries {
        if let Event::Delivered { session, envelope } = &entry.event
            && let Some(seen) = replay.session(*session)
            && let peer = envelope.peer_of(&seen.connect.user)
            && let line = replay.line(*session, peer)
            && line.is_none_or(|line| !line.has_begun())
        {
            let seq = envelope.seq;
            let start = replay.start(*session, peer);
            let gap = match line {
                Some(line) => line.gap(start, seq),
                None => (start.saturating_add(1) < seq).then(|| start.saturating_add(1)),
            };
            if let Some(gap) = gap {
                let what = format!("session {session} begins with {seq} of {peer}, without {gap}");
                findings.add(what, [entry.at]);
            }
            let connect = seen.connect;
            let cursor = seen.confirmed.get(&(peer, connect.user.as_str()));
            let floor = match connect.positions.get(peer) {
                Some(position) => *position,
                None if connect.door == Door::Client || !connect.token.is_empty() => 0,
                None => cursor.map_or(0, |cursor| cursor.delivered),
            };
            if seq <= floor {
                let what =
                    format!("session {session} starts after {floor} of {peer} and is shown {seq}");
                findings.add(what, [entry.at]);
            }
        }
        replay.step(entry);
    }
}

/// When a session is told that it has caught up, it has been shown everything that
/// was known to be stored before its `Hello` was sent.
pub(super) fn caught_up_true(index: &Index<'_>, findings: &mut Findings) {
    let mut replay = Replay::new(index);
    for entry in index.entries {
        if let Event::CaughtUp { session, .. } = &entry.event
            && let Some(seen) = replay.session(*session)
        {
            for (peer, (head, known_at)) in &seen.heads {
                if let Some(missing) = replay.missing(*session, peer, *head) {
                    findings.add(
                        format!(
                            "session {session} has caught up without {missing} of {peer}, of {head}"
                        ),
                        [*known_at, entry.at],
                    );
                }
            }
        }
        replay.step(entry);
    }
}

/// In the end every session that is still open has been shown everything.
pub(super) fn eventually_caught_up(index: &Index<'_>, findings: &mut Findings) {
    let mut replay = Replay::new(index);
    for entry in index.entries {
        if let Event::End { open } = &entry.event {
            for session in open {
                let Some(seen) = replay.session(*session) else {
                    continue;
                };
                let user = seen.connect.user.as_str();
                for peer in index.peers.get(user).into_iter().flatten() {
                    let Some((read_at, history)) = index.history(user, peer) else {
                        continue;
                    };
                    let head = history.last().map_or(0, |last| last.seq);
                    if let Some(missing) = replay.missing(*session, peer, head) {
                        findings.add(
                            format!("session {session} of {user} ends without {missing} of {peer}, of {head}"),
                            [read_at, entry.at],
                        );
                    }
                }
            }
        }
        replay.step(entry);
    }
}

/// Whatever a session is shown belongs to a conversation of its user.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "other events have nothing to do with this"
)]
pub(super) fn nothing_to_strangers(index: &Index<'_>, findings: &mut Findings) {
    for entry in index.entries {
        let (session, of) = match &entry.event {
            Event::Delivered { session, envelope } => {
                (session, [envelope.sender.as_str(), &envelope.recipient])
            }
            Event::Receipt {
                session,
                peer,
                user,
                ..
            } => {
                let connect = index.connects.get(session);
                let owner = connect.map_or(peer.as_str(), |(_, connect)| &connect.user);
                if user != peer && user != owner {
                    let what = format!("session {session} is told of {user}'s cursor with {peer}");
                    findings.add(what, [entry.at]);
                }
                continue;
            }
            Event::History {
                reader, messages, ..
            } => {
                let strange =
                    |e: &&crate::event::Envelope| e.sender != *reader && e.recipient != *reader;
                if let Some(envelope) = messages.iter().find(strange) {
                    findings.add(format!("{reader} reads {envelope:?}"), [entry.at]);
                }
                continue;
            }
            _ => continue,
        };
        if let Some((_, connect)) = index.connects.get(session)
            && !of.contains(&connect.user.as_str())
        {
            let what = format!(
                "{} is shown a message of {} to {}",
                connect.user, of[0], of[1]
            );
            findings.add(what, [entry.at]);
        }
    }
}
