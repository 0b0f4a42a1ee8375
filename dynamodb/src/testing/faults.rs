//! Which request meets which fault.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use duologue_runtime::clock::{RandomExt as _, SeededRandom};

use super::engine::MAX_LATE;

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    Pass,
    /// It arrives so much later, and its answer then. Requests that are under way
    /// together so overtake one another.
    Delay(Duration),
    /// The connection fails before anything is applied.
    FailBefore,
    /// It is applied, and the connection fails before the answer.
    LoseReply,
    /// It is refused for load.
    Throttle,
    /// It is refused, with this code.
    Refuse(&'static str),
    /// The answer is an error of DynamoDB's; it may have been applied.
    ServerError {
        /// Whether it was.
        applied: bool,
    },
    /// Neither applied nor answered.
    Hang,
    /// Not answered, and applied so much later, when its sender has given up.
    Late(Duration),
}

/// The faults of one connector.
#[derive(Debug, Default)]
pub struct Faults {
    /// By operation, before all others.
    planned: Mutex<VecDeque<(&'static str, Fault)>>,
    chaos: Option<Chaos>,
}

#[derive(Debug)]
struct Chaos {
    random: SeededRandom,
    per_thousand: u64,
}

impl Faults {
    /// None but those that are planned.
    pub fn none() -> Self {
        Self::default()
    }

    /// Of a thousand requests so many meet a fault of any kind, and every other one
    /// takes up to 20 ms.
    pub fn seeded(seed: u64, per_thousand: u64) -> Self {
        Self {
            planned: Mutex::default(),
            chaos: Some(Chaos {
                random: SeededRandom::new(seed),
                per_thousand,
            }),
        }
    }

    /// What the next requests of an operation meet, in order.
    pub fn plan(&self, operation: &'static str, faults: impl IntoIterator<Item = Fault>) {
        let faults = faults.into_iter().map(|fault| (operation, fault));
        self.planned().extend(faults);
    }

    /// What a request meets.
    pub(super) fn next(&self, operation: &str) -> Fault {
        let mut planned = self.planned();
        let place = planned.iter().position(|(of, _)| *of == operation);
        if let Some((_, fault)) = place.and_then(|place| planned.remove(place)) {
            return fault;
        }
        self.chaos.as_ref().map_or(Fault::Pass, Chaos::next)
    }

    /// A number below `limit`; 0 without a seed.
    pub(super) fn below(&self, limit: u64) -> u64 {
        self.chaos.as_ref().map_or(0, |chaos| chaos.below(limit))
    }

    fn planned(&self) -> MutexGuard<'_, VecDeque<(&'static str, Fault)>> {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Chaos {
    fn below(&self, limit: u64) -> u64 {
        self.random.number() % limit.max(1)
    }

    fn next(&self) -> Fault {
        let millis = |limit| Duration::from_millis(self.below(limit));
        if self.below(1_000) >= self.per_thousand {
            return match self.below(2) {
                0 => Fault::Pass,
                _ => Fault::Delay(millis(20)),
            };
        }
        match self.below(9) {
            0 => Fault::FailBefore,
            1 | 2 => Fault::LoseReply,
            3 => Fault::Throttle,
            4 => Fault::ServerError {
                applied: self.below(2) == 0,
            },
            5 => Fault::Hang,
            6 => Fault::Delay(millis(1_500)),
            _ => {
                let most = u64::try_from(MAX_LATE.as_millis()).unwrap_or(u64::MAX);
                Fault::Late(millis(most))
            }
        }
    }
}
