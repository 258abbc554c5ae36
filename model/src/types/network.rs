//! Networks, how services take part in them, and the names that they know.

use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use super::text::serialised_as_text;
use crate::syntax::sysctls;

/// A network of a project.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The full name, `<project>_<key>` unless the file gives one.
    pub name: String,
    /// No way out: neither forwarding nor names of the outside.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub internal: bool,
    /// Made by someone else; nothing else is said then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub external: bool,
    /// `None`: `bridge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: BTreeMap<String, String>,
    /// Empty: the plan chooses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<Subnet>,
    /// `None`: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_ipv4: Option<bool>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub enable_ipv6: bool,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// An entry of `ipam.config`: every address lies in `subnet`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    pub subnet: Cidr,
    /// Where addresses are chosen from; `None`: the whole subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_range: Option<Cidr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Kept free, by the name of who has them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aux_addresses: BTreeMap<String, IpAddr>,
}

/// How a service takes part in a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4_address: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_address: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<MacAddress>,
    /// The highest one is attached first; `None`: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// The highest one gives the default route; `None`: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw_priority: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface_name: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: BTreeMap<String, String>,
}

impl Attachment {
    /// The option that has settings of the interface, with commas.
    pub const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

    /// Settings of the interface called `name`, below /proc/sys.
    pub fn sysctls(&self, name: &str) -> BTreeMap<String, String> {
        let text = self.driver_opts.get(Self::SYSCTLS);
        // What is none was refused when it was read.
        let settings = text
            .and_then(|text| sysctls::parse(text).ok())
            .unwrap_or_default();
        let named = settings.into_iter().map(|(setting, value)| {
            let parts: Vec<&str> = setting.split('.').collect();
            let parts = parts
                .into_iter()
                .map(|part| if part == sysctls::NAME { name } else { part });
            (parts.collect::<Vec<_>>().join("/"), value)
        });
        named.collect()
    }
}

/// The names that a service has and knows. Serialised beside the other fields of the service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    /// Of the first network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<MacAddress>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_hosts: Vec<ExtraHost>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// `.` alone: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_search: Vec<String>,
    /// As in resolv.conf(5).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_opt: Vec<String>,
}

/// A line of `/etc/hosts`; `address` is `None` for `host-gateway`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraHost {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

/// A name for another service that only this one knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub service: String,
    pub alias: String,
}

/// A network address and the length of its prefix. The bits behind the prefix are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is no subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseCidrError {
    #[error("`{0}` is not a subnet")]
    Malformed(String),
    #[error("`{0}` is an address in the subnet `{1}`")]
    HostBits(String, Cidr),
}

impl Cidr {
    /// The subnet of this prefix length that an address is in.
    pub fn around(address: IpAddr, prefix: u8) -> Self {
        Cidr {
            address: masked(address, prefix),
            prefix,
        }
    }

    pub fn address(&self) -> IpAddr {
        self.address
    }

    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Never for an address of the other family.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.prefix) == self.address
    }

    pub fn overlaps(&self, other: &Cidr) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - prefix.min(32)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - prefix.min(128)).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

impl FromStr for Cidr {
    type Err = ParseCidrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || ParseCidrError::Malformed(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(malformed)?;
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let digits = prefix.bytes().all(|c| c.is_ascii_digit());
        let prefix: u8 = prefix.parse().map_err(|_| malformed())?;
        if !digits || prefix > most {
            return Err(malformed());
        }
        let cidr = Cidr::around(address, prefix);
        if cidr.address != address {
            return Err(ParseCidrError::HostBits(text.to_owned(), cidr));
        }
        Ok(cidr)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Six bytes, of which the first says that it is the address of one station.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MacAddress(pub [u8; 6]);

/// The text is no hardware address of one station.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a hardware address of one interface")]
pub struct ParseMacAddressError(String);

impl FromStr for MacAddress {
    type Err = ParseMacAddressError;

    /// Two hexadecimal digits each, between `:` or `-`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseMacAddressError(text.to_owned());
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut bytes = [0; 6];
        let mut parts = text.split(separator);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(wrong)?;
            if !part.bytes().all(|c| c.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        // The lowest bit of the first byte means a group (IEEE 802).
        if parts.next().is_some() || bytes[0] & 1 == 1 || bytes == [0; 6] {
            return Err(wrong());
        }
        Ok(MacAddress(bytes))
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

serialised_as_text!(Cidr, MacAddress);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_end_where_their_prefix_ends() {
        for text in ["10.1.0.0/16", "0.0.0.0/0", "10.0.0.1/32", "fd00::/64", "::/0"] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "bogus",
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "fd00::/129",
            "999.0.0.0/8",
        ] {
            assert!(
                matches!(text.parse::<Cidr>(), Err(ParseCidrError::Malformed(_))),
                "{text}"
            );
        }
        let error = "10.0.0.1/8".parse::<Cidr>().unwrap_err().to_string();
        assert!(error.contains("10.0.0.0/8"), "{error}");
    }

    #[test]
    fn subnets_contain_addresses_of_their_family_and_overlap() {
        let cidr = |text: &str| text.parse::<Cidr>().unwrap();
        let contains = |subnet, address: &str| cidr(subnet).contains(address.parse().unwrap());
        assert!(contains("10.1.0.0/16", "10.1.255.255") && !contains("10.1.0.0/16", "10.2.0.0"));
        assert!(contains("0.0.0.0/0", "1.2.3.4") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("fd00::/64", "fd00::5") && !contains("fd00::/64", "fd01::5"));
        assert!(cidr("10.0.0.0/8").overlaps(&cidr("10.1.0.0/16")));
        assert!(!cidr("10.0.0.0/16").overlaps(&cidr("10.1.0.0/16")));
    }

    #[test]
    fn hardware_addresses_are_those_of_one_interface() {
        for text in ["02:42:ac:11:65:43", "02-42-AC-11-65-43"] {
            assert_eq!(
                text.parse::<MacAddress>().unwrap().to_string(),
                "02:42:ac:11:65:43"
            );
        }
        for text in [
            "",
            "02:42",
            "01:42:ac:11:65:43",
            "00:00:00:00:00:00",
            "02:42:ac:11:65:43:01",
            "0g:42:ac:11:65:43",
        ] {
            assert!(text.parse::<MacAddress>().is_err(), "{text}");
        }
    }
}
