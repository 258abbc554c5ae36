//! What the interfaces of a sandbox are called in it, and what is set on them.

use std::{borrow::Cow, collections::BTreeSet};

use model::types::Attachment;

use crate::spec::Endpoint;

/// How `endpoint` shall be, for each of those that a sandbox is to have.
pub fn furnished<'e>(all: &[(&Attachment, &'e Endpoint)]) -> Vec<Cow<'e, Endpoint>> {
    let names = names(all);
    let pairs = all.iter().zip(names);
    pairs
        .map(|((attachment, endpoint), name)| {
            let settings = attachment.sysctls(name.as_deref().unwrap_or(&endpoint.interface));
            match (&endpoint.name, &endpoint.settings) == (&name, &settings) {
                true => Cow::Borrowed(*endpoint),
                false => Cow::Owned(Endpoint {
                    name,
                    settings,
                    ..(*endpoint).clone()
                }),
            }
        })
        .collect()
}

/// Names that are not those of the places. Who asks for none gets that of its place, unless another asks for it:
/// then the first that is free.
fn names(all: &[(&Attachment, &Endpoint)]) -> Vec<Option<String>> {
    let asked: BTreeSet<&str> = all
        .iter()
        .filter_map(|(attachment, _)| asked(attachment))
        .collect();
    let mut others: Vec<&str> = all
        .iter()
        .filter(|(attachment, endpoint)| {
            self::asked(attachment).is_none() && asked.contains(endpoint.interface.as_str())
        })
        .map(|(_, endpoint)| endpoint.interface.as_str())
        .collect();
    // In the order of their places, so that it is always the same.
    others.sort_unstable();
    let places: BTreeSet<&str> = all
        .iter()
        .map(|(_, endpoint)| endpoint.interface.as_str())
        .collect();
    let free = (0..).map(|number| format!("eth{number}"));
    let mut free = free.filter(|name| !asked.contains(name.as_str()) && !places.contains(name.as_str()));
    let others: Vec<(&str, String)> = others.into_iter().zip(&mut free).collect();
    let name = |(attachment, endpoint): &(&Attachment, &Endpoint)| match self::asked(attachment) {
        Some(name) => (name != endpoint.interface).then(|| name.to_owned()),
        None => {
            let mut others = others.iter();
            others.find_map(|(place, name)| (*place == endpoint.interface).then(|| name.clone()))
        }
    };
    all.iter().map(name).collect()
}

fn asked(attachment: &Attachment) -> Option<&str> {
    attachment.interface_name.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::ResourceKey;

    #[test]
    fn who_asks_for_a_name_has_it_and_nobody_else() {
        for (asked, expected) in [
            (&[None, None][..], "eth0 eth1"),
            (&[Some("lan"), None], "lan eth1"),
            (&[Some("eth0"), Some("eth1")], "eth0 eth1"),
            (&[Some("eth1"), Some("eth0")], "eth1 eth0"),
            (&[Some("eth1"), None], "eth1 eth2"),
            (&[None, Some("eth0")], "eth2 eth0"),
            (&[None, Some("eth0"), None, Some("eth2")], "eth4 eth0 eth5 eth2"),
        ] {
            let ends: Vec<(Attachment, Endpoint)> = asked
                .iter()
                .enumerate()
                .map(|(place, name)| (attachment(*name), endpoint(place)))
                .collect();
            let mut all: Vec<_> = ends
                .iter()
                .map(|(attachment, endpoint)| (attachment, endpoint))
                .collect();
            let names = |all: &[(&Attachment, &Endpoint)]| {
                let mut found = furnished(all);
                found.sort_by(|one, other| one.interface.cmp(&other.interface));
                found
                    .iter()
                    .map(|one| one.inside().to_owned())
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            assert_eq!(names(&all), expected, "{asked:?}");
            all.reverse();
            assert_eq!(names(&all), expected, "{asked:?} in another order");
        }
    }

    #[test]
    fn settings_are_of_the_interface_by_its_name_and_go_with_their_line() {
        let mut attachment = attachment(Some("lan"));
        let option = "net.ipv4.conf.IFNAME.log_martians=1".to_owned();
        attachment
            .driver_opts
            .insert(Attachment::SYSCTLS.to_owned(), option);
        let bare = endpoint(0);
        let set = furnished(&[(&attachment, &bare)])[0].clone().into_owned();
        let settings: Vec<_> = set.settings.iter().collect();
        assert_eq!(
            settings,
            [(&"net/ipv4/conf/lan/log_martians".to_owned(), &"1".to_owned())]
        );
        attachment.driver_opts.clear();
        attachment.interface_name = None;
        assert_eq!(*furnished(&[(&attachment, &set)])[0], bare);
    }

    fn attachment(name: Option<&str>) -> Attachment {
        Attachment {
            interface_name: name.map(str::to_owned),
            ..Attachment::default()
        }
    }

    fn endpoint(place: usize) -> Endpoint {
        Endpoint {
            network: ResourceKey {
                project: "shop".into(),
                name: format!("net{place}"),
            },
            interface: format!("eth{place}"),
            name: None,
            settings: Default::default(),
            address: [10, 0, place as u8, 2].into(),
            prefix: 24,
            gateway: None,
            mac: [2; 6],
            mac_asked: false,
        }
    }
}
