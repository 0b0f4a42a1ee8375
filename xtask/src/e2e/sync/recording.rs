//! One recorded run of a program under load, and what is looked at in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tempfile::TempDir;

use super::super::server::Server;
use super::disk::Disk;
use super::load::{self, Load, Told};
use super::points::{Count, Point, choose};
use super::rebuild::{Breach, Expected, check};
use super::replay::Replay;
use super::trace::{self, Action, Trace};
use super::users::{Users, arguments};

/// How long the program may take to drain.
const END_LIMIT: Duration = Duration::from_secs(30);
/// Rebuilt directories that are open at once.
const OPEN: usize = 3;

/// What a program did under load.
pub(super) struct Recording {
    folder: TempDir,
    users: Users,
    /// Its data directory before it ran.
    before: Disk,
    /// All that was sent, by id; all of it was answered.
    messages: BTreeMap<String, Told>,
    trace: Trace,
}

impl Recording {
    /// Runs the program, perhaps with a fault planted, until all is answered and it
    /// has drained.
    pub(super) async fn make(program: &Path, plant: Option<&str>, load: Load) -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a folder")?;
        let users = Users::make(program, folder.path()).await?;
        let data = fs::canonicalize(folder.path().join("data"))?;
        let before = Disk::load(&data)?;
        let record = folder.path().join("strace.log");
        let mut command = trace::recorded(program, &record)?;
        command.args(arguments(
            data.to_str().context("a path that is not UTF-8")?,
        ));
        if let Some(mutant) = plant {
            command.env("DUOLOGUE_PLANT", mutant);
        }
        let mut server = Server::start_by(command, folder.path()).await?;
        let local = server.grpc().to_string();
        let told = load::run(server.grpc(), &users, load).await?;
        server.signal("TERM").await?;
        let status = server.ended(END_LIMIT).await?;
        ensure!(status.success(), "the recorded program fails: {status}");
        // strace has the same output, and closes it last.
        server.closed(END_LIMIT).await?;
        let record = fs::read_to_string(record).context("no record")?;
        ensure!(
            record.trim_end().ends_with("+++ exited with 0 +++"),
            "the record is not complete"
        );
        Ok(Self {
            trace: trace::read(&record, &data, &local)?,
            folder,
            users,
            before,
            messages: told
                .into_iter()
                .map(|told| (told.id.clone(), told))
                .collect(),
        })
    }

    /// How many messages were answered.
    pub(super) fn messages(&self) -> usize {
        self.messages.len()
    }

    /// How many syncs there were, of any file.
    pub(super) fn syncs(&self) -> usize {
        let syncs = |action: &&Action| matches!(action, Action::Sync { .. });
        self.trace.actions.iter().filter(syncs).count()
    }

    /// Looks at every answer. Returns the messages of which somebody was told before
    /// they were synced, and chooses points.
    pub(super) fn answers(&self, count: Count) -> Result<(Vec<Point>, Vec<String>)> {
        let mut replay = Replay::new(&self.trace, self.before.clone())?;
        let mut kinds = Vec::new();
        while let Some(kind) = replay.step()? {
            kinds.push(kind);
        }
        replay.disk.ensure_complete()?;
        // Else an answer would have left in a way that is not looked at.
        ensure!(
            self.messages.keys().eq(&replay.told),
            "{} messages were answered, and {} are in what was sent",
            self.messages.len(),
            replay.told.len()
        );
        let early = replay.told_before_sync.into_iter().collect();
        Ok((choose(&kinds, count), early))
    }

    /// Rebuilds the disk at each point and looks at what is there.
    pub(super) async fn rebuild(
        &self,
        program: &Path,
        points: &[Point],
    ) -> Result<Vec<(String, Breach)>> {
        let mut replay = Replay::new(&self.trace, self.before.clone())?;
        let mut found = Vec::new();
        let mut open = FuturesUnordered::new();
        let mut passed = 0;
        for (number, point) in points.iter().enumerate() {
            while passed < point.after {
                replay.step()?.context("a point behind the record")?;
                passed += 1;
            }
            let folder = self.folder.path().join(format!("point-{number}"));
            fs::create_dir(&folder)?;
            replay
                .disk
                .write_out(&folder.join("data"), point.names, point.left)?;
            let expected = Expected {
                all: &self.messages,
                told: replay.told.clone(),
                whole: number + 1 == points.len(),
            };
            open.push(self.look_at(program, point, folder, expected));
            if open.len() == OPEN
                && let Some(breaches) = open.next().await
            {
                found.extend(breaches?);
            }
        }
        while let Some(breaches) = open.next().await {
            found.extend(breaches?);
        }
        Ok(found)
    }

    async fn look_at(
        &self,
        program: &Path,
        point: &Point,
        folder: PathBuf,
        expected: Expected<'_>,
    ) -> Result<Vec<(String, Breach)>> {
        let breaches = check(program, &self.users, &folder, &expected).await;
        let breaches = breaches.with_context(|| format!("power lost {point}"))?;
        fs::remove_dir_all(&folder)?;
        let named = breaches.into_iter();
        Ok(named.map(|breach| (point.to_string(), breach)).collect())
    }
}
