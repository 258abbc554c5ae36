//! A running service as something to be broken: what of the host is its own, and how to tell that all of
//! it is whole again.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    mount::{MntFlags, umount2},
    sched::{CloneFlags, setns, unshare},
};

use super::{
    HOST, Host, cgroup,
    damage::{Damage, Reach, Where},
    http, process,
};

/// A running service, and what of the host is its own.
#[derive(Debug)]
pub struct Target {
    pub project: String,
    /// The host port it publishes.
    pub port: u16,
    pub pid: u32,
    shim: u32,
    start_ticks: u64,
    pub bridge: String,
    pub veth: String,
    subnet: String,
    zone: String,
    /// Its directory in the v2 tree, and the directory and the top of the controllers of its limits.
    cgroup: PathBuf,
    top: PathBuf,
    memory: Limit,
    cpu: Limit,
    pids: Limit,
    container: PathBuf,
}

/// Where a limit is kept.
#[derive(Debug)]
struct Limit {
    directory: PathBuf,
    top: PathBuf,
    file: &'static str,
}

impl Limit {
    fn of(pid: u32, controller: &str, v1: &'static str, v2: &'static str) -> Limit {
        match cgroup::of(pid, controller) {
            Some((top, directory)) => Limit {
                directory,
                top,
                file: v1,
            },
            None => {
                let (top, directory) = cgroup::of(pid, "").expect("a v2 tree");
                Limit {
                    directory,
                    top,
                    file: v2,
                }
            }
        }
    }

    /// What it says, and whether the process lives there.
    fn looks(&self, pid: u32) -> String {
        let read = |file: &str| fs::read_to_string(self.directory.join(file)).unwrap_or_default();
        let inside = read("cgroup.procs").lines().any(|line| line == pid.to_string());
        format!("{} is {} (inside: {inside})", self.file, read(self.file).trim())
    }
}

impl Target {
    pub fn of(host: &Host, project: &str, service: &str, port: u16) -> Target {
        let instance = host.running(project, service);
        let pid = instance.pid();
        let number = pid.to_string();
        // `2: eth0@if15: …`: the other end has index 15.
        let inside = ["-t", &number, "-n", "ip", "-o", "link", "show", "dev", "eth0"];
        let eth0 = host.tool("nsenter", &inside);
        let index = between(&eth0, "@if", ":");
        let links = host.tool("ip", &["-o", "link"]);
        let veth = links
            .lines()
            .find(|line| line.starts_with(&format!("{index}: ")))
            .unwrap_or_else(|| panic!("no link {index} in {links}"));
        let bridge = between(veth, " master ", " ").to_owned();
        let routes = host.tool("ip", &["route", "show", "dev", &bridge]);
        let zones = host.root.join("run/zones");
        let zone = fs::read_dir(&zones)
            .expect("the zones")
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.display().to_string().contains(&format!("/{project}@")))
            .unwrap_or_else(|| panic!("no zone of {project}"));
        let (top, payload) = cgroup::of(pid, "").expect("a v2 tree");
        Target {
            project: project.to_owned(),
            port,
            pid,
            shim: process::parent(pid).expect("its supervisor"),
            start_ticks: instance.identity().start_ticks,
            veth: between(veth, ": ", "@").to_owned(),
            subnet: routes.split(' ').next().expect("a route").to_owned(),
            zone: zone.display().to_string(),
            bridge,
            cgroup: payload.parent().expect("its sandbox").to_owned(),
            top,
            memory: Limit::of(pid, "memory", "memory.limit_in_bytes", "memory.max"),
            cpu: Limit::of(pid, "cpu", "cpu.cfs_quota_us", "cpu.max"),
            pids: Limit::of(pid, "pids", "pids.max", "pids.max"),
            container: host.root.join(format!("state/containers/{project}/{service}-1a")),
        }
    }

    pub fn within(&self, reach: Reach, other: &Target) -> bool {
        match reach {
            Reach::Service => self.port == other.port,
            Reach::Network => self.project == other.project,
            Reach::Host => true,
        }
    }

    /// The same process as at the start.
    pub fn unhurt(&self) -> bool {
        process::alive(self.pid) && process::start_ticks(self.pid) == Some(self.start_ticks)
    }

    /// Does the damage; false where the kernel refused.
    pub fn damage(&self, host: &Host, damage: &Damage) -> bool {
        if damage.place == Where::Mounts {
            return self.unmount(damage.line);
        }
        let path = |path: &Path| path.display().to_string();
        let words = [
            ("{bridge}", self.bridge.clone()),
            ("{veth}", self.veth.clone()),
            ("{subnet}", self.subnet.clone()),
            ("{table}", host.table()),
            ("{zone}", self.zone.clone()),
            ("{zones}", path(&host.root.join("run/zones"))),
            ("{run}", path(&host.root.join("run"))),
            ("{records}", path(&host.root.join("state/records"))),
            ("{project}", self.project.clone()),
            ("{container}", path(&self.container)),
            ("{pid}", self.pid.to_string()),
            ("{shim}", self.shim.to_string()),
            ("{top}", path(&self.top)),
            ("{cgroup}", path(&self.cgroup)),
            ("{memory}", path(&self.memory.directory)),
            ("{memory-top}", path(&self.memory.top)),
            ("{memory-limit}", self.memory.file.to_owned()),
            ("{cpu}", path(&self.cpu.directory)),
            ("{cpu-limit}", self.cpu.file.to_owned()),
            ("{pids}", path(&self.pids.directory)),
        ];
        let mut line = damage.line.to_owned();
        for (word, meaning) in words {
            line = line.replace(word, &meaning);
        }
        let done = match damage.place {
            Where::Inside => self.inside(host, &line),
            _ => host.tool_reply("sh", &["-ec", &line]),
        };
        assert!(done.code == 0 || damage.may_be_refused(), "{line}: {done:?}");
        done.code == 0
    }

    fn inside(&self, host: &Host, line: &str) -> super::Reply {
        host.tool_reply("nsenter", &["-t", &self.pid.to_string(), "-n", "sh", "-ec", line])
    }

    fn unmount(&self, point: &'static str) -> bool {
        let namespace = fs::File::open(format!("/proc/{}/ns/mnt", self.pid)).expect("its mount namespace");
        let there = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_FS)?;
            setns(namespace, CloneFlags::CLONE_NEWNS)?;
            umount2(point, MntFlags::MNT_DETACH)
        });
        there.join().expect("no panic").is_ok()
    }

    /// Everything that is this service's, in words that a repair brings back.
    pub fn picture(&self, host: &Host) -> BTreeSet<String> {
        let mut picture = self.network(host);
        picture.extend(self.ground());
        picture.extend(self.files(&host.root));
        picture
    }

    fn network(&self, host: &Host) -> BTreeSet<String> {
        let (bridge, veth, table) = (&self.bridge, &self.veth, host.table());
        let outside = format!(
            "ip -o link show dev {bridge}; ip -d -o link show dev {bridge} | grep -o 'stp_state [0-9]'; ip -o addr show \
             dev {bridge}; ip route show dev {bridge}; bridge -d link show dev {veth}; ip -o link show dev {veth} | sed 's/ether [^ ]*//'; \
             nft list table inet {table}; nft list table bridge {table}; cd /proc/sys/net; head ipv4/ip_forward \
             ipv4/conf/{bridge}/route_localnet ipv4/conf/{bridge}/forwarding ipv6/conf/{bridge}/disable_ipv6 \
             ipv6/conf/{veth}/disable_ipv6; ls -l {zone} | cut -c1-10; cat {zone}",
            zone = self.zone
        );
        let inside = "ip -o link; ip -o addr; ip route; nft list ruleset; head /proc/sys/net/ipv6/conf/eth0/disable_ipv6";
        let mut picture = BTreeSet::new();
        let outside = host.tool_reply("sh", &["-c", &outside]).stdout;
        let inside = self.inside(host, inside).stdout;
        for (place, text) in [("outside", outside), ("inside", inside)] {
            for word in text.split([',', '\n']) {
                picture.insert(format!(
                    "{place}: {}",
                    without_numbers(&without_port(word.trim()))
                ));
            }
        }
        picture
    }

    /// Cgroups, limits, mounts and the files of the container.
    fn ground(&self) -> BTreeSet<String> {
        let pid = self.pid;
        let mut picture: BTreeSet<String> = [&self.memory, &self.cpu, &self.pids]
            .map(|limit| limit.looks(pid))
            .into();
        for (who, pid) in [("process", pid), ("supervisor", self.shim)] {
            let place = cgroup::of(pid, "").map(|(_, directory)| directory);
            picture.insert(format!("{who} in {place:?}"));
        }
        for leaf in ["", "payload"] {
            let file = self.cgroup.join(leaf).join("cgroup.freeze");
            let frozen = fs::read_to_string(file).unwrap_or_default();
            picture.insert(format!("{leaf} frozen: {}", frozen.trim()));
        }
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        for line in mounts.lines() {
            // Numbers of mounts and devices differ after every repair.
            let words: Vec<&str> = line.split(' ').skip(3).take(3).collect();
            picture.insert(format!("mounted: {}", words.join(" ")));
        }
        for name in ["upper", "hosts", "hostname", "resolv.conf"] {
            let path = self.container.join(name);
            let text = fs::read_to_string(&path).unwrap_or_default();
            picture.insert(format!("{name} is there: {} {text}", path.exists()));
        }
        picture
    }

    /// A request from outside: through the host port, by name to a neighbour, over the bridge.
    pub fn request(&self, neighbour: &str, limit: Duration) -> Result<(), String> {
        let address = SocketAddr::new(HOST, self.port);
        http::get_within(address, &format!("/call/{neighbour}"), limit).map(drop)
    }

    /// Waits until it looks as in `picture` and answers, and gives the moment. After damage that is fatal
    /// it is another process.
    pub fn whole_again(
        &mut self,
        host: &Host,
        picture: &BTreeSet<String>,
        neighbour: &str,
        fatal: bool,
        patience: Duration,
    ) -> Result<Instant, String> {
        let deadline = Instant::now() + patience;
        let before = self.pid;
        loop {
            let trouble = match self.trouble(host, picture, neighbour, fatal.then_some(before)) {
                None => return Ok(Instant::now()),
                Some(trouble) => trouble,
            };
            if Instant::now() > deadline {
                return Err(trouble);
            }
        }
    }

    fn trouble(
        &mut self,
        host: &Host,
        picture: &BTreeSet<String>,
        neighbour: &str,
        killed: Option<u32>,
    ) -> Option<String> {
        if let Some(killed) = killed
            && !self.find(killed)
        {
            return Some(format!("no other process than {killed}"));
        }
        let now = self.picture(host);
        if now != *picture {
            return Some(format!(
                "missing {:#?}, too much {:#?}",
                picture.difference(&now).collect::<Vec<_>>(),
                now.difference(picture).collect::<Vec<_>>()
            ));
        }
        host.network
            .on_lan(|| self.request(neighbour, Duration::from_millis(250)))
            .err()
    }

    /// The first process of the service in its cgroup, if it is not the one that was killed.
    fn find(&mut self, killed: u32) -> bool {
        let inside = fs::read_to_string(self.cgroup.join("payload/cgroup.procs")).unwrap_or_default();
        let first = inside
            .lines()
            .filter_map(|line| line.parse().ok())
            .find(|pid| process::is_first(*pid));
        if let Some(pid) = first.filter(|pid| *pid != killed)
            && let (Some(shim), Some(start_ticks)) = (process::parent(pid), process::start_ticks(pid))
        {
            (self.pid, self.shim, self.start_ticks) = (pid, shim, start_ticks);
        }
        self.pid != killed
    }

    /// Records with what they say, and whether the agent listens.
    fn files(&self, root: &Path) -> BTreeSet<String> {
        let mut picture = BTreeSet::new();
        let kinds = fs::read_dir(root.join("state/records"))
            .into_iter()
            .flatten()
            .flatten();
        for kind in kinds {
            for record in fs::read_dir(kind.path()).into_iter().flatten().flatten() {
                if record.file_name().to_string_lossy().starts_with(&self.project) {
                    let text = fs::read_to_string(record.path()).unwrap_or_default();
                    picture.insert(format!("record {} {text}", record.path().display()));
                }
            }
        }
        let listens = UnixStream::connect(root.join("run/stead.sock")).is_ok();
        picture.insert(format!("the agent listens: {listens}"));
        picture
    }
}

/// The resolver of another supervisor listens on another port, which is also what its rules are marked with.
fn without_port(line: &str) -> String {
    let line = match line.split_once("127.0.0.11:") {
        Some((before, after)) => format!("{before}{}", after.trim_start_matches(char::is_numeric)),
        None => line.to_owned(),
    };
    match line.strip_prefix("comment \"stead ") {
        Some(_) => "comment of stead".to_owned(),
        None => line,
    }
}

/// Indices and numbers of namespaces differ after every repair.
fn without_numbers(line: &str) -> String {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    if words.first().is_some_and(|word| {
        word.strip_suffix(':')
            .is_some_and(|number| number.parse::<u32>().is_ok())
    }) {
        words.remove(0);
    }
    if let Some(at) = words.iter().position(|word| *word == "link-netnsid") {
        words.drain(at..(at + 2).min(words.len()));
    }
    let words: Vec<&str> = words
        .iter()
        .map(|word| word.split('@').next().unwrap_or(word))
        .map(|word| word.trim_end_matches(':'))
        .collect();
    words.join(" ")
}

fn between<'t>(text: &'t str, start: &str, end: &str) -> &'t str {
    text.split_once(start)
        .and_then(|(_, rest)| rest.split_once(end))
        .map(|(middle, _)| middle)
        .unwrap_or_else(|| panic!("no “{start}…{end}” in {text}"))
}
