//! `duologue health`: asks a server whether it serves, for scripts and health
//! checks of containers.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use duologue_runtime::config::duration;
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
    /// How long to wait for the answer
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = duration)]
    timeout: Duration,
}

#[expect(
    clippy::print_stdout,
    reason = "the answer is for a person or a script"
)]
pub(crate) async fn run(args: HealthArgs) -> anyhow::Result<()> {
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
