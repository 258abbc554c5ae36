//! The Linux host as the reconciler sees it: the rooms of this crate put together.

mod adopt;
mod apply;
mod assign;
mod attend;
mod error;
mod events;
mod files;
mod holders;
mod observe;
mod restore;
mod sandboxes;
mod settings;
mod standing;
mod start;
mod stop;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use nix::time::{ClockId, clock_gettime};
use reconciler::{
    observed::Observed,
    plan::action::Action,
    port::{ActionError, Attention, Backend, HostEvent, Scope},
    spec::NetworkSpec,
    time::Now,
};
use tokio::sync::{Notify, mpsc};

pub use error::OpenError;
pub use holders::{HoldersError, holders};

use crate::{
    cgroup::{self, limits::Controllers},
    firewall::Firewall,
    image,
    layout::Layout,
    names,
    net::{Net, watch::Watch},
    records, registry,
    shim::{self, spawn::Pool},
    volume::Volumes,
};
use events::Watcher;
use files::FileWatch;
use sandboxes::Sandboxes;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Shims kept ready: a small project starts without waiting for one.
const READY: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Converge,
    Look,
}

/// One root on this host.
pub struct LinuxBackend {
    layout: Layout,
    boot_id: String,
    /// This root's directory in the v2 tree.
    cgroup: PathBuf,
    net: Net,
    firewall: Firewall,
    images: image::Store,
    brought: Arc<Notify>,
    volumes: Volumes,
    networks: records::Store<NetworkSpec>,
    id_bases: records::Store<u32>,
    pool: Pool,
    sandboxes: Arc<Sandboxes>,
    watcher: Watcher,
    files: FileWatch,
    /// As they were at the last look at everything.
    controllers: RwLock<Arc<Controllers>>,
    /// Held while a network or volume is removed, or records are made again.
    removing: Mutex<()>,
    /// Held while the ids of a project are kept.
    keeping: Mutex<()>,
    written: settings::Written,
    purpose: Use,
    /// Ends its thread when dropped.
    _netlink: Watch,
}

impl LinuxBackend {
    /// For the network namespace of the caller, by the holder of the root's lock only: clears away what
    /// a killed agent left half done, and keeps supervisors ready.
    ///
    /// # Errors
    /// Something this host must offer is missing, or the state of the root cannot be used.
    pub fn open(layout: &Layout) -> Result<Self, OpenError> {
        // Images, volumes and logs are for root alone. What is below `run` may be seen to be there, so
        // that others are told "permission denied" and not that there is no agent.
        for (path, mode) in [
            (&layout.state, 0o700),
            (&layout.run, 0o711),
            (&layout.shims(), 0o711),
            (&layout.zones(), 0o700),
        ] {
            fs::create_dir_all(path)
                .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
                .map_err(|source| OpenError::Directory {
                    path: path.clone(),
                    source,
                })?;
        }
        let state = |source| OpenError::State {
            path: layout.state.clone(),
            source,
        };
        records::sweep(layout).map_err(state)?;
        Volumes::new(layout).sweep().map_err(state)?;
        image::Store::open(layout).sweep().map_err(OpenError::Images)?;
        shim::spawn::sweep(&layout.mark).map_err(OpenError::Cgroup)?;
        let backend = Self::with(layout, Use::Converge)?;
        backend.watch_files();
        Ok(backend)
    }

    /// To observe only, beside whoever holds the root: nothing is made and nothing changed.
    ///
    /// # Errors
    /// As [`LinuxBackend::open`].
    pub fn open_to_look(layout: &Layout) -> Result<Self, OpenError> {
        Self::with(layout, Use::Look)
    }

    /// What is known about registries; by default, nothing that is not known to everybody.
    pub fn with_registries(mut self, registries: registry::Settings) -> Self {
        self.images = self.images.with_registries(registries);
        self
    }

    /// Transfers of images that are under way.
    pub fn pulls(&self) -> Vec<image::Progress> {
        self.images.progress()
    }

    /// Told whenever an image was brought into the store, or failed to be: both may have filled the disk.
    pub fn brought(&self) -> Arc<Notify> {
        Arc::clone(&self.brought)
    }

    fn with(layout: &Layout, purpose: Use) -> Result<Self, OpenError> {
        let net = Net::new(&layout.mark)?;
        let firewall = Firewall::new(&layout.mark, &layout.run.join("forwarding"))?;
        let watcher = Watcher::new().map_err(OpenError::Events)?;
        let networks = records::Store::new(layout, records::kind::NETWORK);
        let sandboxes = Arc::new(Sandboxes::default());
        let netlink = events::watch_network(
            &net,
            firewall.port(),
            layout.mark.clone(),
            records::Store::new(layout, records::kind::NETWORK),
            Arc::clone(&sandboxes),
            watcher.sender(),
        )?;
        let ready = if purpose == Use::Converge { READY } else { 0 };
        Ok(LinuxBackend {
            boot_id: fs::read_to_string(BOOT_ID)
                .map_err(OpenError::Events)?
                .trim()
                .to_owned(),
            cgroup: cgroup::root()
                .map_err(OpenError::Cgroup)?
                .join(names::cgroup(&layout.mark)),
            pool: Pool::new(&layout.mark, ready, None, Some(&layout.run.join("shims.log")))
                .map_err(OpenError::Spawn)?,
            layout: layout.clone(),
            net,
            firewall,
            images: image::Store::open(layout),
            brought: Arc::default(),
            volumes: Volumes::new(layout),
            purpose,
            networks,
            id_bases: records::Store::new(layout, records::kind::ID_BASE),
            sandboxes,
            files: FileWatch::new(layout, watcher.sender()).map_err(OpenError::Events)?,
            watcher,
            controllers: RwLock::new(Arc::new(Controllers::find()?)),
            removing: Mutex::default(),
            keeping: Mutex::default(),
            written: settings::Written::default(),
            _netlink: netlink,
        })
    }

    fn controllers(&self) -> Arc<Controllers> {
        let held = self.controllers.read();
        Arc::clone(&held.unwrap_or_else(PoisonError::into_inner))
    }

    /// Controllers come and go with what is mounted. Those that cannot be read are as they were.
    fn look_for_controllers(&self) {
        if let Ok(found) = Controllers::find() {
            let mut held = self.controllers.write().unwrap_or_else(PoisonError::into_inner);
            *held = Arc::new(found);
        }
    }
}

impl Backend for LinuxBackend {
    fn observe(&self, scope: &Scope, observed: &mut Observed) {
        self.observe_scope(scope, observed);
    }

    fn apply(&self, action: &Action) -> Result<(), ActionError> {
        self.apply_action(action, None).map_err(Into::into)
    }

    fn apply_before(&self, action: &Action, next: &Action) -> Result<(), ActionError> {
        self.apply_action(action, Some(next)).map_err(Into::into)
    }

    fn attend(&self, project: Option<&str>) -> Attention {
        self.how_it_is(project)
    }

    fn events(&self) -> mpsc::UnboundedReceiver<HostEvent> {
        self.watcher.receiver()
    }

    fn now(&self) -> Now {
        Now {
            boot: millis(ClockId::CLOCK_BOOTTIME),
            wall: millis(ClockId::CLOCK_REALTIME),
        }
    }
}

/// Milliseconds of a clock; both clocks used here always exist, so a failure reads as the epoch.
fn millis(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, |time| {
        u64::try_from(time.tv_sec()).unwrap_or(0) * 1000
            + u64::try_from(time.tv_nsec()).unwrap_or(0) / 1_000_000
    })
}
