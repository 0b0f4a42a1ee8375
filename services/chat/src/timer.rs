//! A session's one timer.
//!
//! A session's next deadline moves with nearly every frame, mostly further away. A
//! timer that is set anew each time costs more than the frame, so this one is only
//! ever moved nearer; when it goes off too early, it is set again.

use std::pin::Pin;

use tokio::time::{Instant, Sleep};

/// Goes off at a deadline, or before; never after.
pub(crate) struct Timer {
    /// None until there was a deadline.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    pub(crate) fn new() -> Self {
        Self { sleep: None }
    }

    /// Waits for the deadline; for ever if there is none. What was waited before is
    /// not lost when it is dropped and called again.
    pub(crate) async fn reach(&mut self, deadline: Option<Instant>) {
        let Some(deadline) = deadline else {
            return std::future::pending().await;
        };
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
        }
        loop {
            sleep.as_mut().await;
            if sleep.deadline() >= deadline {
                return;
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_goes_off_at_the_last_deadline_given() {
        let start = Instant::now();
        let after = |seconds| Some(start + Duration::from_secs(seconds));
        let mut timer = Timer::new();
        for seconds in [10, 20, 5, 7] {
            assert!(timer.reach(after(seconds)).now_or_never().is_none());
        }
        timer.reach(after(7)).await;
        assert_eq!(start.elapsed(), Duration::from_secs(7));
        timer.reach(after(9)).await;
        assert_eq!(start.elapsed(), Duration::from_secs(9));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_deadline_it_never_goes_off() {
        let mut timer = Timer::new();
        let waited = tokio::time::timeout(Duration::from_mins(1), timer.reach(None));
        assert!(waited.await.is_err());
    }
}
