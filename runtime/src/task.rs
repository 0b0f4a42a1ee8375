//! The one place where tasks are spawned, so that each has a name and none
//! panics unseen.
//!
//! It must not log what a panic says: the text may hold a message or a token.

use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};

use futures_util::FutureExt as _;
use tokio::task::JoinHandle;

/// Spawns a task. A panic in it is logged under `name`, and then told to whoever
/// joins the task.
#[track_caller]
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    // What the task captured is dropped with it; nothing half-changed is seen
    // but what is shared, and shared state ignores poisoning on purpose.
    let guarded = AssertUnwindSafe(future).catch_unwind();
    // Not an async block, which would hold the future twice: there are many tasks.
    let watched = guarded.map(move |ended| match ended {
        Ok(output) => output,
        Err(panic) => {
            tracing::error!(task.name = name, "task panicked");
            resume_unwind(panic)
        }
    });
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the owner of spawned tasks"
    )]
    tokio::spawn(watched)
}

/// Makes every panic of the process a log line with its place in the code and
/// without its text. The standard hook would print the text.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        let location = info.location();
        tracing::error!(
            code.file.path = location.map(std::panic::Location::file),
            code.line.number = location.map(std::panic::Location::line),
            "panicked"
        );
    }));
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_task_hands_over_its_output() {
        assert_eq!(spawn("adder", async { 1 + 1 }).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_panic_is_logged_with_its_task_and_place_and_without_its_text() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .finish();
        let watch = crate::telemetry::watch(subscriber);
        let hook = std::panic::take_hook();
        log_panics();
        let ended = spawn("faulty", async { panic!("secret text") }).await;
        std::panic::set_hook(hook);
        drop(watch);
        let ended: Result<(), _> = ended;
        assert!(ended.unwrap_err().is_panic());
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(log.contains("task panicked") && log.contains("faulty"));
        assert!(log.contains("task.rs"));
        assert!(!log.contains("secret"), "{log}");
    }
}
