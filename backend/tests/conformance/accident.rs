//! The damage of the simulated host, done to the real one.

use std::{fs, net::TcpListener, path::PathBuf, sync::PoisonError};

use backend::{
    cgroup,
    cgroup::limits::Controllers,
    dns::zone,
    firewall::encode::{Family, TABLE_OWNER, TABLE_PERSIST, Transaction},
    names,
    net::netlink::Netlink,
    records,
    records::kind,
};
use nix::sys::{
    signal::{Signal, kill},
    socket::SockProtocol,
};
use reconciler::{
    key::{InstanceKey, ResourceKey},
    spec::{FirewallSpec, MountSpec},
    testing::sim_host::damage::Damage,
};

use crate::{
    linux::{Linux, inside, until},
    rig::sh,
};

pub fn befall(host: &Linux, damage: &Damage) -> Result<(), String> {
    let mark = &host.layout.mark;
    let bridge = |key: &ResourceKey| names::bridge(mark, key);
    match damage {
        Damage::PortTaken(port) => {
            let listener = TcpListener::bind(("0.0.0.0", *port)).map_err(text)?;
            let mut taken = host.taken.lock().unwrap_or_else(PoisonError::into_inner);
            taken.insert(*port, listener);
        }
        Damage::PortFreed(port) => {
            let mut taken = host.taken.lock().unwrap_or_else(PoisonError::into_inner);
            taken.remove(port);
        }
        Damage::RouteAdded(subnet) => drop(sh(&format!(
            "ip link add foreign type bridge; ip link set foreign up; ip route add {}/{} dev foreign",
            subnet.address, subnet.prefix
        ))),
        Damage::RouteRemoved(_) => drop(sh("ip link del foreign")),
        Damage::BridgeDeleted(key) => drop(sh(&format!("ip link del {}", bridge(key)))),
        Damage::BridgeDown(key) => drop(sh(&format!("ip link set {} down", bridge(key)))),
        Damage::BridgeAddressRemoved(key) => drop(sh(&format!("ip addr flush dev {}", bridge(key)))),
        Damage::BridgeAddressAdded(key, address) => {
            sh(&format!("ip addr add {address}/24 dev {}", bridge(key)));
        }
        Damage::BridgeMtu(key) => drop(sh(&format!("ip link set {} mtu 1280", bridge(key)))),
        Damage::BridgeMac(key) => drop(sh(&format!(
            "ip link set {} address 02:00:00:00:00:98",
            bridge(key)
        ))),
        Damage::BridgeAlias(key) => drop(sh(&format!("ip link set {} alias ''", bridge(key)))),
        Damage::BridgeSpanningTree(key) => drop(sh(&format!(
            "ip link set {} type bridge stp_state 1",
            bridge(key)
        ))),
        Damage::BridgeRenamed(key) => drop(sh(&format!(
            "ip link set {0} down; ip link set {0} name renamed",
            bridge(key)
        ))),
        Damage::BridgeIpv6(key) => drop(sh(&format!(
            "echo 0 >/proc/sys/net/ipv6/conf/{}/disable_ipv6",
            bridge(key)
        ))),
        Damage::BridgeRouteRemoved(key) => {
            drop(sh(&format!("ip route flush dev {} proto kernel", bridge(key))))
        }
        Damage::LocalnetOff(key) => drop(sh(&format!(
            "echo 0 >/proc/sys/net/ipv4/conf/{}/route_localnet",
            bridge(key)
        ))),
        Damage::ForwardingOff => drop(sh("echo 0 >/proc/sys/net/ipv4/ip_forward")),
        Damage::VethDeleted(key, interface) => on_veth(host, key, interface, "ip link del {}"),
        Damage::VethDown(key, interface) => on_veth(host, key, interface, "ip link set {} down"),
        Damage::VethOffBridge(key, interface) => on_veth(host, key, interface, "ip link set {} nomaster"),
        Damage::VethMtu(key, interface) => on_veth(host, key, interface, "ip link set {} mtu 1280"),
        Damage::VethHairpin(key, interface) => {
            on_veth(host, key, interface, "bridge link set dev {} hairpin off");
        }
        Damage::InnerDown(key, interface) => {
            inside(host.pid(key)?, "-n", &["ip", "link", "set", interface, "down"])?;
        }
        Damage::InnerAddressRemoved(key, interface) => {
            inside(host.pid(key)?, "-n", &["ip", "addr", "flush", "dev", interface])?;
        }
        Damage::InnerRouteRemoved(key, _) => {
            inside(host.pid(key)?, "-n", &["ip", "route", "del", "default"])?;
        }
        Damage::InnerMac(key, interface) => {
            let change = ["ip", "link", "set", interface, "address", "02:00:00:00:00:99"];
            inside(host.pid(key)?, "-n", &change)?;
        }
        Damage::LoopbackDown(key) => {
            inside(host.pid(key)?, "-n", &["ip", "link", "set", "lo", "down"])?;
        }
        Damage::RulesFlushed => {
            host.without_agent(|| delete_tables(mark, &[Family::Inet, Family::Bridge]))?
        }
        Damage::RuleDeleted => host.without_agent(|| delete_tables(mark, &[Family::Bridge]))?,
        Damage::EndpointElementDeleted(key) => other_elements(host, |spec| {
            let network = spec.networks.get_mut(key).expect("it is in the firewall");
            network.endpoints.pop_first();
        })?,
        Damage::PortElementDeleted => other_elements(host, |spec| {
            spec.ports.pop_first();
        })?,
        Damage::ZoneDeleted(key) => fs::remove_file(zone_file(host, key)).map_err(text)?,
        Damage::ZoneChanged(key) => {
            let path = zone_file(host, key);
            let mut zone = zone::read(&path).map_err(text)?.ok_or("no zone")?;
            zone.pop_first();
            zone.insert(
                "intruder".to_owned(),
                [std::net::Ipv4Addr::new(192, 0, 2, 66)].into(),
            );
            zone::write(&path, &zone).map_err(text)?;
        }
        other => return more(host, other),
    }
    Ok(())
}

fn more(host: &Linux, damage: &Damage) -> Result<(), String> {
    let volume = |name: &str| host.layout.volumes().join(records::file_name(name));
    let aside = |name: &str| host.directory.path().join(format!("aside-{name}"));
    match damage {
        Damage::MountUnmounted(key, index) => {
            let seen = host.seen(key).ok_or("it is gone")?;
            let container = seen.container.ok_or("it was never started")?;
            let (MountSpec::Volume { target, .. }
            | MountSpec::Bind { target, .. }
            | MountSpec::Tmpfs { target, .. }) = container.mounts.get(*index).ok_or("no such mount")?;
            let target = target.to_str().ok_or("no text")?;
            inside(host.pid(key)?, "-m", &["umount", target])?;
        }
        Damage::UpperDeleted(key) => {
            fs::remove_dir_all(host.layout.container(key).join("upper")).map_err(text)?;
        }
        Damage::VolumeMovedAway(name) => fs::rename(volume(name), aside(name)).map_err(text)?,
        Damage::VolumePutBack(name) => fs::rename(aside(name), volume(name)).map_err(text)?,
        Damage::VolumeReplaced(name) => {
            let (place, kept) = (volume(name), aside(name));
            fs::rename(&place, &kept).map_err(text)?;
            fs::create_dir_all(place.join("data")).map_err(text)?;
            let identity = fs::read_to_string(kept.join("identity")).map_err(text)?;
            let mut identity: serde_json::Value = serde_json::from_str(&identity).map_err(text)?;
            identity["id"] = "another".into();
            fs::write(place.join("identity"), identity.to_string()).map_err(text)?;
        }
        Damage::VolumeRestored(name) => {
            fs::remove_dir_all(volume(name)).map_err(text)?;
            fs::rename(aside(name), volume(name)).map_err(text)?;
        }
        Damage::LimitsChanged(key) => {
            let instance = host
                .cgroup()
                .join(format!("{}/{}", key.project, instance_name(key)));
            let directories = Controllers::find().map_err(text)?.directories(&instance);
            let mut files = directories.iter().map(|directory| directory.join("pids.max"));
            let file = files.find(|file| file.exists()).ok_or("no limit")?;
            fs::write(file, "7").map_err(text)?;
        }
        Damage::ProcessStrayed(key) => {
            let root = cgroup::root().map_err(text)?;
            cgroup::enter(&root, host.pid(key)?).map_err(text)?;
        }
        Damage::ShimKilled(key) => {
            kill(shim(host, key)?, Signal::SIGKILL).map_err(text)?;
            let instance = host
                .cgroup()
                .join(format!("{}/{}", key.project, instance_name(key)));
            until("it has ended, and what it supervised", || {
                (!cgroup::populated(&instance).ok()?).then_some(())
            })?;
        }
        Damage::ShimSilent(key) => kill(shim(host, key)?, Signal::SIGSTOP).map_err(text)?,
        Damage::ShimAnswers(key) => kill(shim(host, key)?, Signal::SIGCONT).map_err(text)?,
        Damage::ProcessKilled(key, _) => {
            let pid = host.pid(key)?;
            kill(nix::unistd::Pid::from_raw(pid as i32), Signal::SIGKILL).map_err(text)?;
            host.ended(key, pid)?;
        }
        Damage::NetworkRecordTorn(key) => {
            fs::write(record(host, kind::NETWORK, &key.to_string()), "{\"ver").map_err(text)?;
        }
        Damage::NetworkRecordDeleted(key) => {
            fs::remove_file(record(host, kind::NETWORK, &key.to_string())).map_err(text)?;
        }
        Damage::VolumeRecordDeleted(key) => {
            fs::remove_file(record(host, kind::VOLUME, &key.to_string())).map_err(text)?;
        }
        Damage::IdRecordDeleted(project) => {
            fs::remove_file(record(host, kind::ID_BASE, project)).map_err(text)?;
        }
        other => return Err(format!("not on a real host: {other:?}")),
    }
    Ok(())
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The supervisor of `key`.
fn shim(host: &Linux, key: &InstanceKey) -> Result<nix::unistd::Pid, String> {
    let shims = cgroup::find_shims(&host.layout.mark).map_err(text)?;
    let own = shims.iter().find(|(_, record)| record.key == *key);
    let (pid, _) = own.ok_or("no supervisor")?;
    Ok(nix::unistd::Pid::from_raw(*pid as i32))
}

fn instance_name(key: &InstanceKey) -> String {
    backend::layout::instance_name(key)
}

fn record(host: &Linux, kind: &str, key: &str) -> PathBuf {
    let name = format!("{}.json", records::file_name(key));
    host.layout.records().join(kind).join(name)
}

fn zone_file(host: &Linux, key: &ResourceKey) -> PathBuf {
    host.layout
        .zones()
        .join(format!("{}@{}.zone", key.project, key.name))
}

fn on_veth(host: &Linux, key: &InstanceKey, interface: &str, line: &str) {
    let veth = names::veth(&host.layout.mark, key, interface);
    sh(&line.replace("{}", &veth));
}

/// As somebody who takes the tables over: they are nobody's while no agent runs.
fn delete_tables(mark: &str, families: &[Family]) {
    let table = names::table(mark);
    let nft = Netlink::open(SockProtocol::NetlinkNetFilter).unwrap();
    let mut transaction = Transaction::default();
    for family in families {
        transaction.add_table(*family, &table, TABLE_OWNER | TABLE_PERSIST, None);
        transaction.delete_table(*family, &table);
    }
    nft.request(&transaction.finish()).unwrap();
}

fn other_elements(host: &Linux, change: impl FnOnce(&mut FirewallSpec)) -> Result<(), String> {
    host.without_agent(|| {
        let firewall = host.firewall();
        let mut spec = firewall.observe().unwrap().spec;
        change(&mut spec);
        firewall.sync(&spec).unwrap();
    })
}
