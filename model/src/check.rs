//! What only the whole project shows, and no reference loader minds: clashes of names, ports, addresses and
//! mount points, and waiting for what never comes.

mod namespaces;

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::IpAddr,
    path::{Path, PathBuf},
};

use crate::{
    pre_start,
    report::Report,
    tree::At,
    types::{Cidr, Condition, PortRange, Project, Protocol, PullPolicy, Service},
};

pub(crate) fn check(project: &Project, report: &mut Report) {
    for (name, service) in &project.services {
        let path = format!("services.{name}");
        mounts(service, &path, report);
        health(project, service, &path, report);
        namespaces::check(service, &path, report);
        host_tree(service, &path, report);
        built(service, &path, report);
        hooks(service, &path, report);
        pre_start(project, name, service, report);
    }
    many_hooks(project, report);
    ports(project, report);
    hardware_addresses(project, report);
    addresses(project, report);
    container_names(project, report);
    names(project, report);
}

fn mounts(service: &Service, path: &str, report: &mut Report) {
    let volumes = service.volumes.iter().map(|mount| mount.target());
    let volumes = volumes
        .enumerate()
        .map(|(index, target)| ("volumes", index, target));
    let configs = service.container.configs.iter().enumerate();
    let configs = configs.map(|(index, file)| ("configs", index, &file.target));
    let secrets = service.container.secrets.iter().enumerate();
    let secrets = secrets.map(|(index, file)| ("secrets", index, &file.target));
    let mut targets: BTreeMap<&PathBuf, At> = BTreeMap::new();
    for (list, index, target) in volumes.chain(configs).chain(secrets) {
        let at = report.at(&format!("{path}.{list}.{index}"));
        // Two of `volumes` and `tmpfs` at one place are an error to every loader.
        if let Some(first) = targets.insert(target, at)
            && list != "volumes"
        {
            report.refuse(
                at,
                format!(
                    "`{path}`: something is already mounted on `{}`, in line {}",
                    shown(target),
                    first.line
                ),
                "remove one of the two, or change its path",
            );
        }
    }
}

fn shown(path: &Path) -> String {
    crate::syntax::cut(&path.to_string_lossy())
}

fn health(project: &Project, service: &Service, path: &str, report: &mut Report) {
    for (name, dependency) in &service.depends_on {
        let Some(other) = project.services.get(name) else {
            continue;
        };
        let test = other.healthcheck.as_ref().and_then(|check| check.test.as_ref());
        let disabled = test.is_some_and(|test| test.first().is_some_and(|word| word == "NONE"));
        // Without a `healthcheck` the image's may still count: that is known only later.
        if dependency.condition == Condition::Healthy && disabled {
            report.refuse(
                report.at(&format!("{path}.depends_on.{name}")),
                format!(
                    "`{path}.depends_on.{name}` waits for health, and `{name}` has its healthcheck disabled"
                ),
                format!("give `{name}` a healthcheck, or wait for `service_started`"),
            );
        }
    }
}

/// The ids of an image are shifted: root inside reads what belongs to root outside.
fn host_tree(service: &Service, path: &str, report: &mut Report) {
    if service.image != "rootfs:/" {
        return;
    }
    report.warning(
        report.at(&format!("{path}.image")),
        format!(
            "`{path}.image` shows the service every file of the host's root file system, also what only root may \
             read: /etc/shadow, private keys, volumes and logs of other services"
        ),
        "give it a directory of its own, with what it needs: `rootfs:DIR`",
    );
}

fn built(service: &Service, path: &str, report: &mut Report) {
    if service.container.pull_policy == Some(PullPolicy::Build) {
        report.refuse(
            report.at(&format!("{path}.pull_policy")),
            format!("`{path}.pull_policy`: `build` asks for an image to be built, and stead builds none"),
            "build it elsewhere, `stead image load` it, and write `never` or remove the line",
        );
    }
}

/// What runs in the container, without or with every right.
fn hooks(service: &Service, path: &str, report: &mut Report) {
    let host_ids = service.security.privileged || namespaces::host(service).is_some();
    let lists = [
        ("post_start", &service.container.post_start),
        ("pre_stop", &service.container.pre_stop),
    ];
    for (list, hooks) in lists {
        for (index, hook) in hooks.iter().enumerate() {
            let at = report.at(&format!("{path}.{list}.{index}"));
            let path = format!("{path}.{list}[{index}]");
            if hook.command.is_empty() {
                report.refuse(
                    at,
                    format!("`{path}` has no command to run"),
                    "give it a `command`",
                );
            }
            if hook.privileged && !host_ids {
                report.refuse(
                    at,
                    format!(
                        "`{path}.privileged`: the service has a user namespace, in which no command can have the \
                         rights of the host"
                    ),
                    "remove it, or write `privileged: true` or `userns_mode: host` for the whole service",
                );
            }
        }
    }
}

/// What runs before the start is a service of its own.
fn pre_start(project: &Project, name: &str, service: &Service, report: &mut Report) {
    for (index, hook) in service.container.pre_start.iter().enumerate() {
        let path = format!("services.{name}.pre_start");
        let at = report.at(&format!("{path}.{index}"));
        let path = format!("{path}[{index}]");
        if hook.command.is_empty() {
            report.refuse(
                at,
                format!("`{path}` has no command to run"),
                "give it a `command`",
            );
        }
        if hook.privileged && !service.security.privileged {
            report.warning(
                at,
                format!("`{path}.privileged`: whoever is root in it is root of this host"),
                "remove it if the command works without",
            );
        }
        let runner = pre_start::name(name, index);
        if project.services.contains_key(&runner) {
            report.refuse(
                report.at(&format!("services.{runner}")),
                format!("`services.{runner}` has the name under which `{path}` runs"),
                "give the service another name",
            );
        }
    }
}

/// Each of them is a copy of its service: as much of it as may be read in files.
const COPIES: usize = 8 << 20;

fn many_hooks(project: &Project, report: &mut Report) {
    let mut size = 0_usize;
    for (name, service) in &project.services {
        let hooks = service.container.pre_start.len();
        if hooks == 0 {
            continue;
        }
        let length = |text: serde_json::Result<Vec<u8>>| text.map_or(COPIES, |text| text.len());
        let list = length(serde_json::to_vec(&service.container.pre_start));
        let own = length(serde_json::to_vec(service)).saturating_sub(list);
        size = size.saturating_add(own.saturating_mul(hooks));
        if size > COPIES {
            let path = format!("services.{name}.pre_start");
            report.refuse(
                report.at(&path),
                format!("`{path}`: the services that are hooks would be more than 8 MiB in all"),
                "do several things in one command, or make the service smaller",
            );
            return;
        }
    }
}

/// Who has a fixed port of the host: on one address, or on all of a family.
#[derive(Default)]
struct Owners<'p> {
    all: Option<(&'p str, At)>,
    one: BTreeMap<IpAddr, (&'p str, At)>,
}

/// One interface of a network has a hardware address, at a time.
fn hardware_addresses(project: &Project, report: &mut Report) {
    let mut owners: BTreeMap<(&str, [u8; 6]), &str> = BTreeMap::new();
    for (name, service) in &project.services {
        let deploy = service.container.deploy.as_ref();
        let update = deploy.and_then(|deploy| deploy.update_config.as_ref());
        let start_first = update.is_some_and(|update| update.start_first);
        let several = service.container.scale.is_some_and(|scale| scale > 1);
        for (network, attachment) in &service.networks {
            let Some(mac) = attachment.mac_address else {
                continue;
            };
            let own = format!("services.{name}.networks.{network}.mac_address");
            let path = match service.names.mac_address {
                Some(own) if own == mac => format!("services.{name}.mac_address"),
                _ => own,
            };
            let (what, hint) = match owners.insert((network, mac.0), name) {
                Some(other) => (
                    format!("`{other}` has the address {mac} on this network already"),
                    "choose another address",
                ),
                None if several => (
                    format!("only one of several containers can have the address {mac}"),
                    "remove it, or `scale`",
                ),
                None if start_first => (
                    format!("the old and the new container would both have the address {mac}"),
                    "remove it, or `order: start-first`",
                ),
                None => continue,
            };
            report.refuse(report.at(&path), format!("`{path}`: {what}"), hint);
        }
    }
}

/// A host port can be had once.
fn ports(project: &Project, report: &mut Report) {
    let mut owners: BTreeMap<(Protocol, u16, bool), Owners> = BTreeMap::new();
    for (name, service) in &project.services {
        let path = format!("services.{name}");
        let several = service.container.scale.is_some_and(|scale| scale > 1);
        for (index, port) in service.ports.iter().enumerate() {
            let Some(PortRange { first, last }) = port.published else {
                continue;
            };
            if first != last {
                continue;
            }
            let at = report.at(&format!("{path}.ports.{index}"));
            if several {
                report.refuse(
                    at,
                    format!("`{path}.ports`: only one of several containers can have the host port {first}"),
                    "leave the host port out, or give a range: `8000-8010:80`",
                );
            }
            let families = match port.host_ip {
                None => [Some(true), Some(false)],
                Some(address) => [Some(address.is_ipv4()), None],
            };
            let clash = families.into_iter().flatten().find_map(|ipv4| {
                let owners = owners.entry((port.protocol, first, ipv4)).or_default();
                let specific = port.host_ip.filter(|address| !address.is_unspecified());
                let clash = match specific {
                    Some(address) => owners.all.or_else(|| owners.one.get(&address).copied()),
                    None => owners.all.or_else(|| owners.one.values().next().copied()),
                };
                match specific {
                    Some(address) => {
                        owners.one.entry(address).or_insert((name, at));
                    }
                    None => owners.all = owners.all.or(Some((name, at))),
                }
                clash
            });
            if let Some((owner, first_at)) = clash {
                let whose = if owner == name { "this service" } else { owner };
                report.refuse(
                    at,
                    format!(
                        "`{path}.ports`: {whose} already publishes the host port {first}, in line {}",
                        first_at.line
                    ),
                    "choose another host port, or publish on different addresses",
                );
            }
        }
    }
}

/// Fixed addresses lie in the subnet of their network, and belong to one service.
fn addresses(project: &Project, report: &mut Report) {
    let mut owners: BTreeMap<(&str, IpAddr), &str> = BTreeMap::new();
    let mut pools: BTreeSet<(&str, Cidr)> = BTreeSet::new();
    for (key, network) in &project.networks {
        for subnet in &network.subnets {
            pools.insert((key, subnet.subnet));
            if let Some(gateway) = subnet.gateway {
                owners.insert((key, gateway), "the gateway");
            }
            for (name, address) in &subnet.aux_addresses {
                owners.insert((key, *address), name);
            }
        }
    }
    for (name, service) in &project.services {
        for (key, attachment) in &service.networks {
            let Some(network) = project.networks.get(key) else {
                continue;
            };
            let fixed = [
                ("ipv4_address", attachment.ipv4_address),
                ("ipv6_address", attachment.ipv6_address),
            ];
            for (field, address) in fixed {
                let Some(address) = address else { continue };
                let path = format!("services.{name}.networks.{key}.{field}");
                let at = report.at(&path);
                let longest = if address.is_ipv4() { 32 } else { 128 };
                let inside = (0..=longest).any(|prefix| {
                    let around = Cidr::around(address, prefix);
                    pools.contains(&(key.as_str(), around))
                });
                if !inside && !network.external {
                    report.refuse(
                        at,
                        format!("`{path}`: `{address}` is in no subnet of the network `{key}`"),
                        format!("choose an address of a subnet in `networks.{key}.ipam.config`"),
                    );
                }
                match owners.entry((key, address)) {
                    Entry::Vacant(entry) => {
                        entry.insert(name);
                    }
                    Entry::Occupied(owner) => report.refuse(
                        at,
                        format!("`{path}`: `{address}` is already taken, by `{}`", owner.get()),
                        "choose another address",
                    ),
                }
            }
        }
    }
    subnets(project, report);
}

/// No two subnets of the project overlap.
fn subnets(project: &Project, report: &mut Report) {
    let pools = project.networks.iter().flat_map(|(key, network)| {
        let pools = network.subnets.iter().enumerate();
        pools.map(move |(index, pool)| (pool.subnet, key, index))
    });
    let mut pools: Vec<_> = pools.collect();
    pools.sort_unstable();
    // Subnets are nested or apart: in this order one that overlaps follows one that contains it.
    let mut largest = None;
    for (subnet, key, index) in pools {
        match largest {
            Some((outer, other)) if subnet.overlaps(&outer) => {
                let path = format!("networks.{key}.ipam.config");
                report.refuse(
                    report.at(&format!("{path}.{index}")),
                    format!("`{path}`: `{subnet}` overlaps `{outer}` of the network `{other}`"),
                    "choose subnets that are apart",
                );
            }
            _ => largest = Some((subnet, key)),
        }
    }
}

/// A container name is unique on the host.
fn container_names(project: &Project, report: &mut Report) {
    let mut owners = BTreeMap::new();
    for (name, service) in &project.services {
        let Some(container) = &service.names.container_name else {
            continue;
        };
        if let Some(first) = owners.insert(container, name) {
            let path = format!("services.{name}.container_name");
            report.refuse(
                report.at(&path),
                format!("`{path}`: the service `{first}` has the same container name `{container}`"),
                "give them different names",
            );
        }
    }
}

/// Two keys must not share one network or volume by accident.
fn names(project: &Project, report: &mut Report) {
    let networks = project
        .networks
        .iter()
        .map(|(key, network)| ("network", "networks", key, &network.name));
    let volumes = project
        .volumes
        .iter()
        .map(|(key, volume)| ("volume", "volumes", key, &volume.name));
    let mut seen = BTreeMap::new();
    for (kind, section, key, name) in networks.chain(volumes) {
        if let Some(first) = seen.insert((kind, name), key) {
            let at = report.at(&format!("{section}.{key}"));
            let message = format!("the {kind}s `{first}` and `{key}` have the same name `{name}`");
            report.refuse(
                at,
                message,
                "give them different names, or use one key in both places",
            );
        }
    }
}

#[cfg(test)]
mod tests;
