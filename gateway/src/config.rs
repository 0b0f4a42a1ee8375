//! The flags of the listener for browsers, in whichever program it is.

use std::net::SocketAddr;

use clap::Args;
use duologue_runtime::listener::{ExposureError, check_exposure};
use duologue_runtime::process::{PublicArgs, rate};
use duologue_runtime::rate::RateLimit;

use crate::origin::{Origin, Origins};

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
}

impl WebArgs {
    /// Whether this may be listened on: the rules are those of gRPC.
    pub fn check_exposure(&self, public: &PublicArgs) -> Result<(), ExposureError> {
        check_exposure(
            self.web_listen,
            public.tls_cert.is_some(),
            public.plaintext_behind_proxy,
            public.uses_dev_key(),
        )
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
