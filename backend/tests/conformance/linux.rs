//! The real host: a root of stead in a network namespace of its own, and what befalls it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    net::TcpListener,
    os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use backend::{LinuxBackend, cgroup, cgroup::limits::Controllers, firewall::Firewall, layout::Layout, names};
use reconciler::{
    key::InstanceKey,
    observed::{Health, Instance, Observed, State},
    plan::action::Action,
    port::{ActionError, Backend, HostEvent, Scope},
    testing::{
        conformance::{EVERYTHING, End, Hands, hint},
        sim_host::damage::Damage,
    },
    time::Now,
};
use tokio::sync::mpsc;

use crate::{accident, rig::sh};

/// Ends as it is told through a pipe; what SIGTERM does depends on how it was called.
const SERVE: &str = r#"#!/bin/sh
[ "$1" = deaf ] || trap 'exit 143' TERM
echo sick >/dev/shm/health
mkfifo /dev/shm/end
(
    read end </dev/shm/end
    [ "$end" = oom ] && exec dd if=/dev/zero of=/dev/null bs=256M
    exit "$end"
) &
wait $!
exit $?
"#;

pub struct Linux {
    pub layout: Layout,
    pub directory: tempfile::TempDir,
    agent: Mutex<Option<Arc<LinuxBackend>>>,
    events: Mutex<Option<mpsc::UnboundedReceiver<HostEvent>>>,
    /// An agent has started: it looks at everything, whatever is hinted at.
    starts: AtomicBool,
    /// Host ports that somebody else holds.
    pub taken: Mutex<BTreeMap<u16, TcpListener>>,
}

/// Waits for a state of the kernel.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, String> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() > deadline {
            return Err(format!("not within 10 s: {what}"));
        }
        thread::sleep(Duration::from_millis(2));
    }
}

impl Linux {
    pub fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("stead-conformance-")
            .tempdir()
            .unwrap();
        let layout = Layout::new(Some(&directory.path().join("root"))).unwrap();
        let host = Linux {
            agent: Mutex::default(),
            events: Mutex::default(),
            starts: AtomicBool::default(),
            taken: Mutex::default(),
            directory,
            layout,
        };
        host.start_agent().unwrap();
        host
    }

    pub fn start_agent(&self) -> Result<(), String> {
        let agent = LinuxBackend::open(&self.layout).map_err(|error| format!("{error}: {error:?}"))?;
        *self.events.lock().unwrap_or_else(PoisonError::into_inner) = Some(agent.events());
        *self.agent.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(agent));
        self.starts.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Its tables are nobody's then, and anybody's to break.
    pub fn without_agent(&self, work: impl FnOnce()) -> Result<(), String> {
        self.stop_agent();
        work();
        self.start_agent()
    }

    fn stop_agent(&self) {
        drop(self.agent.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn agent(&self) -> Arc<LinuxBackend> {
        let agent = self.agent.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(agent.as_ref().expect("an agent runs"))
    }

    pub fn firewall(&self) -> Firewall {
        Firewall::new(&self.layout.mark, &self.layout.run.join("forwarding")).unwrap()
    }

    pub fn seen(&self, key: &InstanceKey) -> Option<Instance> {
        let mut observed = Observed::nothing_known();
        self.agent().observe(&Scope::all(), &mut observed);
        observed.instances.known()?.get(key).cloned()
    }

    pub fn pid(&self, key: &InstanceKey) -> Result<u32, String> {
        match self.seen(key).map(|instance| instance.state) {
            Some(State::Running { pid }) => Ok(pid),
            other => Err(format!("{key} does not run: {other:?}")),
        }
    }

    pub fn cgroup(&self) -> PathBuf {
        cgroup::root().unwrap().join(names::cgroup(&self.layout.mark))
    }

    /// Until the end of process `pid` is known.
    pub fn ended(&self, key: &InstanceKey, pid: u32) -> Result<(), String> {
        until("the end of the process is seen", || {
            let state = self.seen(key).map(|instance| instance.state);
            (state != Some(State::Running { pid })).then_some(())
        })
    }

    /// The program of `key` has come to its wait, or to its end.
    fn is_ready(&self, key: &InstanceKey) -> Result<(), String> {
        let Ok(pid) = self.pid(key) else {
            return Ok(());
        };
        until("the program waits", || {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            let waits = children.as_ref().is_ok_and(|children| !children.is_empty());
            (children.is_err() || waits).then_some(())
        })
    }

    /// What a power switch takes away.
    fn wipe(&self) {
        self.stop_agent();
        let own = self.cgroup();
        cgroup::kill(&own).unwrap();
        until("everything has ended", || {
            (!cgroup::populated(&own).unwrap()).then_some(())
        })
        .unwrap();
        let controllers = Controllers::find().unwrap();
        for instance in directories(&own).iter().flat_map(|project| directories(project)) {
            controllers.remove(&instance).unwrap();
        }
        cgroup::remove(&own).unwrap();
        self.firewall().release().unwrap();
        let mark = &self.layout.mark;
        sh(&format!(
            "for kind in bridge veth; do ip -o link show type $kind; done | grep -o 'st[bv]{mark}[0-9a-f]*' | \
             while read link; do ip link del $link 2>/dev/null || true; done"
        ));
    }
}

impl Drop for Linux {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.wipe();
            assert!(!self.cgroup().exists());
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            let root = self.directory.path().display().to_string();
            assert!(!mounts.contains(&root), "a mount was left: {mounts}");
        } else {
            let _ = cgroup::kill(&self.cgroup());
        }
    }
}

impl Hands for Linux {
    fn image(&self, name: &str) -> Result<String, String> {
        let root = self.directory.path().join("images").join(name);
        make_image(&root).map_err(|error| error.to_string())?;
        Ok(format!("rootfs:{}", root.display()))
    }

    fn damage(&self, damage: &Damage) -> Result<(), String> {
        accident::befall(self, damage)
    }

    fn exit(&self, key: &InstanceKey, end: End) -> Result<(), String> {
        let pid = self.pid(key)?;
        let word = match end {
            End::Code(code) => code.to_string(),
            End::OutOfMemory => "oom".to_owned(),
        };
        let pipe = format!("/proc/{pid}/root/dev/shm/end");
        let mut pipe = until("the program listens", || {
            let mut open = fs::OpenOptions::new();
            open.write(true).custom_flags(nix::libc::O_NONBLOCK);
            open.open(&pipe).ok()
        })?;
        writeln!(pipe, "{word}").map_err(|error| error.to_string())?;
        self.ended(key, pid)
    }

    fn health(&self, key: &InstanceKey, well: bool) -> Result<(), String> {
        let pid = self.pid(key)?;
        let (word, wanted) = match well {
            true => ("well", Health::Healthy),
            false => ("sick", Health::Unhealthy),
        };
        // Root of the host may not make files there.
        let file = fs::OpenOptions::new()
            .write(true)
            .open(format!("/proc/{pid}/root/dev/shm/health"));
        file.and_then(|mut file| file.write_all(word.as_bytes()))
            .map_err(|error| error.to_string())?;
        until("the probe has seen it", || {
            (self.seen(key)?.health == wanted).then_some(())
        })
    }

    fn new_agent(&self) -> Result<(), String> {
        self.without_agent(|| {})
    }

    fn reboot(&self) -> Result<(), String> {
        self.wipe();
        fs::remove_dir_all(&self.layout.run).map_err(|error| error.to_string())?;
        self.start_agent()
    }

    fn sleep(&self, milliseconds: u64) {
        thread::sleep(Duration::from_millis(milliseconds));
    }

    fn hints(&self, expected: &BTreeSet<String>) -> BTreeSet<String> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let mut heard = BTreeSet::new();
        let started = self.starts.swap(false, Ordering::Relaxed);
        let all = until("all hints are there", || {
            while let Some(Ok(event)) = events.as_mut().map(mpsc::UnboundedReceiver::try_recv) {
                heard.insert(hint(&event));
            }
            let everything = started || heard.contains(EVERYTHING);
            (everything || heard.is_superset(expected)).then_some(())
        });
        match all {
            Ok(()) => expected.clone(),
            Err(_) => expected.intersection(&heard).cloned().collect(),
        }
    }

    /// The simulated host is the system's own instance.
    fn words(&self) -> Vec<(String, String)> {
        let state = self.layout.state.display().to_string();
        vec![
            (state, "/var/lib/stead".to_owned()),
            (names::table(&self.layout.mark), "stead-8a5eda".to_owned()),
        ]
    }

    fn violations(&self) -> Vec<String> {
        Vec::new()
    }
}

impl Backend for Linux {
    fn observe(&self, scope: &Scope, observed: &mut Observed) {
        self.agent().observe(scope, observed);
    }

    fn apply(&self, action: &Action) -> Result<(), ActionError> {
        self.agent().apply(action).inspect_err(|error| {
            println!("  {error}: {error:?}");
        })?;
        if let Action::StartContainer { key, .. } = action {
            self.is_ready(key).unwrap();
        }
        Ok(())
    }

    fn events(&self) -> mpsc::UnboundedReceiver<HostEvent> {
        self.agent().events()
    }

    fn now(&self) -> Now {
        self.agent().now()
    }
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}

fn make_image(root: &Path) -> std::io::Result<()> {
    for directory in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::copy("/bin/busybox", root.join("bin/busybox"))?;
    for applet in ["sh", "dd", "grep", "mkfifo", "umount"] {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    let serve = root.join("bin/serve");
    fs::write(&serve, SERVE)?;
    fs::set_permissions(serve, PermissionsExt::from_mode(0o755))
}

/// A command line in the namespaces of a process, as `nsenter` chooses them.
pub fn inside(pid: u32, which: &str, command: &[&str]) -> Result<(), String> {
    let output = Command::new("nsenter")
        .args(["-t", &pid.to_string(), which])
        .args(command)
        .output()
        .map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}
