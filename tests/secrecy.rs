//! What root keeps stays root's: nobody else reads state, logs or volumes, or speaks to a socket.

use std::{
    fs,
    io::Write,
    os::unix::{fs::FileTypeExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::host::{Host, PATIENCE, compose};

/// The user that owns nothing.
const NOBODY: u32 = 65_534;

pub fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        found.push(entry.path());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), found);
        }
    }
}

/// Of `paths` those with which this user may do one of these: `r`, `w`, `x` (directories: list, change, enter).
pub fn open_to(user: u32, what: &str, paths: &[PathBuf]) -> Vec<String> {
    let tests: Vec<String> = what.chars().map(|one| format!("[ -{one} \"$path\" ]")).collect();
    let script = format!(
        "while read -r path; do if {}; then echo \"$path\"; fi; done",
        tests.join(" || ")
    );
    let mut child = Command::new("/bin/sh")
        .args(["-c", &script])
        .uid(user)
        .gid(user)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell of that user");
    let mut input = child.stdin.take().expect("its input");
    let text: String = paths.iter().map(|path| format!("{}\n", path.display())).collect();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().expect("its end");
    writer.join().expect("no panic").expect("all paths are asked for");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn nobody_but_root_reads_the_state_or_speaks_to_a_socket() {
    let Some(mut host) = Host::new("secrecy") else {
        return;
    };
    host.start_agent();
    let image = host.busybox();
    host.write_manifest(
        "shop",
        &format!(
            "services:\n  web: {{ {} }}\n  talker:\n    image: {image}\n    command: [sh, -c, \"umask 0; echo secret; \
             echo secret > /out/file; echo secret > /own; exec sleep 1000\"]\n    volumes: [\"data:/out\"]\n\
             volumes: {{ data: {{}} }}\n",
            compose::web(18990)
        ),
    );
    host.converged("shop");
    host.wait("something is logged", PATIENCE, || {
        host.stead(&["logs", "shop", "talker"])
            .stdout
            .contains("secret")
            .then_some(())
    });
    let mut paths = Vec::new();
    for place in ["state", "run"] {
        paths.push(host.root.join(place));
        collect(&host.root.join(place), &mut paths);
    }
    let ends = |end: &str| paths.iter().any(|path| path.ends_with(end));
    assert!(
        ends("data/file") && ends("upper/own") && ends("current.log"),
        "{paths:#?}"
    );
    let sockets = paths
        .iter()
        .filter(|path| fs::metadata(path).is_ok_and(|found| found.file_type().is_socket()));
    assert!(sockets.count() >= 3, "the agent's and two shims'");
    assert_eq!(open_to(NOBODY, "rw", &paths), Vec::<String>::new());
    host.finish();
}
