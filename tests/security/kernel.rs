//! The ways to the code of the kernel that its flaws were found in.

use std::{collections::BTreeMap, fs};

use super::{inside, lasting, once, said};
use crate::host::Host;

fn lines(text: &[String]) -> BTreeMap<String, String> {
    text.iter()
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, verdict)| (name.to_owned(), verdict.to_owned()))
        .collect()
}

/// SEC-60 and SEC-61: families of sockets whose code is seldom looked at, by both entries.
#[test]
fn rare_sockets_are_refused_by_both_entries() {
    let Some(mut host) = Host::new("sockets") else {
        return;
    };
    host.start_agent();
    let image = host.probed("image", |_| ());
    // Whoever may do anything in its network is refused, too.
    let mut services = once("usual", &image, "", "exec probe entry");
    services.push_str(&once(
        "admin",
        &image,
        ", cap_add: [NET_ADMIN]",
        "exec probe entry",
    ));
    host.write_manifest("sockets", &format!("services:\n{services}"));
    for service in ["usual", "admin"] {
        let found = said(&host, "sockets", service);
        assert_eq!(found.len(), 8, "{found:?}");
        for (name, verdict) in lines(&found) {
            match name.split_once(' ').expect("an entry and a family").0 {
                "native" => assert_eq!(verdict, "EPERM", "{service}: {name}"),
                // A kernel without the entry ends the caller instead.
                _ => assert!(
                    verdict == "ENOSYS" || verdict == "11",
                    "{service}: {name} {verdict}"
                ),
            }
        }
    }
    host.finish();
}

/// SEC-62: a user namespace within a container leads to most of what is only tested as root.
#[test]
fn no_user_namespace_is_made_within_one() {
    let Some(mut host) = Host::new("nested") else {
        return;
    };
    host.start_agent();
    let image = host.probed("image", |_| ());
    let every = "cap_add: [ALL]";
    let open = "security_opt: ['seccomp:unconfined']";
    host.write_manifest(
        "nested",
        &format!(
            "services:\n{}{}{}{}",
            once("usual", &image, "", "exec probe userns"),
            once("every", &image, &format!(", {every}"), "exec probe userns"),
            once("open", &image, &format!(", {open}"), "exec probe userns"),
            lasting("both", &image, &format!(", {every}, {open}")),
        ),
    );
    for (name, verdict) in lines(&said(&host, "nested", "usual")) {
        let expected = if name.starts_with("try.clone3") {
            "ENOSYS"
        } else {
            "EPERM"
        };
        assert_eq!(verdict, expected, "{name}");
    }
    let every = lines(&said(&host, "nested", "every"));
    let open = lines(&said(&host, "nested", "open"));
    host.running("nested", "both");
    let both = inside(&host, "nested/both", &["probe", "userns"]);
    let both = lines(&both.lines().map(str::to_owned).collect::<Vec<_>>());
    for call in ["unshare", "clone", "clone3"] {
        let name = format!("try.{call}.user");
        let expected = if call == "clone3" { "ENOSYS" } else { "EPERM" };
        assert_eq!(every[&name], expected, "with every capability");
        // Behind the filter stands the limit of the sandbox itself.
        assert_eq!(open[&name], "ENOSPC", "without a filter");
        assert_eq!(both[&name], "ENOSPC", "with every capability, without a filter");
    }
    assert_eq!(
        inside(
            &host,
            "nested/both",
            &["cat", "/proc/sys/user/max_user_namespaces"]
        ),
        "0\n"
    );
    host.finish();
}

/// SEC-63: what is seen from within is what the filter was written to say.
#[test]
#[cfg(target_arch = "x86_64")]
fn every_system_call_gets_within_the_verdict_that_stands_beside_the_filter() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace");
    let read = |path: &str| fs::read_to_string(root.join(path)).expect("a golden file");
    let written: BTreeMap<u32, String> = read("backend/src/init/seccomp/x86_64.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            Some((words.first()?.parse().ok()?, (*words.get(2)?).to_owned()))
        })
        .collect();
    let mut count = 0;
    for line in read("tests/security/probe.x86_64.golden").lines() {
        let Some(rest) = line.strip_prefix("call.") else {
            continue;
        };
        let words: Vec<&str> = rest.split(' ').collect();
        let number: u32 = words[0].parse().expect("a number");
        let expected = written.get(&number).map_or("EPERM", String::as_str);
        assert_eq!(words[2], expected, "{line}");
        count += 1;
    }
    assert!(count >= 469, "{count} calls");
    let never = [
        "io_uring_setup",
        "bpf",
        "userfaultfd",
        "keyctl",
        "add_key",
        "request_key",
        "perf_event_open",
    ];
    let golden = read("tests/security/probe.x86_64.golden");
    for name in never.iter().chain(&[
        "kexec_load",
        "init_module",
        "finit_module",
        "pivot_root",
        "open_by_handle_at",
    ]) {
        assert!(golden.contains(&format!(" {name} EPERM\n")), "{name}");
    }
}
