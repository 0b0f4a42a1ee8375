//! What is left on the modelled disk.

use super::*;

const JOURNAL: i32 = 7;

/// What is left of `name` after all of it.
fn left(actions: &[Action], moments: &[Moment], names: Names, name: &str) -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir(&root).unwrap();
    let mut disk = Disk::load(&root).unwrap();
    let below = |path: &Path| root.join(path);
    let actions: Vec<_> = actions.iter().map(|action| action.moved(&below)).collect();
    for moment in moments {
        disk.pass(*moment, &actions).unwrap();
    }
    let target = folder.path().join("left");
    disk.write_out(&target, names, Left::Nothing).unwrap();
    fs::read(target.join(name)).ok()
}

impl Action {
    fn moved(&self, to: &dyn Fn(&Path) -> PathBuf) -> Self {
        let mut moved = self.clone();
        if let Self::Open { path, .. } = &mut moved {
            *path = to(path);
        } else if let Self::Rename { from, to: new } = &mut moved {
            (*from, *new) = (to(from), to(new));
        }
        moved
    }
}

fn open(fd: i32, path: &str, created: bool) -> Action {
    Action::Open {
        fd,
        path: path.into(),
        created,
        emptied: false,
        appends: false,
    }
}

fn write(bytes: &[u8]) -> Action {
    Action::Write {
        fd: JOURNAL,
        position: None,
        bytes: bytes.to_vec(),
    }
}

fn one_by_one(count: usize) -> Vec<Moment> {
    let both = |number| [Moment::Begins(number), Moment::Ends(number)];
    (0..count).flat_map(both).collect()
}

#[test]
fn a_sync_covers_what_was_written_when_it_began_and_only_once_it_has_ended() {
    let sync = Action::Sync { fd: JOURNAL };
    let actions = [open(JOURNAL, "a", true), write(b"one"), sync, write(b"two")];
    let mut moments = one_by_one(2);
    moments.push(Moment::Begins(2));
    moments.extend([Moment::Begins(3), Moment::Ends(3)]);
    let now = |moments: &[_]| left(&actions, moments, Names::Current, "a");
    assert_eq!(now(&moments).unwrap(), b"");
    moments.push(Moment::Ends(2));
    assert_eq!(now(&moments).unwrap(), b"one");
}

#[test]
fn a_name_is_left_only_after_a_sync_of_its_folder() {
    let rename = Action::Rename {
        from: "a".into(),
        to: "b".into(),
    };
    let actions = [
        open(JOURNAL, "a", true),
        open(8, "", false),
        Action::Sync { fd: 8 },
        rename,
    ];
    let after = |count, name| left(&actions, &one_by_one(count), Names::Synced, name);
    assert_eq!(after(2, "a"), None);
    assert_eq!(after(3, "a"), Some(Vec::new()));
    assert_eq!(after(4, "b"), None);
    assert_eq!(after(4, "a"), Some(Vec::new()));
}
