//! The flags of the listener for browsers, in whichever program it is, and those of the
//! program `duologue-gateway`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser};
use duologue_runtime::auth::{DEV_KEY_FILE, DevKey};
use duologue_runtime::inner::Credentials;
use duologue_runtime::listener::ExposureError;
use duologue_runtime::process::{DoorArgs, ProcessArgs, ProcessError, rate};
use duologue_runtime::rate::RateLimit;
use duologue_runtime::upstream::Addresses;

use crate::origin::{Origin, Origins};
use crate::websocket::DEFAULT_MAX_WAITING_PER_ADDRESS;

/// The listener for browsers.
#[derive(Args, Debug, Clone)]
pub struct WebArgs {
    /// Where browsers are served, over HTTP/1.1 and HTTP/2: gRPC-Web and the chat page. Port 0
    /// takes a free one
    #[arg(
        long,
        value_name = "ADDR",
        env = "DUOLOGUE_WEB_LISTEN",
        default_value = "127.0.0.1:8080"
    )]
    pub web_listen: SocketAddr,
    /// An origin whose pages may call, such as `https://chat.example.com`; repeatable. Without
    /// any, those of --web-listen itself
    #[arg(
        long,
        value_name = "ORIGIN",
        env = "DUOLOGUE_ALLOWED_ORIGIN",
        value_delimiter = ','
    )]
    pub allowed_origin: Vec<Origin>,
    /// Requests from one address to --web-listen: per second, and at once
    #[arg(long, value_name = "RATE/BURST", env = "DUOLOGUE_REQUESTS_PER_ADDRESS", default_value = "1000/5000", value_parser = rate)]
    pub requests_per_address: RateLimit,
    /// WebSockets from one address at once that have not said Hello
    #[arg(long, value_name = "NUMBER", env = "DUOLOGUE_WAITING_PER_ADDRESS", default_value_t = DEFAULT_MAX_WAITING_PER_ADDRESS)]
    pub waiting_per_address: usize,
}

impl WebArgs {
    /// Whether this may be listened on: the rules are those of gRPC. `dev_key`: the
    /// development key is in use.
    pub fn check_exposure(&self, door: &DoorArgs, dev_key: bool) -> Result<(), ExposureError> {
        door.check_exposure(self.web_listen, dev_key)
    }

    /// Whose pages may call a gateway that listens on `addr`.
    pub fn origins(&self, addr: SocketAddr, tls: bool) -> Origins {
        if self.allowed_origin.is_empty() {
            return Origins::own(addr, tls);
        }
        Origins::of(self.allowed_origin.clone())
    }

    /// Says loudly what an operator may not have meant.
    pub fn warn(&self) {
        if self.allowed_origin.is_empty() && self.web_listen.ip().is_unspecified() {
            tracing::warn!(
                "no page may call: give --allowed-origin, since --web-listen names no host"
            );
        }
    }
}

/// Serves browsers before the nodes of Duologue's chat: the chat page, gRPC-Web and WebSocket.
/// It keeps nothing, so there may be any number of it.
#[derive(Parser, Debug, Clone)]
#[command(name = "duologue-gateway", version, max_term_width = 100)]
pub struct ServeConfig {
    /// Where chat nodes serve users: http://HOST:PORT (https:// with --chat-tls-ca), several with
    /// commas between, or dns://NAME:PORT for all addresses of a name
    #[arg(long, value_name = "WHERE", env = "DUOLOGUE_CHAT")]
    pub chat: Addresses,
    /// The authorities that sign the certificates of chat nodes, as PEM. Without it, they are
    /// called in the clear
    #[arg(long, value_name = "FILE", env = "DUOLOGUE_CHAT_TLS_CA")]
    pub chat_tls_ca: Option<PathBuf>,
    /// The folder of a development key whose public half the chat nodes accept: the page signs in
    /// whoever gives a name. Only with everything on loopback
    #[arg(long, value_name = "DIR", env = "DUOLOGUE_DEV_KEY")]
    pub dev_key: Option<PathBuf>,
    /// The listener for browsers.
    #[command(flatten)]
    pub web: WebArgs,
    /// How they come in.
    #[command(flatten)]
    pub door: DoorArgs,
    /// The process.
    #[command(flatten)]
    pub process: ProcessArgs,
}

impl ServeConfig {
    /// Refuses what must not be served.
    pub fn check(&self) -> Result<(), ProcessError> {
        self.web
            .check_exposure(&self.door, self.dev_key.is_some())?;
        self.door.tls()?;
        Credentials::of_users(self.chat_tls_ca.as_deref())?;
        self.check_dev_key()
    }

    /// A key that is made here would open nothing.
    fn check_dev_key(&self) -> Result<(), ProcessError> {
        let Some(folder) = &self.dev_key else {
            return Ok(());
        };
        if !self.chat.are_loopback() {
            let text = "--dev-key is for loopback only: give --chat as addresses such as \
                        http://127.0.0.1:50051";
            return Err(text.into());
        }
        if !folder.join(DEV_KEY_FILE).try_exists()? {
            let folder = folder.display();
            return Err(format!("--dev-key {folder}: there is no development key").into());
        }
        DevKey::load_or_create(folder)?;
        Ok(())
    }

    /// Says loudly what an operator may not have meant.
    pub(crate) fn warn(&self) {
        if self.dev_key.is_some() {
            tracing::warn!(
                "the development key is in use: whoever reaches the page can be any user"
            );
        }
        self.door.warn();
        self.web.warn();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(flags: &[&str]) -> Result<(), String> {
        let flags = ["duologue-gateway"].iter().chain(flags);
        let config = ServeConfig::try_parse_from(flags).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_served_beyond_loopback_takes_tls_or_a_proxy() {
        let chat = "--chat=http://chat-1:50051";
        assert_eq!(check(&[chat]), Ok(()));
        let refused = check(&[chat, "--web-listen=0.0.0.0:8080"]).unwrap_err();
        assert!(refused.contains("--plaintext-behind-proxy"), "{refused}");
        let behind = ["--web-listen=0.0.0.0:8080", "--plaintext-behind-proxy"];
        assert_eq!(check(&[chat, behind[0], behind[1]]), Ok(()));
        assert!(check(&[]).unwrap_err().contains("--chat"));
    }

    #[test]
    fn a_development_key_is_one_that_is_there_with_everything_on_loopback() {
        let folder = tempfile::tempdir().unwrap();
        let key = format!("--dev-key={}", folder.path().display());
        let near = "--chat=http://127.0.0.1:50051,http://[::1]:50052";
        let missing = check(&[near, &key]).unwrap_err();
        assert!(missing.contains("no development key"), "{missing}");
        DevKey::load_or_create(folder.path()).unwrap();
        assert_eq!(check(&[near, &key]), Ok(()));
        for far in [
            "--chat=http://127.0.0.1:1,http://chat-1:1",
            "--chat=dns://localhost:1",
        ] {
            let refused = check(&[far, &key]).unwrap_err();
            assert!(refused.contains("loopback only"), "{refused}");
        }
        let exposed = ["--web-listen=0.0.0.0:8080", "--plaintext-behind-proxy"];
        let refused = check(&[near, &key, exposed[0], exposed[1]]).unwrap_err();
        assert!(refused.contains("loopback"), "{refused}");
    }
}
