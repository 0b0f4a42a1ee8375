//! The README cannot lie: its commands are run as a reader would run them, and
//! each must print what stands below it.
//!
//! The server is the built program with its default flags, in an empty folder;
//! the commands run in the same folder, one after another in one shell, so that
//! a variable set by one is there for the next.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{ChildStdout, Command};
use tokio::time::timeout;

use super::Setup;
use super::mask::Masks;
use super::server::Server;
use super::transcript::{self, Step, Transcript};

/// The ports of a server without flags: gRPC, web, admin.
const DEFAULT_PORTS: [u16; 3] = [50_051, 8_080, 9_090];
/// How long one command may take.
const COMMAND_LIMIT: Duration = Duration::from_mins(1);
/// Begins the line that ends the output of a command; its status follows.
const END: &str = "--- end of command, status";
/// A failing command must say so in a line that begins with one of these.
const TOLD_FAILURES: [&str; 2] = ["ERROR:", "error:"];

/// Runs everything that the README shows; says how much that was.
pub(super) async fn run(setup: &Setup) -> Result<String> {
    let page = std::fs::read_to_string(setup.root.join("README.md")).context("no README.md")?;
    let transcript = transcript::read(&page).context("cannot understand README.md")?;
    ensure!(
        !transcript.steps.is_empty(),
        "README.md has no `console` block: nothing would be checked"
    );
    ensure_ports_free()?;

    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let mut server = Server::start(&setup.program, folder.path(), &[]).await?;
    let masks = Masks::new()?;
    check_start(&mut server, &transcript, &masks, folder.path()).await?;
    check_steps(setup, &transcript.steps, &masks, folder.path()).await?;
    Ok(format!(
        "{} commands print what the README shows",
        transcript.steps.len() + usize::from(transcript.serve.is_some())
    ))
}

/// Another program on these ports would be tried in place of ours.
fn ensure_ports_free() -> Result<()> {
    for port in DEFAULT_PORTS {
        TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).with_context(|| {
            format!("port {port}, which the README uses, is not free: stop what listens there")
        })?;
    }
    Ok(())
}

/// Compares what the server prints first.
async fn check_start(
    server: &mut Server,
    transcript: &Transcript,
    masks: &Masks,
    folder: &Path,
) -> Result<()> {
    let Some(step) = &transcript.serve else {
        return Ok(());
    };
    let mut shown = masks.apply(&step.printed);
    if shown.last().is_some_and(|line| line == "...") {
        shown.pop();
    }
    let printed = masks.apply(server.first_lines(shown.len()).await?);
    compare(step, &shown, &printed, folder)
}

/// Runs the commands in one shell and compares what each prints.
async fn check_steps(setup: &Setup, steps: &[Step], masks: &Masks, folder: &Path) -> Result<()> {
    let script = folder.join("readme.bash");
    std::fs::write(&script, script_of(steps)).context("cannot write the script")?;
    let mut shell = Command::new("bash")
        .arg(&script)
        .env("PATH", search_path(setup)?)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start bash")?;
    let stdout = shell.stdout.take().context("bash has no output")?;
    let mut lines = BufReader::new(stdout).lines();
    for step in steps {
        let (printed, status) = output_of(step, &mut lines).await?;
        let (shown, printed) = (masks.apply(&step.printed), masks.apply(&printed));
        compare(step, &shown, &printed, folder)?;
        let told = |line: &String| TOLD_FAILURES.iter().any(|mark| line.starts_with(mark));
        ensure!(
            status == "0" || printed.iter().any(told),
            "README.md:{}: `{}` ends with status {status} and does not say why",
            step.line,
            step.command
        );
    }
    Ok(())
}

/// The commands, each followed by a line that says how it ended.
fn script_of(steps: &[Step]) -> String {
    let mut script = "exec 2>&1\ntrap 'kill $(jobs -p) 2>/dev/null' EXIT\n".to_owned();
    for step in steps {
        script.push_str(&step.command);
        // The first line break ends an output that has none at its end.
        script.push_str("\nprintf '\\n%s %d\\n' '");
        script.push_str(END);
        script.push_str("' \"$?\"\n");
    }
    script
}

/// What one command prints, and its status.
async fn output_of(
    step: &Step,
    lines: &mut Lines<BufReader<ChildStdout>>,
) -> Result<(Vec<String>, String)> {
    let mut printed = Vec::new();
    loop {
        let line = match timeout(COMMAND_LIMIT, lines.next_line()).await {
            Ok(line) => line.context("a command prints something that is not UTF-8")?,
            Err(_) => bail!(
                "README.md:{}: `{}` does not end; it printed:\n{}",
                step.line,
                step.command,
                printed.join("\n")
            ),
        };
        let Some(line) = line else {
            bail!(
                "README.md:{}: `{}` ends the shell; it printed:\n{}",
                step.line,
                step.command,
                printed.join("\n")
            );
        };
        if let Some(status) = line.strip_prefix(END) {
            return Ok((printed, status.trim().to_owned()));
        }
        printed.push(line);
    }
}

/// The built program and the tools come before everything else.
fn search_path(setup: &Setup) -> Result<OsString> {
    let built = setup
        .program
        .parent()
        .context("the program has no folder")?;
    let tools = setup.root.join("target/tools");
    let before = [built.to_path_buf(), tools];
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(before.into_iter().chain(std::env::split_paths(&inherited)))
        .context("a folder of the search path has a colon in its name")
}

/// Fails with a unified diff if an output is not what is shown.
fn compare(step: &Step, shown: &[String], printed: &[String], folder: &Path) -> Result<()> {
    if transcript::matches(shown, printed) {
        return Ok(());
    }
    let (shown_file, printed_file) = (folder.join("shown.txt"), folder.join("printed.txt"));
    std::fs::write(&shown_file, lines_of(shown)).context("cannot write for diff")?;
    std::fs::write(&printed_file, lines_of(printed)).context("cannot write for diff")?;
    let diff = std::process::Command::new("diff")
        .args(["-u", "--label=README.md", "--label=printed"])
        .args([&shown_file, &printed_file])
        .output()
        .context("cannot run diff")?;
    bail!(
        "README.md:{}: `{}` prints something else than is shown:\n{}",
        step.line,
        step.command,
        String::from_utf8_lossy(&diff.stdout)
    )
}

fn lines_of(lines: &[String]) -> String {
    lines
        .iter()
        .flat_map(|line| [line.as_str(), "\n"])
        .collect()
}
