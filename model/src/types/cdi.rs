//! What devices of vendors (Container Device Interface) bring into a container.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{Propagation, Recursive};

/// Devices by what they can do: `gpus`, and `deploy.resources.reservations.devices`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRequest {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Where there are no `device_ids`; `None`: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device_ids: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
}

/// What the specification files say of the devices that a service asks for, one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Edits {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<EditNode>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<EditMount>,
    /// Further groups of the process.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<OciHook>,
}

/// A program that is run once at a moment of each run, with the state of the container on its standard input
/// (OCI runtime-spec, "POSIX-platform Hooks").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OciHook {
    pub moment: OciMoment,
    pub path: PathBuf,
    /// With the name of the program in front; none: the path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// All of its environment: `NAME=VALUE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u32>,
}

/// When and where a hook runs, by the names of the OCI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OciMoment {
    /// As `CreateRuntime`, before it.
    Prestart,
    /// On the host, once the namespaces and the tree of the container are there.
    CreateRuntime,
    /// In the namespaces of the container, before the tree of the host is left.
    CreateContainer,
    /// As the program of the container, just before it.
    StartContainer,
    /// On the host, once the program runs.
    Poststart,
    /// On the host, once it has ended.
    Poststop,
}

impl OciMoment {
    pub const ALL: [(&str, OciMoment); 6] = [
        ("prestart", OciMoment::Prestart),
        ("createRuntime", OciMoment::CreateRuntime),
        ("createContainer", OciMoment::CreateContainer),
        ("startContainer", OciMoment::StartContainer),
        ("poststart", OciMoment::Poststart),
        ("poststop", OciMoment::Poststop),
    ];

    pub fn parse(name: &str) -> Option<OciMoment> {
        let mut all = OciMoment::ALL.into_iter();
        all.find_map(|(known, moment)| (known == name).then_some(moment))
    }

    pub fn name(self) -> &'static str {
        let mut all = OciMoment::ALL.into_iter();
        all.find_map(|(name, known)| (known == self).then_some(name))
            .unwrap_or_default()
    }
}

impl fmt::Display for OciHook {
    /// As a message names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} hook `{}", self.moment.name(), self.path.display())?;
        // Of a long list of links the first few words are enough to find it.
        for word in self.args.iter().skip(1).take(3) {
            write!(f, " {word}")?;
        }
        f.write_str(if self.args.len() > 4 { " …`" } else { "`" })
    }
}

/// A device node; what is not said is as on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditNode {
    pub source: PathBuf,
    pub target: PathBuf,
    /// Of `r`, `w` and `m`.
    pub access: String,
    #[serde(flatten)]
    pub like: NodeLike,
}

/// What a node is to be, whatever the host has at its source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeLike {
    /// `b` or `c` with major and minor: the host need not have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<(char, u32, u32)>,
    /// Permission bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// As in the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

/// A file or directory of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditMount {
    pub source: PathBuf,
    pub target: PathBuf,
    pub read_only: bool,
    pub recursive: Recursive,
    pub propagation: Propagation,
}
