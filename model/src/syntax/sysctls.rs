//! Settings of one interface as the Engine writes them: `net.ipv4.conf.IFNAME.log_martians=1,…`.

use std::collections::BTreeMap;

use super::cut;

/// Stands where the name of the interface is to be.
pub(crate) const NAME: &str = "IFNAME";
const LIKE: &str = "write it like `net.ipv4.conf.IFNAME.log_martians=1`";

/// Each setting and its value, as the kernel prints it. The error is what is wrong, and what to do.
pub(crate) fn parse(text: &str) -> Result<BTreeMap<String, String>, (String, String)> {
    let mut settings = BTreeMap::new();
    for one in text.split(',').map(str::trim) {
        let wrong = |hint: &str| {
            (
                format!("`{}` is not a setting of one interface", cut(one)),
                hint.to_owned(),
            )
        };
        let (name, value) = one.split_once('=').ok_or_else(|| wrong(LIKE))?;
        let known =
            |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
        let parts: Vec<&str> = name.trim().split('.').collect();
        match parts[..] {
            [_, "ipv6", "conf", NAME, "disable_ipv6"] => {
                return Err(wrong(
                    "remove it: networks have no IPv6, and nothing would guard it",
                ));
            }
            ["net", "ipv4" | "ipv6" | "mpls", "conf" | "neigh", NAME, setting] if known(setting) => {}
            _ => return Err(wrong(LIKE)),
        }
        // Settings of interfaces are numbers, and what is compared later is what the kernel makes of them.
        let value: i64 = value
            .trim()
            .parse()
            .map_err(|_| wrong("give it a whole number"))?;
        settings.insert(parts.join("."), value.to_string());
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_of_one_interface_and_numbers() {
        let found =
            parse("net.ipv4.conf.IFNAME.log_martians=1, net.ipv6.neigh.IFNAME.ucast_solicit = 05").unwrap();
        let found: Vec<String> = found
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(
            found,
            [
                "net.ipv4.conf.IFNAME.log_martians=1",
                "net.ipv6.neigh.IFNAME.ucast_solicit=5"
            ]
        );
        for (text, hint) in [
            ("", "write it like"),
            ("net.ipv4.conf.IFNAME.log_martians", "write it like"),
            ("net.ipv4.conf.eth0.log_martians=1", "write it like"),
            ("net.ipv4.conf.all.log_martians=1", "write it like"),
            ("net.ipv4.ip_forward=1", "write it like"),
            ("kernel.conf.x.IFNAME.y=1", "write it like"),
            ("net.ipv4.conf.IFNAME./etc=1", "write it like"),
            ("net.ipv4.conf.IFNAME...=1", "write it like"),
            ("net.ipv4.conf.IFNAME.log_martians=yes", "whole number"),
            ("net.ipv4.conf.IFNAME.log_martians=1,", "write it like"),
            ("net.ipv6.conf.IFNAME.disable_ipv6=0", "no IPv6"),
        ] {
            let (what, why) = parse(text).unwrap_err();
            assert!(
                what.contains("is not a setting of one interface"),
                "{text}: {what}"
            );
            assert!(why.contains(hint), "{text}: {why}");
        }
    }
}
