//! How `talk`, `send` and `tail` reach the server, and as whom.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use duologue_client::{Builder, Client, Event, StopReason, TokenError, UserId};
use duologue_runtime::auth::DevKey;
use duologue_runtime::clock::SystemClock;

/// How long a token that is signed here is good for; a new one is signed for
/// every connect.
pub(crate) const TOKEN_LIFETIME: Duration = Duration::from_hours(24);

/// The server, and who the caller is.
#[derive(Args)]
pub(crate) struct ConnectArgs {
    /// Who you are: 1 to 64 of letters, digits and . _ - @ +
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) user: UserId,
    /// The server: <http://host:port> or <https://host:port>
    #[arg(
        long,
        value_name = "URL",
        env = "DUOLOGUE_ADDR",
        default_value = "http://127.0.0.1:50051"
    )]
    addr: String,
    /// Your bearer token; without one, the development key in --data signs it
    #[arg(
        long,
        value_name = "TOKEN",
        env = "DUOLOGUE_TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
    /// The data directory of a server on this machine, with its development key
    #[arg(
        long,
        value_name = "DIR",
        env = "DUOLOGUE_DATA",
        default_value = "./duologue-data"
    )]
    data: PathBuf,
    /// A certificate authority (PEM) to trust instead of the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl ConnectArgs {
    /// A client that is ready to start.
    pub(crate) fn builder(&self) -> anyhow::Result<Builder> {
        let mut builder =
            Client::builder(&self.addr).program("duologue", env!("CARGO_PKG_VERSION"));
        if let Some(ca) = &self.ca {
            let pem = std::fs::read(ca).with_context(|| format!("cannot read {}", ca.display()))?;
            builder = builder.ca_pem(pem);
        }
        if let Some(token) = &self.token {
            return Ok(builder.token(token));
        }
        if self.data.as_os_str() == "memory" {
            bail!("a server in memory prints its tokens when it starts: give one with --token");
        }
        let key = DevKey::load_or_create(&self.data)?;
        let user = self.user.clone();
        let sign = move |_refused| {
            let token = key.sign(&user, TOKEN_LIFETIME, &SystemClock);
            std::future::ready(Ok::<_, TokenError>(token))
        };
        Ok(builder.token_source(sign))
    }

    /// Whether an event means that there is no way to go on.
    pub(crate) fn check(&self, event: &Event) -> anyhow::Result<()> {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "only events that end the program are named"
        )]
        match event {
            Event::Connected(session) if session.user != self.user => {
                bail!(
                    "the token is that of {}, not of {}",
                    session.user,
                    self.user
                )
            }
            Event::Superseded => bail!("a newer session of this device took over"),
            Event::Stopped(reason) => bail!("{}", stopped(reason)),
            _ => Ok(()),
        }
    }
}

fn stopped(reason: &StopReason) -> String {
    match reason {
        StopReason::Unauthenticated { detail } => {
            format!("the server does not accept the token: {}", escape(detail))
        }
        StopReason::OtherUser { expected, actual } => {
            format!("the token is that of {actual}, not of {expected}")
        }
        StopReason::Refused { detail } => format!("the server refuses: {}", escape(detail)),
        StopReason::Persistence { detail } => format!("state cannot be saved: {detail}"),
        other => format!("{other:?}"),
    }
}

/// Text as it may be shown: nothing in it can move the cursor, change colours or
/// turn the direction of writing.
pub(crate) fn escape(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || is_directing(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Characters that reorder or break what stands around them.
fn is_directing(character: char) -> bool {
    matches!(character, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Waits until the program is asked to end.
pub(crate) async fn asked_to_end() -> anyhow::Result<()> {
    #[cfg(unix)]
    {
        let kind = tokio::signal::unix::SignalKind::terminate();
        let mut terminate = tokio::signal::unix::signal(kind)?;
        tokio::select! {
            biased;
            _ = terminate.recv() => Ok(()),
            interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        }
    }
    #[cfg(not(unix))]
    Ok(tokio::signal::ctrl_c().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_message_sends_no_escape_sequence() {
        let hostile = "a\x1b[2J\u{9b}31m\r\n\x07\u{202e}ü✓";
        let shown = escape(hostile);
        assert_eq!(shown, "a\\u{1b}[2J\\u{9b}31m\\r\\n\\u{7}\\u{202e}ü✓");
        assert!(!shown.chars().any(char::is_control));
    }
}
