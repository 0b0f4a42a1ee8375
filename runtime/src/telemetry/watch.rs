//! Looking at what is logged, in a test beside others.

use tracing::Dispatch;
use tracing::dispatcher::{DefaultGuard, set_default};
use tracing::subscriber::NoSubscriber;

/// What this thread logs goes to one subscriber, as long as this is kept.
#[derive(Debug)]
#[must_use = "it watches as long as it is kept"]
pub struct Watch {
    _default: DefaultGuard,
    _other: Dispatch,
}

/// Makes a subscriber the default of this thread, whatever other threads do: for tests.
///
/// While a process has a single subscriber, a callsite is on or off by what the thread
/// that comes to it first has for a default, and stays so. A test on another thread,
/// which has none, would turn it off for all; so there is a second one here, which
/// wants nothing.
pub fn watch(subscriber: impl Into<Dispatch>) -> Watch {
    let other = Dispatch::new(NoSubscriber::default());
    Watch {
        _default: set_default(&subscriber.into()),
        _other: other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_thread_came_to_first_is_logged_too() {
        let _watch = watch(tracing_subscriber::registry());
        let is_logged = || tracing::enabled!(tracing::Level::INFO);
        let elsewhere = std::thread::scope(|scope| scope.spawn(is_logged).join());
        assert!(!elsewhere.unwrap());
        assert!(is_logged());
    }
}
