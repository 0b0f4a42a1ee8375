//! How much of everything happened, over one seed or many. What never happened is
//! not proven.

use std::collections::BTreeMap;

use conformance::driver::Behaviour;
use conformance::event::Event;
use conformance::faults;
use conformance::record::Record;

use crate::faults::Fault;

/// How often a fault struck, and what it met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// How often.
    pub times: usize,
    /// Messages that were sent and had no answer then.
    pub unanswered: usize,
    /// Those of them that were found to be stored later.
    pub duplicates: usize,
}

/// How much of everything happened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// How often each behaviour of the driver that must happen did.
    pub behaviours: BTreeMap<Behaviour, u64>,
    /// What each kind of fault met.
    pub faults: BTreeMap<Fault, Count>,
    /// Events recorded.
    pub events: usize,
    /// Tries of messages.
    pub sends: usize,
    /// Syncs of the disk.
    pub syncs: u64,
    /// Groups that were written and not synced, and lost in a crash.
    pub lost_groups: u64,
    /// Virtual time, in milliseconds.
    pub millis: u128,
}

impl Tally {
    /// Counts what a record shows.
    pub(crate) fn of(record: &Record, behaviours: BTreeMap<Behaviour, u64>) -> Self {
        let sends = record
            .entries
            .iter()
            .filter(|entry| matches!(entry.event, Event::Send(_)));
        let mut tally = Self {
            behaviours,
            events: record.entries.len(),
            sends: sends.count(),
            ..Self::default()
        };
        for struck in faults::struck(record) {
            let kind = Fault::ALL.iter().find(|fault| fault.name() == struck.what);
            if let Some(fault) = kind {
                let count = tally.faults.entry(*fault).or_default();
                count.times += 1;
                count.unanswered += struck.unanswered.len();
                count.duplicates += struck.duplicates;
            }
        }
        tally
    }

    /// Adds what another seed has shown.
    pub fn add(&mut self, other: &Self) {
        for (behaviour, count) in &other.behaviours {
            *self.behaviours.entry(*behaviour).or_default() += count;
        }
        for (fault, count) in &other.faults {
            let sum = self.faults.entry(*fault).or_default();
            sum.times += count.times;
            sum.unanswered += count.unanswered;
            sum.duplicates += count.duplicates;
        }
        self.events += other.events;
        self.sends += other.sends;
        self.syncs += other.syncs;
        self.lost_groups += other.lost_groups;
        self.millis += other.millis;
    }

    /// What never happened, of all that the driver does and of these faults: with
    /// any, a batch of seeds is void. A fault must have met sends without an answer.
    pub fn missing(&self, faults: &[Fault]) -> Vec<String> {
        let behaviours = self.behaviours.iter().filter(|(_, count)| **count == 0);
        let behaviours = behaviours.map(|(behaviour, _)| format!("{behaviour:?}"));
        let met = |fault: &Fault| self.faults.get(fault).is_some_and(|c| c.unanswered > 0);
        let faults = faults.iter().filter(|fault| !met(fault));
        let faults = faults.map(|fault| fault.name().to_owned());
        behaviours.chain(faults).collect()
    }
}
