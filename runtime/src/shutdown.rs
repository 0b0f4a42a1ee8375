//! How a process ends: first it drains, then it stops.
//!
//! Draining means: take no new work, finish what is under way, hand clients on.
//! It may take the grace period; whoever is not done then is cut off.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The grace period, unless configured otherwise.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(20);

/// The exit code of a process that was told twice to end.
pub const EXIT_CODE_AT_ONCE: i32 = 130;

/// The two stages of an ending process. Clones share them.
#[derive(Debug, Clone)]
pub struct Shutdown {
    draining: CancellationToken,
    stopped: CancellationToken,
    began: Arc<OnceLock<Instant>>,
    grace: Duration,
}

impl Shutdown {
    /// A process that runs, and will have this long to drain.
    pub fn new(grace: Duration) -> Self {
        Self {
            draining: CancellationToken::new(),
            stopped: CancellationToken::new(),
            began: Arc::default(),
            grace,
        }
    }

    /// Begins to drain. Only the first call counts.
    pub fn trigger(&self) {
        self.began.get_or_init(Instant::now);
        self.draining.cancel();
    }

    /// Stops without waiting for the rest of the grace period.
    pub fn stop(&self) {
        self.trigger();
        self.stopped.cancel();
    }

    /// Whether draining has begun. Cheap enough to be asked for every read of a
    /// connection, unlike the futures below.
    pub fn is_draining(&self) -> bool {
        self.began.get().is_some()
    }

    /// How long the process has to drain.
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// Ends when draining begins.
    pub fn draining(&self) -> impl Future<Output = ()> + Send + use<> {
        self.draining.clone().cancelled_owned()
    }

    /// Ends when the grace period is over, or at [`Shutdown::stop`].
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let this = self.clone();
        async move {
            tokio::select! {
                biased;
                () = this.stopped.cancelled() => {}
                () = this.grace_over() => {}
            }
        }
    }

    /// The first SIGTERM or SIGINT begins to drain; the second ends the process
    /// at once.
    pub fn install_signals(&self) -> std::io::Result<JoinHandle<()>> {
        let signals = signals()?;
        Ok(crate::task::spawn(
            "signals",
            self.clone()
                .follow(signals, |code| std::process::exit(code)),
        ))
    }

    async fn grace_over(&self) {
        self.draining.cancelled().await;
        let began = *self.began.get_or_init(Instant::now);
        tokio::time::sleep_until(began + self.grace).await;
    }

    async fn follow(self, signals: impl Stream<Item = &'static str>, exit: impl FnOnce(i32)) {
        let mut signals = std::pin::pin!(signals);
        let Some(signal) = signals.next().await else {
            return;
        };
        tracing::info!(
            signal,
            grace_seconds = self.grace.as_secs(),
            "draining; a second signal ends the process at once"
        );
        self.trigger();
        if let Some(signal) = signals.next().await {
            tracing::warn!(signal, "ending at once");
            exit(EXIT_CODE_AT_ONCE);
        }
    }
}

#[cfg(unix)]
fn signals() -> std::io::Result<impl Stream<Item = &'static str>> {
    use tokio::signal::unix::{SignalKind, signal};

    let terminate = signal(SignalKind::terminate())?;
    let interrupt = signal(SignalKind::interrupt())?;
    let both = (terminate, interrupt);
    Ok(futures_util::stream::unfold(both, |mut both| async {
        tokio::select! {
            biased;
            signal = both.0.recv() => signal.map(|()| ("SIGTERM", both)),
            signal = both.1.recv() => signal.map(|()| ("SIGINT", both)),
        }
    }))
}

#[cfg(not(unix))]
fn signals() -> std::io::Result<impl Stream<Item = &'static str>> {
    Ok(futures_util::stream::unfold((), |()| async {
        tokio::signal::ctrl_c().await.ok().map(|()| ("ctrl-c", ()))
    }))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn stops_when_the_grace_period_is_over_and_not_before() {
        let shutdown = Shutdown::new(Duration::from_secs(20));
        let (mut draining, mut stopped) =
            (Box::pin(shutdown.draining()), Box::pin(shutdown.stopped()));
        assert!((&mut draining).now_or_never().is_none());
        shutdown.trigger();
        draining.await;
        let began = Instant::now();
        tokio::time::advance(Duration::from_secs(19)).await;
        assert!((&mut stopped).now_or_never().is_none());
        // A second call must not begin the grace period anew.
        shutdown.trigger();
        stopped.await;
        assert_eq!(began.elapsed().as_secs(), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_does_not_wait_for_the_grace_period() {
        let shutdown = Shutdown::new(Duration::from_secs(20));
        shutdown.stop();
        assert!(shutdown.is_draining());
        assert!(shutdown.stopped().now_or_never().is_some());
    }

    #[tokio::test]
    async fn the_first_signal_drains_and_the_second_exits() {
        let (sender, receiver) = tokio::sync::mpsc::channel(2);
        let signals = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let (shutdown, code) = (Shutdown::new(DEFAULT_GRACE), Cell::new(None));
        let mut follow = Box::pin(
            shutdown
                .clone()
                .follow(signals, |exited| code.set(Some(exited))),
        );
        assert!((&mut follow).now_or_never().is_none());
        assert!(!shutdown.is_draining());

        sender.send("SIGTERM").await.unwrap();
        assert!((&mut follow).now_or_never().is_none());
        assert!(shutdown.is_draining());
        assert_eq!(code.get(), None);

        sender.send("SIGTERM").await.unwrap();
        follow.await;
        assert_eq!(code.get(), Some(EXIT_CODE_AT_ONCE));
    }
}
