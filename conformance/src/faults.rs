//! How hard a fault has struck: one that met nothing under way shows nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::Event;
use crate::record::Record;

/// What one fault met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Struck {
    /// What was done.
    pub what: String,
    /// Messages that were sent and had no answer then.
    pub unanswered: usize,
    /// Those of them that were answered as duplicates later: they had been stored,
    /// and the fault took the answer.
    pub duplicates: usize,
}

/// What each [`Event::Kill`] of a record met, in order.
pub fn struck(record: &Record) -> Vec<Struck> {
    let mut open: BTreeSet<(&str, &str)> = BTreeSet::new();
    let mut kills: Vec<(&str, BTreeSet<(&str, &str)>)> = Vec::new();
    let mut duplicates: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for entry in &record.entries {
        match &entry.event {
            Event::Send(send) => {
                open.insert((&send.user, &send.message_id));
            }
            Event::Stored(stored) => {
                let key = (stored.user.as_str(), stored.message_id.as_str());
                // Only the first answer tells what became of the try before it.
                if open.remove(&key) && stored.duplicate {
                    duplicates.insert(key, kills.len());
                }
            }
            Event::Rejected(refused) | Event::Deferred(refused) => {
                open.remove(&(refused.user.as_str(), refused.message_id.as_str()));
            }
            Event::Kill { what } => kills.push((what, open.clone())),
            Event::Begin { .. }
            | Event::Connect(_)
            | Event::Welcome { .. }
            | Event::CaughtUp { .. }
            | Event::Goodbye { .. }
            | Event::Stopped { .. }
            | Event::Disconnect { .. }
            | Event::Abandon { .. }
            | Event::Unanswered(_)
            | Event::Delivered { .. }
            | Event::CursorAsked(_)
            | Event::CursorStored(_)
            | Event::CursorRefused(_)
            | Event::Receipt { .. }
            | Event::Heal
            | Event::Restless { .. }
            | Event::History { .. }
            | Event::Cursors { .. }
            | Event::End { .. } => {}
        }
    }
    let met = kills.iter().enumerate().map(|(number, (what, open))| {
        let after = |key: &&(&str, &str)| duplicates.get(*key).is_some_and(|by| *by > number);
        Struck {
            what: (*what).to_owned(),
            unanswered: open.len(),
            duplicates: open.iter().filter(after).count(),
        }
    });
    met.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Send, Stored};

    fn send(id: &str) -> Event {
        Event::Send(Send {
            try_number: 1,
            lane: 1,
            session: Some(1),
            user: "alice".into(),
            peer: "bob".into(),
            message_id: id.into(),
            after_seq: None,
            body: 0,
        })
    }

    fn stored(id: &str, duplicate: bool) -> Event {
        Event::Stored(Stored {
            try_number: None,
            session: Some(1),
            user: "alice".into(),
            peer: "bob".into(),
            message_id: id.into(),
            seq: 1,
            duplicate,
            accepted_at: 0,
        })
    }

    fn kill() -> Event {
        Event::Kill {
            what: "SIGKILL".into(),
        }
    }

    #[test]
    fn a_kill_is_said_to_have_met_what_had_no_answer() {
        let record = Record::of([
            kill(),
            send("m1"),
            stored("m1", false),
            send("m2"),
            send("m3"),
            kill(),
            send("m2"),
            stored("m2", true),
            stored("m3", false),
        ]);
        let struck = struck(&record);
        let met: Vec<_> = struck
            .iter()
            .map(|s| (s.unanswered, s.duplicates))
            .collect();
        assert_eq!(met, [(0, 0), (2, 1)]);
    }
}
