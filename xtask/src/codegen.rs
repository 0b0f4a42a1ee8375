//! Generates the Rust code and the descriptor set of the contract.
//!
//! Both are committed, so that nobody who builds Duologue needs a protobuf
//! compiler; a test of this crate generates them again and compares.

use std::path::Path;

use anyhow::{Context, Result};
use prost::Message as _;
use prost_types::FileDescriptorSet;

/// The public contract, below `proto/`.
const PUBLIC: [&str; 1] = ["duologue/chat/v1/chat.proto"];

/// What services say to each other. It is described apart: a public server must
/// not know of it.
const INTERNAL: [&str; 3] = [
    "duologue/history/v1/history.proto",
    "duologue/presence/v1/presence.proto",
    "duologue/relay/v1/relay.proto",
];

/// The folder, below the workspace root, that holds what is generated.
pub(crate) const GENERATED: &str = "proto/src/generated";

/// Writes the generated files to `target`, reading the contract below `root`.
pub(crate) fn run(root: &Path, target: &Path) -> Result<()> {
    std::fs::create_dir_all(target)
        .with_context(|| format!("cannot create {}", target.display()))?;
    // A client compiles no server code and the reverse.
    tonic_prost_build::configure()
        .out_dir(target)
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        // Bodies and envelopes are not copied when they are read.
        .bytes(".duologue.history.v1")
        .emit_rerun_if_changed(false)
        .compile_fds(documented(root, &[&PUBLIC[..], &INTERNAL[..]].concat())?)
        .context("cannot generate code")?;
    describe(root, &PUBLIC, &target.join("descriptors.bin"))?;
    describe(root, &INTERNAL, &target.join("internal.bin"))
}

/// The descriptors of files and of what they import, with our comments.
fn documented(root: &Path, files: &[&str]) -> Result<FileDescriptorSet> {
    let mut compiler = protox::Compiler::new([root.join("proto")])?;
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files(files)?;
    Ok(compiler.file_descriptor_set())
}

/// Writes the descriptors of files and of what they import.
fn describe(root: &Path, files: &[&str], target: &Path) -> Result<()> {
    // Our comments stay, so that tools which ask by reflection show them.
    let mut described = documented(root, files)?;
    for file in &mut described.file {
        if !file.package().starts_with("duologue.") {
            file.source_code_info = None;
        }
    }
    std::fs::write(target, described.encode_to_vec()).context("cannot write the descriptor set")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn committed_code_is_what_the_contract_generates() {
        let root = crate::workspace_root();
        let fresh = tempfile::tempdir().unwrap();
        run(&root, fresh.path()).unwrap();

        let generated = files(fresh.path());
        let committed = files(&root.join(GENERATED));
        assert_eq!(
            generated.keys().collect::<Vec<_>>(),
            committed.keys().collect::<Vec<_>>(),
            "other files than those committed: run `cargo xtask codegen`"
        );
        for (name, bytes) in &generated {
            assert!(
                committed.get(name) == Some(bytes),
                "{name} is out of date: run `cargo xtask codegen`"
            );
        }
    }

    /// The content of every file of a folder, by name.
    fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
        std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                (name, std::fs::read(entry.path()).unwrap())
            })
            .collect()
    }
}
