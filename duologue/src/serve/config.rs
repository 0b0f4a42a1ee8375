//! The flags of `duologue serve`.

#![expect(
    clippy::doc_markdown,
    reason = "what is shown by --help has no backticks"
)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use duologue_chat::Visibility;
use duologue_proto::ids::NodeId;
use duologue_proto::limits::MAX_TEXT_BYTES;
use duologue_runtime::config::duration;
use duologue_runtime::rate::RateLimit;
use duologue_runtime::telemetry::LogFormat;

/// Serve the whole system in one process.
///
/// With nothing configured it listens on loopback, keeps its data in
/// ./duologue-data, and accepts tokens of a development key that it makes there;
/// `duologue token NAME` signs with it.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Where everything is kept; `memory` for nowhere
    #[arg(
        long,
        value_name = "DIR",
        env = "DUOLOGUE_DATA",
        default_value = "./duologue-data"
    )]
    pub(crate) data: PathBuf,
    /// Where gRPC is served; port 0 takes a free one
    #[arg(
        long,
        value_name = "ADDR",
        env = "DUOLOGUE_GRPC_LISTEN",
        default_value = "127.0.0.1:50051"
    )]
    pub(crate) grpc_listen: SocketAddr,
    /// Where health, metrics and build are shown, over HTTP; port 0 takes a free one
    #[arg(
        long,
        value_name = "ADDR",
        env = "DUOLOGUE_ADMIN_LISTEN",
        default_value = "127.0.0.1:9090"
    )]
    pub(crate) admin_listen: SocketAddr,
    /// The name of this node
    #[arg(
        long,
        value_name = "NAME",
        env = "DUOLOGUE_NODE",
        default_value = "node-1"
    )]
    pub(crate) node: NodeId,

    /// A public key that signs users' tokens, as PEM or JWKS (EdDSA, ES256, RS256); repeatable.
    /// Without any, a development key is made in the data directory
    #[arg(
        long,
        value_name = "FILE",
        env = "DUOLOGUE_JWT_PUBLIC_KEY",
        value_delimiter = ','
    )]
    pub(crate) jwt_public_key: Vec<PathBuf>,
    /// An issuer (iss) whose tokens are accepted; repeatable. Without any, iss is not checked
    #[arg(
        long,
        value_name = "ISSUER",
        env = "DUOLOGUE_JWT_ISSUER",
        value_delimiter = ','
    )]
    pub(crate) jwt_issuer: Vec<String>,
    /// An audience (aud) that a token may be for; repeatable. Without any, aud is not checked
    #[arg(
        long,
        value_name = "AUDIENCE",
        env = "DUOLOGUE_JWT_AUDIENCE",
        value_delimiter = ','
    )]
    pub(crate) jwt_audience: Vec<String>,

    /// The certificate chain for gRPC, as PEM; read again when it changes
    #[arg(
        long,
        value_name = "FILE",
        env = "DUOLOGUE_TLS_CERT",
        requires = "tls_key"
    )]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The private key of the certificate, as PEM
    #[arg(
        long,
        value_name = "FILE",
        env = "DUOLOGUE_TLS_KEY",
        requires = "tls_cert"
    )]
    pub(crate) tls_key: Option<PathBuf>,
    /// Listen beyond loopback without TLS, because a proxy in front does TLS
    #[arg(long, env = "DUOLOGUE_PLAINTEXT_BEHIND_PROXY")]
    pub(crate) plaintext_behind_proxy: bool,
    /// Do not describe the contract to tools such as grpcurl
    #[arg(long, env = "DUOLOGUE_NO_REFLECTION")]
    pub(crate) no_reflection: bool,

    /// The longest text of a message, in bytes of UTF-8: 1 to 8192
    #[arg(long, value_name = "BYTES", env = "DUOLOGUE_MAX_TEXT_BYTES", default_value_t = 8192,
          value_parser = clap::value_parser!(u16).range(1..=i64::try_from(MAX_TEXT_BYTES).unwrap_or(1)))]
    pub(crate) max_text_bytes: u16,
    /// Who may see whether a user is online. Without it, everyone while the development key is
    /// in use, else users who share a conversation
    #[arg(long, value_name = "WHO", env = "DUOLOGUE_PRESENCE_VISIBILITY")]
    pub(crate) presence_visibility: Option<PresenceVisibility>,

    /// Messages that one user may send: per second, and at once
    #[arg(long, value_name = "RATE/BURST", env = "DUOLOGUE_SENDS", default_value = "100/500", value_parser = rate)]
    pub(crate) sends: RateLimit,
    /// Calls that one user may make: per second, and at once
    #[arg(long, value_name = "RATE/BURST", env = "DUOLOGUE_CALLS", default_value = "100/500", value_parser = rate)]
    pub(crate) calls: RateLimit,
    /// Streams that one user may open: per second, and at once
    #[arg(long, value_name = "RATE/BURST", env = "DUOLOGUE_CONNECTS", default_value = "5/50", value_parser = rate)]
    pub(crate) connects: RateLimit,
    /// Open streams of one user
    #[arg(
        long,
        value_name = "COUNT",
        env = "DUOLOGUE_SESSIONS_PER_USER",
        default_value_t = 32
    )]
    pub(crate) sessions_per_user: usize,
    /// Open streams from one address
    #[arg(
        long,
        value_name = "COUNT",
        env = "DUOLOGUE_SESSIONS_PER_ADDRESS",
        default_value_t = 1_000
    )]
    pub(crate) sessions_per_address: usize,
    /// Open connections from one address
    #[arg(
        long,
        value_name = "COUNT",
        env = "DUOLOGUE_CONNECTIONS_PER_ADDRESS",
        default_value_t = 1_000
    )]
    pub(crate) connections_per_address: usize,
    /// Open connections in all
    #[arg(
        long,
        value_name = "COUNT",
        env = "DUOLOGUE_CONNECTIONS",
        default_value_t = 16_000
    )]
    pub(crate) connections: usize,
    /// How long a unary call may take, if its caller allows more
    #[arg(long, value_name = "DURATION", env = "DUOLOGUE_UNARY_DEADLINE", default_value = "10s", value_parser = duration)]
    pub(crate) unary_deadline: Duration,

    /// How long the process may take to end after SIGTERM
    #[arg(long, value_name = "DURATION", env = "DUOLOGUE_GRACE", default_value = "20s", value_parser = duration)]
    pub(crate) grace: Duration,
    /// Over how long clients are spread when they come back after SIGTERM
    #[arg(long, value_name = "DURATION", env = "DUOLOGUE_DRAIN_SPREAD", default_value = "2s", value_parser = duration)]
    pub(crate) drain_spread: Duration,

    /// What to log, such as info or info,duologue_chat=debug
    #[arg(long, value_name = "FILTER", env = "RUST_LOG", default_value = "info")]
    pub(crate) log: String,
    /// How the log looks
    #[arg(
        long,
        value_name = "FORMAT",
        env = "DUOLOGUE_LOG_FORMAT",
        default_value = "auto"
    )]
    pub(crate) log_format: LogFormat,
    /// Where traces are sent, by OTLP over gRPC; without it, nowhere
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub(crate) otlp_endpoint: Option<String>,
    /// Check everything that can be checked without serving, print the effective values, and end
    #[arg(long)]
    pub(crate) check_config: bool,
}

/// Who may see whether a user is online.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PresenceVisibility {
    /// Users who share a conversation
    Shared,
    /// Everyone
    Everyone,
}

impl ServeArgs {
    /// Whether nothing is kept.
    pub(crate) fn in_memory(&self) -> bool {
        self.data.as_os_str() == "memory"
    }

    /// Whether the development key is in use.
    pub(crate) fn uses_dev_key(&self) -> bool {
        self.jwt_public_key.is_empty()
    }

    /// Who may see whether a user is online.
    pub(crate) fn visibility(&self) -> Visibility {
        match self.presence_visibility {
            Some(PresenceVisibility::Everyone) => Visibility::Everyone,
            None if self.uses_dev_key() => Visibility::Everyone,
            Some(PresenceVisibility::Shared) | None => Visibility::Shared,
        }
    }
}

/// A rate as `per second/at once`.
fn rate(text: &str) -> Result<RateLimit, String> {
    let parse = |number: &str| {
        number
            .trim()
            .parse::<u32>()
            .ok()
            .filter(|number| *number > 0)
    };
    let parts = text.split_once('/');
    let numbers = parts.and_then(|(rate, burst)| Some((parse(rate)?, parse(burst)?)));
    let (per_second, burst) = numbers
        .ok_or("must be two whole numbers above 0, per second and at once, such as 100/500")?;
    Ok(RateLimit { per_second, burst })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_two_numbers() {
        let limit = rate("100/500").unwrap();
        assert_eq!((limit.per_second, limit.burst), (100, 500));
        for bad in ["", "100", "0/1", "1/0", "a/b", "1/2/3", "-1/2"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
