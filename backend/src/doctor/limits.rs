//! Which limits of services this host can keep, and in which version of cgroups.

use super::{Finding, ok, warn};
use crate::cgroup::{
    devices,
    limits::{Controllers, kept::Kept},
};

pub fn limits() -> Finding {
    let Ok(controllers) = Controllers::find() else {
        return warn(
            "limits",
            "no cgroup controllers can be found, so services with limits do not start",
            "mount cgroup2 on /sys/fs/cgroup",
        );
    };
    let mut kept = controllers.kept();
    let devices = match devices::probe() {
        Ok(()) => Kept::By("v2"),
        Err(_) => Kept::Nobody,
    };
    kept.push(("devices", devices));
    judge(&kept)
}

fn judge(kept: &[(&'static str, Kept)]) -> Finding {
    let words = kept.iter().map(|(what, keeper)| match keeper {
        Kept::By(version) => format!("{what} {version}"),
        Kept::Nobody => format!("{what} none"),
        Kept::Unknown => format!("{what} unknown"),
    });
    let detail = words.collect::<Vec<_>>().join(", ");
    let named = |wanted: Kept| {
        let named = kept.iter().filter(|(_, keeper)| *keeper == wanted);
        named.map(|(what, _)| *what).collect::<Vec<_>>().join(", ")
    };
    let (missing, unknown) = (named(Kept::Nobody), named(Kept::Unknown));
    if !missing.is_empty() {
        let remedy = format!(
            "services that limit {missing} are refused here: boot a kernel that has the controller (`swap` may take \
             swapaccount=1, `devices` CONFIG_CGROUP_BPF), or leave these limits out"
        );
        return warn("limits", &detail, &remedy);
    }
    if unknown.is_empty() {
        return ok("limits", &detail);
    }
    // Not so before the first service with such a limit, on a host where nobody else has one.
    let detail = format!("{detail}; {unknown} is known once a service has such a limit");
    ok("limits", &detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn what_is_missing_is_named_with_what_to_do() {
        let found = judge(&[
            ("memory", Kept::By("v1")),
            ("swap", Kept::Nobody),
            ("cpu", Kept::By("v2")),
            ("devices", Kept::Nobody),
        ]);
        assert_eq!(found.verdict, Verdict::Warn);
        assert_eq!(found.detail, "memory v1, swap none, cpu v2, devices none");
        assert!(
            found
                .remedy
                .starts_with("services that limit swap, devices are refused"),
            "{}",
            found.remedy
        );
        let found = judge(&[("memory", Kept::By("v2"))]);
        assert_eq!((found.verdict, found.remedy.as_str()), (Verdict::Ok, ""));
        let found = judge(&[("swap", Kept::Unknown)]);
        assert_eq!(
            found.detail,
            "swap unknown; swap is known once a service has such a limit"
        );
    }

    #[test]
    fn this_host_says_something_about_each_limit() {
        let detail = limits().detail;
        for what in ["memory", "swap", "cpu", "cpuset", "pids", "io", "devices"] {
            assert!(
                detail.split(", ").any(|one| one.starts_with(&format!("{what} "))),
                "{detail}"
            );
        }
    }
}
