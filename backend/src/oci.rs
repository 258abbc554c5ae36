//! Hooks as an OCI runtime has them, for devices of vendors: what they are told, and when they run.
//!
//! OCI runtime-spec, "POSIX-platform Hooks" and "State". Those of the host run as its root, `createContainer` as root of
//! the container, `startContainer` as the program of the container: that one is a file of the image.

mod bundle;
mod call;

use std::{
    fs,
    path::{Path, PathBuf},
};

use reconciler::spec::{ContainerSpec, OciHook, OciMoment};
use serde::Serialize;

use crate::{
    rootfs::{Step, StepError},
    shim::protocol::Assignment,
};

/// Of the runtime-spec whose hooks these are.
const VERSION: &str = "1.2.0";

/// The hooks of one container.
pub struct Hooks<'a> {
    all: &'a [OciHook],
    id: String,
    /// Where `config.json` is: below it the root of the container, as its own mount namespace has it.
    bundle: PathBuf,
    hostname: &'a str,
    read_only: bool,
    host_ids: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct State<'a> {
    oci_version: &'static str,
    id: &'a str,
    status: &'static str,
    /// As the host counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    bundle: &'a Path,
    /// Not of the specification: crun says it, and tools look there first.
    root: PathBuf,
    annotations: serde_json::Map<String, serde_json::Value>,
}

impl<'a> Hooks<'a> {
    /// `None`: there are none. Else the bundle is written.
    ///
    /// # Errors
    /// The directory of the container cannot be written.
    pub fn new(assignment: &'a Assignment, container: &'a ContainerSpec) -> Result<Option<Self>, StepError> {
        if container.oci_hooks.is_empty() {
            return Ok(None);
        }
        let directory = &assignment.directory;
        let key = &assignment.sandbox.key;
        let hooks = Hooks {
            all: &container.oci_hooks,
            id: format!("{}-{}-{}{}", key.project, key.service, key.index, key.slot),
            bundle: fs::canonicalize(directory).step("find", directory.display())?,
            hostname: &container.hostname,
            read_only: container.read_only,
            host_ids: assignment.sandbox.spaces.host_ids,
        };
        hooks.write()?;
        Ok(Some(hooks))
    }

    /// Those of one moment, one after the other, up to the first that fails.
    ///
    /// # Errors
    /// Of the one that failed.
    pub fn run(&self, moment: OciMoment, pid: i32) -> Result<(), StepError> {
        self.of(moment)
            .try_for_each(|hook| call::call(hook, &self.state(moment, Some(pid))?, self.place(moment)))
    }

    /// `poststop`: each of them, whatever becomes of the others. What went wrong.
    pub fn stopped(&self) -> Vec<StepError> {
        let moment = OciMoment::Poststop;
        let call = |hook| call::call(hook, &self.state(moment, None)?, self.place(moment));
        self.of(moment).filter_map(|hook| call(hook).err()).collect()
    }

    fn of(&self, moment: OciMoment) -> impl Iterator<Item = &OciHook> {
        self.all.iter().filter(move |hook| hook.moment == moment)
    }

    /// The working directory of a hook.
    fn place(&self, moment: OciMoment) -> &Path {
        match moment {
            OciMoment::StartContainer => Path::new("/"),
            _ => &self.bundle,
        }
    }

    fn state(&self, moment: OciMoment, pid: Option<i32>) -> Result<Vec<u8>, StepError> {
        let state = State {
            oci_version: VERSION,
            id: &self.id,
            status: match moment {
                OciMoment::Prestart | OciMoment::CreateRuntime | OciMoment::CreateContainer => "creating",
                OciMoment::StartContainer => "created",
                OciMoment::Poststart => "running",
                OciMoment::Poststop => "stopped",
            },
            pid,
            bundle: &self.bundle,
            root: self.root(),
            annotations: serde_json::Map::new(),
        };
        serde_json::to_vec(&state).step("write", "the state of the container")
    }
}

/// The calling process as the host counts, as long as /proc is the host's.
///
/// # Errors
/// There is no /proc.
pub fn own_pid() -> Result<i32, StepError> {
    let link = "/proc/self";
    let pid = fs::read_link(link).step("read", link)?;
    let pid = pid.to_str().and_then(|pid| pid.parse().ok());
    pid.ok_or(std::io::ErrorKind::InvalidData).step("read", link)
}
