//! Networks, and how services take part in them.

use std::{collections::BTreeMap, net::IpAddr};

use super::{Reader, value::Place};
use crate::{
    name::is_hostname,
    syntax::{cut, sysctls},
    types::{Attachment, Cidr, Namespace, Network, Service, Subnet},
};

pub(super) const MAC: &str = "write six bytes like `02:42:ac:11:00:05`, the first one even";
const CIDR: &str = "write it like `10.5.0.0/16`";

impl Reader<'_> {
    pub(super) fn network(&mut self, key: &str, place: &Place, project: &str) -> Network {
        let ipv4 = place.get("enable_ipv4").and_then(|flag| flag.scalar());
        let driver = place.word("driver");
        Network {
            name: self.object_name(key, place, project),
            internal: place.flag("internal"),
            external: place.flag("external"),
            driver: driver.filter(|driver| !matches!(driver.as_str(), "bridge" | "default")),
            driver_opts: place.texts_by_name("driver_opts"),
            subnets: self.subnets(place),
            enable_ipv4: (ipv4.as_deref() == Some("false")).then_some(false),
            enable_ipv6: place.flag("enable_ipv6"),
            labels: place.texts_by_name("labels"),
        }
    }

    fn subnets(&mut self, place: &Place) -> Vec<Subnet> {
        let Some(ipam) = place.get("ipam") else {
            return Vec::new();
        };
        let mut subnets = Vec::new();
        for place in ipam.list("config") {
            let subnet: Option<Cidr> = self.parsed(&place, "subnet", CIDR);
            let ip_range: Option<Cidr> = self.parsed(&place, "ip_range", CIDR);
            let gateway = place.get("gateway").and_then(|gateway| self.ip(&gateway));
            let mut aux_addresses = BTreeMap::new();
            for (name, _, address) in place.get("aux_addresses").iter().flat_map(Place::entries) {
                if let Some(address) = self.ip(&address) {
                    self.inside(&place, subnet, address);
                    aux_addresses.insert(name.to_owned(), address);
                }
            }
            if let Some(gateway) = gateway {
                self.inside(&place, subnet, gateway);
            }
            if let (Some(subnet), Some(range)) = (subnet, ip_range)
                && !(subnet.contains(range.address()) && range.prefix() >= subnet.prefix())
            {
                let what = format!("`{range}` is not inside the subnet `{subnet}`");
                let place = place.get("ip_range").unwrap_or_else(|| place.clone());
                self.refuse(&place, what, "choose a part of the subnet");
            }
            subnets.extend(subnet.map(|subnet| Subnet {
                subnet,
                ip_range,
                gateway,
                aux_addresses,
            }));
        }
        subnets
    }

    fn inside(&mut self, place: &Place, subnet: Option<Cidr>, address: IpAddr) {
        if let Some(subnet) = subnet
            && !subnet.contains(address)
        {
            let what = format!("`{address}` is not inside the subnet `{subnet}`");
            self.refuse(place, what, "choose an address of the subnet");
        }
    }

    pub(super) fn attachments(&mut self, place: &Place) -> BTreeMap<String, Attachment> {
        let mut attachments = BTreeMap::new();
        let Some(place) = place.get("networks") else {
            return attachments;
        };
        let mut names: BTreeMap<String, &str> = BTreeMap::new();
        for (key, _, place) in place.entries() {
            let attachment = self.attachment(&place);
            if let Some(name) = &attachment.interface_name
                && let Some(other) = names.insert(name.clone(), key)
            {
                let place = place.get("interface_name").unwrap_or(place);
                let what = format!("the interface of the network `{other}` is called `{name}` already");
                self.refuse(&place, what, "give each a name of its own");
            }
            attachments.insert(key.to_owned(), attachment);
        }
        attachments
    }

    /// The address of the service is that of its first network, which must not have another one.
    pub(super) fn first_mac_address(&mut self, place: &Place, service: &mut Service) {
        let Some(mac) = service.names.mac_address else {
            return;
        };
        let Some(place) = place.get("mac_address") else {
            return;
        };
        match service.networks.iter_mut().next() {
            // Who joins the network of another is told so elsewhere.
            None if matches!(
                service.namespaces.network_mode,
                Some(Namespace::Service(_) | Namespace::Container(_))
            ) => {}
            None => {
                let what = "there is no interface of its own to have the address";
                self.refuse(&place, what, "remove it, or `network_mode`");
            }
            Some((name, attachment)) => match attachment.mac_address {
                Some(other) if other != mac => {
                    let what = format!("the first network, `{name}`, has the address {other} instead");
                    self.refuse(
                        &place,
                        what,
                        "keep the one of the network, which is the newer way to write it",
                    );
                }
                _ => attachment.mac_address = Some(mac),
            },
        }
    }

    fn attachment(&mut self, place: &Place) -> Attachment {
        const PRIORITY: std::ops::RangeInclusive<i128> = i64::MIN as i128..=i64::MAX as i128;
        let mut aliases: Vec<String> = Vec::new();
        for item in place.list("aliases") {
            let alias = item.scalar().unwrap_or_default();
            // Underscores are common in aliases, and resolve.
            if is_hostname(&alias.replace('_', "-")) {
                aliases.push(alias);
            } else {
                let what = format!("`{}` is not a host name", cut(&alias));
                self.refuse(&item, what, "use letters, digits, `-` and `_` between dots");
            }
        }
        Attachment {
            aliases,
            ipv4_address: self.address_of(place, "ipv4_address", IpAddr::is_ipv4),
            ipv6_address: self.address_of(place, "ipv6_address", IpAddr::is_ipv6),
            mac_address: self.parsed(place, "mac_address", MAC),
            priority: self
                .number(place, "priority", PRIORITY)
                .filter(|priority| *priority != 0),
            gw_priority: self
                .number(place, "gw_priority", PRIORITY)
                .filter(|priority| *priority != 0),
            interface_name: self.interface(place),
            driver_opts: self.interface_options(place),
        }
    }

    /// What Docker knows for an interface, as far as it is of the kernel.
    fn interface_options(&mut self, place: &Place) -> BTreeMap<String, String> {
        let mut options = BTreeMap::new();
        for (name, _, value) in place.get("driver_opts").iter().flat_map(Place::entries) {
            let text = value.scalar().unwrap_or_default();
            let known = match name {
                Attachment::SYSCTLS => sysctls::parse(&text).map(drop),
                _ => Err((
                    format!("`{}` is no option of an interface here", cut(name)),
                    format!("remove it; there is `{}`", Attachment::SYSCTLS),
                )),
            };
            match known {
                Ok(()) => drop(options.insert(name.to_owned(), text)),
                Err((what, hint)) => self.refuse(&value, what, &hint),
            }
        }
        options
    }

    fn address_of(&mut self, place: &Place, key: &str, family: fn(&IpAddr) -> bool) -> Option<IpAddr> {
        let place = place.get(key)?;
        let address = self.ip(&place)?;
        if !family(&address) {
            self.refuse(
                &place,
                format!("`{address}` is of the other family"),
                "use the key of its family",
            );
            return None;
        }
        Some(address)
    }

    /// `IFNAMSIZ` of Linux is 16, with the NUL; `%` makes a pattern of a name. `all` and `default` are something
    /// else below /proc/sys/net.
    fn interface(&mut self, place: &Place) -> Option<String> {
        const OTHERS: [&str; 5] = [".", "..", "lo", "all", "default"];
        let text = place.word("interface_name")?;
        let known = |c: u8| c.is_ascii_graphic() && !b"/:%".contains(&c);
        if !(1..=15).contains(&text.len()) || !text.bytes().all(known) || OTHERS.contains(&text.as_str()) {
            let place = place.get("interface_name")?;
            let what = format!("`{}` is not a name for an interface", cut(&text));
            self.refuse(&place, what, "use letters and digits, at most 15");
            return None;
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use crate::decode::tests::read;

    #[test]
    fn the_hardware_address_of_a_service_is_that_of_its_first_network() {
        let of = |service: &str| {
            let (project, found) = read(&format!(
                "services: {{ web: {{ image: 'builtin:hello', mac_address: '02:00:00:00:00:01', {service} }} }}\n\
             networks: {{ a: {{ name: a }}, b: {{ name: b }} }}\n"
            ));
            let attached = project.services["web"].networks.iter();
            let attached = attached.filter_map(|(name, one)| Some(format!("{name} {}", one.mac_address?)));
            (attached.collect::<Vec<_>>().join(", "), found.join(", "))
        };
        let fine = |text: &str| (text.to_owned(), String::new());
        assert_eq!(of("networks: { b: null, a: null }"), fine("a 02:00:00:00:00:01"));
        assert_eq!(
            of(
                "networks: { a: { mac_address: '02:00:00:00:00:01' }, b: { mac_address: '02:00:00:00:00:02' } }"
            ),
            fine("a 02:00:00:00:00:01, b 02:00:00:00:00:02")
        );
        let (_, found) = of("networks: { a: { mac_address: '02:00:00:00:00:02' } }");
        let want =
            "`services.web.mac_address`: the first network, `a`, has the address 02:00:00:00:00:02 instead";
        assert_eq!(found, want);
        let (_, found) = of("network_mode: none");
        assert!(found.contains("there is no interface of its own"), "{found}");
    }

    #[test]
    fn interfaces_have_names_of_the_kernel_each_its_own() {
        let found = |a: &str, b: &str| {
            let (_, found) = read(&format!(
                "services: {{ web: {{ image: 'builtin:hello', networks: {{ a: {{ {a} }}, b: {{ {b} }} }} }} }}\n\
                 networks: {{ a: {{ name: a }}, b: {{ name: b }} }}\n"
            ));
            found.join(", ")
        };
        for (a, b) in [
            ("interface_name: lan", "interface_name: wan"),
            ("interface_name: eth1", "interface_name: eth0"),
            ("interface_name: fifteen-letters", "interface_name: lan.5"),
            (
                "driver_opts: { com.docker.network.endpoint.sysctls: net.ipv4.conf.IFNAME.forwarding=1 }",
                "",
            ),
        ] {
            assert_eq!(found(a, b), "", "{a}, {b}");
        }
        let twice = found("interface_name: lan", "interface_name: lan");
        let want = "`services.web.networks.b.interface_name`: the interface of the network `a` is called `lan` already";
        assert_eq!(twice, want);
        for name in [
            "sixteen-letters!",
            "a/b",
            "a:b",
            "eth%d",
            "lo",
            "all",
            "default",
            "'..'",
            "'a b'",
        ] {
            let said = found(&format!("interface_name: {name}"), "");
            assert!(said.contains("is not a name for an interface"), "{name}: {said}");
        }
        let said = found(
            "driver_opts: { com.docker.network.endpoint.sysctls: net.ipv4.ip_forward=1 }",
            "",
        );
        assert!(said.contains("is not a setting of one interface"), "{said}");
        let said = found("driver_opts: { com.docker.network.endpoint.ifname: lan }", "");
        assert!(said.contains("is no option of an interface here"), "{said}");
    }
}
