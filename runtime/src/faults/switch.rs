//! What is planted in this process, told by its environment:
//! `DUOLOGUE_PLANT=<mutant>`, and `DUOLOGUE_KILL_AT=<point>:<n>` to be killed the
//! n-th time that the point is passed.

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

pub(super) fn planted() -> Option<Mutant> {
    *PLANTED
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
