//! What comes in from outside (the first process, `exec`, probes): it brings nothing along and lends nothing.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{inside, lasting, once, refused, rounds, said};
use crate::host::{Host, PATIENCE};

fn executable(path: &Path, text: &str) {
    fs::write(path, text).expect("a script");
    fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("its mode");
}

fn digest(path: &Path) -> Vec<u8> {
    Sha256::digest(fs::read(path).expect("the binary")).to_vec()
}

/// A program of the test that becomes the agent.
pub fn wrapper(host: &Host, before: &str) -> PathBuf {
    let path = host.root.join("wrapper");
    executable(
        &path,
        &format!("#!/bin/bash\n{before} {} \"$@\"\n", Host::binary().display()),
    );
    path
}

/// SEC-01: what enters is a program of the host, and a process of the container may be made to execute it.
#[test]
fn the_binary_cannot_be_written_through_what_a_container_executes() {
    let Some(mut host) = Host::new("self-exe") else {
        return;
    };
    let before = digest(Host::binary());
    host.start_agent();
    let image = host.probed("image", |root| {
        executable(&root.join("bin/self"), "#!/proc/self/exe\n");
    });
    let looking = "probe exes 2000; echo done";
    let more = ", init: true";
    host.write_manifest(
        "exe",
        &format!(
            "services:\n{}{}  entry: {{ image: \"{image}\", entrypoint: [/bin/self], restart: \"no\" }}\n{}",
            lasting("victim", &image, more),
            // Its root is the host's.
            lasting("bare", &image, ", init: true, userns_mode: host"),
            once("also", &image, ", init: true", looking),
        ),
    );
    host.running("exe", "victim");
    host.running("exe", "bare");
    // The program it came from is what runs, as an ordinary program of the container: it knows no such verb.
    let lines = said(&host, "exe", "entry").join("\n");
    assert!(lines.contains("unrecognized subcommand '/bin/self'"), "{lines}");
    let mut found = said(&host, "exe", "also");
    assert_eq!(found.pop().as_deref(), Some("done"));
    // While one looks from within, others come in.
    for target in ["exe/victim", "exe/bare"] {
        let looker = std::thread::scope(|scope| {
            let looker = scope.spawn(|| inside(&host, target, &["probe", "exes", "/out/enough"]));
            for number in 0..rounds(100) {
                let command = if number % 2 == 0 { "/bin/self" } else { "/bin/true" };
                host.stead(&["exec", target, "--", command]);
                assert!(!looker.is_finished(), "nobody looks any more");
            }
            inside(&host, target, &["touch", "/out/enough"]);
            looker.join().expect("no panic")
        });
        found.extend(looker.lines().map(str::to_owned));
    }
    assert!(found.len() >= 2, "{found:?}");
    let own = Host::binary().display().to_string();
    for line in &found {
        let refused = ["EACCES", "EROFS", "ETXTBSY", "EPERM"];
        let words: Vec<&str> = line.split(' ').collect();
        let ["exe", path, verdict] = words[..] else {
            panic!("{line}")
        };
        // What the image itself has is the container's to write.
        let image = path.starts_with("/bin/");
        assert!(image || refused.contains(&verdict), "{line}");
        assert!(
            !own.contains(path) || path == "/",
            "it is told where it lies: {line}"
        );
    }
    assert!(digest(Host::binary()) == before, "the binary is as it was");
    host.finish();
}

/// The same where one is root of the host: the file is read-only by its mount, not only by its owner.
#[test]
fn a_supervisor_executes_the_binary_by_a_mount_that_nothing_is_written_through() {
    let Some(mut host) = Host::new("sealed") else {
        return;
    };
    let binary = host.root.join("stead");
    fs::copy(Host::binary(), &binary).expect("a copy");
    host.start_agent_from(&binary);
    let image = host.busybox();
    host.write_manifest("sealed", &format!("services:\n{}", lasting("box", &image, "")));
    let pid = host.running("sealed", "box").pid();
    let shim = crate::host::process::parent(pid).expect("its supervisor");
    let exe = PathBuf::from(format!("/proc/{shim}/exe"));
    let error = fs::File::options()
        .write(true)
        .open(&exe)
        .expect_err("it does not open");
    // While it is executed by anybody, that is said first.
    let known = [nix::libc::EROFS, nix::libc::ETXTBSY].map(Some);
    assert!(known.contains(&error.raw_os_error()), "{error}");
    let mount = nix::sys::statvfs::statvfs(&exe).expect("its mount").flags();
    assert!(mount.contains(nix::sys::statvfs::FsFlags::ST_RDONLY), "{mount:?}");
    let path = fs::read_link(&exe).expect("a link");
    assert!(!path.starts_with(&host.root), "{}", path.display());
    host.finish();
}

/// SEC-02: a directory of the host that was left open is no way out, and none is left open.
#[test]
fn no_descriptor_leaks_and_none_is_a_working_directory() {
    let Some(mut host) = Host::new("descriptors") else {
        return;
    };
    // An agent that was given twenty descriptors it knows nothing of.
    let leaky = wrapper(&host, "for i in $(seq 20 39); do eval \"exec $i</\"; done; exec");
    host.start_agent_from(&leaky);
    let inherited = fs::read_dir(format!("/proc/{}/fd", host.agent_pid())).expect("descriptors");
    let roots = inherited
        .flatten()
        .filter(|entry| fs::read_link(entry.path()).is_ok_and(|to| to == Path::new("/")));
    assert!(roots.count() >= 20, "the agent has what it was given");
    let image = host.probed("image", |_| ());
    let services: Vec<(u32, String)> = (3..64).map(|number| (number, format!("fd{number}"))).collect();
    let mut text = format!("services:\n{}", lasting("box", &image, ""));
    for (number, name) in &services {
        text.push_str(&once(
            name,
            &image,
            &format!(", working_dir: /proc/self/fd/{number}"),
            "ls",
        ));
    }
    host.write_manifest("fd", &text);
    host.running("fd", "box");
    for number in 3..64 {
        let directory = format!("/proc/self/fd/{number}");
        let reply = host.stead(&["exec", "-w", &directory, "fd/box", "--", "ls"]);
        assert!(
            reply.code != 0 && reply.stdout.is_empty() && reply.stderr.contains("cannot be entered"),
            "{directory}: {reply:?}"
        );
    }
    for (_, name) in &services {
        let complaint = refused(&host, "fd", name);
        assert!(complaint.contains("cannot be entered"), "{complaint}");
    }
    // Of the first process, and of one that joined it.
    assert_eq!(inside(&host, "fd/box", &["ls", "/proc/1/fd"]), "0\n1\n2\n");
    let joined = inside(&host, "fd/box", &["probe", "facts"]);
    assert!(joined.contains("\ndescriptors 0 1 2\n") || joined.starts_with("descriptors 0 1 2\n"));
    host.finish();
}

/// Those that execute or open a file.
const CALLS: &str = "trace=execve,execveat,open,openat,openat2";

/// SEC-09: nothing of an image is executed or read as a program on the host's side.
#[test]
fn programs_and_libraries_of_an_image_are_run_by_nobody_but_itself() {
    let Some(mut host) = Host::new("tools") else {
        return;
    };
    let tools = [
        "xz", "zstd", "gzip", "tar", "nsenter", "ps", "unpigz", "iptables", "nft", "mount",
    ];
    let libraries = [
        "libnss_files.so.2",
        "libnss_dns.so.2",
        "libc.so.6",
        "ld-linux-x86-64.so.2",
    ];
    let image = host.probed("image", |root| {
        for directory in ["usr/bin", "usr/lib", "lib", "lib64", "etc"] {
            fs::create_dir_all(root.join(directory)).expect("a directory");
        }
        for tool in tools {
            executable(
                &root.join("usr/bin").join(tool),
                "#!/bin/sh\necho \"$STEAD_ROOT $AGENT_ONLY\" >> /out/marker\n",
            );
        }
        for library in libraries {
            fs::write(root.join("usr/lib").join(library), "no library").expect("a file");
            fs::write(root.join("lib").join(library), "no library").expect("a file");
        }
        fs::write(root.join("etc/nsswitch.conf"), "passwd: files dns\n").expect("a file");
    });
    let log = host.root.join("trace");
    // Of all that the agent starts, too. -D: the agent keeps its process id.
    let traced = wrapper(
        &host,
        &format!(
            "AGENT_ONLY=token exec strace -D -f -qq -e signal=none -e {CALLS} -o {}",
            log.display()
        ),
    );
    host.start_agent_from(&traced);
    let health = "healthcheck: { test: [CMD, \"true\"], interval: 1s }";
    host.write_manifest(
        "tools",
        &format!(
            "services:\n{}",
            lasting(
                "box",
                &image,
                &format!(", user: app, {health}, volumes: [\"./out:/out\"]")
            )
        ),
    );
    host.wait("the service is healthy", PATIENCE * 2, || {
        let instance = host.instance("tools", "box")?;
        (instance.health == "healthy").then_some(())
    });
    // What a command does itself is traced, too.
    let commands = host.root.join("commands");
    let stead = |arguments: &[&str]| {
        let (commands, root) = (commands.display().to_string(), host.root.display().to_string());
        let binary = Host::binary().display().to_string();
        let mut words = vec![
            "-f",
            "-qq",
            "-A",
            "-E",
            "AGENT_ONLY=token",
            "-e",
            "signal=none",
            "-e",
            CALLS,
        ];
        words.extend(["-o", &commands, &binary, "--root", &root]);
        words.extend(arguments);
        host.tool("strace", &words)
    };
    let file = host.root.join("given");
    fs::write(&file, "given").expect("a file");
    let (file, back) = (
        file.display().to_string(),
        host.root.join("back").display().to_string(),
    );
    stead(&["exec", "tools/box", "--", "true"]);
    stead(&["cp", &file, "tools/box:/tmp/given"]);
    stead(&["cp", "tools/box:/tmp/given", &back]);
    assert_eq!(fs::read_to_string(&back).expect("it came back"), "given");
    let out = host.root.join("out").display().to_string();
    stead(&["cp", "tools/box:/etc", &out]);
    assert!(stead(&["top", "tools/box"]).contains("sleep"));
    stead(&["stats", "--no-stream", "tools/box"]);
    stead(&["logs", "tools"]);
    stead(&["ps"]);
    stead(&["why", "tools/box"]);
    stead(&["down", "tools"]);
    let read = |path: &Path| fs::read_to_string(path).expect("a trace");
    let text = read(&log) + &read(&commands);
    for part in ["stead-shim", "bin/sleep", "stead-copy"] {
        assert!(text.contains(part), "all is traced, but for {part}");
    }
    let touched: Vec<&str> = text
        .lines()
        .filter(|line| !line.contains("ENOENT"))
        .filter(|line| {
            tools
                .iter()
                .any(|tool| line.contains(&format!("usr/bin/{tool}\"")) && !line.contains("strace"))
                || libraries.iter().any(|library| line.contains(library))
        })
        .collect();
    assert_eq!(touched, Vec::<&str>::new());
    let marker = host.root.join("manifests/out/marker");
    assert!(
        !marker.exists(),
        "a program of the image was run: {:?}",
        fs::read_to_string(marker)
    );
    let _ = fs::remove_dir_all(host.root.join("manifests/out"));
    host.finish();
}
