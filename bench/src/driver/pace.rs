//! Sends by the clock: when each is due, whatever became of those before.

use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::net::unix::pipe::Receiver;

/// How often it is looked what is due. tokio's own timers know milliseconds only,
/// which is longer than what is measured.
const TICK: Duration = Duration::from_micros(200);

/// Evenly spaced times, in microseconds.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    start: f64,
    /// Between two sends.
    every: f64,
    planned: u32,
}

impl Schedule {
    /// So many per second, the first at `start`.
    pub(super) fn new(start: u32, rate: f64) -> Self {
        Self {
            start: f64::from(start),
            every: 1e6 / rate,
            planned: 0,
        }
    }

    /// The time of the next send, once it has come.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not above `now`, which is a u32"
    )]
    pub(super) fn next(&mut self, now: u32) -> Option<u32> {
        let due = self.start + self.every * f64::from(self.planned);
        (due <= f64::from(now)).then(|| {
            self.planned += 1;
            due as u32
        })
    }
}

/// What wakes a connection every [`TICK`]: a timer of the kernel, which is read like
/// a pipe.
#[derive(Debug)]
pub(super) struct Ticks(Receiver);

impl Ticks {
    pub(super) fn new() -> Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        let tick = Timespec {
            tv_sec: 0,
            tv_nsec: TICK.subsec_nanos().into(),
        };
        let ever = Itimerspec {
            it_interval: tick,
            it_value: tick,
        };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &ever)?;
        Ok(Self(Receiver::from_owned_fd_unchecked(timer)?))
    }

    pub(super) async fn next(&self) -> Result<()> {
        self.0.readable().await?;
        match self.0.try_read(&mut [0; 8]) {
            Ok(_) => Ok(()),
            // Not ready after all: what is due is looked at all the same.
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error).context("a timer failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sends_are_due_evenly_and_what_is_late_keeps_its_time() {
        let mut schedule = Schedule::new(1_000, 2_000.0);
        assert_eq!(schedule.next(999), None);
        assert_eq!(schedule.next(1_400), Some(1_000));
        assert_eq!(schedule.next(1_400), None);
        // A stall: all that fell due meanwhile, each at its own time.
        let due: Vec<u32> = std::iter::from_fn(|| schedule.next(3_100)).collect();
        assert_eq!(due, [1_500, 2_000, 2_500, 3_000]);
    }

    #[test]
    fn a_schedule_keeps_its_rate_for_long() {
        let mut schedule = Schedule::new(0, 70_001.0);
        let due = std::iter::from_fn(|| schedule.next(10_000_000)).count();
        assert!((700_010..=700_011).contains(&due), "{due}");
    }
}
