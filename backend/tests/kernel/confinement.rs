//! What a default service is allowed, compared with a golden text; and that nothing it runs has more.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt};

use backend::shim::protocol::{HealthState, Request};
use reconciler::spec::HealthSpec;

use super::host::{BASE, Container, Host, until};

pub const TESTS: [(&str, fn()); 6] = [
    ("what_a_default_service_sees_is_as_written_down", golden),
    ("no_namespace_is_the_hosts", namespaces),
    ("what_the_kernel_says_about_itself_is_hidden", hidden),
    ("a_set_uid_program_gains_the_containers_root_and_no_more", set_uid),
    ("exec_and_probes_are_as_confined_as_the_service", joined),
    ("a_profile_of_apparmor_is_the_hosts_or_refused", apparmor),
];

/// Mount point, options of the mount, file system. Options that the host's own mount decides are left out.
const MOUNTS: &str = "\
/ rw,nodev,relatime overlay
/proc rw,nosuid,nodev,noexec,relatime proc
/sys ro,nosuid,nodev,noexec,relatime sysfs
/sys/fs/cgroup ro,nosuid,nodev,noexec,relatime cgroup2
/dev rw,nosuid,nodev,noexec,relatime tmpfs
/dev/null host
/dev/zero host
/dev/full host
/dev/random host
/dev/urandom host
/dev/tty host
/dev/pts rw,nosuid,noexec,relatime devpts
/dev/shm rw,nosuid,nodev,noexec,relatime tmpfs
/dev/mqueue rw,nosuid,nodev,noexec,relatime mqueue
/etc/hosts host
/etc/hostname host
/etc/resolv.conf host
";

/// As [`MOUNTS`], of a kernel that has them.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

const HIDDEN: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const DEVICES: &str = "\
core -> /proc/kcore
fd -> /proc/self/fd
full 1:7 666
mqueue
null 1:3 666
ptmx -> pts/ptmx
pts
random 1:8 666
shm
stderr -> /proc/self/fd/2
stdin -> /proc/self/fd/0
stdout -> /proc/self/fd/1
tty 5:0 666
urandom 1:9 666
zero 1:5 666
";

fn golden() {
    let host = Host::new();
    let script = "cd /dev; for n in *; do if [ -L $n ]; then echo \"$n -> $(readlink $n)\"; \
                  elif [ -d $n ]; then echo $n; else echo $n $(stat -c '%t:%T %a' $n); fi; done; echo =; \
                  cat /proc/self/uid_map /proc/self/gid_map; echo =; ls /proc/1/fd; echo =; \
                  cat /proc/self/limits; echo =; cat /proc/self/mountinfo";
    let (code, lines) = host.run(script, |_| {});
    assert_eq!(code, 0);
    let mut parts = lines.split(|line| line == "=");
    let mut part = || parts.next().unwrap().join("\n") + "\n";

    assert_eq!(part(), DEVICES, "device nodes");
    let maps = part();
    let maps: Vec<Vec<&str>> = maps
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let base = BASE.to_string();
    assert_eq!(maps, vec![vec!["0", base.as_str(), "65536"]; 2], "id maps");
    assert_eq!(part(), "0\n1\n2\n", "open descriptors");
    assert_eq!(part(), fs::read_to_string("/proc/self/limits").unwrap(), "limits");

    let mut expected: BTreeMap<&str, (&str, &str)> = MOUNTS
        .lines()
        .map(|line| {
            let mut words = line.split(' ');
            let point = words.next().unwrap();
            (point, (words.next().unwrap(), words.next().unwrap_or("")))
        })
        .collect();
    for line in part().lines() {
        let (left, right) = line.split_once(" - ").unwrap();
        let left: Vec<&str> = left.split(' ').collect();
        let (point, options) = (left[4], left[5]);
        let kind = right.split(' ').next().unwrap();
        assert!(left.len() == 6, "every mount is private: {line}");
        match expected.remove(point) {
            Some(("host", _)) => {}
            Some(wanted) => assert_eq!((options, kind), wanted, "{point}"),
            None => {
                let thermal =
                    point.starts_with("/sys/devices/system/cpu/cpu") && point.ends_with("/thermal_throttle");
                if READ_ONLY.contains(&point) {
                    assert!(options.starts_with("ro,nosuid,nodev,noexec"), "{line}");
                } else {
                    assert!(thermal || HIDDEN.contains(&point), "a mount more: {line}");
                }
            }
        }
    }
    assert_eq!(expected, BTreeMap::new(), "mounts that are missing");
}

fn namespaces() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.script("sleep 1000");
    let pid = container.start().unwrap();
    let mut shared = Vec::new();
    for entry in fs::read_dir("/proc/self/ns").unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let theirs = fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        if theirs == fs::read_link(entry.path()).unwrap() {
            shared.push(name);
        }
    }
    assert!(shared.is_empty(), "{shared:?}");
}

/// SEC-15
fn hidden() {
    let host = Host::new();
    let paths = HIDDEN.join(" ");
    let script = format!(
        "for p in {paths} /sys/devices/system/cpu/cpu*/thermal_throttle; do \
         if [ -d $p ]; then ls -A $p; elif [ -e $p ]; then cat $p; fi; done; \
         for p in kernel/core_pattern kernel/hostname vm/overcommit_memory net/ipv4/ip_forward; do \
         echo 1 2>&1 > /proc/sys/$p; done; touch /proc/irq/x /proc/bus/x /proc/fs/x /sys/fs/cgroup/x /sys/kernel/x; true"
    );
    let (_, lines) = host.run(&script, |_| {});
    let refused = |line: &&String| {
        ["Read-only file system", "nonexistent directory", "No such file"]
            .iter()
            .any(|why| line.contains(why))
    };
    let open: Vec<_> = lines.iter().filter(|line| !refused(line)).collect();
    assert!(open.is_empty(), "{open:#?}");
    assert_eq!(lines.len(), 9, "each write is refused: {lines:#?}");
}

/// What this very program prints when a container runs it as `confined`.
pub fn confined() {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let status = fs::read_to_string("/proc/self/status").unwrap();
    for line in status.lines().filter(|line| of_confinement(line)) {
        println!("{line}");
    }
    for (name, family, kind) in [
        ("AF_ALG", AddressFamily::Alg, SockType::SeqPacket),
        ("AF_VSOCK", AddressFamily::Vsock, SockType::Stream),
        ("AF_PACKET", AddressFamily::Packet, SockType::Raw),
        ("AF_INET", AddressFamily::Inet, SockType::Stream),
    ] {
        let verdict = socket(family, kind, SockFlag::empty(), None).map(drop);
        println!("{name} {verdict:?}");
    }
    println!(
        "unshare {:?}",
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER)
    );
    println!(
        "setns {:?}",
        fs::File::open("/proc/self/ns/net")
            .map(|net| { nix::sched::setns(net, nix::sched::CloneFlags::CLONE_NEWNET) })
            .unwrap()
    );
    let none = None::<&str>;
    println!(
        "mount {:?}",
        nix::mount::mount(none, "/", none, nix::mount::MsFlags::MS_REMOUNT, none)
    );
    println!("chroot {:?}", nix::unistd::chroot("/"));
    println!(
        "host file {:?}",
        fs::read("/proc/1/root/proc/1/root/etc/shadow").map_err(|error| error.kind())
    );
}

fn of_confinement(line: &str) -> bool {
    ["Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp"]
        .iter()
        .any(|name| line.starts_with(name))
}

/// What else a process has from whoever started it. (What it ignores a shell decides.)
fn of_start(line: &str) -> bool {
    [
        "Umask",
        "SigBlk",
        "CoreDumping",
        "THP_enabled",
        "Speculation",
        "Cpus_allowed",
        "Mems_allowed",
    ]
    .iter()
    .any(|name| line.starts_with(name))
}

const AS_USER: &str = "\
Uid:\t33\t0\t0\t0
Gid:\t34\t34\t34\t34
Groups:\t29 34 
CapInh:\t0000000000000000
CapPrm:\t00000000a80425fb
CapEff:\t00000000a80425fb
CapBnd:\t00000000a80425fb
CapAmb:\t0000000000000000
NoNewPrivs:\t0
Seccomp:\t2
Seccomp_filters:\t1
AF_ALG Err(EPERM)
AF_VSOCK Err(EPERM)
AF_PACKET Ok(())
AF_INET Ok(())
unshare Err(EPERM)
setns Err(EPERM)
mount Err(EPERM)
chroot Ok(())
";

fn set_uid() {
    let host = Host::new();
    let program = host.path("layer/bin/confined");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(&program, PermissionsExt::from_mode(0o4755)).unwrap();
    let (code, lines) = host.run("exec confined", |container| container.spec.user = "www".into());
    let text = lines.join("\n");
    assert_eq!(code, 0, "{text}");
    let (golden, rest) = lines.split_at(AS_USER.lines().count().min(lines.len()));
    assert_eq!(golden.join("\n") + "\n", AS_USER);
    assert!(rest.len() == 1 && rest[0].contains("Err("), "{rest:?}");
}

/// SEC-19
fn joined() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.script("sleep 1000");
    container.spec.health = Some(HealthSpec {
        // Renamed into place: the next probe must not be caught half written.
        argv: ["sh", "-c", "cd /tmp; cat /proc/self/status > 1; ls -l /proc/self/ns > 2; cat /proc/self/limits > 3; mv 1 probe; mv 2 ns; mv 3 limits"]
            .map(String::from)
            .to_vec(),
        interval: 50,
        timeout: 5000,
        retries: 1,
            ..HealthSpec::default()
    });
    for user in ["", "www"] {
        container.spec.user = user.into();
        container.start().unwrap();
        until("a probe has run", || {
            (container.state().health == HealthState::Healthy).then_some(())
        });
        let mut read = |path: &str| container.exec(&["cat", path], user).unwrap().1;
        let only = |text: String| -> Vec<String> {
            text.lines()
                .filter(|line| of_confinement(line) || of_start(line))
                .map(String::from)
                .collect()
        };
        let first = only(read("/proc/1/status"));
        assert!(first.len() >= 16, "{first:?}");
        assert_eq!(only(read("/proc/self/status")), first, "exec as {user:?}");
        assert_eq!(only(read("/tmp/probe")), first, "probe as {user:?}");
        assert_eq!(read("/proc/self/limits"), read("/proc/1/limits"));
        assert_eq!(read("/tmp/limits"), read("/proc/1/limits"));
        let links = |container: &mut Container, what: &str| {
            let text = container.exec(&["sh", "-c", what], "").unwrap().1;
            let mut links: Vec<String> = text
                .lines()
                .filter_map(|line| Some(line.rsplit_once("-> ")?.1.to_owned()))
                .collect();
            links.sort();
            links
        };
        let namespaces = links(&mut container, "ls -l /proc/1/ns");
        assert!(namespaces.len() >= 8, "{namespaces:?}");
        assert_eq!(links(&mut container, "ls -l /proc/self/ns"), namespaces);
        assert_eq!(links(&mut container, "cat /tmp/ns"), namespaces);
        container.client.order(&Request::Kill).unwrap();
        container.ended();
    }
}

fn apparmor() {
    let host = Host::new();
    let (code, _) = host.run("true", |container| {
        container.spec.rights.apparmor = Some("unconfined".into());
    });
    assert_eq!(code, 0);
    let mut container = host.sandbox("other", Vec::new()).unwrap();
    container.script("true");
    container.spec.rights.apparmor = Some("stead-nowhere".into());
    let error = container.start().unwrap_err().to_string();
    let expected = match std::path::Path::new("/sys/kernel/security/apparmor").exists() {
        true => "has loaded no AppArmor profile stead-nowhere",
        false => "this host has no AppArmor",
    };
    assert!(
        error.contains(expected) && error.contains("`security_opt`"),
        "{error}"
    );
}
