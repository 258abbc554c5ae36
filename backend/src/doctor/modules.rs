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
    use super::*;
    use crate::doctor::{Verdict, tests::Little};

    #[test]
    fn each_module_says_what_a_service_can_ask_of_it() {
        let little = Little::new();
        assert_eq!(
            apparmor(&little.host).verdict,
            Verdict::Warn,
            "nothing can be seen"
        );
        little.write("sys/kernel/mm/x", "");
        assert!(
            apparmor(&little.host).detail.starts_with("off")
                && selinux(&little.host).detail.starts_with("off")
        );
        little.write("sys/module/apparmor/parameters/enabled", "Y\n");
        let found = apparmor(&little.host);
        assert!(
            found.verdict == Verdict::Warn && found.remedy.contains("securityfs"),
            "{found:?}"
        );
        little.write("sys/kernel/security/apparmor/profiles", "a (enforce)\nb (kill)\n");
        assert!(apparmor(&little.host).detail.starts_with("on, 2 profiles"));
        little.write("sys/fs/selinux/enforce", "1");
        assert!(selinux(&little.host).detail.starts_with("enforcing"));
    }
}
