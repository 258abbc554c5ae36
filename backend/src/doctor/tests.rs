//! What counts as a fit host.

use super::*;

/// A host of a few files.
pub(super) struct Little {
    directory: tempfile::TempDir,
    pub host: Host,
}

impl Little {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let host = Host {
            root: directory.path().to_owned(),
        };
        Little { directory, host }
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

#[test]
fn whatever_is_not_well_has_a_remedy() {
    let root = tempfile::tempdir().unwrap();
    let findings = check(&Layout::new(Some(&root.path().join("not/there/yet"))).unwrap());
    assert_eq!(findings.len(), 17);
    for finding in findings {
        assert!(!finding.detail.is_empty(), "{finding:?}");
        assert_eq!(
            finding.verdict == Verdict::Ok,
            finding.remedy.is_empty(),
            "{finding:?}"
        );
    }
}

#[test]
fn kernels_are_compared_by_number() {
    for (release, verdict) in [
        ("6.1.0-13-amd64", Verdict::Ok),
        ("6.18.44-fc", Verdict::Ok),
        ("10.0", Verdict::Ok),
        ("6.0.19", Verdict::Fail),
        ("5.15.0-91-generic", Verdict::Fail),
        ("strange", Verdict::Fail),
    ] {
        assert_eq!(kernel(release).verdict, verdict, "{release}");
    }
}

#[test]
fn cgroup_trees_are_told_apart() {
    let v2 = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    let hybrid = "31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup rw\n32 25 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
    let v1 = "32 25 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
    for (mountinfo, verdict, says) in [
        (v2, Verdict::Ok, "v2 at /sys/fs/cgroup"),
        (hybrid, Verdict::Warn, "v2 at /sys/fs/cgroup/unified"),
        (v1, Verdict::Fail, "no cgroup v2"),
        ("", Verdict::Fail, "no cgroup v2"),
    ] {
        let finding = cgroups(mountinfo);
        assert_eq!(finding.verdict, verdict);
        assert!(finding.detail.contains(says), "{}", finding.detail);
    }
}

#[test]
fn switched_off_user_namespaces_are_a_failure() {
    let little = Little::new();
    let found = || user_namespaces(&little.host, Ok(()));
    assert_eq!(found().verdict, Verdict::Fail);
    little.write("proc/self/ns/user", "");
    for (limit, verdict) in [
        ("0\n", Verdict::Fail),
        ("100\n", Verdict::Warn),
        ("15000\n", Verdict::Ok),
    ] {
        little.write("proc/sys/user/max_user_namespaces", limit);
        assert_eq!(found().verdict, verdict);
    }
    let refused = Err(io::Error::from_raw_os_error(libc::EPERM));
    let finding = user_namespaces(&little.host, refused);
    assert_eq!(finding.verdict, Verdict::Fail, "the files are not all there is");
    little.write("proc/sys/kernel/unprivileged_userns_clone", "0\n");
    let finding = found();
    assert_eq!(finding.verdict, Verdict::Ok, "binds the unprivileged only");
    assert!(finding.detail.contains("unprivileged_userns_clone"));
}
