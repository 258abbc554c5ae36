//! `extra_hosts`: from every form to a sorted list of `HOST=ADDRESS`.

use super::place::{Place, cut};
use crate::{
    report::Report,
    tree::{At, Node, Value},
};

pub(super) fn list(node: &mut Node, place: &Place, report: &mut Report) {
    let mut hosts: Vec<(String, At)> = Vec::new();
    match &node.value {
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                let place = place.item(index);
                let text = item.value.scalar().unwrap_or_default();
                let Some((host, addresses)) = text.split_once('=').or_else(|| text.split_once(':')) else {
                    report.error(
                        item.at,
                        format!("`{place}`: `{}` has no address", cut(&text)),
                        "write `HOST=ADDRESS`, as in `db.local=10.0.0.7`",
                    );
                    continue;
                };
                if known(host, item.at, &place, report) {
                    hosts.extend(addresses.split(',').map(|address| (line(host, address), item.at)));
                }
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                if !known(&entry.key, entry.at, &place.key(&entry.key), report) {
                    continue;
                }
                let value = &entry.value;
                match &value.value {
                    Value::List(items) => hosts.extend(items.iter().map(|item| {
                        let address = item.value.scalar().unwrap_or_default();
                        (line(&entry.key, &address), item.at)
                    })),
                    other => {
                        let address = other.scalar().unwrap_or_default();
                        hosts.push((line(&entry.key, &address), value.at));
                    }
                }
            }
        }
        _ => return,
    }
    hosts.sort();
    let hosts = hosts.into_iter().map(|(text, at)| Node::text(text, at));
    node.value = Value::List(hosts.collect());
}

fn known(host: &str, at: At, place: &Place, report: &mut Report) -> bool {
    let known = !host.is_empty() && !host.contains([':', '=']);
    if !known {
        report.error(
            at,
            format!("`{place}`: `{}` is no host name", cut(host)),
            "write `HOST=ADDRESS`; an IPv6 address goes behind the `=`, as in `db=::1`",
        );
    }
    known
}

/// Brackets around an address are taken off.
fn line(host: &str, address: &str) -> String {
    let bare = address
        .strip_prefix('[')
        .and_then(|address| address.strip_suffix(']'))
        .filter(|address| !address.is_empty())
        .unwrap_or(address);
    format!("{host}={bare}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical::testing::{found, parse, show};

    #[test]
    fn hosts_become_a_sorted_list() {
        for (value, want) in [
            ("[b=10.0.0.2, 'a:10.0.0.1']", "[a=10.0.0.1, b=10.0.0.2]"),
            (
                "['a:::1', 'b=[::2]', 'c:[10.0.0.1]']",
                "[a=::1, b=::2, c=10.0.0.1]",
            ),
            ("['a=10.0.0.2,10.0.0.1']", "[a=10.0.0.1, a=10.0.0.2]"),
            (
                "{a: host-gateway, b: ['::1', 10.0.0.1], c: }",
                "[a=host-gateway, b=10.0.0.1, b=::1, c=]",
            ),
            ("[a=, 'a=[]']", "[a=, 'a=[]']"),
        ] {
            let (mut node, mut report) = (parse(value), Report::default());
            list(&mut node, &Place::Root, &mut report);
            assert_eq!(show(&node), want);
            found(report, "");
        }
    }

    #[test]
    fn what_has_no_name_or_no_address_is_an_error() {
        for (value, want) in [
            ("[a]", "1:2 `[0]`: `a` has no address"),
            ("['=::1', b=1]", "1:2 `[0]`: `` is no host name"),
            ("['a:b=1']", "1:2 `[0]`: `a:b` is no host name"),
            ("{'a:b': 1}", "1:2 `a:b`: `a:b` is no host name"),
        ] {
            let mut report = Report::default();
            list(&mut parse(value), &Place::Root, &mut report);
            found(report, want);
        }
    }
}
