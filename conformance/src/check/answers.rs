//! What single answers claim, and how sessions end.

use std::collections::BTreeMap;

use super::Findings;
use super::index::{Index, Message};
use crate::event::Event;

/// Of all answers to one message at most one says "not a duplicate"; one that says
/// "duplicate" had another try before it; and all name one place.
pub(super) fn duplicate_flag_truthful(index: &Index<'_>, findings: &mut Findings) {
    for ((sender, id), message) in &index.messages {
        let first = message.stored.first();
        for (at, stored) in &message.stored {
            if let Some((first_at, first)) = first
                && first.seq != stored.seq
            {
                let what = format!(
                    "{sender}'s {id} is answered as {} and as {}",
                    first.seq, stored.seq
                );
                findings.add(what, [*first_at, *at]);
            }
        }
        let fresh = message
            .stored
            .iter()
            .filter(|(_, stored)| !stored.duplicate);
        let fresh: Vec<u64> = fresh.map(|(at, _)| *at).collect();
        if fresh.len() > 1 {
            findings.add(
                format!("{sender}'s {id} was stored anew more than once"),
                fresh,
            );
        }
        judge_tries(sender, id, message, findings);
    }
}

fn judge_tries(sender: &str, id: &str, message: &Message<'_>, findings: &mut Findings) {
    let first_answer = message.stored.first().map(|(at, _)| *at);
    for (at, stored) in &message.stored {
        // A client that tries by itself does not say which try was answered.
        let of_try = |number| {
            message
                .sends
                .iter()
                .find(|(_, send)| send.try_number == number)
        };
        let Some((sent_at, _)) = stored.try_number.and_then(of_try) else {
            continue;
        };
        let tries = message.sends.iter().filter(|(sent, _)| sent < at).count();
        if stored.duplicate && tries < 2 {
            findings.add(
                format!("the only try of {sender}'s {id} is called a duplicate"),
                [*at],
            );
        }
        if !stored.duplicate && first_answer.is_some_and(|answered| answered < *sent_at) {
            findings.add(
                format!(
                    "{sender}'s {id} was sent again after its answer and is not called a duplicate"
                ),
                [*sent_at, *at],
            );
        }
    }
}

/// Nothing follows a goodbye.
pub(super) fn goodbye_is_last(index: &Index<'_>, findings: &mut Findings) {
    let mut ended: BTreeMap<u64, u64> = BTreeMap::new();
    for entry in index.entries {
        let session = match &entry.event {
            Event::Goodbye { session, .. } => {
                if let Some(before) = ended.insert(*session, entry.at) {
                    findings.add(
                        format!("session {session} said goodbye twice"),
                        [before, entry.at],
                    );
                }
                continue;
            }
            Event::Welcome { session }
            | Event::CaughtUp { session, .. }
            | Event::Delivered { session, .. }
            | Event::Receipt { session, .. } => *session,
            Event::Stored(stored) => stored.session.unwrap_or_default(),
            Event::Begin { .. }
            | Event::Connect(_)
            | Event::Stopped { .. }
            | Event::Disconnect { .. }
            | Event::Send(_)
            | Event::Abandon { .. }
            | Event::Rejected(_)
            | Event::Deferred(_)
            | Event::Unanswered(_)
            | Event::CursorAsked(_)
            | Event::CursorStored(_)
            | Event::CursorRefused(_)
            | Event::Frozen { .. }
            | Event::Thawed { .. }
            | Event::Kill { .. }
            | Event::Heal
            | Event::Restless { .. }
            | Event::History { .. }
            | Event::Cursors { .. }
            | Event::End { .. } => continue,
        };
        if let Some(goodbye) = ended.get(&session) {
            findings.add(
                format!("session {session} goes on after its goodbye"),
                [*goodbye, entry.at],
            );
        }
    }
}

/// The Rust client, whose tokens are renewed, never says that it cannot go on.
pub(super) fn client_goes_on(index: &Index<'_>, findings: &mut Findings) {
    for entry in index.entries {
        if let Event::Stopped { session, reason } = &entry.event {
            findings.add(
                format!("client {session} has stopped: {reason}"),
                [entry.at],
            );
        }
    }
}

/// In the end every client has a session and every answer that it waits for.
pub(super) fn everything_settles(index: &Index<'_>, findings: &mut Findings) {
    for entry in index.entries {
        if let Event::Restless { settled, clients } = &entry.event {
            findings.add(
                format!("only {settled} of {clients} clients have settled"),
                [entry.at],
            );
        }
    }
}
