//! Ports, volumes and devices of a service: the short forms with colons.

use super::place::{Place, each, mapping};
use crate::{
    report::Report,
    syntax::{clean_text, cut, device, port, volume},
    tree::{At, Entry, Node, Value},
};

/// A project publishes no more ports than this: each is a rule of the firewall.
pub(super) const MAX_PORTS: usize = 16_384;

pub(super) fn ports(node: &mut Node, place: &Place, left: &mut usize, report: &mut Report) {
    let Value::List(items) = &mut node.value else {
        return;
    };
    let mut ports = Vec::with_capacity(items.len());
    for (index, item) in std::mem::take(items).into_iter().enumerate() {
        match expand(&item, *left) {
            None => ports.push(item),
            Some(Ok(parsed)) => {
                *left = left.saturating_sub(parsed.len());
                ports.extend(parsed.into_iter().map(|port| port_node(port, item.at)));
            }
            // It keeps its place, so that those after it keep theirs in messages.
            Some(Err((message, hint))) => {
                report.last_error(item.at, format!("`{}`: {message}", place.item(index)), hint);
                ports.push(item);
            }
        }
    }
    node.value = Value::List(ports);
}

/// The ports of a short form, or a message and a hint. `None`: it is none.
fn expand(item: &Node, left: usize) -> Option<Result<Vec<port::Port>, (String, &'static str)>> {
    let parsed = match &item.value {
        Value::Text(text) => port::parse(text, left),
        Value::Int(number) => port::parse(&number.to_string(), left),
        Value::Float(number) => {
            let hint = "write ports as text in quotes: YAML reads `80.10` and `1e3` as fractions";
            return Some(Err((format!("the number {number} is not a port"), hint)));
        }
        _ => return None,
    };
    Some(match parsed {
        Ok(ports) => Ok(ports),
        Err(error) => Err((error.to_string(), error.hint())),
    })
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

/// Replaces the texts of a list; those without a long form keep their place, and are reported.
fn rewrite(node: &mut Node, place: &Place, mut long: impl FnMut(&str, At, &Place) -> Option<Node>) {
    each(node, place, |item, place| {
        let Value::Text(text) = &item.value else {
            return;
        };
        if let Some(long) = long(text, item.at, place) {
            *item = long;
        }
    });
}

fn volume_node(text: &str, at: At, place: &Place, report: &mut Report) -> Option<Node> {
    let short = match volume::parse(text) {
        Ok(short) => short,
        Err(error) => {
            report.last_error(at, format!("`{place}`: {error}"), error.hint());
            return None;
        }
    };
    for option in &short.ignored {
        report.warning(
            at,
            format!("`{place}`: the option `{}` has no effect here", cut(option)),
            "remove it",
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
            report.last_error(at, format!("`{place}`: {error}"), error.hint());
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
            "1:6 `[1]`: the number 80.1 is not a port|1:13 `[2]`: |1:28 `[4]`: `1-4` makes it",
        );
        assert_eq!(
            node.items().len(),
            1 + 1 + 1 + 4 + 1,
            "what is wrong keeps its place"
        );
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
    fn wrong_volumes_are_told_and_keep_their_place() {
        let (mut node, mut report) = (
            parse("['ab::b', 'ab:/c:cached', {target: /d}]"),
            Report::default(),
        );
        volumes(&mut node, &Place::Root, &mut report);
        found(
            report,
            "1:2 `[0]`: |1:11 `[1]`: the option `cached` has no effect here",
        );
        assert_eq!(
            show(&node),
            "[ab::b, {type: volume, source: ab, target: /c, volume: {}}, {target: /d}]"
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
