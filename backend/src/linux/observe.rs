//! From the rooms to what the plan compares. What cannot be read is Unknown.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::fd::AsFd,
    panic::resume_unwind,
    sync::Arc,
    time::Instant,
};

use reconciler::{
    key::{InstanceKey, ResourceKey},
    observed::{Ended, Fact, Health, Image, Instance, Network, Observed, State},
    port::{Ask, Scope},
    spec::{NetworkSpec, Space, Zone},
};

use super::{
    LinuxBackend, Use,
    adopt::{directories, parse_instance},
    apply::zone_key,
    error::ApplyError,
    sandboxes::{Sandbox, identity},
};
use crate::{
    cgroup, chain,
    dns::zone,
    shim::{
        protocol::{HealthState, Run, SandboxState},
        record,
    },
};

/// Sources of images that are asked at once.
const SOURCES: usize = 8;

impl LinuxBackend {
    /// Some at once: each may keep us waiting.
    fn observe_images(&self, wanted: &BTreeMap<String, Ask>, images: &mut BTreeMap<String, Fact<Image>>) {
        let wanted: Vec<(&String, &Ask)> = wanted.iter().collect();
        let resolve = |(reference, ask): &(&String, &Ask)| {
            let image = self
                .images
                .look(reference, **ask)
                .map_or_else(unknown, Fact::Known);
            ((*reference).clone(), image)
        };
        for some in wanted.chunks(SOURCES) {
            match some {
                [one] => images.extend([resolve(one)]),
                some => std::thread::scope(|scope| {
                    let threads = some.iter().map(|one| scope.spawn(|| resolve(one)));
                    let threads: Vec<_> = threads.collect();
                    for thread in threads {
                        images.extend([thread.join().unwrap_or_else(|panic| resume_unwind(panic))]);
                    }
                }),
            }
        }
    }

    pub(super) fn observe_scope(&self, scope: &Scope, observed: &mut Observed) {
        observed.boot_id.clone_from(&self.boot_id);
        if scope.all {
            self.look_for_controllers();
            observed.instances = self.observe_all_instances();
            if self.purpose == Use::Converge {
                self.restore(&observed.instances);
                self.files.watch_root(&self.controllers().tops());
            }
        }
        self.observe_images(&scope.images, &mut observed.images);
        if scope.all || !scope.networks.is_empty() {
            replace(
                scope.all,
                &scope.networks,
                &mut observed.networks,
                self.observe_networks(),
            );
            observed.routes = self.net.routes().map_or_else(unknown, Fact::Known);
        }
        if scope.all || !scope.volumes.is_empty() {
            let volumes = self.volumes.observe().map_or_else(unknown, Fact::Known);
            replace(scope.all, &scope.volumes, &mut observed.volumes, volumes);
        }
        if scope.all {
            observed.ended = self.observe_ended();
            observed.remains = self.observe_remains();
            observed.id_bases = self.id_bases.list().map_or_else(unknown, Fact::Known);
        } else if let Fact::Known(instances) = &mut observed.instances {
            for key in &scope.instances {
                match self.observe_instance(key, false) {
                    Some(instance) => drop(instances.insert(key.clone(), instance)),
                    None => drop(instances.remove(key)),
                }
                match (self.ended(key), &mut observed.ended) {
                    (Ok(Some(ended)), Fact::Known(known)) => drop(known.insert(key.clone(), ended)),
                    (Ok(None), Fact::Known(known)) => drop(known.remove(key)),
                    (Err(error), known) => *known = unknown(error),
                    (Ok(_), Fact::Unknown(_)) => {}
                }
                if let Fact::Known(remains) = &mut observed.remains {
                    match self.remains(key) {
                        true => remains.insert(key.clone()),
                        false => remains.remove(key),
                    };
                }
            }
            if !scope.instances.is_empty() {
                observed.id_bases = self.id_bases.list().map_or_else(unknown, Fact::Known);
            }
        }
        if scope.all || scope.firewall {
            observed.firewall = self.firewall.observe().map_or_else(unknown, Fact::Known);
        }
        if scope.all || scope.zones {
            observed.zones = self.observe_zones();
        }
    }

    fn observe_networks(&self) -> Fact<BTreeMap<ResourceKey, Network>> {
        let records = match self.networks.list() {
            Ok(records) => records,
            Err(error) => return unknown(error),
        };
        let specs: Vec<NetworkSpec> = records.into_values().collect();
        let mut drift = match self.net.observe_networks(&specs) {
            Ok(drift) => drift,
            Err(error) => return unknown(error),
        };
        let network = |spec: NetworkSpec| {
            let drift = drift.remove(&spec.key).unwrap_or_default();
            (spec.key.clone(), Network { spec, drift })
        };
        Fact::Known(specs.into_iter().map(network).collect())
    }

    fn observe_all_instances(&self) -> Fact<BTreeMap<InstanceKey, Instance>> {
        let keys = match self.adopt() {
            Ok(keys) => keys,
            Err(error) => return unknown(error),
        };
        let known: Vec<_> = keys.iter().filter_map(|key| self.sandboxes.get(key)).collect();
        for sandbox in &known {
            // One that is gone is told of when it is looked at.
            let _ = sandbox.client().ask_ahead();
        }
        // The last to be asked is about the last to answer: one wait instead of one for each.
        if let Some(last) = known.last() {
            last.client().wait_ahead();
        }
        let observe = |key: InstanceKey| self.observe_instance(&key, true).map(|instance| (key, instance));
        Fact::Known(keys.into_iter().filter_map(observe).collect())
    }

    /// The exit records of containers whose sandbox is gone or lost.
    fn observe_ended(&self) -> Fact<BTreeMap<InstanceKey, Ended>> {
        let mut found = BTreeMap::new();
        let containers = self.layout.state.join("containers");
        let look = || -> Result<(), ApplyError> {
            for project in directories(&containers)? {
                for name in directories(&containers.join(&project))? {
                    if let Some(key) = parse_instance(&project, &name)
                        && let Some(ended) = self.ended(&key)?
                    {
                        found.insert(key, ended);
                    }
                }
            }
            Ok(())
        };
        let mut look = look;
        match look() {
            Ok(()) => Fact::Known(found),
            Err(error) => unknown(error),
        }
    }

    /// Directories of containers of which nothing else is left.
    fn observe_remains(&self) -> Fact<BTreeSet<InstanceKey>> {
        let containers = self.layout.state.join("containers");
        let look = || -> Result<BTreeSet<InstanceKey>, ApplyError> {
            let mut found = BTreeSet::new();
            for project in directories(&containers)? {
                for name in directories(&containers.join(&project))? {
                    let key = parse_instance(&project, &name);
                    found.extend(key.filter(|key| self.remains(key)));
                }
            }
            Ok(found)
        };
        look().map_or_else(unknown, Fact::Known)
    }

    fn remains(&self, key: &InstanceKey) -> bool {
        let held = self.sandboxes.get(key).is_some() || self.instance_cgroup(key).exists();
        !held && self.layout.container(key).exists()
    }

    fn ended(&self, key: &InstanceKey) -> Result<Option<Ended>, ApplyError> {
        let silent = || self.instance_cgroup(key).exists() && self.unreachable(key).is_some();
        if self.sandboxes.get(key).is_some() || silent() {
            return Ok(None);
        }
        let directory = self.layout.container(key);
        let exit = record::read_exit(&directory).map_err(|source| ApplyError::Path {
            path: directory.join(record::EXIT),
            source,
        })?;
        // Made for a key whose names give the same directory, perhaps.
        Ok(exit.filter(|exit| exit.key == *key).map(Ended::from))
    }

    /// `None`: there is neither a shim nor anything left of it. `all`: what was in order a moment ago is looked at
    /// once more.
    fn observe_instance(&self, key: &InstanceKey, all: bool) -> Option<Instance> {
        let cgroup = self.instance_cgroup(key);
        let Some(sandbox) = self.sandboxes.get(key) else {
            return cgroup
                .exists()
                .then(|| self.unreachable(key).unwrap_or_else(|| Instance::lost(key)));
        };
        // Its supervisor may stand still with it, or wait for a probe that does.
        if cgroup::frozen(&cgroup)
            && let Some(mut instance) = self.unreachable(key)
        {
            instance.drift.push("it is frozen".to_owned());
            return Some(instance);
        }
        match self.state(key) {
            Ok(state) => {
                let mut drift = match all || !sandbox.interfaces.are_sound(Instant::now()) {
                    true => self.network_drift(&state, &sandbox),
                    false => Vec::new(),
                };
                for port in &state.record.assignment.sandbox.ports {
                    if !state.ports.contains(port) {
                        drift.push(format!("port {} is not reserved", port.published));
                    }
                }
                let standing = self.standing(key, &state);
                drift.extend(standing.drift);
                match state.run {
                    Run::Running { pid } if self.purpose == Use::Converge => {
                        let mut cgroups = self.controllers().directories(&cgroup);
                        cgroups.push(cgroup.join("shim"));
                        let shim = sandbox.client().pid;
                        self.files.watch_instance(key, (pid, shim), &cgroups);
                    }
                    _ => self.files.forget_instance(key),
                }
                let identity = match state.unpaused {
                    true => String::new(),
                    false => sandbox.identity.clone(),
                };
                Some(instance(state, identity, drift, standing.broken))
            }
            Err(error) => {
                tracing::warn!(key = %key, error = chain(&error), "a supervisor does not answer");
                self.sandboxes.remove(key);
                Some(self.unreachable(key).unwrap_or_else(|| Instance::lost(key)))
            }
        }
    }

    /// Of a network of its own; that of another is looked at there.
    fn network_drift(&self, state: &SandboxState, sandbox: &Sandbox) -> Vec<String> {
        let (changes, netns) = (sandbox.interfaces.changes(), sandbox.netns.as_fd());
        let spec = &state.record.assignment.sandbox;
        if spec.spaces.network != Space::Own {
            return Vec::new();
        }
        let now = Instant::now();
        let found = [
            self.net.endpoints_drift(spec, netns),
            self.net.resolver_drift(netns, state.resolver_port),
        ];
        let found = found.into_iter();
        let drift: Vec<String> = found
            .flat_map(|found| found.unwrap_or_else(|error| vec![chain(&error)]))
            .collect();
        // Or the look after a repair would go by the one before the damage.
        sandbox.interfaces.found(changes, now, !drift.is_empty());
        drift
    }

    /// A shim that lives but does not answer: what it supervises runs on, or has ended, as its record says,
    /// and must not be taken for lost. The next look tries to reach it again.
    fn unreachable(&self, key: &InstanceKey) -> Option<Instance> {
        let shims = cgroup::find_shims(&self.layout.mark).ok()?;
        let (shim, record) = shims.into_iter().find(|(_, record)| record.key == *key)?;
        let state = match (record.ended, record.pid) {
            (Some((code, at)), _) => State::Exited { code, at },
            (None, Some(pid)) => State::Running { pid },
            (None, None) => State::Created,
        };
        let asked = record
            .container
            .as_ref()
            .is_some_and(|spec| spec.health.is_some());
        Some(Instance {
            // How it is now, nobody tells.
            health: match state {
                State::Running { .. } if asked => Health::Starting,
                _ => Health::None,
            },
            state,
            sandbox: Arc::new(record.assignment.sandbox),
            container: record.container.map(Arc::new),
            drift: Vec::new(),
            broken: None,
            identity: identity(shim),
            joined: record.assignment.lender.map(|lender| lender.identity),
            restarts: record.restarts,
            streak: record.streak,
            flaps: record.flaps,
            started_at: record.started_boot,
            started_wall: record.started_wall,
            faults: record.hooks.faults.into_iter().chain(record.died).collect(),
            hook: record.hooks.current,
        })
    }

    /// A zone file that cannot be read shows as a network without names, and is written anew.
    fn observe_zones(&self) -> Fact<BTreeMap<ResourceKey, Arc<Zone>>> {
        let entries = match fs::read_dir(self.layout.zones()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Fact::Known(BTreeMap::new()),
            Err(error) => return unknown(error),
        };
        let mut zones = BTreeMap::new();
        for entry in entries {
            let path = match entry {
                Ok(entry) => entry.path(),
                Err(error) => return unknown(error),
            };
            if let Some(key) = zone_key(&path)
                && let Ok(Some(zone)) = zone::read(&path)
            {
                zones.insert(key, Arc::new(zone));
            }
        }
        Fact::Known(zones)
    }
}

/// Puts in what was looked for, all or some of it, and leaves the rest as it was.
fn replace<T>(
    all: bool,
    looked_for: &BTreeSet<ResourceKey>,
    known: &mut Fact<BTreeMap<ResourceKey, T>>,
    mut seen: Fact<BTreeMap<ResourceKey, T>>,
) {
    match (known, &mut seen) {
        (Fact::Known(known), Fact::Known(seen)) if !all => {
            for key in looked_for {
                match seen.remove(key) {
                    Some(value) => drop(known.insert(key.clone(), value)),
                    None => drop(known.remove(key)),
                }
            }
        }
        (known, _) => *known = seen,
    }
}

fn instance(state: SandboxState, identity: String, drift: Vec<String>, broken: Option<String>) -> Instance {
    let record = state.record;
    Instance {
        faults: state
            .faults
            .into_iter()
            .chain(record.hooks.faults)
            .chain(record.died)
            .collect(),
        hook: record.hooks.current,
        sandbox: Arc::new(record.assignment.sandbox),
        container: record.container.map(Arc::new),
        state: match state.run {
            Run::Created => State::Created,
            Run::Running { pid } => State::Running { pid },
            Run::Exited { code, at } => State::Exited { code, at },
        },
        drift,
        broken,
        identity,
        joined: record.assignment.lender.map(|lender| lender.identity),
        restarts: record.restarts,
        streak: record.streak,
        flaps: record.flaps,
        started_at: record.started_boot,
        started_wall: record.started_wall,
        health: match state.health {
            HealthState::None => Health::None,
            HealthState::Starting => Health::Starting,
            HealthState::Healthy => Health::Healthy,
            HealthState::Unhealthy => Health::Unhealthy,
        },
    }
}

fn unknown<T>(error: impl std::error::Error) -> Fact<T> {
    Fact::Unknown(chain(&error))
}
