//! Where the client's state is kept: a port, and its two engines.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::saved::Saved;

/// Keeps one [`Saved`]. Calls may block: the client makes them off its async
/// threads, one at a time.
pub trait Persistence: Send + 'static {
    /// What was saved last; none if nothing ever was.
    fn load(&mut self) -> Result<Option<Saved>, PersistenceError>;

    /// Replaces what was saved. When it returns, a crash of the process or the
    /// machine leaves the new state; if it fails, the old or the new one.
    fn save(&mut self, state: &Saved) -> Result<(), PersistenceError>;
}

/// Why state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PersistenceError {
    /// Another process uses the file.
    #[error("{path} is in use by another process; give each device a file of its own")]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read as what this version writes. It is left as it is.
    #[error("{path} is not a state file of this version: {detail}; move it away to start anew")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong, without any of its content.
        detail: String,
    },
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// An engine of the application's own failed.
    #[error("{0}")]
    Other(String),
}

/// Keeps nothing beyond the process: unsent messages are lost with it.
#[derive(Debug, Default)]
pub struct MemoryPersistence {
    state: Option<Saved>,
}

impl Persistence for MemoryPersistence {
    fn load(&mut self) -> Result<Option<Saved>, PersistenceError> {
        Ok(self.state.clone())
    }

    fn save(&mut self, state: &Saved) -> Result<(), PersistenceError> {
        self.state = Some(state.clone());
        Ok(())
    }
}

/// Keeps the state in one JSON file, readable by its owner only. The file is
/// replaced as a whole (write beside it, sync, rename, sync the directory), and
/// locked against a second process for as long as this value lives.
#[derive(Debug)]
pub struct FilePersistence {
    path: PathBuf,
    directory: PathBuf,
    /// Held, not read.
    _lock: File,
}

/// The format of the file; a file of another one is refused.
const FORMAT: u32 = 1;

#[derive(Serialize)]
struct FileOut<'a> {
    format: u32,
    state: &'a Saved,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileIn {
    format: u32,
    state: Saved,
}

impl FilePersistence {
    /// Opens and locks `path`; its directory is made if it does not exist.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, PersistenceError> {
        let path = path.into();
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            Some(_) | None => PathBuf::from("."),
        };
        std::fs::create_dir_all(&directory).map_err(|source| io(&directory, source))?;
        // A file of its own: the state file is replaced, and a lock with it.
        let lock_path = beside(&path, "lock");
        let lock = private()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|source| io(&lock_path, source))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path,
                directory,
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(PersistenceError::Locked { path }),
            Err(TryLockError::Error(source)) => Err(io(&lock_path, source)),
        }
    }

    fn corrupt(&self, detail: String) -> PersistenceError {
        PersistenceError::Corrupt {
            path: self.path.clone(),
            detail,
        }
    }

    fn write(&self, bytes: &[u8], temporary: &Path) -> std::io::Result<()> {
        let mut file = private()
            .create(true)
            .truncate(true)
            .write(true)
            .open(temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        drop(file);
        std::fs::rename(temporary, &self.path)?;
        sync_directory(&self.directory)
    }
}

impl Persistence for FilePersistence {
    fn load(&mut self) -> Result<Option<Saved>, PersistenceError> {
        let mut bytes = Vec::new();
        match File::open(&self.path) {
            Ok(mut file) => file
                .read_to_end(&mut bytes)
                .map_err(|source| io(&self.path, source))?,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(io(&self.path, source)),
        };
        // Only the place of a fault is told: the parser's own words quote content.
        let read: FileIn = serde_json::from_slice(&bytes).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            self.corrupt(format!("unreadable at line {line}, column {column}"))
        })?;
        if read.format != FORMAT {
            return Err(self.corrupt(format!("format {} instead of {FORMAT}", read.format)));
        }
        read.state
            .check()
            .map_err(|error| self.corrupt(format!("an id {error}")))?;
        Ok(Some(read.state))
    }

    fn save(&mut self, state: &Saved) -> Result<(), PersistenceError> {
        let file = FileOut {
            format: FORMAT,
            state,
        };
        let bytes = serde_json::to_vec(&file)
            .map_err(|error| PersistenceError::Other(error.to_string()))?;
        self.write(&bytes, &beside(&self.path, "tmp"))
            .map_err(|source| io(&self.path, source))
    }
}

fn io(path: &Path, source: std::io::Error) -> PersistenceError {
    PersistenceError::Io {
        path: path.to_owned(),
        source,
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[cfg(unix)]
fn sync_directory(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Directories cannot be synced there; the rename itself is journalled.
#[cfg(not(unix))]
#[expect(
    clippy::unnecessary_wraps,
    reason = "the same signature on every system"
)]
fn sync_directory(_directory: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saved::SavedMessage;

    fn state() -> Saved {
        Saved {
            device_id: "device-1".into(),
            connect_number: 7,
            outbox: vec![SavedMessage {
                message_id: "m-1".into(),
                peer: "bob".into(),
                after_seq: 3,
                text: "a secret".into(),
            }],
            ..Saved::default()
        }
    }

    #[test]
    fn what_is_saved_is_loaded_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/state.json");
        let mut file = FilePersistence::open(&path).unwrap();
        assert_eq!(file.load().unwrap(), None);
        file.save(&Saved::default()).unwrap();
        file.save(&state()).unwrap();
        drop(file);
        let mut file = FilePersistence::open(&path).unwrap();
        assert_eq!(file.load().unwrap(), Some(state()));
    }

    #[test]
    fn a_second_user_of_the_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let _first = FilePersistence::open(&path).unwrap();
        let second = FilePersistence::open(&path);
        assert!(matches!(second, Err(PersistenceError::Locked { .. })));
    }

    #[test]
    fn a_corrupt_file_is_an_error_that_quotes_nothing_and_loses_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let mut file = FilePersistence::open(&path).unwrap();
        file.save(&state()).unwrap();
        let whole = std::fs::read_to_string(&path).unwrap();
        let other_format = whole.replace("\"format\":1", "\"format\":2");
        let other_type = whole.replace(":7,", ":\"a secret\",");
        let other_id = whole.replace("m-1", "m/1");
        for bad in [
            &whole[..whole.len() - 1],
            "",
            &other_format,
            &other_type,
            &other_id,
        ] {
            assert_ne!(bad, whole);
            std::fs::write(&path, bad).unwrap();
            let error = file.load().unwrap_err();
            assert!(matches!(error, PersistenceError::Corrupt { .. }));
            assert!(!error.to_string().contains("secret"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), bad);
        }
    }

    #[test]
    fn text_is_not_shown_by_debug() {
        assert!(!format!("{:?}", state()).contains("secret"));
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_readable_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        FilePersistence::open(&path)
            .unwrap()
            .save(&state())
            .unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
