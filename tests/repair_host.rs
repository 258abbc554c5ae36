//! Damage to processes, cgroups, mounts and files: put right at once, and felt by nobody else.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    mount::{MntFlags, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::signal::Signal,
};

use crate::host::{Host, PATIENCE, process, remove, signal};

/// Long enough for a debug build on a busy machine, and far from the slow look (60 s).
const REPAIR: Duration = Duration::from_secs(5);

fn shop(host: &Host) -> String {
    format!(
        "services:\n  web:\n    image: {}\n    command: [sleep, \"1000000\"]\n    \
         restart: always\n    stop_grace_period: 0s\n    tmpfs: [/scratch]\n    volumes: [\"data:/data\", \"./given:/given\"]\n  \
         beside: {{ image: builtin:hello, restart: always, volumes: [\"data:/data\"] }}\nvolumes: {{ data: {{}} }}\n",
        host.busybox()
    )
}

const OTHER: &str = "services: { calm: { image: builtin:hello, restart: always } }\n";

fn prepared(name: &str) -> Option<Host> {
    let mut host = Host::new(name)?;
    fs::create_dir(host.root.join("manifests/given")).expect("what is bound");
    host.start_agent();
    host.write_manifest("shop", &shop(&host));
    host.write_manifest("other", OTHER);
    host.converged("shop");
    host.converged("other");
    Some(host)
}

fn web(host: &Host) -> u32 {
    host.running("shop", "web").pid()
}

fn upper(host: &Host) -> PathBuf {
    host.root.join("state/containers/shop/web-1a/upper")
}

fn volume(host: &Host) -> PathBuf {
    fs::read_dir(host.root.join("state/volumes"))
        .expect("volumes")
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.join("identity").exists())
        .expect("the volume")
}

fn unmount(pid: u32, point: &str) {
    let namespace = fs::File::open(format!("/proc/{pid}/ns/mnt")).expect("its mount namespace");
    let point = point.to_owned();
    let there = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_FS)?;
        setns(namespace, CloneFlags::CLONE_NEWNS)?;
        umount2(point.as_str(), MntFlags::MNT_DETACH)
    });
    there.join().expect("no panic").expect("unmounted");
}

fn mounted(pid: u32, point: &str) -> bool {
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(3);
        let root = fields.next().unwrap_or_default();
        fields.next() == Some(point) && !root.ends_with("//deleted")
    })
}

type Damage = fn(&Host, u32);

/// Everything of both projects: nobody is hurt.
#[test]
fn what_can_be_put_right_under_a_process_is() {
    let Some(host) = prepared("repair-live") else {
        return;
    };
    let zones = host.root.join("run/zones");
    let zone = |host: &Host| {
        fs::read_dir(host.root.join("run/zones"))
            .expect("zones")
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.to_string_lossy().contains("shop@"))
    };
    let names = zone(&host).expect("the names of the shop");
    let written = fs::read_to_string(&names).expect("names");
    type Case<'a> = (&'a str, Damage, &'a dyn Fn(u32) -> bool);
    let cases: [Case<'_>; 6] = [
        ("a volume is unmounted", |_, pid| unmount(pid, "/data"), &|pid| {
            mounted(pid, "/data")
        }),
        ("a bind is unmounted", |_, pid| unmount(pid, "/given"), &|pid| {
            mounted(pid, "/given")
        }),
        (
            "the process is moved to another cgroup",
            |_, pid| {
                let own = process::cgroups(pid);
                let path = own.lines().find_map(|line| line.strip_prefix("0::")).expect("v2");
                let top = unified().join(path.trim_start_matches('/'));
                let shim = top.parent().expect("its sandbox").join("shim/cgroup.procs");
                fs::write(shim, pid.to_string()).expect("moved");
            },
            &|pid| process::cgroups(pid).contains("/web-1a/payload"),
        ),
        (
            "the names are deleted",
            |host, _| {
                for entry in fs::read_dir(host.root.join("run/zones"))
                    .expect("zones")
                    .flatten()
                {
                    fs::remove_file(entry.path()).expect("a zone goes");
                }
            },
            &|_| fs::read_to_string(&names).is_ok_and(|now| now == written),
        ),
        (
            "the names are edited",
            |host, _| {
                for entry in fs::read_dir(host.root.join("run/zones"))
                    .expect("zones")
                    .flatten()
                {
                    fs::write(entry.path(), "web 192.0.2.1\n").expect("a zone is edited");
                }
            },
            &|_| fs::read_to_string(&names).is_ok_and(|now| now == written),
        ),
        (
            "the records are deleted",
            |host, _| remove(&host.root.join("state/records")),
            &|_| zones.join("../../state/records/id-base/shop.json").exists(),
        ),
    ];
    let before = (host.identities("shop"), host.identities("other"));
    for (what, damage, whole) in cases {
        let pid = web(&host);
        assert!(whole(pid), "{what}: not yet");
        damage(&host, pid);
        let start = Instant::now();
        host.wait(&format!("{what}, and is put right"), REPAIR, || {
            whole(pid).then_some(())
        });
        eprintln!("{what}: put right within {:?}", start.elapsed());
        host.nothing_to_do(PATIENCE);
        let after = (host.identities("shop"), host.identities("other"));
        assert_eq!(after, before, "{what}");
    }
    host.finish();
}

fn unified() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let line = mounts
        .lines()
        .find(|line| line.contains(" - cgroup2 "))
        .expect("a v2 tree");
    line.split(' ').nth(4).map(PathBuf::from).expect("a mount point")
}

/// The service is started again, and nobody else.
#[test]
fn a_process_on_ground_that_is_gone_is_started_again() {
    let Some(host) = prepared("repair-ground") else {
        return;
    };
    let cases: [(&str, Damage, Option<&str>); 5] = [
        (
            "the process is killed",
            |_, pid| signal(pid, Signal::SIGKILL),
            None,
        ),
        (
            "what the kernel gives it is unmounted",
            |_, pid| unmount(pid, "/proc"),
            Some("/proc is not mounted any more"),
        ),
        (
            "a tmpfs is unmounted",
            |_, pid| unmount(pid, "/scratch"),
            Some("/scratch is not mounted any more"),
        ),
        (
            "the upper directory is deleted",
            |host, _| fs::remove_dir_all(upper(host)).expect("the upper directory goes"),
            Some("upper was deleted"),
        ),
        (
            "the upper directory is replaced",
            |host, _| {
                fs::rename(upper(host), host.root.join("aside")).expect("the upper directory moves");
                fs::create_dir(upper(host)).expect("another one");
            },
            Some("upper"),
        ),
    ];
    for (what, damage, cause) in cases {
        let calm = (
            host.running("shop", "beside").identity(),
            host.identities("other"),
        );
        let (pid, address) = {
            let web = host.running("shop", "web");
            (web.pid(), web.addresses)
        };
        let journal = journal(&host).len();
        damage(&host, pid);
        let start = Instant::now();
        let again = host.wait(&format!("{what}, and it runs again"), REPAIR, || {
            host.instance("shop", "web")
                .filter(|web| web.state == "running" && web.pid != Some(pid))
        });
        eprintln!("{what}: runs again within {:?}", start.elapsed());
        host.nothing_to_do(PATIENCE);
        assert_eq!(again.addresses, address, "{what}");
        assert!(mounted(again.pid(), "/data"), "{what}");
        assert!(!process::alive(pid), "{what}");
        let now = (
            host.running("shop", "beside").identity(),
            host.identities("other"),
        );
        assert_eq!(now, calm, "{what}: the others");
        if let Some(cause) = cause {
            let said = journal_text(&host, journal);
            assert!(said.contains(cause), "{what}: {said}");
        }
        let _ = fs::remove_dir_all(host.root.join("aside"));
    }
    host.finish();
}

/// Directories above a mount are the service's own: to rename them is no way to be started again. What an
/// administrator takes away there is still missed.
#[test]
fn what_a_service_renames_takes_nothing_from_it() {
    let Some(mut host) = Host::new("repair-renamed") else {
        return;
    };
    host.start_agent();
    let service = |name: &str, script: &str| {
        format!(
            "  {name}: {{ image: {}, command: [sh, -c, 'until [ -e /v/go ]; do usleep 20000; done; {script}; exec sleep 1000000'], stop_signal: KILL, \
             tmpfs: [/v/a/scratch], volumes: [\"{name}:/v\", \"in-{name}:/v/a/inner\"] }}\n",
            host.busybox()
        )
    };
    let text = format!(
        "services:\n{}{}volumes: {{ mover: {{}}, in-mover: {{}}, jailed: {{}}, in-jailed: {{}} }}\n",
        service("mover", "mv /v/a /v/b; mkdir -p /v/a/inner"),
        service(
            "jailed",
            "mkdir -p /jail/bin; cp /bin/busybox /jail/bin; exec chroot /jail /bin/busybox sleep 1000000"
        ),
    );
    host.write_manifest("moved", &text);
    host.converged("moved");
    let (mover, jailed) = (
        host.running("moved", "mover").pid(),
        host.running("moved", "jailed").pid(),
    );
    // What they stand on is written down when they start: they go on after that.
    for one in ["mover", "jailed"] {
        host.stead_ok(&["exec", &format!("moved/{one}"), "--", "touch", "/v/go"]);
    }
    host.wait("both have done it", PATIENCE, || {
        let root = fs::read_link(format!("/proc/{jailed}/root")).ok()?;
        (mounted(mover, "/v/b/scratch") && root.ends_with("jail")).then_some(())
    });
    let before = host.identities("moved");
    // Each looks at the host.
    for _ in 0..3 {
        host.nothing_to_do(PATIENCE);
    }
    unmount(mover, "/v/b/inner");
    host.wait("the volume is hung in again", REPAIR, || {
        mounted(mover, "/v/a/inner").then_some(())
    });
    host.nothing_to_do(PATIENCE);
    assert_eq!(host.identities("moved"), before);
    unmount(jailed, "/v/a/scratch");
    host.wait("the other one stands on new ground", REPAIR, || {
        host.instance("moved", "jailed")
            .filter(|now| now.state == "running" && now.pid != Some(jailed))
    });
    assert!(journal_text(&host, 0).contains("/v/a/scratch is not mounted any more"));
    assert_eq!(host.running("moved", "mover").pid(), mover);
    host.finish();
}

#[test]
fn a_layer_that_is_deleted_is_unpacked_again() {
    let Some(mut host) = Host::new("repair-layer") else {
        return;
    };
    host.start_agent();
    let calm = format!(
        "services: {{ calm: {{ image: \"{}\", command: [sleep, \"100000\"] }} }}\n",
        host.busybox()
    );
    host.write_manifest("calm", &calm);
    host.write_manifest("other", OTHER);
    host.converged("calm");
    host.converged("other");
    let before = host.identities("calm");
    let pid = host.running("other", "calm").pid();
    let since = journal(&host).len();
    for layer in fs::read_dir(host.root.join("state/images/layers"))
        .expect("layers")
        .flatten()
    {
        fs::remove_dir_all(layer.path()).expect("the layer goes");
    }
    host.wait("it runs again", REPAIR, || {
        host.instance("other", "calm")
            .filter(|calm| calm.state == "running" && calm.pid != Some(pid))
    });
    host.nothing_to_do(PATIENCE);
    let said = journal_text(&host, since);
    assert!(said.contains("was deleted"), "{said}");
    assert_eq!(host.identities("calm"), before);
    host.finish();
}

fn journal(host: &Host) -> Vec<String> {
    let text = fs::read_to_string(host.root.join("state/journal.jsonl")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn journal_text(host: &Host, since: usize) -> String {
    journal(host).split_off(since).join("\n")
}

/// A volume that is gone is told and waited for; what runs on it goes on.
#[test]
fn a_volume_that_goes_and_comes_is_told_and_taken_back() {
    let Some(host) = prepared("repair-volume") else {
        return;
    };
    let volume = volume(&host);
    let data = volume.join("data");
    fs::write(data.join("word"), "kept").expect("data");
    let aside = host.root.join("aside");
    let copy = |from: &Path, to: &Path| {
        host.tool(
            "cp",
            &["-a", &from.display().to_string(), &to.display().to_string()],
        );
    };
    type Step<'a> = (&'a str, &'a dyn Fn(), &'a dyn Fn());
    let cases: [Step; 3] = [
        (
            "moved away and back",
            &|| fs::rename(&volume, &aside).expect("moved away"),
            &|| fs::rename(&aside, &volume).expect("moved back"),
        ),
        (
            "deleted and restored from a backup",
            &|| {
                copy(&volume, &aside);
                fs::remove_dir_all(&volume).expect("deleted");
            },
            &|| fs::rename(&aside, &volume).expect("restored"),
        ),
        (
            "without its identity",
            &|| fs::rename(volume.join("identity"), &aside).expect("the identity moves"),
            &|| fs::rename(&aside, volume.join("identity")).expect("the identity is back"),
        ),
    ];
    let before = (host.identities("shop"), host.identities("other"));
    for (what, take, give) in cases {
        take();
        host.wait(&format!("{what}: status says it"), REPAIR, || {
            host.complaint("shop").contains("missing").then_some(())
        });
        assert_eq!(
            (host.identities("shop"), host.identities("other")),
            before,
            "{what}"
        );
        give();
        host.wait(&format!("{what}: nothing is missing"), REPAIR, || {
            (!host.complaint("shop").contains("missing")).then_some(())
        });
        host.converged("shop");
        host.nothing_to_do(PATIENCE);
        assert_eq!(
            (host.identities("shop"), host.identities("other")),
            before,
            "{what}"
        );
        let pid = web(&host);
        host.wait(&format!("{what}: the service sees its data"), REPAIR, || {
            let word = format!("/proc/{pid}/root/data/word");
            fs::read_to_string(word).ok().filter(|word| word == "kept")
        });
    }
    host.finish();
}
