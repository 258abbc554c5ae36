//! What can go wrong when the rooms work together, and whether trying again helps.

use std::{io, path::PathBuf, sync::Arc};

use reconciler::{
    key::InstanceKey,
    observed::Fault,
    port::{ActionError, Retry},
};

use crate::{
    cgroup::limits::LimitError,
    firewall::FirewallError,
    image::ImageError,
    net::NetError,
    records,
    rootfs::StepError,
    shim::{client::ClientError, protocol::Reason},
    volume::VolumeError,
};

/// Why a root cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot make {}; stead needs to write there", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the state in {} cannot be used", path.display())]
    State {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the image store of this root cannot be swept")]
    Images(#[source] ImageError),
    #[error("the network of this host cannot be used; `stead doctor` says what is missing")]
    Net(#[from] NetError),
    #[error("the firewall of this host cannot be used; `stead doctor` says what is missing")]
    Firewall(#[from] FirewallError),
    #[error("the cgroup tree of this host cannot be used; `stead doctor` says what is missing")]
    Cgroup(#[source] io::Error),
    #[error(transparent)]
    Limits(#[from] LimitError),
    #[error("no supervisor can be started; `stead doctor` says what is missing")]
    Spawn(#[source] io::Error),
    #[error("no thread or descriptor is left for events")]
    Events(#[source] io::Error),
}

/// Why an action failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Net(#[from] NetError),
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(transparent)]
    Record(#[from] records::WriteError),
    #[error(transparent)]
    Read(#[from] records::ReadError),
    #[error(transparent)]
    Limits(#[from] LimitError),
    #[error("there is no memory for the configs and secrets of a service; free some, it is tried again")]
    Files(#[source] io::Error),
    #[error("no supervisor can be started; `stead doctor` says what is missing")]
    Spawn(#[source] ClientError),
    #[error("the supervisor of {key} does not answer; it is asked again at the next look")]
    Client {
        key: InstanceKey,
        #[source]
        source: ClientError,
    },
    #[error("{message}")]
    Refused { message: String, reason: Reason },
    #[error("{key} has no sandbox yet; stead makes one at the next attempt")]
    NoSandbox { key: InstanceKey },
    #[error("{key} still has processes {after} ms after they were killed; see `cat {}/cgroup.procs`", cgroup.display())]
    StillAlive {
        key: InstanceKey,
        after: u64,
        cgroup: PathBuf,
    },
    #[error("{key} cannot be stopped: {fault}")]
    Stuck { key: InstanceKey, fault: Box<Fault> },
    #[error("cannot work on {}", path.display())]
    Path {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl ApplyError {
    fn retry(&self) -> Retry {
        match self {
            ApplyError::Image(error) if !error.may_pass() => Retry::AfterChange,
            ApplyError::Volume(VolumeError::Lost { .. } | VolumeError::Foreign { .. }) => Retry::AfterChange,
            ApplyError::Refused {
                reason: Reason::Spec, ..
            } => Retry::AfterChange,
            _ => Retry::Again,
        }
    }
}

impl ApplyError {
    fn field(&self) -> Option<&'static str> {
        match self {
            ApplyError::Image(_) => Some("image"),
            ApplyError::Refused {
                reason: Reason::PortTaken,
                ..
            } => Some("ports"),
            ApplyError::Volume(_) => Some("volumes"),
            _ => None,
        }
    }
}

impl From<StepError> for ApplyError {
    fn from(error: StepError) -> Self {
        ApplyError::Refused {
            message: error.message,
            reason: error.reason,
        }
    }
}

impl From<ApplyError> for ActionError {
    fn from(error: ApplyError) -> Self {
        ActionError {
            retry: error.retry(),
            field: error.field(),
            source: Arc::new(error),
        }
    }
}
