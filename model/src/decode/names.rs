//! The names and addresses that a service has and knows.

use std::net::IpAddr;

use super::{Reader, value::Place};
use crate::{
    name::is_hostname,
    syntax::cut,
    types::{ExtraHost, Link, Names},
};

const ADDRESS: &str = "write an address like `10.0.0.5` or `fd00::5`";

impl Reader<'_> {
    pub(super) fn names(&mut self, place: &Place) -> Names {
        Names {
            container_name: self.container_name(place),
            domainname: self.hostname(place, "domainname"),
            mac_address: self.parsed(place, "mac_address", super::networks::MAC),
            extra_hosts: self.extra_hosts(place),
            links: place
                .words("links")
                .iter()
                .map(|link| {
                    let (service, alias) = link.split_once(':').unwrap_or((link, link));
                    Link {
                        service: service.to_owned(),
                        alias: alias.to_owned(),
                    }
                })
                .collect(),
            dns: self.addresses(place, "dns"),
            dns_search: self.search(place),
            dns_opt: place.words("dns_opt"),
        }
    }

    fn container_name(&mut self, place: &Place) -> Option<String> {
        let text = place.word("container_name")?;
        let known = |c: u8| c.is_ascii_alphanumeric() || b"_.-".contains(&c);
        let starts = text.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric());
        if !starts || text.len() < 2 || text.len() > 128 || !text.bytes().all(known) {
            let hint = "use letters, digits, `_`, `.` and `-`, a letter or digit first, from 2 to 128";
            let place = place.get("container_name")?;
            self.refuse(&place, format!("`{}` is not a container name", cut(&text)), hint);
            return None;
        }
        Some(text)
    }

    /// `NAME=ADDRESS`, as the canonical form has it.
    fn extra_hosts(&mut self, place: &Place) -> Vec<ExtraHost> {
        let mut hosts = Vec::new();
        for item in place.list("extra_hosts") {
            let text = item.scalar().unwrap_or_default();
            let (name, address) = text.split_once('=').unwrap_or((&text, ""));
            // Underscores are common in such names, and resolve.
            if !is_hostname(&name.replace('_', "-")) {
                let what = format!("`{}` is not a host name", cut(name));
                self.refuse(&item, what, "write `NAME=ADDRESS`");
                continue;
            }
            let address = match address {
                "host-gateway" => None,
                text => match text.parse() {
                    Ok(address) => Some(address),
                    Err(_) => {
                        let what = format!("`{}` is not an IP address", cut(text));
                        self.refuse(&item, what, "write an IP address, or `host-gateway`");
                        continue;
                    }
                },
            };
            hosts.push(ExtraHost {
                name: name.to_owned(),
                address,
            });
        }
        hosts
    }

    fn addresses(&mut self, place: &Place, key: &str) -> Vec<IpAddr> {
        let mut addresses = Vec::new();
        for item in place.list(key) {
            addresses.extend(self.ip(&item));
        }
        addresses
    }

    pub(super) fn ip(&mut self, place: &Place) -> Option<IpAddr> {
        let text = place.scalar().filter(|text| !text.is_empty())?;
        let address = text.parse().ok();
        if address.is_none() {
            self.refuse(place, format!("`{}` is not an IP address", cut(&text)), ADDRESS);
        }
        address
    }

    fn search(&mut self, place: &Place) -> Vec<String> {
        let mut domains = Vec::new();
        for item in place.list("dns_search") {
            let text = item.scalar().unwrap_or_default();
            let name = text.strip_suffix('.').unwrap_or(&text).replace('_', "-");
            let short = name.len() <= 253 && name.split('.').all(is_hostname);
            if text == "." || short {
                domains.push(text);
            } else {
                let what = format!("`{}` is not a domain", cut(&text));
                self.refuse(&item, what, "write a domain like `example.org`, or `.` for none");
            }
        }
        domains
    }
}
