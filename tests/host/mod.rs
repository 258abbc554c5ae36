//! A host of its own for each test: two network namespaces, a root directory, an agent.

pub mod bystander;
pub mod census;
pub mod cgroup;
pub mod compose;
pub mod damage;
pub mod fuse;
pub mod hostile;
pub mod http;
mod leaks;
pub mod load;
pub mod network;
pub mod podman;
pub mod probe;
pub mod process;
/// Registries that behave as they should, or not: the laboratory of the backend's own tests.
#[allow(dead_code)]
#[path = "../../backend/src/registry/testing.rs"]
pub mod registries;
pub mod target;
pub mod views;

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sha2::{Digest, Sha256};

use network::Network;

/// The address of the test's host on its uplink.
pub const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
/// The neighbour's address.
pub const LAN: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));
pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Long enough for a debug build on a busy machine; a wait ends as soon as it can.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    /// The host itself.
    Host,
    /// Its neighbour on the uplink: what comes in from outside.
    Lan,
}

pub struct Host {
    name: String,
    pub root: PathBuf,
    mark: String,
    pub network: Network,
    /// `STEAD_LOG` of the agent.
    pub log: Option<&'static str>,
    /// What else the agent finds in its environment.
    pub environment: Vec<(&'static str, PathBuf)>,
    /// What else the agent is told on its command line.
    pub arguments: Vec<&'static str>,
    agent: Option<Child>,
    finished: bool,
}

/// What a command said.
#[derive(Debug)]
pub struct Reply {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Host {
    /// `None`: this machine cannot do it, and that was said.
    pub fn new(name: &str) -> Option<Host> {
        let network = match network::missing().map_or_else(Network::new, Err) {
            Ok(network) => network,
            Err(reason) if std::env::var_os("STEAD_REQUIRE_KERNEL").is_some_and(|v| v == "1") => {
                panic!("STEAD_REQUIRE_KERNEL is set, but {reason}")
            }
            Err(reason) => {
                // Not `eprintln`, which is only shown when the test fails.
                let _ = writeln!(std::io::stderr(), "skipped: {reason}");
                return None;
            }
        };
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let parent = std::env::var_os("STEAD_TEST_DIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
        // Short: below it are unix sockets, whose paths end at 108 bytes.
        let root = parent.join(format!("st{}-{number}", std::process::id()));
        fs::create_dir_all(root.join("manifests")).expect("a directory for the test");
        let root = root.canonicalize().expect("its own path");
        let mark = mark(&root);
        Some(Host {
            name: name.to_owned(),
            root,
            mark,
            network,
            log: None,
            environment: Vec::new(),
            arguments: Vec::new(),
            agent: None,
            finished: false,
        })
    }

    /// The six digits every kernel name of this root carries.
    pub fn mark(&self) -> &str {
        &self.mark
    }

    pub fn table(&self) -> String {
        format!("stead-{}", self.mark)
    }

    /// The binary under test.
    pub fn binary() -> &'static Path {
        Path::new(env!("CARGO_BIN_EXE_stead"))
    }

    /// Starts the agent and waits until it answers.
    pub fn start_agent(&mut self) {
        self.start_agent_from(Self::binary());
    }

    pub fn start_agent_from(&mut self, binary: &Path) {
        self.spawn_agent(binary);
        self.wait("the agent answers", PATIENCE, || {
            self.stead(&["status", "--json"]).done()
        });
    }

    /// Starts the agent and does not wait. Its output is added to `agent.log`.
    pub fn spawn_agent(&mut self, binary: &Path) {
        assert!(self.agent.is_none(), "an agent of this test is still running");
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.root.join("agent.log"))
            .expect("the agent's log");
        let mut command = self.command_from(binary, &["agent"]);
        command.args(&self.arguments);
        command.envs(self.log.map(|log| ("STEAD_LOG", log)));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        self.agent = Some(
            self.network
                .on_host(|| command.spawn().expect("the agent starts")),
        );
    }

    pub fn agent_pid(&self) -> u32 {
        self.agent.as_ref().expect("an agent runs").id()
    }

    /// Whether the agent has ended by itself, or by somebody else's hand.
    pub fn agent_has_ended(&mut self) -> bool {
        self.agent
            .as_mut()
            .is_some_and(|agent| agent.try_wait().expect("its state").is_some())
    }

    /// SIGKILL, and gone when this returns.
    pub fn kill_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill().expect("kill -9");
            agent.wait().expect("its end");
        }
    }

    /// SIGTERM; it must end well.
    pub fn stop_agent(&mut self) {
        let Some(mut agent) = self.agent.take() else {
            return;
        };
        signal(agent.id(), Signal::SIGTERM);
        let status = self.wait("the agent stops", PATIENCE, || {
            agent.try_wait().expect("its state")
        });
        assert!(status.success(), "the agent ended with {status}");
    }

    /// A `stead` command for this root, not yet started. Start it in `network.on_host`.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_from(Self::binary(), arguments)
    }

    fn command_from(&self, binary: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary);
        command
            .arg("--root")
            .arg(&self.root)
            .args(arguments)
            .env("NO_COLOR", "1")
            .env_remove("STEAD_ROOT")
            // Not those of this machine.
            .env("STEAD_CDI_DIRS", self.root.join("cdi"))
            .stdin(Stdio::null());
        command
    }

    /// Runs a `stead` command on this host to its end.
    pub fn stead(&self, arguments: &[&str]) -> Reply {
        self.run(self.command(arguments))
    }

    /// Runs a `stead` command that must end with status 0.
    pub fn stead_ok(&self, arguments: &[&str]) -> String {
        let reply = self.stead(arguments);
        assert_eq!(reply.code, 0, "stead {}: {reply:?}", arguments.join(" "));
        reply.stdout
    }

    /// Any program, on this host; it must succeed.
    pub fn tool(&self, program: &str, arguments: &[&str]) -> String {
        let reply = self.tool_reply(program, arguments);
        assert_eq!(reply.code, 0, "{program} {}: {reply:?}", arguments.join(" "));
        reply.stdout
    }

    pub fn tool_reply(&self, program: &str, arguments: &[&str]) -> Reply {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        self.run(command)
    }

    /// What a program writes, where that is no text.
    pub fn tool_bytes(&self, program: &str, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new(program)
            .args(arguments)
            .output()
            .expect("the command starts");
        assert!(
            output.status.success(),
            "{program} {}: {output:?}",
            arguments.join(" ")
        );
        output.stdout
    }

    fn run(&self, mut command: Command) -> Reply {
        let output = self
            .network
            .on_host(|| command.output().expect("the command starts"));
        Reply {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub fn manifest(&self, project: &str) -> PathBuf {
        self.root.join("manifests").join(format!("{project}.yaml"))
    }

    /// Puts a manifest in place in one step, as a careful editor does.
    pub fn write_manifest(&self, project: &str, text: &str) {
        let temporary = self.root.join(format!("{project}.new"));
        fs::write(&temporary, text).expect("a manifest");
        fs::rename(&temporary, self.manifest(project)).expect("a manifest in place");
    }

    pub fn remove_manifest(&self, project: &str) {
        fs::remove_file(self.manifest(project)).expect("the manifest was there");
    }

    /// Tries every 10 ms until `attempt` gives something; past the deadline the test fails.
    pub fn wait<T>(&self, what: &str, deadline: Duration, attempt: impl FnMut() -> Option<T>) -> T {
        wait(what, deadline, attempt)
    }

    /// The body of `GET path`, or why there is none.
    pub fn get(&self, from: Place, address: IpAddr, port: u16, path: &str) -> Result<String, String> {
        let address = SocketAddr::new(address, port);
        match from {
            Place::Host => self.network.on_host(|| http::get(address, path)),
            Place::Lan => self.network.on_lan(|| http::get(address, path)),
        }
    }

    /// Waits until `GET path` is answered, and gives the body.
    pub fn fetch(&self, from: Place, address: IpAddr, port: u16, path: &str) -> String {
        self.wait(&format!("{address}:{port}{path} answers"), PATIENCE, || {
            self.get(from, address, port, path).ok()
        })
    }

    /// Removes every project, stops the agent, and checks that nothing of this root is left.
    pub fn finish(mut self) {
        let directory = self.root.join("manifests");
        for entry in fs::read_dir(&directory).expect("the manifests").flatten() {
            let path = entry.path();
            let removed = match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                true => fs::remove_dir_all(&path),
                false => fs::remove_file(&path),
            };
            removed.expect("a manifest goes");
        }
        if self.agent.is_none() {
            self.start_agent();
        }
        self.wait("every project is gone", PATIENCE, || {
            self.ps().is_empty().then_some(())
        });
        self.wait("no project is reported", PATIENCE, || {
            self.status().is_empty().then_some(())
        });
        self.stop_agent();
        let mut left = Vec::new();
        let clean = try_wait(Duration::from_secs(5), || {
            left = self.leaks();
            left.is_empty().then_some(())
        });
        assert!(clean.is_some(), "left behind: {left:#?}");
        self.finished = true;
    }

    fn keep_artefacts(&self) {
        let place = std::env::temp_dir().join(format!("stead-failed-{}-{}", self.name, std::process::id()));
        if fs::create_dir_all(&place).is_err() {
            return;
        }
        if self.agent.is_some() {
            for (file, arguments) in [
                ("status.json", ["status", "--json"]),
                ("ps.json", ["ps", "--json"]),
            ] {
                let _ = fs::write(place.join(file), self.stead(&arguments).stdout);
            }
        }
        let _ = fs::write(
            place.join("ruleset"),
            self.tool_reply("nft", &["list", "ruleset"]).stdout,
        );
        let _ = fs::write(place.join("links"), self.tool_reply("ip", &["address"]).stdout);
        for kept in [
            "agent.log",
            "manifests",
            "state/records",
            "state/logs",
            "state/journal.jsonl",
        ] {
            let _ = Command::new("cp")
                .arg("-r")
                .arg(self.root.join(kept))
                .arg(&place)
                .output();
        }
        eprintln!("what {} left for reading: {}", self.name, place.display());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.finished {
            self.keep_artefacts();
        }
        if let Some(agent) = &mut self.agent {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        cgroup::clear(&self.mark);
        leaks::unmount_below(&self.root);
        let _ = fs::remove_dir_all(&self.root);
        // The namespaces go with the last descriptor and the last process in them.
    }
}

impl Reply {
    pub fn done(&self) -> Option<()> {
        (self.code == 0).then_some(())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }
}

/// First three bytes of the SHA-256 of the canonical root, in hexadecimal: restated here, because it is
/// what people search their host by.
fn mark(root: &Path) -> String {
    Sha256::digest(root.as_os_str().as_encoded_bytes())
        .iter()
        .take(3)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

pub fn wait<T>(what: &str, deadline: Duration, attempt: impl FnMut() -> Option<T>) -> T {
    try_wait(deadline, attempt).unwrap_or_else(|| panic!("waited {deadline:?} in vain until {what}"))
}

/// What is promised within `limit`; `STEAD_TEST_SLACK` multiplies it, for machines that stand still now and then.
pub fn promised(limit: Duration) -> Duration {
    let slack = std::env::var("STEAD_TEST_SLACK").ok();
    limit * slack.and_then(|slack| slack.parse().ok()).unwrap_or(1)
}

pub fn try_wait<T>(deadline: Duration, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = attempt() {
            return Some(found);
        }
        if Instant::now() > end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid"));
    kill(pid, signal).expect("the process is there");
}

/// Removes a directory, also where an agent puts back what is in it while it goes.
pub fn remove(directory: &Path) {
    wait("the directory is gone", PATIENCE, || {
        match fs::remove_dir_all(directory) {
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => None,
            done => {
                done.expect("the directory goes");
                Some(())
            }
        }
    });
}

/// Reads a child's stream to its end.
pub fn drain(stream: &mut impl Read) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("text");
    text
}
