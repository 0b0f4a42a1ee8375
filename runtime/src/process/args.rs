//! The flags that every server of the system has under the same names: as groups,
//! of which each program takes those that it needs.

#![expect(
    clippy::doc_markdown,
    reason = "what is shown by --help has no backticks"
)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::config::duration;
use crate::inner::{Credentials, InnerConfig, InnerError, mutual_tls_files};
use crate::listener::{
    ExposureError, Proxies, Seats, Tls, TlsError, TlsFiles, TrustedProxy, check_exposure,
};
use crate::rate::RateLimit;
use crate::telemetry::LogFormat;

/// How the process is watched, ended and logged.
#[derive(Args, Debug, Clone)]
pub struct ProcessArgs {
    /// Where health, metrics and build are shown, over HTTP; port 0 takes a free one
    #[arg(
        long,
        value_name = "ADDR",
        env = "DUOLOGUE_ADMIN_LISTEN",
        default_value = "127.0.0.1:9090"
    )]
    pub admin_listen: SocketAddr,
    /// How long a unary call may take, if its caller allows more
    #[arg(long, value_name = "DURATION", env = "DUOLOGUE_UNARY_DEADLINE", default_value = "10s", value_parser = duration)]
    pub unary_deadline: Duration,
    /// Open connections in all
    #[arg(
        long,
        value_name = "COUNT",
        env = "DUOLOGUE_CONNECTIONS",
        default_value_t = 16_000
    )]
    pub connections: usize,
    /// How long the process may take to end after SIGTERM
    #[arg(long, value_name = "DURATION", env = "DUOLOGUE_GRACE", default_value = "20s", value_parser = duration)]
    pub grace: Duration,
    /// How long the process serves as before after SIGTERM, with readiness failing already, so that balancers notice; a part of --grace. History and presence do not wait: who calls them knows at once
    #[arg(long, value_name = "DURATION", env = "DUOLOGUE_DRAIN_DELAY", default_value = "0s", value_parser = duration)]
    pub drain_delay: Duration,
    /// What to log, such as info or info,duologue_chat=debug
    #[arg(long, value_name = "FILTER", env = "RUST_LOG", default_value = "info")]
    pub log: String,
    /// How the log looks
    #[arg(
        long,
        value_name = "FORMAT",
        env = "DUOLOGUE_LOG_FORMAT",
        default_value = "auto"
    )]
    pub log_format: LogFormat,
    /// Where traces are sent, by OTLP over gRPC; without it, nowhere
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
    /// Check everything that can be checked without serving, print the effective values, and end
    #[arg(long)]
    pub check_config: bool,
}

/// How users come in, natives and browsers alike.
#[derive(Args, Debug, Clone)]
pub struct DoorArgs {
    /// The certificate chain that is shown to users, as PEM; read again when it changes
    #[arg(
        long,
        value_name = "FILE",
        env = "DUOLOGUE_TLS_CERT",
        requires = "tls_key"
    )]
    pub tls_cert: Option<PathBuf>,
    /// The private key of the certificate, as PEM
    #[arg(
        long,
        value_name = "FILE",
        env = "DUOLOGUE_TLS_KEY",
        requires = "tls_cert"
    )]
    pub tls_key: Option<PathBuf>,
    /// Listen beyond loopback without TLS, because a proxy in front does TLS
    #[arg(long, env = "DUOLOGUE_PLAINTEXT_BEHIND_PROXY")]
    pub plaintext_behind_proxy: bool,
    /// Open connections from one address
    #[arg(
        long,
        value_name = "COUNT",
        env = "DUOLOGUE_CONNECTIONS_PER_ADDRESS",
        default_value_t = 1_000
    )]
    pub connections_per_address: usize,
    /// A proxy in front, as an address or a network such as 10.0.0.0/24: it is believed for whom
    /// it asks (x-forwarded-for), and its connections do not count by address; repeatable.
    /// Without any, nobody is
    #[arg(
        long,
        value_name = "ADDR",
        env = "DUOLOGUE_TRUSTED_PROXY",
        value_delimiter = ','
    )]
    pub trusted_proxy: Vec<TrustedProxy>,
}

impl DoorArgs {
    /// Whether this may be listened on. `dev_key`: the development key is accepted.
    pub fn check_exposure(&self, addr: SocketAddr, dev_key: bool) -> Result<(), ExposureError> {
        check_exposure(addr, self.has_tls(), self.plaintext_behind_proxy, dev_key)
    }

    /// Whether users come in by TLS.
    pub fn has_tls(&self) -> bool {
        self.tls_cert.is_some()
    }

    /// Reads the certificate, if one is configured.
    pub fn tls(&self) -> Result<Option<Tls>, TlsError> {
        let files = self.tls_cert.clone().zip(self.tls_key.clone());
        let tls = files.map(|(cert, key)| Tls::load(TlsFiles { cert, key }));
        tls.transpose()
    }

    /// Who is believed for whom it asks.
    pub fn proxies(&self) -> Proxies {
        Proxies::of(&self.trusted_proxy)
    }

    /// The places for connections, of which there are so many in all.
    pub fn seats(&self, connections: usize) -> Seats {
        Seats::new(connections, self.connections_per_address).but_for(self.proxies())
    }

    /// Says loudly what an operator may not have meant.
    pub fn warn(&self) {
        if self.plaintext_behind_proxy && !self.has_tls() {
            tracing::warn!("no tls: tokens and messages are in the clear up to the proxy");
        }
    }
}

/// The listener for users, and who they are.
#[derive(Args, Debug, Clone)]
pub struct PublicArgs {
    /// Where gRPC is served; port 0 takes a free one
    #[arg(
        long,
        value_name = "ADDR",
        env = "DUOLOGUE_GRPC_LISTEN",
        default_value = "127.0.0.1:50051"
    )]
    pub grpc_listen: SocketAddr,
    /// A public key that signs users' tokens, as PEM or JWKS (EdDSA, ES256, RS256); repeatable.
    /// Without any, duologue makes a development key in its data directory, and duologue-chat does
    /// not start
    #[arg(
        long,
        value_name = "FILE",
        env = "DUOLOGUE_JWT_PUBLIC_KEY",
        value_delimiter = ','
    )]
    pub jwt_public_key: Vec<PathBuf>,
    /// An issuer (iss) whose tokens are accepted; repeatable. Without any, iss is not checked
    #[arg(
        long,
        value_name = "ISSUER",
        env = "DUOLOGUE_JWT_ISSUER",
        value_delimiter = ','
    )]
    pub jwt_issuer: Vec<String>,
    /// An audience (aud) that a token may be for; repeatable. Without any, aud is not checked
    #[arg(
        long,
        value_name = "AUDIENCE",
        env = "DUOLOGUE_JWT_AUDIENCE",
        value_delimiter = ','
    )]
    pub jwt_audience: Vec<String>,
    /// How users come in.
    #[command(flatten)]
    pub door: DoorArgs,
    /// Do not describe the contract to tools such as grpcurl
    #[arg(long, env = "DUOLOGUE_NO_REFLECTION")]
    pub no_reflection: bool,
    /// Calls that one user may make: per second, and at once
    #[arg(long, value_name = "RATE/BURST", env = "DUOLOGUE_CALLS", default_value = "100/500", value_parser = rate)]
    pub calls: RateLimit,
}

impl PublicArgs {
    /// Whether the development key is in use.
    pub fn uses_dev_key(&self) -> bool {
        self.jwt_public_key.is_empty()
    }

    /// Whether this may be listened on.
    pub fn check_exposure(&self) -> Result<(), ExposureError> {
        self.door
            .check_exposure(self.grpc_listen, self.uses_dev_key())
    }

    /// Says loudly what an operator may not have meant.
    pub fn warn(&self) {
        if self.uses_dev_key() {
            tracing::warn!("the development key is in use: whoever reads it can be any user");
        }
        self.door.warn();
    }
}

/// The listener for other services, and how they know each other.
#[derive(Args, Debug, Clone)]
pub struct InnerArgs {
    /// Where other services call; port 0 takes a free one
    #[arg(long, value_name = "ADDR", env = "DUOLOGUE_INTERNAL_LISTEN")]
    pub internal_listen: SocketAddr,
    /// The certificate chain that is shown to other services, as PEM; read again when it changes
    #[arg(long, value_name = "FILE", env = "DUOLOGUE_INTERNAL_TLS_CERT", requires_all = ["internal_tls_key", "internal_tls_ca"])]
    pub internal_tls_cert: Option<PathBuf>,
    /// The private key of that certificate, as PEM
    #[arg(
        long,
        value_name = "FILE",
        env = "DUOLOGUE_INTERNAL_TLS_KEY",
        requires = "internal_tls_cert"
    )]
    pub internal_tls_key: Option<PathBuf>,
    /// The authorities that sign the certificates of services, as PEM; read again when it changes
    #[arg(
        long,
        value_name = "FILE",
        env = "DUOLOGUE_INTERNAL_TLS_CA",
        requires = "internal_tls_cert"
    )]
    pub internal_tls_ca: Option<PathBuf>,
    /// A DNS name that the certificate of another service may have; repeatable
    #[arg(
        long,
        value_name = "NAME",
        env = "DUOLOGUE_INTERNAL_PEER",
        value_delimiter = ','
    )]
    pub internal_peer: Vec<String>,
    /// The file of the secret that services show each other on a private network, instead of
    /// certificates; a second line is accepted too, while the secret is being changed
    #[arg(long, value_name = "FILE", env = "DUOLOGUE_INTERNAL_SECRET")]
    pub internal_secret: Option<PathBuf>,
}

impl InnerArgs {
    /// Reads what services show each other, and refuses what would expose them.
    pub fn credentials(&self) -> Result<Credentials, InnerError> {
        let credentials = Credentials::load(InnerConfig {
            tls: mutual_tls_files(
                self.internal_tls_cert.clone(),
                self.internal_tls_key.clone(),
                self.internal_tls_ca.clone(),
            ),
            peers: self.internal_peer.clone(),
            secret: self.internal_secret.clone(),
        })?;
        credentials.check_exposure(self.internal_listen)?;
        Ok(credentials)
    }
}

/// A rate as `per second/at once`; a `value_parser`.
pub fn rate(text: &str) -> Result<RateLimit, String> {
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
