//! When what breaks, and when it is whole again: decided by the seed before the
//! simulation begins. Everything is whole before clients come to rest.

use std::time::Duration;

use crate::Options;
use crate::dice::Dice;
use crate::faults::Fault;

/// Between two faults of the server, and of one link.
const SERVER_PAUSE_MILLIS: (u64, u64) = (800, 4_000);
const LINK_PAUSE_MILLIS: (u64, u64) = (1_000, 6_000);
/// How long the server is down.
const DOWN_MILLIS: (u64, u64) = (20, 1_200);
/// How long a server goes on whose disk has failed.
const FAILED_MILLIS: (u64, u64) = (200, 1_500);
/// How long a sync may stall, and how rarely one stalls for longer than a put may
/// wait.
const STALL_MILLIS: (u64, u64) = (200, 3_000);
const LONG_STALL: Duration = Duration::from_secs(11);
const LONG_STALL_PERCENT: u64 = 10;
/// How far the clock is set: mostly by seconds, sometimes over whole windows.
const STEP_MILLIS: (u64, u64) = (100, 20_000);
const LONG_STEP_MILLIS: (u64, u64) = (600_000, 1_500_000);
const LONG_STEP_PERCENT: u64 = 30;
/// How long a link is broken.
const BROKEN_MILLIS: (u64, u64) = (50, 3_000);
const SLOW_MILLIS: (u64, u64) = (100, 600);

/// Something to do at some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) at: Duration,
    pub(crate) act: Act,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    /// A fault strikes.
    Strike(Strike),
    /// The server starts again.
    Start,
    /// The server ends because its disk has failed.
    End,
    /// The link of this machine of clients is whole.
    Mend { device: usize, fault: Fault },
}

/// How a fault strikes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Strike {
    pub(crate) fault: Fault,
    /// Whose link.
    pub(crate) device: usize,
    /// By how much: how long a sync stalls, how far the clock is set, how slow the
    /// link is.
    pub(crate) by: Duration,
}

/// Everything that breaks, in order.
pub(crate) fn schedule(seed: u64, options: &Options) -> Vec<Due> {
    let (link, server): (Vec<_>, Vec<_>) = options
        .faults
        .iter()
        .copied()
        .partition(|fault| fault.is_of_link());
    let mut plan = Plan {
        dice: Dice::new(seed, "faults"),
        end: options.wild,
        due: Vec::new(),
    };
    plan.server(&server);
    for device in 0..options.devices {
        plan.link(device, &link);
    }
    plan.due.sort_by_key(|due| due.at);
    plan.due
}

struct Plan {
    dice: Dice,
    end: Duration,
    due: Vec<Due>,
}

impl Plan {
    fn server(&mut self, faults: &[Fault]) {
        let mut at = Duration::ZERO;
        while let Some(fault) = self.dice.pick(faults) {
            at += self.dice.millis(SERVER_PAUSE_MILLIS);
            let (by, down_at, up_at) = self.server_fault(fault, at);
            if up_at >= self.end {
                return;
            }
            let device = 0;
            self.add(at, Act::Strike(Strike { fault, device, by }));
            if let Some(down_at) = down_at {
                self.add(down_at, Act::End);
            }
            if matches!(fault, Fault::Crash | Fault::FailedSync) {
                self.add(up_at, Act::Start);
            }
            at = up_at;
        }
    }

    /// By how much a fault strikes that begins at `at`, when it ends the server, if
    /// that is later, and when it is over.
    fn server_fault(&self, fault: Fault, at: Duration) -> (Duration, Option<Duration>, Duration) {
        let dice = &self.dice;
        match fault {
            Fault::Crash => (Duration::ZERO, None, at + dice.millis(DOWN_MILLIS)),
            Fault::FailedSync => {
                let down_at = at + dice.millis(FAILED_MILLIS);
                let up_at = down_at + dice.millis(DOWN_MILLIS);
                (Duration::ZERO, Some(down_at), up_at)
            }
            Fault::StalledSync => {
                let by = if dice.percent(LONG_STALL_PERCENT) {
                    LONG_STALL
                } else {
                    dice.millis(STALL_MILLIS)
                };
                (by, None, at + by)
            }
            Fault::ClockForward | Fault::ClockBack => {
                let by = if dice.percent(LONG_STEP_PERCENT) {
                    dice.millis(LONG_STEP_MILLIS)
                } else {
                    dice.millis(STEP_MILLIS)
                };
                (by, None, at)
            }
            Fault::Partition | Fault::LostUp | Fault::LostDown | Fault::Hold | Fault::SlowLink => {
                (Duration::ZERO, None, at)
            }
        }
    }

    fn link(&mut self, device: usize, faults: &[Fault]) {
        let mut at = Duration::ZERO;
        while let Some(fault) = self.dice.pick(faults) {
            at += self.dice.millis(LINK_PAUSE_MILLIS);
            let mended_at = at + self.dice.millis(BROKEN_MILLIS);
            if mended_at >= self.end {
                return;
            }
            let by = self.dice.millis(SLOW_MILLIS);
            self.add(at, Act::Strike(Strike { fault, device, by }));
            self.add(mended_at, Act::Mend { device, fault });
            at = mended_at;
        }
    }

    fn add(&mut self, at: Duration, act: Act) {
        self.due.push(Due { at, act });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_decides_what_breaks() {
        let options = Options::default();
        assert_eq!(schedule(1, &options), schedule(1, &options));
        assert_ne!(schedule(1, &options), schedule(2, &options));
    }

    #[test]
    fn everything_is_whole_in_the_end() {
        let options = Options::default();
        for seed in 0..200 {
            let (mut up, mut broken) = (true, BTreeSet::new());
            for due in schedule(seed, &options) {
                assert!(due.at < options.wild);
                match due.act {
                    Act::Strike(strike) if strike.fault == Fault::Crash => up = false,
                    Act::Strike(strike) if strike.fault.is_of_link() => {
                        assert!(broken.insert((strike.device, strike.fault)));
                    }
                    Act::Strike(_) => {}
                    Act::End => up = false,
                    Act::Start => up = true,
                    Act::Mend { device, fault } => {
                        assert!(broken.remove(&(device, fault)));
                    }
                }
            }
            assert!(up && broken.is_empty(), "seed {seed}");
        }
    }

    #[test]
    fn only_what_is_asked_for_breaks() {
        let options = Options {
            faults: vec![Fault::Hold],
            ..Options::default()
        };
        let strikes = schedule(1, &options);
        assert!(!strikes.is_empty());
        for due in strikes {
            let is_hold = match due.act {
                Act::Strike(strike) => strike.fault == Fault::Hold,
                Act::Mend { fault, .. } => fault == Fault::Hold,
                Act::Start | Act::End => false,
            };
            assert!(is_hold);
        }
    }
}
