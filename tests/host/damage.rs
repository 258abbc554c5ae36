//! What somebody can break of the network by hand, and how to tell that it is whole again.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{HOST, Host, http, process};

/// One kind of damage to a service or its network.
pub struct Damage {
    pub name: &'static str,
    pub place: Where,
    /// For `sh`: `{bridge}`, `{veth}`, `{subnet}`, `{table}`, `{zone}` and `{zones}` stand for names.
    line: &'static str,
    pub reach: Reach,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    Host,
    /// In the network namespace of the service.
    Inside,
    /// On the host, and refused where the kernel keeps tables for their owner (since 6.9).
    Guarded,
}

/// Who may notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    Service,
    Network,
    Host,
}

const fn damage(name: &'static str, place: Where, reach: Reach, line: &'static str) -> Damage {
    Damage {
        name,
        place,
        line,
        reach,
    }
}

pub const DAMAGES: &[Damage] = {
    use Reach::{Host as Everybody, Network, Service};
    use Where::{Guarded, Host, Inside};
    &[
        damage("bridge deleted", Host, Network, "ip link del {bridge}"),
        damage("eth0 deleted", Inside, Service, "ip link del eth0"),
        damage("zone file deleted", Host, Network, "rm {zone}"),
        damage("bridge down", Host, Network, "ip link set {bridge} down"),
        damage("eth0 down", Inside, Service, "ip link set eth0 down"),
        damage(
            "ip_forward off",
            Host,
            Everybody,
            "echo 0 > /proc/sys/net/ipv4/ip_forward",
        ),
        damage(
            "bridge renamed",
            Host,
            Network,
            "ip link set {bridge} down; ip link set {bridge} name renamed",
        ),
        damage("eth0 renamed", Inside, Service, "ip link set eth0 name renamed"),
        damage("zone file emptied", Host, Network, ": > {zone}"),
        damage(
            "bridge without its address",
            Host,
            Network,
            "ip addr flush dev {bridge}",
        ),
        damage(
            "eth0 without its address",
            Inside,
            Service,
            "ip addr flush dev eth0",
        ),
        damage("veth down", Host, Service, "ip link set {veth} down"),
        damage(
            "bridge with another address",
            Host,
            Network,
            "ip addr add 10.250.9.9/24 dev {bridge}",
        ),
        damage(
            "eth0 with another MAC",
            Inside,
            Service,
            "ip link set eth0 address 02:00:00:00:00:99",
        ),
        damage("veth deleted", Host, Service, "ip link del {veth}"),
        damage(
            "bridge with another MTU",
            Host,
            Network,
            "ip link set {bridge} mtu 1280",
        ),
        damage(
            "eth0 with another MTU",
            Inside,
            Service,
            "ip link set eth0 mtu 1280",
        ),
        damage("veth renamed", Host, Service, "ip link set {veth} name renamed"),
        damage(
            "bridge with another MAC",
            Host,
            Network,
            "ip link set {bridge} address 02:00:00:00:00:98",
        ),
        damage("default route removed", Inside, Service, "ip route del default"),
        damage(
            "veth off its bridge",
            Host,
            Service,
            "ip link set {veth} nomaster",
        ),
        damage(
            "bridge with spanning tree",
            Host,
            Network,
            "ip link set {bridge} type bridge stp_state 1",
        ),
        damage(
            "default route replaced",
            Inside,
            Service,
            "ip route replace blackhole default",
        ),
        damage(
            "hairpin off",
            Host,
            Service,
            "bridge link set dev {veth} hairpin off",
        ),
        damage(
            "bridge without its alias",
            Host,
            Network,
            "ip link set {bridge} alias ''",
        ),
        damage("lo down", Inside, Service, "ip link set lo down"),
        damage(
            "port isolated",
            Host,
            Service,
            "bridge link set dev {veth} isolated on",
        ),
        damage(
            "route to the network removed",
            Host,
            Network,
            "ip route del {subnet} dev {bridge}",
        ),
        damage(
            "lo without its address",
            Inside,
            Service,
            "ip addr del 127.0.0.1/8 dev lo",
        ),
        damage(
            "port learns and floods no more",
            Host,
            Service,
            "bridge link set dev {veth} learning off flood off bcast_flood off",
        ),
        damage(
            "IPv6 on on the bridge",
            Host,
            Network,
            "echo 0 > /proc/sys/net/ipv6/conf/{bridge}/disable_ipv6",
        ),
        damage(
            "resolver rules deleted",
            Inside,
            Service,
            "nft delete table ip stead-resolver",
        ),
        damage(
            "port switched off",
            Host,
            Service,
            "bridge link set dev {veth} state 0",
        ),
        damage(
            "route_localnet off",
            Host,
            Network,
            "echo 0 > /proc/sys/net/ipv4/conf/{bridge}/route_localnet",
        ),
        damage(
            "resolver rules that drop",
            Inside,
            Service,
            "nft chain ip stead-resolver raw '{ policy drop; }'",
        ),
        damage(
            "veth with another MTU",
            Host,
            Network,
            "ip link set {veth} mtu 1280",
        ),
        damage(
            "forwarding off on the bridge",
            Host,
            Network,
            "echo 0 > /proc/sys/net/ipv4/conf/{bridge}/forwarding",
        ),
        damage(
            "route inside removed",
            Inside,
            Service,
            "ip route del {subnet} dev eth0",
        ),
        damage(
            "zone file replaced",
            Host,
            Network,
            "echo 'web 127.0.0.1' > {zone}.x; mv {zone}.x {zone}",
        ),
        damage(
            "IPv6 on in the container",
            Inside,
            Service,
            "echo 0 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6",
        ),
        damage(
            "directory of zones deleted",
            Host,
            Everybody,
            "until rm -r {zones} 2> /dev/null; do :; done",
        ),
        damage(
            "nft flush ruleset",
            Guarded,
            Everybody,
            "nft flush ruleset; nft add table ip foreign",
        ),
        damage(
            "nft table deleted",
            Guarded,
            Everybody,
            "nft delete table inet {table}",
        ),
        damage(
            "nft chain flushed",
            Guarded,
            Everybody,
            "nft flush chain inet {table} prerouting",
        ),
        damage(
            "nft elements deleted",
            Guarded,
            Everybody,
            "nft flush set bridge {table} endpoints",
        ),
    ]
};

/// A running service, and what of the host is its own.
#[derive(Debug)]
pub struct Target {
    project: String,
    /// The host port it publishes.
    pub port: u16,
    pid: u32,
    start_ticks: u64,
    bridge: String,
    veth: String,
    subnet: String,
    zone: String,
}

impl Target {
    pub fn of(host: &Host, project: &str, service: &str, port: u16) -> Target {
        let instance = host.running(project, service);
        let pid = instance.pid();
        // `2: eth0@if15: …`: the other end has index 15.
        let eth0 = host.tool(
            "nsenter",
            &[
                "-t",
                &pid.to_string(),
                "-n",
                "ip",
                "-o",
                "link",
                "show",
                "dev",
                "eth0",
            ],
        );
        let index = between(&eth0, "@if", ":");
        let links = host.tool("ip", &["-o", "link"]);
        let veth = links
            .lines()
            .find(|line| line.starts_with(&format!("{index}: ")))
            .unwrap_or_else(|| panic!("no link {index} in {links}"));
        let bridge = between(veth, " master ", " ").to_owned();
        let routes = host.tool("ip", &["route", "show", "dev", &bridge]);
        let zones = host.root.join("run/zones");
        let zone = fs::read_dir(&zones)
            .expect("the zones")
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.display().to_string().contains(&format!("/{project}@")))
            .unwrap_or_else(|| panic!("no zone of {project}"));
        Target {
            project: project.to_owned(),
            port,
            pid,
            start_ticks: instance.identity().start_ticks,
            veth: between(veth, ": ", "@").to_owned(),
            subnet: routes.split(' ').next().expect("a route").to_owned(),
            zone: zone.display().to_string(),
            bridge,
        }
    }

    pub fn within(&self, reach: Reach, other: &Target) -> bool {
        match reach {
            Reach::Service => self.port == other.port,
            Reach::Network => self.project == other.project,
            Reach::Host => true,
        }
    }

    /// The same process as at the start.
    pub fn unhurt(&self) -> bool {
        process::alive(self.pid) && process::start_ticks(self.pid) == Some(self.start_ticks)
    }

    /// Does the damage; false where the kernel refused.
    pub fn damage(&self, host: &Host, damage: &Damage) -> bool {
        let line = damage
            .line
            .replace("{bridge}", &self.bridge)
            .replace("{veth}", &self.veth)
            .replace("{subnet}", &self.subnet)
            .replace("{table}", &host.table())
            .replace("{zone}", &self.zone)
            .replace("{zones}", &host.root.join("run/zones").display().to_string());
        let done = match damage.place {
            Where::Inside => self.inside(host, &line),
            Where::Host | Where::Guarded => host.tool_reply("sh", &["-ec", &line]),
        };
        assert!(
            done.code == 0 || damage.place == Where::Guarded,
            "{line}: {done:?}"
        );
        done.code == 0
    }

    fn inside(&self, host: &Host, line: &str) -> super::Reply {
        host.tool_reply("nsenter", &["-t", &self.pid.to_string(), "-n", "sh", "-ec", line])
    }

    /// Everything of the network that is this service's, in words that a repair brings back.
    pub fn picture(&self, host: &Host) -> BTreeSet<String> {
        let (bridge, veth, table) = (&self.bridge, &self.veth, host.table());
        let outside = format!(
            "ip -o link show dev {bridge}; ip -d -o link show dev {bridge} | grep -o 'stp_state [0-9]'; ip -o addr show \
             dev {bridge}; ip route show dev {bridge}; bridge -d link show dev {veth}; ip -o link show dev {veth} | sed 's/ether [^ ]*//'; \
             nft list table inet {table}; nft list table bridge {table}; cd /proc/sys/net; head ipv4/ip_forward \
             ipv4/conf/{bridge}/route_localnet ipv4/conf/{bridge}/forwarding ipv6/conf/{bridge}/disable_ipv6 \
             ipv6/conf/{veth}/disable_ipv6; ls -l {zone} | cut -c1-10; cat {zone}",
            zone = self.zone
        );
        let inside = "ip -o link; ip -o addr; ip route; nft list ruleset; head /proc/sys/net/ipv6/conf/eth0/disable_ipv6";
        let mut picture = BTreeSet::new();
        let outside = host.tool_reply("sh", &["-c", &outside]).stdout;
        let inside = self.inside(host, inside).stdout;
        for (place, text) in [("outside", outside), ("inside", inside)] {
            for word in text.split([',', '\n']) {
                picture.insert(format!("{place}: {}", without_numbers(word.trim())));
            }
        }
        picture
    }

    /// A request from outside: through the host port, by name to a neighbour, over the bridge.
    pub fn request(&self, neighbour: &str, limit: Duration) -> Result<(), String> {
        let address = SocketAddr::new(HOST, self.port);
        http::get_within(address, &format!("/call/{neighbour}"), limit).map(drop)
    }

    /// Waits until it looks as in `picture` and answers, and gives the moment.
    pub fn whole_again(
        &self,
        host: &Host,
        picture: &BTreeSet<String>,
        neighbour: &str,
        patience: Duration,
    ) -> Result<Instant, String> {
        let deadline = Instant::now() + patience;
        loop {
            let now = self.picture(host);
            let trouble = match now == *picture {
                true => host
                    .network
                    .on_lan(|| self.request(neighbour, Duration::from_millis(250)))
                    .err(),
                false => Some(format!(
                    "missing {:#?}, too much {:#?}",
                    picture.difference(&now).collect::<Vec<_>>(),
                    now.difference(picture).collect::<Vec<_>>()
                )),
            };
            match trouble {
                None => return Ok(Instant::now()),
                Some(trouble) if Instant::now() > deadline => return Err(trouble),
                Some(_) => {}
            }
        }
    }
}

/// Indices and numbers of namespaces differ after every repair.
fn without_numbers(line: &str) -> String {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    if words.first().is_some_and(|word| {
        word.strip_suffix(':')
            .is_some_and(|number| number.parse::<u32>().is_ok())
    }) {
        words.remove(0);
    }
    if let Some(at) = words.iter().position(|word| *word == "link-netnsid") {
        words.drain(at..(at + 2).min(words.len()));
    }
    let words: Vec<&str> = words
        .iter()
        .map(|word| word.split('@').next().unwrap_or(word))
        .map(|word| word.trim_end_matches(':'))
        .collect();
    words.join(" ")
}

fn between<'t>(text: &'t str, start: &str, end: &str) -> &'t str {
    text.split_once(start)
        .and_then(|(_, rest)| rest.split_once(end))
        .map(|(middle, _)| middle)
        .unwrap_or_else(|| panic!("no “{start}…{end}” in {text}"))
}
