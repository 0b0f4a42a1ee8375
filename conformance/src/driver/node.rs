//! The TypeScript client in Node.js: a process that is told and tells by lines of
//! JSON, and that is killed to end it. `clients/web/client/conformance` is the other
//! side. Its connections go through a gate of this side.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::link::{Addresses, Gate};

/// Lines that wait for either side: one of each kind is under way.
const LINES: usize = 16;
/// Connections of one client at once.
const CONNECTIONS: usize = 64;

/// A running client.
pub(super) struct Node {
    child: Child,
    commands: mpsc::Sender<Value>,
    sent: mpsc::Receiver<Option<String>>,
    events: mpsc::Receiver<Event>,
    /// The last event is not dealt with.
    untaken: bool,
    _tasks: JoinSet<()>,
}

/// How a client is started.
pub(super) struct Start<'a> {
    /// The program and its first arguments.
    pub(super) program: &'a [String],
    pub(super) user: &'a str,
    pub(super) transport: &'a str,
    /// Where its state is.
    pub(super) state: &'a Path,
    pub(super) addresses: Addresses,
    pub(super) gate: Gate,
}

/// What it says.
#[derive(Debug, Deserialize)]
#[serde(
    tag = "says",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
enum Said {
    Token { refused: bool },
    Sent { message_id: Option<String> },
    Event { event: Event },
}

/// What it tells, as its API has it.
#[derive(Debug, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
pub(super) enum Event {
    State {
        state: State,
    },
    /// With the device, which the client names by itself.
    Connected {
        device: String,
    },
    Message {
        message: Message,
    },
    Stored {
        message_id: String,
        peer: String,
        seq: u64,
        accepted_at: u64,
        duplicate: bool,
    },
    Rejected {
        message_id: String,
        reason: String,
    },
    Deferred {
        message_id: String,
        reason: String,
    },
    Receipt {
        peer: String,
        delivered: u64,
        read: u64,
    },
    OwnCursor {
        peer: String,
        delivered: u64,
        read: u64,
    },
    CaughtUp,
    HistoryChanged,
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
pub(super) struct State {
    pub(super) kind: String,
    #[serde(default)]
    pub(super) cause: String,
    #[serde(default)]
    pub(super) reason: String,
    #[serde(default)]
    pub(super) detail: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Message {
    pub(super) peer: String,
    pub(super) seq: u64,
    #[serde(rename = "messageId")]
    pub(super) id: String,
    pub(super) sender: String,
    pub(super) accepted_at: u64,
    pub(super) text: Option<String>,
}

impl Node {
    /// Starts a client. `token` is asked for one whenever it wants one, and told
    /// whether the last one was refused.
    pub(super) async fn start(
        start: Start<'_>,
        token: impl Fn(bool) -> Option<String> + Send + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let (program, arguments) = start.program.split_first().context("no program is given")?;
        let mut child = Command::new(program)
            .args(arguments)
            .args([&url, start.user, start.transport])
            .arg(start.state)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {program}"))?;
        let stdin = child.stdin.take().context("it has no input")?;
        let stdout = child.stdout.take().context("it has no output")?;
        let (commands, waiting) = mpsc::channel(LINES);
        let (told_sent, sent) = mpsc::channel(LINES);
        let (told, events) = mpsc::channel(LINES);
        let mut tasks = JoinSet::new();
        tasks.spawn(write(stdin, waiting));
        let reader = Reader {
            lines: BufReader::new(stdout).lines(),
            commands: commands.clone(),
            sent: told_sent,
            events: told,
        };
        tasks.spawn(reader.read(token));
        tasks.spawn(relay(listener, start.addresses, start.gate));
        Ok(Self {
            child,
            commands,
            sent,
            events,
            untaken: false,
            _tasks: tasks,
        })
    }

    /// Sends; the message's id, or none if the outbox is full.
    pub(super) async fn send(&mut self, peer: &str, text: String) -> Result<Option<String>> {
        self.say(json!({"do": "send", "peer": peer, "text": text}))
            .await?;
        self.sent.recv().await.context("a client has ended")
    }

    pub(super) async fn mark_read(&self, peer: &str, seq: u64) -> Result<()> {
        self.say(json!({"do": "read", "peer": peer, "seq": seq}))
            .await
    }

    pub(super) async fn reconnect(&self) -> Result<()> {
        self.say(json!({"do": "reconnect"})).await
    }

    /// The next event, after it was said that the one before is dealt with.
    pub(super) async fn next(&mut self) -> Option<Event> {
        if self.untaken {
            self.say(json!({"do": "take"})).await.ok()?;
            self.untaken = false;
        }
        let event = self.events.recv().await?;
        self.untaken = true;
        Some(event)
    }

    /// SIGKILL.
    pub(super) async fn kill(mut self) -> Result<()> {
        self.child.kill().await.context("cannot kill a client")
    }

    async fn say(&self, line: Value) -> Result<()> {
        let said = self.commands.send(line).await;
        said.ok().context("a client has ended")
    }
}

async fn write(mut stdin: ChildStdin, mut lines: mpsc::Receiver<Value>) {
    while let Some(line) = lines.recv().await {
        // Whoever waits for an answer sees that it has ended.
        if stdin
            .write_all(format!("{line}\n").as_bytes())
            .await
            .is_err()
        {
            return;
        }
    }
}

/// Sorts what is said.
struct Reader {
    lines: Lines<BufReader<ChildStdout>>,
    commands: mpsc::Sender<Value>,
    sent: mpsc::Sender<Option<String>>,
    events: mpsc::Sender<Event>,
}

impl Reader {
    /// Until it has ended, or says what is not understood: that ends the run.
    async fn read(mut self, token: impl Fn(bool) -> Option<String> + Send) {
        while let Ok(Some(line)) = self.lines.next_line().await {
            let Ok(said) = serde_json::from_str(&line) else {
                return;
            };
            let heard = match said {
                Said::Token { refused } => {
                    let line = json!({"do": "token", "token": token(refused)});
                    self.commands.send(line).await.is_ok()
                }
                Said::Sent { message_id } => self.sent.send(message_id).await.is_ok(),
                Said::Event { event } => self.events.send(event).await.is_ok(),
            };
            if !heard {
                return;
            }
        }
    }
}

/// Hands connections on, through the gate.
async fn relay(listener: TcpListener, addresses: Addresses, gate: Gate) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => {
                let Ok((near, _)) = accepted else { return };
                connections.spawn(hand_on(near, addresses.next(), gate.clone()));
            }
        }
    }
}

async fn hand_on(mut near: TcpStream, address: SocketAddr, gate: Gate) {
    // Either end is the end of both.
    if let Ok(far) = gate.connect(address).await {
        let _ = near.set_nodelay(true);
        let _ = copy_bidirectional(&mut near, &mut far.into_inner()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_says_is_understood_and_what_is_new_is_nothing() {
        let event = |text: &str| match serde_json::from_str(text).unwrap() {
            Said::Event { event } => event,
            Said::Token { .. } | Said::Sent { .. } => panic!("{text}"),
        };
        let told = event(
            r#"{"says":"event","event":{"type":"own-cursor","peer":"a","delivered":2,"read":1}}"#,
        );
        assert!(matches!(
            told,
            Event::OwnCursor {
                delivered: 2,
                read: 1,
                ..
            }
        ));
        let told = event(r#"{"says":"event","event":{"type":"brand-new","peer":"a"}}"#);
        assert!(matches!(told, Event::Other));
        let said = serde_json::from_str(r#"{"says":"sent","messageId":null}"#).unwrap();
        assert!(matches!(said, Said::Sent { message_id: None }));
    }
}
