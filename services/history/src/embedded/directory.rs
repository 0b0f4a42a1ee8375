//! The data directory: who may use it, what it holds, and in which format.
//!
//! It holds `lock` (held while a process uses the directory), `format` (the format
//! version, as text) and `tables` (the database). `tables` appears in one step, when
//! it is complete and on disk; what an interrupted creation left is `tables.new`.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use duologue_proto::ids::HistoryId;
use duologue_runtime::faults::{self, Point};

use super::OpenError;
use super::tables::Tables;

/// The format that this version reads and writes. (1 had a key for every message.)
pub const FORMAT: u32 = 2;

const LOCK: &str = "lock";
const FORMAT_FILE: &str = "format";
const TABLES: &str = "tables";
const NEW_TABLES: &str = "tables.new";

/// A data directory that this process has for itself.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Closing it gives up the lock; so does the end of the process, however it ends.
    _lock: File,
}

impl Directory {
    /// Takes the directory, and makes it and a new history in it if there is none.
    pub(super) fn claim(
        path: &Path,
        new_id: impl FnOnce() -> HistoryId,
    ) -> Result<Self, OpenError> {
        let at = |source| OpenError::Io {
            directory: path.into(),
            source,
        };
        make_private(path).map_err(at)?;
        // Looked at before anything is written into somebody else's directory.
        refuse_strangers(path)?;
        let lock = lock(path)?;
        let directory = Self {
            path: path.into(),
            _lock: lock,
        };
        let complete = directory.tables().try_exists().map_err(at)?;
        directory.check_format(complete)?;
        faults::point(Point::Opening);
        if !complete {
            directory.create(&new_id())?;
        }
        Ok(directory)
    }

    /// Where the database is.
    pub(super) fn tables(&self) -> PathBuf {
        self.path.join(TABLES)
    }

    /// Without tables, an absent or empty file is what an interrupted creation left.
    fn check_format(&self, complete: bool) -> Result<(), OpenError> {
        let found = match fs::read(self.path.join(FORMAT_FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read.map_err(|source| self.io_error(source))?,
        };
        let found = String::from_utf8_lossy(&found);
        let unfinished = !complete && found.is_empty();
        if unfinished || found.trim_end().parse() == Ok(FORMAT) {
            return Ok(());
        }
        Err(OpenError::UnknownFormat {
            directory: self.path.clone(),
            // Enough to tell, whatever the file holds.
            found: found.trim_end().chars().take(32).collect(),
            supported: FORMAT,
        })
    }

    fn create(&self, id: &HistoryId) -> Result<(), OpenError> {
        let new = self.path.join(NEW_TABLES);
        let clear = || match fs::remove_dir_all(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        };
        clear()
            .and_then(|()| make_private(&new))
            .map_err(|source| self.io_error(source))?;
        Tables::create(&new, id).map_err(|source| OpenError::Engine {
            directory: self.path.clone(),
            source: super::tables::engine_error(source),
        })?;
        self.finish_creation(&new)
            .map_err(|source| self.io_error(source))
    }

    fn finish_creation(&self, new: &Path) -> io::Result<()> {
        let mut format = File::create(self.path.join(FORMAT_FILE))?;
        io::Write::write_all(&mut format, format!("{FORMAT}\n").as_bytes())?;
        format.sync_all()?;
        faults::point(Point::Opening);
        File::open(&self.path)?.sync_all()?;
        sync_folders(new)?;
        fs::rename(new, self.tables())?;
        faults::point(Point::Opening);
        File::open(&self.path)?.sync_all()?;
        sync_ancestors(&self.path)
    }

    fn io_error(&self, source: io::Error) -> OpenError {
        OpenError::Io {
            directory: self.path.clone(),
            source,
        }
    }
}

/// Makes the directory, readable by its owner only. One that exists keeps its mode.
fn make_private(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Makes every name below a folder outlive a loss of power: fjall makes the folders
/// of keyspaces without a sync of the one that they are in.
fn sync_folders(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    File::open(path)?.sync_all()
}

/// Makes the names of the directory, and of the one above it, which may be new too,
/// outlive a loss of power. A place that cannot be read was there before.
fn sync_ancestors(path: &Path) -> io::Result<()> {
    for ancestor in fs::canonicalize(path)?.ancestors().skip(1).take(2) {
        if let Ok(directory) = File::open(ancestor) {
            directory.sync_all()?;
        }
    }
    Ok(())
}

fn refuse_strangers(path: &Path) -> Result<(), OpenError> {
    let at = |source| OpenError::Io {
        directory: path.into(),
        source,
    };
    for entry in fs::read_dir(path).map_err(at)? {
        let name = entry.map_err(at)?.file_name();
        let known = [LOCK, FORMAT_FILE, TABLES, NEW_TABLES];
        if !known.iter().any(|known| name == *known) {
            return Err(OpenError::NotAHistory {
                directory: path.into(),
                entry: name.to_string_lossy().into_owned(),
            });
        }
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let at = |source| OpenError::Io {
        directory: path.into(),
        source,
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path.join(LOCK))
        .map_err(at)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked {
            directory: path.into(),
        }),
        Err(TryLockError::Error(source)) => Err(at(source)),
    }
}
