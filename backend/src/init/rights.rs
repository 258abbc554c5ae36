//! The limits, capabilities and settings that a service asks for, in the words of the kernel.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use caps::{Capability, CapsHashSet};
use reconciler::spec::{Rights, Rlimit};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::{
    procfs,
    rootfs::{StepError, attach},
    shim::protocol::Reason,
};

/// What only the host's root may: hard limits above its own, and what the kernel kills first. Limits that
/// are lower come last, in [`limit`]: what is still to be done for a start does not run under them.
///
/// # Errors
/// EPERM or EACCES where the supervisor has no CAP_SYS_RESOURCE.
pub fn raise(rights: &Rights) -> Result<(), StepError> {
    if let Some(value) = rights.oom_score_adj {
        procfs::write("/proc/self/oom_score_adj", &value.to_string()).map_err(|error| {
            let advice = "a negative one needs CAP_SYS_RESOURCE: give it to stead, or write `oom_score_adj: 0` or more";
            let mut failed = StepError::system("set oom_score_adj to", value, error);
            failed.message = format!("{}; {advice}", failed.message);
            failed
        })?;
    }
    for (name, limit) in &rights.rlimits {
        let resource = resource(name)?;
        let mut now = getrlimit(resource);
        let wanted = number(limit.hard);
        // No limit is more than any.
        if now
            .maximum
            .is_some_and(|most| wanted.is_none_or(|wanted| wanted > most))
        {
            now.maximum = wanted;
            set(name, resource, now)?;
        }
    }
    Ok(())
}

/// The limits as they are for the program.
///
/// # Errors
/// As setrlimit(2).
pub fn limit(rights: &Rights) -> Result<(), StepError> {
    for (name, Rlimit { soft, hard }) in &rights.rlimits {
        let limit = rustix::process::Rlimit {
            current: number(*soft),
            maximum: number(*hard),
        };
        set(name, resource(name)?, limit)?;
    }
    Ok(())
}

fn set(name: &str, resource: Resource, limit: rustix::process::Rlimit) -> Result<(), StepError> {
    let text = limit
        .maximum
        .map_or("unlimited".to_owned(), |most| most.to_string());
    setrlimit(resource, limit).map_err(|error| {
        let mut failed = StepError::system(&format!("set the limit `{name}` to"), text, error);
        let advice = "give stead CAP_SYS_RESOURCE, or write a lower one";
        failed.message = format!("{}; {advice} in `ulimits`", failed.message);
        failed
    })
}

fn number(value: i64) -> Option<u64> {
    u64::try_from(value).ok()
}

fn resource(name: &str) -> Result<Resource, StepError> {
    Ok(match name {
        "as" => Resource::As,
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => {
            return Err(StepError::spec(format!(
                "`{name}` is not a limit; correct `ulimits`"
            )));
        }
    })
}

/// The bounding set.
///
/// # Errors
/// A name is none of capabilities(7).
pub fn capabilities(rights: &Rights) -> Result<CapsHashSet, StepError> {
    let known = |name: &String| {
        Capability::from_str(&format!("CAP_{name}"))
            .map_err(|_| StepError::spec(format!("`{name}` is not a capability; correct `cap_add`")))
    };
    let mut asked: CapsHashSet = rights.capabilities.iter().map(known).collect::<Result<_, _>>()?;
    if rights.privileged
        && let Ok(own) = caps::read(None, caps::CapSet::Permitted)
    {
        // All that stead has.
        asked.retain(|capability| own.contains(capability));
    }
    Ok(asked)
}

/// The profile of AppArmor that the program begins with: aa_change_onexec(3).
///
/// # Errors
/// The host has no AppArmor, or no such profile.
pub fn apparmor(profile: &str) -> Result<(), StepError> {
    const FILE: &str = "/proc/self/attr/apparmor/exec";
    // It may be loaded at any moment, and nobody tells of it.
    let missing = |message| StepError {
        message,
        errno: None,
        reason: Reason::System,
    };
    match fs::write(FILE, format!("exec {profile}")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !Path::new(FILE).exists() => match profile {
            // There is nothing that confines.
            "unconfined" => Ok(()),
            _ => Err(missing(format!(
                "this host has no AppArmor, and `apparmor={profile}` asks for it; boot with `lsm=…,apparmor`, or \
                 remove it from `security_opt`"
            ))),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(missing(format!(
            "this host has loaded no AppArmor profile {profile}; load it with apparmor_parser(8), or correct \
             `security_opt`"
        ))),
        written => written.map_err(|error| StepError::system("set the AppArmor profile", profile, error)),
    }
}

/// Writes settings of the namespaces that the caller is in, as their root.
///
/// # Errors
/// There is no such setting, it does not take the value, or this kernel leaves it to the host's root.
pub fn sysctls(settings: &BTreeMap<String, String>) -> Result<(), StepError> {
    for (name, value) in settings {
        attach::sysctl(sysctl_path(name), value).map_err(|error| {
            let advice = match error.kind() {
                std::io::ErrorKind::NotFound => "this kernel has no such setting",
                std::io::ErrorKind::PermissionDenied => "this kernel leaves it to the host's root",
                _ => "it takes another value",
            };
            let mut failed = StepError::system(&format!("set `{name}` to"), value, error);
            failed.message = format!("{}; {advice}: correct `sysctls`", failed.message);
            failed
        })?;
    }
    Ok(())
}

/// As sysctl(8): what separates first separates, the other one is part of a name.
fn sysctl_path(name: &str) -> PathBuf {
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    match name.find(['.', '/']).and_then(|at| name.get(at..=at)) {
        Some(".") => name.chars().map(swap).collect::<String>().into(),
        _ => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_named_with_dots_or_with_slashes() {
        for (name, path) in [
            ("net.core.somaxconn", "net/core/somaxconn"),
            ("net/core/somaxconn", "net/core/somaxconn"),
            (
                "net.ipv4.conf.eth0/100.forwarding",
                "net/ipv4/conf/eth0.100/forwarding",
            ),
            (
                "net/ipv4/conf/eth0.100/forwarding",
                "net/ipv4/conf/eth0.100/forwarding",
            ),
        ] {
            assert_eq!(sysctl_path(name), PathBuf::from(path));
        }
    }
}
