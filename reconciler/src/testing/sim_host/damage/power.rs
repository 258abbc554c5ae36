//! The power goes and comes back.

use super::super::{
    Random, World,
    objects::{Layers, Skeleton},
    world::touch,
};
use crate::spec::FirewallSpec;

impl World {
    /// Off and on, in good order.
    pub fn reboot(&mut self) {
        self.boot_id.push('+');
        self.instances.clear();
        self.bridges.clear();
        self.zones.clear();
        self.firewall = FirewallSpec::default();
        self.skeleton = Skeleton::Absent;
        self.ip_forward = false;
        self.turned_on = false;
        self.moved(touch::ALL);
    }

    /// The power goes, and comes back: what was not synced has its own coin.
    pub fn power_cut(&mut self, random: &mut Random) {
        self.networks.crash(random);
        self.volumes.crash(random);
        self.id_bases.crash(random);
        self.ended.crash(random);
        for name in std::mem::take(&mut self.loose_directories) {
            if random.chance(2)
                && let Some(directory) = self.directories.remove(&name)
            {
                self.debris.extend(directory.identity);
            }
        }
        self.layers.retain(|_, layers| *layers == Layers::Whole);
        self.reboot();
    }
}
