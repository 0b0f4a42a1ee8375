//! Developer tasks: `cargo xtask --help`.

mod codegen;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Parser;

/// Developer tasks of Duologue.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Task {
    /// Generate the Rust code and the descriptor set of the contract.
    Codegen,
}

fn main() -> Result<()> {
    let root = workspace_root();
    match Task::parse() {
        Task::Codegen => codegen::run(&root, &root.join(codegen::GENERATED)),
    }
}

/// The workspace root: the parent of this crate's folder.
fn workspace_root() -> PathBuf {
    let mut root = Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf();
    root.pop();
    root
}
