//! Wakes a session's task when something was put where it looks: its inbox, or the
//! outbox that has room again.
//!
//! One for both, and without a lock: it is asked and told for every message.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use futures_util::task::AtomicWaker;

/// A flag that one task waits for. Raised several times before it is seen, it is
/// seen once.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    raised: AtomicBool,
    waiter: AtomicWaker,
}

impl Signal {
    /// Wakes the task, now or when it next waits.
    pub(crate) fn raise(&self) {
        self.raised.store(true, Ordering::SeqCst);
        self.waiter.wake();
    }

    /// Waits until it is raised, and lowers it.
    pub(crate) async fn raised(&self) {
        poll_fn(|context| {
            if self.lower() {
                return Poll::Ready(());
            }
            self.waiter.register(context.waker());
            // It may have been raised before the waker was in place.
            if self.lower() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    fn lower(&self) -> bool {
        self.raised.swap(false, Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn what_was_raised_before_is_seen_once() {
        let signal = Signal::default();
        signal.raise();
        signal.raise();
        signal.raised().await;
        assert!(signal.raised().now_or_never().is_none());
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let signal = Signal::default();
        let waiting = signal.raised();
        let raising = async { signal.raise() };
        tokio::join!(biased; waiting, raising);
    }
}
