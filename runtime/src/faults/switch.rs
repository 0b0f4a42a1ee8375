//! What is planted, told by the environment of the process: `DUOLOGUE_PLANT=<mutant>`,
//! and `DUOLOGUE_KILL_AT=<point>:<n>` to be killed the n-th time that the point is
//! passed. A test that runs everything on its own thread plants there instead.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Mutant, Point};

/// How long an answer has to leave the process, which nobody else is told of.
const LINGER: Duration = Duration::from_millis(5);

static PLANTED: LazyLock<Option<Mutant>> = LazyLock::new(|| {
    let name = read("DUOLOGUE_PLANT")?;
    let mutant = Mutant::ALL.iter().find(|mutant| mutant.name() == name);
    assert!(mutant.is_some(), "there is no mutant {name}");
    mutant.copied()
});

thread_local! {
    static PLANTED_HERE: Cell<Option<Mutant>> = const { Cell::new(None) };
}

static KILL_AT: LazyLock<Option<(Point, u64)>> = LazyLock::new(|| {
    let told = read("DUOLOGUE_KILL_AT")?;
    let parsed = told.split_once(':').and_then(|(name, count)| {
        let point = Point::ALL.iter().find(|point| point.name() == name)?;
        Some((*point, count.parse().ok()?))
    });
    assert!(parsed.is_some(), "{told} is no point and number");
    parsed
});

/// How often the point to be killed at was passed.
static PASSED: AtomicU64 = AtomicU64::new(0);

/// A fault is planted on this thread, as long as this is kept.
#[derive(Debug)]
#[must_use = "the fault is gone with it"]
pub struct Plant {
    before: Option<Mutant>,
    /// It belongs to its thread.
    _thread: PhantomData<*const ()>,
}

/// Plants a fault in whatever runs on this thread.
pub fn plant(mutant: Mutant) -> Plant {
    Plant {
        before: PLANTED_HERE.replace(Some(mutant)),
        _thread: PhantomData,
    }
}

impl Drop for Plant {
    fn drop(&mut self) {
        PLANTED_HERE.set(self.before);
    }
}

pub(super) fn planted() -> Option<Mutant> {
    PLANTED_HERE.get().or(*PLANTED)
}

pub(super) fn pass(point: Point) {
    if let Some((at, count)) = *KILL_AT
        && at == point
        && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == count
    {
        if point == Point::Answered {
            // The answer is on its way; it is another thread that sends it.
            std::thread::sleep(LINGER);
        }
        // Nothing is flushed, dropped or answered any more.
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // Until the signal has arrived nothing else is done here.
        loop {
            std::thread::park();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a build for tests only")]
fn read(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_planted_on_a_thread_is_there_as_long_as_it_is_kept() {
        let mutant = Mutant::NoSlack;
        let kept = plant(mutant);
        assert_eq!(planted(), Some(mutant));
        assert_eq!(std::thread::spawn(planted).join().unwrap(), None);
        drop(kept);
        assert_eq!(planted(), None);
    }
}
