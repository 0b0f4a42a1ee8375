//! `duologue tail`: what happens to a user, as JSON lines for scripts.

use std::io::ErrorKind;

use clap::Args;
use duologue_client::{ClientError, Content, Event, UserId};
use serde_json::{Value, json};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::talk::connection::{ConnectArgs, asked_to_end};

/// Print everything that happens to a user, one line of JSON per event.
///
/// Starts where the user's devices stopped receiving. Ends on SIGINT or SIGTERM,
/// or when nobody reads its output any longer.
#[derive(Args)]
pub(crate) struct TailArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// Only the conversation with this user
    #[arg(long, value_name = "NAME")]
    peer: Option<UserId>,
}

pub(crate) async fn run(args: TailArgs) -> anyhow::Result<()> {
    let (client, mut events) = args.connect.builder()?.start().await?;
    let mut output = tokio::io::stdout();
    let print_all = async {
        while let Some(event) = events.next().await {
            if about(&event).is_none_or(|user| args.peer.as_ref().is_none_or(|it| it == user))
                && !write(&mut output, &line(&event)).await?
            {
                break;
            }
            args.connect.check(&event)?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        biased;
        ended = asked_to_end() => ended?,
        () = unread() => {}
        printed = print_all => printed?,
    }
    // What was printed is told to be delivered before the program ends.
    let rest = async { while events.next().await.is_some() {} };
    let (closed, ()) = tokio::join!(client.close(), rest);
    match closed {
        Ok(_) | Err(ClientError::Closed) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Waits until nobody reads the output any longer, though nothing is written.
#[cfg(unix)]
async fn unread() {
    use std::os::fd::AsFd as _;
    use tokio::io::Interest;
    use tokio::net::unix::pipe::Sender;
    // Unchecked: the output stays as it is, blocking, since others may share it.
    // A file cannot be watched, and has no reader that may go.
    let output = std::io::stdout().as_fd().try_clone_to_owned();
    if let Ok(output) = output.and_then(Sender::from_owned_fd_unchecked)
        && output.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// Only noticed at the next write there.
#[cfg(not(unix))]
async fn unread() {
    std::future::pending::<()>().await;
}

/// Writes one line at once. False if nobody reads any longer.
async fn write(output: &mut (impl AsyncWrite + Unpin), line: &Value) -> anyhow::Result<bool> {
    let text = format!("{line}\n");
    let written = async {
        output.write_all(text.as_bytes()).await?;
        output.flush().await
    };
    match written.await {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whom an event is about, if it is not about the session.
fn about(event: &Event) -> Option<&UserId> {
    match event {
        Event::Message(message) => Some(&message.peer),
        Event::Stored(stored) => Some(&stored.peer),
        Event::Rejected(rejected) => Some(&rejected.peer),
        Event::Deferred { peer, .. }
        | Event::Delivered { peer, .. }
        | Event::Read { peer, .. }
        | Event::OwnCursor { peer, .. } => Some(peer),
        Event::PresenceChanged(presence) => Some(&presence.user),
        Event::Connected(_)
        | Event::Disconnected { .. }
        | Event::PresenceReset
        | Event::CaughtUp
        | Event::Superseded
        | Event::HistoryChanged
        | Event::Stopped(_)
        | _ => None,
    }
}

/// JSON escapes control characters, so that nothing hostile is printed.
fn line(event: &Event) -> Value {
    match event {
        Event::Connected(session) => json!({
            "event": "connected",
            "user": session.user.as_str(),
            "session_id": session.session_id,
            "node_id": session.node_id,
        }),
        Event::Disconnected { cause, retry_in } => json!({
            "event": "disconnected",
            "cause": cause,
            "retry_in_ms": u64::try_from(retry_in.as_millis()).unwrap_or(u64::MAX),
        }),
        Event::Message(message) => json!({
            "event": "message",
            "peer": message.peer.as_str(),
            "seq": message.seq.0,
            "message_id": message.message_id.as_str(),
            "sender": message.sender.as_str(),
            "text": match &message.content {
                Content::Text(text) => Some(text),
                Content::Unknown | _ => None,
            },
            "accepted_at_ms": message.accepted_at.0,
        }),
        Event::Delivered { peer, seq } => {
            json!({"event": "delivered", "peer": peer.as_str(), "seq": seq.0})
        }
        Event::Read { peer, seq } => json!({"event": "read", "peer": peer.as_str(), "seq": seq.0}),
        Event::OwnCursor { peer, cursor } => json!({
            "event": "own_cursor",
            "peer": peer.as_str(),
            "delivered": cursor.delivered.0,
            "read": cursor.read.0,
        }),
        Event::PresenceChanged(presence) => json!({
            "event": "presence_changed",
            "user": presence.user.as_str(),
            "online": presence.online,
            "last_seen_ms": presence.last_seen.map(|time| time.0),
        }),
        Event::PresenceReset => json!({"event": "presence_reset"}),
        Event::CaughtUp => json!({"event": "caught_up"}),
        Event::Superseded => json!({"event": "superseded"}),
        Event::HistoryChanged => json!({"event": "history_changed"}),
        Event::Stopped(_) => json!({"event": "stopped"}),
        // This program sends nothing.
        Event::Stored(_) | Event::Rejected(_) | Event::Deferred { .. } | _ => {
            json!({"event": "other"})
        }
    }
}

#[cfg(test)]
mod tests {
    use duologue_client::{Message, MessageId, Seq, UnixMillis};

    use super::*;

    #[tokio::test]
    async fn a_message_is_one_line_without_control_characters() {
        let user = |name| UserId::parse(name).unwrap();
        let event = Event::Message(Message {
            peer: user("bob"),
            seq: Seq(3),
            message_id: MessageId::parse("m-1").unwrap(),
            sender: user("bob"),
            content: Content::Text("one\ntwo \x1b[2J".into()),
            accepted_at: UnixMillis(5),
        });
        let mut output = Vec::new();
        assert!(write(&mut output, &line(&event)).await.unwrap());
        let text = String::from_utf8(output).unwrap();
        assert_eq!(
            text,
            "{\"accepted_at_ms\":5,\"event\":\"message\",\"message_id\":\"m-1\",\"peer\":\"bob\",\
             \"sender\":\"bob\",\"seq\":3,\"text\":\"one\\ntwo \\u001b[2J\"}\n"
        );
        assert_eq!(about(&event), Some(&user("bob")));
    }

    #[tokio::test]
    async fn a_closed_output_ends_the_program_without_an_error() {
        let (reader, mut writer) = tokio::io::duplex(16);
        drop(reader);
        assert!(
            !write(&mut writer, &json!({"event": "caught_up"}))
                .await
                .unwrap()
        );
    }
}
