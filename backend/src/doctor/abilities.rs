//! What this host cannot keep of what manifests ask, as the agent's intake wants to know it.

use std::{collections::BTreeSet, io};

use nix::{
    sched::{CloneFlags, unshare},
    sys::wait::{WaitStatus, waitpid},
    unistd::Pid,
};
use reconciler::observed::{Abilities, Fact, Lack};

use super::Host;
use crate::{
    cgroup::{
        devices,
        limits::{Controllers, kept},
    },
    sys::process::{self, Side},
};

/// How many user namespaces there may be, namespaces(7).
pub(super) const MOST: &str = "proc/sys/user/max_user_namespaces";

/// Looks anew each time. Never fails: what cannot be read is unknown.
pub fn abilities() -> Abilities {
    let mut attributes = match Controllers::find() {
        Ok(controllers) => controllers.lacks(),
        Err(error) => kept::unknown(&format!("whether this host can limit anything: {error}")),
    };
    if let Err(error) = devices::probe() {
        let lack = no_filter(&error);
        attributes.insert("devices", lack.clone());
        attributes.insert("device_cgroup_rules", lack);
    }
    let host = Host::here();
    Abilities {
        attributes,
        profiles: profiles(&host),
        user_namespaces: user_namespaces(try_user_namespace(), host.number(MOST)),
    }
}

/// A real try, as a supervisor makes it: a limit, a kernel without them and a security module all forbid them, each
/// in its own place.
pub(super) fn try_user_namespace() -> io::Result<()> {
    let child = match process::clone(0, None)? {
        // Other threads may have held any lock: one call, and it ends.
        Side::Child => {
            process::exit(unshare(CloneFlags::CLONE_NEWUSER).map_or_else(|errno| errno as i32, |()| 0))
        }
        Side::Parent(pid) => Pid::from_raw(pid),
    };
    match waitpid(child, None)? {
        WaitStatus::Exited(_, 0) => Ok(()),
        WaitStatus::Exited(_, errno) => Err(io::Error::from_raw_os_error(errno)),
        _ => Err(io::Error::other("the process that tried it was killed")),
    }
}

/// Why nobody can have one, by how the `tried` one went and how many there may be.
fn user_namespaces(tried: io::Result<()>, most: Option<u64>) -> Option<Lack> {
    let error = tried.err()?;
    let missing = |what: &str, remedy: &str| Lack::Missing {
        what: format!("this host does not let stead make a user namespace: {what}"),
        remedy: remedy.to_owned(),
    };
    Some(match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EUSERS) if most == Some(0) => missing(
            "user.max_user_namespaces is 0",
            "set that sysctl to 15000 or more",
        ),
        Some(libc::EINVAL) => missing("the kernel has none", "boot one with CONFIG_USER_NS"),
        Some(libc::EPERM | libc::EACCES) => missing(
            &error.to_string(),
            "see which security module or container of this host forbids it",
        ),
        _ => Lack::Unknown(format!(
            "whether this host lets stead make a user namespace: {error}"
        )),
    })
}

fn no_filter(error: &io::Error) -> Lack {
    match error.kind() {
        io::ErrorKind::OutOfMemory | io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {
            Lack::Unknown(format!("whether this host can limit devices: {error}"))
        }
        _ => Lack::Missing {
            what: format!("this host cannot limit devices: it takes no filter for them ({error})"),
            remedy: "boot a kernel with CONFIG_CGROUP_BPF".to_owned(),
        },
    }
}

/// The profiles of AppArmor that are loaded; `None`: there is no AppArmor.
pub(super) fn profiles(host: &Host) -> Fact<Option<BTreeSet<String>>> {
    const LIST: &str = "sys/kernel/security/apparmor/profiles";
    if !host.has("sys/kernel") {
        return Fact::Unknown("/sys is not mounted".to_owned());
    }
    match host.read("sys/module/apparmor/parameters/enabled") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Fact::Known(None),
        Ok(text) if text.trim() == "N" => return Fact::Known(None),
        Err(error) => return Fact::Unknown(error.to_string()),
        Ok(_) => {}
    }
    match host.read(LIST) {
        // `NAME (MODE)`, and a name may have blanks.
        Ok(text) => Fact::Known(Some(
            text.lines()
                .filter_map(|line| Some(line.rsplit_once(" (")?.0.to_owned()))
                .collect(),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Fact::Unknown("securityfs is not mounted on /sys/kernel/security".to_owned())
        }
        Err(error) => Fact::Unknown(format!("/{LIST}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::Little, *};

    #[test]
    fn a_user_namespace_is_forbidden_or_only_not_to_be_had_just_now() {
        let after = |errno, most| {
            let tried = match errno {
                0 => Ok(()),
                errno => Err(io::Error::from_raw_os_error(errno)),
            };
            match user_namespaces(tried, most) {
                None => "there",
                Some(Lack::Missing { .. }) => "missing",
                Some(Lack::Unknown(_)) => "unknown",
            }
        };
        for (errno, most, expected) in [
            (0, Some(15_000), "there"),
            (libc::ENOSPC, Some(0), "missing"),
            // All of them are taken.
            (libc::ENOSPC, Some(15_000), "unknown"),
            (libc::EINVAL, None, "missing"),
            (libc::EPERM, Some(15_000), "missing"),
            (libc::EAGAIN, Some(15_000), "unknown"),
            (libc::ENOMEM, Some(0), "unknown"),
        ] {
            assert_eq!(after(errno, most), expected, "{errno}");
        }
    }

    #[test]
    fn no_apparmor_is_told_from_one_that_cannot_be_looked_at() {
        let little = Little::new();
        assert!(matches!(profiles(&little.host), Fact::Unknown(_)));
        little.write("sys/kernel/mm/x", "");
        assert_eq!(profiles(&little.host), Fact::Known(None));
        little.write("sys/module/apparmor/parameters/enabled", "N\n");
        assert_eq!(profiles(&little.host), Fact::Known(None));
        little.write("sys/module/apparmor/parameters/enabled", "Y\n");
        assert!(matches!(profiles(&little.host), Fact::Unknown(why) if why.contains("securityfs")));
        little.write(
            "sys/kernel/security/apparmor/profiles",
            "docker-default (enforce)\n/usr/bin/man (complain)\nwith a blank (kill)\n",
        );
        let names = ["/usr/bin/man", "docker-default", "with a blank"];
        assert_eq!(
            profiles(&little.host),
            Fact::Known(Some(names.map(str::to_owned).into()))
        );
    }
}
