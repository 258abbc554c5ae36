//! The simulated host as the simulation drives it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::mpsc;

use super::Turn;
pub use crate::testing::sim_host::{Progress, Work};
use crate::{
    converge::{Kept, Note, Round},
    desired::Desired,
    execute::Report,
    key::{InstanceKey, Key},
    observed::{Health, Hook, Moment, Observed},
    plan::action::Action,
    port::{ActionError, Backend, HostEvent, Ledger, Retry, Scope},
    spec::Space,
    status::Status,
    testing::{
        generate::{Behaviour, IMAGES, RARE_IMAGE, TAGGED, TAGS},
        invariants::{Violation, Watch},
        sim_host::{
            Random, SimError, SimHost,
            damage::Damage,
            objects::{Manner, Run},
            registry::Registry,
        },
    },
    time::Now,
};

pub struct Host {
    host: SimHost,
    hints: Option<mpsc::UnboundedReceiver<HostEvent>>,
    /// Backend calls and mutations that the host does not count itself.
    extra: u64,
    watch: Watch,
}

/// The error of a call that fails because the seed says so.
pub fn asked(key: &Key) -> ActionError {
    ActionError {
        retry: Retry::Again,
        field: None,
        source: Arc::new(SimError::Asked(key.to_string())),
    }
}

impl Host {
    pub fn new() -> Self {
        let host = SimHost::new();
        for (number, (reference, digest)) in IMAGES.iter().enumerate() {
            host.image(reference, digest, number == 0);
        }
        for tag in TAGS {
            let digest = TAGGED[0].to_owned();
            host.world().registry.tags.insert(tag.to_owned(), digest);
        }
        host.world().keeps_history = false;
        Host {
            host,
            hints: None,
            extra: 0,
            watch: Watch::new(),
        }
    }

    pub fn now(&self) -> Now {
        self.host.now()
    }

    pub fn advance(&self, milliseconds: u64) {
        self.host.advance(milliseconds);
    }

    pub fn steps(&self) -> u64 {
        self.host.world().steps + self.extra
    }

    // What the agent does.

    pub fn agent_starts(&mut self) {
        self.host.world().agent_starts();
        self.watch.agent_starts();
        self.hints = Some(self.host.events());
    }

    pub fn agent_dies(&mut self) {
        self.host.world().agent_dies();
        self.hints = None;
    }

    /// What the watcher of the living agent tells next.
    pub fn hint(&mut self) -> Option<HostEvent> {
        self.hints.as_mut()?.try_recv().ok()
    }

    pub fn begin(&self, action: Action) -> Result<Work, ActionError> {
        self.host.world().begin(action)
    }

    pub fn advance_work(&self, work: &mut Work, now: Now) -> Result<Progress, ActionError> {
        self.host.world().advance(work, now)
    }

    pub fn look(&self, scope: &Scope, seen: &mut Observed) {
        self.host.world().look(scope, seen);
    }

    pub fn keep(&mut self, note: &Note) {
        self.extra += 1;
        match note {
            Note::Good { project, good } => self.host.good(project, good),
            Note::Barred { project, barred } => self.host.barred(project, barred.as_ref()),
        }
    }

    pub fn kept(&self) -> Kept {
        self.host.world().kept.clone()
    }

    pub fn registry(&self) -> Registry {
        self.host.world().registry.clone()
    }

    // What is looked up from outside.

    /// Process, command and whether it is probed, of an instance that runs.
    pub fn process(&self, key: &InstanceKey) -> Option<(u32, Vec<String>, bool)> {
        let world = self.host.world();
        let shim = world.instances.get(key)?.shim.as_ref()?;
        let Run::Running { pid } = shim.run else {
            return None;
        };
        let container = shim.container.as_ref()?;
        Some((pid, container.argv.clone(), container.health.is_some()))
    }

    /// What the hooks of an instance do, of its start or before its stop.
    pub fn hooks(&self, key: &InstanceKey, moment: Moment) -> Vec<Behaviour> {
        let world = self.host.world();
        let shim = world.instances.get(key).and_then(|place| place.shim.as_ref());
        let container = shim.and_then(|shim| shim.container.as_ref());
        let hooks = container.map_or(&[][..], |container| match moment {
            Moment::PostStart => &container.post_start,
            Moment::PreStop => &container.pre_stop,
        });
        hooks.iter().map(|hook| Behaviour::of(&hook.argv)).collect()
    }

    /// When an instance that is being stopped is killed at the latest.
    pub fn stops_at(&self, key: &InstanceKey) -> Option<u64> {
        let world = self.host.world();
        let shim = world.instances.get(key)?.shim.as_ref()?;
        shim.stops_at
    }

    fn end_hook(&self, key: &InstanceKey, moment: Moment, number: u32, status: i32) {
        self.host.end_hook(key, Hook { moment, number }, status);
    }

    /// It has no interface of its own.
    pub fn joins_a_network(&self, key: &InstanceKey) -> bool {
        let world = self.host.world();
        let shim = world.instances.get(key).and_then(|place| place.shim.as_ref());
        shim.is_some_and(|shim| shim.sandbox.spaces.network == Space::Joined)
    }

    /// What cannot be started now.
    pub fn refused(&self) -> BTreeSet<InstanceKey> {
        self.host.world().refused.clone()
    }

    pub fn running(&self) -> BTreeMap<InstanceKey, u32> {
        self.host.pids()
    }

    /// An instance is there in both of its slots.
    pub fn two_slots(&self) -> bool {
        let world = self.host.world();
        let mut keys = world.instances.keys().peekable();
        while let Some(key) = keys.next() {
            let pair = |next: &&InstanceKey| {
                (&next.project, &next.service, next.index) == (&key.project, &key.service, key.index)
            };
            if keys.peek().is_some_and(pair) {
                return true;
            }
        }
        false
    }

    // What happens to it.

    pub fn turn(&self, key: &InstanceKey, turn: Turn) {
        match turn {
            Turn::Exit(code) => self.host.exit(key, code),
            Turn::Healthy => self.host.set_health(key, Health::Healthy),
            Turn::Unhealthy => self.host.set_health(key, Health::Unhealthy),
            Turn::Started(number, status) => self.end_hook(key, Moment::PostStart, number, status),
            Turn::Stopping(number, status) => self.end_hook(key, Moment::PreStop, number, status),
            Turn::Grace => self.host.end_grace(key),
        }
    }

    /// The processes of `key` do not listen to SIGTERM.
    pub fn deafen(&self, key: &InstanceKey) {
        if let Some(place) = self.host.world().instances.get_mut(key) {
            for process in &mut place.processes {
                process.manner = Manner::Deaf;
            }
        }
    }

    pub fn damage(&self, damage: &Damage) {
        self.host.world().damage(damage);
    }

    pub fn possible_damage(&self, random: &mut Random) -> Option<Damage> {
        self.host.world().possible_damage(random)
    }

    /// Ends one lasting trouble. False: there is none.
    pub fn mend(&self) -> bool {
        self.host.world().mend()
    }

    /// Power off and on.
    pub fn crash(&mut self, hard: bool, random: &mut Random) {
        let mut world = self.host.world();
        if hard {
            world.power_cut(random);
        } else {
            world.reboot();
        }
    }

    pub fn jump(&mut self, wall: i64) {
        let mut world = self.host.world();
        world.wall = world.wall.saturating_add_signed(wall);
        self.extra += 1;
    }

    /// Where images come from has `RARE_IMAGE`, or not.
    pub fn rare_image(&mut self, there: bool) {
        if there {
            self.host.image(RARE_IMAGE.0, RARE_IMAGE.1, false);
        } else {
            self.host.world().images.remove(RARE_IMAGE.0);
        }
        self.extra += 1;
    }

    /// A registry answers, or not.
    pub fn answers(&mut self, up: bool) {
        self.host.world().registry.down = !up;
        self.extra += 1;
    }

    pub fn move_tag(&mut self, tag: &str, digest: &str) {
        let mut world = self.host.world();
        world.registry.tags.insert(tag.to_owned(), digest.to_owned());
        self.extra += 1;
    }

    /// Somebody brings the name to what its tag stands for.
    pub fn pull(&mut self, tag: &str) -> bool {
        self.extra += 1;
        self.host.world().pull_by_hand(tag)
    }

    /// `reference` stands for another digest.
    pub fn move_image(&mut self, reference: &str, digest: &str) {
        self.host.image(reference, digest, false);
        self.extra += 1;
    }

    pub fn remove_image(&mut self, reference: &str) {
        self.host.world().images.remove(reference);
        self.extra += 1;
    }

    pub fn boot_id(&self) -> String {
        self.host.world().boot_id.clone()
    }

    // What must hold.

    /// The agent is told of this.
    pub fn hears(&mut self, hint: &HostEvent) {
        self.watch.hears(hint);
    }

    pub fn asked(&mut self) {
        self.watch.asked();
    }

    /// After a step on `key` it is looked at.
    pub fn looked(&mut self, key: &Key) {
        self.watch.looked(key);
    }

    pub fn reported(&mut self, report: &Report) {
        self.watch.reported(report);
    }

    /// This is wanted from now on.
    pub fn wants(&mut self, desired: &Desired) {
        self.watch.wants(desired);
    }

    /// After each step of the host.
    pub fn holds(&mut self) -> Result<(), Violation> {
        self.watch.after(&mut self.host.world())
    }

    /// After each round of the agent.
    pub fn decided(&mut self, round: &Round, now: Now) -> Result<(), Violation> {
        self.watch.decided(&self.host.world(), round, now)
    }

    /// At the end of the quiet time.
    pub fn settled(&mut self, desired: &Desired, status: &Status, now: Now) -> Result<(), Violation> {
        self.watch.settled(&mut self.host.world(), desired, status, now)
    }
}
