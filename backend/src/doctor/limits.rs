//! Which limits of services this host can keep, and in which version of cgroups.

use super::{Finding, ok, warn};
use crate::cgroup::{devices, limits::Controllers};

/// What a manifest limits, and who keeps it; `None`: nobody here.
type Kept = (&'static str, Option<&'static str>);

pub fn limits() -> Finding {
    let Ok(controllers) = Controllers::find() else {
        return warn(
            "limits",
            "no cgroup controllers can be found, so services with limits do not start",
            "mount cgroup2 on /sys/fs/cgroup",
        );
    };
    let mut kept = controllers.kept();
    kept.push(("devices", devices::is_possible().then_some("v2")));
    judge(&kept)
}

fn judge(kept: &[Kept]) -> Finding {
    let words = kept.iter().map(|(what, version)| match version {
        Some(version) => format!("{what} {version}"),
        None => format!("{what} none"),
    });
    let detail = words.collect::<Vec<_>>().join(", ");
    let missing = kept.iter().filter(|(_, version)| version.is_none());
    let missing: Vec<&str> = missing.map(|(what, _)| *what).collect();
    if missing.is_empty() {
        return ok("limits", &detail);
    }
    let remedy = format!(
        "services that limit {} do not start here: boot a kernel that has the controller (`swap` may take \
         swapaccount=1, `devices` CONFIG_CGROUP_BPF), or leave these limits out",
        missing.join(", ")
    );
    warn("limits", &detail, &remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn what_is_missing_is_named_with_what_to_do() {
        let found = judge(&[
            ("memory", Some("v1")),
            ("swap", None),
            ("cpu", Some("v2")),
            ("devices", None),
        ]);
        assert_eq!(found.verdict, Verdict::Warn);
        assert_eq!(found.detail, "memory v1, swap none, cpu v2, devices none");
        assert!(
            found
                .remedy
                .starts_with("services that limit swap, devices do not start"),
            "{}",
            found.remedy
        );
        let found = judge(&[("memory", Some("v2"))]);
        assert_eq!((found.verdict, found.remedy.as_str()), (Verdict::Ok, ""));
    }

    #[test]
    fn this_host_says_something_about_each_limit() {
        let detail = limits().detail;
        for what in ["memory", "swap", "cpu", "cpuset", "pids", "devices"] {
            assert!(
                detail.split(", ").any(|one| one.starts_with(&format!("{what} "))),
                "{detail}"
            );
        }
    }
}
