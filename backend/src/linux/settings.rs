//! Files whose change is a hint, by inotify(7): the zones, and settings below /proc/sys/net. There a write
//! by a program is seen; what the kernel changes itself is not.

use std::{
    collections::BTreeMap,
    fs, io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use reconciler::{key::ResourceKey, port::HostEvent, spec::Zone};
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};

use super::{LinuxBackend, apply::zone_key};
use crate::{dns::zone, names, net::sysctl};

/// What was last written to each zone file; `None`: it was removed.
pub type Written = Arc<Mutex<BTreeMap<PathBuf, Option<Zone>>>>;

pub struct Files {
    inotify: OwnedFd,
    watched: Mutex<Watched>,
}

#[derive(Default)]
struct Watched {
    meanings: BTreeMap<i32, Meaning>,
    descriptors: BTreeMap<PathBuf, i32>,
}

/// From the name of the file, where a directory is watched, to what it hints at.
type Meaning = Box<dyn Fn(Option<&Path>) -> Option<HostEvent> + Send>;

impl Files {
    /// # Errors
    /// The user has no more instances of inotify.
    pub fn new() -> io::Result<Self> {
        Ok(Files {
            inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
            watched: Mutex::default(),
        })
    }

    /// Watches the file, or the files of the directory, that is at `path` now, in place of the one that
    /// was. For settings of the network: to be called in their namespace.
    ///
    /// # Errors
    /// It does not exist, or the user has no more watches.
    pub fn watch(
        &self,
        path: &Path,
        meaning: impl Fn(Option<&Path>) -> Option<HostEvent> + Send + 'static,
    ) -> io::Result<()> {
        let changes = WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF;
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let descriptor = inotify::add_watch(&self.inotify, path, changes)?;
        let before = watched.descriptors.insert(path.to_owned(), descriptor);
        if let Some(before) = before.filter(|before| *before != descriptor) {
            watched.meanings.remove(&before);
            // Refused where it went with its file.
            let _ = inotify::remove_watch(&self.inotify, before);
        }
        watched.meanings.insert(descriptor, Box::new(meaning));
        Ok(())
    }

    /// What has happened since.
    pub fn heard(&self) -> Vec<HostEvent> {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        let mut heard = Vec::new();
        while let Ok(event) = reader.next() {
            let name = event.file_name().map(|name| Path::new(os_str(name)));
            let hint = match watched.meanings.get(&event.wd()) {
                Some(meaning) => meaning(name),
                // Of the queue itself: it was too long.
                None if event.wd() == -1 => Some(HostEvent::Lost),
                None => None,
            };
            if let Some(hint) = hint.filter(|hint| !heard.contains(hint)) {
                heard.push(hint);
            }
        }
        heard
    }
}

impl LinuxBackend {
    /// Everything there is to watch at the start. What cannot be watched is seen by the slow look.
    pub(super) fn watch_files(&self) {
        if let Err(error) = self.make_zones() {
            tracing::warn!(%error, "the files of names are not watched");
        }
        self.watch_setting(sysctl::IP_FORWARD.to_owned(), HostEvent::Firewall);
        for spec in self.networks.list().unwrap_or_default().into_values() {
            self.watch_settings(&spec.key);
        }
    }

    /// The directory of zones, and the watch on it.
    pub(super) fn make_zones(&self) -> io::Result<()> {
        let directory = self.layout.zones();
        fs::create_dir_all(&directory)?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        let (written, place) = (Arc::clone(&self.written), directory.clone());
        self.watcher.files().watch(&directory, move |name| {
            let Some(name) = name else {
                return Some(HostEvent::Lost);
            };
            let path = place.join(name);
            let key = zone_key(&path)?;
            let is = zone::read(&path).ok();
            let written = written.lock().unwrap_or_else(PoisonError::into_inner);
            let ours = match (written.get(&path)?, is) {
                (Some(wanted), Some(Some(is))) => is == *wanted,
                (None, None) => true,
                _ => false,
            };
            (!ours).then_some(HostEvent::Names(key))
        })
    }

    /// The settings of the bridge of a network; a bridge that is made anew has new ones.
    pub(super) fn watch_settings(&self, network: &ResourceKey) {
        let bridge = names::bridge(&self.layout.mark, network);
        for setting in ["route_localnet", "forwarding"] {
            self.watch_setting(sysctl::of_link("ipv4", &bridge, setting), HostEvent::Firewall);
        }
        for setting in ["disable_ipv6", "accept_ra"] {
            let hint = HostEvent::Network(network.clone());
            self.watch_setting(sysctl::of_link("ipv6", &bridge, setting), hint);
        }
    }

    fn watch_setting(&self, setting: String, hint: HostEvent) {
        let files = Arc::clone(self.watcher.files());
        let path = sysctl::path(&setting);
        let watched = self
            .net
            .at_home(move || files.watch(&path, move |_| Some(hint.clone())));
        match watched.and_then(|watched| watched) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(setting, %error, "a setting is not watched");
            }
            _ => {}
        }
    }
}

fn os_str(name: &std::ffi::CStr) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(name.to_bytes())
}

impl AsFd for Files {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}
