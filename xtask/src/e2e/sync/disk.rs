//! A disk as a loss of power leaves it: a model that is fed with what a process did.
//!
//! It is pessimistic. Of a file it keeps what a completed sync covers, so what had
//! been written when that sync began; of a folder the names that were in it when a
//! completed sync of the folder began. That a file system keeps more is not relied
//! on. What else could be left is asked for by [`Left`] and [`Names`].

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::content::{Change, Content, Left};
use super::trace::{Action, Moment};

/// Which names of a folder are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// Those that a completed sync of the folder covers.
    Synced,
    /// Those that a process sees.
    Current,
}

/// All files and folders below one.
#[derive(Clone)]
pub(super) struct Disk {
    root: PathBuf,
    nodes: Vec<Node>,
    open: HashMap<i32, Open>,
    /// What a sync that has begun will cover, by its number.
    syncs: HashMap<usize, Covered>,
}

#[derive(Clone)]
enum Node {
    File(FileNode),
    Folder(FolderNode),
}

#[derive(Clone, Default)]
struct FileNode {
    journal: bool,
    synced: Content,
    /// Changes behind that, the oldest first.
    pending: Vec<Change>,
    /// How many changes have been covered.
    covered: usize,
    length: usize,
}

#[derive(Clone, Default)]
struct FolderNode {
    current: BTreeMap<String, usize>,
    synced: BTreeMap<String, usize>,
}

#[derive(Clone)]
struct Open {
    node: usize,
    position: usize,
    appends: bool,
}

#[derive(Clone)]
enum Covered {
    /// Changes of a file since it was made.
    Changes(usize, usize),
    /// Names in a folder.
    Names(usize, BTreeMap<String, usize>),
}

/// A journal that has just been synced.
pub(super) struct Synced<'a> {
    pub(super) node: usize,
    pub(super) content: &'a Content,
}

impl Disk {
    /// What is below `root` now, and on disk.
    pub(super) fn load(root: &Path) -> Result<Self> {
        let mut disk = Self {
            root: root.to_path_buf(),
            nodes: Vec::new(),
            open: HashMap::new(),
            syncs: HashMap::new(),
        };
        disk.load_folder(root)?;
        Ok(disk)
    }

    fn load_folder(&mut self, path: &Path) -> Result<usize> {
        let node = self.add(Node::Folder(FolderNode::default()));
        let mut names = BTreeMap::new();
        for entry in fs::read_dir(path)? {
            let path = entry?.path();
            let child = if path.is_dir() {
                self.load_folder(&path)?
            } else {
                let synced = Content::of(fs::read(&path)?);
                let length = synced.length();
                self.add(Node::File(FileNode {
                    journal: is_journal(&path),
                    synced,
                    length,
                    ..FileNode::default()
                }))
            };
            names.insert(name_of(&path)?, child);
        }
        let folder = self.folder(node)?;
        folder.current.clone_from(&names);
        folder.synced = names;
        Ok(node)
    }

    /// Whether a descriptor is that of a journal.
    pub(super) fn is_journal(&self, fd: i32) -> bool {
        let node = self.open.get(&fd).map(|open| &self.nodes[open.node]);
        matches!(node, Some(Node::File(file)) if file.journal)
    }

    /// Goes on by one moment. Returns the journal that is synced by it.
    pub(super) fn pass(
        &mut self,
        moment: Moment,
        actions: &[Action],
    ) -> Result<Option<Synced<'_>>> {
        match moment {
            Moment::Begins(number) => {
                if let Action::Close { fd } = &actions[number] {
                    // Its number may be another file's before the call returns.
                    self.open.remove(fd);
                } else if let Action::Sync { fd } = &actions[number] {
                    self.begin_sync(number, *fd)?;
                }
            }
            Moment::Ends(number) => return self.end(number, &actions[number]),
        }
        Ok(None)
    }

    fn end(&mut self, number: usize, action: &Action) -> Result<Option<Synced<'_>>> {
        match action {
            Action::Open {
                fd,
                path,
                created,
                emptied,
                appends,
            } => {
                let node = self.opened(path, *created)?;
                if *emptied {
                    self.file(node)?.change(Change::Resize { length: 0 });
                }
                let open = Open {
                    node,
                    position: 0,
                    appends: *appends,
                };
                self.open.insert(*fd, open);
            }
            Action::Seek { fd, position } => {
                self.opening(*fd)?.position = usize::try_from(*position)?;
            }
            Action::Write {
                fd,
                position,
                bytes,
            } => self.write(*fd, *position, bytes)?,
            Action::Resize { fd, length } => {
                let node = self.opening(*fd)?.node;
                let length = usize::try_from(*length)?;
                self.file(node)?.change(Change::Resize { length });
            }
            Action::Sync { .. } => return self.end_sync(number),
            Action::Rename { from, to } => {
                let (folder, name) = self.place(from)?;
                let node = self.folder(folder)?.current.remove(&name);
                let node = node.with_context(|| format!("{} is unknown", from.display()))?;
                let (folder, name) = self.place(to)?;
                self.folder(folder)?.current.insert(name, node);
            }
            Action::Remove { path } => {
                let (folder, name) = self.place(path)?;
                let removed = self.folder(folder)?.current.remove(&name);
                removed.with_context(|| format!("{} is unknown", path.display()))?;
            }
            Action::MakeFolder { path } => {
                let (folder, name) = self.place(path)?;
                let made = self.add(Node::Folder(FolderNode::default()));
                self.folder(folder)?.current.insert(name, made);
            }
            Action::Close { .. } | Action::Send { .. } => {}
        }
        Ok(None)
    }

    fn write(&mut self, fd: i32, position: Option<u64>, bytes: &[u8]) -> Result<()> {
        let open = self.opening(fd)?;
        let (node, appends, own) = (open.node, open.appends, open.position);
        let position = match position {
            Some(position) => usize::try_from(position)?,
            None if appends => self.file(node)?.length,
            None => own,
        };
        self.file(node)?.change(Change::Write {
            position,
            bytes: bytes.to_vec(),
        });
        self.opening(fd)?.position = position + bytes.len();
        Ok(())
    }

    fn begin_sync(&mut self, number: usize, fd: i32) -> Result<()> {
        let node = self.opening(fd)?.node;
        let covered = match &self.nodes[node] {
            Node::File(file) => Covered::Changes(node, file.covered + file.pending.len()),
            Node::Folder(folder) => Covered::Names(node, folder.current.clone()),
        };
        self.syncs.insert(number, covered);
        Ok(())
    }

    fn end_sync(&mut self, number: usize) -> Result<Option<Synced<'_>>> {
        let covered = self.syncs.remove(&number);
        match covered.context("a sync without a beginning")? {
            Covered::Changes(node, covered) => {
                let file = self.file(node)?;
                file.cover(covered);
                let content = &file.synced;
                Ok(file.journal.then_some(Synced { node, content }))
            }
            Covered::Names(node, names) => {
                self.folder(node)?.synced = names;
                Ok(None)
            }
        }
    }

    /// Writes what is left into a new folder.
    pub(super) fn write_out(&self, target: &Path, names: Names, left: Left) -> Result<()> {
        self.write_folder(0, target, names, left)
    }

    fn write_folder(&self, node: usize, target: &Path, names: Names, left: Left) -> Result<()> {
        fs::create_dir(target).with_context(|| format!("{}", target.display()))?;
        let Node::Folder(folder) = &self.nodes[node] else {
            bail!("{} is no folder", target.display());
        };
        let listed = match names {
            Names::Synced => &folder.synced,
            Names::Current => &folder.current,
        };
        for (name, child) in listed {
            let path = target.join(name);
            match &self.nodes[*child] {
                Node::Folder(_) => self.write_folder(*child, &path, names, left)?,
                Node::File(file) => file.synced.with(&file.pending, left).write(&path)?,
            }
        }
        Ok(())
    }

    /// Fails unless the files that a process sees are those below `root`: what the
    /// record has missed shows here.
    pub(super) fn ensure_complete(&self) -> Result<()> {
        self.compare(0, &self.root)
    }

    fn compare(&self, node: usize, path: &Path) -> Result<()> {
        let Node::Folder(folder) = &self.nodes[node] else {
            bail!("{} is a file in the record only", path.display());
        };
        let mut found = 0;
        for entry in fs::read_dir(path)? {
            let path = entry?.path();
            let child = folder.current.get(&name_of(&path)?);
            let child = *child.with_context(|| format!("{} is not recorded", path.display()))?;
            found += 1;
            if path.is_dir() {
                self.compare(child, &path)?;
                continue;
            }
            let Node::File(file) = &self.nodes[child] else {
                bail!("{} is a folder in the record only", path.display());
            };
            let same = file.current() == Content::of(fs::read(&path)?);
            ensure!(same, "{} is not as it was recorded", path.display());
        }
        let recorded = folder.current.len();
        ensure!(found == recorded, "{} lacks files", path.display());
        Ok(())
    }

    /// The node at a path; a new file if it may be one.
    fn opened(&mut self, path: &Path, created: bool) -> Result<usize> {
        if path == self.root {
            return Ok(0);
        }
        let (folder, name) = self.place(path)?;
        if let Some(node) = self.folder(folder)?.current.get(&name) {
            return Ok(*node);
        }
        ensure!(created, "{} is unknown", path.display());
        let node = self.add(Node::File(FileNode {
            journal: is_journal(path),
            ..FileNode::default()
        }));
        self.folder(folder)?.current.insert(name, node);
        Ok(node)
    }

    /// The folder that a path is in, and its name there.
    fn place(&mut self, path: &Path) -> Result<(usize, String)> {
        let inner = path.strip_prefix(&self.root)?;
        let mut node = 0;
        for part in inner.parent().context("no path")? {
            let name = part.to_str().context("a name that is not UTF-8")?;
            let next = self.folder(node)?.current.get(name).copied();
            node = next.with_context(|| format!("{} is unknown", path.display()))?;
        }
        Ok((node, name_of(path)?))
    }

    fn add(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn opening(&mut self, fd: i32) -> Result<&mut Open> {
        self.open.get_mut(&fd).context("an unknown descriptor")
    }

    fn file(&mut self, node: usize) -> Result<&mut FileNode> {
        match &mut self.nodes[node] {
            Node::File(file) => Ok(file),
            Node::Folder(_) => bail!("a folder is taken for a file"),
        }
    }

    fn folder(&mut self, node: usize) -> Result<&mut FolderNode> {
        match &mut self.nodes[node] {
            Node::Folder(folder) => Ok(folder),
            Node::File(_) => bail!("a file is taken for a folder"),
        }
    }
}

impl FileNode {
    fn change(&mut self, change: Change) {
        self.length = match &change {
            Change::Write { position, bytes } => self.length.max(position + bytes.len()),
            Change::Resize { length } => *length,
        };
        self.pending.push(change);
    }

    /// A sync has covered as many changes since the file was made.
    fn cover(&mut self, covered: usize) {
        let count = covered.saturating_sub(self.covered);
        for change in self.pending.drain(..count) {
            self.synced.apply(&change);
        }
        self.covered = self.covered.max(covered);
    }

    fn current(&self) -> Content {
        let mut content = self.synced.clone();
        for change in &self.pending {
            content.apply(change);
        }
        content.trim();
        content
    }
}

fn is_journal(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "jnl")
}

fn name_of(path: &Path) -> Result<String> {
    let name = path.file_name().and_then(|name| name.to_str());
    Ok(name.context("a name that is not UTF-8")?.to_owned())
}
