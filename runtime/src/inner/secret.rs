//! A secret that the services of a system share, read from a file and read again
//! when it changes.
//!
//! It protects who may call, not what is said: the network must be private.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderValue;

use crate::files::read_at_most;

/// The shortest secret, in bytes.
pub const MIN_SECRET_BYTES: usize = 32;
/// Secrets accepted at the same time, so that they can be changed.
pub const MAX_SECRETS: usize = 2;
/// Longest file of secrets, in bytes.
pub const MAX_SECRET_FILE_BYTES: u64 = 4 * 1024;

/// A file that holds no usable secret. The text shows nothing of it.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file does not hold what it should.
    #[error(
        "{}: must hold one secret, or two while it is being changed (the first is sent, both are \
         accepted), each on a line of its own, of at least {MIN_SECRET_BYTES} visible ASCII \
         characters", file.display()
    )]
    Unusable {
        /// The file.
        file: PathBuf,
    },
}

/// The secrets in use.
pub(super) struct SharedSecret {
    file: PathBuf,
    current: Mutex<Secrets>,
    /// What could not be used, to be told once.
    refused: Mutex<Option<String>>,
}

#[derive(Clone, PartialEq, Eq)]
struct Secrets {
    sent: HeaderValue,
    /// Of equal length whatever the secret's, so that comparing tells nothing.
    accepted: Vec<Vec<u8>>,
}

impl SharedSecret {
    pub(super) fn load(file: PathBuf) -> Result<Self, SecretError> {
        let current = Mutex::new(Secrets::read(&file)?);
        Ok(Self {
            file,
            current,
            refused: Mutex::new(None),
        })
    }

    /// What to send as `authorization`.
    pub(super) fn header(&self) -> HeaderValue {
        self.current().sent.clone()
    }

    /// Whether this is one of the secrets; it takes as long as if it were not.
    pub(super) fn is_one(&self, given: &str) -> bool {
        let given = hash(given);
        let matches = |secret: &Vec<u8>| verify_slices_are_equal(secret, &given).is_ok();
        // Not `any`, which stops at the first.
        let accepted = &self.current().accepted;
        accepted
            .iter()
            .fold(false, |is_one, it| matches(it) | is_one)
    }

    /// Whether there were new secrets, which are in use now. A file that cannot
    /// be used is told once.
    pub(super) fn reload(&self) -> Result<bool, SecretError> {
        let read = Secrets::read(&self.file);
        let problem = read.as_ref().err().map(ToString::to_string);
        {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            let is_known = problem.is_some() && *refused == problem;
            *refused = problem;
            if is_known {
                return Ok(false);
            }
        }
        let read = read?;
        let mut current = self.current();
        let is_new = *current != read;
        *current = read;
        Ok(is_new)
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Secrets> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedSecret").field(&self.file).finish()
    }
}

impl Secrets {
    fn read(file: &Path) -> Result<Self, SecretError> {
        let bytes = read_at_most(file, MAX_SECRET_FILE_BYTES).map_err(|source| {
            SecretError::Unreadable {
                file: file.to_owned(),
                source,
            }
        })?;
        let text = std::str::from_utf8(&bytes).ok();
        text.and_then(Self::parse)
            .ok_or_else(|| SecretError::Unusable {
                file: file.to_owned(),
            })
    }

    fn parse(text: &str) -> Option<Self> {
        let lines = text.lines().map(str::trim);
        let secrets: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
        let is_secret = |secret: &&str| {
            secret.len() >= MIN_SECRET_BYTES && secret.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if secrets.len() > MAX_SECRETS || !secrets.iter().all(is_secret) {
            return None;
        }
        let mut sent = HeaderValue::try_from(format!("Bearer {}", secrets.first()?)).ok()?;
        // HTTP/2 keeps it out of its tables, and `Debug` does not show it.
        sent.set_sensitive(true);
        let accepted = secrets.iter().map(|secret| hash(secret)).collect();
        Some(Self { sent, accepted })
    }
}

fn hash(secret: &str) -> Vec<u8> {
    digest(&SHA256, secret.as_bytes()).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "old-0123456789abcdef0123456789abcdef";
    const NEW: &str = "new-0123456789abcdef0123456789abcdef";

    fn of(text: &str) -> (tempfile::TempDir, Result<SharedSecret, SecretError>) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, text).unwrap();
        (dir, SharedSecret::load(file))
    }

    #[test]
    fn of_two_secrets_the_first_is_sent_and_both_are_accepted() {
        let secret = of(&format!("{NEW}\n{OLD}\n")).1.unwrap();
        assert_eq!(secret.header(), format!("Bearer {NEW}"));
        assert!(secret.is_one(NEW) && secret.is_one(OLD));
        for wrong in ["", &NEW[1..], &NEW[..NEW.len() - 1], &format!("{NEW}x")] {
            assert!(!secret.is_one(wrong), "{wrong}");
        }
    }

    #[test]
    fn what_is_short_or_too_many_is_refused_without_being_shown() {
        let three = format!("{OLD}\n{NEW}\n{OLD}x");
        let short = &OLD[..MIN_SECRET_BYTES - 1];
        let (spaced, control) = (format!("{OLD} x"), format!("{OLD}\u{7f}"));
        for text in ["", "\n\n", short, &three, &spaced, &control] {
            let error = of(text).1.unwrap_err().to_string();
            assert!(error.contains("at least 32"), "{error}");
            assert!(!error.contains("0123456789"), "{error}");
        }
    }

    #[test]
    fn a_new_secret_is_taken_and_a_bad_file_is_told_once() {
        let (dir, secret) = of(OLD);
        let secret = secret.unwrap();
        let write = |text: &str| std::fs::write(dir.path().join("secret"), text).unwrap();
        assert!(!secret.reload().unwrap());
        write("short");
        assert!(secret.reload().is_err());
        assert!(!secret.reload().unwrap());
        assert!(secret.is_one(OLD));
        write(&format!("{NEW}\n{OLD}"));
        assert!(secret.reload().unwrap());
        assert!(secret.is_one(OLD) && secret.is_one(NEW));
        write(NEW);
        assert!(secret.reload().unwrap());
        assert!(!secret.is_one(OLD) && secret.is_one(NEW));
    }

    #[test]
    fn no_debug_shows_the_secret() {
        let secret = of(OLD).1.unwrap();
        let shown = format!("{secret:?} {:?}", secret.header());
        assert!(!shown.contains("0123456789"), "{shown}");
    }
}
