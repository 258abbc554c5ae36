//! What is observed, a line a fact, without what each host is free to choose.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use super::witness::Ordered;
use crate::{
    key::InstanceKey,
    observed::{Fact, Firewall, Health, Image, Instance, Observed, State},
    spec::{ContainerSpec, MountSpec, SandboxSpec, Space},
};

/// What has another name on every host gets one in the order of appearance, or its own of the history.
#[derive(Debug, Default)]
pub struct Names {
    /// The host's name of an image by that of the history.
    images: BTreeMap<String, String>,
    digests: BTreeMap<String, String>,
    pids: Vec<u32>,
    boots: Vec<String>,
}

impl Names {
    pub fn image(&mut self, name: &str, reference: String) {
        self.images.insert(name.to_owned(), reference);
    }

    /// A manifest with the images that this host knows.
    pub fn manifest(&self, text: &str) -> String {
        text.lines().fold(String::new(), |mut manifest, line| {
            let image = line
                .strip_prefix("  image ")
                .and_then(|name| self.images.get(name));
            let _ = match image {
                Some(reference) => writeln!(manifest, "  image {reference}"),
                None => writeln!(manifest, "{line}"),
            };
            manifest
        })
    }

    /// A text of this host in words of the history.
    pub fn plain(&self, text: &str, own: &[(String, String)]) -> String {
        let mut plain = text.to_owned();
        for (digest, name) in &self.digests {
            plain = plain.replace(digest, &format!("sha256:{name}"));
        }
        for (name, reference) in &self.images {
            plain = plain.replace(reference, name);
        }
        for (here, there) in own {
            plain = plain.replace(here, there);
        }
        plain
    }

    pub fn picture(&mut self, observed: &Observed, ordered: &Ordered) -> Vec<String> {
        let mut picture = Picture::default();
        for (reference, image) in &observed.images {
            self.see_image(&mut picture, reference, image);
        }
        picture.part("networks", &observed.networks, |picture, networks| {
            for (key, network) in networks {
                let spec = &network.spec;
                let inside = if spec.internal { ", internal" } else { "" };
                let subnet = format!("{}/{}", spec.subnet.address, spec.subnet.prefix);
                picture.line(format!(
                    "network {key}: {subnet}, bridge {}{inside}",
                    spec.gateway
                ));
                picture.differs(format!("network {key}"), &network.drift);
            }
        });
        picture.part("volumes", &observed.volumes, |picture, volumes| {
            for (key, volume) in volumes {
                let lost = volume.lost.as_ref().map(|why| format!(": lost: {why}"));
                picture.line(format!("volume {key}{}", lost.unwrap_or_default()));
            }
        });
        picture.part("containers", &observed.instances, |picture, instances| {
            for (key, instance) in instances {
                self.see_instance(picture, key, instance, ordered);
                lives(picture, key, instance, instances);
            }
        });
        picture.part("ends", &observed.ended, |picture, ended| {
            for (key, ended) in ended {
                let (code, restarts) = (ended.code, ended.restarts);
                picture.line(format!("exit record of {key}: {code} after {restarts} restarts"));
            }
        });
        picture.part("remains", &observed.remains, |picture, remains| {
            for key in remains {
                picture.line(format!("remains of {key} on the disk"));
            }
        });
        picture.part("firewall", &observed.firewall, Picture::firewall);
        picture.part("names", &observed.zones, |picture, zones| {
            for (key, zone) in zones {
                let names: Vec<String> = zone
                    .iter()
                    .map(|(name, addresses)| format!("{name} {addresses:?}"))
                    .collect();
                picture.line(format!("names {key}: {}", names.join(", ")));
            }
        });
        picture.part("routes", &observed.routes, |picture, routes| {
            for route in routes {
                picture.line(format!("foreign route {}/{}", route.address, route.prefix));
            }
        });
        picture.part("id ranges", &observed.id_bases, |picture, bases| {
            for (project, base) in bases {
                picture.line(format!("ids of {project} from {base}"));
            }
        });
        if !self.boots.contains(&observed.boot_id) {
            self.boots.push(observed.boot_id.clone());
        }
        picture.lines
    }

    fn see_image(&mut self, picture: &mut Picture, reference: &str, image: &Fact<Image>) {
        let name = self.images.iter().find(|(_, own)| *own == reference);
        let name = name.map_or(reference, |(name, _)| name).to_owned();
        match image {
            Fact::Known(image) => {
                let place = if image.unpacked {
                    "unpacked"
                } else {
                    "not unpacked"
                };
                picture.line(format!("image {name}: {place}"));
                self.digests.insert(image.digest.clone(), name);
            }
            Fact::Unknown(_) => picture.line(format!("image {name}: unknown")),
        }
    }

    fn see_instance(
        &mut self,
        picture: &mut Picture,
        key: &InstanceKey,
        instance: &Instance,
        ordered: &Ordered,
    ) {
        let name = format!("container {key}");
        let mut state = match instance.state {
            State::Created => "created".to_owned(),
            State::Running { pid } => format!("running as process {}", self.number(pid)),
            State::Exited { code, .. } => format!("exited with {code}"),
            State::Lost => "lost".to_owned(),
        };
        let _ = match instance.health {
            Health::None => Ok(()),
            Health::Starting => write!(state, ", health not known yet"),
            Health::Healthy => write!(state, ", healthy"),
            Health::Unhealthy => write!(state, ", unhealthy"),
        };
        for (what, count) in [
            ("restarts", instance.restarts),
            ("in a row", instance.streak),
            ("for its health", instance.flaps),
        ] {
            if count > 0 {
                let _ = write!(state, ", {count} {what}");
            }
        }
        if instance.started_at.is_some() != instance.container.is_some()
            || instance.started_wall.is_some() != instance.container.is_some()
        {
            state.push_str(", started without a moment");
        }
        picture.line(format!("{name}: {state}"));
        let drift: Vec<String> = instance.drift.iter().map(|text| self.stray(text)).collect();
        picture.differs(name.clone(), &drift);
        if let Some(broken) = &instance.broken {
            picture.line(format!("{name} is broken: {broken}"));
        }
        if instance.state == State::Lost {
            return;
        }
        picture.line(format!("{name} is in {}", sandbox(&instance.sandbox)));
        if let Some(container) = &instance.container {
            picture.line(format!("{name} is {}", self::container(container)));
        }
        let orders = ordered.sandboxes.get(key).zip(ordered.containers.get(key));
        if let Some((in_this, this)) = orders
            && (*in_this != *instance.sandbox || instance.container.as_deref().is_some_and(|is| is != this))
        {
            picture.line(format!("{name} is not what was ordered"));
        }
    }

    /// `process 4711 was moved …`: which one it is.
    fn stray(&mut self, text: &str) -> String {
        let number = text
            .strip_prefix("process ")
            .and_then(|rest| rest.split_once(' '))
            .and_then(|(pid, rest)| Some((pid.parse().ok()?, rest)));
        match number {
            Some((pid, rest)) => format!("process {} {rest}", self.number(pid)),
            None => text.to_owned(),
        }
    }

    fn number(&mut self, pid: u32) -> usize {
        let known = self.pids.iter().position(|known| *known == pid);
        known.unwrap_or_else(|| {
            self.pids.push(pid);
            self.pids.len() - 1
        }) + 1
    }
}

/// Whose namespaces it lives in, and whether these are there; and whether it holds what it lends.
fn lives(
    picture: &mut Picture,
    key: &InstanceKey,
    instance: &Instance,
    all: &BTreeMap<InstanceKey, Instance>,
) {
    let spaces = &instance.sandbox.spaces;
    if let Some(of) = &spaces.of {
        let kinds = [
            ("network", spaces.network),
            ("ipc", spaces.ipc),
            ("pid", spaces.pid),
        ];
        let kinds = kinds.into_iter().filter(|(_, space)| *space == Space::Joined);
        let kinds: Vec<&str> = kinds.map(|(kind, _)| kind).collect();
        let lender = all.get(of).map(|lender| &lender.identity);
        let gone = match lender == instance.joined.as_ref() {
            true => "",
            false => ", which is gone",
        };
        picture.line(format!(
            "container {key} shares {} of {of}{gone}",
            kinds.join(" and ")
        ));
    }
    if instance.state != State::Lost && instance.identity.is_empty() {
        picture.line(format!("container {key} lends what nobody holds"));
    }
}

#[derive(Default)]
struct Picture {
    lines: Vec<String>,
}

impl Picture {
    fn line(&mut self, line: String) {
        self.lines.push(line);
    }

    fn differs(&mut self, name: String, drift: &[String]) {
        if !drift.is_empty() {
            self.line(format!("{name} differs: {}", drift.join("; ")));
        }
    }

    fn part<T>(&mut self, name: &str, fact: &Fact<T>, see: impl FnOnce(&mut Self, &T)) {
        match fact {
            Fact::Known(value) => see(self, value),
            Fact::Unknown(why) => self.line(format!("{name}: unknown: {why}")),
        }
    }

    fn firewall(&mut self, firewall: &Firewall) {
        for (key, network) in &firewall.spec.networks {
            let inside = if network.internal { ", internal" } else { "" };
            let endpoints: BTreeSet<String> = network
                .endpoints
                .iter()
                .map(|(address, mac)| format!("{address} {}", hardware(*mac)))
                .collect();
            let endpoints: Vec<String> = endpoints.into_iter().collect();
            let subnet = format!("{}/{}", network.subnet.address, network.subnet.prefix);
            self.line(format!(
                "firewall {key}: {subnet}{inside}, endpoints {endpoints:?}, bridge {}",
                network.gateway
            ));
        }
        for (port, target) in &firewall.spec.ports {
            self.line(format!(
                "firewall port {}:{} {:?} leads to {}:{}",
                port.host_ip, port.published, port.protocol, target.address, target.port
            ));
        }
        self.differs("firewall".to_owned(), &firewall.drift);
    }
}

fn sandbox(spec: &SandboxSpec) -> String {
    let mut text = format!("a sandbox with ids from {}", spec.id_base);
    for endpoint in &spec.endpoints {
        let _ = write!(
            text,
            ", {} {}/{} {} on {}",
            endpoint.interface,
            endpoint.address,
            endpoint.prefix,
            hardware(endpoint.mac),
            endpoint.network
        );
    }
    for port in &spec.ports {
        let (ip, published, target) = (port.host_ip, port.published, port.target);
        let _ = write!(text, ", port {ip}:{published} {:?} to {target}", port.protocol);
    }
    text
}

fn container(spec: &ContainerSpec) -> String {
    let mut text = format!("{:?} of {}", spec.argv.join(" "), spec.image_digest);
    for mount in &spec.mounts {
        let (what, target) = match mount {
            MountSpec::Volume { volume, target, .. } => (volume.to_string(), target),
            MountSpec::Bind { source, target, .. } => (source.display().to_string(), target),
            MountSpec::Tmpfs { target, .. } => ("memory".to_owned(), target),
        };
        let _ = write!(text, ", {what} at {}", target.display());
    }
    let limits = &spec.limits;
    for (what, limit) in [
        ("bytes", limits.memory),
        ("thousandths of a processor", limits.cpu),
        ("processes", limits.pids),
    ] {
        if let Some(limit) = limit {
            let _ = write!(text, ", at most {limit} {what}");
        }
    }
    text
}

fn hardware(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
