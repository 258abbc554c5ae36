//! What somebody can break by hand: one line of shell each, so that a person can do the same.

pub mod ground;
pub mod network;

/// One kind of damage to a service or to what it is made of.
pub struct Damage {
    pub name: &'static str,
    pub place: Where,
    /// For `sh`, or a mount point; [`super::target`] says which names stand for what.
    pub line: &'static str,
    pub reach: Reach,
    /// The process does not outlive it: the service is started again.
    pub fatal: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    Host,
    /// In the network namespace of the service.
    Inside,
    /// On the host, and refused where the kernel keeps tables for their owner (since 6.9).
    Guarded,
    /// Not a line but a place, unmounted in the mount namespace of the service; refused where a
    /// namespace is not to lose its root.
    Mounts,
}

/// Who may notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    Service,
    Network,
    Host,
}

const fn damage(name: &'static str, place: Where, reach: Reach, line: &'static str) -> Damage {
    Damage {
        name,
        place,
        line,
        reach,
        fatal: false,
    }
}

impl Damage {
    const fn fatal(self) -> Damage {
        Damage { fatal: true, ..self }
    }

    /// Whether there are kernels that refuse it.
    pub fn may_be_refused(&self) -> bool {
        matches!(self.place, Where::Guarded | Where::Mounts)
    }
}
