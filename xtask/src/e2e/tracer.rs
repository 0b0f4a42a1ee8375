//! The calls by which the server's writer syncs, broken from the outside, in the
//! program as it is: strace follows the one thread that writes and changes them.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// The name of the thread that writes.
const WRITER: &str = "history-writer";
/// How long strace may take to follow it.
const ATTACH_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

/// strace, following the writer. It lets go when this is dropped.
pub(super) struct Tracer {
    _child: Child,
}

impl Tracer {
    /// Follows the writer of a process and changes its syncs, as strace's `inject`
    /// has it: `signal=SIGKILL:when=3` ends the process in place of the third one.
    pub(super) async fn attach(process: u32, change: &str) -> Result<Self> {
        // A thread names itself once it runs.
        let limit = Instant::now() + ATTACH_LIMIT;
        let mut writer = writer_of(process);
        while writer.is_err() && Instant::now() < limit {
            sleep(POLL).await;
            writer = writer_of(process);
        }
        let writer = writer?.to_string();
        let mut child = Command::new("strace")
            .args(["-p", &writer, "-o", "/dev/null", "-e", "trace=fdatasync"])
            .args(["-e", &format!("inject=fdatasync:{change}")])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot run strace; it must be installed")?;
        let errors = child.stderr.take().context("strace has no output")?;
        let mut lines = BufReader::new(errors).lines();
        let Ok(line) = timeout(ATTACH_LIMIT, lines.next_line()).await else {
            bail!("strace does not follow the writer");
        };
        let line = line?.unwrap_or_default();
        if !line.contains("attached") {
            bail!("strace does not follow the writer: {line}");
        }
        Ok(Self { _child: child })
    }
}

fn writer_of(process: u32) -> Result<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task"))
        .context("the server has ended already")?;
    for task in tasks {
        let task = task?;
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if name.trim_end() == WRITER {
            let number = task.file_name().to_string_lossy().parse();
            return number.context("a thread's number is none");
        }
    }
    bail!("no thread of the server is called {WRITER}")
}
