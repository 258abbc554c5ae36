//! The last reshapes, which later steps must not see earlier: commands to words, environments and labels to
//! mappings, hosts to lines (Compose Specification, per attribute).

use super::{
    hosts,
    mapping::{self, Missing},
    place::{Place, cut, each, each_entry},
};
use crate::{
    report::Report,
    syntax::words,
    tree::{Entry, Node, Value},
};

/// Brings every value of a model that is complete otherwise to its final shape.
pub(crate) fn reshape(model: &mut Node, report: &mut Report) {
    each_entry(model, &Place::Root, |key, value, place| match key {
        "services" => each(value, place, |node, place| service(node, place, report)),
        "networks" | "volumes" | "secrets" | "configs" => {
            each(value, place, |node, place| resource(node, place, report));
        }
        _ => {}
    });
}

fn service(node: &mut Node, place: &Place, report: &mut Report) {
    no_command(node, &["command", "entrypoint"]);
    each_entry(node, place, |key, value, place| match key {
        "annotations" | "labels" | "log_opt" | "storage_opt" | "sysctls" => texts(value, place, report),
        "build" => build(value, place, report),
        "command" | "entrypoint" => command(value, place, report),
        "deploy" => deploy(value, place, report),
        "develop" => {
            if let Some(watch) = value.get_mut("watch") {
                each(watch, &place.key("watch"), |trigger, place| {
                    if let Some(exec) = trigger.get_mut("exec") {
                        hook(exec, &place.key("exec"), report);
                    }
                });
            }
        }
        "dns" | "dns_search" | "expose" | "tmpfs" => mapping::list(value),
        "environment" => mapping::texts(value, Missing::Null, place, report),
        "extra_hosts" => hosts::list(value, place, report),
        "gpus" => each(value, place, |request, place| device(request, place, report)),
        "healthcheck" => test(value),
        "logging" => texts_of(value, &["options"], place, report),
        "networks" => each(value, place, |network, place| {
            texts_of(network, &["driver_opts"], place, report);
        }),
        "post_start" | "pre_start" | "pre_stop" => {
            each(value, place, |node, place| hook(node, place, report))
        }
        "provider" => {
            if let Some(options) = value.get_mut("options") {
                mapping::text_lists(options);
            }
        }
        "volumes" => each(value, place, |volume, place| {
            if let Some(options) = volume.get_mut("volume") {
                texts_of(options, &["labels"], &place.key("volume"), report);
            }
        }),
        _ => {}
    });
}

fn resource(node: &mut Node, place: &Place, report: &mut Report) {
    texts_of(node, &["labels", "driver_opts"], place, report);
    if let Some(ipam) = node.get_mut("ipam") {
        let place = place.key("ipam");
        texts_of(ipam, &["options"], &place, report);
        if let Some(pools) = ipam.get_mut("config") {
            each(pools, &place.key("config"), |pool, place| {
                texts_of(pool, &["aux_addresses"], place, report);
            });
        }
    }
}

fn build(node: &mut Node, place: &Place, report: &mut Report) {
    each_entry(node, place, |key, value, place| match key {
        "additional_contexts" | "labels" => texts(value, place, report),
        "args" => mapping::texts(value, Missing::Null, place, report),
        "cache_from" | "cache_to" | "no_cache_filter" | "platforms" | "tags" => mapping::list(value),
        "extra_hosts" => hosts::list(value, place, report),
        "ssh" => ssh(value),
        _ => {}
    });
}

fn deploy(node: &mut Node, place: &Place, report: &mut Report) {
    texts_of(node, &["labels"], place, report);
    let resources = place.key("resources");
    let reservations = resources.key("reservations");
    let devices = ["resources", "reservations", "devices"]
        .iter()
        .try_fold(node, |node, key| node.get_mut(key));
    if let Some(devices) = devices {
        each(devices, &reservations.key("devices"), |request, place| {
            device(request, place, report);
        });
    }
}

fn hook(node: &mut Node, place: &Place, report: &mut Report) {
    no_command(node, &["command"]);
    each_entry(node, place, |key, value, place| match key {
        "command" => command(value, place, report),
        "environment" => mapping::texts(value, Missing::Null, place, report),
        _ => {}
    });
}

fn texts(node: &mut Node, place: &Place, report: &mut Report) {
    mapping::texts(node, Missing::Empty, place, report);
}

fn texts_of(node: &mut Node, keys: &[&str], place: &Place, report: &mut Report) {
    for key in keys {
        if let Some(value) = node.get_mut(key) {
            texts(value, &place.key(key), report);
        }
    }
}

/// A command that is null is one that is not set. An empty one is kept: it clears that of the image.
fn no_command(node: &mut Node, keys: &[&str]) {
    if let Value::Map(entries) = &mut node.value {
        entries.retain(|entry| !(entry.value.is_null() && keys.contains(&entry.key.as_str())));
    }
}

fn command(node: &mut Node, place: &Place, report: &mut Report) {
    let Value::Text(text) = &node.value else {
        return;
    };
    match words::split(text) {
        Ok(split) => {
            if let Some(dropped) = split.dropped {
                report.warning(
                    node.at,
                    format!(
                        "`{place}`: Compose drops `{}`: no shell reads this command",
                        cut(&dropped)
                    ),
                    "write `[\"sh\", \"-c\", \"…\"]` to have a shell, or quote the character",
                );
            }
            let at = node.at;
            let words = split.words.into_iter().map(|word| Node::text(word, at));
            node.value = Value::List(words.collect());
        }
        Err(error) => report.error(
            node.at,
            format!("`{place}`: {error}"),
            "write the command as a list of words",
        ),
    }
}

fn test(healthcheck: &mut Node) {
    if let Some(test) = healthcheck.get_mut("test")
        && let Value::Text(text) = &mut test.value
    {
        let at = test.at;
        let shell = ["CMD-SHELL".to_owned(), std::mem::take(text)];
        test.value = Value::List(shell.into_iter().map(|word| Node::text(word, at)).collect());
    }
}

/// A mapping of keys to paths becomes a sorted list of `ID` and `ID=PATH`.
fn ssh(node: &mut Node) {
    let Value::Map(entries) = &node.value else {
        return;
    };
    let key = |Entry { key, value, at }: &Entry| match value.value.scalar() {
        Some(path) if !path.is_empty() => (format!("{key}={path}"), *at),
        _ => (key.clone(), *at),
    };
    let mut keys: Vec<_> = entries.iter().map(key).collect();
    keys.sort();
    let keys = keys.into_iter().map(|(text, at)| Node::text(text, at));
    node.value = Value::List(keys.collect());
}

/// All devices are counted as -1.
fn device(request: &mut Node, place: &Place, report: &mut Report) {
    texts_of(request, &["options"], place, report);
    let Some(count) = request.get_mut("count") else {
        return;
    };
    let Value::Text(text) = &count.value else {
        return;
    };
    match text.parse::<i64>() {
        Ok(number) => count.value = Value::Int(number.into()),
        Err(_) if text.eq_ignore_ascii_case("all") => count.value = Value::Int(-1),
        Err(_) => report.error(
            count.at,
            format!(
                "`{}`: `{}` is no number of devices",
                place.key("count"),
                cut(text)
            ),
            "write a whole number, or `all`",
        ),
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        canonical::testing::{found, parse, show},
        report::Report,
    };

    #[test]
    fn values_get_their_final_shape() {
        for (service, want) in [
            ("command: sh -c 'a b'", "command: [sh, -c, a b]"),
            ("command: ''", "command: []"),
            ("command: []", "command: []"),
            ("command: null, image: a", "image: a"),
            ("entrypoint: a b", "entrypoint: [a, b]"),
            (
                "healthcheck: {test: exit 1}",
                "healthcheck: {test: [CMD-SHELL, exit 1]}",
            ),
            (
                "healthcheck: {test: NONE}",
                "healthcheck: {test: [CMD-SHELL, NONE]}",
            ),
            ("healthcheck: {test: [NONE]}", "healthcheck: {test: [NONE]}"),
            ("environment: [A, B=1]", "environment: {A: null, B: '1'}"),
            ("labels: [a, b=c]", "labels: {a: '', b: c}"),
            ("annotations: {a: 1}", "annotations: {a: '1'}"),
            ("sysctls: [a.b=1]", "sysctls: {a.b: '1'}"),
            ("dns_search: a", "dns_search: [a]"),
            ("tmpfs: /a", "tmpfs: [/a]"),
            ("expose: [80, 81/udp]", "expose: ['80', 81/udp]"),
            ("extra_hosts: {a: 1.2.3.4}", "extra_hosts: [a=1.2.3.4]"),
            (
                "logging: {options: {a: 1, b: }}",
                "logging: {options: {a: '1', b: ''}}",
            ),
            (
                "networks: {n: {driver_opts: {a: 1}}}",
                "networks: {n: {driver_opts: {a: '1'}}}",
            ),
            (
                "volumes: [{type: volume, volume: {labels: [a=b]}}]",
                "volumes: [{type: volume, volume: {labels: {a: b}}}]",
            ),
            (
                "pre_stop: [{command: a b, environment: [A]}]",
                "pre_stop: [{command: [a, b], environment: {A: null}}]",
            ),
            (
                "develop: {watch: [{path: a, exec: {command: b c}}]}",
                "develop: {watch: [{path: a, exec: {command: [b, c]}}]}",
            ),
            (
                "provider: {type: t, options: {a: 1}}",
                "provider: {type: t, options: {a: ['1']}}",
            ),
            (
                "gpus: [{count: all}, {count: '2'}]",
                "gpus: [{count: -1}, {count: 2}]",
            ),
            ("deploy: {labels: [a=b]}", "deploy: {labels: {a: b}}"),
            (
                "deploy: {resources: {reservations: {devices: [{count: ALL, options: [a=1]}]}}}",
                "deploy: {resources: {reservations: {devices: [{count: -1, options: {a: '1'}}]}}}",
            ),
            (
                "build: {args: [A, B=], labels: [c], ssh: {b: /k, default: }, tags: [t]}",
                "build: {args: {A: null, B: ''}, labels: {c: ''}, ssh: [b=/k, default], tags: [t]}",
            ),
        ] {
            let mut model = parse(&format!("services: {{web: {{{service}}}}}"));
            let mut report = Report::default();
            super::reshape(&mut model, &mut report);
            assert_eq!(show(&model), format!("{{services: {{web: {{{want}}}}}}}"));
            found(report, "");
        }
    }

    #[test]
    fn labels_and_options_of_resources_are_text() {
        let mut model = parse(
            "networks: {n: {labels: [a], driver_opts: {b: 1}, ipam: {options: {c: 2}, config: [{aux_addresses: {d: 1.2.3.4}}]}}}\n\
             volumes: {v: {driver_opts: {e: }}, w: }\n",
        );
        super::reshape(&mut model, &mut Report::default());
        assert_eq!(
            show(&model),
            "{networks: {n: {labels: {a: ''}, driver_opts: {b: '1'}, ipam: {options: {c: '2'}, config: \
             [{aux_addresses: {d: 1.2.3.4}}]}}}, volumes: {v: {driver_opts: {e: ''}}, w: null}}"
        );
    }

    #[test]
    fn what_is_dropped_or_unreadable_is_told() {
        for (service, want) in [
            (
                "command: a; b",
                "1:27 `services.web.command`: Compose drops `; b`",
            ),
            ("entrypoint: a 'b", "1:30 `services.web.entrypoint`: the quote"),
            (
                "gpus: [{count: some}]",
                "1:33 `services.web.gpus[0].count`: `some` is no number",
            ),
            (
                "environment: ['A =b']",
                "1:32 `services.web.environment[0]`: there is a blank",
            ),
        ] {
            let mut report = Report::default();
            super::reshape(
                &mut parse(&format!("services: {{web: {{{service}}}}}")),
                &mut report,
            );
            found(report, want);
        }
    }
}
