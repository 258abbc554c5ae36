//! What a service may do: capabilities, confinement, devices, kernel settings.

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{DeviceRequest, Edits, Profile, text::serialised_as_text};

/// Serialised beside the other fields of the service, under the names of Compose.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
    /// The root file system; volumes and tmpfs stay writable.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cap_add: Vec<Capability>,
    /// Before `cap_add`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cap_drop: Vec<Capability>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub security_opt: Vec<SecurityOption>,
    /// What the file of `seccomp=FILE` says.
    #[serde(
        default,
        rename = "security_opt.profile",
        skip_serializing_if = "Option::is_none"
    )]
    pub seccomp_profile: Option<Profile>,
    /// Numbers, or names of the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub group_add: Vec<String>,
    /// Namespaced settings below `/proc/sys`, with dots.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device_cgroup_rules: Vec<String>,
    /// Of the Container Device Interface: `vendor.com/class=name`.
    #[serde(default, rename = "devices.named", skip_serializing_if = "Vec::is_empty")]
    pub vendor_devices: Vec<String>,
    /// `gpus`, then those that `deploy` reserves.
    #[serde(default, rename = "gpus", skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<DeviceRequest>,
    /// What these bring, as the files of the host say.
    #[serde(default, rename = "devices.edits", skip_serializing_if = "Option::is_none")]
    pub edits: Option<Box<Edits>>,
}

/// One of capabilities(7), upper case without `CAP_`, or `ALL`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Capability(String);

impl Capability {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Every one there is, but for `ALL`.
    pub fn all() -> impl Iterator<Item = &'static str> {
        CAPABILITIES.into_iter()
    }
}

/// Up to Linux 5.9, which added the last one.
const CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "SYSLOG",
    "WAKE_ALARM",
];

/// The text is none of capabilities(7).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a capability")]
pub struct ParseCapabilityError(String);

impl FromStr for Capability {
    type Err = ParseCapabilityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if name == "ALL" || CAPABILITIES.contains(&name) {
            Ok(Capability(name.to_owned()))
        } else {
            Err(ParseCapabilityError(text.to_owned()))
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An entry of `security_opt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecurityOption {
    NoNewPrivileges(bool),
    /// `unconfined`, `builtin`, or the path of a profile.
    Seccomp(String),
    /// A profile, or `unconfined`.
    AppArmor(String),
    /// `disable`, or `type:…`, `user:…`, `role:…`, `level:…`, `filetype:…` of SELinux.
    Label(String),
    SystemPathsUnconfined,
}

/// The text is no security option of the Engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a security option")]
pub struct ParseSecurityOptionError(String);

impl FromStr for SecurityOption {
    type Err = ParseSecurityOptionError;

    /// `KEY`, `KEY=VALUE` or `KEY:VALUE`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key, value) = match text.split_once('=').or_else(|| text.split_once(':')) {
            Some((key, value)) => (key, Some(value)),
            None => (text, None),
        };
        const LABELS: [&str; 5] = ["type:", "user:", "role:", "level:", "filetype:"];
        match (key, value) {
            ("no-new-privileges", None | Some("true")) => Ok(SecurityOption::NoNewPrivileges(true)),
            ("no-new-privileges", Some("false")) => Ok(SecurityOption::NoNewPrivileges(false)),
            ("seccomp", Some(value)) if !value.is_empty() => Ok(SecurityOption::Seccomp(value.to_owned())),
            ("apparmor", Some(value)) if !value.is_empty() => Ok(SecurityOption::AppArmor(value.to_owned())),
            ("label", Some(value))
                if value == "disable" || LABELS.iter().any(|label| value.starts_with(label)) =>
            {
                Ok(SecurityOption::Label(value.to_owned()))
            }
            ("systempaths", Some("unconfined")) => Ok(SecurityOption::SystemPathsUnconfined),
            _ => Err(ParseSecurityOptionError(text.to_owned())),
        }
    }
}

impl fmt::Display for SecurityOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecurityOption::NoNewPrivileges(on) => write!(f, "no-new-privileges={on}"),
            SecurityOption::Seccomp(value) => write!(f, "seccomp={value}"),
            SecurityOption::AppArmor(value) => write!(f, "apparmor={value}"),
            SecurityOption::Label(value) => write!(f, "label={value}"),
            SecurityOption::SystemPathsUnconfined => f.write_str("systempaths=unconfined"),
        }
    }
}

serialised_as_text!(Capability, SecurityOption);

/// A device of the host. A CDI device (`vendor/class=name`) has `target` equal to `source`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub source: PathBuf,
    pub target: PathBuf,
    /// Of `r`, `w` and `m`.
    pub permissions: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_known_in_any_case_with_or_without_cap() {
        for (text, want) in [
            ("NET_ADMIN", "NET_ADMIN"),
            ("cap_sys_time", "SYS_TIME"),
            ("all", "ALL"),
        ] {
            assert_eq!(text.parse::<Capability>().unwrap().as_str(), want);
        }
        for text in ["", "CAP_", "NET-ADMIN", "ROOT"] {
            assert!(text.parse::<Capability>().is_err(), "{text}");
        }
    }

    #[test]
    fn security_options_have_an_equals_sign_or_a_colon() {
        for (text, want) in [
            ("no-new-privileges", "no-new-privileges=true"),
            ("no-new-privileges:false", "no-new-privileges=false"),
            ("seccomp:unconfined", "seccomp=unconfined"),
            ("apparmor=docker-default", "apparmor=docker-default"),
            ("label=type:svirt_apache_t", "label=type:svirt_apache_t"),
            ("label:disable", "label=disable"),
            ("systempaths=unconfined", "systempaths=unconfined"),
        ] {
            assert_eq!(text.parse::<SecurityOption>().unwrap().to_string(), want);
        }
        for text in [
            "",
            "seccomp",
            "seccomp=",
            "no-new-privileges=yes",
            "label=x",
            "unmask=all",
        ] {
            assert!(text.parse::<SecurityOption>().is_err(), "{text}");
        }
    }
}
