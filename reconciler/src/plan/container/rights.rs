//! What the processes of a service may do, by the rules of Docker.

use std::collections::BTreeSet;

use model::types::{Capability, Security, SecurityOption, Service};

use crate::spec::{CAPABILITIES, Rights, Rlimit, Seccomp};

const ALL: &str = "ALL";

pub fn rights(service: &Service) -> Rights {
    let security = &service.security;
    let mut rights = Rights {
        capabilities: capabilities(&security.cap_add, &security.cap_drop),
        groups: groups(security),
        oom_score_adj: service.resources.oom_score_adj,
        ..Rights::default()
    };
    for (name, limit) in &service.resources.ulimits {
        let (soft, hard) = (limit.soft, limit.hard);
        rights.rlimits.insert(name.clone(), Rlimit { soft, hard });
    }
    // The last of several counts.
    for option in &security.security_opt {
        match option {
            SecurityOption::NoNewPrivileges(on) => rights.no_new_privileges = *on,
            SecurityOption::Seccomp(profile) if profile == "unconfined" => {
                rights.seccomp = Seccomp::Unconfined;
            }
            SecurityOption::Seccomp(_) => {
                let profile = security.seccomp_profile.clone().map(Box::new);
                rights.seccomp = profile.map_or(Seccomp::Builtin, Seccomp::Profile);
            }
            SecurityOption::AppArmor(profile) => rights.apparmor = Some(profile.clone()),
            SecurityOption::SystemPathsUnconfined => rights.unmasked = true,
            // Others than `disable` are refused where the manifest is read.
            SecurityOption::Label(_) => {}
        }
    }
    if security.privileged {
        raise(&mut rights);
    }
    rights
}

/// What a command may do in a container of the service that is to have every right.
pub fn privileged(service: &Service) -> Rights {
    let mut rights = rights(service);
    raise(&mut rights);
    rights
}

fn raise(rights: &mut Rights) {
    rights.capabilities = Capability::all().map(str::to_owned).collect();
    rights.seccomp = Seccomp::Unconfined;
    rights.apparmor = Some("unconfined".to_owned());
    rights.unmasked = true;
    rights.privileged = true;
}

/// What is dropped first, then what is added; `ALL` of either is where the other begins.
fn capabilities(add: &[Capability], drop: &[Capability]) -> BTreeSet<String> {
    let names = |list: &[Capability]| -> BTreeSet<String> {
        let names = list.iter().map(Capability::as_str);
        names.filter(|name| *name != ALL).map(str::to_owned).collect()
    };
    let is_all = |list: &[Capability]| list.iter().any(|one| one.as_str() == ALL);
    let (added, dropped) = (names(add), names(drop));
    let base: BTreeSet<String> = match (is_all(add), is_all(drop)) {
        (true, _) => {
            return Capability::all()
                .map(str::to_owned)
                .filter(|name| !dropped.contains(name))
                .collect();
        }
        (false, true) => BTreeSet::new(),
        (false, false) => CAPABILITIES.iter().map(ToString::to_string).collect(),
    };
    base.into_iter()
        .filter(|name| !dropped.contains(name))
        .chain(added)
        .collect()
}

/// Those that are asked for, and those that devices of vendors bring.
fn groups(security: &Security) -> Vec<String> {
    let mut groups = security.group_add.clone();
    let brought = security.edits.iter().flat_map(|edits| &edits.groups);
    groups.extend(brought.map(ToString::to_string));
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_dropped_before_they_are_added() {
        let usual = CAPABILITIES.join(" ");
        let without = usual.replace("MKNOD ", "");
        let every: Vec<&str> = Capability::all().collect();
        let but_time = every.join(" ").replace("SYS_TIME ", "");
        for (add, drop, expected) in [
            ("", "", usual.as_str()),
            ("", "MKNOD", without.as_str()),
            ("MKNOD", "MKNOD", usual.as_str()),
            ("NET_ADMIN", "ALL", "NET_ADMIN"),
            ("", "ALL", ""),
            ("ALL", "", every.join(" ").as_str()),
            ("ALL", "SYS_TIME", but_time.as_str()),
            ("ALL", "ALL", every.join(" ").as_str()),
        ] {
            let list = |text: &str| -> Vec<Capability> {
                let names = text.split_whitespace();
                names.map(|name| name.parse().expect("a capability")).collect()
            };
            let found = capabilities(&list(add), &list(drop));
            let found: Vec<&str> = found.iter().map(String::as_str).collect();
            let mut expected: Vec<&str> = expected.split_whitespace().collect();
            expected.sort_unstable();
            assert_eq!(found, expected, "add {add}, drop {drop}");
        }
    }

    #[test]
    fn security_options_that_are_acted_on_are_the_last_of_their_kind() {
        for (options, no_new_privileges, seccomp) in [
            ("", false, Seccomp::Builtin),
            ("no-new-privileges", true, Seccomp::Builtin),
            (
                "no-new-privileges no-new-privileges=false",
                false,
                Seccomp::Builtin,
            ),
            ("seccomp=unconfined", false, Seccomp::Unconfined),
            ("seccomp=builtin", false, Seccomp::Builtin),
        ] {
            let mut service = Service::default();
            let options = options.split_whitespace();
            service.security.security_opt = options.map(|text| text.parse().expect("an option")).collect();
            let found = rights(&service);
            assert_eq!(
                (found.no_new_privileges, found.seccomp),
                (no_new_privileges, seccomp)
            );
        }
    }
}
