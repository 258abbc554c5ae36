//! The door to the host. The reconciler owns the trait; `backend` and the simulated host implement it.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fmt,
    sync::Arc,
};

use tokio::sync::mpsc;

use crate::{
    key::{InstanceKey, ResourceKey},
    memory::{Barred, Good},
    observed::{Fault, Observed},
    plan::action::Action,
};

/// Whether the registry of an image is asked what its name stands for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ask {
    /// What is here counts.
    Never,
    /// If the image is not here.
    #[default]
    Missing,
    /// In any case: its tag may have moved.
    Anew,
}

/// Where to look. An empty scope looks nowhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Look at everything; the other fields but `images` say nothing more.
    pub all: bool,
    /// Image references to resolve again.
    pub images: BTreeMap<String, Ask>,
    pub networks: BTreeSet<ResourceKey>,
    pub volumes: BTreeSet<ResourceKey>,
    pub instances: BTreeSet<InstanceKey>,
    pub firewall: bool,
    pub zones: bool,
}

/// How a failed action may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// After a delay.
    Again,
    /// Only once the manifest or the host has changed.
    AfterChange,
    Never,
}

/// Why an action failed, with what to do next in the text.
#[derive(Debug, Clone)]
pub struct ActionError {
    pub retry: Retry,
    /// The field of the service it is about (`ports`, `image`), to show its place in the manifest.
    pub field: Option<&'static str>,
    pub source: Arc<dyn Error + Send + Sync>,
}

/// A hint that something may have changed; the truth is `observe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostEvent {
    Instance(InstanceKey),
    Network(ResourceKey),
    Volume(ResourceKey),
    /// The names of a network.
    Names(ResourceKey),
    Firewall,
    /// What names of images stand for.
    Images,
    /// Something was missed: look at everything.
    Lost,
}

/// How it is, from those who were asked just now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attention {
    /// What goes wrong with what runs, of each that has answered; how its last run was ended is not among it.
    pub faults: BTreeMap<InstanceKey, Vec<Fault>>,
    /// Since when (boot clock) something is suspected that only time makes certain.
    pub suspected: Option<u64>,
}

/// The host. Calls block; the loop runs them on blocking threads.
pub trait Backend: Send + Sync + 'static {
    /// Looks again at the parts in `scope` and replaces them in `observed`; the rest stays.
    fn observe(&self, scope: &Scope, observed: &mut Observed);

    /// Carries out one action. Idempotent: done twice is done once.
    ///
    /// # Errors
    /// What failed, on which object, and how to go on.
    fn apply(&self, action: &Action) -> Result<(), ActionError>;

    /// As [`Backend::apply`]. `next` is what follows on the same key unless something comes between: what of it can be
    /// made ready meanwhile, unseen, may be.
    ///
    /// # Errors
    /// Those of `action`.
    fn apply_before(&self, action: &Action, _next: &Action) -> Result<(), ActionError> {
        self.apply(action)
    }

    /// Somebody asks how it is, of one project or of all: what tells nothing by itself (a process that
    /// hangs) is looked for at once and during the next seconds, and a hint follows where something is found.
    fn attend(&self, _project: Option<&str>) -> Attention {
        Attention::default()
    }

    /// Hints from now on. Called once.
    fn events(&self) -> mpsc::UnboundedReceiver<HostEvent>;

    /// The present moment; the only clock.
    fn now(&self) -> crate::time::Now;
}

/// Where the loop keeps what must outlive the agent and is not on the host.
pub trait Ledger: Send + Sync + 'static {
    /// `revision` of `name` is converged: what a rollback returns to.
    fn good(&self, name: &str, good: &Good);

    /// A revision was taken back, or (`None`) the manifest has changed since.
    fn barred(&self, name: &str, barred: Option<&Barred>);
}

impl Scope {
    pub fn all() -> Self {
        Scope {
            all: true,
            ..Scope::default()
        }
    }
}

impl fmt::Display for ActionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl Error for ActionError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.source()
    }
}
