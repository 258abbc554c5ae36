//! The typed project: what a Compose file says once every short form, default and variable is resolved.
//!
//! Every map is a `BTreeMap` and every list keeps the file's order, so that equal input gives equal
//! output. The serialised form (serde) is the canonical form that `stead config` prints.

mod cdi;
mod container;
mod deploy;
mod duration;
mod health;
mod image_name;
mod logging;
mod mount;
mod namespace;
mod network;
mod port;
mod resources;
mod restart;
mod seccomp;
mod security;
mod text;

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

pub use cdi::{DeviceRequest, EditMount, EditNode, Edits, NodeLike, OciHook, OciMoment};
pub use container::{
    Container, Content, FileMount, FileSource, Hook, Logging, OnUnhealthy, ParsePlatformError,
    ParsePullPolicyError, Platform, PullPolicy, VolumesFrom,
};
pub use deploy::{Build, Deploy, DeployMode, FailureAction, UpdateConfig};
pub use duration::{Duration, ParseDurationError};
pub use health::Healthcheck;
pub use image_name::{ImageName, ParseImageNameError};
pub use logging::{ADDED, LogFiles, LogForward, LogProblem, LogSettings, SyslogAddress, SyslogFormat};
pub use mount::{Mount, Propagation, Recursive};
pub use namespace::{Namespace, Namespaces, ParseNamespaceError};
pub use network::{
    Attachment, Cidr, ExtraHost, Link, MacAddress, Names, Network, ParseCidrError, ParseMacAddressError,
    Subnet,
};
pub use port::{PortRange, Protocol, PublishedPort};
pub use resources::{BlockIo, CpuSet, Cpus, ParseCpuSetError, ParseCpusError, Resources, Ulimit};
pub use restart::{ParseRestartPolicyError, RestartPolicy};
pub use seccomp::{Answer, Argument, CallCondition, CallRule, Comparison, Profile};
pub use security::{
    Capability, Device, ParseCapabilityError, ParseSecurityOptionError, Security, SecurityOption,
};

use crate::{
    diagnostic::Span,
    fields::{Fields, Flat},
};

/// One Compose project.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    /// Normalised as Compose does: `[a-z0-9][a-z0-9_-]*`.
    pub name: String,
    pub services: BTreeMap<String, Service>,
    /// Networks that some service uses; `default` is here only if one does.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: BTreeMap<String, Network>,
    /// Declared named volumes, by their key in the file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Volume>,
    /// By their key in the file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub configs: BTreeMap<String, FileSource>,
    /// By their key in the file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, FileSource>,
    /// Absolute project directory: what relative paths were resolved against.
    #[serde(skip)]
    pub directory: PathBuf,
    /// Where each field came from, by dotted path (`services.web.environment.A`); see [`Project::origin`].
    #[serde(skip)]
    pub origins: BTreeMap<String, Span>,
    #[serde(skip)]
    pub flat: Flat,
}

impl Project {
    /// The fields of a service by its name (see [`crate::fields`]), flattened once for the whole project.
    pub fn fields(&self, service: &str) -> Option<&Fields> {
        self.flat.of(self).get(service)
    }

    /// The position of a dotted field path, or of its nearest ancestor that has one.
    pub fn origin(&self, path: &str) -> Option<&Span> {
        let mut path = path;
        loop {
            if let Some(span) = self.origins.get(path) {
                return Some(span);
            }
            path = &path[..path.rfind('.')?];
        }
    }
}

/// One service, canonical.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// The reference as written: `builtin:hello`, `rootfs:DIR`, `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`,
    /// `docker-archive:FILE[:REF]`; relative paths already made absolute.
    pub image: String,
    /// `None`: the image's own. `Some([])`: cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// `None`: the image's own. `Some`: also discards the image's command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Resolved; a name without a value that the project environment does not have is absent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Mount>,
    /// By key of `Project::networks`. Never empty: `default` stands for nothing said.
    pub networks: BTreeMap<String, Attachment>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PublishedPort>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub depends_on: BTreeMap<String, Dependency>,
    #[serde(default, skip_serializing_if = "RestartPolicy::is_default")]
    pub restart: RestartPolicy,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `uid[:gid]` or names, looked up in the image at start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Signal name or number; `None`: the image's, else SIGTERM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// `None`: 10 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_grace_period: Option<Duration>,
    #[serde(flatten)]
    pub resources: Resources,
    #[serde(flatten)]
    pub security: Security,
    #[serde(flatten)]
    pub namespaces: Namespaces,
    #[serde(flatten)]
    pub names: Names,
    #[serde(flatten)]
    pub container: Container,
}

/// A `depends_on` entry; the short list form is `service_started`, required.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    pub condition: Condition,
    pub required: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restart: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    #[serde(rename = "service_started")]
    Started,
    #[serde(rename = "service_healthy")]
    Healthy,
    #[serde(rename = "service_completed_successfully")]
    CompletedSuccessfully,
}

/// A named volume of a project.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// The full name, `<project>_<key>` unless the file gives one.
    pub name: String,
    /// Made by someone else; nothing else is said then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub external: bool,
    /// Of the driver `local`: what mount(8) is to be told (`type`, `device`, `o`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}
