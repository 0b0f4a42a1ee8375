//! Generates the Rust code and the descriptor set of the contract.
//!
//! Both are committed, so that nobody who builds Duologue needs a protobuf
//! compiler; a test of this crate generates them again and compares.

use std::path::Path;

use anyhow::{Context, Result};
use prost::Message as _;

/// The `.proto` files, below `proto/`.
const FILES: [&str; 1] = ["duologue/chat/v1/chat.proto"];

/// The folder, below the workspace root, that holds what is generated.
pub(crate) const GENERATED: &str = "proto/src/generated";

/// Writes the generated files to `target`, reading the contract below `root`.
pub(crate) fn run(root: &Path, target: &Path) -> Result<()> {
    let mut compiler = protox::Compiler::new([root.join("proto")])?;
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files(FILES)?;
    let documented = compiler.file_descriptor_set();

    std::fs::create_dir_all(target)
        .with_context(|| format!("cannot create {}", target.display()))?;
    // A client compiles no server code and the reverse.
    tonic_prost_build::configure()
        .out_dir(target)
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .emit_rerun_if_changed(false)
        .compile_fds(documented.clone())
        .context("cannot generate code")?;

    let mut bare = documented;
    for file in &mut bare.file {
        file.source_code_info = None;
    }
    std::fs::write(target.join("descriptors.bin"), bare.encode_to_vec())
        .context("cannot write the descriptor set")
}
