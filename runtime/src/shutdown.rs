//! How a process ends: first it leaves, then it drains, then it stops.
//!
//! Leaving means: say that no calls are wanted, and serve as before until those who
//! choose have noticed. Draining means: take no new work, finish what is under way,
//! hand clients on. Both together may take the grace period; whoever is not done then
//! is cut off.

use std::sync::atomic::{AtomicBool, Ordering};
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

/// The stages of an ending process. Clones share them.
#[derive(Debug, Clone)]
pub struct Shutdown {
    leaving: CancellationToken,
    draining: CancellationToken,
    stopped: CancellationToken,
    began: Arc<OnceLock<Instant>>,
    drains: Arc<AtomicBool>,
    delay: Duration,
    grace: Duration,
}

impl Shutdown {
    /// A process that runs, and will have this long to end.
    pub fn new(grace: Duration) -> Self {
        Self {
            leaving: CancellationToken::new(),
            draining: CancellationToken::new(),
            stopped: CancellationToken::new(),
            began: Arc::default(),
            drains: Arc::default(),
            delay: Duration::ZERO,
            grace,
        }
    }

    /// For so long after a signal it serves as before. It is a part of the grace period.
    #[must_use]
    pub fn delayed(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Begins to leave. Only the first call counts.
    fn leave(&self) {
        self.began.get_or_init(Instant::now);
        self.leaving.cancel();
    }

    /// Begins to drain, without a delay. Only the first call counts.
    pub fn trigger(&self) {
        self.leave();
        self.drains.store(true, Ordering::Release);
        self.draining.cancel();
    }

    /// Stops without waiting for the rest of the grace period.
    pub fn stop(&self) {
        self.trigger();
        self.stopped.cancel();
    }

    /// Whether it leaves, or drains.
    pub fn is_leaving(&self) -> bool {
        self.began.get().is_some()
    }

    /// Whether draining has begun. Cheap enough to be asked for every read of a
    /// connection, unlike the futures below.
    pub fn is_draining(&self) -> bool {
        self.drains.load(Ordering::Acquire)
    }

    /// A time, or half of what is left until whoever is not done is cut off, if that is
    /// less.
    pub fn within(&self, time: Duration) -> Duration {
        let gone = self.began.get().map_or(Duration::ZERO, Instant::elapsed);
        time.min(self.grace.saturating_sub(gone) / 2)
    }

    /// How long the process has to end.
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// Ends when the process begins to leave.
    pub fn leaving(&self) -> impl Future<Output = ()> + Send + use<> {
        self.leaving.clone().cancelled_owned()
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

    /// With the first SIGTERM or SIGINT the process leaves, and after the delay it
    /// drains; the second one ends it at once.
    pub fn install_signals(&self) -> std::io::Result<JoinHandle<()>> {
        let signals = signals()?;
        Ok(crate::task::spawn(
            "signals",
            self.clone()
                .follow(signals, |code| std::process::exit(code)),
        ))
    }

    async fn grace_over(&self) {
        self.leaving.cancelled().await;
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
            delay_seconds = self.delay.as_secs(),
            grace_seconds = self.grace.as_secs(),
            "draining; a second signal ends the process at once"
        );
        self.leave();
        let draining = async {
            if !self.delay.is_zero() {
                tokio::time::sleep(self.delay).await;
            }
            self.trigger();
        };
        let ending = async {
            if let Some(signal) = signals.next().await {
                tracing::warn!(signal, "ending at once");
                exit(EXIT_CODE_AT_ONCE);
            }
        };
        tokio::join!(draining, ending);
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

    #[tokio::test(start_paused = true)]
    async fn it_serves_on_for_the_delay_which_is_a_part_of_the_grace_period() {
        let (sender, receiver) = tokio::sync::mpsc::channel(2);
        let signals = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let shutdown = Shutdown::new(Duration::from_secs(20)).delayed(Duration::from_secs(15));
        let code = Cell::new(None);
        let mut follow = Box::pin(shutdown.clone().follow(signals, |it| code.set(Some(it))));
        let began = Instant::now();
        sender.send("SIGTERM").await.unwrap();
        assert!((&mut follow).now_or_never().is_none());
        assert!(shutdown.leaving().now_or_never().is_some());
        assert!(shutdown.is_leaving() && !shutdown.is_draining());

        tokio::select! {
            () = shutdown.draining() => {}
            () = &mut follow => panic!("it follows the second signal, too"),
        }
        assert_eq!(began.elapsed().as_secs(), 15);
        assert!(shutdown.is_draining());
        let [short, long] = [1, 60].map(|secs| shutdown.within(Duration::from_secs(secs)));
        assert_eq!((short.as_secs_f32(), long.as_secs_f32()), (1.0, 2.5));
        shutdown.stopped().await;
        assert_eq!(began.elapsed().as_secs(), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_does_not_wait_for_the_delay() {
        let signals = futures_util::stream::iter(["SIGTERM", "SIGTERM"]);
        let shutdown = Shutdown::new(Duration::from_secs(20)).delayed(Duration::from_secs(15));
        let code = Cell::new(None);
        let mut follow = Box::pin(shutdown.follow(signals, |it| code.set(Some(it))));
        assert!((&mut follow).now_or_never().is_none());
        assert_eq!(code.get(), Some(EXIT_CODE_AT_ONCE));
    }
}
