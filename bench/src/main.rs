//! How fast Duologue is, on the reader's own machine: `bench relay` measures it
//! beside a relay that stores nothing, `bench store` on what it has stored, `bench
//! cluster` across chat nodes, `bench doors` by every door.

mod bare;
mod cluster;
mod doors;
mod driver;
mod histogram;
mod idle;
mod knee;
mod machine;
mod options;
mod probe;
mod relay;
mod server;
mod store;
mod throughput;

use anyhow::{Context as _, Result};
use clap::Parser;
use tokio::net::TcpListener;

/// Measures Duologue.
#[derive(Parser)]
#[command(name = "bench")]
enum Command {
    /// Duologue beside a relay that stores nothing, in one run.
    Relay(relay::Options),
    /// Duologue on what it has stored: start-up, pages, logins, a catch-up.
    Store(store::Options),
    /// Pairs across two chat nodes beside the same pairs on one node.
    Cluster(cluster::Options),
    /// The same load by native gRPC, gRPC-Web and WebSocket
    Doors(doors::Options),
    /// Serve the relay that stores nothing; the runs start it themselves.
    Bare,
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    match Command::parse() {
        Command::Relay(options) => relay::run(&runtime, &options),
        Command::Store(options) => store::run(&runtime, &options),
        Command::Cluster(options) => cluster::run(&runtime, &options),
        Command::Doors(options) => doors::run(&runtime, &options),
        Command::Bare => serve_bare(),
    }
}

/// As Duologue does: a worker per core that it may use.
#[tokio::main]
async fn serve_bare() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    say(&format!("gRPC {}", listener.local_addr()?));
    bare::serve(listener).await
}

#[expect(clippy::print_stdout, reason = "this is what a bench is run for")]
fn say(text: &str) {
    println!("{text}");
}
