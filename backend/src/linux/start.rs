//! A start as its shim is asked for it: with the places of layers and volumes, and what files hold.

use std::os::fd::AsFd;

use reconciler::{
    key::InstanceKey,
    spec::{ContainerSpec, MountSpec},
};

use super::{LinuxBackend, error::ApplyError};
use crate::{
    rootfs::files,
    shim::protocol::{Request, Start},
};

/// What a start counts.
#[derive(Clone, Copy)]
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
        let volumes = spec.mounts.iter().filter_map(|mount| match mount {
            MountSpec::Volume { volume, .. } => Some((volume.name.clone(), self.volumes.data(volume))),
            MountSpec::Bind { .. } | MountSpec::Tmpfs { .. } => None,
        });
        let (contents, along) = files::bundle(&spec.files).map_err(ApplyError::Files)?;
        let start = Start {
            container: spec.clone(),
            layers: self.images.layers(&spec.image_digest)?,
            volumes: volumes.collect(),
            fresh,
            restarts: counts.restarts,
            streak: counts.streak,
            flaps: counts.flaps,
            contents,
        };
        let along: Vec<_> = along.iter().map(AsFd::as_fd).collect();
        self.ask_with(key, &Request::Start(Box::new(start)), &along)
            .map(drop)
    }
}
