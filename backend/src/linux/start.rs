//! A start as its shim is asked for it: with the places of layers and volumes, and what files hold.

use std::os::fd::AsFd;

use reconciler::{
    key::InstanceKey,
    plan::action::Action,
    spec::{ContainerSpec, MountSpec},
};

use super::{LinuxBackend, error::ApplyError};
use crate::{
    rootfs::{files, fill},
    shim::protocol::{Request, Start},
};

/// What a start counts.
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub restarts: u32,
    pub streak: u32,
    pub flaps: u32,
}

impl LinuxBackend {
    pub(super) fn start(
        &self,
        key: &InstanceKey,
        spec: &ContainerSpec,
        fresh: bool,
        counts: Counts,
    ) -> Result<(), ApplyError> {
        // Until its record tells what it stands on.
        let _lease = self.images.lease()?;
        let (contents, along) = files::bundle(&spec.files).map_err(ApplyError::Files)?;
        let start = Start {
            contents,
            ..self.request(spec, fresh, counts)?
        };
        let along: Vec<_> = along.iter().map(AsFd::as_fd).collect();
        self.ask_with(key, &Request::Start(Box::new(start)), &along)?;
        self.images.touch(&spec.image_digest);
        Ok(())
    }

    /// The first start in a sandbox that is being made, made ready while its interfaces are: where nothing of it can be
    /// seen from outside. What goes wrong is told by the start.
    pub(super) fn ahead(&self, next: Option<&Action>) -> Option<Request> {
        let Some(Action::StartContainer { spec, fresh, .. }) = next else {
            return None;
        };
        let seen = |mount: &MountSpec| match mount {
            MountSpec::Volume { volume, .. } => !fill::is_done(&self.volumes.data(volume)),
            MountSpec::Bind {
                create_host_path,
                source,
                ..
            } => *create_host_path && !source.exists(),
            MountSpec::Tmpfs { .. } => false,
        };
        if spec.mounts.iter().any(seen) || !spec.files.is_empty() {
            return None;
        }
        let start = self.request(spec, *fresh, Counts::default()).ok()?;
        Some(Request::Prepare(Box::new(start)))
    }

    fn request(&self, spec: &ContainerSpec, fresh: bool, counts: Counts) -> Result<Start, ApplyError> {
        let volumes = spec.mounts.iter().filter_map(|mount| match mount {
            MountSpec::Volume { volume, .. } => Some((volume.name.clone(), self.volumes.data(volume))),
            MountSpec::Bind { .. } | MountSpec::Tmpfs { .. } => None,
        });
        Ok(Start {
            container: spec.clone(),
            layers: self.images.layers(&spec.image_digest)?,
            volumes: volumes.collect(),
            fresh,
            restarts: counts.restarts,
            streak: counts.streak,
            flaps: counts.flaps,
            contents: Vec::new(),
        })
    }
}
