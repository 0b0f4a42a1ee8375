//! The flags of a chat node, and of the program `duologue-chat`.

use std::time::Duration;

use clap::{Args, Parser, ValueEnum};
use duologue_proto::ids::NodeId;
use duologue_proto::limits::MAX_TEXT_BYTES;
use duologue_runtime::auth::load_keys;
use duologue_runtime::config::duration;
use duologue_runtime::process::{InnerArgs, ProcessArgs, ProcessError, PublicArgs, rate};
use duologue_runtime::rate::RateLimit;
use duologue_runtime::upstream::Addresses;

use crate::core::{ChatConfig, Visibility};

/// What a chat node is told, in whichever program it runs.
#[derive(Args, Debug, Clone)]
pub struct ChatArgs {
    /// The name of this node
    #[arg(
        long,
        value_name = "NAME",
        env = "DUOLOGUE_NODE",
        default_value = "node-1"
    )]
    pub node: NodeId,
    /// The longest text of a message, in bytes of UTF-8: 1 to 8192
    #[arg(long, value_name = "BYTES", env = "DUOLOGUE_MAX_TEXT_BYTES", default_value_t = 8192,
          value_parser = clap::value_parser!(u16).range(1..=i64::try_from(MAX_TEXT_BYTES).unwrap_or(1)))]
    pub max_text_bytes: u16,
    /// Who may see whether a user is online. Without it, users who share a conversation, or
    /// everyone if there is no --jwt-public-key
    #[arg(long, value_name = "WHO", env = "DUOLOGUE_PRESENCE_VISIBILITY")]
    pub presence_visibility: Option<PresenceVisibility>,
    /// Messages that one user may send: per second, and at once
    #[arg(long, value_name = "RATE/BURST", env = "DUOLOGUE_SENDS", default_value = "100/500", value_parser = rate)]
    pub sends: RateLimit,
    /// Streams that one user may open: per second, and at once
    #[arg(long, value_name = "RATE/BURST", env = "DUOLOGUE_CONNECTS", default_value = "5/50", value_parser = rate)]
    pub connects: RateLimit,
    /// Open streams of one user
    #[arg(
        long,
        value_name = "COUNT",
        env = "DUOLOGUE_SESSIONS_PER_USER",
        default_value_t = 32
    )]
    pub sessions_per_user: usize,
    /// Open streams from one address
    #[arg(
        long,
        value_name = "COUNT",
        env = "DUOLOGUE_SESSIONS_PER_ADDRESS",
        default_value_t = 1_000
    )]
    pub sessions_per_address: usize,
    /// Within how long sessions are sent away after SIGTERM, one after the other; at most half of what is left of --grace
    #[arg(long, value_name = "DURATION", env = "DUOLOGUE_DRAIN_SPREAD", default_value = "2s", value_parser = duration)]
    pub drain_spread: Duration,
}

/// Who may see whether a user is online.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PresenceVisibility {
    /// Users who share a conversation
    Shared,
    /// Everyone
    Everyone,
}

impl ChatArgs {
    /// What the node is made with. `dev_key`: the development key is in use.
    pub fn config(&self, dev_key: bool) -> ChatConfig {
        let visibility = match self.presence_visibility {
            Some(PresenceVisibility::Everyone) => Visibility::Everyone,
            None if dev_key => Visibility::Everyone,
            Some(PresenceVisibility::Shared) | None => Visibility::Shared,
        };
        ChatConfig {
            node: self.node.clone(),
            max_text_bytes: usize::from(self.max_text_bytes),
            visibility,
            sends: self.sends,
            connects: self.connects,
            sessions_per_user: self.sessions_per_user,
            sessions_per_address: self.sessions_per_address,
        }
    }
}

/// Holds the streams of devices: one node of Duologue's chat, beside history and presence.
#[derive(Parser, Debug, Clone)]
#[command(name = "duologue-chat", version, max_term_width = 100)]
pub struct ServeConfig {
    /// Where history is: http://HOST:PORT (https:// with certificates), several with commas
    /// between, or dns://NAME:PORT for all addresses of a name
    #[arg(long, value_name = "WHERE", env = "DUOLOGUE_HISTORY")]
    pub history: Addresses,
    /// Where presence is, likewise
    #[arg(long, value_name = "WHERE", env = "DUOLOGUE_PRESENCE")]
    pub presence: Addresses,
    /// Where other chat nodes reach --internal-listen, as HOST:PORT; without it, at that address,
    /// which then must not mean any address
    #[arg(long, value_name = "HOST:PORT", env = "DUOLOGUE_INTERNAL_ADVERTISE")]
    pub internal_advertise: Option<String>,
    /// The node.
    #[command(flatten)]
    pub chat: ChatArgs,
    /// The listener for users.
    #[command(flatten)]
    pub public: PublicArgs,
    /// The listener for other nodes.
    #[command(flatten)]
    pub inner: InnerArgs,
    /// The process.
    #[command(flatten)]
    pub process: ProcessArgs,
}

impl ServeConfig {
    /// Refuses what must not be served.
    pub fn check(&self) -> Result<(), ProcessError> {
        if self.public.uses_dev_key() {
            return Err(
                "give --jwt-public-key: a node has no data directory to make a \
                        development key in"
                    .into(),
            );
        }
        self.public.check_exposure()?;
        self.public.door.tls()?;
        load_keys(&self.public.jwt_public_key)?;
        self.inner.credentials()?;
        self.check_advertised()
    }

    /// Other nodes would find themselves, or nobody, at an address that means "any".
    fn check_advertised(&self) -> Result<(), ProcessError> {
        let listen = self.inner.internal_listen;
        if self.internal_advertise.is_none() && listen.ip().is_unspecified() {
            let text = format!(
                "give --internal-advertise: other nodes cannot call {listen}, where \
                 --internal-listen listens"
            );
            return Err(text.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_nobody_can_call_is_not_told_to_other_nodes() {
        let check = |listen: &str, more: &[&str]| {
            let always = [
                "duologue-chat",
                "--history=http://h:1",
                "--presence=http://p:1",
                "--internal-listen",
                listen,
            ];
            let arguments = always.iter().chain(more);
            ServeConfig::try_parse_from(arguments)
                .unwrap()
                .check_advertised()
        };
        for listen in ["0.0.0.0:7000", "[::]:7000"] {
            let error = check(listen, &[]).unwrap_err().to_string();
            assert!(
                error.contains("--internal-advertise") && error.contains(listen),
                "{error}"
            );
            assert!(check(listen, &["--internal-advertise=chat-1:7000"]).is_ok());
        }
        assert!(check("127.0.0.1:0", &[]).is_ok());
    }
}
