//! Records what a process does to its files and sends to its clients, by strace,
//! and reads the record.
//!
//! The order of the lines is what counts, and no clock is needed: strace stops a
//! thread where a call begins and where it ends, and lets it go on only after it has
//! written that down. So what a thread did because of the end of another thread's
//! call stands below that end, and a call that ended above the beginning of another
//! one was over when that one began.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;

use super::call::Call;

/// What can change a file or a folder, make it outlive a loss of power, or leave the
/// process. A way to write that is missing here is found when the files that are
/// rebuilt from the record are compared with the real ones.
const CALLS: &str = "openat,close,lseek,write,pwrite64,writev,sendto,sendmsg,fsync,\
    fdatasync,ftruncate,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat";
/// Longer than any buffer that is written at once.
const MAX_BYTES: &str = "8388608";

/// What a call did, if it succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// A file or a folder is opened.
    Open {
        fd: i32,
        path: PathBuf,
        created: bool,
        emptied: bool,
        appends: bool,
    },
    Close {
        fd: i32,
    },
    Seek {
        fd: i32,
        position: u64,
    },
    /// At the file's own position if none is given.
    Write {
        fd: i32,
        position: Option<u64>,
        bytes: Vec<u8>,
    },
    Resize {
        fd: i32,
        length: u64,
    },
    Sync {
        fd: i32,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    MakeFolder {
        path: PathBuf,
    },
    /// Bytes leave for a client.
    Send {
        connection: String,
        bytes: Vec<u8>,
    },
}

/// Where the record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// The action with this number begins.
    Begins(usize),
    /// It has ended.
    Ends(usize),
}

/// The beginning of a call that turned out to be none of ours, or failed.
const NOTHING: Moment = Moment::Begins(usize::MAX);

/// What a process did, in order.
#[derive(Debug, Default)]
pub(super) struct Trace {
    pub(super) actions: Vec<Action>,
    pub(super) moments: Vec<Moment>,
}

/// A command that becomes `program`, and is recorded in `file`.
pub(super) fn recorded(program: &Path, file: &Path) -> Result<Command> {
    let found = std::process::Command::new("strace")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    ensure!(
        found.is_ok_and(|status| status.success()),
        "strace is missing: install it"
    );
    let mut command = Command::new("strace");
    command
        // The child is the program, and strace its grandchild.
        .args(["--daemonize=grandchild", "--follow-forks", "--seccomp-bpf"])
        .args(["--decode-fds=all", "--strings-in-hex=all", "--signal=none"])
        .args(["--string-limit", MAX_BYTES, "--trace", CALLS])
        .arg("--output")
        .arg(file)
        .arg(program);
    Ok(command)
}

/// Reads a record: files below `root`, and what is sent from `local`.
pub(super) fn read(record: &str, root: &Path, local: &str) -> Result<Trace> {
    let mut reader = Reader {
        root,
        local: format!("TCP:[{local}->"),
        trace: Trace::default(),
        begun: HashMap::new(),
    };
    for line in record.lines() {
        reader
            .line(line)
            .with_context(|| format!("strace writes {}", line.get(..200).unwrap_or(line)))?;
    }
    ensure!(
        reader.begun.is_empty(),
        "the record ends in the middle of a call"
    );
    let mut trace = reader.trace;
    trace.moments.retain(|moment| *moment != NOTHING);
    Ok(trace)
}

struct Reader<'a> {
    root: &'a Path,
    local: String,
    trace: Trace,
    /// Calls that have begun, by thread: what was written so far, and where.
    begun: HashMap<&'a str, (String, usize)>,
}

impl<'a> Reader<'a> {
    fn line(&mut self, line: &'a str) -> Result<()> {
        let (thread, text) = line.split_once(' ').context("a line without a thread")?;
        let text = text.trim_start();
        if text.starts_with("+++") || text.starts_with("---") {
            return Ok(());
        }
        if let Some(begun) = text.strip_suffix(" <unfinished ...>") {
            // Holds the place; what it did is known at its end.
            self.trace.moments.push(NOTHING);
            let place = self.trace.moments.len() - 1;
            let before = self.begun.insert(thread, (begun.to_owned(), place));
            ensure!(before.is_none(), "a thread is in two calls");
            return Ok(());
        }
        if let Some(resumed) = text.strip_prefix("<... ") {
            let (_, rest) = resumed
                .split_once(" resumed>")
                .context("an unknown resumption")?;
            let (begun, place) = self.begun.remove(thread).context("nothing to resume")?;
            return self.finished(&format!("{begun}{rest}"), Some(place));
        }
        self.finished(text, None)
    }

    /// A whole call; it began at `place`, or on this line.
    fn finished(&mut self, text: &str, place: Option<usize>) -> Result<()> {
        let call = Call::parse(text)?;
        let Some(action) = self.action(&call)? else {
            return Ok(());
        };
        let number = self.trace.actions.len();
        self.trace.actions.push(action);
        let moments = &mut self.trace.moments;
        match place {
            Some(place) => moments[place] = Moment::Begins(number),
            None => moments.push(Moment::Begins(number)),
        }
        moments.push(Moment::Ends(number));
        Ok(())
    }

    /// What it did, if that concerns us.
    fn action(&self, call: &Call<'_>) -> Result<Option<Action>> {
        let Some(result) = call.result() else {
            return Ok(None);
        };
        let action = match call.name {
            "openat" => return self.open(call),
            "mkdir" => Action::MakeFolder {
                path: call.path(0)?,
            },
            "mkdirat" => Action::MakeFolder {
                path: call.path_at(0)?,
            },
            "unlink" | "rmdir" => Action::Remove {
                path: call.path(0)?,
            },
            "unlinkat" => Action::Remove {
                path: call.path_at(0)?,
            },
            "rename" => Action::Rename {
                from: call.path(0)?,
                to: call.path(1)?,
            },
            "renameat" | "renameat2" => Action::Rename {
                from: call.path_at(0)?,
                to: call.path_at(2)?,
            },
            _ => return self.action_on_open(call, result),
        };
        let (Action::MakeFolder { path }
        | Action::Remove { path }
        | Action::Rename { from: path, .. }) = &action
        else {
            bail!("{} is not expected", call.name);
        };
        Ok(path.starts_with(self.root).then_some(action))
    }

    fn open(&self, call: &Call<'_>) -> Result<Option<Action>> {
        let Some((fd, path)) = call.opened()? else {
            return Ok(None);
        };
        let flags = call.argument(2)?;
        let has = |flag: &str| flags.split('|').any(|word| word == flag);
        ensure!(!has("O_DIRECT"), "a file that is opened for direct writes");
        Ok(path.starts_with(self.root).then(|| Action::Open {
            fd,
            path,
            created: has("O_CREAT"),
            emptied: has("O_TRUNC"),
            appends: has("O_APPEND"),
        }))
    }

    /// What is done to an open file, or sent.
    fn action_on_open(&self, call: &Call<'_>, result: u64) -> Result<Option<Action>> {
        let (fd, place) = call.descriptor()?;
        let sends = place.starts_with(&self.local);
        if !sends && !Path::new(&place).starts_with(self.root) {
            return Ok(None);
        }
        let bytes = || -> Result<Vec<u8>> {
            let mut bytes = call.bytes(1)?;
            let written = usize::try_from(result)?;
            ensure!(bytes.len() >= written, "it cuts what is written");
            bytes.truncate(written);
            Ok(bytes)
        };
        Ok(Some(match call.name {
            "close" => Action::Close { fd },
            "write" | "writev" | "sendto" | "sendmsg" if sends => Action::Send {
                connection: place,
                bytes: bytes()?,
            },
            "write" | "writev" => Action::Write {
                fd,
                position: None,
                bytes: bytes()?,
            },
            "pwrite64" => Action::Write {
                fd,
                position: Some(call.argument(3)?.parse()?),
                bytes: bytes()?,
            },
            "lseek" => Action::Seek {
                fd,
                position: result,
            },
            "ftruncate" => Action::Resize {
                fd,
                length: call.argument(1)?.parse()?,
            },
            "fsync" | "fdatasync" => Action::Sync { fd },
            name => bail!("{name} is not expected"),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> String {
        let bytes: Vec<_> = text.bytes().map(|byte| format!("\\x{byte:02x}")).collect();
        bytes.concat()
    }

    /// Thread 2 writes an answer while thread 1 syncs; thread 3 opens in vain.
    #[test]
    fn calls_of_several_threads_keep_their_order() {
        let (file, text, other) = (hex("/d/0.jnl"), hex("ab"), hex("/e"));
        let record = format!(
            "1 write(5<{file}>, \"{text}\", 2) = 2\n\
             1 fdatasync(5<{file}> <unfinished ...>\n\
             3 openat(AT_FDCWD<{other}>, \"{file}\", O_RDONLY <unfinished ...>\n\
             2 sendto(9<TCP:[1.2.3.4:5->6.7.8.9:10]>, \"{text}{text}\", 4, 0, NULL, 0) = 3\n\
             3 <... openat resumed>)             = -1 ENOENT (No such file or directory)\n\
             2 write(1<{other}>, \"{text}\", 2) = 2\n\
             1 <... fdatasync resumed>)          = 0\n\
             1 +++ exited with 0 +++\n"
        );
        let trace = read(&record, Path::new("/d"), "1.2.3.4:5").unwrap();
        let written = Action::Write {
            fd: 5,
            position: None,
            bytes: b"ab".to_vec(),
        };
        let sent = Action::Send {
            connection: "TCP:[1.2.3.4:5->6.7.8.9:10]".into(),
            bytes: b"aba".to_vec(),
        };
        assert_eq!(trace.actions, [written, sent, Action::Sync { fd: 5 }]);
        let order = [
            Moment::Begins(0),
            Moment::Ends(0),
            Moment::Begins(2),
            Moment::Begins(1),
            Moment::Ends(1),
            Moment::Ends(2),
        ];
        assert_eq!(trace.moments, order);
    }

    #[test]
    fn a_record_that_cuts_what_is_written_is_refused() {
        let (file, text) = (hex("/d/0.jnl"), hex("ab"));
        let record = format!("1 write(5<{file}>, \"{text}\"..., 9) = 9");
        assert!(read(&record, Path::new("/d"), "1.2.3.4:5").is_err());
    }
}
