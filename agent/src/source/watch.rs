//! inotify as a dirty bit: which events matter, and watches that follow what is read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::Bound,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode, CreateKind, ModifyKind},
};
use tokio::sync::mpsc;

/// What an event says about a path that matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// Closed after writing, renamed, removed: as complete as it gets.
    Complete(PathBuf),
    /// Being written.
    Writing(PathBuf),
    /// Something else (attributes, a new directory, events were lost).
    Other,
}

/// The paths whose events matter.
#[derive(Debug, Default)]
struct Interest {
    /// Everything directly in these.
    directories: BTreeSet<PathBuf>,
    /// These, and any part of the way to them.
    inputs: BTreeSet<PathBuf>,
}

impl Interest {
    fn has(&self, path: &Path) -> bool {
        self.directories.contains(path)
            || path
                .parent()
                .is_some_and(|parent| self.directories.contains(parent))
            || self
                .inputs
                .range::<Path, _>((Bound::Included(path), Bound::Unbounded))
                .next()
                .is_some_and(|input| input.starts_with(path))
    }
}

pub struct Watcher {
    notify: Option<RecommendedWatcher>,
    interest: Arc<RwLock<Interest>>,
    /// Watched directory and its st_dev, st_ino: a watch stays with the inode, not with the path.
    watched: BTreeMap<PathBuf, (u64, u64)>,
    /// Why inotify does not see everything.
    broken: Option<String>,
}

impl Watcher {
    /// Never fails: without inotify the caller polls, see [`Watcher::broken`].
    pub fn start(hints: mpsc::UnboundedSender<Hint>) -> Self {
        let interest = Arc::new(RwLock::new(Interest::default()));
        let seen = Arc::clone(&interest);
        let made = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let interest = seen.read().unwrap_or_else(PoisonError::into_inner);
            for hint in hints_of(event, &interest) {
                // The receiver is gone only when the agent ends.
                let _ = hints.send(hint);
            }
        });
        let (notify, broken) = match made {
            Ok(watcher) => (Some(watcher), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Watcher {
            notify,
            interest,
            watched: BTreeMap::new(),
            broken,
        }
    }

    /// Why changes must be polled for.
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// Watches `directories`, and the directory of each input (or what there is of its path). Links on the
    /// way to an input are watched, too, and what an input that is a link leads to.
    pub fn follow(&mut self, mut directories: BTreeSet<PathBuf>, mut inputs: BTreeSet<PathBuf>) {
        let targets: Vec<PathBuf> = inputs
            .iter()
            .filter(|input| is_link(input))
            .filter_map(|input| fs::canonicalize(input).ok())
            .collect();
        inputs.extend(targets);
        // Of an input that is a directory, what is in it counts.
        directories.extend(inputs.iter().filter(|input| input.is_dir()).cloned());
        let mut wanted = BTreeMap::new();
        let parents: BTreeSet<&Path> = inputs.iter().filter_map(|input| input.parent()).collect();
        let links = links_above(&parents);
        for path in directories
            .iter()
            .map(PathBuf::as_path)
            .chain(parents)
            .chain(links)
        {
            if let Some((path, identity)) = nearest(path) {
                wanted.insert(path, identity);
            }
        }
        *self.interest.write().unwrap_or_else(PoisonError::into_inner) = Interest { directories, inputs };
        let Some(notify) = &mut self.notify else { return };
        for (path, identity) in &self.watched {
            if wanted.get(path) != Some(identity) {
                // Already gone where the directory is.
                let _ = notify.unwatch(path);
            }
        }
        self.watched
            .retain(|path, identity| wanted.get(path) == Some(identity));
        self.broken = None;
        for (path, identity) in wanted {
            if self.watched.contains_key(&path) {
                continue;
            }
            match notify.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(path, identity);
                }
                Err(error) => self.broken = Some(error.to_string()),
            }
        }
    }
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink())
}

/// The directories that hold a link on the way to one of these: it may be replaced.
fn links_above<'a>(directories: &BTreeSet<&'a Path>) -> BTreeSet<&'a Path> {
    let mut seen = BTreeSet::new();
    let mut found = BTreeSet::new();
    for directory in directories {
        for path in directory.ancestors().take_while(|path| seen.insert(*path)) {
            found.extend(path.parent().filter(|_| is_link(path)));
        }
    }
    found
}

/// The directory itself or its nearest ancestor that exists.
fn nearest(path: &Path) -> Option<(PathBuf, (u64, u64))> {
    path.ancestors().find_map(|path| {
        let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_dir)?;
        Some((path.to_owned(), (metadata.dev(), metadata.ino())))
    })
}

fn hints_of(event: notify::Result<notify::Event>, interest: &Interest) -> Vec<Hint> {
    let Ok(event) = event else {
        return vec![Hint::Other];
    };
    if event.need_rescan() {
        return vec![Hint::Other];
    }
    let make: fn(PathBuf) -> Hint = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Name(_))
        | EventKind::Remove(_) => Hint::Complete,
        EventKind::Create(CreateKind::File) | EventKind::Modify(ModifyKind::Data(_)) => Hint::Writing,
        // Our own reading among others.
        EventKind::Access(_) => return Vec::new(),
        _ => |_| Hint::Other,
    };
    event
        .paths
        .into_iter()
        .filter(|path| interest.has(path))
        .map(make)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn next(hints: &mut mpsc::UnboundedReceiver<Hint>, want: &Hint) {
        let wait = async {
            while let Some(hint) = hints.recv().await {
                if hint == *want {
                    return;
                }
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(10), wait).await;
        assert!(ended.is_ok(), "no {want:?}");
    }

    #[tokio::test]
    async fn writing_closing_renaming_and_removing_are_told_apart() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let path = root.join("shop.yaml");
        let (sender, mut hints) = mpsc::unbounded_channel();
        let mut watcher = Watcher::start(sender);
        watcher.follow([root.clone()].into(), BTreeSet::new());
        assert_eq!(watcher.broken(), None);

        let mut file = fs::File::create(&path).unwrap();
        std::io::Write::write_all(&mut file, b"a").unwrap();
        next(&mut hints, &Hint::Writing(path.clone())).await;
        drop(file);
        next(&mut hints, &Hint::Complete(path.clone())).await;
        fs::rename(&path, root.join("new.yaml")).unwrap();
        next(&mut hints, &Hint::Complete(root.join("new.yaml"))).await;
        fs::remove_file(root.join("new.yaml")).unwrap();
        next(&mut hints, &Hint::Complete(root.join("new.yaml"))).await;
    }

    #[tokio::test]
    async fn an_input_that_does_not_exist_yet_is_seen_to_appear() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let input = root.join("config/app/app.env");
        let (sender, mut hints) = mpsc::unbounded_channel();
        let mut watcher = Watcher::start(sender);
        watcher.follow(BTreeSet::new(), [input.clone()].into());
        fs::create_dir_all(input.parent().unwrap()).unwrap();
        next(&mut hints, &Hint::Other).await;
        watcher.follow(BTreeSet::new(), [input.clone()].into());
        fs::write(root.join("config/app/unrelated"), "x").unwrap();
        fs::write(&input, "A=1\n").unwrap();
        next(&mut hints, &Hint::Complete(input)).await;
    }

    #[tokio::test]
    async fn links_are_followed_at_both_ends() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let link = |to: &str, at: &str| {
            let new = root.join("new");
            std::os::unix::fs::symlink(to, &new).unwrap();
            fs::rename(new, root.join(at)).unwrap();
        };
        for directory in ["elsewhere", "releases/1", "releases/2"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        fs::write(root.join("elsewhere/env"), "A=1\n").unwrap();
        for release in ["releases/1", "releases/2"] {
            std::os::unix::fs::symlink("../../elsewhere/env", root.join(release).join("env")).unwrap();
        }
        link("releases/1", "current");
        let input = root.join("current/env");
        let (sender, mut hints) = mpsc::unbounded_channel();
        let mut watcher = Watcher::start(sender);
        watcher.follow(BTreeSet::new(), [input].into());
        fs::write(root.join("elsewhere/env"), "A=2\n").unwrap();
        next(&mut hints, &Hint::Complete(root.join("elsewhere/env"))).await;
        link("releases/2", "current");
        next(&mut hints, &Hint::Complete(root.join("current"))).await;
    }

    #[test]
    fn only_what_matters_counts() {
        let interest = Interest {
            directories: ["/m".into()].into(),
            inputs: ["/home/me/shop/.env".into()].into(),
        };
        for (path, want) in [
            ("/m/new.yaml", true),
            ("/m", true),
            ("/m/a/deep", false),
            ("/home/me/shop/.env", true),
            ("/home/me/shop", true),
            ("/home/me/shop/src.rs", false),
            ("/home/me/shopping", false),
        ] {
            assert_eq!(interest.has(Path::new(path)), want, "{path}");
        }
    }
}
