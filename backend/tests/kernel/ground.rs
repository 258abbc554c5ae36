//! A container's own doings with the directories above its mounts and with its root directory take no mount
//! away; what is really taken away is still seen, wherever it was by then.

use std::{fs, path::PathBuf};

use backend::shim::{ground::Missing, protocol::Request};
use reconciler::spec::MountSpec;

use super::{
    host::{Container, Host, volume_mount},
    repair::{inside, missing},
};

pub const TESTS: [(&str, fn()); 3] = [
    ("what_a_container_renames_above_its_mounts_is_not_missed", renamed),
    (
        "what_is_taken_away_after_that_is_missed_and_hung_again",
        taken_away,
    ),
    ("a_container_that_changes_its_root_stands_as_before", rooted),
];

fn scratch(target: &str) -> MountSpec {
    MountSpec::Tmpfs {
        target: target.into(),
        size: None,
        mode: None,
        uid: None,
        gid: None,
        exec: false,
    }
}

/// Mounts of all kinds below directories that are the container's own: of a volume, and of its root.
fn nested(host: &Host) -> Container<'_> {
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    for name in ["outer", "inner"] {
        container.volumes.insert(name.into(), host.volume(name));
    }
    container.spec.mounts = vec![
        volume_mount("outer", "/v", false),
        volume_mount("inner", "/v/a/inner", false),
        scratch("/v/a/scratch"),
        scratch("/srv/deep/scratch"),
    ];
    container
}

const RENAME: &str = "busybox mv /v/a /v/b; busybox mv /srv/deep /srv/other";

/// What it stands on is written down when it starts: it goes on after that.
const WAIT: &str = "until test -e /tmp/go; do sleep 0.02; done";

fn go(container: &mut Container<'_>) {
    assert_eq!(container.exec(&["/bin/touch", "/tmp/go"], "").unwrap().0, 0);
}

fn renamed() {
    let host = Host::new();
    let mut container = nested(&host);
    // In place of what is renamed there is nothing, an empty directory, or a link.
    for (number, more) in [
        "true",
        "mkdir -p /v/a/inner /v/a/scratch /srv/deep/scratch",
        "ln -s b /v/a; ln -s / /srv/deep",
    ]
    .iter()
    .enumerate()
    {
        container.fresh = true;
        let outer = container.volumes["outer"].clone();
        fs::remove_dir_all(&outer).unwrap();
        fs::create_dir_all(&outer).unwrap();
        container.script(&format!(
            "{RENAME}; {more}; echo done {number}; exec sleep 1000000"
        ));
        let pid = container.start().unwrap();
        container.said(&format!("done {number}"));
        let seen = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
        for point in [" /v/b/inner ", " /v/b/scratch ", " /srv/other/scratch "] {
            assert!(seen.contains(point), "{point}: {seen}");
        }
        assert_eq!(missing(&mut container), Missing::default(), "{more}");
        container.client.order(&Request::Kill).unwrap();
        container.ended();
    }
}

fn taken_away() {
    let host = Host::new();
    let mut container = nested(&host);
    container.script(&format!(
        "{WAIT}; {RENAME}; mkdir -p /v/a/inner; echo done; exec sleep 1000000"
    ));
    let pid = container.start().unwrap();
    go(&mut container);
    container.said("done");
    for (point, known) in [
        ("/v/b/inner", "/v/a/inner"),
        ("/v/b/scratch", "/v/a/scratch"),
        ("/srv/other/scratch", "/srv/deep/scratch"),
    ] {
        let before = missing(&mut container).mounts.len();
        inside(pid, &["umount", point]);
        let now = missing(&mut container).mounts;
        assert_eq!(
            (now.len(), now.contains(&PathBuf::from(known))),
            (before + 1, true),
            "{now:?}"
        );
    }
    // Where the volume is hung now it is known by from now on, also when it is renamed once more.
    let volumes = container.volumes.clone();
    fs::write(volumes["inner"].join("word"), "kept").unwrap();
    container.client.order(&Request::Remount { volumes }).unwrap();
    let known = || vec![PathBuf::from("/v/a/scratch"), PathBuf::from("/srv/deep/scratch")];
    assert_eq!(missing(&mut container).mounts, known());
    let renamed = container
        .exec(&["/bin/busybox", "mv", "/v/a", "/v/c"], "")
        .unwrap();
    assert_eq!(renamed.0, 0);
    let word = container.exec(&["/bin/cat", "/v/c/inner/word"], "").unwrap();
    assert_eq!(word, (0, "kept".into()));
    assert_eq!(missing(&mut container).mounts, known());
    inside(pid, &["umount", "/v/c/inner"]);
    assert_eq!(missing(&mut container).mounts.len(), 3);
}

/// As programs do that give their rights away: chroot(2) is in the default set.
fn rooted() {
    let host = Host::new();
    let mut container = nested(&host);
    container.script(
        "until test -e /tmp/go; do sleep 0.02; done; mkdir -p /jail/bin; busybox cp /bin/busybox /jail/bin; echo ready; \
         exec chroot /jail /bin/busybox sh -c 'echo in; exec /bin/busybox sleep 1000000'",
    );
    let pid = container.start().unwrap();
    go(&mut container);
    container.said("in");
    let seen = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    assert!(!seen.contains(" /v"), "it sees them: {seen}");
    assert_eq!(missing(&mut container), Missing::default());
    inside(pid, &["umount", "/v/a/scratch"]);
    assert_eq!(missing(&mut container).mounts, [PathBuf::from("/v/a/scratch")]);
}
