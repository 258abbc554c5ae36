//! Which security modules of the kernel there are, and what of them a service can ask for.

use reconciler::observed::Fact;

use super::{Finding, Host, abilities, ok, warn};

pub fn apparmor(host: &Host) -> Finding {
    const NAME: &str = "apparmor";
    match abilities::profiles(host) {
        Fact::Known(None) => ok(NAME, "off; `security_opt: [apparmor=PROFILE]` is refused"),
        Fact::Known(Some(loaded)) => ok(
            NAME,
            &format!(
                "on, {} profiles loaded; a service has one that its `security_opt` names, and none by itself",
                loaded.len()
            ),
        ),
        Fact::Unknown(why) => warn(
            NAME,
            &format!("not known: {why}"),
            "for services with `security_opt: [apparmor=PROFILE]`: mount -t securityfs securityfs /sys/kernel/security",
        ),
    }
}

pub fn selinux(host: &Host) -> Finding {
    const NAME: &str = "selinux";
    let labels = "services have the label of their supervisor, and `label=…` of `security_opt` is refused";
    match host.number("sys/fs/selinux/enforce") {
        Some(1) => ok(NAME, &format!("enforcing; {labels}")),
        Some(_) => ok(NAME, &format!("permissive; {labels}")),
        None => ok(
            NAME,
            "off; `label=…` of `security_opt` is refused, but for `label=disable`",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn each_module_says_what_a_service_can_ask_of_it() {
        let root = tempfile::tempdir().unwrap();
        let host = Host {
            root: root.path().to_owned(),
        };
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(apparmor(&host).verdict, Verdict::Warn, "nothing can be seen");
        write("sys/kernel/mm/x", "");
        assert!(apparmor(&host).detail.starts_with("off") && selinux(&host).detail.starts_with("off"));
        write("sys/module/apparmor/parameters/enabled", "Y\n");
        let found = apparmor(&host);
        assert!(
            found.verdict == Verdict::Warn && found.remedy.contains("securityfs"),
            "{found:?}"
        );
        write("sys/kernel/security/apparmor/profiles", "a (enforce)\nb (kill)\n");
        assert!(apparmor(&host).detail.starts_with("on, 2 profiles"));
        write("sys/fs/selinux/enforce", "1");
        assert!(selinux(&host).detail.starts_with("enforcing"));
    }
}
