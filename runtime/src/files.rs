//! Reading small configuration files, and reading them again when they change.

use std::fmt;
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// How often files that may change are looked at.
pub(crate) const RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// Looks at files every [`RELOAD_INTERVAL`] for as long as it is polled. `reload`
/// says whether something new is in use; what cannot be used is logged, and the
/// one before stays.
pub(crate) async fn keep_fresh<E: fmt::Display + Send + 'static>(
    what: &'static str,
    reload: impl Fn() -> Result<bool, E> + Send + Sync + 'static,
) {
    let reload = Arc::new(reload);
    loop {
        sleep(RELOAD_INTERVAL).await;
        let reload = Arc::clone(&reload);
        match spawn_blocking(move || reload()).await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => tracing::info!(what, "replaced by what the files hold now"),
            Ok(Err(error)) => {
                tracing::error!(what, %error, "the files cannot be used, keeping what was there");
            }
            // The runtime is shutting down.
            Err(_) => return,
        }
    }
}

/// All of a file, which must not have more than `max` bytes.
pub(crate) fn read_at_most(file: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut opened = std::fs::File::open(file)?.take(max.saturating_add(1));
    opened.read_to_end(&mut bytes)?;
    if opened.limit() == 0 {
        let error = format!("the file is longer than {max} bytes");
        return Err(io::Error::new(ErrorKind::FileTooLarge, error));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_exactly_the_limit_is_read_and_one_byte_more_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, b"1234").unwrap();
        assert_eq!(read_at_most(&file, 4).unwrap(), b"1234");
        let error = read_at_most(&file, 3).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
    }
}
