//! Ports, volumes and devices of a service: the short forms with colons.

use super::place::{Place, mapping};
use crate::{
    report::Report,
    syntax::{clean_text, cut, device, port, volume},
    tree::{At, Entry, Node, Value},
};

/// Ranges in one model expand to no more ports than this: every port of a host, TCP and UDP.
pub(super) const MAX_PORTS: usize = 2 * 65_536;

pub(super) fn ports(node: &mut Node, place: &Place, left: &mut usize, report: &mut Report) {
    let Value::List(items) = &mut node.value else {
        return;
    };
    let mut ports = Vec::with_capacity(items.len());
    for (index, item) in std::mem::take(items).into_iter().enumerate() {
        let text = match &item.value {
            Value::Text(text) => text.clone(),
            Value::Int(number) => number.to_string(),
            Value::Float(number) => {
                report.error(
                    item.at,
                    format!("`{}`: the number {number} is not a port", place.item(index)),
                    "write ports as text in quotes: YAML reads `80.10` and `1e3` as fractions",
                );
                continue;
            }
            _ => {
                ports.push(item);
                continue;
            }
        };
        match port::parse(&text) {
            Ok(parsed) if parsed.len() > *left => {
                *left = 0;
                report.error(
                    item.at,
                    format!(
                        "`{}`: more than {MAX_PORTS} ports are published",
                        place.item(index)
                    ),
                    "publish fewer or smaller ranges",
                );
            }
            Ok(parsed) => {
                *left -= parsed.len();
                ports.extend(parsed.into_iter().map(|port| port_node(port, item.at)));
            }
            Err(error) => report.error(item.at, format!("`{}`: {error}", place.item(index)), error.hint()),
        }
    }
    node.value = Value::List(ports);
}

fn port_node(port: port::Port, at: At) -> Node {
    let mut node = mapping(
        at,
        [
            ("mode", Value::Text("ingress".to_owned())),
            ("target", Value::Int(port.target.into())),
            ("protocol", Value::Text(port.protocol)),
        ],
    );
    set_text(&mut node, "host_ip", port.host_ip);
    set_text(&mut node, "published", port.published);
    node
}

/// Sets a key unless the text is missing or empty.
fn set_text(node: &mut Node, key: &str, text: Option<String>) {
    if let Some(text) = text.filter(|text| !text.is_empty()) {
        let at = node.at;
        node.set(key, Node::text(text, at));
    }
}

pub(super) fn volumes(node: &mut Node, place: &Place, report: &mut Report) {
    rewrite(node, place, |text, at, place| {
        volume_node(text, at, place, report)
    });
}

pub(super) fn devices(node: &mut Node, place: &Place, report: &mut Report) {
    rewrite(node, place, |text, at, place| {
        device_node(text, at, place, report)
    });
}

/// Replaces the texts of a list; those without a long form leave it, as they are reported.
fn rewrite(node: &mut Node, place: &Place, mut long: impl FnMut(&str, At, &Place) -> Option<Node>) {
    let Value::List(items) = &mut node.value else {
        return;
    };
    let mut index = 0;
    items.retain_mut(|item| {
        let place = place.item(index);
        index += 1;
        let Value::Text(text) = &item.value else {
            return true;
        };
        let long = long(text, item.at, &place);
        let known = long.is_some();
        if let Some(long) = long {
            *item = long;
        }
        known
    });
}

fn volume_node(text: &str, at: At, place: &Place, report: &mut Report) -> Option<Node> {
    let short = match volume::parse(text) {
        Ok(short) => short,
        Err(error) => {
            report.error(at, format!("`{place}`: {error}"), error.hint());
            return None;
        }
    };
    if short.drive {
        report.warning(
            at,
            format!(
                "`{place}`: Compose takes a part of `{}` for a Windows drive",
                cut(text)
            ),
            "give the volume a name of two characters or more, or use the long syntax",
        );
    }
    for option in &short.ignored {
        report.warning(
            at,
            format!("`{place}`: the option `{}` has no effect", cut(option)),
            "remove it; what Compose knows is ro, rw, nocopy, z, Z and the propagation modes",
        );
    }
    let kind = match short.kind {
        volume::Kind::Bind => "bind",
        volume::Kind::Volume => "volume",
    };
    let mut node = mapping(at, [("type", Value::Text(kind.to_owned()))]);
    set_text(&mut node, "source", short.source);
    set_text(&mut node, "target", Some(clean_text(&short.target)));
    if short.read_only {
        node.set("read_only", Node::new(Value::Bool(true), at));
    }
    if let Some(bind) = short.bind {
        let mut options = Node::new(Value::Map(Vec::new()), at);
        set_text(&mut options, "selinux", bind.selinux);
        set_text(&mut options, "propagation", bind.propagation);
        if bind.create_host_path {
            options.set("create_host_path", Node::new(Value::Bool(true), at));
        }
        node.set("bind", options);
    }
    if let Some(options) = short.volume {
        let entries = options.nocopy.then(|| Entry {
            key: "nocopy".to_owned(),
            at,
            value: Node::new(Value::Bool(true), at),
        });
        node.set("volume", Node::new(Value::Map(entries.into_iter().collect()), at));
    }
    Some(node)
}

fn device_node(text: &str, at: At, place: &Place, report: &mut Report) -> Option<Node> {
    match device::parse(text) {
        Ok(device) => Some(mapping(
            at,
            [
                ("source", Value::Text(device.source.to_owned())),
                ("target", Value::Text(device.target.to_owned())),
                ("permissions", Value::Text(device.permissions.to_owned())),
            ],
        )),
        Err(error) => {
            report.error(at, format!("`{place}`: {error}"), error.hint());
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical::testing::{found, parse, show};

    #[test]
    fn short_ports_become_long_ones() {
        for (list, want) in [
            ("[80]", "[{mode: ingress, target: 80, protocol: tcp}]"),
            (
                "['8080:80/udp']",
                "[{mode: ingress, target: 80, protocol: udp, published: '8080'}]",
            ),
            (
                "['127.0.0.1:8000-9000:80']",
                "[{mode: ingress, target: 80, protocol: tcp, host_ip: 127.0.0.1, published: 8000-9000}]",
            ),
            (
                "['8080-8081:80-81']",
                "[{mode: ingress, target: 80, protocol: tcp, published: '8080'}, \
                 {mode: ingress, target: 81, protocol: tcp, published: '8081'}]",
            ),
            ("[{target: 80, x-a: b}]", "[{target: 80, x-a: b}]"),
        ] {
            let (mut node, mut report) = (parse(list), Report::default());
            ports(&mut node, &Place::Root, &mut 10, &mut report);
            assert_eq!(show(&node), want);
            found(report, "");
        }
    }

    #[test]
    fn every_wrong_port_is_told_where_it_stands() {
        let (mut node, mut report) = (parse("[80, 80.10, 'http', '1-4', '1-4']"), Report::default());
        let mut left = 6;
        ports(&mut node, &Place::Root, &mut left, &mut report);
        found(
            report,
            "1:6 `[1]`: the number 80.1 is not a port|1:13 `[2]`: |1:28 `[4]`: more than",
        );
        assert_eq!(node.items().len(), 5);
    }

    #[test]
    fn short_volumes_become_long_ones() {
        for (text, want) in [
            ("/data/", "{type: volume, target: /data, volume: {}}"),
            (
                "v1:/data//x/..",
                "{type: volume, source: v1, target: /data, volume: {}}",
            ),
            (
                "v1:/d:ro,nocopy",
                "{type: volume, source: v1, target: /d, read_only: true, volume: {nocopy: true}}",
            ),
            (
                "./a:/d",
                "{type: bind, source: ./a, target: /d, bind: {create_host_path: true}}",
            ),
            (
                "/a:/d:rslave",
                "{type: bind, source: /a, target: /d, bind: {propagation: rslave, create_host_path: true}}",
            ),
        ] {
            let (mut node, mut report) = (parse(&format!("['{text}']")), Report::default());
            volumes(&mut node, &Place::Root, &mut report);
            assert_eq!(show(&node), format!("[{want}]"), "{text}");
            found(report, "");
        }
    }

    #[test]
    fn wrong_volumes_are_told_and_left_out() {
        let (mut node, mut report) = (
            parse("['ab::b', 'ab:/c:cached', {target: /d}, 'v:/v']"),
            Report::default(),
        );
        volumes(&mut node, &Place::Root, &mut report);
        found(
            report,
            "1:2 `[0]`: |1:11 `[1]`: the option `cached` has no effect|1:41 `[3]`: Compose takes a part",
        );
        assert_eq!(
            show(&node),
            "[{type: volume, source: ab, target: /c, volume: {}}, {target: /d}, \
             {type: volume, target: v:/v, volume: {}}]"
        );
    }

    #[test]
    fn short_devices_become_long_ones() {
        for (text, want) in [
            ("/dev/a", "{source: /dev/a, target: /dev/a, permissions: rwm}"),
            (
                "/dev/a:/dev/b",
                "{source: /dev/a, target: /dev/b, permissions: rwm}",
            ),
            (
                "/dev/a:/dev/b:r",
                "{source: /dev/a, target: /dev/b, permissions: r}",
            ),
            ("/dev/a::r", "{source: /dev/a, target: /dev/a, permissions: r}"),
        ] {
            let (mut node, mut report) = (parse(&format!("['{text}']")), Report::default());
            devices(&mut node, &Place::Root, &mut report);
            assert_eq!(show(&node), format!("[{want}]"));
            found(report, "");
        }
        let (mut node, mut report) = (parse("['a:b:c:d']"), Report::default());
        devices(&mut node, &Place::Root, &mut report);
        found(
            report,
            "1:2 `[0]`: the device `a:b:c:d` has more than three parts",
        );
    }
}
