//! `duologue send`: one message, for scripts.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use duologue_client::{Event, Events, MessageId, Stored, UserId};
use duologue_runtime::config::duration;
use serde_json::json;

use crate::talk::connection::{ConnectArgs, escape};

/// Send one message, and print its place once it is stored durably.
///
/// Prints one line of JSON with the message's id, peer, seq, and whether an
/// earlier try had stored it.
#[derive(Args)]
pub(crate) struct SendArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// Who shall get it
    peer: UserId,
    /// The text: 1 to 8192 bytes
    text: String,
    /// Give up after this long; the message may have been stored nevertheless
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    timeout: Duration,
}

pub(crate) async fn run(args: SendArgs) -> anyhow::Result<()> {
    // What others sent is not for this program to receive.
    let builder = args.connect.builder()?.mark_delivered(false);
    let (client, mut events) = builder.start().await?;
    let id = client.send(&args.peer, args.text).await?;
    let storing = stored(&args.connect, &mut events, &id);
    let Ok(stored) = tokio::time::timeout(args.timeout, storing).await else {
        bail!("the message {id} was not confirmed in time; it may be stored nevertheless");
    };
    print(&stored?)
}

async fn stored(
    connect: &ConnectArgs,
    events: &mut Events,
    id: &MessageId,
) -> anyhow::Result<Stored> {
    while let Some(event) = events.next().await {
        connect.check(&event)?;
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "only what settles the message is named"
        )]
        match event {
            Event::Stored(stored) if stored.message_id == *id => return Ok(stored),
            Event::Rejected(rejected) if rejected.message_id == *id => {
                bail!("rejected: {}", escape(&rejected.detail))
            }
            Event::Disconnected { cause, .. } => {
                eprintln!("not connected: {}; trying again", escape(&cause));
            }
            _ => {}
        }
    }
    bail!("the client ended")
}

fn print(stored: &Stored) -> anyhow::Result<()> {
    let line = json!({
        "message_id": stored.message_id.as_str(),
        "peer": stored.peer.as_str(),
        "seq": stored.seq.0,
        "duplicate": stored.duplicate,
    });
    writeln!(std::io::stdout(), "{line}").context("cannot print")
}
