//! The blows of the nemesis, and what they leave behind for a while.

use super::{Event, Input, Simulation, Turn, nemesis::Blow, wishes::Standing};
use crate::{
    desired::{Intent, Target},
    key::{InstanceKey, Slot},
    port::HostEvent,
    testing::{
        generate::{IMAGES, TAGGED, TAGS},
        sim_host::damage::Damage,
    },
};

const PARTS: [&str; 5] = ["networks", "volumes", "instances", "firewall", "zones"];

impl Simulation {
    pub(super) fn strike(&mut self, blow: Blow) {
        let name = self.wishes.pick(&mut self.random);
        match blow {
            Blow::Edit => self.edit(&name),
            Blow::EditBack => {
                if self.wishes.edit_back(&name, &mut self.random) {
                    self.branches.reach("edit.back");
                    self.wanted(&name);
                }
            }
            Blow::EditStorm => {
                for number in 0..3 + self.below(6) {
                    let at = self.now + number * self.below(300);
                    self.queue.push(at, Event::Edit(name.clone()));
                }
            }
            Blow::Remove => self.stand(&name, Standing::Gone),
            Blow::Down => self.stand(&name, Standing::Down { volumes: false }),
            Blow::DownWithVolumes => self.stand(&name, Standing::Down { volumes: true }),
            Blow::Hold => self.stand(&name, Standing::Hold),
            Blow::Incomplete => self.stand(&name, Standing::Hidden),
            Blow::Intent => self.intend(&name),
            Blow::Ask => {
                self.branches.reach("asked");
                self.input(self.agents, Input::Asked);
            }
            Blow::CrashAgent | Blow::RestartAgent => {
                let wait = match blow {
                    Blow::CrashAgent => self.below(20_000),
                    _ => self.below(50),
                };
                if self.agent.is_some() {
                    self.bury();
                    let agent = self.agents;
                    self.queue.push(self.now + wait, Event::Boot { agent });
                }
            }
            Blow::Stall => {
                let until = self.now + self.below(60_000);
                if let Some(agent) = &mut self.agent {
                    agent.stalled = until;
                    self.branches.reach("agent.stalls");
                }
            }
            Blow::CrashHost => self.crash_host(),
            Blow::Exit => {
                if let Some((key, _)) = self.any_running() {
                    let code = [0, 1, 137, 139][self.below(4) as usize];
                    self.host.turn(&key, Turn::Exit(code));
                }
            }
            Blow::Health => {
                if let Some((key, pid)) = self.any_running()
                    && self.host.process(&key).is_some_and(|(_, _, probed)| probed)
                {
                    self.branches.reach("health.flips");
                    self.host.turn(&key, Turn::Unhealthy);
                    let (at, turn) = (self.now + 1 + self.below(30_000), Turn::Healthy);
                    self.queue.push(at, Event::Process { key, pid, turn });
                }
            }
            Blow::Damage => {
                for _ in 0..1 + self.below(3) {
                    self.hurt();
                }
            }
            Blow::Unreadable => {
                let which = self.below(PARTS.len() as u64);
                self.host.damage(&Damage::Unreadable(PARTS[which as usize]));
                self.lasts(blow, which);
            }
            Blow::DiskFull => {
                self.host.damage(&Damage::DiskFull);
                self.lasts(blow, 0);
            }
            Blow::Refuse => self.refuse(&name),
            Blow::Clock => {
                let day = 86_400_000;
                let jump = [-3650 * day, -day, -3_000, 3_000, day, 3650 * day][self.below(6) as usize];
                self.host.jump(jump);
                self.branches.reach("clock.jumps");
            }
            Blow::ForeignPort => {
                let port = [8080, 8081, 8082, 8443, 9000][self.below(5) as usize];
                self.host.damage(&Damage::PortTaken(port));
                self.wishes.foreign.insert(port);
                self.lasts(blow, u64::from(port));
            }
            Blow::ImageGone => {
                let which = self.below(IMAGES.len() as u64);
                self.host.remove_image(IMAGES[which as usize].0);
                self.lasts(blow, which);
            }
            Blow::ImageMoves => {
                let which = self.below(IMAGES.len() as u64) as usize;
                let digest = format!("{}-{}", IMAGES[which].1, self.below(2));
                self.host.move_image(IMAGES[which].0, &digest);
            }
            Blow::RareImage => {
                self.host.rare_image(true);
                self.lasts(blow, 0);
            }
            Blow::TagMoves => {
                let (tag, digest) = (self.tag(), TAGGED[self.below(TAGGED.len() as u64) as usize]);
                self.host.move_tag(tag, digest);
            }
            Blow::RegistryDown => {
                self.host.answers(false);
                self.lasts(blow, 0);
            }
            Blow::Pull => {
                let tag = self.tag();
                if self.host.pull(tag) {
                    self.branches.reach("image.pulled");
                    // The kernel tells of a record, or that it has told too much: nothing else would.
                    self.input(self.agents, Input::Hint(HostEvent::Images));
                }
            }
        }
    }

    fn tag(&mut self) -> &'static str {
        TAGS[self.below(TAGS.len() as u64) as usize]
    }

    /// Ends a while later.
    fn lasts(&mut self, blow: Blow, which: u64) {
        let at = self.now + 1 + self.below(90_000);
        self.queue.push(at, Event::Over(blow, which));
    }

    pub(super) fn over(&mut self, blow: Blow, which: u64) {
        self.trace
            .note(self.now, (blow, which), || format!("-- over: {blow:?} {which}"));
        match blow {
            Blow::Unreadable => self
                .host
                .damage(&Damage::Readable(PARTS[which as usize % PARTS.len()])),
            Blow::DiskFull => self.host.damage(&Damage::DiskFreed),
            Blow::Refuse => self.allow(),
            Blow::ForeignPort => {
                self.host.damage(&Damage::PortFreed(which as u16));
                self.wishes.foreign.remove(&(which as u16));
            }
            Blow::ImageGone => {
                let (reference, digest) = IMAGES[which as usize % IMAGES.len()];
                self.host.move_image(reference, digest);
            }
            Blow::RareImage => self.host.rare_image(false),
            Blow::RegistryDown => self.host.answers(true),
            _ => drop(self.host.mend()),
        }
    }

    /// The first instance of some service cannot be started for a while.
    fn refuse(&mut self, name: &str) {
        let services = self.wishes.services(name);
        if services.is_empty() {
            return;
        }
        let number = self.random.below(services.len() as u64) as usize;
        let Some(service) = services.into_iter().nth(number) else {
            return;
        };
        let key = InstanceKey {
            project: name.to_owned(),
            service,
            index: 1,
            slot: if self.random.chance(4) { Slot::B } else { Slot::A },
        };
        self.host.damage(&Damage::StartRefused(key));
        self.lasts(Blow::Refuse, 0);
    }

    /// Nothing is refused any more, and a moment later, once that was told, something has changed for all to see.
    fn allow(&mut self) {
        for key in self.host.refused() {
            self.host.damage(&Damage::StartAllowed(key.clone()));
            self.queue.push(self.now + 1_500, Event::Allowed(key));
        }
    }

    /// Something of it is another than before, which an agent puts right.
    pub(super) fn changes(&mut self, key: InstanceKey) {
        let damage = match self.host.joins_a_network(&key) {
            true => Damage::ShimKilled(key),
            false => Damage::LoopbackDown(key),
        };
        self.host.damage(&damage);
    }

    fn hurt(&mut self) {
        let Some(damage) = self.host.possible_damage(&mut self.random) else {
            return;
        };
        self.trace.note(self.now, 6u8, || format!("-- {damage:?}"));
        self.branches.damage(&damage);
        self.host.damage(&damage);
        self.lasts(Blow::Damage, 0);
    }

    fn any_running(&mut self) -> Option<(InstanceKey, u32)> {
        let running = self.host.running();
        if running.is_empty() {
            return None;
        }
        let number = self.random.below(running.len() as u64) as usize;
        running.into_iter().nth(number)
    }

    /// The file of `name` is another, or there again.
    pub(super) fn edit(&mut self, name: &str) {
        let busy = self
            .agent
            .as_ref()
            .is_some_and(|agent| agent.calls.values().any(super::calls::Call::is_step));
        if busy {
            self.branches.reach("edit.midway");
        }
        let stood = self.wishes.files.get(name).map(|file| file.standing);
        self.wishes.edit(name, &mut self.random, self.repertoire);
        if stood != Some(Standing::Run) && self.random.chance(2) {
            self.wishes.stand(name, Standing::Run);
        }
        self.wanted(name);
    }

    fn stand(&mut self, name: &str, standing: Standing) {
        let stood = self.wishes.files.get(name).map(|file| file.standing);
        let standing = match stood {
            Some(Standing::Run) | None => standing,
            // What was taken away comes again.
            Some(_) => Standing::Run,
        };
        self.wishes.stand(name, standing);
        self.wanted(name);
        if standing == Standing::Hidden {
            self.lasts_hidden(name);
        }
    }

    fn lasts_hidden(&mut self, name: &str) {
        let at = self.now + 1 + self.below(90_000);
        self.queue.push(at, Event::Unhide(name.to_owned()));
    }

    pub(super) fn unhide(&mut self, name: &str) {
        let hidden = self.wishes.files.get(name).map(|file| file.standing) == Some(Standing::Hidden);
        if hidden {
            self.wishes.stand(name, Standing::Run);
            self.wanted(name);
        }
    }

    fn intend(&mut self, name: &str) {
        let mut services: Vec<String> = self.wishes.services(name).into_iter().collect();
        if services.is_empty() {
            return;
        }
        // Those that run before another one are few, and ordering them about says most.
        let before = |service: &String| service.contains(".pre_start-");
        if services.iter().any(before) && self.random.chance(3) {
            services.retain(before);
        }
        let service = services[self.random.below(services.len() as u64) as usize].clone();
        let target = Target {
            project: name.to_owned(),
            service,
            index: self.random.chance(3).then_some(1),
        };
        let at = self.moment();
        let intent = match self.below(3) {
            0 => Some(Intent::Stop { at }),
            1 => Some(Intent::Run {
                boot_id: self.host.boot_id(),
                at,
            }),
            _ => None,
        };
        self.trace
            .note(self.now, 7u8, || format!("-- {target:?} {intent:?}"));
        self.wishes.intend(target, intent);
        self.wanted(name);
    }

    /// What is wanted of `name` has changed.
    fn wanted(&mut self, name: &str) {
        let file = self.wishes.files.get(name);
        self.trace
            .note(self.now, file.map(|file| &file.shape), || match file {
                Some(file) => format!(
                    "-- {name} is {:?} at {}: {:?}",
                    file.standing, file.revision, file.shape
                ),
                None => name.to_owned(),
            });
        self.input(self.agents, Input::Desired);
    }

    fn crash_host(&mut self) {
        let hard = self.random.chance(2);
        self.bury();
        self.host.crash(hard, &mut self.random);
        self.lives.clear();
        self.branches
            .reach(if hard { "host.power-cut" } else { "host.reboots" });
        let at = self.now + 1_000 + self.below(30_000);
        // The clock of the boot begins anew on a real host; here it only ever grows.
        self.agents += 1;
        let agent = self.agents;
        self.queue.push(at, Event::Boot { agent });
    }

    /// Everything that lasts is over; what the files ask stays.
    pub(super) fn make_peace(&mut self) {
        self.nemesis.rest();
        while self.host.mend() {}
        self.allow();
        for part in PARTS {
            self.host.damage(&Damage::Readable(part));
        }
        self.host.damage(&Damage::DiskFreed);
        if let Some(agent) = &mut self.agent {
            agent.stalled = 0;
        }
        let hidden: Vec<String> = self
            .wishes
            .files
            .iter()
            .filter(|(_, file)| file.standing == Standing::Hidden)
            .map(|(name, _)| name.clone())
            .collect();
        for name in hidden {
            self.unhide(&name);
        }
    }
}
