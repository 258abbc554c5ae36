//! What people do to a file: small edits, renames, more and fewer, from one moment to the next.

use super::{
    Behaviour, Condition, Hooks, IMAGES, Need, OnFailure, Policy, Port, RARE_IMAGE, Repertoire, Restart,
    Service, Shape, Sharing, TAGS, Update,
};
use crate::testing::sim_host::Random;

/// In the project `shop` the address of `vpn17` would be that of `db`, and that of `dns25` that of `mail`, if each
/// were chosen by itself.
const NAMES: [&str; 6] = ["web", "db", "vpn17", "job", "dns25", "mail"];
const NETWORKS: [&str; 3] = ["default", "front", "back"];
const VOLUMES: [&str; 3] = ["data", "logs", "cache"];
/// Host ports, few enough that projects clash.
const PORTS: [u16; 5] = [8080, 8081, 8082, 8443, 9000];

fn pick<T: Copy>(random: &mut Random, of: &[T]) -> T {
    of[random.below(of.len() as u64) as usize]
}

fn port(random: &mut Random) -> Port {
    let first = pick(random, &PORTS);
    let published = match random.below(8) {
        0 => None,
        1 => Some((first, first + 3)),
        _ => Some((first, first)),
    };
    Port {
        published,
        target: pick(random, &[80, 443]),
        udp: random.chance(5),
    }
}

fn restart(random: &mut Random) -> Restart {
    match random.below(6) {
        0 => Restart::No,
        1 => Restart::OnFailure(None),
        2 => Restart::OnFailure(Some(1 + random.below(3) as u32)),
        3 => Restart::UnlessStopped,
        _ => Restart::Always,
    }
}

fn update(random: &mut Random) -> Option<Update> {
    if random.chance(3) {
        return None;
    }
    Some(Update {
        parallelism: pick(random, &[None, Some(0), Some(1), Some(2)]),
        delay: pick(random, &[0, 0, 1_000, 5_000]),
        start_first: random.chance(2),
        on_failure: pick(
            random,
            &[
                None,
                Some(OnFailure::Pause),
                Some(OnFailure::Continue),
                Some(OnFailure::Rollback),
                Some(OnFailure::Rollback),
            ],
        ),
        monitor: pick(random, &[0, 1_000, 5_000]),
    })
}

fn image(random: &mut Random) -> &'static str {
    if random.chance(24) {
        return RARE_IMAGE.0;
    }
    if random.chance(4) {
        return pick(random, &TAGS);
    }
    pick(random, IMAGES).0
}

fn policy(random: &mut Random) -> Policy {
    const OFTEN: [Policy; 3] = [Policy::Always, Policy::Always, Policy::EveryMinute];
    match random.below(8) {
        0 => Policy::Never,
        1 => Policy::Missing,
        2 | 3 => Policy::None,
        _ => pick(random, &OFTEN),
    }
}

fn need(random: &mut Random, on: &Service) -> Need {
    let condition = match (random.below(4), on.behaviour) {
        (0 | 1, Behaviour::Job | Behaviour::Fail) => Condition::Completed,
        (0 | 1, _) if on.health => Condition::Healthy,
        // A gate that never opens.
        (2, _) if random.chance(8) => Condition::Completed,
        _ => Condition::Started,
    };
    Need {
        on: on.name.clone(),
        condition,
        required: !random.chance(6),
        restart: random.chance(4),
    }
}

fn hooks(random: &mut Random) -> Hooks {
    let mut some = || {
        let mut hooks = Vec::new();
        while hooks.len() < 2 && random.chance(2) {
            hooks.push(match random.below(10) {
                0 => Behaviour::Fail,
                1 | 2 => Behaviour::Flaky,
                _ => Behaviour::Job,
            });
        }
        hooks
    };
    Hooks {
        post_start: some(),
        pre_stop: some(),
        pre_start: some(),
        per_replica: random.chance(3),
    }
}

fn sharing(random: &mut Random, with: &Service) -> Sharing {
    let (mut network, ipc, pid) = (random.chance(2), random.chance(3), random.chance(3));
    network |= !ipc && !pid;
    Sharing {
        with: with.name.clone(),
        network,
        ipc,
        pid,
    }
}

impl Shape {
    /// One more service, if there is a name left.
    pub(super) fn add(&mut self, random: &mut Random, repertoire: Repertoire) {
        let free: Vec<&str> = NAMES
            .into_iter()
            .filter(|name| self.service(name).is_none())
            .collect();
        if free.is_empty() {
            return;
        }
        let behaviour = Behaviour::draw(random);
        let restart = match behaviour {
            Behaviour::Job if !random.chance(4) => Restart::No,
            _ => restart(random),
        };
        let mut service = Service {
            name: pick(random, &free).to_owned(),
            image: image(random),
            policy: policy(random),
            behaviour,
            env: 0,
            label: 0,
            restart,
            health: behaviour != Behaviour::Job && random.chance(2),
            ports: Vec::new(),
            volumes: Vec::new(),
            networks: Vec::new(),
            needs: Vec::new(),
            grace: random.chance(4).then_some(3_000),
            shared: false,
            sharing: None,
            hooks: Hooks::default(),
            scale: 1,
            update: None,
        };
        if random.chance(3) {
            service.ports.push(port(random));
        }
        if random.chance(3) {
            service.hooks = hooks(random);
        }
        if random.chance(3) {
            service.volumes.push(pick(random, &VOLUMES));
        }
        if random.chance(4) {
            service.networks.push(pick(random, &NETWORKS));
        }
        if repertoire.scale && random.chance(4) {
            service.scale = 1 + random.below(3) as u32;
        }
        if repertoire.rollout && (random.chance(2) || TAGS.contains(&service.image)) {
            service.update = update(random);
        }
        if !self.services.is_empty() && random.chance(2) {
            let on = &self.services[random.below(self.services.len() as u64) as usize];
            service.needs.push(need(random, on));
        }
        if !self.services.is_empty() && random.chance(6) {
            let with = &self.services[random.below(self.services.len() as u64) as usize];
            service.sharing = Some(sharing(random, with));
        }
        self.services.push(service);
        self.without_networks_of_their_own();
    }

    /// Who joins the network of another has no addresses and ports.
    fn without_networks_of_their_own(&mut self) {
        for service in &mut self.services {
            if service.joins_a_network() {
                service.ports.clear();
                service.networks.clear();
            }
        }
    }

    /// One edit as somebody makes it in an editor.
    pub fn edit(&mut self, random: &mut Random, repertoire: Repertoire) {
        if self.services.is_empty() {
            return self.add(random, repertoire);
        }
        let index = random.below(self.services.len() as u64) as usize;
        match random.below(20) {
            0 => self.add(random, repertoire),
            1 if self.services.len() > 1 => {
                let gone = self.services.remove(index);
                for service in &mut self.services {
                    service.needs.retain(|need| need.on != gone.name);
                    service.sharing.take_if(|sharing| sharing.with == gone.name);
                }
            }
            2 => self.rename(index, random),
            3 => self.internal = !self.internal,
            4 if index > 0 => {
                let on = &self.services[random.below(index as u64) as usize];
                let need = need(random, on);
                let needs = &mut self.services[index].needs;
                match needs.iter().position(|other| other.on == need.on) {
                    Some(position) if random.chance(2) => drop(needs.remove(position)),
                    Some(position) => needs[position] = need,
                    None => needs.push(need),
                }
            }
            5 | 6 => self.hand_over(index),
            7 if index > 0 => {
                let with = &self.services[random.below(index as u64) as usize];
                let sharing = (!random.chance(3)).then(|| sharing(random, with));
                self.services[index].sharing = sharing;
            }
            _ => Shape::edit_service(&mut self.services[index], random, repertoire),
        }
        self.without_networks_of_their_own();
    }

    /// A host port becomes another service's.
    fn hand_over(&mut self, to: usize) {
        let from = self.services.iter().position(|service| !service.ports.is_empty());
        if let Some(from) = from
            && self.services[to].ports.is_empty()
            && !self.services[to].joins_a_network()
            && let Some(port) = self.services[from].ports.pop()
        {
            self.services[to].ports.push(port);
        }
    }

    fn rename(&mut self, index: usize, random: &mut Random) {
        let name = pick(random, &NAMES);
        if self.service(name).is_some() {
            return;
        }
        let old = std::mem::replace(&mut self.services[index].name, name.to_owned());
        let needs = self.services.iter_mut().flat_map(|service| &mut service.needs);
        for need in needs.filter(|need| need.on == old) {
            name.clone_into(&mut need.on);
        }
        let sharings = self
            .services
            .iter_mut()
            .filter_map(|service| service.sharing.as_mut());
        for sharing in sharings.filter(|sharing| sharing.with == old) {
            name.clone_into(&mut sharing.with);
        }
    }

    fn edit_service(service: &mut Service, random: &mut Random, repertoire: Repertoire) {
        match random.below(19) {
            0..=3 => service.env = random.below(4) as u8,
            4 => service.label = random.below(3) as u8,
            5 => service.image = image(random),
            6 => service.policy = policy(random),
            7 => service.behaviour = Behaviour::draw(random),
            8 => service.restart = restart(random),
            9 => service.health = !service.health,
            10 => match service.ports.pop() {
                Some(_) if random.chance(2) => {}
                _ => service.ports.push(port(random)),
            },
            11 => match service.volumes.pop() {
                Some(_) if random.chance(2) => {}
                _ => service.volumes.push(pick(random, &VOLUMES)),
            },
            12 => {
                let network = pick(random, &NETWORKS);
                match service.networks.iter().position(|other| *other == network) {
                    Some(position) => drop(service.networks.remove(position)),
                    None => service.networks.push(network),
                }
            }
            13 => service.grace = pick(random, &[None, Some(1_000), Some(30_000)]),
            17 | 18 => service.hooks = hooks(random),
            16 => service.shared = !service.shared,
            14 if repertoire.scale => service.scale = random.below(4) as u32,
            15 if repertoire.rollout => service.update = update(random),
            _ => service.env = service.env.wrapping_add(1) % 4,
        }
    }
}
