//! `duologue health`: asks a server whether it serves, for scripts and health
//! checks of containers: by gRPC, or at the admin listener.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use duologue_runtime::config::duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Ask a server whether it serves; exit 0 if it does. Needs no token.
#[derive(Args)]
pub(crate) struct HealthArgs {
    /// The server's gRPC address
    #[arg(
        long,
        value_name = "URL",
        env = "DUOLOGUE_ADDR",
        default_value = "http://127.0.0.1:50051"
    )]
    addr: String,
    /// Certificate authorities to trust instead of the system's, as PEM
    #[arg(long, value_name = "FILE", env = "DUOLOGUE_CA")]
    ca: Option<std::path::PathBuf>,
    /// One service, by its full name; without it, the whole server
    #[arg(long, value_name = "NAME", default_value = "")]
    service: String,
    /// Ask the admin listener instead, at http://HOST:PORT, whether the process is ready: what
    /// programs answer that only other services call
    #[arg(long, value_name = "URL", env = "DUOLOGUE_ADMIN_ADDR")]
    admin: Option<String>,
    /// How long to wait for the answer
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = duration)]
    timeout: Duration,
}

#[expect(
    clippy::print_stdout,
    reason = "the answer is for a person or a script"
)]
pub(crate) async fn run(args: HealthArgs) -> anyhow::Result<()> {
    if let Some(admin) = &args.admin {
        let asked = tokio::time::timeout(args.timeout, readiness(admin)).await;
        let answer = asked.with_context(|| format!("{admin} does not answer"))??;
        println!("{}", answer.body.trim_end());
        anyhow::ensure!(answer.is_ok, "{admin} is not ready");
        return Ok(());
    }
    let mut endpoint = Endpoint::from_shared(args.addr.clone())?
        .connect_timeout(args.timeout)
        .timeout(args.timeout);
    if args.addr.starts_with("https:") {
        let mut tls = ClientTlsConfig::new().with_enabled_roots();
        if let Some(ca) = &args.ca {
            let pem = std::fs::read(ca).with_context(|| format!("cannot read {}", ca.display()))?;
            tls = tls.ca_certificate(Certificate::from_pem(pem));
        }
        endpoint = endpoint.tls_config(tls)?;
    }
    let unreachable = || format!("{} cannot be reached", args.addr);
    let channel = endpoint.connect().await.with_context(unreachable)?;
    let request = HealthCheckRequest {
        service: args.service.clone(),
    };
    let answer = HealthClient::new(channel)
        .check(request)
        .await
        .map_err(|status| anyhow::anyhow!("{} does not answer: {}", args.addr, status.message()))?;
    let status = answer.into_inner().status();
    println!("{}", status.as_str_name());
    anyhow::ensure!(
        status == ServingStatus::Serving,
        "{} does not serve",
        args.addr
    );
    Ok(())
}

/// What the admin listener says.
struct Answer {
    is_ok: bool,
    body: String,
}

/// Asks as plainly as can be: the listener is ours.
async fn readiness(admin: &str) -> anyhow::Result<Answer> {
    /// More than any answer has.
    const MAX_ANSWER_BYTES: u64 = 64 * 1024;
    let host = admin.strip_prefix("http://").unwrap_or(admin);
    let host = host.trim_end_matches('/');
    let unreachable = || format!("{admin} cannot be reached");
    let mut stream = TcpStream::connect(host).await.with_context(unreachable)?;
    let request = format!("GET /readyz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = Vec::new();
    let mut answer = stream.take(MAX_ANSWER_BYTES);
    answer.read_to_end(&mut text).await?;
    let text = String::from_utf8_lossy(&text);
    let parts = text.split_once("\r\n\r\n");
    let (head, body) = parts.with_context(|| format!("{admin} does not answer in HTTP"))?;
    Ok(Answer {
        is_ok: head.split(' ').nth(1) == Some("200"),
        body: body.to_owned(),
    })
}
