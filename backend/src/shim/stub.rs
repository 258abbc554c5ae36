//! The next run of a container that ended by itself: its first process waits in its tree before the back-off is
//! over, and has only to become the program.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use reconciler::{
    restart::Rules,
    spec::{ContainerSpec, MountSpec},
};

use super::{
    ground, joined,
    protocol::{Assignment, Directory, Start},
    run::Output,
    waiting::Waiting,
    watch::Watch,
};
use crate::rootfs::{Step, StepError, etc, files::Held};

/// Milliseconds from an end to its stub: whoever was told of the end asks first.
pub const SOON: u64 = 20;
/// Milliseconds that a stub waits: as long as the longest back-off, and as much again.
const WAITS: u64 = 120_000;

/// Whether an end with `code` is one to be followed by another start, as far as the container says.
pub fn is_worth_it(container: &ContainerSpec, code: i32) -> bool {
    !Rules::by(container.restart).ends(code) && may_wait(container)
}

/// Who has a terminal or every device of the host is not made ahead; nor who has a part of a volume, which others may
/// replace, or hooks of a vendor, which run once for each start.
pub fn may_wait(container: &ContainerSpec) -> bool {
    let part = |mount: &MountSpec| matches!(mount, MountSpec::Volume { subpath: Some(_), .. });
    !container.tty
        && !container.rights.privileged
        && container.oci_hooks.is_empty()
        && !container.mounts.iter().any(part)
}

/// A first process that waits, and what it was made from.
pub struct Stub {
    start: Start,
    waiting: Waiting,
    pidfd: OwnedFd,
    output: Output,
    files: Option<Held>,
    watch: Watch,
    stands_on: Vec<Directory>,
    /// The mounts of the host: whatever changes there may be under it.
    mounts: File,
    /// When it is given up (boot clock).
    pub until: u64,
}

impl Stub {
    /// What the run stands on is looked at before its first process is made.
    ///
    /// # Errors
    /// Something of it is not there.
    pub fn look(assignment: &Assignment, start: &Start) -> Result<(Vec<Directory>, File), StepError> {
        let mounts = "/proc/self/mountinfo";
        let mounts = File::open(mounts).step("open", mounts)?;
        let stands_on = places(assignment, start)
            .into_iter()
            .map(|path| directory(&path).step("look at", path.display()))
            .collect::<Result<_, _>>()?;
        Ok((stands_on, mounts))
    }

    /// # Errors
    /// The process has ended already.
    pub fn new(
        start: Start,
        (stands_on, mounts): (Vec<Directory>, File),
        waiting: Waiting,
        output: Output,
        (files, watch): (Option<Held>, Watch),
        now: u64,
    ) -> Result<Self, StepError> {
        let pidfd = match joined::pidfd(waiting.pid) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                waiting.end();
                return Err(error);
            }
        };
        Ok(Stub {
            start,
            pidfd,
            waiting,
            output,
            files,
            watch,
            stands_on,
            mounts,
            until: now + WAITS,
        })
    }

    /// What to wait for: its end, and that the host mounts something.
    pub fn poll_fds(&self) -> [(RawFd, i16); 2] {
        [
            (self.pidfd.as_raw_fd(), libc::POLLIN),
            (self.mounts.as_raw_fd(), libc::POLLPRI),
        ]
    }

    /// What to wait for, too, to call [`Stub::reap_maker`].
    pub fn maker(&self) -> Option<BorrowedFd<'_>> {
        self.waiting.maker()
    }

    pub fn reap_maker(&mut self) {
        self.waiting.reap_maker();
    }

    /// Whether `start` would make the same now. It is as good as new then.
    pub fn fits(&self, start: &Start) -> bool {
        let same = self.start.container == start.container
            && self.start.layers == start.layers
            && self.start.volumes == start.volumes
            && self.start.fresh == start.fresh;
        same && self.stands_on.iter().all(|place| ground::gone(place).is_none())
            && crate::sys::process::poll(&self.poll_fds(), 0)
                .is_ok_and(|events| events.iter().all(|event| *event == 0))
    }

    /// It becomes the program: its process id.
    ///
    /// # Errors
    /// The step that failed; nothing is left of it.
    pub fn go(self) -> Result<(i32, Output, Option<Held>, Watch), StepError> {
        Ok((self.waiting.go()?, self.output, self.files, self.watch))
    }

    pub fn end(self) {
        self.waiting.end();
    }
}

/// Everything of the host that is in the container's tree, by name.
fn places(assignment: &Assignment, start: &Start) -> Vec<PathBuf> {
    let own = ["upper", "work"].map(|name| assignment.directory.join(name));
    let generated = etc::GENERATED.map(|name| etc::directory(assignment).join(name));
    let binds = start.container.mounts.iter().filter_map(|mount| match mount {
        MountSpec::Bind { source, .. } => Some(source),
        MountSpec::Volume { .. } | MountSpec::Tmpfs { .. } => None,
    });
    let devices = start.container.devices.iter().map(|device| &device.source);
    let all = start
        .layers
        .iter()
        .chain(start.volumes.values())
        .chain(binds)
        .chain(devices);
    own.into_iter().chain(generated).chain(all.cloned()).collect()
}

fn directory(path: &Path) -> io::Result<Directory> {
    let metadata = fs::metadata(path)?;
    Ok(Directory {
        path: path.to_owned(),
        device: metadata.dev(),
        inode: metadata.ino(),
    })
}

#[cfg(test)]
mod tests {
    use model::types::RestartPolicy::{Always, No, OnFailure, UnlessStopped};
    use reconciler::spec::{OciHook, OciMoment};

    use super::*;

    #[test]
    fn is_made_where_the_policy_starts_again_and_all_of_it_can_be_made_ahead() {
        let cases = [
            (No, 1, false, false),
            (OnFailure(None), 0, false, false),
            (OnFailure(Some(3)), 1, false, true),
            (Always, 0, false, true),
            (UnlessStopped, 137, false, true),
            (Always, 1, true, false),
        ];
        for (restart, code, privileged, made) in cases {
            let mut container = ContainerSpec {
                restart,
                ..ContainerSpec::default()
            };
            container.rights.privileged = privileged;
            assert_eq!(
                is_worth_it(&container, code),
                made,
                "{restart:?} {code} {privileged}"
            );
            container.oci_hooks = vec![OciHook {
                moment: OciMoment::Poststop,
                path: "/bin/true".into(),
                args: Vec::new(),
                env: Vec::new(),
                timeout: None,
            }];
            assert!(!is_worth_it(&container, code), "a hook of a vendor");
            container.oci_hooks.clear();
            container.mounts = vec![MountSpec::Volume {
                volume: reconciler::key::ResourceKey {
                    project: "shop".into(),
                    name: "data".into(),
                },
                target: "/data".into(),
                read_only: false,
                nocopy: false,
                subpath: Some("part".into()),
            }];
            assert!(!is_worth_it(&container, code), "a part of a volume");
        }
    }
}
