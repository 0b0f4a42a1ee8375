//! `duologue talk`: a conversation in the terminal.

pub(crate) mod connection;
pub(crate) mod screen;

use std::collections::BTreeSet;

use anyhow::bail;
use clap::Args;
use duologue_client::{
    Client, ClientError, Content, Event, Events, Message, MessageId, MessagesQuery, Presence, Seq,
    UserId,
};

use self::connection::{ConnectArgs, escape};
use self::screen::Screen;

/// Talk with one user in the terminal.
///
/// Shows the last messages, then what happens: one line in is one message. Marks:
/// `·` sending, `✓` stored, `✓✓` delivered or read. Ends on Ctrl-D, Ctrl-C or
/// /quit. If the input is not a terminal, its lines are sent and the program ends
/// when all are stored.
#[derive(Args)]
pub(crate) struct TalkArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// With whom
    peer: UserId,
}

/// Messages shown at the start.
pub(crate) const HISTORY: u16 = 20;
/// Own messages that are not stored; more lines wait.
pub(crate) const MAX_UNSTORED: usize = 256;

pub(crate) async fn run(args: TalkArgs) -> anyhow::Result<()> {
    let (client, mut events) = args.connect.builder()?.start().await?;
    let (screen, mut lines) = screen::open()?;
    let mut talk = Talk {
        own: args.connect.user.clone(),
        peer: args.peer,
        client,
        screen,
        sent: BTreeSet::new(),
        placed: BTreeSet::new(),
        shown: None,
        connected: None,
    };
    loop {
        tokio::select! {
            biased;
            event = events.next() => match event {
                Some(event) => {
                    args.connect.check(&event)?;
                    talk.happened(event).await?;
                }
                None => bail!("the client ended"),
            },
            line = lines.recv(), if talk.sent.len() < MAX_UNSTORED => match line {
                Some(line) if line.trim() != "/quit" => talk.typed(line).await?,
                Some(_) | None => break,
            },
        }
    }
    talk.end(events).await
}

/// One conversation on the screen.
struct Talk {
    own: UserId,
    peer: UserId,
    client: Client,
    screen: Screen,
    /// Own messages of this program that are not stored.
    sent: BTreeSet<MessageId>,
    /// Places of those that are, as long as their turn in the order is to come.
    placed: BTreeSet<Seq>,
    /// The last message on the screen; none before history was shown.
    shown: Option<Seq>,
    /// Whether a session is open; none before the first try has ended.
    connected: Option<bool>,
}

impl Talk {
    async fn typed(&mut self, line: String) -> anyhow::Result<()> {
        if line.is_empty() {
            return Ok(());
        }
        match self.client.send(&self.peer, line).await {
            Ok(id) => {
                self.sent.insert(id);
                self.screen.show("  · sending")
            }
            Err(error @ (ClientError::TextTooLong { .. } | ClientError::OutboxFull)) => {
                self.screen.show(&format!("! not sent: {error}"))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn happened(&mut self, event: Event) -> anyhow::Result<()> {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "what concerns other conversations is not shown"
        )]
        match event {
            Event::Connected(_) => self.connected().await,
            Event::Disconnected { cause, retry_in } => self.disconnected(&cause, retry_in),
            Event::Message(message) if message.peer == self.peer => self.message(&message).await,
            Event::Stored(stored) if self.sent.remove(&stored.message_id) => {
                self.placed.insert(stored.seq);
                self.screen.show(&format!("  ✓ stored [{}]", stored.seq))
            }
            Event::Rejected(rejected) if self.sent.remove(&rejected.message_id) => {
                let detail = escape(&rejected.detail);
                self.screen.show(&format!("! rejected: {detail}"))
            }
            Event::Delivered { peer, seq } if peer == self.peer => {
                self.screen.show(&format!("  ✓✓ delivered up to [{seq}]"))
            }
            Event::Read { peer, seq } if peer == self.peer => {
                self.screen.show(&format!("  ✓✓ read up to [{seq}]"))
            }
            Event::PresenceChanged(presence) if presence.user == self.peer => {
                self.presence(&presence)
            }
            Event::PresenceReset => self.ask_presence().await,
            Event::HistoryChanged => {
                self.shown = None;
                self.screen.show("! the server has another history now")
            }
            _ => Ok(()),
        }
    }

    async fn connected(&mut self) -> anyhow::Result<()> {
        if self.connected.replace(true) == Some(false) {
            self.screen.show("* connected again")?;
        }
        if self.shown.is_none() {
            self.history().await?;
        }
        self.ask_presence().await
    }

    async fn ask_presence(&mut self) -> anyhow::Result<()> {
        match self.client.presence(&self.peer).await {
            Ok(presence) => self.presence(&presence),
            Err(error) => {
                let error = escape(&error.to_string());
                let peer = &self.peer;
                self.screen
                    .show(&format!("* whether {peer} is online is not known: {error}"))
            }
        }
    }

    fn disconnected(&mut self, cause: &str, retry_in: std::time::Duration) -> anyhow::Result<()> {
        // Once, however many tries it takes.
        if self.connected.replace(false) == Some(false) {
            return Ok(());
        }
        let (cause, seconds) = (escape(cause), retry_in.as_secs_f32());
        self.screen.show(&format!(
            "! not connected ({cause}); trying again, first in {seconds:.1} s"
        ))
    }

    /// The last messages; what comes after them comes as events.
    async fn history(&mut self) -> anyhow::Result<()> {
        let query = MessagesQuery::newest(&self.peer, HISTORY);
        let page = match self.client.list_messages(query).await {
            Ok(page) => page,
            Err(error) => {
                let error = escape(&error.to_string());
                return self.screen.show(&format!("! no history: {error}"));
            }
        };
        if !page.next_page_token.is_empty() {
            self.screen.show("* there is more before this")?;
        }
        for message in page.messages.iter().rev() {
            self.show(message)?;
        }
        self.shown = self.shown.max(Some(page.head));
        let received = page.messages.iter().filter(|it| it.sender != self.own);
        let last = received.map(|message| message.seq).max();
        self.mark_read(last.unwrap_or_default()).await
    }

    async fn message(&mut self, message: &Message) -> anyhow::Result<()> {
        if self.shown.is_some_and(|shown| message.seq <= shown) {
            return Ok(());
        }
        let typed_here = self.placed.remove(&message.seq);
        self.placed = self.placed.split_off(&message.seq);
        self.shown = Some(message.seq);
        // What was typed stands on the screen already.
        if !typed_here || !self.screen.echoes() {
            self.show(message)?;
        }
        if message.sender == self.own {
            return Ok(());
        }
        self.mark_read(message.seq).await
    }

    fn show(&mut self, message: &Message) -> anyhow::Result<()> {
        let text = match &message.content {
            Content::Text(text) => escape(text),
            Content::Unknown | _ => "(a kind of message that this version does not know)".into(),
        };
        let (seq, sender) = (message.seq, &message.sender);
        self.screen.show(&format!("[{seq}] {sender}: {text}"))
    }

    async fn mark_read(&mut self, seq: Seq) -> anyhow::Result<()> {
        if seq > Seq::ZERO {
            self.client.mark_read(&self.peer, seq).await?;
        }
        Ok(())
    }

    fn presence(&mut self, presence: &Presence) -> anyhow::Result<()> {
        if self.peer == self.own {
            return Ok(());
        }
        let state = if presence.online { "online" } else { "offline" };
        self.screen.show(&format!("* {} is {state}", self.peer))
    }

    /// Waits for the answers to what was sent.
    async fn end(mut self, mut events: Events) -> anyhow::Result<()> {
        let close = self.client.clone().close();
        let show_rest = async {
            while let Some(event) = events.next().await {
                // Calls are of no use any more.
                if !matches!(event, Event::Connected(_) | Event::Message(_)) {
                    self.happened(event).await?;
                }
            }
            anyhow::Ok(())
        };
        let (unsettled, shown) = tokio::join!(close, show_rest);
        shown?;
        match unsettled? {
            0 => Ok(()),
            many => bail!("{many} messages are not stored, and lost with this program"),
        }
    }
}
