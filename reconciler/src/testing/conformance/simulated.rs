//! The hands of the simulated host.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use tokio::sync::mpsc;

use super::{
    super::sim_host::{SimHost, damage::Damage, objects::Manner},
    End, Hands, hint,
};
use crate::{
    key::InstanceKey,
    observed::{Health, Image, ImageConfig, Observed},
    plan::action::Action,
    port::{ActionError, Backend, HostEvent, Scope},
    time::Now,
};

#[derive(Debug)]
pub struct Simulated {
    host: SimHost,
    events: Mutex<mpsc::UnboundedReceiver<HostEvent>>,
}

impl Default for Simulated {
    fn default() -> Self {
        let host = SimHost::new();
        Simulated {
            events: Mutex::new(host.events()),
            host,
        }
    }
}

impl Hands for Simulated {
    fn image(&self, name: &str) -> Result<String, String> {
        let reference = format!("simulated:{name}");
        let image = Image::new(format!("sha256:of-{name}"), false, ImageConfig::default());
        self.host.world().images.insert(reference.clone(), image);
        Ok(reference)
    }

    fn damage(&self, damage: &Damage) -> Result<(), String> {
        self.host.world().damage(damage);
        Ok(())
    }

    fn exit(&self, key: &InstanceKey, end: End) -> Result<(), String> {
        let code = match end {
            End::Code(code) => code,
            End::OutOfMemory => 137,
        };
        match self.host.pids().contains_key(key) {
            true => {
                self.host.exit(key, code);
                Ok(())
            }
            false => Err(format!("{key} does not run")),
        }
    }

    fn health(&self, key: &InstanceKey, well: bool) -> Result<(), String> {
        let health = if well { Health::Healthy } else { Health::Unhealthy };
        self.host.world().set_health(key, health);
        Ok(())
    }

    fn new_agent(&self) -> Result<(), String> {
        let mut world = self.host.world();
        world.agent_dies();
        world.agent_starts();
        Ok(())
    }

    fn reboot(&self) -> Result<(), String> {
        let mut world = self.host.world();
        let boot_id = world.boot_id.clone();
        world.reboot();
        // A real host can be emptied under a test, but not be given another boot.
        world.boot_id = boot_id;
        world.agent_starts();
        Ok(())
    }

    fn sleep(&self, milliseconds: u64) {
        self.host.advance(milliseconds);
    }

    fn hints(&self, _: &BTreeSet<String>) -> BTreeSet<String> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let mut hints = BTreeSet::new();
        while let Ok(event) = events.try_recv() {
            hints.insert(hint(&event));
        }
        hints
    }

    fn words(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn violations(&self) -> Vec<String> {
        self.host.world().violations.clone()
    }
}

impl Backend for Simulated {
    fn observe(&self, scope: &Scope, observed: &mut Observed) {
        self.host.observe(scope, observed);
    }

    fn apply(&self, action: &Action) -> Result<(), ActionError> {
        if let Action::StartContainer { key, spec, .. } = action {
            let manner = match spec.argv.iter().any(|word| word == "deaf") {
                true => Manner::Deaf,
                false => Manner::Obedient,
            };
            self.host.world().manners.insert(key.service.clone(), manner);
        }
        // Nothing takes no time at all.
        self.host.advance(1);
        self.host.apply(action)
    }

    fn events(&self) -> mpsc::UnboundedReceiver<HostEvent> {
        self.host.events()
    }

    fn now(&self) -> Now {
        self.host.now()
    }
}
