//! The program `duologue-gateway`; everything is in the library of the same name.

use duologue_gateway::serve;
use duologue_runtime::{process, threads};

fn main() -> std::io::Result<std::process::ExitCode> {
    threads::run(process::run(
        serve::BUILD,
        |config: &serve::ServeConfig| &config.process,
        serve::ServeConfig::check,
        serve::run,
    ))
}
