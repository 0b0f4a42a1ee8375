//! `duologue internal-secret`: makes what services show each other on a private
//! network.

use std::fs::{File, OpenOptions, hard_link, remove_file};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use duologue_runtime::clock::{RandomExt as _, SystemRandom};

/// Make the secret that services show each other, unless it is there.
///
/// For --internal-secret of every process of a system, which all need the same file. Only
/// its owner can read it.
#[derive(Args)]
pub(crate) struct InternalSecretArgs {
    /// The file; one that is there is left as it is
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) fn run(args: &InternalSecretArgs) -> anyhow::Result<()> {
    let file = &args.out;
    let secret = format!("{}{}\n", SystemRandom.id(), SystemRandom.id());
    create(file, &secret).with_context(|| format!("cannot make {}", file.display()))
}

/// Whole or not at all: who starts at the same time never reads a half.
fn create(file: &Path, text: &str) -> io::Result<()> {
    if file.try_exists()? {
        return Ok(());
    }
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{}.tmp", SystemRandom.id()));
    let temporary = PathBuf::from(name);
    let written = write(&temporary, text).and_then(|()| hard_link(&temporary, file));
    let removed = remove_file(&temporary);
    match written {
        // Another made one meanwhile, which is as good.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => removed,
        written => written.and(removed),
    }
}

fn write(file: &Path, text: &str) -> io::Result<()> {
    let mut written = create_private(file)?;
    written.write_all(text.as_bytes())?;
    written.sync_all()
}

#[cfg(unix)]
fn create_private(file: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(file)
}

#[cfg(not(unix))]
fn create_private(file: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(file)
}

#[cfg(test)]
mod tests {
    use duologue_runtime::inner::{Credentials, InnerConfig};

    use super::*;

    #[test]
    fn a_secret_is_made_once_is_private_and_is_one_that_services_take() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("internal-secret");
        let args = InternalSecretArgs { out: out.clone() };
        run(&args).unwrap();
        let made = std::fs::read(&out).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let permissions = std::fs::metadata(&out).unwrap().permissions();
            assert_eq!(permissions.mode() & 0o777, 0o600);
        }
        let config = InnerConfig {
            secret: Some(out.clone()),
            ..InnerConfig::default()
        };
        Credentials::load(config).unwrap();

        run(&args).unwrap();
        assert_eq!(std::fs::read(&out).unwrap(), made, "it is kept");
        let files = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(files, 1, "nothing else is left");
    }

    #[test]
    fn where_no_file_can_be_made_the_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("missing").join("internal-secret");
        let error = run(&InternalSecretArgs { out }).unwrap_err();
        assert!(format!("{error:#}").contains("missing"), "{error:#}");
    }
}
