//! The record: every event of a run in the order in which it was observed.
//!
//! It must not judge. Many tasks write to one [`Recorder`]; its lock gives the
//! order. A record can be saved as JSON lines, one event each, and read again.

use std::io::{self, BufRead, BufReader, BufWriter, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::event::Event;

/// An event and its number, which rises in the order of observation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The number.
    pub at: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// In order of [`Entry::at`].
    pub entries: Vec<Entry>,
}

/// A record that cannot be saved or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file system refused.
    #[error("the record cannot be read or written: {0}")]
    Io(#[from] io::Error),
    /// A line that is no event.
    #[error("line {line} of the record is no event: {source}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// Events that are not in their order.
    #[error("line {line} of the record is not in order")]
    Order {
        /// Counted from 1.
        line: usize,
    },
}

impl Record {
    /// A record of these events in this order.
    pub fn of(events: impl IntoIterator<Item = Event>) -> Self {
        let entries = (1..).zip(events);
        Self {
            entries: entries.map(|(at, event)| Entry { at, event }).collect(),
        }
    }

    /// Writes the record, one event per line.
    pub fn save(&self, file: &Path) -> Result<(), RecordError> {
        let mut file = BufWriter::new(std::fs::File::create(file)?);
        for entry in &self.entries {
            serde_json::to_writer(&mut file, entry).map_err(io::Error::from)?;
            file.write_all(b"\n")?;
        }
        Ok(file.flush()?)
    }

    /// Reads a record that was saved.
    pub fn load(file: &Path) -> Result<Self, RecordError> {
        let mut entries: Vec<Entry> = Vec::new();
        let lines = BufReader::new(std::fs::File::open(file)?).lines();
        for (line, text) in (1..).zip(lines) {
            let entry: Entry = serde_json::from_str(&text?)
                .map_err(|source| RecordError::Line { line, source })?;
            if entries.last().is_some_and(|last| last.at >= entry.at) {
                return Err(RecordError::Order { line });
            }
            entries.push(entry);
        }
        Ok(Self { entries })
    }
}

/// Where all clients of a run write; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    record: Record,
    last_at: u64,
    last_number: u64,
}

impl Recorder {
    /// Writes down what happens; returns its number.
    pub fn note(&self, event: Event) -> u64 {
        let mut state = self.lock();
        state.last_at += 1;
        let at = state.last_at;
        state.record.entries.push(Entry { at, event });
        at
    }

    /// Keeps the present place for an event that is known only later.
    pub fn reserve(&self) -> u64 {
        let mut state = self.lock();
        state.last_at += 1;
        state.last_at
    }

    /// Writes down what happened at a place that was kept.
    pub fn note_at(&self, at: u64, event: Event) {
        let entries = &mut self.lock().record.entries;
        let place = entries.partition_point(|entry| entry.at < at);
        entries.insert(place, Entry { at, event });
    }

    /// A number that was not given before: for sessions, lanes, tries and moves.
    pub fn number(&self) -> u64 {
        let mut state = self.lock();
        state.last_number += 1;
        state.last_number
    }

    /// What is written by now.
    pub fn record(&self) -> Record {
        self.lock().record.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic leaves a place unused at worst, so the record is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Cursor;

    fn record() -> Record {
        Record::of([
            Event::Begin {
                seed: u64::MAX,
                mode: "stubs".into(),
            },
            Event::Welcome { session: 7 },
            Event::Receipt {
                session: 7,
                peer: "bob".into(),
                user: "bob".into(),
                cursor: Cursor {
                    delivered: 3,
                    read: 2,
                },
            },
            Event::Heal,
        ])
    }

    #[test]
    fn a_saved_record_is_read_again_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("record.jsonl");
        record().save(&file).unwrap();
        assert_eq!(Record::load(&file).unwrap(), record());
    }

    #[test]
    fn a_damaged_record_is_refused_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("record.jsonl");
        std::fs::write(&file, "{\"at\":1,\"event\":\"heal\"}\nnonsense\n").unwrap();
        let error = Record::load(&file).unwrap_err();
        assert!(
            matches!(error, RecordError::Line { line: 2, .. }),
            "{error}"
        );
    }

    #[test]
    fn a_record_out_of_order_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("record.jsonl");
        let line = "{\"at\":1,\"event\":\"heal\"}\n";
        std::fs::write(&file, format!("{line}{line}")).unwrap();
        let error = Record::load(&file).unwrap_err();
        assert!(matches!(error, RecordError::Order { line: 2 }), "{error}");
    }

    #[test]
    fn events_are_numbered_in_the_order_of_observation() {
        let recorder = Recorder::default();
        assert!(recorder.note(Event::Heal) < recorder.clone().note(Event::Heal));
        assert_eq!(recorder.record().entries.len(), 2);
    }

    #[test]
    fn an_event_that_is_known_later_has_the_place_that_was_kept() {
        let recorder = Recorder::default();
        let at = recorder.reserve();
        recorder.note(Event::Heal);
        recorder.note_at(at, Event::Welcome { session: 1 });
        let events = recorder.record().entries.into_iter();
        let events: Vec<_> = events.map(|entry| entry.event).collect();
        assert_eq!(events, [Event::Welcome { session: 1 }, Event::Heal]);
    }
}
