//! What kills have met, counted by kind. It kills nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Result, bail, ensure};
use conformance::event::{Event, MessageId, User};
use conformance::faults::struck;
use conformance::record::Record;
use duologue_client::UnixMillis;

/// Runs of one kind, until they have met what they must: kills may all come at a quiet
/// moment.
pub(super) const TRIES: u64 = 3;

/// What runs with one seed after another have met, once that is enough.
pub(super) async fn until_enough(
    seed: u64,
    mut run: impl AsyncFnMut(u64) -> Result<Tally>,
    ensure_enough: impl Fn(&Tally) -> Result<()>,
) -> Result<Tally> {
    let mut all = run(seed).await?;
    for again in 1..TRIES {
        if ensure_enough(&all).is_ok() {
            break;
        }
        all.add(run(seed.wrapping_add(10 * again)).await?);
    }
    ensure_enough(&all)?;
    Ok(all)
}

/// What kills met, by kind.
#[derive(Default)]
pub(super) struct Tally(BTreeMap<String, Met>);

#[derive(Default)]
struct Met {
    kills: usize,
    /// Kills that met anything.
    counted: usize,
    unanswered: usize,
    /// What had been stored nevertheless, by the server's own time.
    stored: usize,
    /// What was answered as a duplicate later; for a client, also what it was shown
    /// before its second answer.
    duplicates: usize,
}

impl Tally {
    /// What the kills of a run met, after which servers had ended then: each is in every
    /// record.
    pub(super) fn of(records: &[Record], deaths: &[UnixMillis]) -> Result<Self> {
        let mut tally = Self::default();
        for record in records {
            tally.take(record, deaths)?;
        }
        Ok(tally)
    }

    fn take(&mut self, record: &Record, deaths: &[UnixMillis]) -> Result<()> {
        let struck = struck(record);
        ensure!(struck.len() == deaths.len(), "kills without a time");
        let stored = accepted(record);
        for (struck, death) in struck.iter().zip(deaths) {
            let by_then = |message: &&(User, MessageId)| {
                let accepted = stored.get(&(message.0.as_str(), message.1.as_str()));
                accepted.is_some_and(|accepted| *accepted <= death.0)
            };
            let met = self.0.entry(struck.what.clone()).or_default();
            met.add(&Met {
                kills: 1,
                counted: usize::from(!struck.unanswered.is_empty()),
                unanswered: struck.unanswered.len(),
                stored: struck.unanswered.iter().filter(by_then).count(),
                duplicates: struck.duplicates,
            });
        }
        Ok(())
    }

    pub(super) fn add(&mut self, other: Self) {
        for (what, met) in other.0 {
            self.0.entry(what).or_default().add(&met);
        }
    }

    /// How many have met anything.
    pub(super) fn counted(&self) -> usize {
        self.0.values().map(|met| met.counted).sum()
    }

    /// Fails unless every one of these kinds has met something.
    pub(super) fn ensure_met<'a>(&self, kinds: impl IntoIterator<Item = &'a str>) -> Result<()> {
        self.ensure(kinds, |met| met.counted > 0)
    }

    /// Fails unless every one of these kinds has met something and taken an answer.
    pub(super) fn ensure_no_zero<'a>(
        &self,
        kinds: impl IntoIterator<Item = &'a str>,
    ) -> Result<()> {
        self.ensure(kinds, |met| {
            met.counted > 0 && met.stored > 0 && met.duplicates > 0
        })
    }

    fn ensure<'a>(
        &self,
        kinds: impl IntoIterator<Item = &'a str>,
        shows: impl Fn(&Met) -> bool,
    ) -> Result<()> {
        for kind in kinds {
            if !self.0.get(kind).is_some_and(&shows) {
                bail!("kills {kind} show nothing: {self}");
            }
        }
        Ok(())
    }
}

impl Met {
    fn add(&mut self, other: &Self) {
        self.kills += other.kills;
        self.counted += other.counted;
        self.unanswered += other.unanswered;
        self.stored += other.stored;
        self.duplicates += other.duplicates;
    }
}

/// When each message of the final histories was accepted.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "other events are no histories"
)]
fn accepted(record: &Record) -> BTreeMap<(&str, &str), u64> {
    let histories = record
        .entries
        .iter()
        .filter_map(|entry| match &entry.event {
            Event::History { messages, .. } => Some(messages),
            _ => None,
        });
    let mut accepted = BTreeMap::new();
    for message in histories.flatten() {
        let key = (message.sender.as_str(), message.message_id.as_str());
        accepted.insert(key, message.accepted_at);
    }
    accepted
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::new();
        for (what, met) in &self.0 {
            let between = if text.is_empty() { "" } else { "; " };
            write!(
                text,
                "{between}{} {what}: {} met {} sends without an answer, of which {} were stored; \
                 {} retries were duplicates",
                met.kills, met.counted, met.unanswered, met.stored, met.duplicates
            )?;
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [&str; 2] = ["one", "other"];

    fn tally(kind: &str, counted: usize, duplicates: usize) -> Tally {
        let met = Met {
            kills: 1,
            counted,
            unanswered: counted,
            stored: counted,
            duplicates,
        };
        Tally(BTreeMap::from([(kind.to_owned(), met)]))
    }

    #[test]
    fn a_kind_that_met_nothing_voids_all() {
        let mut all = Tally::default();
        for kind in KINDS {
            assert!(all.ensure_no_zero(KINDS).is_err());
            all.add(tally(kind, 0, 0));
            all.add(tally(kind, 1, 1));
        }
        all.ensure_no_zero(KINDS).unwrap();
        assert_eq!(all.counted(), KINDS.len());
    }

    #[test]
    fn a_kind_without_a_duplicate_voids_all() {
        let mut all = tally("one", 1, 1);
        assert!(all.ensure_met(KINDS).is_err());
        all.add(tally("other", 1, 0));
        all.ensure_met(KINDS).unwrap();
        assert!(all.ensure_no_zero(KINDS).is_err());
    }
}
