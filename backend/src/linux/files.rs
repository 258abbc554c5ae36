//! Hints from files and mounts: one thread waits for what somebody deletes, moves or edits.
//!
//! | what happens | what is heard | what is hinted |
//! |---|---|---|
//! | a directory of records goes, or a record goes or is edited | inotify on `state/records` and in it | look at everything |
//! | a volume goes or comes, or what makes it one | inotify on the volumes | the volume; back: everything |
//! | an upper directory goes | inotify on the container's directory | the instance |
//! | a layer of an image goes | inotify on the layers | everything |
//! | a limit is edited, a cgroup empties, freezes or goes | inotify on its files | the instance |
//! | a first process or its supervisor is moved to the top of a tree of cgroups | inotify on `cgroup.procs` there | the instance |
//! | something is unmounted in a container | poll on its mountinfo | the instance |

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use reconciler::{key::InstanceKey, port::HostEvent};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::sync::mpsc;

use crate::{
    layout::Layout,
    records::{self, kind},
    rootfs::etc,
    volume::Volumes,
};

/// Files of a cgroup that stead writes.
const CGROUP_FILES: [&str; 6] = [
    "memory.max",
    "cpu.max",
    "memory.limit_in_bytes",
    "cpu.cfs_quota_us",
    "cpu.cfs_period_us",
    "pids.max",
];

/// The token of the inotify descriptor; instances count up from the next.
const FILES: u64 = 0;

pub struct FileWatch {
    shared: Arc<Shared>,
    layout: Layout,
}

struct Shared {
    epoll: Epoll,
    inotify: OwnedFd,
    state: Mutex<State>,
    volumes: Volumes,
}

#[derive(Default)]
struct State {
    meanings: BTreeMap<i32, Meaning>,
    /// The watches of each instance.
    instances: BTreeMap<InstanceKey, BTreeSet<i32>>,
    mounts: BTreeMap<InstanceKey, Mounts>,
    /// Records that we remove ourselves.
    going: BTreeSet<PathBuf>,
    next: u64,
}

/// The open mountinfo keeps the mount namespace alive: closed as soon as the process is known to be gone.
struct Mounts {
    token: u64,
    pid: u32,
    /// Both are to be found below the top of every tree they are in.
    shim: u32,
    /// There are cgroups of v1 controllers.
    limited: bool,
    _file: File,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Meaning {
    Records,
    /// The directory of one kind.
    Record(PathBuf),
    Volumes,
    /// The name of its directory.
    Volume(String),
    Layers,
    /// What names of images stand for.
    Names,
    Container(InstanceKey),
    Cgroup(InstanceKey),
    /// `cgroup.procs` at the top of a tree of cgroups: the kernel tells of what goes there only here.
    Top {
        path: PathBuf,
        v1: bool,
    },
}

impl FileWatch {
    /// # Errors
    /// No descriptor or no thread to be had.
    pub fn new(layout: &Layout, hints: mpsc::UnboundedSender<HostEvent>) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(inotify.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, FILES))?;
        let shared = Arc::new(Shared {
            epoll,
            inotify,
            state: Mutex::default(),
            volumes: Volumes::new(layout),
        });
        let waiting = Arc::clone(&shared);
        thread::Builder::new()
            .name("file-events".into())
            .spawn(move || waiting.run(&hints))?;
        Ok(FileWatch {
            shared,
            layout: layout.clone(),
        })
    }

    /// Watches what the root consists of. Asked again at each look at everything: what was deleted and
    /// made again must be watched again. What is missing is heard of when its parent gets it.
    pub fn watch_root(&self, tops: &[PathBuf]) {
        for top in tops {
            let path = top.join("cgroup.procs");
            let v1 = !top.join("cgroup.events").exists() && !top.join("cgroup.controllers").exists();
            self.watch(
                &path,
                WatchFlags::MODIFY,
                Meaning::Top {
                    path: path.clone(),
                    v1,
                },
            );
        }
        let gone =
            WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        let changed = gone | WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE;
        self.watch(&self.layout.records(), gone, Meaning::Records);
        for kind in [kind::NETWORK, kind::VOLUME, kind::ID_BASE] {
            let directory = self.layout.records().join(kind);
            // A directory that cannot be made is told of by the first record.
            if records::make_private(&directory).is_ok() {
                let edited = gone | WatchFlags::CLOSE_WRITE;
                self.watch(&directory, edited, Meaning::Record(directory.clone()));
            }
        }
        self.watch(&self.layout.images().join("layers"), gone, Meaning::Layers);
        let names = self.layout.records().join(kind::IMAGE);
        if records::make_private(&names).is_ok() {
            self.watch(&names, changed, Meaning::Names);
        }
        for place in self.shared.volumes.places() {
            let meaning = match place.file_name().and_then(|name| name.to_str()) {
                _ if place == self.layout.volumes() => Meaning::Volumes,
                Some(name) => Meaning::Volume(name.to_owned()),
                None => continue,
            };
            self.watch(&place, changed, meaning);
        }
    }

    /// Watches what a running container stands on. Done twice is done once.
    pub fn watch_instance(&self, key: &InstanceKey, (pid, shim): (u32, u32), cgroups: &[PathBuf]) {
        let gone = WatchFlags::DELETE | WatchFlags::MOVED_FROM;
        self.watch(&self.layout.container(key), gone, Meaning::Container(key.clone()));
        for cgroup in cgroups {
            self.watch(cgroup, WatchFlags::MODIFY, Meaning::Cgroup(key.clone()));
            // The kernel tells of this one only while somebody holds its inode: a watch of its own.
            let events = cgroup.join("cgroup.events");
            self.watch(&events, WatchFlags::MODIFY, Meaning::Cgroup(key.clone()));
        }
        let mut state = self.shared.lock();
        if state.mounts.get(key).is_some_and(|mounts| mounts.pid == pid) {
            return;
        }
        state.mounts.remove(key);
        state.next += 1;
        let token = state.next;
        // It has ended meanwhile, or there is no room: the slow look sees what is not heard.
        if let Ok(file) = File::open(format!("/proc/{pid}/mountinfo"))
            && self
                .shared
                .epoll
                .add(file.as_fd(), EpollEvent::new(EpollFlags::EPOLLPRI, token))
                .is_ok()
        {
            let mounts = Mounts {
                token,
                pid,
                shim,
                // Beside those of the process and of its supervisor.
                limited: cgroups.len() > 2,
                _file: file,
            };
            state.mounts.insert(key.clone(), mounts);
        }
    }

    /// The record at `path`, if it is there, is removed next, and nobody need look.
    pub fn expect_gone(&self, path: PathBuf) {
        if path.exists() {
            self.shared.lock().going.insert(path);
        }
    }

    /// Nothing runs there any more.
    pub fn forget_instance(&self, key: &InstanceKey) {
        let mut state = self.shared.lock();
        state.mounts.remove(key);
        for watch in state.instances.remove(key).unwrap_or_default() {
            state.meanings.remove(&watch);
            // Gone with its directory, perhaps.
            let _ = inotify::remove_watch(&self.shared.inotify, watch);
        }
    }

    fn watch(&self, path: &Path, flags: WatchFlags, meaning: Meaning) {
        let mut state = self.shared.lock();
        if let Ok(watch) = inotify::add_watch(&self.shared.inotify, path, flags) {
            if let Meaning::Container(key) | Meaning::Cgroup(key) = &meaning {
                state.instances.entry(key.clone()).or_default().insert(watch);
            }
            state.meanings.insert(watch, meaning);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, hints: &mpsc::UnboundedSender<HostEvent>) {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(_) => return,
            };
            let mut heard = Vec::new();
            for event in &events[..count] {
                match event.data() {
                    FILES => self.files(&mut heard),
                    token => {
                        let state = self.lock();
                        let whose = state.mounts.iter().find(|(_, mounts)| mounts.token == token);
                        heard.extend(whose.map(|(key, _)| HostEvent::Instance(key.clone())));
                    }
                }
            }
            heard.dedup();
            for hint in heard {
                if hints.send(hint).is_err() {
                    return;
                }
            }
        }
    }

    fn files(&self, heard: &mut Vec<HostEvent>) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        while let Ok(event) = reader.next() {
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                heard.push(HostEvent::Lost);
                continue;
            }
            let meaning = if event.events().contains(ReadFlags::IGNORED) {
                // It is gone itself. Where we have taken it away, we have forgotten it before.
                let mut state = self.lock();
                let meaning = state.meanings.remove(&event.wd());
                if let Some(Meaning::Container(key) | Meaning::Cgroup(key)) = &meaning
                    && let Some(watches) = state.instances.get_mut(key)
                {
                    watches.remove(&event.wd());
                }
                if let Some(Meaning::Cgroup(key)) = meaning {
                    heard.push(HostEvent::Instance(key));
                }
                continue;
            } else {
                self.lock().meanings.get(&event.wd()).cloned()
            };
            let name = event.file_name().and_then(|name| name.to_str().ok());
            if let Some(meaning) = meaning {
                self.hints(&meaning, name.unwrap_or_default(), event.events(), heard);
            }
        }
    }

    /// `name`: what is in the directory; empty for the directory itself.
    fn hints(&self, meaning: &Meaning, name: &str, events: ReadFlags, heard: &mut Vec<HostEvent>) {
        match meaning {
            // Files on their way to their names, and what is put aside to be removed.
            _ if name.starts_with('.') => {}
            Meaning::Records => heard.push(HostEvent::Lost),
            // The directory itself is told of by its parent.
            Meaning::Record(directory) => {
                if !name.is_empty() && !self.lock().going.remove(&directory.join(name)) {
                    heard.push(HostEvent::Lost);
                }
            }
            Meaning::Layers => heard.push(HostEvent::Lost),
            Meaning::Names if name.is_empty() => {}
            Meaning::Names => heard.push(HostEvent::Images),
            Meaning::Volumes if name.is_empty() => heard.push(HostEvent::Lost),
            Meaning::Volume(directory) if name.is_empty() || ["data", "identity"].contains(&name) => {
                self.volume(directory, events, heard);
            }
            Meaning::Volumes => self.volume(name, events, heard),
            Meaning::Volume(_) => {}
            Meaning::Container(key) if name == "upper" || etc::GENERATED.contains(&name) => {
                heard.push(HostEvent::Instance(key.clone()))
            }
            Meaning::Cgroup(key) if name.is_empty() || CGROUP_FILES.contains(&name) => {
                heard.push(HostEvent::Instance(key.clone()));
            }
            Meaning::Top { path, v1 } => {
                let text = fs::read_to_string(path).unwrap_or_default();
                let there: BTreeSet<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
                let state = self.lock();
                let moved = state.mounts.iter().filter(|(_, mounts)| match v1 {
                    true => mounts.limited && there.contains(&mounts.pid),
                    false => there.contains(&mounts.pid) || there.contains(&mounts.shim),
                });
                heard.extend(moved.map(|(key, _)| HostEvent::Instance(key.clone())));
            }
            Meaning::Container(_) | Meaning::Cgroup(_) => {}
        }
    }

    fn volume(&self, directory: &str, events: ReadFlags, heard: &mut Vec<HostEvent>) {
        let keys = self.volumes.named(directory);
        // What is back may be another directory than the one that is mounted.
        if events.contains(ReadFlags::MOVED_TO) && !keys.is_empty() {
            heard.push(HostEvent::Lost);
        }
        heard.extend(keys.into_iter().map(HostEvent::Volume));
    }
}
