//! A root of stead for one test, a busybox image, and containers in it.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use backend::{
    cgroup, logs,
    shim::{
        client::{Client, ClientError},
        protocol::{Assignment, Exec, Reply, Request, Resolver, Run, SandboxState, Start},
        spawn::Pool,
    },
};
use reconciler::{
    key::{InstanceKey, ResourceKey, Slot},
    spec::{ContainerSpec, MountSpec, PortBinding, SandboxSpec},
};

pub const BASE: u32 = 0x7000_0000;

static COUNTER: AtomicU32 = AtomicU32::new(0);

pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub struct Host {
    pub directory: tempfile::TempDir,
    pub mark: String,
    pub pool: Option<Pool>,
}

impl Host {
    pub fn new() -> Self {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let mark = format!("{:06x}", (std::process::id() << 8 | number) & 0xff_ffff);
        let directory = tempfile::Builder::new()
            .prefix("stead-kernel-")
            .tempdir()
            .unwrap();
        let errors = directory.path().join("errors");
        let pool = Pool::new(&mark, 1, None, Some(&errors)).unwrap();
        let host = Host {
            directory,
            mark,
            pool: Some(pool),
        };
        host.image("layer");
        host
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn cgroup(&self) -> PathBuf {
        cgroup::root().unwrap().join(format!("stead-{}", self.mark))
    }

    /// A layer with busybox and its usual names.
    pub fn image(&self, name: &str) -> PathBuf {
        let layer = self.path(name);
        for directory in ["bin", "etc", "tmp", "home"] {
            fs::create_dir_all(layer.join(directory)).unwrap();
        }
        fs::copy("/bin/busybox", layer.join("bin/busybox")).unwrap();
        for applet in [
            "sh",
            "sleep",
            "cat",
            "echo",
            "ls",
            "id",
            "stat",
            "mount",
            "umount",
            "grep",
            "kill",
            "true",
            "false",
            "readlink",
            "mkdir",
            "touch",
            "chown",
            "mknod",
            "hostname",
            "ps",
            "tty",
            "env",
            "pwd",
            "ln",
            "seq",
            "unshare",
            "wc",
            "chroot",
            "su",
            "setuidgid",
            "dd",
            "rm",
            "head",
            "tr",
            "ping",
            "sync",
            "sort",
        ] {
            symlink("busybox", layer.join("bin").join(applet)).unwrap();
        }
        fs::write(
            layer.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nwww:x:33:34::/home:/bin/sh\n",
        )
        .unwrap();
        fs::write(layer.join("etc/group"), "root:x:0:\nweb:x:34:\naudio:x:29:www\n").unwrap();
        fs::set_permissions(layer.join("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
        layer
    }

    pub fn volume(&self, name: &str) -> PathBuf {
        let data = self.path("volumes").join(name).join("data");
        fs::create_dir_all(&data).unwrap();
        data
    }

    pub fn assignment(&self, service: &str, ports: Vec<PortBinding>) -> Assignment {
        let name = format!("{service}-1a");
        Assignment {
            sandbox: SandboxSpec {
                key: InstanceKey {
                    project: "shop".into(),
                    service: service.into(),
                    index: 1,
                    slot: Slot::A,
                },
                id_base: BASE,
                endpoints: Vec::new(),
                ports,
                spaces: Default::default(),
            },
            mark: self.mark.clone(),
            cgroup: self.cgroup().join("shop").join(&name),
            socket: self.path("run").join(format!("{name}.sock")),
            directory: self.path("containers").join(&name),
            logs: self.path("logs").join(&name),
            resolver: Resolver::default(),
            boot_id: "boot".into(),
            lent: Vec::new(),
            lender: None,
        }
    }

    pub fn sandbox(&self, service: &str, ports: Vec<PortBinding>) -> Result<Container<'_>, ClientError> {
        self.assigned(self.assignment(service, ports))
    }

    pub fn assigned(&self, assignment: Assignment) -> Result<Container<'_>, ClientError> {
        let mut client = self.pool.as_ref().unwrap().take()?;
        let (reply, along) = client.request(&Request::Assign(Box::new(assignment.clone())), &[])?;
        assert!(matches!(reply, Reply::Assigned), "{reply:?}");
        assert_eq!(along.len(), 1, "the network namespace comes along");
        Ok(Container {
            _host: self,
            client,
            assignment,
            layers: vec![self.path("layer")],
            volumes: BTreeMap::new(),
            spec: spec(),
            fresh: true,
        })
    }

    /// Runs a script to its end: exit status and lines of output.
    pub fn run(&self, script: &str, change: impl FnOnce(&mut Container)) -> (i32, Vec<String>) {
        let mut container = self.sandbox("job", Vec::new()).unwrap();
        container.script(script);
        change(&mut container);
        let before = container.lines().len();
        container.start().unwrap();
        let code = container.ended();
        (code, container.lines().split_off(before))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.pool = None;
        let own = self.cgroup();
        cgroup::kill(&own).unwrap();
        until("every process of the root has ended", || {
            (!cgroup::populated(&own).unwrap()).then_some(())
        });
        cgroup::remove(&own).unwrap();
        let errors = fs::read_to_string(self.path("errors")).unwrap_or_default();
        if !errors.is_empty() {
            println!("shims said: {errors}");
        }
        if !std::thread::panicking() {
            assert!(!own.exists());
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            assert!(
                !mounts.contains(self.directory.path().to_str().unwrap()),
                "a mount was left: {mounts}"
            );
        }
    }
}

pub fn spec() -> ContainerSpec {
    ContainerSpec {
        image_digest: "sha256:0".into(),
        hostname: "job".into(),
        stop_grace: 1000,
        ..ContainerSpec::default()
    }
}

pub fn volume_mount(name: &str, target: &str, read_only: bool) -> MountSpec {
    MountSpec::Volume {
        volume: ResourceKey {
            project: "shop".into(),
            name: name.into(),
        },
        target: target.into(),
        read_only,
        nocopy: false,
        subpath: None,
    }
}

pub fn bind_mount(source: &Path, target: &str, read_only: bool) -> MountSpec {
    MountSpec::Bind {
        source: source.to_owned(),
        target: target.into(),
        read_only,
        create_host_path: false,
        propagation: Default::default(),
        recursive: Default::default(),
    }
}

pub struct Container<'a> {
    /// Outlives the container.
    _host: &'a Host,
    pub client: Client,
    pub assignment: Assignment,
    pub layers: Vec<PathBuf>,
    pub volumes: BTreeMap<String, PathBuf>,
    pub spec: ContainerSpec,
    pub fresh: bool,
}

impl Container<'_> {
    pub fn script(&mut self, script: &str) {
        self.spec.argv = ["/bin/sh", "-c", script].map(String::from).to_vec();
    }

    /// What a start asks for, but for the content of files.
    pub fn wish(&self) -> Start {
        Start {
            container: self.spec.clone(),
            layers: self.layers.clone(),
            volumes: self.volumes.clone(),
            fresh: self.fresh,
            restarts: 0,
            streak: 0,
            flaps: 0,
            contents: Vec::new(),
        }
    }

    pub fn start(&mut self) -> Result<u32, ClientError> {
        let (contents, along) = backend::rootfs::files::bundle(&self.spec.files).unwrap();
        let start = Start {
            contents,
            ..self.wish()
        };
        let along: Vec<_> = along.iter().map(std::os::fd::AsFd::as_fd).collect();
        match self.client.request(&Request::Start(Box::new(start)), &along)? {
            (Reply::Started { pid }, _) => Ok(pid),
            other => panic!("{other:?}"),
        }
    }

    pub fn state(&mut self) -> SandboxState {
        match self.client.request(&Request::State, &[]).unwrap() {
            (Reply::State(state), _) => *state,
            other => panic!("{other:?}"),
        }
    }

    pub fn ended(&mut self) -> i32 {
        until("the container ends", || match self.state().run {
            Run::Exited { code, .. } => Some(code),
            _ => None,
        })
    }

    pub fn lines(&self) -> Vec<String> {
        logs::Reader::open(&self.assignment.logs)
            .unwrap()
            .map(|line| String::from_utf8(line.unwrap().text).unwrap())
            .collect()
    }

    pub fn said(&self, text: &str) {
        until(&format!("the output has {text:?}"), || {
            self.lines().iter().any(|line| line == text).then_some(())
        });
    }

    /// Status and output of a further process.
    pub fn exec(&mut self, argv: &[&str], user: &str) -> Result<(i32, String), ClientError> {
        use std::{io::Read, os::fd::AsFd};
        let null = fs::File::open("/dev/null").unwrap();
        let (mut read_end, write_end) = std::io::pipe().unwrap();
        let exec = Exec {
            argv: argv.iter().map(ToString::to_string).collect(),
            environment: BTreeMap::new(),
            user: user.into(),
            working_dir: None,
            terminal: false,
        };
        self.client
            .exec(exec, &[null.as_fd(), write_end.as_fd(), write_end.as_fd()])?;
        drop(write_end);
        let mut text = String::new();
        read_end.read_to_string(&mut text).unwrap();
        Ok((self.client.wait()?, text))
    }
}

impl Drop for Container<'_> {
    /// As a removal does it: kill, leave, remove the cgroup.
    fn drop(&mut self) {
        let _ = self.client.order(&Request::Kill);
        let payload = self.assignment.cgroup.join("payload");
        until("the payload is empty", || {
            (!cgroup::populated(&payload).ok()?).then_some(())
        });
        // Refused while the exit is not yet seen; unheard where a test has killed the shim.
        until("the sandbox is empty", || {
            let _ = self.client.order(&Request::Leave);
            (!cgroup::populated(&self.assignment.cgroup).ok()?).then_some(())
        });
        let _ = cgroup::remove(&self.assignment.cgroup);
    }
}
