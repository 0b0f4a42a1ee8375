//! Tries a cluster as its users see it: what one says on one node stands on the other,
//! and what one says at a page, also while a node is dead and after it is back.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use super::browser::Page;
use super::plan::Plan;
use super::{Cluster, GATEWAY, KEYS, PROFILE};
use crate::signal;

/// How long anything may take that a user waits for, the death of a node included.
const LIMIT: Duration = Duration::from_mins(1);
/// The node that is killed, and the one that goes on.
const NODES: [&str; 2] = ["chat-1", "chat-2"];

/// Runs one with data of its own and free ports; says what it saw.
pub(super) async fn run(root: &Path, programs: &Path) -> Result<()> {
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let mut plan = Plan::of(root, PROFILE, folder.path(), false)?;
    plan.sign_in_by_name(&folder.path().join(KEYS));
    let mut cluster = Cluster::default();
    let program = programs.join("duologue");
    let keys = folder.path().join(KEYS);
    let users = Users {
        program: &program,
        keys: &keys,
    };
    let done = async {
        cluster.start(root, programs, folder.path(), &plan).await?;
        talk(&mut cluster, &plan, &users).await
    };
    let done = done.await;
    done.and(cluster.stop().await)
}

async fn talk(cluster: &mut Cluster, plan: &Plan, users: &Users<'_>) -> Result<()> {
    let [first, second] = NODES.map(|node| plan.listens(node, "grpc"));
    let (first, second) = (first?, second?);
    let mut bob = users.listen("bob", second)?;
    users
        .send(("alice", "bob"), "from one node to the other", first)
        .await?;
    bob.hears("from one node to the other").await?;
    let page = Page::sign_in(plan.listens(GATEWAY, "web")?, "carol").await?;
    page.send("bob", "from a page to a node").await?;
    bob.hears("from a page to a node").await?;

    let killed = cluster.server(NODES[0])?;
    signal::send("KILL", killed.process()).await?;
    users
        .send(("alice", "bob"), "while a node is dead", second)
        .await?;
    bob.hears("while a node is dead").await?;
    page.send("bob", "from a page while a node is dead").await?;
    bob.hears("from a page while a node is dead").await?;

    killed.started_again().await?;
    killed.healthy().await?;
    let mut alice = users.listen("alice", first)?;
    for text in ["from one node to the other", "while a node is dead"] {
        alice.hears(text).await?;
    }
    users
        .send(("bob", "alice"), "after it is back", second)
        .await?;
    alice.hears("after it is back").await?;
    crate::say(
        "cluster: two users on two nodes and one at a page talk; one node was killed, nothing is \
         missing",
    );
    Ok(())
}

/// Users at a terminal.
struct Users<'a> {
    program: &'a Path,
    keys: &'a Path,
}

impl Users<'_> {
    fn command(&self, what: &str, user: &str, node: SocketAddr) -> Command {
        let mut command = Command::new(self.program);
        command
            .args([what, "--as", user, "--addr", &format!("http://{node}")])
            .arg("--data")
            .arg(self.keys)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Sends, and waits until it is stored.
    async fn send(&self, (user, peer): (&str, &str), text: &str, node: SocketAddr) -> Result<()> {
        let mut command = self.command("send", user, node);
        command.args([peer, text]).stdout(Stdio::null());
        let stored = timeout(LIMIT, command.status()).await;
        let status = stored.with_context(|| format!("\"{text}\" is not stored"))??;
        ensure!(status.success(), "\"{text}\" is not stored");
        Ok(())
    }

    fn listen(&self, user: &str, node: SocketAddr) -> Result<Listener> {
        let mut tail = self.command("tail", user, node);
        let mut child = tail.stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().context("it has no output")?;
        Ok(Listener {
            user: user.to_owned(),
            lines: BufReader::new(stdout).lines(),
            _child: child,
        })
    }
}

/// A user who is connected.
struct Listener {
    user: String,
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Listener {
    /// Waits until a message with this text is shown.
    async fn hears(&mut self, text: &str) -> Result<()> {
        let wait = async {
            while let Some(line) = self.lines.next_line().await? {
                if line.contains(text) {
                    return Ok(());
                }
            }
            bail!("{} is no longer connected", self.user)
        };
        let heard = timeout(LIMIT, wait).await;
        heard.with_context(|| format!("{} is not shown \"{text}\"", self.user))?
    }
}
