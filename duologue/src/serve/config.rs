//! The flags of `duologue serve`.

use std::path::PathBuf;

use clap::Args;
use duologue_chat::config::ChatArgs;
use duologue_gateway::WebArgs;
use duologue_runtime::process::{ProcessArgs, PublicArgs};

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
    #[command(flatten)]
    pub(crate) public: PublicArgs,
    #[command(flatten)]
    pub(crate) web: WebArgs,
    #[command(flatten)]
    pub(crate) chat: ChatArgs,
    #[command(flatten)]
    pub(crate) process: ProcessArgs,
}

impl ServeArgs {
    /// Whether nothing is kept.
    pub(crate) fn in_memory(&self) -> bool {
        self.data.as_os_str() == "memory"
    }
}
