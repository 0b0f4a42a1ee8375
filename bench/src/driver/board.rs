//! What all connections of the driver write down together.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::Instant;

use crate::histogram::Histogram;

/// Bytes of one read.
const READ_BYTES: usize = 256 * 1024;
/// Where the user stands in a message id, above the message's number.
const USER_SHIFT: u32 = 40;

/// How far the load is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Messages are sent, nothing is noted.
    Warm,
    /// The times of messages are noted.
    Measured,
    /// No further message falls due.
    Ending,
}

/// The counts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) stored: u64,
    pub(crate) delivered: u64,
    /// Own messages that were shown to their sender, which a client takes for an
    /// answer too: they were read from history, because they came out of order.
    pub(crate) echoed: u64,
}

/// Written by every connection, all on one thread.
pub(super) struct Board {
    pub(super) buffer: RefCell<Vec<u8>>,
    started: Instant,
    now: Cell<u32>,
    phase: Cell<Phase>,
    entered: Cell<usize>,
    counts: Cell<Counts>,
    /// Messages of one user that may be in flight: a power of two.
    in_flight: usize,
    /// Per user, when its last messages fell due, in microseconds.
    due_at: Vec<Cell<u32>>,
    pub(super) to_stored: RefCell<Histogram>,
    pub(super) to_delivered: RefCell<Histogram>,
    /// From when a message fell due to when the driver looked.
    pub(super) late: RefCell<Histogram>,
}

impl Board {
    pub(super) fn new(users: usize, in_flight: usize) -> Self {
        Self {
            buffer: RefCell::new(vec![0; READ_BYTES]),
            started: Instant::now(),
            now: Cell::new(0),
            phase: Cell::new(Phase::Warm),
            entered: Cell::new(0),
            counts: Cell::default(),
            in_flight,
            due_at: vec![Cell::new(0); users * in_flight],
            to_stored: RefCell::default(),
            to_delivered: RefCell::default(),
            late: RefCell::default(),
        }
    }

    /// Looks at the clock: once per read, which is what the driver notes.
    pub(super) fn tick(&self) {
        let micros = self.started.elapsed().as_micros();
        self.now.set(u32::try_from(micros).unwrap_or(u32::MAX));
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The time of the last look at the clock.
    pub(super) fn now(&self) -> u32 {
        self.now.get()
    }

    /// Whether messages still fall due.
    pub(super) fn goes_on(&self) -> bool {
        self.phase.get() != Phase::Ending
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.phase.set(phase);
    }

    pub(super) fn entered(&self) {
        self.entered.set(self.entered.get() + 1);
    }

    /// Users that were told that they have caught up.
    pub(super) fn users_entered(&self) -> usize {
        self.entered.get()
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts.get()
    }

    /// Notes that a message falls due.
    pub(super) fn due(&self, user: usize, number: u64, at: u32) {
        self.due_at[self.slot(user, number)].set(at);
    }

    /// Notes how late the driver is with a message that was due by the clock.
    pub(super) fn planned(&self, at: u32) {
        if self.phase.get() == Phase::Measured {
            self.late.borrow_mut().add(self.since(at));
        }
    }

    /// Notes a send; returns its id.
    pub(super) fn sent(&self, user: usize, number: u64) -> u64 {
        self.count(|counts| counts.sent += 1);
        (user as u64) << USER_SHIFT | number
    }

    /// Notes an acknowledgement.
    pub(super) fn stored(&self, user: usize, id: u64) -> Result<()> {
        ensure!(id >> USER_SHIFT == user as u64, "an answer to another user");
        self.count(|counts| counts.stored += 1);
        self.note(user, id, &self.to_stored);
        Ok(())
    }

    /// Notes a delivery.
    pub(super) fn delivered(&self, user: usize, id: u64) -> Result<()> {
        let sender = usize::try_from(id >> USER_SHIFT)?;
        if sender == user {
            self.count(|counts| counts.echoed += 1);
            return Ok(());
        }
        ensure!(sender == user ^ 1, "a message of another pair");
        self.count(|counts| counts.delivered += 1);
        self.note(sender, id, &self.to_delivered);
        Ok(())
    }

    fn note(&self, sender: usize, id: u64, times: &RefCell<Histogram>) {
        if self.phase.get() == Phase::Measured {
            let due_at = self.due_at[self.slot(sender, id)].get();
            times.borrow_mut().add(self.since(due_at));
        }
    }

    fn since(&self, at: u32) -> Duration {
        Duration::from_micros(self.now.get().saturating_sub(at).into())
    }

    fn slot(&self, user: usize, number: u64) -> usize {
        let within = usize::try_from(number & (self.in_flight as u64 - 1)).unwrap_or(0);
        user * self.in_flight + within
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }
}
