//! Brings DynamoDB Local and what it needs into the target folder, once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Names the version.
const POM: &str = "xtask/dynamodb-local/pom.xml";
const FOLDER: &str = "target/dynamodb-local";
/// A network may fail for a moment.
const TRIES: usize = 3;
const PAUSE: Duration = Duration::from_secs(5);

/// Returns the folder with the program, its libraries and the native library of its store.
///
/// The folder has its name only when it is complete. A copy of the pom in it says
/// which version it holds.
pub(crate) fn fetch(root: &Path) -> Result<PathBuf> {
    let (pom, folder) = (root.join(POM), root.join(FOLDER));
    let wanted = std::fs::read(&pom).with_context(|| format!("cannot read {POM}"))?;
    let fetched = folder.join("pom.xml");
    if std::fs::read(&fetched).is_ok_and(|fetched| fetched == wanted) {
        return Ok(folder);
    }
    let partial = root.join(format!("{FOLDER}.{}", std::process::id()));
    let mut tries = 1;
    while !copy_dependencies(&pom, &partial)? {
        let _absent = std::fs::remove_dir_all(&partial);
        ensure!(tries < TRIES, "Maven cannot fetch DynamoDB Local");
        tries += 1;
        std::thread::sleep(PAUSE);
    }
    std::fs::write(partial.join("pom.xml"), wanted)?;
    if folder.exists() {
        std::fs::remove_dir_all(&folder).context("cannot remove an older DynamoDB Local")?;
    }
    std::fs::rename(&partial, &folder).context("cannot keep DynamoDB Local")?;
    Ok(folder)
}

/// Whether Maven could.
fn copy_dependencies(pom: &Path, folder: &Path) -> Result<bool> {
    crate::say("fetching DynamoDB Local by Maven …");
    let status = Command::new("mvn")
        .args(["--quiet", "--batch-mode", "--file"])
        .arg(pom)
        .arg("dependency:copy-dependencies")
        .arg(format!("-DoutputDirectory={}", folder.display()))
        .status()
        .context("cannot run mvn: Maven and Java 17 are needed for DynamoDB Local")?;
    Ok(status.success())
}
